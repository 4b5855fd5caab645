//! Tokens and hosts: who is let in, and who no more.
//!
//! Knows roles and words to enrol. Never knows a policy.

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::documents::key;
use super::{Caller, Problem, Served, blocking};
use crate::clock::now_ms;
use crate::roles::{Grant, Role};

/// A token to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NewToken {
    name: String,
    /// viewer, tenant-editor, operator or admin.
    role: String,
    tenant: Option<String>,
    /// Seconds until it ends; never if absent.
    expires_in_s: Option<u32>,
}

/// Makes a token; its secret is told once and not kept.
#[utoipa::path(post, path = "/v1/tokens", request_body = NewToken, responses((status = 200, description = "the secret")))]
pub(super) async fn add_token(
    State(plane): Served,
    caller: Caller,
    Json(asked): Json<NewToken>,
) -> Result<Json<Value>, Problem> {
    let who = caller.need(Role::Admin)?.to_owned();
    let role: Role = asked.role.parse().map_err(Problem::bad)?;
    if role == Role::TenantEditor && asked.tenant.is_none() {
        return Err(Problem::bad("a tenant-editor needs `tenant`: the one whose documents it writes"));
    }
    key(asked.tenant.as_deref().unwrap_or("provider"), &asked.name)?;
    let expires_ms = asked.expires_in_s.map(|seconds| now_ms() + i64::from(seconds) * 1000);
    let grant = Grant { name: asked.name, role, tenant: asked.tenant, expires_ms };
    let secret = blocking(move || Ok(plane.add_token(&grant, &who)?)).await?;
    Ok(Json(json!({"token": secret})))
}

/// Ends a token.
#[utoipa::path(delete, path = "/v1/tokens/{name}", params(("name" = String, Path)), responses((status = 200, description = "it is gone")))]
pub(super) async fn remove_token(
    State(plane): Served,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let who = caller.need(Role::Admin)?.to_owned();
    blocking(move || {
        let mut store = plane.store();
        if !store.remove_token(&name)? {
            return Err(Problem::not_found(format!("there is no token {name}")));
        }
        store.audit(now_ms(), &who, &format!("removed token {name}"))?;
        Ok(Json(json!({})))
    })
    .await
}

/// Gives a word with which a host's agent may enrol once, within the hour.
#[utoipa::path(post, path = "/v1/hosts/{host}/invite", params(("host" = String, Path)), responses((status = 200, description = "the word")))]
pub(super) async fn invite(
    State(plane): Served,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Json<Value>, Problem> {
    let who = caller.need(Role::Operator)?.to_owned();
    key("provider", &host)?;
    let word = blocking(move || {
        let word = plane.invite(&host)?;
        plane.store().audit(now_ms(), &who, &format!("invited host {host}"))?;
        Ok(word)
    });
    Ok(Json(json!({"word": word.await?})))
}

/// Trusts a host no more, at once.
#[utoipa::path(delete, path = "/v1/hosts/{host}", params(("host" = String, Path)), responses((status = 200, description = "it is trusted no more")))]
pub(super) async fn revoke(
    State(plane): Served,
    caller: Caller,
    Path(host): Path<String>,
) -> Result<Json<Value>, Problem> {
    let who = caller.need(Role::Operator)?.to_owned();
    blocking(move || {
        let was_there = plane.revoke(&host, &who)?;
        was_there
            .then_some(Json(json!({})))
            .ok_or_else(|| Problem::not_found(format!("there is no host {host}")))
    })
    .await
}

/// What an agent comes with at first.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EnrolRequest {
    /// The word it was given.
    pub(crate) word: String,
    /// A certificate signing request, PEM.
    pub(crate) request: String,
}

/// What it goes with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Enrolled {
    /// The host it is for.
    pub(crate) host: String,
    /// Its certificate chain, PEM.
    pub(crate) chain: String,
}

/// Certifies an agent that comes with a good word.
#[utoipa::path(post, path = "/v1/enrol", request_body = EnrolRequest, responses((status = 200, description = "a certificate"), (status = 401, description = "the word is not good")))]
pub(super) async fn enrol(
    State(plane): Served,
    Json(asked): Json<EnrolRequest>,
) -> Result<Json<Enrolled>, Problem> {
    let (host, chain) = blocking(move || Ok(plane.enrol(&asked.word, &asked.request)?)).await?;
    Ok(Json(Enrolled { host, chain }))
}
