//! Frames of a classic capture file, in microseconds or nanoseconds, of either byte order.
//!
//! Knows draft-ietf-opsawg-pcap section 4. Never knows what a frame means.

use std::io::{ErrorKind, Read};

const MAGIC_MICRO: u32 = 0xa1b2_c3d4;
const MAGIC_NANO: u32 = 0xa1b2_3c4d;
const MAGIC_NEW_FORMAT: u32 = 0x0a0d_0d0a;
const LINK_ETHERNET: u32 = 1;

/// Longest record, as libpcap bounds it.
const RECORD_LEN_MAX: usize = 262_144;

/// A frame and when it was captured, in milliseconds since the first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Captured {
    pub(super) ms: u64,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Capture<R> {
    input: R,
    big_endian: bool,
    /// Fractions of a second per millisecond.
    per_ms: u64,
    first_ms: Option<u64>,
    frames: u64,
}

impl<R: Read> Capture<R> {
    pub(super) fn open(mut input: R) -> Result<Self, String> {
        let mut header = [0; 24];
        let read = input.read_exact(&mut header);
        read.map_err(|error| {
            let short = error.kind() == ErrorKind::UnexpectedEof;
            if short { "too short for a capture file".to_owned() } else { error.to_string() }
        })?;
        let magic = word(&header, 0, true);
        let (big_endian, per_ms) = match (magic, magic.swap_bytes()) {
            (MAGIC_MICRO, _) => (true, 1_000),
            (_, MAGIC_MICRO) => (false, 1_000),
            (MAGIC_NANO, _) => (true, 1_000_000),
            (_, MAGIC_NANO) => (false, 1_000_000),
            (MAGIC_NEW_FORMAT, _) => {
                return Err("this is pcapng; convert it: editcap -F pcap IN OUT".to_owned());
            }
            _ => return Err("no capture file: expected the classic pcap format".to_owned()),
        };
        // The upper bits hold the length of a frame check sequence, which would be judged as payload.
        match word(&header, 20, big_endian) {
            LINK_ETHERNET => Ok(Self { input, big_endian, per_ms, first_ms: None, frames: 0 }),
            link => Err(format!("link type {link} is not Ethernet (1)")),
        }
    }

    /// The next frame; `None` at the end.
    pub(super) fn next_frame(&mut self) -> Result<Option<Captured>, String> {
        let mut header = [0; 16];
        if !self.fill(&mut header)? {
            return Ok(None);
        }
        self.frames += 1;
        let number = self.frames;
        let field = |offset| word(&header, offset, self.big_endian);
        let (seconds, fraction, kept, length) = (field(0), field(4), field(8), field(12));
        if kept < length {
            return Err(format!(
                "frame {number} was cut to {kept} of {length} bytes; capture whole frames (-s 0)"
            ));
        }
        let length = usize::try_from(kept).ok().filter(|kept| *kept <= RECORD_LEN_MAX);
        let length = length.ok_or_else(|| format!("frame {number} has {kept} bytes: the file is damaged"))?;
        let mut bytes = vec![0; length];
        if length > 0 && !self.fill(&mut bytes)? {
            return Err(self.broken_off());
        }
        let ms = u64::from(seconds) * 1000 + u64::from(fraction) / self.per_ms;
        let first = *self.first_ms.get_or_insert(ms);
        Ok(Some(Captured { ms: ms.saturating_sub(first), bytes }))
    }

    /// Reads all of `bytes`; `false` if the file ends before them.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, String> {
        let mut have = 0;
        while let Some(rest) = bytes.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return Err(self.broken_off()),
                Ok(count) => have += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(true)
    }

    fn broken_off(&self) -> String {
        format!("the file ends within frame {}", self.frames.max(1))
    }
}

fn word(bytes: &[u8], offset: usize, big_endian: bool) -> u32 {
    let word = bytes.get(offset..offset + 4).and_then(|word| word.try_into().ok()).unwrap_or_default();
    if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(magic: [u8; 4], big_endian: bool, link: u32, records: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let put = |word: u32| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() };
        let mut bytes = [&magic[..], &[0; 16], &put(link)].concat();
        for (seconds, fraction, length, frame) in records {
            let kept = u32::try_from(frame.len()).unwrap();
            for word in [*seconds, *fraction, kept, *length] {
                bytes.extend(put(word));
            }
            bytes.extend(*frame);
        }
        bytes
    }

    fn frames(file: &[u8]) -> Result<Vec<(u64, usize)>, String> {
        let mut capture = Capture::open(file)?;
        let mut frames = Vec::new();
        while let Some(frame) = capture.next_frame()? {
            frames.push((frame.ms, frame.bytes.len()));
        }
        Ok(frames)
    }

    #[test]
    fn both_resolutions_and_byte_orders_are_read() {
        for (magic, big_endian, unit) in [
            (MAGIC_MICRO.to_be_bytes(), true, 1),
            (MAGIC_MICRO.to_le_bytes(), false, 1),
            (MAGIC_NANO.to_be_bytes(), true, 1000),
            (MAGIC_NANO.to_le_bytes(), false, 1000),
        ] {
            let file =
                capture(magic, big_endian, 1, &[(9, 999_000 * unit, 3, b"abc"), (10, 1000 * unit, 0, b"")]);
            assert_eq!(frames(&file), Ok(vec![(0, 3), (2, 0)]));
        }
    }

    #[test]
    fn time_that_runs_backwards_stands_still() {
        let file = capture(MAGIC_MICRO.to_le_bytes(), false, 1, &[(9, 0, 1, b"a"), (8, 0, 1, b"a")]);
        assert_eq!(frames(&file), Ok(vec![(0, 1), (0, 1)]));
    }

    #[test]
    fn what_cannot_be_judged_is_refused() {
        let le = MAGIC_MICRO.to_le_bytes();
        let good = capture(le, false, 1, &[(0, 0, 3, b"abc")]);
        for (file, why) in [
            (&b"short"[..], "too short"),
            (&[0; 24], "no capture file"),
            (&[&MAGIC_NEW_FORMAT.to_be_bytes()[..], &[0; 20]].concat(), "pcapng"),
            (&capture(le, false, 113, &[]), "link type 113"),
            (&capture(le, false, 1, &[(0, 0, 99, b"abc")]), "cut to 3 of 99"),
            (&[&good[..], &good[24..39]].concat(), "ends within"),
            (&good[..good.len() - 1], "ends within frame 1"),
            (&good[..good.len() - 3], "ends within frame 1"),
            (&[&good[..24], &[0xff; 16]].concat(), "damaged"),
        ] {
            let error = frames(file).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
