//! How a guest receives: buffers it posts, and frames it puts together from them.
//!
//! Knows buffers and used elements. Never knows what a frame says.

use vm_memory::{Bytes, GuestAddress};

use super::{BUFFER_STRIDE, BUFFERS, Descriptor, Guest, Outcome, RX, WRITE};

impl Guest {
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
    pub fn receive(&mut self) -> Outcome<(Vec<u8>, Vec<u8>)> {
        let used = self.wait_used(RX, 1)?;
        let (received, rest) = self.assemble(&used)?;
        // All of a frame's buffers show at once: a driver does not wait for the rest.
        if rest.is_empty() { Ok(received) } else { Err("more buffers came than belong to the frame".into()) }
    }

    /// What came so far: headers and frames. Every buffer is posted again, with `length` bytes.
    ///
    /// # Errors
    /// Header, lengths and buffers of a frame do not hold together.
    pub fn received(&mut self, length: u32) -> Outcome<Vec<(Vec<u8>, Vec<u8>)>> {
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

    /// Header and frame from the first of these used elements on, and the elements behind them.
    #[expect(clippy::type_complexity, reason = "a header, a frame, and the rest")]
    fn assemble<'a>(&self, used: &'a [(u32, u32)]) -> Outcome<((Vec<u8>, Vec<u8>), &'a [(u32, u32)])> {
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
}
