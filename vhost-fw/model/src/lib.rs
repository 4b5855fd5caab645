//! The nouns that two Portcullis programs exchange.
//!
//! Here are names, addresses, rules, reasons and what a NIC tells of itself: values with order, containment and one
//! text form, and no behaviour beyond that. Nothing here may know a frame's bytes, a file, a clock or a socket.

mod addr;
mod control;
mod flow;
mod handover;
mod nic;
mod reason;
mod rule;

pub use addr::{Addr, AddrError, Cidr, PortRange};
pub use control::{
    By, ConnFilter, ConnInfo, Explanation, FrameCounts, Probe, RuleCounts, Stats, VerdictName,
};
pub use flow::{Direction, FlowKey, Protocol};
pub use handover::{Adoption, Arrived, HandoverId};
pub use nic::{Binding, GuardSwitches, LinkLocal, MacAddr, NicId, NicIdError, NicIdentity, VlanId};
pub use reason::Reason;
pub use rule::{
    Action, AddressSet, Default as DefaultAction, Defaults, Helper, IcmpMatch, Limits, Member, OnRevoke,
    ProtocolMatch, Rate, RateLimits, RemoteMatch, Rule, RuleId, RuleIdError, RuleLimits, RuleSet, SetName,
    Timers,
};
