//! A descriptor that is waited for, but not for ever.
//!
//! Whoever neither reads nor writes ends its own transfer and nothing else. Knows descriptors and patience. Never knows
//! what the bytes say.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use fw_engine::Tick;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::worker::boot_time;

/// Seconds without a byte after which a transfer is given up.
const SILENCE_S: i64 = 10;

/// A descriptor, read and written with patience.
pub(super) struct Patient<F> {
    file: F,
    /// When patience ends, however much moves until then.
    end: Option<Tick>,
}

impl<F: AsFd> Patient<F> {
    pub(super) fn new(file: F) -> io::Result<Self> {
        let flags = fcntl_getfl(&file)?;
        fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
        Ok(Self { file, end: None })
    }

    /// One that is given up `after` a while, even while bytes still trickle.
    pub(super) fn until(file: F, after: Duration) -> io::Result<Self> {
        let end = boot_time().after_ms(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        Ok(Self { end: Some(end), ..Self::new(file)? })
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
            if self.end.is_some_and(|end| boot_time() >= end) {
                let slow = "it took too long, though bytes still moved";
                return Err(io::Error::new(io::ErrorKind::TimedOut, slow));
            }
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    /// A byte every few milliseconds is no silence, and still not for ever.
    #[test]
    fn whoever_trickles_is_given_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let trickle = thread::spawn(move || {
            while theirs.write_all(&[0]).is_ok() {
                thread::sleep(Duration::from_millis(5));
            }
        });
        let mut patient = Patient::until(ours, Duration::from_millis(200)).unwrap();
        let mut bytes = vec![0; 1 << 20];
        let error = patient.read_exact(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("too long"), "{error}");
        drop(patient);
        trickle.join().unwrap();
    }

    #[test]
    fn whoever_is_quick_enough_is_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"all of it").unwrap();
        let mut bytes = [0; 9];
        Patient::until(ours, Duration::from_secs(5)).unwrap().read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"all of it");
    }
}
