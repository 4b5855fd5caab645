//! Groups and whom they pick.
//!
//! Knows how membership is written: static, by selector, nested, minus exclusions; and ranges of addresses. Never knows
//! what a group is used for.

use fw_model::Cidr;

use crate::diagnostic::Place;
use crate::inventory::Workload;
use crate::name::{Name, Ref};

/// Something with the place where it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed<T> {
    /// The thing.
    pub value: T,
    /// Where it is written.
    pub place: Place,
}

/// What a group counts in, or leaves out: the union of these.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parts {
    /// Workloads by name.
    pub members: Vec<Placed<Name>>,
    /// Workloads that one of these picks.
    pub select: Vec<Selector>,
    /// Other groups.
    pub groups: Vec<Placed<Ref>>,
    /// Addresses, whoever holds them.
    pub ranges: Vec<Cidr>,
}

/// Who else may name a group. To name a group grants its members nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// Its owner alone.
    Nobody,
    /// Every tenant.
    All,
    /// These tenants.
    Tenants(Vec<Placed<Name>>),
}

/// A named set of workloads and addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Who is in it.
    pub include: Parts,
    /// Who is not, though the above says so.
    pub exclude: Parts,
    /// Whether all of it is known. While not, rules that allow by it never match and rules that refuse always do.
    pub complete: bool,
    /// Who else may name it.
    pub share: Share,
    /// Where it is declared.
    pub place: Place,
}

/// Picks workloads that meet every condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// The conditions; never none.
    pub conditions: Vec<Condition>,
}

/// Where a condition looks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// A label.
    Label(Name),
    /// A fact, written `fact.KEY`.
    Fact(Name),
    /// Whose the workload is, written `tenant`.
    Tenant,
}

/// One condition of a selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What is looked at.
    pub field: Field,
    /// The values that will do; empty means any, but one there must be.
    pub values: Vec<Name>,
    /// Where it is written.
    pub place: Place,
}

impl Selector {
    /// Whether the selector picks `workload`.
    #[must_use]
    pub fn picks(&self, workload: &Workload) -> bool {
        self.conditions.iter().all(|condition| condition.holds(workload))
    }
}

impl Condition {
    /// What of `workload` meets it, as people read it.
    pub(crate) fn shown(&self, workload: &Workload) -> String {
        let value = self.field.of(workload).map_or("?", Name::as_str);
        match &self.field {
            Field::Label(key) => format!("label {key}={value}"),
            Field::Fact(key) => format!("fact {key}={value}"),
            Field::Tenant => format!("tenant {value}"),
        }
    }

    fn holds(&self, workload: &Workload) -> bool {
        let found = self.field.of(workload);
        found.is_some_and(|found| self.values.is_empty() || self.values.contains(found))
    }
}

impl Field {
    /// What `workload` says there.
    #[must_use]
    pub fn of<'w>(&self, workload: &'w Workload) -> Option<&'w Name> {
        match self {
            Self::Label(key) => workload.labels.get(key).map(|tag| &tag.value),
            Self::Fact(key) => workload.facts.get(key).map(|tag| &tag.value),
            Self::Tenant => Some(&workload.tenant),
        }
    }
}
