//! Labels and facts of workloads: read, set, taken away.
//!
//! Knows who may write which key. Never knows which group looks at it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use policy_compiler::{TagKind, Tagged};
use serde::{Deserialize, Serialize};

use super::apply::{Answer, waited};
use super::{Caller, Problem, Served, blocking};
use crate::plane::Plane;
use crate::plane::tags::{TagEdit, document_of};

#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Which {
    /// This workload alone.
    workload: Option<String>,
}

/// A label or fact as it stands.
#[derive(Debug, Serialize)]
pub(super) struct Tag {
    workload: String,
    kind: &'static str,
    key: String,
    value: String,
    author: String,
    place: String,
}

/// Labels and facts of workloads, each with who wrote it and where: what the caller may read of them.
#[utoipa::path(get, path = "/v1/workloads", params(Which), responses((status = 200, description = "labels and facts")))]
pub(super) async fn list(
    State(plane): Served,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Tag>>, Problem> {
    let wanted = Arc::clone(&plane.wanted().borrow());
    let is_asked = move |tag: &Tagged<'_>| {
        caller.0.may_read(tag.tenant.as_str())
            && which.workload.as_deref().is_none_or(|workload| tag.workload.as_str() == workload)
    };
    blocking(move || {
        let tags = wanted.form.iter().flat_map(|form| form.tags()).filter(is_asked);
        Ok(Json(tags.map(|tag| told(&tag)).collect()))
    })
    .await
}

fn told(tag: &Tagged<'_>) -> Tag {
    Tag {
        workload: tag.workload.to_string(),
        kind: match tag.kind {
            TagKind::Label => "label",
            TagKind::Fact => "fact",
        },
        key: tag.key.to_string(),
        value: tag.value.to_string(),
        author: tag.author.to_string(),
        // What is set here stands in no document that somebody would look up by line.
        place: document_of(tag).map_or_else(|| tag.place.clone(), ToOwned::to_owned),
    }
}

/// A value.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Value {
    value: String,
}

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Patience {
    /// Seconds to wait until every attached NIC enforces it; absent: not at all.
    wait_enforced_s: Option<u64>,
}

/// Sets a fact (`kind` is `facts`) or a label (`labels`) of a workload: a new version of the policy.
#[utoipa::path(put, path = "/v1/workloads/{workload}/{kind}/{key}", params(("workload" = String, Path), ("kind" = String, Path), ("key" = String, Path), Patience), request_body = Value, responses((status = 200, description = "version and NICs"), (status = 404, description = "no such workload or key"), (status = 422, description = "refused, with findings")))]
pub(super) async fn set(
    State(plane): Served,
    caller: Caller,
    Path((workload, kind, key)): Path<(String, String, String)>,
    Query(patience): Query<Patience>,
    Json(Value { value }): Json<Value>,
) -> Result<Json<Answer>, Problem> {
    let edit = TagEdit { kind: kind_of(&kind)?, workload, key, value: Some(value) };
    tag(plane, caller, edit, patience).await
}

/// Takes a fact or label away that was set here: a new version of the policy.
#[utoipa::path(delete, path = "/v1/workloads/{workload}/{kind}/{key}", params(("workload" = String, Path), ("kind" = String, Path), ("key" = String, Path), Patience), responses((status = 200, description = "version and NICs"), (status = 409, description = "a document says it: change it there")))]
pub(super) async fn remove(
    State(plane): Served,
    caller: Caller,
    Path((workload, kind, key)): Path<(String, String, String)>,
    Query(patience): Query<Patience>,
) -> Result<Json<Answer>, Problem> {
    let edit = TagEdit { kind: kind_of(&kind)?, workload, key, value: None };
    tag(plane, caller, edit, patience).await
}

async fn tag(
    plane: Arc<Plane>,
    caller: Caller,
    edit: TagEdit,
    patience: Patience,
) -> Result<Json<Answer>, Problem> {
    let asked = Arc::clone(&plane);
    let applied = blocking(move || {
        caller.need_to_write(&asked.owner_of_tag(&edit)?)?;
        Ok(asked.tag(&edit, &caller.0.name)?)
    })
    .await?;
    Ok(Json(waited(&plane, applied, patience.wait_enforced_s).await))
}

fn kind_of(word: &str) -> Result<TagKind, Problem> {
    match word {
        "facts" => Ok(TagKind::Fact),
        "labels" => Ok(TagKind::Label),
        _ => Err(Problem::not_found(format!("a workload has `facts` and `labels`, and no `{word}`"))),
    }
}
