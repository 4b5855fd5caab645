//! What the guest's driver does with its rings: sends, posts, waits to be called, receives.
//!
//! It sleeps on the call eventfd alone, so that a call that fails to come fails the test.

use std::io;
use std::time::{Duration, Instant};

use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::{
    BUFFER_STRIDE, BUFFERS, Descriptor, FRAMES, GRACE, Guest, INDIRECT, NEXT, Outcome, PATIENCE, RX, TABLES,
    TX, WRITE,
};

/// A virtio-net header, and the frame behind it.
pub type Received = (Vec<u8>, Vec<u8>);

/// How a frame is laid out in descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Header and frame in one buffer.
    Linear,
    /// Two buffers, the first of this many bytes of header and frame.
    Split(usize),
    /// Every byte in a buffer of its own.
    Bytes,
    /// Like [`Layout::Bytes`], in an indirect table.
    IndirectBytes,
    /// Header and frame in an indirect table of two.
    Indirect,
    /// The first bytes each in a buffer of its own and the rest in one, in an indirect table.
    Crumbs(usize),
}

impl Guest {
    /// Bytes of the header that was agreed on.
    #[must_use]
    pub fn header_len(&self) -> usize {
        if self.features >> 32 & 1 != 0 || self.has(VIRTIO_NET_F_MRG_RXBUF) { 12 } else { 10 }
    }

    /// Sends a frame with its header and waits until the device gave it back. Gives the used length.
    ///
    /// # Errors
    /// The device did not give it back.
    pub fn send(&mut self, header: [u8; 12], frame: &[u8], layout: Layout) -> Outcome<u32> {
        self.send_at(FRAMES, header, frame, layout)
    }

    /// As [`Guest::send`], with the frame's bytes standing at `at`.
    ///
    /// # Errors
    /// The device did not give it back.
    pub fn send_at(&mut self, at: u64, header: [u8; 12], frame: &[u8], layout: Layout) -> Outcome<u32> {
        let header = header.get(..self.header_len()).unwrap_or_default();
        let bytes: Vec<u8> = header.iter().chain(frame).copied().collect();
        self.memory.write_slice(&bytes, GuestAddress(at))?;
        let chain = match layout {
            Layout::Linear => vec![bytes.len()],
            Layout::Split(first) => vec![first, bytes.len() - first],
            Layout::Bytes | Layout::IndirectBytes => vec![1; bytes.len()],
            Layout::Indirect => vec![header.len(), frame.len()],
            Layout::Crumbs(most) => {
                let crumbs = most.min(bytes.len());
                let rest = bytes.len() - crumbs;
                std::iter::repeat_n(1, crumbs).chain((rest > 0).then_some(rest)).collect()
            }
        };
        let indirect = matches!(layout, Layout::IndirectBytes | Layout::Indirect | Layout::Crumbs(_));
        self.write_chain(at, &chain, indirect)?;
        self.transmit(0)?.pop().map(|(_, length)| length).ok_or_else(|| "the frame did not come back".into())
    }

    /// Writes a chain over consecutive buffers of these lengths from `at` on, with its head at descriptor 0.
    fn write_chain(&self, at: u64, lengths: &[usize], indirect: bool) -> Outcome<()> {
        let table = if indirect { TABLES } else { self.ring(TX).descriptors };
        let mut address = at;
        for (index, length) in (0_u16..).zip(lengths) {
            let last = usize::from(index) + 1 == lengths.len();
            let descriptor = Descriptor {
                address,
                length: u32::try_from(*length)?,
                flags: if last { 0 } else { NEXT },
                next: index + 1,
            };
            descriptor.write(&self.memory, table + 16 * u64::from(index))?;
            address += u64::try_from(*length)?;
        }
        if indirect {
            let length = u32::try_from(16 * lengths.len())?;
            let head = Descriptor { address: TABLES, length, flags: INDIRECT, next: 0 };
            head.write(&self.memory, self.ring(TX).descriptors)?;
        }
        Ok(())
    }

    /// Writes a descriptor of the transmit ring.
    ///
    /// # Errors
    /// There is no such place.
    pub fn describe(&self, index: u16, descriptor: Descriptor) -> Outcome<()> {
        descriptor.write(&self.memory, self.ring(TX).descriptors + 16 * u64::from(index))
    }

    /// Makes the chain at `head` available on the transmit ring, kicks, and gives what came back: ids and lengths.
    ///
    /// # Errors
    /// Nothing came back in time.
    pub fn transmit(&mut self, head: u16) -> Outcome<Vec<(u32, u32)>> {
        self.post(TX, head)?;
        self.kick(TX)?;
        self.wait_used(TX, 1)
    }

    /// Kicks without looking whether the device wants it.
    ///
    /// # Errors
    /// The eventfd is full.
    pub fn nudge(&self, index: usize) -> Outcome<()> {
        Ok(self.ring(index).kick.write(1)?)
    }

    /// Makes a chain available without a kick.
    ///
    /// # Errors
    /// There is no such ring.
    pub fn post(&mut self, index: usize, head: u16) -> Outcome<()> {
        let memory = self.memory.clone();
        self.ring_mut(index).post(&memory, head)
    }

    /// Kicks, if the device wants to be.
    ///
    /// # Errors
    /// The eventfd is full.
    pub fn kick(&mut self, index: usize) -> Outcome<()> {
        let event_idx = self.has(VIRTIO_RING_F_EVENT_IDX);
        let memory = self.memory.clone();
        self.ring_mut(index).kick(&memory, event_idx)
    }

    /// Waits for `count` used elements and takes them. Sleeps on the call eventfd alone, so that a call that fails
    /// to come fails the test.
    ///
    /// # Errors
    /// They did not come in time.
    pub fn wait_used(&mut self, index: usize, count: usize) -> Outcome<Vec<(u32, u32)>> {
        let start = Instant::now();
        let mut used = Vec::new();
        loop {
            used.extend(self.take_used(index)?);
            if used.len() >= count {
                return Ok(used);
            }
            if !wait_for(&self.ring(index).call, PATIENCE.saturating_sub(start.elapsed()))? {
                return Err(format!("{} of {count} used elements came in time", used.len()).into());
            }
        }
    }

    /// Takes what the device gave back so far: ids and lengths.
    ///
    /// # Errors
    /// There is no such ring.
    pub fn take_used(&mut self, index: usize) -> Outcome<Vec<(u32, u32)>> {
        let event_idx = self.has(VIRTIO_RING_F_EVENT_IDX);
        let memory = self.memory.clone();
        self.ring_mut(index).take_used(&memory, event_idx)
    }

    /// Posts buffers of `length` bytes in the first `count` descriptors of the receive ring and kicks.
    ///
    /// # Errors
    /// There are not so many.
    pub fn post_buffers(&mut self, count: u16, length: u32) -> Outcome<()> {
        for index in 0..count {
            self.post_buffer(index, length)?;
        }
        self.kick(RX)
    }

    /// Posts one buffer without a kick.
    ///
    /// # Errors
    /// There is no such descriptor.
    pub fn post_buffer(&mut self, index: u16, length: u32) -> Outcome<()> {
        let address = BUFFERS + BUFFER_STRIDE * u64::from(index);
        let descriptor = Descriptor { address, length, flags: WRITE, next: 0 };
        descriptor.write(&self.memory, self.ring(RX).descriptors + 16 * u64::from(index))?;
        self.post(RX, index)
    }

    /// Waits for a frame, reads it from the buffers it was spread over and gives header and frame. The buffers are
    /// not posted again.
    ///
    /// # Errors
    /// None came in time, or header, lengths and buffers do not hold together.
    pub fn receive(&mut self) -> Outcome<Received> {
        let used = self.wait_used(RX, 1)?;
        let (received, rest) = self.assemble(&used)?;
        // All of a frame's buffers show at once: a driver does not wait for the rest.
        if rest.is_empty() { Ok(received) } else { Err("more buffers came than belong to the frame".into()) }
    }

    /// What came so far: headers and frames. Every buffer is posted again, with `length` bytes.
    ///
    /// # Errors
    /// Header, lengths and buffers of a frame do not hold together.
    pub fn received(&mut self, length: u32) -> Outcome<Vec<Received>> {
        let used = self.take_used(RX)?;
        let mut frames = Vec::new();
        let mut rest = used.as_slice();
        while !rest.is_empty() {
            let (received, behind) = self.assemble(rest)?;
            frames.push(received);
            rest = behind;
        }
        for (id, _) in &used {
            self.post_buffer(u16::try_from(*id)?, length)?;
        }
        if !used.is_empty() {
            self.kick(RX)?;
        }
        Ok(frames)
    }

    /// The frame that starts with the first of these used elements, and the elements behind it.
    fn assemble<'a>(&self, used: &'a [(u32, u32)]) -> Outcome<(Received, &'a [(u32, u32)])> {
        let header_len = self.header_len();
        let mut bytes = self.buffer(used.first().copied().ok_or("nothing came")?)?;
        let count = match bytes.get(10..12) {
            Some(&[low, high]) if header_len == 12 => u16::from_le_bytes([low, high]),
            _ => 1,
        };
        let (mine, rest) = used
            .split_at_checked(usize::from(count))
            .ok_or_else(|| format!("{} buffers came at once, {count} belong to the frame", used.len()))?;
        for element in mine.iter().skip(1) {
            bytes.extend(self.buffer(*element)?);
        }
        if bytes.len() < header_len {
            return Err("a buffer without a whole header".into());
        }
        let frame = bytes.split_off(header_len);
        Ok(((bytes, frame), rest))
    }

    fn buffer(&self, (id, length): (u32, u32)) -> Outcome<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length)?];
        let at = BUFFERS + BUFFER_STRIDE * u64::from(id);
        self.memory.read_slice(&mut bytes, GuestAddress(at))?;
        Ok(bytes)
    }

    /// Whether a ring stays as it is for a while.
    ///
    /// # Errors
    /// The eventfd cannot be waited for.
    pub fn stays_quiet(&mut self, index: usize) -> Outcome<bool> {
        let before = self.ring(index).used_index(&self.memory);
        std::thread::sleep(GRACE);
        Ok(self.ring(index).used_index(&self.memory) == before)
    }
}

/// Waits until an eventfd is written, and empties it. `false` when the time is over.
fn wait_for(event: &EventFd, time: Duration) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

    let epoll = Epoll::new()?;
    epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, 0))?;
    let ms = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
    let count = epoll.wait(ms, &mut [EpollEvent::default()])?;
    if count > 0 {
        event.read()?;
    }
    Ok(count > 0)
}
