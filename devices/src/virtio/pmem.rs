//! virtio-pmem (VIRTIO 1.3, 5.19): a range of persistent memory whose writes a request makes durable.
//!
//! The memory itself is the board's; the device is told where it lies and answers FLUSH requests. A request is made
//! available, as the device can know it, when the doorbell is rung: what is stored later is not covered by it, and so
//! every request is answered by itself, never with the result of an earlier one.

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_ids::VIRTIO_ID_PMEM;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::faults::{FlushAction, FlushFault, action};
use super::mmio::{Asked, Identity, Registers};
use super::queue::{Broken, Chain, Piece};

/// The range is shared memory region 0 (5.19.3). It also stands in the configuration, whatever the driver negotiates:
/// Linux before 6.9 knows no other place.
const SHMEM_REGION: u64 = 1 << 0;
/// Type of the only request (5.19.6).
const FLUSH: u32 = 0;
/// Bytes of a request and of its answer.
const REQUEST: u32 = 4;
const ANSWER: u32 = 4;
const SUCCESS: i32 = 0;
const FAILURE: i32 = -1;

/// Nanoseconds of virtual time from doorbell to answer. Not at once, so that other processors and threads go on while a
/// flush is on its way, as they do before a host that calls fsync.
const FLUSH_TIME: u64 = 50_000;

/// What happened to a flush, in the order in which it happened. `number` counts the device's flushes, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushEvent {
    /// It was made available.
    Submitted {
        /// The flush.
        number: u64,
    },
    /// It was answered.
    Completed {
        /// The flush.
        number: u64,
        /// What the driver reads: 0 for success, -1 for failure.
        status: i32,
    },
}

/// A flush that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    number: u64,
    head: u16,
    answer: Vec<Piece>,
    status: i32,
    /// When it is answered; never if `None`.
    due: Option<u64>,
}

/// One virtio-pmem device with its transport registers, 512 bytes of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioPmem {
    start: u64,
    size: u64,
    registers: Registers,
    /// In the order in which they were made available.
    pending: Vec<Pending>,
    faults: Vec<FlushFault>,
    /// Flushes since the faults were set.
    since_faults: u64,
    flushes: u64,
}

impl VirtioPmem {
    /// A device for `size` bytes of memory at guest-physical `start`.
    pub fn new(start: u64, size: u64) -> VirtioPmem {
        VirtioPmem {
            start,
            size,
            registers: Registers::default(),
            pending: Vec::new(),
            faults: Vec::new(),
            since_faults: 0,
            flushes: 0,
        }
    }

    /// Sets what goes wrong from now on. Flushes are counted anew.
    pub fn set_faults(&mut self, faults: &[FlushFault]) {
        self.faults = faults.to_vec();
        self.since_faults = 0;
    }

    fn identity(&self) -> Identity {
        Identity {
            device: VIRTIO_ID_PMEM,
            features: SHMEM_REGION,
            config: [self.start.to_le_bytes(), self.size.to_le_bytes()].concat(),
            shared_memory: (self.start, self.size),
        }
    }

    /// Whether the interrupt line, which is level-triggered, is high.
    pub fn irq(&self) -> bool {
        self.registers.irq()
    }

    /// When the next answer is due.
    pub fn deadline(&self) -> Option<u64> {
        self.pending.iter().filter_map(|pending| pending.due).min()
    }

    /// Reads `size` bytes at `offset` of the registers.
    pub fn read(&self, offset: u64, size: usize) -> u64 {
        self.registers.read(&self.identity(), offset, size)
    }

    /// Writes `size` bytes at `offset` of the registers.
    pub fn write<M: GuestMemory>(
        &mut self,
        offset: u64,
        size: usize,
        value: u64,
        now: u64,
        memory: &M,
    ) -> Vec<FlushEvent> {
        match self.registers.write(&self.identity(), offset, size, value, memory) {
            Asked::Nothing => Vec::new(),
            Asked::ForgetRequests => {
                self.pending.clear();
                Vec::new()
            }
            Asked::LookAtQueue => self.look_at_queue(now, memory),
        }
    }

    /// Answers the flush that is due at `now`, the oldest if there are several: call it until it returns nothing.
    pub fn expire<M: GuestMemory>(&mut self, now: u64, memory: &M) -> Option<FlushEvent> {
        let is_due = |pending: &Pending| pending.due.is_some_and(|due| due <= now);
        let due = self.pending.iter().position(is_due)?;
        let Pending { number, head, answer, status, .. } = self.pending.remove(due);
        match self.answer(head, &answer, status, memory) {
            Ok(()) => Some(FlushEvent::Completed { number, status }),
            Err(Broken) => {
                self.break_down();
                None
            }
        }
    }

    fn look_at_queue<M: GuestMemory>(&mut self, now: u64, memory: &M) -> Vec<FlushEvent> {
        let (chains, taken) = self.registers.queue.take(memory);
        let mut events = Vec::new();
        let done = chains.into_iter().try_for_each(|chain| self.request(chain, now, memory, &mut events));
        if done.and(taken).is_err() {
            self.break_down();
        }
        events
    }

    /// One request. What has no room for an answer breaks the device, what is no FLUSH is answered with failure.
    fn request<M: GuestMemory>(
        &mut self,
        chain: Chain,
        now: u64,
        memory: &M,
        events: &mut Vec<FlushEvent>,
    ) -> Result<(), Broken> {
        let answer = first(&chain.writable, ANSWER).ok_or(Broken)?;
        if self.pending.iter().any(|pending| pending.head == chain.head) {
            return Err(Broken);
        }
        if kind(&chain.readable, memory)? != Some(FLUSH) {
            return self.answer(chain.head, &answer, FAILURE, memory);
        }
        let number = self.flushes;
        self.flushes += 1;
        self.since_faults += 1;
        let (status, after) = match action(&self.faults, self.since_faults) {
            None => (SUCCESS, Some(FLUSH_TIME)),
            Some(FlushAction::Fail) => (FAILURE, Some(FLUSH_TIME)),
            Some(FlushAction::Late(after)) => (SUCCESS, Some(after)),
            Some(FlushAction::NeverAnswer) => (FAILURE, None),
        };
        let due = after.map(|after| now.saturating_add(after));
        self.pending.push(Pending { number, head: chain.head, answer, status, due });
        events.push(FlushEvent::Submitted { number });
        Ok(())
    }

    fn answer<M: GuestMemory>(
        &mut self,
        head: u16,
        places: &[Piece],
        status: i32,
        memory: &M,
    ) -> Result<(), Broken> {
        let bytes = status.to_le_bytes();
        let mut rest = &bytes[..];
        for place in places {
            let (piece, behind) = rest.split_at_checked(place.len as usize).ok_or(Broken)?;
            memory.write_slice(piece, GuestAddress(place.addr)).map_err(|_| Broken)?;
            rest = behind;
        }
        self.registers.queue.give_back(head, ANSWER, memory)?;
        self.registers.buffers_used();
        Ok(())
    }

    /// Nothing goes on before the driver resets the device, not even what was on its way.
    fn break_down(&mut self) {
        self.pending.clear();
        self.registers.needs_reset();
    }
}

#[cfg(test)]
impl VirtioPmem {
    pub(super) fn queue(&self) -> &super::queue::Ring {
        &self.registers.queue
    }

    pub(super) fn queue_size(&self) -> u32 {
        self.registers.queue.size
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}

/// The first `len` bytes of the pieces, `None` if they have fewer.
fn first(pieces: &[Piece], len: u32) -> Option<Vec<Piece>> {
    let mut left = len;
    let mut found = Vec::new();
    for piece in pieces {
        let len = piece.len.min(left);
        if len > 0 {
            found.push(Piece { len, ..*piece });
        }
        left -= len;
    }
    (left == 0).then_some(found)
}

/// Type of a request of the right length, `None` for another length.
fn kind<M: GuestMemory>(readable: &[Piece], memory: &M) -> Result<Option<u32>, Broken> {
    let len: u64 = readable.iter().map(|piece| u64::from(piece.len)).sum();
    if len != u64::from(REQUEST) {
        return Ok(None);
    }
    let mut bytes = [0; REQUEST as usize];
    let mut rest = &mut bytes[..];
    for piece in readable {
        let (place, behind) = rest.split_at_mut(piece.len as usize);
        memory.read_slice(place, GuestAddress(piece.addr)).map_err(|_| Broken)?;
        rest = behind;
    }
    Ok(Some(u32::from_le_bytes(bytes)))
}
