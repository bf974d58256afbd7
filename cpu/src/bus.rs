//! What the processor is plugged into.
//!
//! The processor knows no devices, no files and no host time. Everything outside of it is behind [`Bus`], a
//! generic parameter, so that a call that does nothing costs nothing.

/// What lies behind one 4 KiB page of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Ordinary memory. `host` points at 4096 bytes that stay valid and in place as long as the bus lives.
    Ram {
        /// First byte of the page on the host.
        host: *mut u8,
    },
    /// Persistent memory: as `Ram`, but every store, flush and drain is told to the bus.
    Pmem {
        /// First byte of the page on the host.
        host: *mut u8,
    },
    /// Nothing but devices, or nothing at all: accesses go through [`Bus::mmio_read`] and [`Bus::mmio_write`].
    Device,
}

/// How a store to persistent memory leaves the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Through the cache (C parts of the persistency model).
    Cached,
    /// Through the cache, by one iteration of REP MOVS or REP STOS, or by several that follow each other in one line.
    /// `first` is set on the first iteration of one execution of the instruction, and only then: parts of one
    /// execution on one line are unordered. That the run ends between two iterations does not end the execution, an
    /// interrupt between them does.
    CachedRep {
        /// These are the first iterations of this execution of the instruction.
        first: bool,
    },
    /// Non-temporal (N parts): MOVNTI, MOVNTQ, MOVNTDQ, MOVNTPS, MOVNTPD, MASKMOVQ, MASKMOVDQU.
    NonTemporal,
    /// By the page walker: accessed and dirty bits of page tables that lie in persistent memory.
    PageWalk,
}

/// Which instruction asked for a line to be written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushKind {
    /// CLFLUSH
    Clflush,
    /// CLFLUSHOPT
    Clflushopt,
    /// CLWB
    Clwb,
}

/// What drained the processor's pending flushes and non-temporal stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainKind {
    /// SFENCE
    Sfence,
    /// MFENCE
    Mfence,
    /// A LOCK-prefixed instruction, or XCHG with memory. Told *before* the instruction's own store.
    Locked,
    /// A serialising instruction: CPUID, IRET, MOV to CR (not CR8) or DR, INVLPG, LGDT, LIDT, LLDT, LTR, WRMSR
    /// (not TSC_DEADLINE or x2APIC).
    Serialising,
    /// WBINVD or WBNOINVD: additionally writes back every line this processor stored last.
    WriteBackAll,
    /// An uncached read or write, IN or OUT.
    Uncached,
}

/// In place of the origin of a byte: it is decided. See [`Bus::has_undecided`].
pub const DECIDED: u64 = u64::MAX;

/// The machine as one processor sees it.
///
/// Addresses are guest-physical. An access never crosses a page: the processor splits it.
pub trait Bus: Sized {
    /// What lies at page `page` (guest-physical address divided by 4096). Asked when a translation is made, not at
    /// every access.
    fn page(&mut self, page: u64) -> Page;

    /// The processor is about to make `page` writable for itself: its old content is needed no longer than this
    /// call. Asked once per page between two calls of [`crate::Cpu::forget_writable`]; the place for dirty lists and undo
    /// logs.
    fn page_dirtied(&mut self, page: u64);

    /// Reads `size` bytes (1, 2, 4 or 8) of a device.
    fn mmio_read(&mut self, cpu: &CpuView, addr: u64, size: usize) -> u64;
    /// Writes `size` bytes (1, 2, 4 or 8) of a device.
    fn mmio_write(&mut self, cpu: &CpuView, addr: u64, size: usize, value: u64);
    /// IN: reads `size` bytes (1, 2 or 4).
    fn port_read(&mut self, cpu: &CpuView, port: u16, size: usize) -> u32;
    /// OUT: writes `size` bytes (1, 2 or 4).
    fn port_write(&mut self, cpu: &CpuView, port: u16, size: usize, value: u32);
    /// Whether IN and OUT at `port` are events of the machine, which drain. Those of the control port are not.
    fn port_drains(&self, port: u16) -> bool {
        let _ = port;
        true
    }
    /// RDMSR of a register that the processor core itself does not have (APIC base, x2APIC, TSC deadline, which is told
    /// in [`CpuView::tsc`] time, whatever the guest wrote to its TSC). `None` raises #GP(0).
    fn read_msr(&mut self, cpu: &CpuView, msr: u32) -> Option<u64>;
    /// WRMSR of a register that the processor core itself does not have. `None` raises #GP(0).
    fn write_msr(&mut self, cpu: &CpuView, msr: u32, value: u64) -> Option<()>;
    /// CR8 of the local APIC (task priority bits 7:4).
    fn read_cr8(&mut self) -> u64;
    /// Sets CR8.
    fn write_cr8(&mut self, cpu: &CpuView, value: u64);

    /// Whether an external interrupt waits. Asked after every access to a device, MSR or CR8 and when interrupts
    /// become enabled, not at every instruction: one that becomes ready in between needs [`Bus::attention`] or a
    /// new call of [`crate::Cpu::run`].
    fn interrupt_pending(&mut self) -> bool;
    /// Takes the pending interrupt's vector: interrupt acknowledge.
    fn take_interrupt(&mut self) -> Option<u8>;

    /// Whether the run must end at this instruction boundary because a device wants the machine's attention (its
    /// next deadline moved, power goes off, the guest called the control port). Asked after every access to a
    /// device or MSR and after every [`Bus::pmem_store`], [`Bus::pmem_flush`], [`Bus::drain`] and [`Bus::probe`].
    fn attention(&self) -> bool;

    /// A store to persistent memory has been executed: `bytes` now stand at `addr`. Never crosses a page; one
    /// instruction's store may arrive as two calls when it does.
    fn pmem_store(&mut self, cpu: &CpuView, addr: u64, bytes: &[u8], kind: StoreKind);
    /// A flush of the 64-byte line at `addr` (aligned) in persistent memory has been executed.
    fn pmem_flush(&mut self, cpu: &CpuView, addr: u64, kind: FlushKind);
    /// A drain has been executed. SFENCE, MFENCE and WBINVD are always told; the other kinds only when this
    /// processor stored non-temporally to or flushed persistent memory since its last drain; under
    /// [`crate::Cpu::tell_store_buffer`] also when it stored there in any other way.
    fn drain(&mut self, cpu: &CpuView, kind: DrainKind);
    /// An interrupt or exception is delivered: what the processor stored before has left its store buffer. Told only
    /// under [`crate::Cpu::tell_store_buffer`], and then only when this processor has something to drain.
    fn stores_visible(&mut self, cpu: &CpuView) {
        let _ = cpu;
    }
    /// The processor is about to execute the instruction at a linear address given to [`crate::Cpu::set_probes`].
    /// [`Bus::attention`] after it ends the run *before* that instruction; running on executes it.
    fn probe(&mut self, cpu: &CpuView, rip: u64);

    /// Whether there are undecided or poisoned bytes in `page`. What undecided bytes are depends on a choice that nobody has
    /// made yet. REP MOVS and MOVS copy them unseen; whatever else would use them asks [`Bus::consume`] first. Who would
    /// load anything from such a page asks [`Bus::poisoned`] first. Asked when a translation is made. A bus that gives a page some while the processor does not run calls
    /// [`crate::Cpu::forget_translations`].
    fn has_undecided(&self, page: u64) -> bool {
        let _ = page;
        false
    }
    /// The first of `len` bytes at `addr` whose content the media has lost: loading it raises #MC.
    fn poisoned(&self, addr: u64, len: usize) -> Option<u64> {
        let _ = (addr, len);
        None
    }
    /// An instruction is about to use `len` bytes at `addr`. False when some of them are undecided: then the run ends in
    /// front of that instruction, as [`Exit::Undecided`].
    fn consume(&mut self, addr: u64, len: usize) -> bool {
        let _ = (addr, len);
        true
    }
    /// Tells the origin of each byte from `addr` on, [`DECIDED`] for those that are; false if all are.
    fn origins(&self, addr: u64, origins: &mut [u64]) -> bool {
        let _ = (addr, origins);
        false
    }
    /// Whether copies of undecided bytes may be stored to `page`.
    fn takes_undecided(&self, page: u64) -> bool {
        let _ = page;
        false
    }
    /// What has just been stored at `addr`, to a page with undecided bytes or as a copy of such, has these origins.
    /// `None`: `len` decided bytes.
    fn put_origins(&mut self, addr: u64, len: usize, origins: Option<&[u64]>) {
        let _ = (addr, len, origins);
    }
    /// What [`Bus::take_interrupt`] returned was not delivered: the interrupt waits again.
    fn give_back_interrupt(&mut self, vector: u8) {
        let _ = vector;
    }
}

/// What a bus may know of the processor that calls it: who, when, where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuView {
    /// Index of the processor.
    pub vcpu: u8,
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// Linear address of the instruction that is being executed.
    pub rip: u64,
    /// RSP at the start of the instruction.
    pub rsp: u64,
    /// Instructions retired before this one, counting each REP iteration as one.
    pub retired: u64,
    /// Time of the machine in TSC ticks, see [`crate::State::time`].
    pub tsc: u64,
}

/// Why [`crate::Cpu::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The given number of retired instructions was reached, exactly.
    Limit,
    /// HLT with nothing to wake it yet. Running on continues behind the HLT once an interrupt is pending, and
    /// returns `Halted` at once as long as none is.
    Halted,
    /// [`Bus::attention`] asked for it.
    Attention,
    /// PAUSE was executed: the processor waits for another one. Only where there is another one.
    Paused,
    /// Triple fault: the processor is in shutdown.
    Shutdown,
    /// In front of an instruction (or of an iteration of a repeated one, or of the delivery of an interrupt or exception)
    /// that would use bytes of which [`Bus::consume`] said that they are undecided. Nothing of it is visible, and running
    /// on begins with it.
    Undecided,
    /// The guest executed something that this model does not offer and that hardware without it would not turn
    /// into #UD. Nothing of the instruction has been done.
    Unsupported {
        /// Linear address of the instruction.
        rip: u64,
        /// What it was.
        what: &'static str,
    },
}

/// Bus of a processor in an empty machine: for tests of parts that never leave the core.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct NoBus;

#[cfg(test)]
impl Bus for NoBus {
    fn page(&mut self, _: u64) -> Page {
        Page::Device
    }
    fn page_dirtied(&mut self, _: u64) {}
    fn mmio_read(&mut self, _: &CpuView, _: u64, _: usize) -> u64 {
        u64::MAX
    }
    fn mmio_write(&mut self, _: &CpuView, _: u64, _: usize, _: u64) {}
    fn port_read(&mut self, _: &CpuView, _: u16, _: usize) -> u32 {
        u32::MAX
    }
    fn port_write(&mut self, _: &CpuView, _: u16, _: usize, _: u32) {}
    fn read_msr(&mut self, _: &CpuView, _: u32) -> Option<u64> {
        None
    }
    fn write_msr(&mut self, _: &CpuView, _: u32, _: u64) -> Option<()> {
        None
    }
    fn read_cr8(&mut self) -> u64 {
        0
    }
    fn write_cr8(&mut self, _: &CpuView, _: u64) {}
    fn interrupt_pending(&mut self) -> bool {
        false
    }
    fn take_interrupt(&mut self) -> Option<u8> {
        None
    }
    fn attention(&self) -> bool {
        false
    }
    fn pmem_store(&mut self, _: &CpuView, _: u64, _: &[u8], _: StoreKind) {}
    fn pmem_flush(&mut self, _: &CpuView, _: u64, _: FlushKind) {}
    fn drain(&mut self, _: &CpuView, _: DrainKind) {}
    fn probe(&mut self, _: &CpuView, _: u64) {}
}
