//! One split virtqueue (VIRTIO 1.3, 2.7), held as plain numbers between two calls and walked by the virtio-queue crate.
//!
//! That crate ends a chain silently where it breaks the rules; what came before the break is then no request. So a chain
//! is taken whole, checked, and refused as a whole.

use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{GuestAddress, GuestMemory, Permissions};

/// Descriptors that the queue has at most, and unless the driver asks for fewer.
pub(super) const MAX_SIZE: u16 = 64;

/// The driver broke the rules of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// A piece of guest memory that a descriptor names, all of it within reach of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub addr: u64,
    pub len: u32,
}

/// A descriptor chain that keeps the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Index of its first descriptor: its name in the used ring.
    pub head: u16,
    /// What the device may read, in order.
    pub readable: Vec<Piece>,
    /// What the device may write, in order.
    pub writable: Vec<Piece>,
}

/// What the driver has told of the queue, and where the device is in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ring {
    /// As the driver wrote it: checked when it says that the queue is ready.
    pub size: u32,
    pub ready: bool,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    next_available: u16,
    next_used: u16,
}

impl Default for Ring {
    fn default() -> Ring {
        Ring {
            size: MAX_SIZE.into(),
            ready: false,
            descriptors: 0,
            available: 0,
            used: 0,
            next_available: 0,
            next_used: 0,
        }
    }
}

impl Ring {
    /// The driver says that the queue is ready: size, alignment and places must be possible.
    pub(super) fn make_ready<M: GuestMemory>(&mut self, memory: &M) -> Result<(), Broken> {
        let ring = Ring { ready: true, ..self.clone() };
        // The crate takes a queue whose available ring is at 0 for one that is not ready.
        if self.available == 0 || !ring.queue()?.is_valid(memory) {
            return Err(Broken);
        }
        *self = ring;
        Ok(())
    }

    /// The driver takes the queue back. It begins anew when it is ready again.
    pub(super) fn stop(&mut self) {
        *self = Ring { ready: false, next_available: 0, next_used: 0, ..self.clone() };
    }

    fn queue(&self) -> Result<Queue, Broken> {
        let state = QueueState {
            max_size: MAX_SIZE,
            next_avail: self.next_available,
            next_used: self.next_used,
            event_idx_enabled: false,
            size: u16::try_from(self.size).map_err(|_| Broken)?,
            ready: self.ready,
            desc_table: self.descriptors,
            avail_ring: self.available,
            used_ring: self.used,
        };
        Queue::try_from(state).map_err(|_| Broken)
    }

    /// The chains made available since the last call, at most as many as the queue has descriptors, up to the first one
    /// that breaks the rules.
    pub(super) fn take<M: GuestMemory>(&mut self, memory: &M) -> (Vec<Chain>, Result<(), Broken>) {
        let mut chains = Vec::new();
        let taken = self.take_into(memory, &mut chains);
        (chains, taken)
    }

    fn take_into<M: GuestMemory>(&mut self, memory: &M, chains: &mut Vec<Chain>) -> Result<(), Broken> {
        let mut queue = self.queue()?;
        let size = queue.size();
        for descriptors in queue.iter(memory).map_err(|_| Broken)? {
            chains.push(check(descriptors, size, memory)?);
        }
        self.next_available = queue.next_avail();
        Ok(())
    }

    /// Gives a chain back to the driver, `written` bytes of it filled.
    pub(super) fn give_back<M: GuestMemory>(
        &mut self,
        head: u16,
        written: u32,
        memory: &M,
    ) -> Result<(), Broken> {
        let mut queue = self.queue()?;
        queue.add_used(memory, head, written).map_err(|_| Broken)?;
        self.next_used = queue.next_used();
        Ok(())
    }
}

/// Takes the descriptors of a chain: at least one and at most `size`, an end, no empty one, none to be read behind one to
/// be written (2.7.4.2), every byte in reach.
fn check<M: GuestMemory>(
    descriptors: virtio_queue::DescriptorChain<&M>,
    size: u16,
    memory: &M,
) -> Result<Chain, Broken> {
    let mut chain = Chain { head: descriptors.head_index(), readable: Vec::new(), writable: Vec::new() };
    let mut goes_on = true;
    for descriptor in descriptors.take(usize::from(size) + 1) {
        goes_on = descriptor.has_next();
        let piece = Piece { addr: descriptor.addr().0, len: descriptor.len() };
        let access = if descriptor.is_write_only() { Permissions::Write } else { Permissions::Read };
        if piece.len == 0 || !memory.check_range(GuestAddress(piece.addr), piece.len as usize, access) {
            return Err(Broken);
        }
        match access {
            Permissions::Write => chain.writable.push(piece),
            _ if chain.writable.is_empty() => chain.readable.push(piece),
            _ => return Err(Broken),
        }
    }
    let count = chain.readable.len() + chain.writable.len();
    if goes_on || count > usize::from(size) {
        return Err(Broken);
    }
    Ok(chain)
}
