//! Conns leave a table and enter another.
//!
//! What enters is held to what the table's own conns are: ports and a state its protocol knows, windows
//! that hold together, a life no longer than its state's. Knows keys, states and deadlines. Never knows the rules.

use fw_model::{FlowKey, Protocol, Reason, Timers};

use super::changes::Follower;
use super::conn::{Conn, State};
use super::tcp::Windows;
use super::{Admitted, Closed, ConnId, Table};
use crate::portable::{PortableConn, Trust};
use crate::time::Tick;

/// How long a segment sent before a conn was taken in may be under way, in milliseconds: it waits in the guest's ring until
/// its VMM has connected again, for which Cloud Hypervisor takes up to a minute.
const SETTLE_MS: u64 = 60_000;

impl Table {
    /// The conn as it leaves, and by what it is allowed; `None` if its time is over.
    pub(crate) fn portable(&self, id: ConnId, now: Tick) -> Option<(PortableConn, Admitted)> {
        let conn = self.store.at(id.0).filter(|conn| conn.deadline > now)?;
        let flow = conn.flow();
        let admitted = conn.admitted();
        let portable = PortableConn {
            flow,
            opener: conn.opener(),
            peer_mac: conn.peer_mac(),
            state: conn.state,
            remaining_ms: conn.deadline.since_ms(now),
            ends_in_ms: (conn.ends_at != Tick(u64::MAX)).then(|| conn.ends_at.since_ms(now)),
            on_revoke: admitted.on_revoke,
            expected: admitted.expected,
            tcp: (flow.protocol == Protocol::TCP).then(|| conn.windows.portable()),
        };
        Some((portable, admitted))
    }

    /// Notes from now on which places change.
    pub(crate) fn follow(&mut self, follower: Follower) {
        let room = usize::try_from(self.store.room()).unwrap_or(usize::MAX);
        self.store.changes(follower).follow(room);
    }

    /// Notes no longer.
    pub(crate) fn leave_alone(&mut self, follower: Follower) {
        self.store.changes(follower).end();
    }

    /// A place whose conn was opened, moved or closed since it was last asked for.
    pub(crate) fn take_changed(&mut self, follower: Follower) -> Option<u32> {
        self.store.changes(follower).take()
    }

    /// All such places at once.
    pub(crate) fn take_all_changed(&mut self, follower: Follower, spare: Vec<u32>) -> Vec<u32> {
        self.store.changes(follower).take_all(spare)
    }

    /// The living conn of a flow, whatever its time.
    pub(crate) fn id_of(&self, flow: &FlowKey) -> Option<ConnId> {
        let is_it = |place| self.store.at(place).is_some_and(|conn| conn.is_of(flow));
        self.index.find(self.hash(flow), is_it).map(ConnId)
    }

    /// Has the system give the memory of so many conns now, not while they are taken in.
    pub(crate) fn prepare(&mut self, conns: u32) {
        self.store.prepare(conns);
        self.index.prepare();
    }

    /// Takes a conn in. `Ok` names what had to go for it.
    pub(crate) fn adopt(
        &mut self,
        arriving: &PortableConn,
        hash: u64,
        admitted: &Admitted,
        trust: Trust,
        now: Tick,
        timers: &Timers,
    ) -> Result<Option<Closed>, Reason> {
        let flow = &arriving.flow;
        let windows = windows_of(arriving, trust).ok_or(Reason::RecordImpossible)?;
        let twin = self.index.find(hash, |place| self.store.at(place).is_some_and(|conn| conn.is_of(flow)));
        if twin.is_some() {
            return Err(Reason::RecordTwice);
        }
        let pool_full = arriving.state.is_unproven() && self.store.unproven() >= self.unproven_limit;
        let gone = self.make_room(pool_full)?;
        let mut conn = Conn::new(flow, arriving.opener, arriving.peer_mac, admitted, arriving.state, windows);
        let life_ms = u64::from(arriving.state.life_s(flow.protocol, timers)) * 1000;
        if let Some(ends_in_ms) = arriving.ends_in_ms {
            conn.ends_at = now.after_ms(ends_in_ms);
        }
        conn.deadline = now.after_ms(arriving.remaining_ms.min(life_ms)).min(conn.ends_at);
        let place = self.store.place(conn).ok_or(Reason::TableFull)?;
        self.index.insert(hash, place);
        self.settled = now.after_ms(SETTLE_MS);
        Ok(gone)
    }
}

/// The windows of a conn that could live; `None` if it could not.
fn windows_of(arriving: &PortableConn, trust: Trust) -> Option<Windows> {
    let PortableConn { flow, state, .. } = arriving;
    if !can_live(flow) {
        return None;
    }
    match (flow.protocol, state, &arriving.tcp) {
        (Protocol::TCP, State::Asked | State::Answered, _) => None,
        (Protocol::TCP, state, Some(tcp)) => Windows::adopted(*state, tcp, trust),
        (Protocol::TCP, _, None) | (_, _, Some(_)) => None,
        (_, State::Asked | State::Answered, None) => Some(Windows::default()),
        (_, _, None) => None,
    }
}

/// Whether a conn of its protocol can have such ports, between addresses of one family.
fn can_live(flow: &FlowKey) -> bool {
    let FlowKey { local, remote, local_port, remote_port, protocol, .. } = *flow;
    let ports = match protocol {
        Protocol::TCP | Protocol::UDP => local_port != 0 && remote_port != 0,
        // The identifier stands in the requester's port.
        Protocol::ICMP | Protocol::ICMPV6 => local_port == 0 || remote_port == 0,
        _ => local_port == 0 && remote_port == 0,
    };
    let family = match protocol {
        Protocol::ICMP => local.is_v4(),
        Protocol::ICMPV6 => !local.is_v4(),
        _ => true,
    };
    ports && family && local.is_v4() == remote.is_v4()
}
