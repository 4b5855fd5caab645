//! Who is in a group, and by what.
//!
//! Knows groups as people name them. Never changes one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use policy_compiler::GroupMember;
use serde::Serialize;

use super::{Caller, Problem, Served, blocking, policy};

/// Somebody who is in a group.
#[derive(Debug, Serialize)]
pub(super) struct Member {
    /// A workload; null where addresses are counted, whoever holds them.
    workload: Option<String>,
    addresses: Vec<String>,
    why: String,
}

/// Who is in a group, and by which fact, label, name, nested group or range.
#[utoipa::path(get, path = "/v1/groups/{owner}/{group}", params(("owner" = String, Path), ("group" = String, Path)), responses((status = 200, description = "members, each with the reason"), (status = 404, description = "no such group")))]
pub(super) async fn who(
    State(plane): Served,
    caller: Caller,
    Path((owner, group)): Path<(String, String)>,
) -> Result<Json<Vec<Member>>, Problem> {
    if !caller.0.may_read(&owner) {
        return Err(Problem::forbidden(format!("token {} reads its own tenant alone", caller.0.name)));
    }
    let wanted = Arc::clone(&plane.wanted().borrow());
    let member = |member: GroupMember| Member {
        workload: member.workload.map(|name| name.to_string()),
        addresses: member.addresses,
        why: member.why,
    };
    blocking(move || {
        let members = policy(&wanted)?.who(&format!("{owner}/{group}")).map_err(Problem::not_found)?;
        Ok(Json(members.into_iter().map(member).collect()))
    })
    .await
}
