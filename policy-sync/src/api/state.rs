//! What is in force: versions, NICs, hosts, the audit log, and waiting for news.
//!
//! Knows what is read. Never changes anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use fw_model::{NicId, RuleSet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::documents::need_everything;
use super::{Caller, Problem, Served, blocking};
use crate::clock::now_ms;
use crate::plane::realized::NicRealized;
use crate::roles::Role;
use crate::store::{Version, first_broken};

/// Most versions that are told at once.
const HISTORY_MAX: u32 = 1000;
/// The longest a watcher waits, seconds.
const WATCH_MAX_S: u64 = 60;

/// Whether serve serves, its version and its time; the only thing that needs no token but the description and enrolment.
#[utoipa::path(get, path = "/v1/health", responses((status = 200, description = "it serves")))]
pub(super) async fn health() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION"), "now_ms": now_ms()}))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Count {
    /// How many versions; 20 if absent.
    count: Option<u32>,
}

/// Versions of the policy, newest first.
#[utoipa::path(get, path = "/v1/history", params(Count), responses((status = 200, description = "versions")))]
pub(super) async fn history(
    State(plane): Served,
    caller: Caller,
    Query(asked): Query<Count>,
) -> Result<Json<Vec<Version>>, Problem> {
    need_everything(&caller)?;
    let count = asked.count.unwrap_or(20).min(HISTORY_MAX);
    blocking(move || Ok(Json(plane.store().history(count)?))).await
}

/// A NIC: what it shall enforce and what it does.
#[derive(Debug, Serialize)]
pub(super) struct NicState {
    nic: NicId,
    wanted: Option<u64>,
    #[serde(flatten)]
    realized: Option<NicRealized>,
}

/// Every NIC that the policy knows or an agent sees.
#[utoipa::path(get, path = "/v1/nics", responses((status = 200, description = "NICs")))]
pub(super) async fn nics(State(plane): Served, caller: Caller) -> Result<Json<Vec<NicState>>, Problem> {
    need_everything(&caller)?;
    let wanted = Arc::clone(&plane.wanted().borrow());
    let mut seen = plane.realized.nics();
    let mut all: Vec<NicState> = wanted
        .nics
        .iter()
        .map(|(nic, shall)| NicState {
            nic: nic.clone(),
            wanted: Some(shall.rules.generation),
            realized: seen.remove(nic),
        })
        .collect();
    all.extend(seen.into_iter().map(|(nic, entry)| NicState { nic, wanted: None, realized: Some(entry) }));
    Ok(Json(all))
}

/// The rules that a NIC shall enforce.
#[utoipa::path(get, path = "/v1/nics/{nic}/rules", params(("nic" = String, Path)), responses((status = 200, description = "a rule set")))]
pub(super) async fn rules(
    State(plane): Served,
    caller: Caller,
    Path(nic): Path<String>,
) -> Result<Json<RuleSet>, Problem> {
    need_everything(&caller)?;
    let wanted = Arc::clone(&plane.wanted().borrow());
    let found =
        nic.parse::<NicId>().ok().and_then(|nic| wanted.nics.get(&nic).map(|shall| shall.at(now_ms())));
    found.map(Json).ok_or_else(|| Problem::not_found(format!("the policy knows no NIC `{nic}`")))
}

/// Hosts: those that were enrolled, and what their agents say is not behind the firewall.
#[utoipa::path(get, path = "/v1/hosts", responses((status = 200, description = "hosts")))]
pub(super) async fn hosts(State(plane): Served, caller: Caller) -> Result<Json<Value>, Problem> {
    need_everything(&caller)?;
    let realized = plane.realized.hosts();
    let enrolled = blocking(move || Ok(plane.store().hosts()?)).await?;
    let host = |host: crate::roles::Host| {
        let seen = realized.get(&host.host);
        json!({
            "host": host.host, "revoked": host.revoked, "enrolled_ms": host.enrolled_ms,
            "connected": seen.is_some_and(|seen| seen.connected),
            "version": seen.map(|seen| &seen.version),
            "unprotected": seen.map(|seen| &seen.unprotected),
        })
    };
    Ok(Json(enrolled.into_iter().map(host).collect()))
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Seen {
    /// The newest version the caller knows.
    version: Option<u64>,
}

/// Waits for a newer version than the one the caller knows, 60 s at most; the newest version.
#[utoipa::path(get, path = "/v1/watch", params(Seen), responses((status = 200, description = "the newest version, and who does not enforce it")))]
pub(super) async fn watch(
    State(plane): Served,
    caller: Caller,
    Query(seen): Query<Seen>,
) -> Result<Json<Value>, Problem> {
    need_everything(&caller)?;
    let mut wanted = plane.wanted();
    let known = seen.version.unwrap_or(0);
    let newer = wanted.wait_for(|wanted| wanted.version > known);
    let _ = tokio::time::timeout(Duration::from_secs(WATCH_MAX_S), newer).await;
    let now = Arc::clone(&plane.wanted().borrow());
    Ok(Json(json!({"version": now.version, "pending": plane.realized.pending(&now)})))
}

/// The audit log, and whether it is whole.
#[utoipa::path(get, path = "/v1/audit", responses((status = 200, description = "lines, and the first that was altered")))]
pub(super) async fn audit(State(plane): Served, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.need(Role::Admin)?;
    let lines = blocking(move || Ok(plane.store().audit_log()?)).await?;
    Ok(Json(json!({"first_altered": first_broken(&lines), "lines": lines})))
}
