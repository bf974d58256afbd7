//! Runs one instruction on the processor that runs this test.
//!
//! A breakpoint enters a signal handler that replaces the interrupted registers by the wanted ones; returning from the
//! signal starts the instruction, in 64-bit, 32-bit or 16-bit code as the selectors say. Memory behind it is full of
//! breakpoints, so whatever happens - it completes, branches or faults - ends in the handler again, which takes down
//! the outcome and puts the first registers back.

use std::{arch::asm, cell::UnsafeCell, ptr, sync::Once};

use super::{
    case::{BREAKPOINT, Case, ENDLESS, Layout, Outcome},
    descriptors::{self, LDT, Local},
};

/// Bytes of floating-point state that a signal frame can hold: the kernel's XSAVE area without AMX.
const FRAME: usize = 8192;
/// Offsets of the legacy area's software fields (magic, size of the whole area) and of the XSAVE header behind it.
const MAGIC1: usize = 464;
const EXTENDED_SIZE: usize = 468;
const XSTATE_BV: usize = 512;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// x87 and SSE bits of XSTATE_BV.
const LEGACY: u64 = 3;
/// Bytes of the legacy area that hold registers.
const REGISTERS: usize = 416;

/// `gregs` indices in the order of the encoding.
const GENERAL: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Codes of arch_prctl(2).
const SET_GS: u64 = 0x1001;
const SET_FS: u64 = 0x1002;
const GET_FS: u64 = 0x1003;
const GET_GS: u64 = 0x1004;

const NT: i32 = 1 << 14;
const AC: i32 = 1 << 18;
const ID: i32 = 1 << 21;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// The next breakpoint is ours and starts the case.
    Start,
    /// The next signal is the case's outcome.
    Running,
}

/// What the handler works on. There is one, and [`Host`] is its only owner.
struct Exchange {
    phase: Phase,
    case: *const Case,
    outcome: *mut Outcome,
    /// Cases started, and how many there were when the timer last found one running.
    started: u64,
    started_at_tick: u64,
    /// The thread pointer.
    saved_fs: u64,
    saved_general: [libc::greg_t; 23],
    saved_frame: [u8; FRAME],
}

struct Shared(UnsafeCell<Exchange>);
// SAFETY: only the thread that holds the one `Host` touches it, in turn with its own signal handler.
unsafe impl Sync for Shared {}

static EXCHANGE: Shared = Shared(UnsafeCell::new(Exchange {
    phase: Phase::Idle,
    case: ptr::null(),
    outcome: ptr::null_mut(),
    started: 0,
    started_at_tick: 0,
    saved_fs: 0,
    saved_general: [0; 23],
    saved_frame: [0; FRAME],
}));

/// The processor under the test, with the case's memory mapped.
pub struct Host {
    layout: Layout,
}

impl Host {
    /// Maps the memory and installs the handlers for this thread. There may be one at a time.
    pub fn new(layout: Layout) -> Host {
        static ONCE: Once = Once::new();
        let mut first = false;
        ONCE.call_once(|| first = true);
        assert!(first, "there can be only one host: its memory has fixed addresses");
        map(layout.reserved.start, layout.reserved.end, libc::PROT_NONE);
        let readable = libc::PROT_READ | libc::PROT_WRITE;
        map(layout.code.start, layout.code.end, readable | libc::PROT_EXEC);
        map(layout.data.start, layout.tail.end, readable);
        for range in [&layout.code, &layout.data, &layout.read_only, &layout.tail] {
            // Touched, so that every page is present.
            // SAFETY: just mapped, and ours.
            unsafe {
                ptr::write_bytes(range.start as *mut u8, BREAKPOINT, (range.end - range.start) as usize)
            };
        }
        // SAFETY: the range is a part of a mapping of ours.
        let protected = unsafe {
            libc::mprotect(
                layout.read_only.start as *mut _,
                (layout.read_only.end - layout.read_only.start) as usize,
                libc::PROT_READ,
            )
        };
        assert_eq!(protected, 0, "mprotect: {}", std::io::Error::last_os_error());
        for (index, local) in LDT.iter().enumerate() {
            write_local_descriptor(index, local);
        }
        install_handlers();
        Host { layout }
    }

    /// Executes the case's instruction.
    pub fn run(&mut self, case: &Case) -> Outcome {
        let mut from = case.memory.as_slice();
        for range in self.layout.writable() {
            let (head, tail) = from.split_at((range.end - range.start) as usize);
            // SAFETY: the range is mapped, writable and ours.
            unsafe { ptr::copy_nonoverlapping(head.as_ptr(), range.start as *mut u8, head.len()) };
            from = tail;
        }
        let mut outcome = Outcome::default();
        let exchange = EXCHANGE.0.get();
        // SAFETY: nobody else uses the exchange. The breakpoint enters the handler, which comes back here with all
        // registers as they were; the instruction between touches nothing but the case's memory.
        unsafe {
            arch_prctl(GET_FS, &raw mut (*exchange).saved_fs as u64);
            (*exchange).started += 1;
            (*exchange).case = case;
            (*exchange).outcome = &mut outcome;
            (*exchange).phase = Phase::Start;
            asm!("int3", clobber_abi("C"));
            (*exchange).phase = Phase::Idle;
        }
        outcome.memory.reserve_exact(case.memory.len());
        for range in self.layout.writable() {
            // SAFETY: as above.
            let bytes = unsafe {
                std::slice::from_raw_parts(range.start as *const u8, (range.end - range.start) as usize)
            };
            outcome.memory.extend_from_slice(bytes);
        }
        outcome
    }
}

fn map(start: u64, end: u64, protection: i32) {
    let inside = protection != libc::PROT_NONE;
    let fixed = if inside { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
    // SAFETY: `MAP_FIXED_NOREPLACE` replaces nothing, and `MAP_FIXED` only parts of what it mapped before.
    let address = unsafe {
        libc::mmap(
            start as *mut _,
            (end - start) as usize,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed,
            -1,
            0,
        )
    };
    assert_eq!(address as u64, start, "mmap: {}", std::io::Error::last_os_error());
}

/// `modify_ldt(2)` with `struct user_desc` of asm/ldt.h.
fn write_local_descriptor(index: usize, local: &Local) {
    let flags = local.big as u32
        | local.kind << 1
        | (local.restricted as u32) << 3
        | (local.in_pages as u32) << 4
        | (local.absent as u32) << 5;
    let descriptor = [index as u32, local.base, local.limit, flags];
    // SAFETY: the kernel reads the 16 bytes; nothing else in this process uses the LDT.
    let written = unsafe { libc::syscall(libc::SYS_modify_ldt, 0x11, descriptor.as_ptr(), 16) };
    assert_eq!(written, 0, "modify_ldt answers {} for descriptor {index}", written as i32);
}

/// `arch_prctl(2)` without the C library, which would look for `errno` through FS.
///
/// # Safety
/// Changing FS takes away thread-local storage; reading a base writes to `value`.
unsafe fn arch_prctl(code: u64, value: u64) {
    // SAFETY: by contract; the clobbered registers are those of the system call convention.
    unsafe {
        asm!("syscall", inlateout("rax") libc::SYS_arch_prctl => _, in("rdi") code, in("rsi") value,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
}

fn install_handlers() {
    const STACK: usize = 256 << 10;
    let stack = Box::leak(vec![0u8; STACK].into_boxed_slice());
    let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack is leaked, the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        assert_eq!(libc::sigaltstack(&alternate, ptr::null_mut()), 0);
        for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGBUS, libc::SIGPROF]
        {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = entry as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            libc::sigaddset(&mut action.sa_mask, libc::SIGPROF);
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
        start_timer();
    }
}

/// Sends this thread SIGPROF after each second of its processor time.
///
/// # Safety
/// The handler of SIGPROF must be installed.
unsafe fn start_timer() {
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    let every_second = libc::itimerspec { it_interval: second, it_value: second };
    // SAFETY: plain structures that live through the calls; the timer is never deleted.
    unsafe {
        let mut event: libc::sigevent = std::mem::zeroed();
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGPROF;
        event.sigev_notify_thread_id = libc::gettid();
        let mut timer = ptr::null_mut();
        assert_eq!(libc::timer_create(libc::CLOCK_THREAD_CPUTIME_ID, &mut event, &mut timer), 0);
        assert_eq!(libc::timer_settime(timer, 0, &every_second, ptr::null_mut()), 0);
    }
}

/// The kernel clears TF and DF before a handler, but not AC, and the handler may access what is not aligned; nor does
/// the return from a signal restore NT and ID.
#[unsafe(naked)]
extern "C" fn entry(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    std::arch::naked_asm!(
        "pushfq",
        "and dword ptr [rsp], {kept}",
        "popfq",
        "jmp {handler}",
        kept = const !(AC | NT | ID),
        handler = sym handler,
    )
}

/// Must not use thread-local storage, allocate or panic.
extern "C" fn handler(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context; the exchange belongs to this thread while its phase is not idle.
    unsafe {
        let exchange = &mut *EXCHANGE.0.get();
        let context = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        if signal == libc::SIGPROF {
            // A case that has had a second of processor time does not end by itself.
            let stuck = exchange.phase == Phase::Running && exchange.started == exchange.started_at_tick;
            exchange.started_at_tick = exchange.started;
            if stuck {
                take_down(exchange, context);
                (*exchange.outcome).vector = ENDLESS;
                exchange.phase = Phase::Idle;
            }
            return;
        }
        match exchange.phase {
            Phase::Idle => {
                // A crash of the test itself: let it happen again, unhandled.
                libc::signal(signal, libc::SIG_DFL);
            }
            Phase::Start => {
                start(exchange, context);
                exchange.phase = Phase::Running;
            }
            Phase::Running => {
                take_down(exchange, context);
                exchange.phase = Phase::Idle;
            }
        }
    }
}

/// Makes the interrupted registers those of the case.
///
/// # Safety
/// Both must be what the kernel passed and the case's pointers valid.
unsafe fn start(exchange: &mut Exchange, context: &mut libc::mcontext_t) {
    let frame = context.fpregs.cast::<u8>();
    // SAFETY: by contract. Thread-local storage is gone from here on; nothing here or in the return from the signal
    // uses it.
    unsafe {
        let case = &*exchange.case;
        exchange.saved_general = context.gregs;
        ptr::copy_nonoverlapping(frame, exchange.saved_frame.as_mut_ptr(), frame_len(frame));
        for (register, value) in GENERAL.iter().zip(case.regs) {
            context.gregs[*register as usize] = value as i64;
        }
        let [es, cs, ss, ds, fs, gs] = case.selectors;
        context.gregs[libc::REG_RIP as usize] = case.at.wrapping_sub(descriptors::base(cs)) as i64;
        context.gregs[libc::REG_EFL as usize] = (case.rflags | 0x202) as i64;
        context.gregs[libc::REG_CSGSFS as usize] = cs as i64 | (ss as i64) << 48;
        // The fields behind the registers tell the kernel the size of the rest.
        ptr::copy_nonoverlapping(case.fx.0.as_ptr(), frame, REGISTERS);
        if frame_len(frame) > 512 {
            let components = frame.add(XSTATE_BV).cast::<u64>();
            components.write_unaligned(components.read_unaligned() | LEGACY);
        }
        asm!("mov ds, {:x}", in(reg) ds, options(nostack, preserves_flags));
        asm!("mov es, {:x}", in(reg) es, options(nostack, preserves_flags));
        // A selector that is null keeps the base or not, as the processor likes.
        match fs {
            0 => arch_prctl(SET_FS, case.bases[0]),
            _ => asm!("mov fs, {:x}", in(reg) fs, options(nostack, preserves_flags)),
        }
        match gs {
            0 => arch_prctl(SET_GS, case.bases[1]),
            _ => asm!("mov gs, {:x}", in(reg) gs, options(nostack, preserves_flags)),
        }
    }
}

/// Notes the interrupted registers as the outcome and puts back those from before the case.
///
/// # Safety
/// Both must be what the kernel passed and the outcome's pointer valid.
unsafe fn take_down(exchange: &mut Exchange, context: &mut libc::mcontext_t) {
    let frame = context.fpregs.cast::<u8>();
    // SAFETY: by contract. Thread-local storage is back before anything might use it.
    unsafe {
        let outcome = &mut *exchange.outcome;
        let (es, ds, fs, gs): (u16, u16, u16, u16);
        asm!("mov {0:x}, es", "mov {1:x}, ds", "mov {2:x}, fs", "mov {3:x}, gs",
            out(reg) es, out(reg) ds, out(reg) fs, out(reg) gs, options(nostack, preserves_flags));
        arch_prctl(GET_FS, &raw mut outcome.bases[0] as u64);
        arch_prctl(GET_GS, &raw mut outcome.bases[1] as u64);
        asm!("mov ds, {0:x}", "mov es, {0:x}", in(reg) 0, options(nostack, preserves_flags));
        arch_prctl(SET_GS, 0);
        arch_prctl(SET_FS, exchange.saved_fs);
        let general = &context.gregs;
        for (register, value) in GENERAL.iter().zip(&mut outcome.regs) {
            *value = general[*register as usize] as u64;
        }
        let code_and_stack = general[libc::REG_CSGSFS as usize] as u64;
        outcome.selectors = [es, code_and_stack as u16, (code_and_stack >> 48) as u16, ds, fs, gs];
        outcome.rip = general[libc::REG_RIP as usize] as u64;
        outcome.rflags = general[libc::REG_EFL as usize] as u64;
        outcome.vector = general[libc::REG_TRAPNO as usize] as u8;
        outcome.error = general[libc::REG_ERR as usize] as u64;
        outcome.cr2 = general[libc::REG_CR2 as usize] as u64;
        ptr::copy_nonoverlapping(frame, outcome.fx.0.as_mut_ptr(), REGISTERS);
        context.gregs = exchange.saved_general;
        ptr::copy_nonoverlapping(exchange.saved_frame.as_ptr(), frame, frame_len(frame));
    }
}

/// Bytes of the signal frame's floating-point state.
///
/// # Safety
/// `frame` must be the `fpregs` of a signal context.
unsafe fn frame_len(frame: *const u8) -> usize {
    // SAFETY: the legacy area always is there, 512 bytes of it.
    let (magic, size) = unsafe {
        (
            frame.add(MAGIC1).cast::<u32>().read_unaligned(),
            frame.add(EXTENDED_SIZE).cast::<u32>().read_unaligned(),
        )
    };
    if magic == FP_XSTATE_MAGIC1 { (size as usize).min(FRAME) } else { 512 }
}
