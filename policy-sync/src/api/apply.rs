//! A whole change to the policy at once, and waiting until it is enforced.
//!
//! Knows versions and patience. Never knows how a NIC gets its rules.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::documents::key;
use super::{Caller, Problem, Served, blocking};
use crate::plane::realized::Pending;
use crate::plane::{Applied, Edit, Plane};
use crate::roles::Role;

/// The longest a caller may wait, seconds.
const WAIT_MAX_S: u64 = 600;

/// A change to the policy: all of it happens, or none.
#[derive(Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(crate) struct ApplyRequest {
    /// The version this was made for; the newest if absent.
    pub(crate) base: Option<u64>,
    /// What for.
    pub(crate) note: String,
    /// Documents that come or change.
    pub(crate) put: Vec<PutDocument>,
    /// Documents that go.
    pub(crate) remove: Vec<Named>,
    /// Say what would change, and change nothing.
    pub(crate) dry_run: bool,
    /// Seconds to wait until every attached NIC enforces it; absent: not at all.
    pub(crate) wait_enforced_s: Option<u64>,
}

/// A document.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutDocument {
    /// A tenant's name, or `provider`.
    pub(crate) owner: String,
    /// Its name.
    pub(crate) name: String,
    /// YAML or JSON.
    pub(crate) text: String,
}

/// The name of a document.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Named {
    /// A tenant's name, or `provider`.
    pub(crate) owner: String,
    /// Its name.
    pub(crate) name: String,
}

/// What became of a change.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    #[serde(flatten)]
    applied: Applied,
    /// Whether every attached NIC enforces it; absent if nobody waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced: Option<bool>,
    /// NICs that do not, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pending: Vec<Pending>,
}

impl Answer {
    pub(super) const fn of(applied: Applied) -> Self {
        Self { applied, enforced: None, pending: Vec::new() }
    }
}

/// Which version comes again.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RollBackRequest {
    version: u64,
    #[serde(default)]
    wait_enforced_s: Option<u64>,
}

/// Changes the policy, whole or not at all.
#[utoipa::path(post, path = "/v1/apply", request_body = ApplyRequest, responses((status = 200, description = "version, NICs, and with a wait those that do not enforce it yet"), (status = 412, description = "stale base"), (status = 422, description = "refused, with findings")))]
pub(super) async fn apply(
    State(plane): Served,
    caller: Caller,
    Json(request): Json<ApplyRequest>,
) -> Result<Json<Answer>, Problem> {
    let wait = request.wait_enforced_s;
    let mut edit = Edit { base: request.base, note: request.note, ..Edit::default() };
    for document in request.put {
        caller.need_to_write(&document.owner)?;
        edit.put.push((key(&document.owner, &document.name)?, document.text));
    }
    for Named { owner, name } in request.remove {
        caller.need_to_write(&owner)?;
        edit.remove.push(key(&owner, &name)?);
    }
    let (asked, who) = (Arc::clone(&plane), caller.0.name);
    if request.dry_run {
        return Ok(Json(Answer::of(blocking(move || Ok(asked.plan(&edit)?)).await?)));
    }
    let applied = blocking(move || Ok(asked.apply(&edit, &who)?)).await?;
    Ok(Json(waited(&plane, applied, wait).await))
}

/// A new version that says what an older one said.
#[utoipa::path(post, path = "/v1/rollback", request_body = RollBackRequest, responses((status = 200, description = "version and NICs")))]
pub(super) async fn roll_back(
    State(plane): Served,
    caller: Caller,
    Json(request): Json<RollBackRequest>,
) -> Result<Json<Answer>, Problem> {
    let who = caller.need(Role::Operator)?.to_owned();
    let asked = Arc::clone(&plane);
    let applied = blocking(move || Ok(asked.roll_back(request.version, &who)?)).await?;
    Ok(Json(waited(&plane, applied, request.wait_enforced_s).await))
}

/// Waits until every attached NIC enforces what was applied, or something newer.
pub(super) async fn waited(plane: &Plane, applied: Applied, wait_s: Option<u64>) -> Answer {
    let Some(wait_s) = wait_s else { return Answer::of(applied) };
    let mut pulse = plane.realized.pulse();
    let wanted = plane.wanted();
    let concerns =
        |pending: &Pending| applied.changed.contains(&pending.nic) || applied.gone.contains(&pending.nic);
    let behind = || {
        let wanted = Arc::clone(&wanted.borrow());
        let mut pending = plane.realized.pending(&wanted);
        pending.retain(concerns);
        pending
    };
    let all = async { while !behind().is_empty() && pulse.changed().await.is_ok() {} };
    let _ = tokio::time::timeout(Duration::from_secs(wait_s.min(WAIT_MAX_S)), all).await;
    let pending = behind();
    Answer { applied, enforced: Some(pending.is_empty()), pending }
}
