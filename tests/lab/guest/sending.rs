//! How a guest sends: a frame behind its header, in descriptors of any shape.
//!
//! Knows layouts. Never knows what a frame says.

use vm_memory::{Bytes, GuestAddress};

use super::{Descriptor, FRAMES, Guest, INDIRECT, NEXT, Outcome, TABLES, TX};

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
}
