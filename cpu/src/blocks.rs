//! Decoded instructions, kept by where they lie in guest-physical memory and dropped when they are written over.

use std::cell::Cell;

use iced_x86::Instruction;
use rustc_hash::FxHashMap;

use crate::{
    Bus, Cpu, Fault, Page,
    access::watched,
    decode::{CodeSize, Decoded, Handlers, LONGEST, decode},
    events::granules,
    integer::fuse,
    op::Op,
    paging::{Access, is_canonical},
    registers::{ACCESS_BIG, CS},
    tlb::Privilege,
};

/// Instructions in one block at most.
pub(crate) const BLOCK_OPS: usize = 32;
/// Blocks kept at most, so that a guest that generates code forever costs bounded memory.
const BLOCKS: usize = 400_000;
/// Instructions at which all are dropped, for the same reason: 128 MiB.
pub(crate) const OPS: usize = if cfg!(test) { 10_000 } else { 4_000_000 };
/// Slots of the table of blocks entered lately.
const RECENT: usize = 65536;
/// Bytes of the longest block.
const LONGEST_BLOCK: u64 = (BLOCK_OPS * LONGEST) as u64;

/// No block has this key.
const NO_KEY: u64 = u64::MAX;

/// A run of instructions that follow each other in one page. It fills one cache line of the host: on the way from block
/// to block little else is read.
#[repr(align(64))]
pub(crate) struct Block<B: Bus> {
    /// Where its instructions begin in [`CodeCache::ops`].
    start: u32,
    /// How many of those are its own.
    len: u16,
    /// Instructions in it: one more than `len` if the last of those is a fused pair.
    pub count: u16,
    /// Its key, if it may be entered without another look; [`NO_KEY`] if it crosses pages, is probed or was dropped.
    direct_key: u64,
    /// Where execution went from here, the last two places, the newest first.
    next: [Cell<Link>; 2],
    origin: Box<Origin<B>>,
}

/// A guess at the next block: which one it was when RIP ended in these 32 bits. Its key decides whether it is that.
#[derive(Clone, Copy)]
struct Link {
    rip: u32,
    index: u32,
    /// Its [`Block::start`].
    start: u32,
}

impl Link {
    /// A wrong guess.
    const NONE: Link = Link { rip: 0, index: 0, start: 0 };
}

/// Where a block came from.
struct Origin<B: Bus> {
    /// Guest-physical page.
    frame: u64,
    /// Which granules of the page it covers.
    granules: u32,
    /// Key in [`CodeCache::by_address`].
    key: u64,
    /// The bytes of an instruction that goes on in the next linear page. It stands alone in its block, which is
    /// compared with memory each time it is entered: nobody watches the second page.
    crossing: Option<Box<[u8]>>,
    /// The two instructions that the last of the block's is made of, if it is a fused pair.
    unfused: Option<[Op<B>; 2]>,
}

/// All decoded instructions.
pub(crate) struct CodeCache<B: Bus> {
    pub blocks: Vec<Block<B>>,
    free: Vec<u32>,
    /// The instructions of all blocks, in the order in which they were decoded: what is executed one after the other lies
    /// together. Those of dropped blocks stay until everything is dropped.
    ops: Vec<Op<B>>,
    by_address: FxHashMap<u64, u32>,
    by_page: FxHashMap<u64, Vec<u32>>,
    /// Where the block with a key may be found. A guess: its key decides.
    recent: Box<[u32]>,
    /// The block entered last.
    previous: u32,
}

/// A block before it is kept.
struct New<B: Bus> {
    ops: Vec<Op<B>>,
    origin: Origin<B>,
}

impl<B: Bus> Default for CodeCache<B> {
    fn default() -> Self {
        CodeCache {
            blocks: Vec::new(),
            free: Vec::new(),
            ops: Vec::new(),
            by_address: FxHashMap::default(),
            by_page: FxHashMap::default(),
            recent: Box::default(),
            previous: 0,
        }
    }
}

impl<B: Bus> CodeCache<B> {
    /// Index of the block with this key, if it is one that followed the last one before.
    #[inline(always)]
    pub fn linked(&mut self, key: u64, rip: u64) -> Option<u32> {
        let previous = self.blocks.get(self.previous as usize)?;
        let near = previous.next[0].get();
        let link = if near.rip == rip as u32 {
            near
        } else {
            Some(previous.next[1].get()).filter(|far| far.rip == rip as u32)?
        };
        if self.blocks.get(link.index as usize)?.direct_key != key {
            return None;
        }
        self.previous = link.index;
        Some(link.index)
    }

    /// Index of the block with this key, if it was entered lately. Remembers the way to it from the last one.
    #[inline(never)]
    pub fn known(&mut self, key: u64, rip: u64) -> Option<u32> {
        let index = *self.recent.get(recent_slot(key))?;
        if self.blocks.get(index as usize)?.direct_key != key {
            return None;
        }
        if let Some(previous) = self.blocks.get(self.previous as usize) {
            previous.next[1].set(previous.next[0].get());
            let start = self.blocks[index as usize].start;
            previous.next[0].set(Link { rip: rip as u32, index, start });
        }
        self.previous = index;
        Some(index)
    }

    /// Instructions kept, those of dropped blocks included.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.ops.len()
    }

    /// The instructions of a block.
    #[inline(always)]
    pub fn ops(&self, block: &Block<B>) -> &[Op<B>] {
        &self.ops[block.start as usize..][..block.len.into()]
    }

    /// The first instructions of a block, one or more and at most `most`, which are not all. Fewer than `most` where
    /// they would end between the two of a pair: the block that begins with the pair goes on.
    #[cold]
    pub fn part<'a>(&'a self, block: &'a Block<B>, most: usize) -> &'a [Op<B>] {
        let ops = self.ops(block);
        match &block.origin.unfused {
            Some(pair) if ops.len() == 1 => &pair[..1],
            Some(_) => &ops[..most.min(ops.len() - 1)],
            None => &ops[..most],
        }
    }

    /// Asks the host for the block that will probably follow this one, and for its instructions: there are far more of
    /// them than its caches hold.
    #[inline(always)]
    #[allow(unsafe_code)]
    pub fn fetch_ahead(&self, block: &Block<B>) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let next = block.next[0].get();
            let ops = self.ops.as_ptr().wrapping_add(next.start as usize);
            // SAFETY: a prefetch is a hint: it neither faults nor changes anything, whatever the address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(self.blocks.as_ptr().wrapping_add(next.index as usize).cast());
                _mm_prefetch::<_MM_HINT_T0>(ops.cast());
                _mm_prefetch::<_MM_HINT_T0>(ops.wrapping_add(2).cast());
            };
        }
    }

    /// Lets a block be entered without another look.
    fn remember(&mut self, key: u64, index: u32) {
        if self.recent.is_empty() {
            self.recent = vec![0; RECENT].into();
        }
        self.blocks[index as usize].direct_key = key;
        self.recent[recent_slot(key)] = index;
        self.previous = index;
    }

    fn insert(&mut self, New { ops, origin }: New<B>) -> u32 {
        let (key, frame) = (origin.key, origin.frame);
        let block = Block {
            start: self.ops.len() as u32,
            len: ops.len() as u16,
            count: (ops.len() + origin.unfused.iter().len()) as u16,
            direct_key: NO_KEY,
            next: [Cell::new(Link::NONE), Cell::new(Link::NONE)],
            origin: Box::new(origin),
        };
        self.ops.extend(ops);
        let index = match self.free.pop() {
            Some(index) => {
                self.blocks[index as usize] = block;
                index
            }
            None => {
                self.blocks.push(block);
                (self.blocks.len() - 1) as u32
            }
        };
        self.by_address.insert(key, index);
        self.by_page.entry(frame).or_default().push(index);
        index
    }

    /// Drops the blocks of a page that touch the given granules. Returns the granules that still have some.
    fn drop_granules(&mut self, frame: u64, written: u32) -> u32 {
        let Some(mut indices) = self.by_page.remove(&frame) else { return 0 };
        let mut left = 0;
        indices.retain(|&index| {
            let block = &mut self.blocks[index as usize];
            if block.origin.granules & written == 0 {
                left |= block.origin.granules;
                return true;
            }
            self.ops[block.start as usize..][..block.len.into()].iter_mut().for_each(|op| op.full = None);
            block.direct_key = NO_KEY;
            self.by_address.remove(&block.origin.key);
            self.free.push(index);
            false
        });
        if left != 0 {
            self.by_page.insert(frame, indices);
        }
        left
    }
}

#[inline(always)]
fn recent_slot(key: u64) -> usize {
    (key >> 2 ^ key >> 15) as usize & (RECENT - 1)
}

/// Names a block: guest-physical address and code size.
#[inline(always)]
fn block_key(frame: u64, linear: u64, size: CodeSize) -> u64 {
    (frame << 12 | linear & 0xfff) << 2 | size as u64
}

impl<B: Bus> Cpu<B> {
    /// Content of a guest-physical page changed without a processor's doing: decoded instructions from it are
    /// dropped.
    pub fn memory_changed(&mut self, page: u64) {
        if self.code_pages.contains_key(&page) {
            let mut code = std::mem::take(&mut self.code);
            self.drop_code(&mut code, page, u32::MAX);
            self.code = code;
        }
    }

    /// Index of the block at RIP, if it was entered lately and its page's translation is at hand.
    #[inline(always)]
    pub(crate) fn known_block(&self, code: &mut CodeCache<B>, rip: u64) -> Option<u32> {
        let key = self.known_key(rip)?;
        match code.linked(key, rip) {
            Some(index) => Some(index),
            None => code.known(key, rip),
        }
    }

    /// The key of the block at RIP, if the page's translation is at hand and the code segment's limit is far away.
    #[inline(always)]
    fn known_key(&self, rip: u64) -> Option<u64> {
        if !self.fetches_64_bit {
            return self.known_legacy_key(rip);
        }
        let entry = self.tlb.fetch.entry(rip, self.fetch_privilege);
        if entry.tag == rip & !0xfff {
            Some(block_key(self.tlb.fetch.frame(rip, self.fetch_privilege), rip, CodeSize::Bits64))
        } else {
            None
        }
    }

    #[inline(never)]
    fn known_legacy_key(&self, rip: u64) -> Option<u64> {
        if rip.saturating_add(LONGEST_BLOCK) > u64::from(self.state.segments[CS].limit) {
            return None;
        }
        let linear = self.code_linear(rip);
        let entry = self.tlb.fetch.entry(linear, self.fetch_privilege);
        if entry.tag == linear & !0xfff {
            let frame = self.tlb.fetch.frame(linear, self.fetch_privilege);
            Some(block_key(frame, linear, self.code_size()))
        } else {
            None
        }
    }

    /// Follows a change of CPL or of the code segment.
    pub(crate) fn code_segment_changed(&mut self) {
        self.fetch_privilege = if self.privilege.is_user() { Privilege::User } else { Privilege::Supervisor };
        self.fetches_64_bit = self.long_code();
    }

    /// Drops the blocks whose bytes were written.
    pub(crate) fn drop_stale_code(&mut self, code: &mut CodeCache<B>) {
        for (frame, written) in std::mem::take(&mut self.stale_code) {
            self.drop_code(code, frame, written);
        }
    }

    fn drop_code(&mut self, code: &mut CodeCache<B>, frame: u64, written: u32) {
        match code.drop_granules(frame, written) {
            0 => {
                self.code_pages.remove(&frame);
                self.unmark_code(frame);
            }
            left => {
                self.code_pages.insert(frame, left);
            }
        }
    }

    /// Drops everything decoded.
    pub(crate) fn drop_all_code(&mut self, code: &mut CodeCache<B>) {
        *code = CodeCache::default();
        for (frame, _) in std::mem::take(&mut self.code_pages) {
            self.unmark_code(frame);
        }
    }

    /// The block at RIP: translates, decodes if nobody did before, and remembers the way.
    #[inline(never)]
    pub(crate) fn find_block(&mut self, bus: &mut B, code: &mut CodeCache<B>) -> Result<u32, Fault> {
        if code.blocks.len() >= BLOCKS && code.free.is_empty() || code.ops.len() >= OPS {
            self.drop_all_code(code);
        }
        let rip = self.state.rip();
        if !self.fetches_64_bit && rip > u64::from(self.state.segments[CS].limit) {
            return Err(Fault::GP0);
        }
        let size = self.code_size();
        let linear = self.code_linear(rip);
        let (frame, host) = self.fetch_page(bus, linear)?;
        let key = block_key(frame, linear, size);
        if let Some(&index) = code.by_address.get(&key) {
            match code.blocks[index as usize].origin.crossing.take() {
                None => {
                    self.consume_granules(bus, frame, code.blocks[index as usize].origin.granules)?;
                    self.remember(code, key, index);
                    return Ok(index);
                }
                Some(bytes) => {
                    // One that was decoded from other bytes of the second page is replaced below.
                    let fetched = self.fetch_crossing(bus, linear, frame, host);
                    let same = fetched.map(|fetched| fetched[..bytes.len()] == *bytes);
                    code.blocks[index as usize].origin.crossing = Some(bytes);
                    if same? {
                        return Ok(index);
                    }
                    self.drop_code(code, frame, granules((linear & 0xfff) as usize, LONGEST));
                }
            }
        }
        let block = self.decode_block(bus, linear, frame, host, key, size)?;
        self.consume_granules(bus, frame, block.origin.granules)?;
        let first_of_page = !self.code_pages.contains_key(&frame);
        *self.code_pages.entry(frame).or_default() |= block.origin.granules;
        if first_of_page {
            self.mark_code(frame);
        }
        let crosses = block.origin.crossing.is_some();
        let index = code.insert(block);
        if !crosses {
            self.remember(code, key, index);
        }
        Ok(index)
    }

    fn remember(&mut self, code: &mut CodeCache<B>, key: u64, index: u32) {
        if !self.block_starts.contains(&((key >> 2 & 0xfff) as u16)) {
            code.remember(key, index);
        }
    }

    fn code_size(&self) -> CodeSize {
        if self.fetches_64_bit {
            CodeSize::Bits64
        } else if self.state.segments[CS].access & ACCESS_BIG != 0 {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }

    /// Linear address of the instruction at `rip` in the code segment.
    pub(crate) fn code_linear(&self, rip: u64) -> u64 {
        if self.fetches_64_bit { rip } else { rip.wrapping_add(self.state.segments[CS].base) & 0xffff_ffff }
    }

    /// Refuses to fetch beyond the code segment's limit, which 64-bit mode does not have: cuts the run short before the
    /// first of the block's instructions at `rip` that does not fit.
    pub(crate) fn keep_in_code_segment(&mut self, ops: &[Op<B>], rip: u64) -> Result<(), Fault> {
        if self.fetches_64_bit {
            return Ok(());
        }
        let room = (u64::from(self.state.segments[CS].limit) + 1).saturating_sub(rip);
        let mut end = 0;
        let fitting = ops.iter().take_while(|op| {
            end += u64::from(op.len);
            end <= room
        });
        match fitting.count() as u64 {
            0 => Err(Fault::GP0),
            fitting => {
                self.limit = self.limit.min(self.state.retired + fitting);
                Ok(())
            }
        }
    }

    /// Guest-physical page and host address of the page that `linear` is fetched from.
    fn fetch_page(&mut self, bus: &mut B, linear: u64) -> Result<(u64, *const u8), Fault> {
        let privilege = self.fetch_privilege;
        let entry = self.tlb.fetch.entry(linear, privilege);
        if entry.is_for(linear) {
            let page = linear & !0xfff;
            let frame = self.tlb.fetch.frame(linear, privilege);
            if !bus.has_undecided(frame) {
                self.tlb.fetch.unwatch(linear, privilege);
            }
            return Ok((frame, page.wrapping_add(entry.addend) as *const u8));
        }
        if self.long_mode() && !is_canonical(linear) {
            return Err(Fault::GP0);
        }
        let translation = self.translate(bus, linear, Access::Fetch, privilege)?;
        match bus.page(translation.frame) {
            Page::Ram { host } | Page::Pmem { host } => {
                let (frame, slow) = (translation.frame, watched(bus, translation.frame));
                self.tlb.fetch.fill(linear, privilege, frame, host as u64, slow, translation.global);
                Ok((translation.frame, host))
            }
            Page::Device => {
                self.unsupported = Some("execution from device memory");
                Err(Fault::UD)
            }
        }
    }

    /// The 15 bytes from `linear`, whose first page is `frame` and lies at `host`, when they cross into the next page.
    fn fetch_crossing(
        &mut self,
        bus: &mut B,
        linear: u64,
        frame: u64,
        host: *const u8,
    ) -> Result<[u8; LONGEST], Fault> {
        let offset = (linear & 0xfff) as usize;
        self.consume_granules(bus, frame, granules(offset, LONGEST))?;
        let head = (0x1000 - offset).min(LONGEST);
        let mut bytes = [0; LONGEST];
        // SAFETY: `host` points at a page of 4096 bytes (contract of `Bus::page`); the ranges stay inside it.
        let here = unsafe { std::slice::from_raw_parts(host.add(offset), head) };
        bytes[..head].copy_from_slice(here);
        if head < LONGEST {
            let (frame, next) = self.fetch_page(bus, self.code_linear_next_page(linear))?;
            self.consume_page_start(bus, frame, LONGEST - head)?;
            // SAFETY: as above.
            let there = unsafe { std::slice::from_raw_parts(next, LONGEST - head) };
            bytes[head..].copy_from_slice(there);
        }
        Ok(bytes)
    }

    fn code_linear_next_page(&self, linear: u64) -> u64 {
        let next = (linear & !0xfff).wrapping_add(0x1000);
        if self.fetches_64_bit { next } else { next & 0xffff_ffff }
    }

    fn decode_block(
        &mut self,
        bus: &mut B,
        linear: u64,
        frame: u64,
        host: *const u8,
        key: u64,
        size: CodeSize,
    ) -> Result<New<B>, Fault> {
        let start = (linear & 0xfff) as usize;
        let fuses = size == CodeSize::Bits64 && self.handlers == Handlers::Fastest;
        // SAFETY: `host` points at a page of 4096 bytes (contract of `Bus::page`), and nothing writes guest memory
        // while this slice lives.
        let page = unsafe { std::slice::from_raw_parts(host, 0x1000) };
        let mut ops = Vec::new();
        let mut offset = start;
        let mut unfused = None;
        let mut last = Instruction::default();
        while offset < 0x1000 && ops.len() < BLOCK_OPS {
            if !ops.is_empty() && self.block_starts.contains(&(offset as u16)) {
                break;
            }
            match decode::<B>(&page[offset..], size, self.handlers) {
                Decoded::Op { op, instruction, ends_block } => {
                    offset += op.len.max(1) as usize;
                    let pair = if fuses { fuse(&last, &instruction) } else { None };
                    if let Some(pair) = pair
                        && let Some(first) = ops.pop()
                    {
                        ops.push(pair);
                        unfused = Some([first, op]);
                    } else {
                        ops.push(op);
                    }
                    if ends_block {
                        break;
                    }
                    last = instruction;
                }
                Decoded::Incomplete if ops.is_empty() => {
                    return self.decode_crossing(bus, linear, frame, host, key, size);
                }
                Decoded::Incomplete => break,
            }
        }
        let granules = granules(start, (offset - start).max(1));
        Ok(New { ops, origin: Origin { frame, granules, key, crossing: None, unfused } })
    }

    fn decode_crossing(
        &mut self,
        bus: &mut B,
        linear: u64,
        frame: u64,
        host: *const u8,
        key: u64,
        size: CodeSize,
    ) -> Result<New<B>, Fault> {
        let bytes = self.fetch_crossing(bus, linear, frame, host)?;
        let Decoded::Op { op, .. } = decode::<B>(&bytes, size, self.handlers) else { return Err(Fault::GP0) };
        let crossing = Some(bytes[..(op.len as usize).clamp(1, LONGEST)].into());
        let granules = granules((linear & 0xfff) as usize, LONGEST);
        Ok(New { ops: vec![op], origin: Origin { frame, granules, key, crossing, unfused: None } })
    }
}
