//! Which pages of the guest we have written, while the VMM copies its memory to another host.
//!
//! The VMM's log is a bit per page; every write to guest memory passes a slice, and a slice marks what it wrote. Knows the
//! library's bitmap and when to leave it alone. Never knows what is written.
//!
//! The library's own type takes a lock for every write even when nothing is logged, never stops, and loses its log when
//! the VMM changes its memory table. This one looks at a flag, stops when told, and can be given the log again.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vhost_user_backend::bitmap::{
    AtomicBitmapMmap, BitmapMmapRegion, BitmapReplace, MemRegionBitmap, MmapLogReg,
};
use vm_memory::bitmap::{Bitmap, BitmapSlice, WithBitmapSlice};
use vm_memory::mmap::NewBitmap;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

use super::memory::Memory;

/// What marks the pages of one memory region. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct DirtyLog(Arc<Marks>);

#[derive(Debug, Default)]
struct Marks {
    on: AtomicBool,
    bitmap: BitmapMmapRegion,
    /// The VMM's log, for regions that come later.
    log: Mutex<Option<Arc<MmapLogReg>>>,
}

impl DirtyLog {
    /// Marks nothing from now on.
    fn stop(&self) {
        self.0.on.store(false, Ordering::Release);
        *self.0.log() = None;
    }

    /// The VMM's log, while there is one.
    fn log(&self) -> Option<Arc<MmapLogReg>> {
        self.0.log().clone()
    }
}

impl Marks {
    fn log(&self) -> MutexGuard<'_, Option<Arc<MmapLogReg>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn mark(&self, offset: usize, length: usize) {
        if self.on.load(Ordering::Relaxed) {
            self.bitmap.mark_dirty(offset, length);
        }
    }

    fn is_dirty(&self, offset: usize) -> bool {
        self.on.load(Ordering::Relaxed) && self.bitmap.dirty_at(offset)
    }
}

/// Marks nothing from now on, in all of `memory`.
pub(crate) fn stop(memory: &Memory) {
    memory.iter().for_each(|region| marks_of(region).stop());
}

/// Lets the log of the table `before` go on in the regions of `now` that have none.
///
/// # Errors
/// The log has no room for a region.
pub(crate) fn carry_on(before: &Memory, now: &Memory) -> io::Result<()> {
    let Some(log) = before.iter().find_map(|region| marks_of(region).log()) else { return Ok(()) };
    for region in now.iter().filter(|region| marks_of(region).log().is_none()) {
        marks_of(region).replace(RegionLog::new(region, Arc::clone(&log))?);
    }
    Ok(())
}

fn marks_of(region: &GuestRegionMmap<DirtyLog>) -> &DirtyLog {
    let mapping: &MmapRegion<DirtyLog> = region;
    mapping.bitmap()
}

/// A region's part of the VMM's log.
#[derive(Debug)]
pub(crate) struct RegionLog {
    bits: AtomicBitmapMmap,
    log: Arc<MmapLogReg>,
}

impl MemRegionBitmap for RegionLog {
    fn new<R: GuestMemoryRegion>(region: &R, log: Arc<MmapLogReg>) -> io::Result<Self> {
        Ok(Self { bits: AtomicBitmapMmap::new(region, Arc::clone(&log))?, log })
    }
}

impl BitmapReplace for DirtyLog {
    type InnerBitmap = RegionLog;

    /// The VMM has its answer after this, and the data thread works on a ring only under that ring's lock, which the
    /// messages that follow take too: nothing it writes from then on goes unmarked.
    fn replace(&self, region: RegionLog) {
        self.0.bitmap.replace(region.bits);
        *self.0.log() = Some(region.log);
        self.0.on.store(true, Ordering::Release);
    }
}

impl NewBitmap for DirtyLog {
    fn with_len(_: usize) -> Self {
        Self::default()
    }
}

impl<'a> WithBitmapSlice<'a> for DirtyLog {
    type S = DirtySlice<'a>;
}

impl Bitmap for DirtyLog {
    fn mark_dirty(&self, offset: usize, length: usize) {
        self.0.mark(offset, length);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.0.is_dirty(offset)
    }

    #[inline]
    fn slice_at(&self, offset: usize) -> DirtySlice<'_> {
        DirtySlice { marks: &self.0, offset }
    }
}

/// What marks the pages of one slice.
#[derive(Debug, Clone, Copy)]
pub struct DirtySlice<'a> {
    marks: &'a Marks,
    offset: usize,
}

impl BitmapSlice for DirtySlice<'_> {}

impl<'a> WithBitmapSlice<'_> for DirtySlice<'a> {
    type S = DirtySlice<'a>;
}

impl<'a> Bitmap for DirtySlice<'a> {
    #[inline]
    fn mark_dirty(&self, offset: usize, length: usize) {
        self.marks.mark(self.offset.saturating_add(offset), length);
    }

    fn dirty_at(&self, offset: usize) -> bool {
        self.marks.is_dirty(self.offset.saturating_add(offset))
    }

    #[inline]
    fn slice_at(&self, offset: usize) -> DirtySlice<'a> {
        DirtySlice { marks: self.marks, offset: self.offset.saturating_add(offset) }
    }
}
