//! Where conns stand: their places, the lists of the timer wheel, the pool of the unproven, the marks of change.
//!
//! A conn is in exactly one list of the wheel, and in the pool while it is unproven; both are linked through the conns
//! themselves, so that every operation takes the same short time. Knows places, deadlines and states. Never knows a
//! flow, an index or why anything happens.

use super::changes::{Changes, Follower};
use super::conn::{Conn, State};
use super::timer::{self, Links, NONE, Wheel};
use crate::time::Tick;

/// The conns of a table. Their memory is reserved at the start and touched as it fills.
#[derive(Debug)]
pub(super) struct Store {
    conns: Vec<Conn>,
    free: Vec<u32>,
    wheel: Wheel,
    /// Conns never answered or half open, oldest first.
    unproven: Pool,
    /// Places whose conn was opened, moved or closed: for the crash copy, and for a handover.
    for_copy: Changes,
    for_handover: Changes,
    living: u32,
    room: u32,
}

#[derive(Debug)]
struct Pool {
    oldest: u32,
    newest: u32,
    length: u32,
}

impl Store {
    pub(super) fn new(room: u32) -> Self {
        let places = usize::try_from(room).unwrap_or(usize::MAX);
        Self {
            conns: Vec::with_capacity(places),
            free: Vec::with_capacity(places),
            wheel: Wheel::new(),
            unproven: Pool { oldest: NONE, newest: NONE, length: 0 },
            for_copy: Changes::default(),
            for_handover: Changes::default(),
            living: 0,
            room,
        }
    }

    /// Has the system give the memory of `conns` places now, not as each is first used.
    pub(super) fn prepare(&mut self, conns: u32) {
        let used = self.conns.len();
        let wanted = usize::try_from(conns.min(self.room)).unwrap_or(0);
        self.conns.resize(wanted.max(used), Conn::blank());
        self.conns.truncate(used);
    }

    /// Most conns there is room for.
    pub(super) const fn room(&self) -> u32 {
        self.room
    }

    /// Conns that live.
    pub(super) const fn len(&self) -> u32 {
        self.living
    }

    /// Places there have ever been conns in.
    pub(super) fn slots(&self) -> u32 {
        u32::try_from(self.conns.len()).unwrap_or(self.room)
    }

    /// Conns never answered or half open.
    pub(super) const fn unproven(&self) -> u32 {
        self.unproven.length
    }

    /// The place of the oldest of them; no place if there is none.
    pub(super) const fn oldest_unproven(&self) -> u32 {
        self.unproven.oldest
    }

    /// Loads the lines of the conn at `place`.
    pub(super) fn touch(&self, place: u32) -> u64 {
        let conn = usize::try_from(place).ok().and_then(|place| self.conns.get(place));
        conn.map_or(0, |conn| conn.deadline.0 ^ conn.ends_at.0)
    }

    /// When the timers must be looked at next.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.wheel.next_due()
    }

    /// A place whose timer has come up. What is there must be taken out or filed anew.
    pub(super) fn due(&mut self, now: Tick) -> Option<u32> {
        self.wheel.due(now).map(|slot| self.wheel.head(slot))
    }

    /// Takes a conn out.
    pub(super) fn take(&mut self, place: u32) {
        let Some(state) = self.at(place).map(|conn| conn.state) else { return };
        self.unfile(place);
        if state.is_unproven() {
            self.leave_unproven(place);
        }
        if let Some(conn) = self.at_mut(place) {
            conn.bury();
        }
        self.mark(place);
        self.free.push(place);
        self.living -= 1;
    }

    /// Keeps pool, timer and marks true after a conn has moved on from the state `before`. `nearer` says that its
    /// deadline may have come nearer although its state stayed.
    pub(super) fn moved(&mut self, place: u32, before: State, nearer: bool) {
        let after = self.at(place).map_or(before, |conn| conn.state);
        if before.is_unproven() && !after.is_unproven() {
            self.leave_unproven(place);
        } else if !before.is_unproven() && after.is_unproven() {
            self.join_unproven(place);
        }
        if (before != after && after != State::Established) || nearer {
            self.refile(place);
        }
        self.mark(place);
    }

    /// Places whose conn was opened, moved or closed, for one who follows.
    pub(super) const fn changes(&mut self, follower: Follower) -> &mut Changes {
        match follower {
            Follower::CrashCopy => &mut self.for_copy,
            Follower::Handover => &mut self.for_handover,
        }
    }

    pub(super) fn at(&self, place: u32) -> Option<&Conn> {
        self.conns.get(usize::try_from(place).ok()?).filter(|conn| conn.is_living())
    }

    pub(super) fn at_mut(&mut self, place: u32) -> Option<&mut Conn> {
        self.conns.get_mut(usize::try_from(place).ok()?).filter(|conn| conn.is_living())
    }

    /// Gives a conn a place, files its deadline and puts it among the unproven if it is one.
    pub(super) fn place(&mut self, conn: Conn) -> Option<u32> {
        let unproven = conn.state.is_unproven();
        let place = match self.free.pop() {
            Some(place) => {
                *self.conns.get_mut(usize::try_from(place).ok()?)? = conn;
                place
            }
            None => {
                let place = u32::try_from(self.conns.len()).ok().filter(|place| *place < self.room)?;
                self.conns.push(conn);
                place
            }
        };
        self.living += 1;
        self.file(place);
        if unproven {
            self.join_unproven(place);
        }
        self.mark(place);
        Some(place)
    }

    /// Notes that the conn there has changed.
    #[inline]
    pub(super) fn mark(&mut self, place: u32) {
        self.for_copy.note(place);
        self.for_handover.note(place);
    }

    fn file(&mut self, place: u32) {
        let Some(deadline) = self.at(place).map(|conn| conn.deadline) else { return };
        let slot = self.wheel.slot_for(deadline);
        let next = self.wheel.head(slot);
        if let Some(conn) = self.at_mut(place) {
            conn.timer = Links { previous: timer::first_of(slot), next };
        }
        if let Some(next) = self.at_mut(next) {
            next.timer.previous = place;
        }
        self.wheel.set_head(slot, place);
    }

    fn unfile(&mut self, place: u32) {
        let Some(links) = self.at(place).map(|conn| conn.timer) else { return };
        match timer::slot_of_first(links.previous) {
            Some(slot) => self.wheel.set_head(slot, links.next),
            None => {
                if let Some(previous) = self.at_mut(links.previous) {
                    previous.timer.next = links.next;
                }
            }
        }
        if let Some(next) = self.at_mut(links.next) {
            next.timer.previous = links.previous;
        }
    }

    /// Files a conn by its deadline of now.
    pub(super) fn refile(&mut self, place: u32) {
        self.unfile(place);
        self.file(place);
    }

    fn join_unproven(&mut self, place: u32) {
        let previous = self.unproven.newest;
        if let Some(conn) = self.at_mut(place) {
            conn.pool = Links { previous, next: NONE };
        }
        match self.at_mut(previous) {
            Some(previous) => previous.pool.next = place,
            None => self.unproven.oldest = place,
        }
        self.unproven.newest = place;
        self.unproven.length += 1;
    }

    fn leave_unproven(&mut self, place: u32) {
        let Some(links) = self.at(place).map(|conn| conn.pool) else { return };
        match self.at_mut(links.previous) {
            Some(previous) => previous.pool.next = links.next,
            None => self.unproven.oldest = links.next,
        }
        match self.at_mut(links.next) {
            Some(next) => next.pool.previous = links.previous,
            None => self.unproven.newest = links.previous,
        }
        self.unproven.length -= 1;
    }
}
