//! Who may do what: tokens with roles, and the hosts whose agents are trusted.
//!
//! Knows roles and what each may. Never knows how a request came.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Letters of a secret: 256 bits, hexadecimal.
const SECRET_LEN: usize = 64;

/// What a token's holder may do; each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Read.
    Viewer,
    /// Write documents of one tenant.
    TenantEditor,
    /// Write all documents; enrol and revoke hosts.
    Operator,
    /// Make and remove tokens; read the audit log.
    Admin,
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "tenant-editor" => Ok(Self::TenantEditor),
            "operator" => Ok(Self::Operator),
            "admin" => Ok(Self::Admin),
            _ => Err(format!("`{text}` is no role: viewer, tenant-editor, operator or admin")),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::TenantEditor => "tenant-editor",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}

/// What a token grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// The token's name, which the audit log shows.
    pub(crate) name: String,
    /// The role.
    pub(crate) role: Role,
    /// The one tenant whose documents may be read and written; all if absent.
    pub(crate) tenant: Option<String>,
    /// When it ends, milliseconds since 1970; never if absent.
    pub(crate) expires_ms: Option<i64>,
}

impl Grant {
    /// Whether it has ended at `now_ms`.
    pub(crate) fn is_over(&self, now_ms: i64) -> bool {
        self.expires_ms.is_some_and(|end| end <= now_ms)
    }

    /// Whether its holder may read what `owner` wrote.
    pub(crate) fn may_read(&self, owner: &str) -> bool {
        self.tenant.as_deref().is_none_or(|tenant| tenant == owner)
    }

    /// Whether its holder may write what `owner` owns.
    pub(crate) fn may_write(&self, owner: &str) -> bool {
        match self.role {
            Role::Viewer => false,
            Role::TenantEditor => self.tenant.as_deref() == Some(owner),
            Role::Operator | Role::Admin => self.may_read(owner),
        }
    }

    /// Whether it is all that its role says, for every tenant.
    pub(crate) fn is_everywhere(&self, role: Role) -> bool {
        self.role >= role && self.tenant.is_none()
    }
}

/// A host whose agent was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Host {
    /// Its name.
    pub(crate) host: String,
    /// Codes over the certificates it may come with, newest last: its own, and while that one is new the one before.
    pub(crate) keys: Vec<String>,
    /// When it was enrolled, milliseconds since 1970.
    pub(crate) enrolled_ms: i64,
    /// Whether it is trusted no more.
    pub(crate) revoked: bool,
}

/// A fresh secret, from the kernel.
pub(crate) fn new_secret() -> std::io::Result<String> {
    use std::io::Read;
    let mut bytes = [0; SECRET_LEN / 2];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(blake3::Hash::from_bytes(bytes).to_hex().to_string())
}

/// What is kept of a secret: nobody who reads the database can ask with it.
pub(crate) fn code_of(secret: &str) -> [u8; 32] {
    blake3::hash(secret.as_bytes()).into()
}
