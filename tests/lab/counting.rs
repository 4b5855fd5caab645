//! An allocator that counts: how often this thread has asked for memory.
//!
//! It may know the system's allocator. It must never know who asks.
#![expect(unsafe_code, reason = "an allocator is made of the system's, whose functions are unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counted per thread.
#[derive(Debug)]
pub struct Counting;

/// How often this thread has asked for memory.
#[must_use]
pub fn asked() -> u64 {
    ASKED.with(Cell::get)
}

fn count() {
    // A thread that is ending counts no more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: every call is the system allocator's with the same arguments; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` came from `System` with this `layout`, for that is all `alloc` does.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `memory` came from `System` with this `layout`; the caller's promise about `size` is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}
