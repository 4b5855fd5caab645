//! An order that the data thread was given and has perhaps not done yet.
//!
//! Knows where the answer comes. Never knows what was ordered.

use std::sync::mpsc::Receiver;

use super::WorkerGone;

/// The answer, when there is one.
pub(crate) struct Pending<T>(Receiver<T>);

impl<T> Pending<T> {
    pub(super) const fn new(answer: Receiver<T>) -> Self {
        Self(answer)
    }

    /// Waits for it.
    pub(crate) fn wait(self) -> Result<T, WorkerGone> {
        self.0.recv().map_err(|_| WorkerGone)
    }
}
