//! A conn of the engine becomes a saved one, and back.
//!
//! Runtime types and saved types meet here and nowhere else. Knows both. Never knows bytes.

use conn_snapshot::{Record, SavedEnd, SavedState, SavedTcp};
use fw_engine::{Arrival, ConnState, PortableConn, PortableEnd, PortableTcp, RuleSlot};
use fw_model::RuleId;

/// The largest shift of a window (RFC 7323 section 2.3): a larger one counts as this.
const SCALE_MAX: u8 = 14;

/// The rules that conns of a snapshot name, each once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    list: Vec<RuleId>,
    /// Where each slot's name stands in the list.
    places: Vec<Option<u32>>,
}

impl Names {
    pub(crate) fn list(&self) -> &[RuleId] {
        &self.list
    }

    /// Learns the names of slots. A slot may be another rule's after an install.
    pub(crate) fn learn(&mut self, rules: &[(RuleSlot, RuleId)]) {
        for (slot, id) in rules {
            let known = self.place_of(*slot).and_then(|place| self.list.get(usize::try_from(place).ok()?));
            if known == Some(id) {
                continue;
            }
            let place = u32::try_from(self.list.len()).ok();
            self.list.push(id.clone());
            if slot.index() >= self.places.len() {
                self.places.resize(slot.index().saturating_add(1), None);
            }
            if let Some(known) = self.places.get_mut(slot.index()) {
                *known = place;
            }
        }
    }

    /// The place in the list of the name of a slot that was learnt.
    pub(crate) fn place_of(&self, slot: RuleSlot) -> Option<u32> {
        self.places.get(slot.index()).copied().flatten()
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
#[must_use]
pub fn arrival(record: &Record) -> Arrival {
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
