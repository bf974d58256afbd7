//! The gdb protocol on a socket, for a recording or a recovery. Symbols are gdb's own affair.
//!
//! gdb is served by a thread of its own; the machine stays where it was made. They talk by channels: a question at a
//! time while the machine stands.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::Context;
use explore::debug::{Debugger, Go, Why};
use gdbstub::common::Signal;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::stub::{GdbStub, SingleThreadStopReason};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::reverse_exec::{
    ReplayLogPosition, ReverseCont, ReverseContOps, ReverseStep, ReverseStepOps,
};
use gdbstub::target::ext::base::singlethread::{
    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
    SingleThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};
use gdbstub::target::{Target, TargetError, TargetResult};
use gdbstub_arch::x86::X86_64_SSE;
use gdbstub_arch::x86::reg::X86_64CoreRegs;
use vmm::Machine;

use crate::say::note;

/// Between two looks at the socket while the machine goes on.
const LOOK: Duration = Duration::from_millis(20);
/// The longest range of memory that is watched.
const LONGEST: u64 = 4096;

/// Addresses of instructions, and ranges of memory with what they held.
#[derive(Default)]
struct Stops {
    instructions: Vec<u64>,
    ranges: Vec<(u64, Vec<u8>)>,
}

/// What gdb's thread asks the machine.
enum Ask {
    Registers,
    Memory(u64, usize),
    Go(Go),
}

/// What the machine says.
enum Say {
    Stands(Why, Option<u64>),
    Registers(Box<X86_64CoreRegs>),
    Memory(Vec<u8>),
}

/// The machine's end.
pub struct Session {
    ask: Receiver<Ask>,
    say: Sender<Say>,
    stops: Arc<Mutex<Stops>>,
    interrupt: Arc<AtomicBool>,
    /// The watched range that has changed.
    changed: Option<u64>,
}

/// gdb's end.
struct Stub {
    ask: Sender<Ask>,
    say: Receiver<Say>,
    stops: Arc<Mutex<Stops>>,
    interrupt: Arc<AtomicBool>,
}

fn lock(stops: &Mutex<Stops>) -> MutexGuard<'_, Stops> {
    stops.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits for gdb on this port of this host only (0: one that is free), and serves it from a thread of its own.
pub fn listen(port: u16) -> anyhow::Result<Session> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .with_context(|| format!("cannot listen on port {port} of 127.0.0.1; give another one, or 0"))?;
    let port = listener.local_addr()?.port();
    note!("waiting for gdb: gdb -ex 'target remote 127.0.0.1:{port}'");
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let (ask, asked) = channel();
    let (say, said) = channel();
    let (stops, interrupt) = (Arc::<Mutex<Stops>>::default(), Arc::<AtomicBool>::default());
    let stub = Stub { ask, say: said, stops: Arc::clone(&stops), interrupt: Arc::clone(&interrupt) };
    std::thread::spawn(move || serve(stub, stream));
    Ok(Session { ask: asked, say, stops, interrupt, changed: None })
}

/// Until gdb goes. The machine hears of it by the end of the channel.
fn serve(mut stub: Stub, stream: TcpStream) {
    // gdb asks first; the machine stands at its beginning until then.
    let _ = stub.say.recv();
    if let Err(why) = GdbStub::new(stream).run_blocking::<Loop>(&mut stub) {
        note!("gdb: {why}");
    }
}

impl Debugger<Machine> for Session {
    fn looks(&self) -> bool {
        let stops = lock(&self.stops);
        !stops.instructions.is_empty() || !stops.ranges.is_empty()
    }

    fn begins(&mut self, machine: &Machine) {
        self.remember(machine);
    }

    fn stops_here(&mut self, machine: &Machine) -> bool {
        let mut stops = lock(&self.stops);
        self.changed = None;
        for (address, held) in &mut stops.ranges {
            let mut holds = vec![0; held.len()];
            if machine.read_guest(*address, &mut holds).is_ok() && holds != *held {
                *held = holds;
                self.changed = Some(*address);
            }
        }
        self.changed.is_some() || stops.instructions.contains(&machine.cpu_state().rip())
    }

    fn interrupts(&mut self) -> bool {
        self.interrupt.swap(false, Ordering::Relaxed)
    }

    fn stands(&mut self, machine: &Machine, _: u64, why: Why) -> Go {
        if self.say.send(Say::Stands(why, self.changed.take())).is_err() {
            return Go::Leave;
        }
        loop {
            let said = match self.ask.recv() {
                Ok(Ask::Registers) => Say::Registers(Box::new(registers(&machine.cpu_state()))),
                Ok(Ask::Memory(address, len)) => Say::Memory(readable(machine, address, len)),
                Ok(Ask::Go(go)) => {
                    self.remember(machine);
                    return go;
                }
                Err(_) => return Go::Leave,
            };
            if self.say.send(said).is_err() {
                return Go::Leave;
            }
        }
    }
}

impl Session {
    /// What the watched ranges hold now.
    fn remember(&mut self, machine: &Machine) {
        for (address, held) in &mut lock(&self.stops).ranges {
            let _ = machine.read_guest(*address, held);
        }
    }
}

/// As much of a range as is mapped from its beginning.
fn readable(machine: &Machine, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let at = address.wrapping_add(done as u64);
        let piece = (4096 - (at % 4096) as usize).min(len - done);
        if machine.read_guest(at, &mut bytes[done..done + piece]).is_err() {
            break;
        }
        done += piece;
    }
    bytes.truncate(done);
    bytes
}

/// In gdb's order: RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15; ours is that of the instruction set.
fn registers(state: &cpu::State) -> X86_64CoreRegs {
    const ORDER: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut registers = X86_64CoreRegs {
        regs: ORDER.map(|index| state.regs[index]),
        rip: state.rip(),
        eflags: state.rflags as u32,
        xmm: state.xmm,
        mxcsr: state.mxcsr,
        ..X86_64CoreRegs::default()
    };
    // The instruction set's order is ES, CS, SS, DS, FS, GS.
    let selector = |index: usize| u32::from(state.segments[index].selector);
    let segments = &mut registers.segments;
    (segments.es, segments.cs, segments.ss) = (selector(0), selector(1), selector(2));
    (segments.ds, segments.fs, segments.gs) = (selector(3), selector(4), selector(5));
    for (of_gdb, ours) in registers.st.iter_mut().zip(state.x87.regs) {
        of_gdb.copy_from_slice(&ours.to_le_bytes()[..10]);
    }
    registers.fpu.fctrl = state.x87.control.into();
    registers.fpu.fstat = state.x87.status.into();
    registers
}

type Failed = &'static str;
/// The machine is gone.
const GONE: Failed = "the machine is gone";

impl Stub {
    fn ask(&self, ask: Ask) -> Result<Say, Failed> {
        self.ask.send(ask).map_err(|_| GONE)?;
        self.say.recv().map_err(|_| GONE)
    }

    fn go(&self, go: Go) -> Result<(), Failed> {
        self.interrupt.store(false, Ordering::Relaxed);
        self.ask.send(Ask::Go(go)).map_err(|_| GONE)
    }
}

impl Target for Stub {
    type Arch = X86_64_SSE;
    type Error = Failed;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64_SSE, Failed> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    // A breakpoint is no byte in memory: it changes nothing of what happens.
    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        true
    }
}

impl SingleThreadBase for Stub {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        match self.ask(Ask::Registers).map_err(TargetError::Fatal)? {
            Say::Registers(read) => {
                *registers = *read;
                Ok(())
            }
            _ => Err(TargetError::NonFatal),
        }
    }

    // Whatever is written, what happens then is not what happened.
    fn write_registers(&mut self, _: &X86_64CoreRegs) -> TargetResult<(), Self> {
        Err(TargetError::NonFatal)
    }

    fn read_addrs(&mut self, address: u64, data: &mut [u8]) -> TargetResult<usize, Self> {
        match self.ask(Ask::Memory(address, data.len())).map_err(TargetError::Fatal)? {
            Say::Memory(bytes) if !bytes.is_empty() => {
                data[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            _ => Err(TargetError::NonFatal),
        }
    }

    fn write_addrs(&mut self, _: u64, _: &[u8]) -> TargetResult<(), Self> {
        Err(TargetError::NonFatal)
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Stub {
    fn resume(&mut self, _: Option<Signal>) -> Result<(), Failed> {
        self.go(Go::Forward)
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, (), Self>> {
        Some(self)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, (), Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Stub {
    fn step(&mut self, _: Option<Signal>) -> Result<(), Failed> {
        self.go(Go::Step)
    }
}

impl ReverseStep<()> for Stub {
    fn reverse_step(&mut self, (): ()) -> Result<(), Failed> {
        self.go(Go::StepBack)
    }
}

impl ReverseCont<()> for Stub {
    fn reverse_cont(&mut self) -> Result<(), Failed> {
        self.go(Go::Back)
    }
}

impl Breakpoints for Stub {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl Stub {
    fn add(&self, address: u64) -> bool {
        lock(&self.stops).instructions.push(address);
        true
    }

    fn remove(&self, address: u64) -> bool {
        let instructions = &mut lock(&self.stops).instructions;
        let found = instructions.iter().position(|known| *known == address);
        found.map(|at| instructions.swap_remove(at)).is_some()
    }
}

impl SwBreakpoint for Stub {
    fn add_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.add(address))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(address))
    }
}

impl HwBreakpoint for Stub {
    fn add_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.add(address))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.remove(address))
    }
}

impl HwWatchpoint for Stub {
    /// Writes that change something are seen; reads are not.
    fn add_hw_watchpoint(&mut self, address: u64, len: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        if kind != WatchKind::Write || len > LONGEST {
            return Ok(false);
        }
        lock(&self.stops).ranges.push((address, vec![0; len as usize]));
        Ok(true)
    }

    fn remove_hw_watchpoint(&mut self, address: u64, len: u64, _: WatchKind) -> TargetResult<bool, Self> {
        let ranges = &mut lock(&self.stops).ranges;
        let found = ranges.iter().position(|(known, held)| *known == address && held.len() as u64 == len);
        Ok(found.map(|at| ranges.swap_remove(at)).is_some())
    }
}

/// Waits for the machine and for gdb at the same time.
enum Loop {}

impl BlockingEventLoop for Loop {
    type Target = Stub;
    type Connection = TcpStream;
    type StopReason = SingleThreadStopReason<u64>;

    fn wait_for_stop_reason(
        stub: &mut Stub,
        stream: &mut TcpStream,
    ) -> Result<Event<Self::StopReason>, WaitForStopReasonError<Failed, std::io::Error>> {
        loop {
            match stub.say.recv_timeout(LOOK) {
                Ok(Say::Stands(why, changed)) => return Ok(Event::TargetStopped(reason(why, changed))),
                Ok(_) => (),
                Err(RecvTimeoutError::Disconnected) => return Err(WaitForStopReasonError::Target(GONE)),
                Err(RecvTimeoutError::Timeout) => {
                    if stream.peek().map_err(WaitForStopReasonError::Connection)?.is_some() {
                        let byte = ConnectionExt::read(stream).map_err(WaitForStopReasonError::Connection)?;
                        return Ok(Event::IncomingData(byte));
                    }
                }
            }
        }
    }

    fn on_interrupt(stub: &mut Stub) -> Result<Option<Self::StopReason>, Failed> {
        stub.interrupt.store(true, Ordering::Relaxed);
        Ok(None)
    }
}

fn reason(why: Why, changed: Option<u64>) -> SingleThreadStopReason<u64> {
    match (why, changed) {
        (Why::Begin, _) => SingleThreadStopReason::ReplayLog { tid: None, pos: ReplayLogPosition::Begin },
        (Why::End, _) => SingleThreadStopReason::ReplayLog { tid: None, pos: ReplayLogPosition::End },
        (Why::Wanted, Some(addr)) => SingleThreadStopReason::Watch { tid: (), kind: WatchKind::Write, addr },
        (Why::Wanted, None) => SingleThreadStopReason::SwBreak(()),
        (Why::There, _) => SingleThreadStopReason::DoneStep,
        (Why::Interrupted, _) => SingleThreadStopReason::Signal(Signal::SIGINT),
    }
}
