//! What went wrong, as its status and JSON: what, and for documents each place with what was expected.
//!
//! Knows errors. Never knows what was asked.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use policy_compiler::{ChangeError, Severity};
use serde::Serialize;

use crate::plane::PlaneError;
use crate::store::StoreError;

/// Something went wrong; nothing was changed.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    told: Told,
}

#[derive(Debug, Serialize)]
struct Told {
    error: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    line: usize,
    severity: &'static str,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, told: Told { error: error.into(), findings: Vec::new() } }
    }

    pub(crate) fn unauthenticated(error: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, error)
    }

    pub(crate) fn forbidden(error: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, error)
    }

    pub(crate) fn not_found(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    pub(crate) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    pub(crate) fn stale(error: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, error)
    }

    pub(crate) fn internal(error: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let status = match error {
            StoreError::Stale { .. } => StatusCode::PRECONDITION_FAILED,
            StoreError::Full => StatusCode::INSUFFICIENT_STORAGE,
            StoreError::Busy => StatusCode::SERVICE_UNAVAILABLE,
            StoreError::Missing(_) => StatusCode::NOT_FOUND,
            StoreError::Damaged(_) | StoreError::Other(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

impl From<PlaneError> for Problem {
    fn from(error: PlaneError) -> Self {
        let text = error.to_string();
        match error {
            PlaneError::Store(error) => error.into(),
            PlaneError::TooMuch(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            PlaneError::Authority(_) => Self::bad(text),
            PlaneError::Tag(ChangeError::NoWorkload(_) | ChangeError::NoKey(..)) => Self::not_found(text),
            PlaneError::Tag(_) => Self::bad(text),
            PlaneError::WrittenElsewhere(..) => Self::new(StatusCode::CONFLICT, text),
            PlaneError::Enrolment => Self::unauthenticated(text),
            PlaneError::Secret(_) => Self::internal(text),
            PlaneError::Policy(refusal) => {
                let mut problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, text);
                let finding = |found: policy_compiler::Diagnostic| Finding {
                    file: found.file.to_string(),
                    line: found.line,
                    severity: match found.severity {
                        Severity::Error => "error",
                        Severity::Warning => "warning",
                    },
                    message: found.message,
                };
                problem.told.findings = refusal.diagnostics.into_iter().map(finding).collect();
                problem
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(self.told)).into_response()
    }
}
