//! One request to serve over HTTPS, and its answer.
//!
//! Knows HTTP. Never knows what is asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::authority::{self, AuthorityError};

/// Where serve is, and how one asks there.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// `HOST:PORT`.
    pub(crate) serve: String,
    /// The authority's certificate, a PEM file.
    pub(crate) authority: PathBuf,
    /// The token; none for what needs none.
    pub(crate) token: Option<String>,
}

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// The authority's file.
    #[error("{0}")]
    Authority(#[from] AuthorityError),
    /// The way there.
    #[error("{0}: {1}")]
    Way(String, io::Error),
    /// HTTP.
    #[error("serve: {0}")]
    Http(String),
    /// Serve says no.
    #[error("{}", said(.0, .1))]
    Refused(StatusCode, Value),
}

/// What serve said, with every finding on a line of its own.
fn said(status: &StatusCode, body: &Value) -> String {
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut said = match body.get("error").and_then(Value::as_str) {
        Some(error) => error.to_owned(),
        None => format!("{status}: {}", body.as_str().unwrap_or_default()),
    };
    for finding in body.get("findings").and_then(Value::as_array).into_iter().flatten() {
        let line = finding.get("line").and_then(Value::as_u64).unwrap_or(0);
        said.push_str(&format!("\n{}:{line}: {}", text(finding, "file"), text(finding, "message")));
    }
    said
}

impl Client {
    /// Asks without a body.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.ask(Method::GET, path, None).await
    }

    /// Asks; the body and the answer are JSON.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let way = |error| ClientError::Way(self.serve.clone(), error);
        let host = self.serve.rsplit_once(':').map_or(self.serve.as_str(), |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| way(io::Error::other(error)))?;
        let tls = TlsConnector::from(Arc::new(authority::client(&authority::read(&self.authority)?)?));
        let stream = TcpStream::connect(&self.serve).await.map_err(way)?;
        let stream = tls.connect(name, stream).await.map_err(way)?;
        let http = |error: hyper::Error| ClientError::Http(error.to_string());
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header("content-type", "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).map_err(|error| ClientError::Http(error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(http)?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await.map_err(http)?.to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        if status.is_success() { Ok(body) } else { Err(ClientError::Refused(status, body)) }
    }
}
