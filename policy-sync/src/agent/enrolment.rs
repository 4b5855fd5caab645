//! An agent's first steps: with a word it was given it gets a certificate, which stays on this host with its key.
//!
//! Knows the API's one open door. Never knows a policy.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use hyper::Method;
use serde_json::{Value, json};

use crate::authority::{self, AuthorityError, write_secret};
use crate::client::{Client, ClientError};

/// Enrols with `word` at serve as `client` knows it; the files go to `state_dir`. The host's name.
pub(crate) async fn enrol(client: &Client, word: &str, state_dir: &Path) -> Result<String, ClientError> {
    let folder = fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    folder.map_err(|error| AuthorityError::File(state_dir.to_owned(), error))?;
    let (key, request) = authority::request()?;
    let asked = json!({"word": word, "request": request});
    let answer = client.ask(Method::POST, "/v1/enrol", Some(&asked)).await?;
    let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default();
    write_secret(&state_dir.join("ca.pem"), &authority::read(&client.authority)?)?;
    write_secret(&state_dir.join("agent.pem"), &(key + text("chain")))?;
    Ok(text("host").to_owned())
}
