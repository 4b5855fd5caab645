//! Documents one by one: read, put, removed; each with its ETag.
//!
//! Knows names and texts. Never knows what a text says.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use policy_compiler::{Name, PROVIDER};
use serde::{Deserialize, Serialize};

use super::apply::Answer;
use super::{Caller, Problem, Served, blocking};
use crate::plane::{Edit, Plane};
use crate::roles::Role;
use crate::store::{Documents, Key};

/// Which version is read.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct AtVersion {
    /// The newest if absent.
    version: Option<u64>,
}

/// A whole policy.
#[derive(Debug, Serialize)]
struct Listed {
    version: u64,
    documents: Vec<Entry>,
}

#[derive(Debug, Serialize)]
struct Entry {
    owner: String,
    name: String,
    etag: String,
    text: String,
}

/// The name of a document, if it is one.
pub(super) fn key(owner: &str, name: &str) -> Result<Key, Problem> {
    if owner != PROVIDER {
        owner.parse::<Name>().map_err(|error| Problem::bad(format!("owner: {error}")))?;
    }
    name.parse::<Name>().map_err(|error| Problem::bad(format!("name: {error}")))?;
    Ok(Key { owner: owner.to_owned(), name: name.to_owned() })
}

pub(super) fn etag(text: &str) -> String {
    format!("\"{}\"", blake3::hash(text.as_bytes()).to_hex().get(..32).unwrap_or_default())
}

fn read(plane: &Plane, version: Option<u64>) -> Result<(u64, Documents), Problem> {
    let store = plane.store();
    let version = match version {
        Some(version) => version,
        None => store.head()?,
    };
    Ok((version, store.documents(version)?))
}

/// The whole policy as it was handed in: what the caller may read of it.
#[utoipa::path(get, path = "/v1/policy", params(AtVersion), responses((status = 200, description = "version and documents")))]
pub(super) async fn list(
    State(plane): Served,
    caller: Caller,
    Query(at): Query<AtVersion>,
) -> Result<Response, Problem> {
    let (version, documents) = blocking(move || read(&plane, at.version)).await?;
    let mine = documents.into_iter().filter(|(key, _)| caller.0.may_read(&key.owner));
    let entry =
        |(key, text): (Key, String)| Entry { owner: key.owner, name: key.name, etag: etag(&text), text };
    let listed = Listed { version, documents: mine.map(entry).collect() };
    Ok(([(ETAG, format!("\"{version}\""))], Json(listed)).into_response())
}

/// One document.
#[utoipa::path(get, path = "/v1/documents/{owner}/{name}", params(("owner" = String, Path), ("name" = String, Path), AtVersion), responses((status = 200, description = "its text", content_type = "application/yaml")))]
pub(super) async fn get(
    State(plane): Served,
    caller: Caller,
    Path((owner, name)): Path<(String, String)>,
    Query(at): Query<AtVersion>,
) -> Result<Response, Problem> {
    let key = key(&owner, &name)?;
    if !caller.0.may_read(&owner) {
        return Err(Problem::forbidden(format!("token {} reads its own tenant alone", caller.0.name)));
    }
    let (_, documents) = blocking(move || read(&plane, at.version)).await?;
    let text = documents.get(&key).ok_or_else(|| missing(&key))?;
    let kind = HeaderValue::from_static("application/yaml");
    let tag = HeaderValue::from_str(&etag(text)).map_err(|error| Problem::internal(error.to_string()))?;
    Ok(([(CONTENT_TYPE, kind), (ETAG, tag)], text.clone()).into_response())
}

/// Puts a document. `If-Match` names the text it replaces, `If-None-Match: *` says that it is new.
#[utoipa::path(put, path = "/v1/documents/{owner}/{name}", params(("owner" = String, Path), ("name" = String, Path)), request_body(content = String, content_type = "application/yaml"), responses((status = 200, description = "version and NICs"), (status = 412, description = "stale"), (status = 422, description = "refused, with findings")))]
pub(super) async fn put(
    State(plane): Served,
    caller: Caller,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
    text: String,
) -> Result<Json<Answer>, Problem> {
    let key = key(&owner, &name)?;
    edit(plane, caller, key, headers, Some(text)).await
}

/// Removes a document: its groups, rules and services are gone.
#[utoipa::path(delete, path = "/v1/documents/{owner}/{name}", params(("owner" = String, Path), ("name" = String, Path)), responses((status = 200, description = "version and NICs")))]
pub(super) async fn remove(
    State(plane): Served,
    caller: Caller,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<Answer>, Problem> {
    let key = key(&owner, &name)?;
    edit(plane, caller, key, headers, None).await
}

async fn edit(
    plane: Arc<Plane>,
    caller: Caller,
    key: Key,
    headers: HeaderMap,
    text: Option<String>,
) -> Result<Json<Answer>, Problem> {
    caller.need_to_write(&key.owner)?;
    blocking(move || {
        let (base, documents) = read(&plane, None)?;
        expected(&headers, documents.get(&key))?;
        let what = if text.is_some() { "put" } else { "remove" };
        let mut edit =
            Edit { base: Some(base), note: format!("{what} {}/{}", key.owner, key.name), ..Edit::default() };
        match text {
            Some(text) => edit.put.push((key, text)),
            None => edit.remove.push(key),
        }
        Ok(Json(Answer::of(plane.apply(&edit, &caller.0.name)?)))
    })
    .await
}

/// Whether there is what the caller thinks there is.
fn expected(headers: &HeaderMap, found: Option<&String>) -> Result<(), Problem> {
    let tag = found.map(|text| etag(text));
    if let Some(wanted) = headers.get(IF_MATCH) {
        let fits = tag.as_ref().is_some_and(|tag| wanted == "*" || wanted == tag.as_str());
        if !fits {
            return Err(Problem::stale(format!(
                "If-Match: the document is {} now: read it, and ask again",
                tag.as_deref().unwrap_or("not there")
            )));
        }
    }
    if headers.get(IF_NONE_MATCH).is_some_and(|wanted| wanted == "*") && tag.is_some() {
        return Err(Problem::stale("If-None-Match: there is such a document already"));
    }
    Ok(())
}

fn missing(key: &Key) -> Problem {
    Problem::not_found(format!("there is no document {}/{}", key.owner, key.name))
}

/// What a caller of this role may see of all tenants.
pub(super) fn need_everything(caller: &Caller) -> Result<(), Problem> {
    caller.need(Role::Viewer).map(|_| ())
}
