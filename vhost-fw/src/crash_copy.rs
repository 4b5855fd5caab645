//! A copy of the conn table outside of the process: what is left of it when the process is killed.
//!
//! A file in `--state-dir`, mapped before the sandbox closes, with a place for each of the table's; the data thread
//! writes what changed after each round, without a system call. Whoever comes next takes the conns from there. Knows slots
//! and when they are due. Never knows a frame.

mod file;
mod taken;

use std::collections::HashMap;
use std::path::Path;

use conn_snapshot::{Key, RuleTag, SavedSlot, SlotKey};
use fw_engine::{Arrival, Engine, Follower, PortableConn, RuleSlot, Tick, Trust};
use fw_model::{Addr, Adoption, Arrived, HandoverId, NicId, RuleId};

use crate::handover::record;
pub use file::CrashCopyError;
pub(crate) use file::NewFile;
use file::{Found, Origin, SlotFile};
pub(crate) use taken::TAKEN_MAX;

/// Windows that moved are written when they are this old, in milliseconds.
const WINDOWS_MS: u64 = 100;
/// And at once when an end has come this far, in bytes: a quarter of what a resuming conn may lie ahead
/// (`conntrack/tcp.rs`, `RESUME_STEP`), so that nothing in flight is beyond it.
const FAR: u32 = 1 << 20;

/// The copy of one NIC's table.
pub struct CrashCopy {
    file: SlotFile,
    key: SlotKey,
    written: Vec<Written>,
    tags: HashMap<RuleSlot, RuleTag>,
    /// Places whose windows have moved since they were written, oldest first, and when the first is due.
    waiting: Vec<u32>,
    due: Option<Tick>,
    /// What became of the file of before, if there was one.
    resumed: Option<Arrived>,
    /// Handovers that were taken, oldest first.
    taken: Vec<HandoverId>,
}

/// A place that changed, and the conn there if one lives, with the rule that admitted it.
type Change = (u32, Option<(PortableConn, Option<RuleSlot>)>);

/// What was last written of a place.
#[derive(Clone, Copy, Default)]
struct Written {
    sequence: u32,
    at_ms: u32,
    ends: [u32; 2],
    /// What it stood for then; 0 = nothing.
    standing: u64,
    waits: bool,
}

impl CrashCopy {
    /// Opens the copy of `nic` in `folder`, lets `engine` adopt what is left in it, and follows it from now on. The rules
    /// are in force already: without them nothing is adopted.
    ///
    /// # Errors
    /// The folder or the file cannot be used. A file that cannot be believed is none: the table is empty then.
    pub fn open(
        folder: &Path,
        nic: &NicId,
        key: Option<&Key>,
        room: u32,
        engine: &mut Engine,
        now: Tick,
    ) -> Result<(Self, Adoption), CrashCopyError> {
        let found = Found::read(folder, nic, key, room, now)?;
        let adoption = adopt(engine, &found, now);
        let (mut copy, place) = Self::make(folder, nic, key, room)?;
        found.taken.into_iter().for_each(|id| copy.remember(id));
        copy.resumed = match found.origin {
            Origin::None => None,
            Origin::Believed => Some(Arrived::Adopted(adoption.clone())),
            Origin::Refused(why) => Some(Arrived::Refused(why)),
        };
        copy.begin(engine, now);
        // Only now is the old file replaced: a crash until here finds it whole.
        place.put_in_place()?;
        Ok((copy, adoption))
    }

    /// An empty copy beside the one that another process still writes, and what puts it in that one's place.
    ///
    /// # Errors
    /// The folder or the file cannot be used.
    pub(crate) fn make(
        folder: &Path,
        nic: &NicId,
        key: Option<&Key>,
        room: u32,
    ) -> Result<(Self, NewFile), CrashCopyError> {
        let (file, slot_key, place) = SlotFile::make(folder, nic, key, room)?;
        let places = usize::try_from(room).unwrap_or(usize::MAX);
        let copy = Self {
            file,
            key: slot_key,
            written: vec![Written::default(); places],
            tags: HashMap::new(),
            waiting: Vec::with_capacity(places),
            due: None,
            resumed: None,
            taken: Vec::new(),
        };
        Ok((copy, place))
    }

    /// As [`CrashCopy::make`], for a process that will take the other one's place: it knows what that one has taken.
    ///
    /// # Errors
    /// The folder or the file cannot be used.
    pub(crate) fn make_after(
        folder: &Path,
        nic: &NicId,
        key: Option<&Key>,
        room: u32,
    ) -> Result<(Self, NewFile), CrashCopyError> {
        let (mut copy, place) = Self::make(folder, nic, key, room)?;
        Found::taken_by_another(folder, nic, key, room).into_iter().for_each(|id| copy.remember(id));
        Ok((copy, place))
    }

    /// Writes down that a handover was taken.
    pub(crate) fn remember(&mut self, id: HandoverId) {
        self.file.remember(self.taken.len() as u64, id, &self.key);
        self.taken.push(id);
    }

    /// The handovers that were taken, oldest first.
    pub(crate) fn taken(&self) -> &[HandoverId] {
        &self.taken
    }

    /// Writes the whole table, and follows it from now on.
    pub(crate) fn begin(&mut self, engine: &mut Engine, now: Tick) {
        engine.follow(Follower::CrashCopy);
        let slots = engine.slots();
        let mut first = Vec::new();
        engine.export(0..slots, now, |slot, conn, rule| first.push((slot, *conn, rule)));
        for (slot, conn, rule) in first {
            self.write(engine, slot, Some((&conn, rule)), now);
        }
    }

    /// Writes what changed.
    pub(crate) fn follow(&mut self, engine: &mut Engine, now: Tick) {
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut changed: [Option<Change>; 64] = [None; 64];
        loop {
            let mut count = 0;
            engine.changed(now, changed.len(), |slot, conn| {
                if let Some(place) = changed.get_mut(count) {
                    *place = Some((slot, conn.map(|(conn, rule)| (*conn, rule))));
                    count += 1;
                }
            });
            for (slot, conn) in changed.iter().take(count).flatten() {
                let conn = conn.as_ref().map(|(conn, rule)| (conn, *rule));
                if self.is_urgent(*slot, conn, now) {
                    self.write(engine, *slot, conn, now);
                } else if let Some(written) = self.at(*slot)
                    && !written.waits
                {
                    written.waits = true;
                    waiting.push(*slot);
                }
            }
            if count < changed.len() {
                break;
            }
        }
        if self.due.is_none() && !waiting.is_empty() {
            self.due = Some(now.after_ms(WINDOWS_MS));
        }
        self.waiting = waiting;
        if self.due.is_some_and(|due| due <= now) {
            self.write_waiting(engine, now);
        }
    }

    /// What became of the file that was found at the start; `None` if there was none.
    pub(crate) const fn resumed(&self) -> Option<&Arrived> {
        self.resumed.as_ref()
    }

    /// When windows are due to be written.
    pub(crate) const fn next_due(&self) -> Option<Tick> {
        self.due
    }

    fn write_waiting(&mut self, engine: &Engine, now: Tick) {
        self.due = None;
        let mut waiting = std::mem::take(&mut self.waiting);
        for slot in waiting.drain(..) {
            if self.at(slot).is_some_and(|written| std::mem::take(&mut written.waits)) {
                let mut conn = None;
                engine.export(slot..slot + 1, now, |_, found, rule| conn = Some((*found, rule)));
                self.write(engine, slot, conn.as_ref().map(|(conn, rule)| (conn, *rule)), now);
            }
        }
        self.waiting = waiting;
    }

    /// Whether a change cannot wait: the conn was opened, closed or judged, its state moved, or an end has come far.
    fn is_urgent(&mut self, slot: u32, conn: Option<(&PortableConn, Option<RuleSlot>)>, now: Tick) -> bool {
        let Some(written) = self.at(slot) else { return false };
        let Some((conn, rule)) = conn else { return true };
        let ends = conn.tcp.map_or([0; 2], |tcp| tcp.ends.map(|end| end.end));
        let far = ends.iter().zip(written.ends).any(|(end, then)| end.wrapping_sub(then) > FAR);
        let age = low_32(now.0).wrapping_sub(written.at_ms);
        standing(conn, rule) != written.standing || far || u64::from(age) >= WINDOWS_MS
    }

    fn write(
        &mut self,
        engine: &Engine,
        slot: u32,
        conn: Option<(&PortableConn, Option<RuleSlot>)>,
        now: Tick,
    ) {
        let saved = conn.map(|(conn, rule)| (record::record(conn, None), self.tag(engine, rule)));
        let Some(written) = self.at(slot) else { return };
        written.sequence = written.sequence.wrapping_add(1);
        written.at_ms = low_32(now.0);
        written.standing = conn.map_or(0, |(conn, rule)| standing(conn, rule));
        written.ends = conn.and_then(|(conn, _)| conn.tcp).map_or([0; 2], |tcp| tcp.ends.map(|end| end.end));
        let sequence = u64::from(written.sequence);
        let bytes = SavedSlot { sequence, conn: saved }.encode(&self.key, slot, now.0);
        self.file.write(slot, sequence, &bytes);
    }

    fn tag(&mut self, engine: &Engine, rule: Option<RuleSlot>) -> RuleTag {
        let Some(slot) = rule else { return RuleTag(0) };
        let key = self.key;
        *self
            .tags
            .entry(slot)
            .or_insert_with(|| engine.rule_id(slot).map_or(RuleTag(0), |id| key.tag(id.as_str())))
    }

    /// A rule's place may be another rule's after an install.
    pub(crate) fn forget_tags(&mut self) {
        self.tags.clear();
    }

    fn at(&mut self, slot: u32) -> Option<&mut Written> {
        self.written.get_mut(usize::try_from(slot).ok()?)
    }
}

const fn low_32(number: u64) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// What a conn stands for beside its windows and its life, as a number: a change of it is written at once. Never 0.
fn standing(conn: &PortableConn, rule: Option<RuleSlot>) -> u64 {
    let PortableConn { flow, opener, peer_mac, state, ends_in_ms, on_revoke, expected, tcp, .. } = conn;
    let flags = tcp.map_or([false; 6], |tcp| {
        let [first, second] = tcp.ends;
        [first.fin, second.fin, first.resuming, second.resuming, tcp.pending, tcp.challenged]
    });
    let flags = flags.into_iter().chain([*expected, ends_in_ms.is_some(), rule.is_some()]);
    let flags = flags.fold(0, |bits, flag| bits << 1 | u64::from(flag));
    let small = [*state as u64, *opener as u64, *on_revoke as u64, flow.protocol.0.into()];
    let small = small.into_iter().fold(flags, |bits, part| bits << 8 | part);
    let [a, b, c, d, e, f] = peer_mac.0;
    let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    let ports = u64::from(flow.local_port) << 32 | u64::from(flow.remote_port) << 16 | u64::from(flow.vlan);
    let rule = rule.map_or(0, |rule| rule.index() as u64);
    let words = [small, mac, ports, rule, low_64(flow.local), low_64(flow.remote)];
    // Two that differ seldom come out alike, and then one is written 100 ms later.
    words.into_iter().fold(1, |sum: u64, word| (sum ^ word).wrapping_mul(MIX).rotate_left(29)) | 1
}

/// An odd number whose bits look random (the golden ratio's).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of an address in one.
fn low_64(addr: Addr) -> u64 {
    let bits = addr.bits();
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
    half(bits) ^ half(bits >> 64).wrapping_mul(MIX)
}

/// Lets the engine adopt what was found: a moment old, so each conn resumes.
fn adopt(engine: &mut Engine, found: &Found, now: Tick) -> Adoption {
    let names: Vec<RuleId> = engine
        .rules()
        .map(|rules| rules.rules.iter().map(|rule| rule.id.clone()).collect())
        .unwrap_or_default();
    let places: HashMap<RuleTag, usize> =
        names.iter().enumerate().map(|(place, id)| (found.key.tag(id.as_str()), place)).collect();
    let arrivals: Vec<Arrival> = found
        .conns
        .iter()
        .map(|(conn, tag)| Arrival { rule: places.get(tag).copied(), ..record::arrival(conn) })
        .collect();
    engine.adopt(&arrivals, &names, Trust::Resuming, now)
}

#[cfg(test)]
mod tests;
