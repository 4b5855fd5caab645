//! The driver's side of one split ring.

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::{Outcome, event};

/// Descriptors of each ring.
pub const SIZE: u16 = 256;

/// The chain goes on.
pub const NEXT: u16 = 1;
/// The device writes this buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A descriptor, right or wrong.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "virtio 1.2 section 2.7.5 says what they are")]
pub struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub flags: u16,
    pub next: u16,
}

impl Descriptor {
    /// Writes it into guest memory.
    ///
    /// # Errors
    /// There is no memory.
    pub fn write(&self, memory: &GuestMemoryMmap<()>, at: u64) -> Outcome<()> {
        let [length, flags_next] =
            [u64::from(self.length), u64::from(self.flags) | u64::from(self.next) << 16];
        memory.write_obj(self.address.to_le(), GuestAddress(at))?;
        memory.write_obj((length | flags_next << 32).to_le(), GuestAddress(at + 8))?;
        Ok(())
    }
}

/// A split ring, as its driver has it.
pub struct Ring {
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring.
    pub avail: u64,
    /// Guest address of the used ring.
    pub used: u64,
    pub(super) kick: EventFd,
    /// Where the device calls.
    pub call: EventFd,
    posted: u16,
    kicked: u16,
    taken: u16,
}

impl Ring {
    pub(super) fn at(start: u64) -> Outcome<Self> {
        Ok(Self {
            descriptors: start,
            avail: start + 0x2000,
            used: start + 0x3000,
            kick: event()?,
            call: event()?,
            posted: 0,
            kicked: 0,
            taken: 0,
        })
    }

    /// All zero, as a kernel that boots makes it.
    pub(super) fn zero(&mut self, memory: &GuestMemoryMmap<()>) -> Outcome<()> {
        memory.write_slice(&[0; 0x4000], GuestAddress(self.descriptors))?;
        (self.posted, self.kicked, self.taken) = (0, 0, 0);
        Ok(())
    }

    pub(super) fn post(&mut self, memory: &GuestMemoryMmap<()>, head: u16) -> Outcome<()> {
        let entry = self.avail + 4 + 2 * u64::from(self.posted % SIZE);
        memory.write_obj(head.to_le(), GuestAddress(entry))?;
        self.posted = self.posted.wrapping_add(1);
        self.set_avail_index(memory, self.posted)
    }

    /// Writes the available index, whatever was posted.
    ///
    /// # Errors
    /// There is no memory.
    pub fn set_avail_index(&self, memory: &GuestMemoryMmap<()>, index: u16) -> Outcome<()> {
        Ok(memory.store(index.to_le(), GuestAddress(self.avail + 2), Ordering::Release)?)
    }

    /// The available index as it stands in memory.
    #[must_use]
    pub fn avail_index(&self, memory: &GuestMemoryMmap<()>) -> u16 {
        memory.load(GuestAddress(self.avail + 2), Ordering::Acquire).unwrap_or(0)
    }

    /// The used index as it stands in memory.
    #[must_use]
    pub fn used_index(&self, memory: &GuestMemoryMmap<()>) -> u16 {
        memory.load(GuestAddress(self.used + 2), Ordering::Acquire).unwrap_or(0)
    }

    pub(super) fn kick(&mut self, memory: &GuestMemoryMmap<()>, event_idx: bool) -> Outcome<()> {
        fence(Ordering::SeqCst);
        let wanted = if event_idx {
            let at = GuestAddress(self.used + 4 + 8 * u64::from(SIZE));
            let event: u16 = memory.load(at, Ordering::Acquire)?;
            self.posted.wrapping_sub(event).wrapping_sub(1) < self.posted.wrapping_sub(self.kicked)
        } else {
            let flags: u16 = memory.load(GuestAddress(self.used), Ordering::Acquire)?;
            flags & 1 == 0
        };
        self.kicked = self.posted;
        if wanted {
            self.kick.write(1)?;
        }
        Ok(())
    }

    /// Kicks whether the device wants to be or not.
    ///
    /// # Errors
    /// The eventfd is full.
    pub fn kick_anyway(&self) -> Outcome<()> {
        Ok(self.kick.write(1)?)
    }

    /// Takes what the device gave back and asks to be called for the next.
    pub(super) fn take_used(
        &mut self,
        memory: &GuestMemoryMmap<()>,
        event_idx: bool,
    ) -> Outcome<Vec<(u32, u32)>> {
        let mut elements = Vec::new();
        loop {
            while self.taken != self.used_index(memory) {
                let at = self.used + 4 + 8 * u64::from(self.taken % SIZE);
                elements.push((memory.read_obj(GuestAddress(at))?, memory.read_obj(GuestAddress(at + 4))?));
                self.taken = self.taken.wrapping_add(1);
            }
            if !event_idx {
                return Ok(elements);
            }
            let at = GuestAddress(self.avail + 4 + 2 * u64::from(SIZE));
            memory.store(self.taken, at, Ordering::Relaxed)?;
            fence(Ordering::SeqCst);
            if self.taken == self.used_index(memory) {
                return Ok(elements);
            }
        }
    }
}
