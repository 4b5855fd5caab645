//! One descriptor chain (virtio 1.2 section 2.7.5): from its head to the buffers it names.
//!
//! Every descriptor is read once, and everything a driver must not do makes the chain bad: a bad chain names no
//! buffer at all. Knows descriptors and guest memory. Never knows what buffers hold.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::memory::{Memory, Slice};
use super::ring::{Descriptor, View};

/// Most descriptors of one chain, those of its indirect table included.
pub(crate) const DESCRIPTORS_MAX: usize = 1024;

/// Which way a queue's buffers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// We read them: the driver transmits.
    FromGuest,
    /// We write them: the driver receives.
    ToGuest,
}

/// A chain that breaks the rules, or whose buffers are not in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChain;

type Region = <Memory as GuestMemoryBackend>::R;

/// Follows the chains of one ring for a batch.
pub(crate) struct Chains<'v, 'm> {
    view: &'v View<'m>,
    memory: &'m Memory,
    way: Way,
    limit: usize,
    /// Where the last buffer was: most likely the next is there too, and nothing need be searched.
    near: Option<&'m Region>,
}

impl<'v, 'm> Chains<'v, 'm> {
    /// Chains whose buffers go `way` and hold `limit` bytes at most.
    pub(crate) const fn new(view: &'v View<'m>, memory: &'m Memory, way: Way, limit: usize) -> Self {
        Self { view, memory, way, limit, near: None }
    }

    pub(crate) const fn view(&self) -> &'v View<'m> {
        self.view
    }

    /// Appends the buffers of the chain at `head` to `slices` and gives their length in bytes. A bad chain appends
    /// nothing.
    #[inline]
    pub(crate) fn walk(&mut self, head: u16, slices: &mut Vec<Slice<'m>>) -> Result<usize, BadChain> {
        let kept = slices.len();
        let mut walk = Walk { chains: self, slices, descriptors: 0, total: 0 };
        match walk.table(head) {
            Ok(()) => Ok(walk.total),
            Err(bad) => {
                slices.truncate(kept);
                Err(bad)
            }
        }
    }

    /// These bytes, if one region holds them all.
    #[inline]
    fn slice_at(&mut self, address: GuestAddress, length: usize) -> Option<Slice<'m>> {
        let within = |region: &'m Region| region.get_slice(region.to_region_addr(address)?, length).ok();
        if let Some(slice) = self.near.and_then(within) {
            return Some(slice);
        }
        self.near = self.memory.find_region(address);
        self.near.and_then(within)
    }
}

struct Walk<'s, 'v, 'm> {
    chains: &'s mut Chains<'v, 'm>,
    slices: &'s mut Vec<Slice<'m>>,
    descriptors: usize,
    total: usize,
}

impl Walk<'_, '_, '_> {
    /// Descriptors of the ring's own table: no more than the ring has, else they go in a circle.
    #[inline]
    fn table(&mut self, head: u16) -> Result<(), BadChain> {
        let view = self.chains.view;
        let mut index = head;
        for _ in 0..view.size() {
            let descriptor = view.descriptor(index).ok_or(BadChain)?;
            if descriptor.is_indirect() {
                if !view.indirect() || descriptor.has_next() {
                    return Err(BadChain);
                }
                return self.indirect(descriptor);
            }
            self.buffer(descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = descriptor.next();
        }
        Err(BadChain)
    }

    /// Descriptors of an indirect table, which may not lead to another.
    fn indirect(&mut self, table: Descriptor) -> Result<(), BadChain> {
        let length = usize::try_from(table.length()).map_err(|_| BadChain)?;
        let entries = length / Descriptor::LEN;
        if length % Descriptor::LEN != 0 || entries == 0 || entries > DESCRIPTORS_MAX {
            return Err(BadChain);
        }
        let near = self.chains.slice_at(table.address(), length);
        let mut index = 0;
        for _ in 0..entries {
            if index >= entries {
                return Err(BadChain);
            }
            let descriptor = match &near {
                Some(slice) => slice
                    .read_obj(Descriptor::LEN * index)
                    .map_err(|_| BadChain)
                    .map(Descriptor::from_bytes)?,
                None => self.far_descriptor(table.address(), index)?,
            };
            if descriptor.is_indirect() {
                return Err(BadChain);
            }
            self.buffer(descriptor)?;
            if !descriptor.has_next() {
                return Ok(());
            }
            index = usize::from(descriptor.next());
        }
        Err(BadChain)
    }

    /// Of a table that lies across two regions.
    fn far_descriptor(&self, table: GuestAddress, index: usize) -> Result<Descriptor, BadChain> {
        let offset = u64::try_from(Descriptor::LEN * index).map_err(|_| BadChain)?;
        let address = table.0.checked_add(offset).ok_or(BadChain)?;
        self.chains.memory.read_obj(GuestAddress(address)).map_err(|_| BadChain).map(Descriptor::from_bytes)
    }

    #[inline]
    fn buffer(&mut self, descriptor: Descriptor) -> Result<(), BadChain> {
        self.descriptors += 1;
        let wrong_way = descriptor.is_for_writing() != (self.chains.way == Way::ToGuest);
        if self.descriptors > DESCRIPTORS_MAX || wrong_way {
            return Err(BadChain);
        }
        let length = usize::try_from(descriptor.length()).map_err(|_| BadChain)?;
        if length == 0 {
            return Ok(());
        }
        self.total =
            self.total.checked_add(length).filter(|total| *total <= self.chains.limit).ok_or(BadChain)?;
        let address = descriptor.address();
        if let Some(slice) = self.chains.slice_at(address, length) {
            self.slices.push(slice);
            return Ok(());
        }
        for slice in GuestMemoryBackend::get_slices(self.chains.memory, address, length) {
            self.slices.push(slice.map_err(|_| BadChain)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
