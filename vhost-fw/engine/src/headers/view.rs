//! A frame's bytes as they may be read: headers from the head alone, messages only when they are here whole.
//!
//! The only place that bounds a read. Knows how many bytes there are. Never knows what they mean.

use super::Malformed;
use crate::frame::HEAD_LEN;

/// Why reading stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// What is read next needs the whole frame.
    NeedWhole,
    Malformed(Malformed),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The bytes of a frame, up to an end that moves inwards as lengths become known. Offsets count from the frame's
/// first byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    /// What is here: all of it, or the head at least.
    bytes: &'a [u8],
    /// The part that headers may stand in.
    head: &'a [u8],
    end: usize,
}

impl<'a> View<'a> {
    /// A frame of `length` bytes of which `bytes` are here. [`Stop::NeedWhole`] if they are not even its head.
    #[inline]
    pub(super) fn of_frame(bytes: &'a [u8], length: usize) -> Result<Self, Stop> {
        let bytes = bytes.get(..length).unwrap_or(bytes);
        let head = bytes.get(..length.min(HEAD_LEN)).ok_or(Stop::NeedWhole)?;
        Ok(Self { bytes, head, end: length })
    }

    /// Bytes that are headers and all here: the packet an ICMP error quotes.
    pub(super) const fn of_quote(bytes: &'a [u8]) -> Self {
        Self { bytes, head: bytes, end: bytes.len() }
    }

    /// Where it ends.
    #[inline]
    pub(super) const fn end(self) -> usize {
        self.end
    }

    /// The same, ending at `end`; `None` if that is further out.
    #[inline]
    pub(super) fn until(self, end: usize) -> Option<Self> {
        (end <= self.end).then_some(Self { end, ..self })
    }

    /// A header of `N` bytes at `at`; `short` if it does not end inside.
    #[inline]
    pub(super) fn header<const N: usize>(
        self,
        at: usize,
        short: Malformed,
    ) -> Result<&'a [u8; N], Malformed> {
        if at.saturating_add(N) > self.end {
            return Err(short);
        }
        self.head.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed::HeadersTooLong)
    }

    /// A header's `length` bytes at `at`; `short` if they do not end inside.
    #[inline]
    pub(super) fn part(self, at: usize, length: usize, short: Malformed) -> Result<&'a [u8], Malformed> {
        let until = at.saturating_add(length);
        if until > self.end {
            return Err(short);
        }
        self.head.get(at..until).ok_or(Malformed::HeadersTooLong)
    }

    /// Everything from `at` to the end.
    #[inline]
    pub(super) fn message(self, at: usize) -> Result<&'a [u8], Stop> {
        self.bytes.get(at..self.end).ok_or(Stop::NeedWhole)
    }
}

/// `N` bytes at `at` of a message.
pub(super) fn chunk<const N: usize>(message: &[u8], at: usize) -> Option<&[u8; N]> {
    message.get(at..).and_then(<[u8]>::first_chunk)
}
