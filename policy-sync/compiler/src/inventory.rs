//! What there is: tenants, segments, workloads, their NICs, labels and facts.
//!
//! Knows how each is described. Never knows the policy.

use std::collections::{BTreeMap, BTreeSet};

use fw_model::{Addr, Binding, NicIdentity, VlanId};

use crate::diagnostic::Place;
use crate::name::{Name, Owner};

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Where it is declared.
    pub place: Place,
}

/// A key of labels or facts, declared by its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Who may set it.
    pub owner: Owner,
    /// The only values it may have; any if absent.
    pub values: Option<BTreeSet<Name>>,
    /// Where it is declared.
    pub place: Place,
}

/// An L2 network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The only tenant whose workloads may be on it; anyone's if absent.
    pub tenant: Option<Name>,
    /// Where its addresses are unique.
    pub realm: Name,
    /// The tag its frames carry.
    pub vlan: Option<VlanId>,
    /// Its routers.
    pub gateways: Vec<Binding>,
    /// Its DHCP servers.
    pub dhcp_servers: Vec<Addr>,
    /// Largest IP datagram in bytes; the uplink's if absent.
    pub mtu: Option<u16>,
    /// Where it is declared.
    pub place: Place,
}

/// A NIC of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Who it is. What its segment says (VLAN, routers, DHCP servers, MTU) is added where the NIC's own words are silent.
    pub identity: NicIdentity,
    /// The segment it is on.
    pub segment: Name,
    /// Where it is declared.
    pub place: Place,
}

/// A value of a label or fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// The value.
    pub value: Name,
    /// Who wrote it, and where.
    pub author: Owner,
    /// Where it is written.
    pub place: Place,
}

/// A VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Whose it is.
    pub tenant: Name,
    /// Its labels.
    pub labels: BTreeMap<Name, Tag>,
    /// What others found out about it.
    pub facts: BTreeMap<Name, Tag>,
    /// Its NICs.
    pub nics: Vec<Nic>,
    /// Where it is declared.
    pub place: Place,
}
