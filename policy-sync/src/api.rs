//! The REST API: who asks, what is asked, and what goes wrong, as JSON.
//!
//! The routes are here; each does one thing in its own file. Knows HTTP. Never knows what a policy means.

pub(crate) mod apply;
mod documents;
mod explain;
mod groups;
mod people;
mod problem;
mod state;
mod workloads;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use policy_compiler::SharedForm;
use utoipa::OpenApi;

use crate::clock::now_ms;
use crate::compiled::Wanted;
use crate::plane::Plane;
use crate::roles::{Grant, Role, code_of};
pub(crate) use problem::Problem;

/// Longest body of a request, in bytes.
pub(crate) const BODY_MAX: usize = 64 << 20;
/// Longest token, in bytes.
const TOKEN_MAX: usize = 256;

/// What every route is given.
pub(crate) type Served = axum::extract::State<Arc<Plane>>;

/// All routes.
pub(crate) fn routes(plane: Arc<Plane>) -> Router {
    Router::new()
        .route("/v1/health", get(state::health))
        .route("/v1/openapi.json", get(async || Json(Description::openapi())))
        .route("/v1/policy", get(documents::list))
        .route(
            "/v1/documents/{owner}/{name}",
            get(documents::get).put(documents::put).delete(documents::remove),
        )
        .route("/v1/apply", post(apply::apply))
        .route("/v1/rollback", post(apply::roll_back))
        .route("/v1/history", get(state::history))
        .route("/v1/nics", get(state::nics))
        .route("/v1/nics/{nic}/rules", get(state::rules))
        .route("/v1/groups/{owner}/{group}", get(groups::who))
        .route("/v1/workloads", get(workloads::list))
        .route("/v1/workloads/{workload}/{kind}/{key}", put(workloads::set).delete(workloads::remove))
        .route("/v1/explain", get(explain::explain))
        .route("/v1/hosts", get(state::hosts))
        .route("/v1/watch", get(state::watch))
        .route("/v1/audit", get(state::audit))
        .route("/v1/tokens", post(people::add_token))
        .route("/v1/tokens/{name}", axum::routing::delete(people::remove_token))
        .route("/v1/hosts/{host}", axum::routing::delete(people::revoke))
        .route("/v1/hosts/{host}/invite", post(people::invite))
        .route("/v1/enrol", post(people::enrol))
        .fallback(async || Problem::not_found("there is no such path: GET /v1/openapi.json lists them"))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(plane)
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Portcullis policy-sync", description = "One policy for every NIC."),
    paths(
        state::health,
        state::history,
        state::nics,
        state::rules,
        state::hosts,
        state::watch,
        state::audit,
        documents::list,
        documents::get,
        documents::put,
        documents::remove,
        groups::who,
        workloads::list,
        workloads::set,
        workloads::remove,
        explain::explain,
        apply::apply,
        apply::roll_back,
        people::add_token,
        people::remove_token,
        people::revoke,
        people::invite,
        people::enrol
    )
)]
struct Description;

/// Who asks, known by the token.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Grant);

impl Caller {
    /// Goes on if the caller may do what `role` may, for every tenant.
    pub(crate) fn need(&self, role: Role) -> Result<&str, Problem> {
        let Grant { name, role: has, tenant, .. } = &self.0;
        if self.0.is_everywhere(role) {
            return Ok(name);
        }
        let of = tenant.as_ref().map(|tenant| format!(" of tenant {tenant}")).unwrap_or_default();
        Err(Problem::forbidden(format!("this needs the role {role}, and token {name} has {has}{of}")))
    }

    /// Goes on if the caller may write what `owner` owns.
    pub(crate) fn need_to_write(&self, owner: &str) -> Result<(), Problem> {
        let Grant { name, role, .. } = &self.0;
        if self.0.may_write(owner) {
            return Ok(());
        }
        Err(Problem::forbidden(format!("token {name} ({role}) may not write documents of {owner}")))
    }
}

/// The compiled policy, if there is one yet.
fn policy(wanted: &Wanted) -> Result<&Arc<SharedForm>, Problem> {
    wanted.form.as_ref().ok_or_else(|| Problem::not_found("there is no policy yet"))
}

impl FromRequestParts<Arc<Plane>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, plane: &Arc<Plane>) -> Result<Self, Problem> {
        let secret = parts
            .headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|secret| secret.len() <= TOKEN_MAX)
            .ok_or_else(|| Problem::unauthenticated("come with `Authorization: Bearer TOKEN`"))?;
        let code = code_of(secret);
        let plane = Arc::clone(plane);
        let grant = blocking(move || Ok(plane.store().token(code)?)).await?;
        let grant = grant.filter(|grant| !grant.is_over(now_ms()));
        grant.map(Self).ok_or_else(|| Problem::unauthenticated("this token is unknown or has ended"))
    }
}

/// Does what may wait for a disk, away from those who serve others.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Problem::internal(error.to_string())))
}
