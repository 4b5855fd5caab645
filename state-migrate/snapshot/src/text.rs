//! Numbers and strings of bytes, read without trust.
//!
//! Reading is total: what is not there is an error, never a panic. Knows little endian and LEB128. Never knows what a
//! number means.

use crate::SnapshotError;

/// Bytes being read, and the name of what they are for the error.
pub(crate) struct Input<'b> {
    bytes: &'b [u8],
    what: &'static str,
}

impl<'b> Input<'b> {
    pub(crate) const fn new(bytes: &'b [u8], what: &'static str) -> Self {
        Self { bytes, what }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) const fn left(&self) -> usize {
        self.bytes.len()
    }

    #[inline(always)]
    pub(crate) fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let (first, rest) = self.bytes.split_first_chunk().ok_or(SnapshotError::CutShort(self.what))?;
        self.bytes = rest;
        Ok(*first)
    }

    pub(crate) fn slice(&mut self, length: usize) -> Result<&'b [u8], SnapshotError> {
        let (first, rest) = self.bytes.split_at_checked(length).ok_or(SnapshotError::CutShort(self.what))?;
        self.bytes = rest;
        Ok(first)
    }

    #[inline(always)]
    pub(crate) fn u8(&mut self) -> Result<u8, SnapshotError> {
        self.take().map(|[byte]| byte)
    }

    #[inline(always)]
    pub(crate) fn u16(&mut self) -> Result<u16, SnapshotError> {
        self.take().map(u16::from_le_bytes)
    }

    #[inline(always)]
    pub(crate) fn u32(&mut self) -> Result<u32, SnapshotError> {
        self.take().map(u32::from_le_bytes)
    }

    #[inline(always)]
    pub(crate) fn u64(&mut self) -> Result<u64, SnapshotError> {
        self.take().map(u64::from_le_bytes)
    }

    /// A number in LEB128; only the shortest form is one, so that a record has one spelling.
    #[inline(always)]
    pub(crate) fn number(&mut self) -> Result<u64, SnapshotError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(number);
            }
        }
        Err(SnapshotError::Malformed("a number is not in its shortest form"))
    }

    #[inline(always)]
    pub(crate) fn number32(&mut self) -> Result<u32, SnapshotError> {
        u32::try_from(self.number()?).map_err(|_| SnapshotError::Malformed("a number is above 32 bits"))
    }
}

/// Appends a number in LEB128.
#[inline]
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            let mut input = Input::new(&out, "test");
            assert_eq!(input.number(), Ok(number));
            assert!(input.is_empty());
        }
        for wrong in [
            &[0x80, 0][..],
            &[0xff, 0x80, 0],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert!(
                matches!(Input::new(wrong, "test").number(), Err(SnapshotError::Malformed(_))),
                "{wrong:?}"
            );
        }
        assert_eq!(Input::new(&[0x80], "test").number(), Err(SnapshotError::CutShort("test")));
    }
}
