//! The messages of the link, as protobuf has them.
//!
//! Written as Rust and not as `.proto`: nobody but serve and its agents speaks them, and what would read a `.proto` at build
//! brings a compiler and a graph library along. A tag is never given to another field.

#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Report {
    #[prost(oneof = "report::What", tags = "1, 2, 3, 4")]
    pub(crate) what: Option<report::What>,
}
/// Nested message and enum types in `Report`.
pub(crate) mod report {
    #[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
    pub(crate) enum What {
        #[prost(message, tag = "1")]
        Hello(super::Hello),
        #[prost(message, tag = "2")]
        Nic(super::NicState),
        #[prost(message, tag = "3")]
        Coverage(super::Coverage),
        #[prost(message, tag = "4")]
        Answered(super::Answered),
    }
}
/// The first report on a stream.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Hello {
    #[prost(string, tag = "1")]
    pub(crate) version: String,
    /// The version of the whole policy that this agent keeps; 0 = none.
    #[prost(uint64, tag = "2")]
    pub(crate) kept: u64,
    #[prost(string, repeated, tag = "3")]
    pub(crate) nics: Vec<String>,
}
/// What became of a NIC.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct NicState {
    #[prost(string, tag = "1")]
    pub(crate) nic: String,
    /// Whether its control socket is there.
    #[prost(bool, tag = "2")]
    pub(crate) attached: bool,
    /// The version of the policy it enforces; 0 = none.
    #[prost(uint64, tag = "3")]
    pub(crate) enforced: u64,
    /// Why it does not enforce what it was told; empty if it does.
    #[prost(string, tag = "4")]
    pub(crate) problem: String,
}
/// What on this host is not behind the firewall.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Coverage {
    #[prost(string, repeated, tag = "1")]
    pub(crate) unprotected: Vec<String>,
}
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Order {
    /// The version of the whole policy.
    #[prost(uint64, tag = "1")]
    pub(crate) version: u64,
    /// The version this builds on; 0 = it is whole.
    #[prost(uint64, tag = "2")]
    pub(crate) base: u64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) sets: Vec<SetChange>,
    #[prost(string, repeated, tag = "4")]
    pub(crate) sets_gone: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) nics: Vec<NicRules>,
    #[prost(string, repeated, tag = "6")]
    pub(crate) nics_gone: Vec<String>,
    /// Nothing but a sign of life.
    #[prost(bool, tag = "7")]
    pub(crate) beat: bool,
    /// What this host's engines are asked; comes with a beat.
    #[prost(message, repeated, tag = "8")]
    pub(crate) questions: Vec<Question>,
}
/// What a NIC's engine is asked.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Question {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(string, tag = "2")]
    pub(crate) nic: String,
    /// JSON of a probe.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) probe: Vec<u8>,
}
/// What it says.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Answered {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// JSON of an explanation; empty if there is none.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) explanation: Vec<u8>,
    /// Why there is none.
    #[prost(string, tag = "3")]
    pub(crate) problem: String,
}
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct SetChange {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Whether `added` is all of it.
    #[prost(bool, tag = "2")]
    pub(crate) whole: bool,
    /// JSON list of members.
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) added: Vec<u8>,
    /// JSON list of members.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) removed: Vec<u8>,
}
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct NicRules {
    #[prost(string, tag = "1")]
    pub(crate) nic: String,
    /// JSON of a rule set without its address sets; empty = as before, but for the generation.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) rules: Vec<u8>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) sets: Vec<String>,
    #[prost(uint64, tag = "4")]
    pub(crate) generation: u64,
}
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct RenewRequest {
    /// A certificate signing request, PEM.
    #[prost(string, tag = "1")]
    pub(crate) request: String,
}
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Certificate {
    /// Certificate chain, PEM.
    #[prost(string, tag = "1")]
    pub(crate) chain: String,
}

/// The service's two ends, made by `build.rs`.
#[expect(
    unreachable_pub,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "made by a program"
)]
mod service {
    include!(concat!(env!("OUT_DIR"), "/portcullis.link.v1.Link.rs"));
}

pub(crate) use service::{link_client, link_server};
