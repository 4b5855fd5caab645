//! Names that people give to things of the policy.
//!
//! Knows which letters a name may have, so that every rule's id and every set's name that is made of them fits. Never
//! knows what is named.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a tenant, group, service, label key, label value and the like: 1 to 32 of `a-z A-Z 0-9 . _ -`.
/// Policies and rules may have 40, realms 20 (see [`Name::limited`]).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// Most letters of a name.
pub const NAME_LEN_MAX: usize = 32;
/// Most letters of a policy's or rule's name.
pub const LONG_NAME_LEN_MAX: usize = 40;
/// Most letters of a realm's name, which stands in every set's name.
pub const REALM_LEN_MAX: usize = 20;
/// Most letters of a workload's name: a UUID fits.
pub const WORKLOAD_LEN_MAX: usize = 64;

/// A name that nothing may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name: 1 to {1} of a-z A-Z 0-9 . _ - are")]
pub struct NameError(String, usize);

impl Name {
    /// A name of at most `letters` letters.
    ///
    /// # Errors
    /// It is empty, too long or has other letters.
    pub fn limited(text: &str, letters: usize) -> Result<Self, NameError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=letters).contains(&text.len()) && text.bytes().all(is_plain) {
            return Ok(Self(text.into()));
        }
        Err(NameError(text.chars().take(WORKLOAD_LEN_MAX).collect(), letters))
    }

    /// Before every name there can be.
    pub(crate) fn lowest() -> Self {
        Self("".into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::limited(text, NAME_LEN_MAX)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::limited(&text, WORKLOAD_LEN_MAX)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who wrote a thing and may change it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Who runs the hosts.
    Provider,
    /// Who runs workloads on them.
    Tenant(Name),
}

/// What the provider is called where an owner is named. No tenant may be called so.
pub const PROVIDER: &str = "provider";

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider => f.write_str(PROVIDER),
            Self::Tenant(name) => name.fmt(f),
        }
    }
}

/// A group, service or policy by its owner and name: `shop/web`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref {
    /// Whose it is.
    pub owner: Owner,
    /// Its name, unique among what its owner has of the kind.
    pub name: Name,
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}
