//! A conn of the engine becomes a saved one, and back.
//!
//! Runtime types and saved types meet here and nowhere else. Knows both. Never knows bytes.

use std::collections::HashMap;

use conn_snapshot::{Record, SavedEnd, SavedState, SavedTcp};
use fw_engine::{Arrival, ConnState, PortableConn, PortableEnd, PortableTcp, RuleSlot};
use fw_model::RuleId;

/// The largest shift of a window (RFC 7323 section 2.3): a larger one counts as this.
const SCALE_MAX: u8 = 14;

/// The rules that conns of a snapshot name, each once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    list: Vec<RuleId>,
    places: HashMap<RuleSlot, Option<u32>>,
}

impl Names {
    pub(crate) fn list(&self) -> &[RuleId] {
        &self.list
    }

    /// The place of a rule in the list; `rules` knows its name.
    pub(crate) fn place_of(&mut self, slot: RuleSlot, rules: &HashMap<RuleSlot, RuleId>) -> Option<u32> {
        let list = &mut self.list;
        *self.places.entry(slot).or_insert_with(|| {
            list.push(rules.get(&slot)?.clone());
            u32::try_from(list.len() - 1).ok()
        })
    }
}

/// The conn as it is saved; `rule` is the place of its rule's name.
pub(crate) fn record(conn: &PortableConn, rule: Option<u32>) -> Record {
    let PortableConn { flow, opener, peer_mac, state, remaining_ms, ends_in_ms, on_revoke, expected, tcp } =
        *conn;
    Record {
        flow,
        opener,
        peer_mac,
        state: match state {
            ConnState::SynSent => SavedState::SynSent,
            ConnState::SynReceived => SavedState::SynReceived,
            ConnState::Established => SavedState::Established,
            ConnState::FinWait => SavedState::FinWait,
            ConnState::TimeWait => SavedState::TimeWait,
            ConnState::Close => SavedState::Close,
            ConnState::Asked => SavedState::Asked,
            ConnState::Answered => SavedState::Answered,
        },
        remaining_ms,
        ends_in_ms,
        on_revoke,
        expected,
        rule,
        tcp: tcp.map(|tcp| {
            let waits = tcp.pending || tcp.challenged;
            SavedTcp {
                ends: tcp.ends.map(saved_end),
                awaited: if waits { tcp.awaited } else { 0 },
                pending_scale: tcp.pending_scale.filter(|_| waits).map(|scale| scale.min(SCALE_MAX)),
                pending: tcp.pending,
                challenged: tcp.challenged,
            }
        }),
    }
}

fn saved_end(end: PortableEnd) -> SavedEnd {
    let PortableEnd { end, max_end, max_window, acked, scale, fin, resuming } = end;
    SavedEnd {
        end,
        max_end,
        max_window,
        acked,
        scale: scale.map(|scale| scale.min(SCALE_MAX)),
        fin,
        resuming,
    }
}

/// The saved conn as it asks to be adopted.
pub(crate) fn arrival(record: &Record) -> Arrival {
    let Record { flow, opener, peer_mac, state, remaining_ms, ends_in_ms, on_revoke, expected, rule, tcp } =
        *record;
    let conn = PortableConn {
        flow,
        opener,
        peer_mac,
        state: match state {
            SavedState::SynSent => ConnState::SynSent,
            SavedState::SynReceived => ConnState::SynReceived,
            SavedState::Established => ConnState::Established,
            SavedState::FinWait => ConnState::FinWait,
            SavedState::TimeWait => ConnState::TimeWait,
            SavedState::Close => ConnState::Close,
            SavedState::Asked => ConnState::Asked,
            SavedState::Answered => ConnState::Answered,
        },
        remaining_ms,
        ends_in_ms,
        on_revoke,
        expected,
        tcp: tcp.map(|tcp| PortableTcp {
            ends: tcp.ends.map(|end| {
                let SavedEnd { end, max_end, max_window, acked, scale, fin, resuming } = end;
                PortableEnd { end, max_end, max_window, acked, scale, fin, resuming }
            }),
            awaited: tcp.awaited,
            pending_scale: tcp.pending_scale,
            pending: tcp.pending,
            challenged: tcp.challenged,
        }),
    };
    Arrival { conn, rule: rule.and_then(|rule| usize::try_from(rule).ok()) }
}
