//! One step of a conn without a state machine of its own: UDP, echo, other protocols.
//!
//! Knows who asked and who answered. Never knows the table, the clock, the rules.

use fw_model::Reason;

use super::State;
use crate::headers::{IcmpMessage, L4};

/// The state after a frame, or why it is refused.
pub(super) fn step(state: State, by_opener: bool, l4: &L4) -> Result<State, Reason> {
    match l4 {
        L4::Icmp(icmp) => match icmp.message {
            IcmpMessage::EchoRequest { .. } if by_opener => Ok(state),
            IcmpMessage::EchoReply { .. } if !by_opener => Ok(State::Answered),
            IcmpMessage::EchoRequest { .. }
            | IcmpMessage::EchoReply { .. }
            | IcmpMessage::Error(_)
            | IcmpMessage::Redirect
            | IcmpMessage::Nd(_)
            | IcmpMessage::Other => Err(Reason::NoConn),
        },
        L4::Tcp(_) | L4::Udp(_) | L4::Group(_) | L4::Other | L4::Fragment => {
            Ok(if by_opener { state } else { State::Answered })
        }
    }
}
