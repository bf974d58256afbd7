//! Undecided and poisoned bytes as instructions meet them. Undecided ones: most use them, which ends the run; MOVS copies
//! them unseen. Poisoned ones: a load raises #MC, a store changes nothing of that.
//!
//! Pages that hold some have the slow bit [`WATCHED`], so that nothing here is asked of the others.

use crate::{
    Bus, Cpu, DECIDED, Fault,
    access::{Target, bytes_in_page},
    debug::DataAccess,
    events::granules,
    machine_check::Wanted,
    tlb::{CHECKED, WATCHED},
};

const PAGE: usize = 4096;
/// Bytes of one granule of a page's decoded-code map.
const GRANULE: u64 = crate::events::GRANULE as u64;

/// Memory that MOVS reads, up to the end of its page.
pub(crate) struct Source {
    /// Host address of the first byte.
    pub host: *const u8,
    /// Guest-physical address of the first byte.
    physical: u64,
    /// There may be undecided bytes in this page.
    pub watched: bool,
}

/// An element with undecided bytes, of which nothing may be used but copied.
pub(crate) struct Unseen {
    /// What stands in their place.
    pub bytes: [u8; 8],
    origins: [u64; 8],
}

impl<B: Bus> Cpu<B> {
    /// Ends the run, by [`Fault::UNDECIDED`], if some of these bytes are undecided: an instruction is about to use them.
    /// Raises #MC if some are poisoned.
    pub(crate) fn consume(&mut self, bus: &mut B, parts: [(Target, usize); 2]) -> Result<(), Fault> {
        let mut decided = true;
        for (target, len) in parts {
            if let Target::Memory { physical, slow, .. } = target
                && slow & WATCHED != 0
                && len != 0
            {
                if let Some(lost) = bus.poisoned(physical, len) {
                    return Err(self.machine_check(lost, Wanted::Data));
                }
                decided &= bus.consume(physical, len);
            }
        }
        if decided { Ok(()) } else { Err(Fault::UNDECIDED) }
    }

    /// As [`Cpu::consume`] for granules of a page, from which instructions are decoded. What lies behind the last one may
    /// have been looked at, too.
    pub(crate) fn consume_granules(&mut self, bus: &mut B, frame: u64, granules: u32) -> Result<(), Fault> {
        if !bus.has_undecided(frame) {
            return Ok(());
        }
        for n in (0..32).filter(|n| granules >> n & 1 != 0) {
            if let Some(lost) = bus.poisoned((frame << 12) + n * GRANULE, GRANULE as usize) {
                return Err(self.machine_check(lost, Wanted::Instruction));
            }
        }
        let granules = granules | granules << 1;
        let mut decided = true;
        for n in (0..32).filter(|n| granules >> n & 1 != 0) {
            decided &= bus.consume((frame << 12) + n * GRANULE, GRANULE as usize);
        }
        if decided { Ok(()) } else { Err(Fault::UNDECIDED) }
    }

    /// As [`Cpu::consume_granules`] for `len` bytes from the beginning of a page.
    pub(crate) fn consume_page_start(&mut self, bus: &mut B, frame: u64, len: usize) -> Result<(), Fault> {
        self.consume_granules(bus, frame, granules(0, len))
    }

    /// Where the byte at `linear` lies, for copying from there. Good up to the end of its page and until the next
    /// access. `None` for devices and where accesses are checked.
    pub(crate) fn source(&mut self, bus: &mut B, linear: u64) -> Result<Option<Source>, Fault> {
        Ok(match self.read_target(bus, linear)? {
            Target::Memory { host, physical, slow } if slow & CHECKED == 0 => {
                Some(Source { host, physical, watched: slow & WATCHED != 0 })
            }
            _ => None,
        })
    }

    /// How many of `elements` elements of `size` bytes, which do not leave their page, can be loaded one after the other
    /// before one is poisoned. Raises #MC if the first is.
    pub(crate) fn loadable(
        &mut self,
        bus: &mut B,
        source: &Source,
        elements: u64,
        size: u64,
    ) -> Result<u64, Fault> {
        if !source.watched {
            return Ok(elements);
        }
        match bus.poisoned(source.physical, (elements * size) as usize) {
            None => Ok(elements),
            Some(lost) if lost - source.physical < size => Err(self.machine_check(lost, Wanted::Data)),
            Some(lost) => Ok((lost - source.physical) / size),
        }
    }

    /// Copies `len` bytes, whole elements that do not leave their pages, from or to a page with undecided bytes. False,
    /// and nothing copied, if another way must be taken: the destination is no ordinary memory, or takes no undecided
    /// bytes, or elements would be read after they have been written over.
    pub(crate) fn copy_watched(
        &mut self,
        bus: &mut B,
        to: u64,
        source: &Source,
        len: usize,
    ) -> Result<bool, Fault> {
        let Target::Memory { host, physical, slow } = self.write_target(bus, to)? else { return Ok(false) };
        let overlaps = (1..len as u64).contains(&physical.wrapping_sub(source.physical));
        if slow & !WATCHED != 0 || overlaps {
            return Ok(false);
        }
        let mut origins = [DECIDED; PAGE];
        let origins = &mut origins[..len];
        let undecided = source.watched && bus.origins(source.physical, origins);
        if undecided && !bus.takes_undecided(physical >> 12) {
            return Ok(false);
        }
        // SAFETY: `len` bytes from each address do not leave their pages, which are host memory up to their ends.
        unsafe { std::ptr::copy(source.host, host, len) };
        bus.put_origins(physical, len, undecided.then_some(origins));
        if undecided && slow & WATCHED == 0 {
            self.watch(physical >> 12);
        }
        Ok(true)
    }

    /// Whether `len` bytes of `source` (at most a line) can be stored at `to` as what they are now: no byte is undecided.
    /// Where the destination takes no undecided bytes, that ends the run.
    pub(crate) fn is_decided(
        &mut self,
        bus: &mut B,
        source: &Source,
        len: usize,
        to: u64,
    ) -> Result<bool, Fault> {
        if !source.watched || !bus.origins(source.physical, &mut [DECIDED; PAGE][..len]) {
            return Ok(true);
        }
        if bus.takes_undecided(self.tlb.write.frame(to, self.privilege)) {
            return Ok(false);
        }
        bus.consume(source.physical, len);
        Err(Fault::UNDECIDED)
    }

    /// Reads an element of MOVS that has undecided bytes, if its destination takes such. `None`: it is to be loaded as
    /// by any other instruction.
    pub(crate) fn read_unseen(
        &mut self,
        bus: &mut B,
        from: u64,
        to: u64,
        size: usize,
    ) -> Result<Option<Unseen>, Fault> {
        let Some(reads) = self.parts(from, size, |cpu, at| cpu.read_target(bus, at))? else {
            return Ok(None);
        };
        self.check_alignment(from, size)?;
        let mut unseen = Unseen { bytes: [0; 8], origins: [DECIDED; 8] };
        let (mut undecided, mut at) = (false, 0);
        for (target, len) in reads {
            if let Target::Memory { physical, slow, .. } = target
                && slow & WATCHED != 0
                && len != 0
            {
                if let Some(lost) = bus.poisoned(physical, len) {
                    return Err(self.machine_check(lost, Wanted::Data));
                }
                undecided |= bus.origins(physical, &mut unseen.origins[at..at + len]);
            }
            at += len;
        }
        if !undecided {
            return Ok(None);
        }
        let Some(writes) = self.parts(to, size, |cpu, at| cpu.write_target(bus, at))? else {
            return Ok(None);
        };
        let takes =
            |target| matches!(target, Target::Memory { physical, .. } if bus.takes_undecided(physical >> 12));
        if !writes.into_iter().all(|(target, _)| takes(target)) {
            return Ok(None);
        }
        self.watch_data(from, size, DataAccess::Read);
        let mut rest = &mut unseen.bytes[..size];
        for (target, len) in reads {
            let (part, behind) = rest.split_at_mut(len);
            self.load(bus, target, part);
            rest = behind;
        }
        Ok(Some(unseen))
    }

    /// The element that has just been stored at `to` has undecided bytes.
    pub(crate) fn stored_unseen(
        &mut self,
        bus: &mut B,
        to: u64,
        size: usize,
        unseen: &Unseen,
    ) -> Result<(), Fault> {
        let mut origins = &unseen.origins[..size];
        let Some(writes) = self.parts(to, size, |cpu, at| cpu.write_target(bus, at))? else { return Ok(()) };
        for (target, len) in writes {
            let (part, behind) = origins.split_at(len);
            origins = behind;
            if let Target::Memory { physical, .. } = target
                && part.iter().any(|origin| *origin != DECIDED)
            {
                bus.put_origins(physical, len, Some(part));
                self.watch(physical >> 12);
            }
        }
        Ok(())
    }

    /// The parts of an element on either side of a page border, the second one perhaps empty. `None` if one of them is
    /// not memory.
    fn parts(
        &mut self,
        linear: u64,
        size: usize,
        mut target: impl FnMut(&mut Self, u64) -> Result<Target, Fault>,
    ) -> Result<Option<[(Target, usize); 2]>, Fault> {
        let head = bytes_in_page(linear, size);
        if head < size {
            self.check_canonical(self.next_page(linear))?;
        }
        let first = target(self, linear)?;
        let second = if head < size { target(self, self.next_page(linear))? } else { first };
        let memory = [first, second].iter().all(|target| matches!(target, Target::Memory { .. }));
        Ok(memory.then_some([(first, head), (second, size - head)]))
    }
}
