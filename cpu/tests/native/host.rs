//! Runs one instruction on the processor that runs this test.
//!
//! A breakpoint enters a signal handler that replaces the interrupted registers by the wanted ones; returning from the
//! signal starts the instruction. Memory behind it is full of breakpoints, so whatever happens - it completes,
//! branches or faults - ends in the handler again, which takes down the outcome and puts the first registers back.

use std::{cell::UnsafeCell, ptr, sync::Once};

use super::case::{Case, Layout, Outcome};

/// Bytes of floating-point state that a signal frame can hold: the kernel's XSAVE area without AMX.
const FRAME: usize = 8192;
/// Offsets of the legacy area's software fields (magic, size of the whole area) and of the XSAVE header behind it.
const MAGIC1: usize = 464;
const EXTENDED_SIZE: usize = 468;
const XSTATE_BV: usize = 512;
const FP_XSTATE_MAGIC1: u32 = 0x4650_5853;
/// x87 and SSE bits of XSTATE_BV.
const LEGACY: u64 = 3;

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
        map(layout.data.start, layout.data.end, readable);
        map(layout.read_only.start, layout.read_only.end, readable);
        for range in [&layout.code, &layout.data, &layout.read_only] {
            // Touched, so that every page is present.
            // SAFETY: just mapped, and ours.
            unsafe { ptr::write_bytes(range.start as *mut u8, 0xcc, (range.end - range.start) as usize) };
        }
        // SAFETY: the range is one mapping of ours.
        let protected = unsafe {
            libc::mprotect(
                layout.read_only.start as *mut _,
                (layout.read_only.end - layout.read_only.start) as usize,
                libc::PROT_READ,
            )
        };
        assert_eq!(protected, 0, "mprotect: {}", std::io::Error::last_os_error());
        install_handlers();
        Host { layout }
    }

    /// Executes the case's instruction.
    pub fn run(&mut self, case: &Case) -> Outcome {
        // SAFETY: the layout's memory is mapped, and `Case` keeps within it.
        unsafe {
            ptr::copy_nonoverlapping(case.data.as_ptr(), self.layout.data.start as *mut u8, case.data.len());
            ptr::write_bytes(self.layout.code.start as *mut u8, 0xcc, self.layout.code_len());
            ptr::copy_nonoverlapping(case.code.as_ptr(), case.rip as *mut u8, case.code.len());
        }
        set_gs_base(case.gs_base);
        let mut outcome = Outcome::default();
        let exchange = EXCHANGE.0.get();
        // SAFETY: nobody else uses the exchange. The breakpoint enters the handler, which comes back here with all
        // registers as they were; the instruction between touches nothing but the case's memory.
        unsafe {
            (*exchange).case = case;
            (*exchange).outcome = &mut outcome;
            (*exchange).phase = Phase::Start;
            std::arch::asm!("int3", clobber_abi("C"));
            (*exchange).phase = Phase::Idle;
        }
        outcome.memory.resize(case.data.len(), 0);
        // SAFETY: mapped above.
        unsafe {
            ptr::copy_nonoverlapping(
                self.layout.data.start as *const u8,
                outcome.memory.as_mut_ptr(),
                outcome.memory.len(),
            );
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

/// GS is not used by 64-bit user programs.
fn set_gs_base(base: u64) {
    const ARCH_SET_GS: i32 = 0x1001;
    // SAFETY: nothing here uses GS.
    let set = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, base) };
    assert_eq!(set, 0, "arch_prctl: {}", std::io::Error::last_os_error());
}

fn install_handlers() {
    const STACK: usize = 256 << 10;
    let stack = Box::leak(vec![0u8; STACK].into_boxed_slice());
    let alternate = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack is leaked, the handler has the signature that SA_SIGINFO asks for.
    unsafe {
        assert_eq!(libc::sigaltstack(&alternate, ptr::null_mut()), 0);
        for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGFPE, libc::SIGILL, libc::SIGBUS] {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
    }
}

/// Must not use thread-local storage, allocate or panic.
extern "C" fn handler(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid context; the exchange belongs to this thread while its phase is not idle.
    unsafe {
        let exchange = &mut *EXCHANGE.0.get();
        let context = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let frame = context.fpregs.cast::<u8>();
        match exchange.phase {
            Phase::Idle => {
                // A crash of the test itself: let it happen again, unhandled.
                libc::signal(signal, libc::SIG_DFL);
            }
            Phase::Start => {
                exchange.saved_general = context.gregs;
                ptr::copy_nonoverlapping(frame, exchange.saved_frame.as_mut_ptr(), frame_len(frame));
                let case = &*exchange.case;
                for (register, value) in GENERAL.iter().zip(case.regs) {
                    context.gregs[*register as usize] = value as i64;
                }
                context.gregs[libc::REG_RIP as usize] = case.rip as i64;
                context.gregs[libc::REG_EFL as usize] = (case.rflags | 0x202) as i64;
                // The fields behind the registers tell the kernel the size of the rest.
                ptr::copy_nonoverlapping(case.fx.0.as_ptr(), frame, 416);
                if frame_len(frame) > 512 {
                    let components = frame.add(XSTATE_BV).cast::<u64>();
                    components.write_unaligned(components.read_unaligned() | LEGACY);
                }
                exchange.phase = Phase::Running;
            }
            Phase::Running => {
                let outcome = &mut *exchange.outcome;
                for (register, value) in GENERAL.iter().zip(&mut outcome.regs) {
                    *value = context.gregs[*register as usize] as u64;
                }
                outcome.rip = context.gregs[libc::REG_RIP as usize] as u64;
                outcome.rflags = context.gregs[libc::REG_EFL as usize] as u64;
                outcome.vector = context.gregs[libc::REG_TRAPNO as usize] as u8;
                outcome.error = context.gregs[libc::REG_ERR as usize] as u64;
                outcome.cr2 = context.gregs[libc::REG_CR2 as usize] as u64;
                ptr::copy_nonoverlapping(frame, outcome.fx.0.as_mut_ptr(), 416);
                context.gregs = exchange.saved_general;
                ptr::copy_nonoverlapping(exchange.saved_frame.as_ptr(), frame, frame_len(frame));
                exchange.phase = Phase::Idle;
            }
        }
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
