//! A descriptor that is waited for, but not for ever.
//!
//! Whoever neither reads nor writes ends its own transfer and nothing else. Knows descriptors and patience. Never knows
//! what the bytes say.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Seconds without a byte after which a transfer is given up.
const SILENCE_S: i64 = 10;

/// A descriptor, read and written with patience.
pub(super) struct Patient<F> {
    file: F,
}

impl<F: AsFd> Patient<F> {
    pub(super) fn new(file: F) -> io::Result<Self> {
        let flags = fcntl_getfl(&file)?;
        fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok(Self { file })
    }

    /// Whether something can be read, an end included; waits for it until `patience` is over, for ever without.
    pub(super) fn is_readable(&self, patience: Option<Duration>) -> io::Result<bool> {
        self.wait(PollFlags::IN, patience.map(timespec).as_ref())
    }

    fn wait(&self, ready: PollFlags, patience: Option<&Timespec>) -> io::Result<bool> {
        let mut waited = [PollFd::new(&self.file, ready)];
        Ok(rustix::io::retry_on_intr(|| poll(&mut waited, patience))? > 0)
    }

    fn patiently<T>(
        &self,
        ready: PollFlags,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let patience = Timespec { tv_sec: SILENCE_S, tv_nsec: 0 };
        loop {
            match act(self.file.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(ready, Some(&patience))? {
                        let silent = format!("nothing moved for {SILENCE_S} s");
                        return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
                    }
                }
                done => return done,
            }
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}

impl<F: AsFd> Read for Patient<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::IN, |fd| {
            Ok(rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *into))?)
        })
    }
}

impl<F: AsFd> Write for Patient<F> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::OUT, |fd| Ok(rustix::io::retry_on_intr(|| rustix::io::write(fd, from))?))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
