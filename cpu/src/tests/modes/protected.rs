//! Protected mode without long mode: gates of 16 and 32 bits, stacks from the task-state segment.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit, TableRegister,
    testing::{CODE, DATA, STACK},
};

pub(super) const GDT: u64 = 0x8000;
const IDT: u64 = 0x9000;
pub(super) const TSS: u64 = 0xa000;
/// Handler of vector v is HLT at HANDLERS + 16 v.
const HANDLERS: u64 = 0x18_0000;
const KERNEL_STACK: u64 = 0x1a_0000;
const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_CODE: u16 = 0x1b;
const USER_DATA: u16 = 0x23;
const TASK: u16 = 0x28;
const CODE16: u16 = 0x30;
pub(super) const FREE: u16 = 0x38;

/// A processor in flat 32-bit code at `CODE` at CPL 0, without paging. Every exception has a 32-bit gate to a handler
/// that halts; vectors 0x80 and 0x81 are for everybody.
pub(super) fn machine(
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Cpu<TestBus>, TestBus) {
    let mut bus = TestBus::new();
    bus.poke(CODE, &assemble(32, CODE, program));
    let descriptors = [
        0,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_f300_0000_ffff,
        0x0000_8900_0000_0067 | TSS << 16,
        0x0000_9b18_0000_ffff,
    ];
    for (n, raw) in descriptors.into_iter().enumerate() {
        bus.poke64(GDT + n as u64 * 8, raw);
    }
    for vector in 0..256 {
        let rights = if matches!(vector, 0x80 | 0x81) { 0xee } else { 0x8e };
        set_gate(&mut bus, vector, KERNEL_CODE, HANDLERS + vector * 16, rights);
        bus.poke(HANDLERS + vector * 16, &[0xf4]);
    }
    bus.poke(TSS + 4, &(KERNEL_STACK as u32).to_le_bytes());
    bus.poke(TSS + 8, &KERNEL_DATA.to_le_bytes());
    let mut cpu = Cpu::new(1, 1);
    let mut state = cpu.state();
    state.cr0 = 0x33;
    state.cr4 = 0x600;
    let data = Segment { selector: KERNEL_DATA, base: 0, limit: u32::MAX, access: 0xc093 };
    state.segments = [data; 6];
    state.segments[1] = Segment { selector: KERNEL_CODE, access: 0xc09b, ..data };
    state.gdtr = TableRegister { base: GDT, limit: 0xff };
    state.idtr = TableRegister { base: IDT, limit: 0x7ff };
    state.tr = Segment { selector: TASK, base: TSS, limit: 0x67, access: 0x8b };
    state.regs[REG_RIP] = CODE;
    state.regs[SP] = STACK;
    cpu.set_state(state);
    (cpu, bus)
}

/// The same at CPL 3.
fn user_machine(
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, bus) = machine(program);
    let mut state = cpu.state();
    let data = Segment { selector: USER_DATA, base: 0, limit: u32::MAX, access: 0xc0f3 };
    state.segments = [data; 6];
    state.segments[1] = Segment { selector: USER_CODE, access: 0xc0fb, ..data };
    cpu.set_state(state);
    (cpu, bus)
}

fn set_gate(bus: &mut TestBus, vector: u64, selector: u16, target: u64, rights: u64) {
    let raw = target & 0xffff | u64::from(selector) << 16 | rights << 40 | (target >> 16 & 0xffff) << 48;
    bus.poke64(IDT + vector * 8, raw);
}

/// Runs until a handler halts: its vector and the doublewords on its stack, from the top.
pub(super) fn run_to_handler<const N: usize>(cpu: &mut Cpu<TestBus>, bus: &mut TestBus) -> (u64, [u32; N]) {
    run_to_halt(cpu, bus);
    let at = cpu.state().rip() - 1;
    assert!((HANDLERS..HANDLERS + 0x1000).contains(&at), "halted at {at:#x}");
    let top = cpu.state().regs[SP];
    let frame = std::array::from_fn(|n| u32::from_le_bytes(bus.peek(top + 4 * n as u64)));
    ((at - HANDLERS) / 16, frame)
}

#[test]
fn an_interrupt_from_user_code_switches_stacks_and_iretd_comes_back() {
    let (mut cpu, mut bus) = user_machine(|a| {
        a.int(0x80)?;
        a.int(0x81)
    });
    let handler = HANDLERS + 0x80 * 16;
    bus.poke(
        handler,
        &assemble(32, handler, |a| {
            a.mov(ebx, cs)?;
            a.mov(ecx, ss)?;
            a.iretd()
        }),
    );
    let mut state = cpu.state();
    state.rflags = 0x246;
    cpu.set_state(state);
    let (vector, frame) = run_to_handler(&mut cpu, &mut bus);
    let user = [CODE as u32 + 4, USER_CODE.into(), 0x246, STACK as u32, USER_DATA.into()];
    assert_eq!((vector, frame), (0x81, user));
    assert_eq!(registers(&cpu, [BX, CX]), [KERNEL_CODE.into(), KERNEL_DATA.into()]);
    assert_eq!(cpu.state().regs[SP], KERNEL_STACK - 20);
    assert_eq!(cpu.state().cpl(), 0);
}

#[test]
fn exceptions_of_the_same_privilege_stay_on_the_stack() {
    // A selector beyond the table.
    let (mut cpu, mut bus) = machine(|a| {
        a.mov(eax, 0x123)?;
        a.mov(es, eax)
    });
    let (vector, frame) = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((vector, frame), (13, [0x120, CODE as u32 + 5, KERNEL_CODE.into(), 0x1_0002]));
    assert_eq!(cpu.state().regs[SP], STACK - 16);
}

#[test]
fn sixteen_bit_gates_push_words() {
    let (mut cpu, mut bus) = machine(|a| a.int(0x80));
    set_gate(&mut bus, 0x80, CODE16, 0x100, 0x86);
    bus.poke(
        HANDLERS + 0x100,
        &assemble(16, 0x100, |a| {
            a.mov(bp, sp)?;
            a.iret()
        }),
    );
    bus.poke(CODE + 2, &[0xf4]);
    // IRET of 16 bits returns below 64 KiB only: the code segment is based at the code.
    bus.poke64(GDT + u64::from(KERNEL_CODE), 0x004f_9b10_0000_ffff);
    let mut state = cpu.state();
    state.segments[1] = Segment { selector: KERNEL_CODE, base: CODE, limit: 0xf_ffff, access: 0x409b };
    state.regs[REG_RIP] = 0;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().rip(), cpu.state().regs[SP]), (3, STACK));
    let frame: [u16; 3] = std::array::from_fn(|n| u16::from_le_bytes(bus.peek(STACK - 6 + 2 * n as u64)));
    assert_eq!(frame, [2, KERNEL_CODE, 2]);
}

#[test]
fn a_call_gate_copies_parameters_to_the_inner_stack() {
    let (mut cpu, mut bus) = user_machine(|a| {
        a.push(0x111)?;
        a.push(0x222)?;
        a.db(&[0x9a, 0, 0, 0, 0])?;
        a.dw(&[FREE | 3])?;
        a.int(0x81)
    });
    let entry = HANDLERS + 0x2000;
    let two = 0xec02;
    let raw = entry & 0xffff | u64::from(KERNEL_CODE) << 16 | two << 32 | (entry >> 16) << 48;
    bus.poke64(GDT + u64::from(FREE), raw);
    bus.poke(
        entry,
        &assemble(32, entry, |a| {
            a.mov(eax, dword_ptr(esp))?;
            a.mov(ebx, dword_ptr(esp + 8))?;
            a.mov(ecx, dword_ptr(esp + 12))?;
            a.mov(edx, dword_ptr(esp + 16))?;
            a.retf_1(8)
        }),
    );
    let (vector, frame) = run_to_handler(&mut cpu, &mut bus);
    let after_call = CODE as u32 + 5 + 5 + 7;
    assert_eq!(registers(&cpu, [AX, BX, CX, DX]), [after_call.into(), 0x222, 0x111, STACK - 8]);
    assert_eq!((vector, frame[0], frame[3]), (0x81, after_call + 2, STACK as u32), "parameters are released");
    let _: [u32; 5] = frame;
}

#[test]
fn a_gate_for_inner_privileges_only_is_refused() {
    let (mut cpu, mut bus) = user_machine(|a| a.int(0x10));
    let (vector, frame) = run_to_handler::<2>(&mut cpu, &mut bus);
    assert_eq!((vector, frame), (13, [0x10 << 3 | 2, CODE as u32]));
}

#[test]
fn a_stack_that_the_task_does_not_have_is_an_invalid_task() {
    let (mut cpu, mut bus) = user_machine(|a| a.int(0x80));
    bus.poke(TSS + 8, &[0, 0]);
    // The exception needs the same stack, and the double fault too.
    assert_eq!(cpu.run(&mut bus, 100), Exit::Shutdown);
}

#[test]
fn task_gates_and_virtual_8086_mode_are_refused_as_not_offered() {
    let (mut cpu, mut bus) = machine(|a| a.int(0x80));
    set_gate(&mut bus, 0x80, TASK, 0, 0x85);
    assert_eq!(
        cpu.run(&mut bus, 100),
        Exit::Unsupported { rip: CODE, what: "interrupt through a task gate" }
    );

    let (mut cpu, mut bus) = machine(|a| {
        a.push(0x2_0002)?;
        a.push(0)?;
        a.push(0)?;
        a.iretd()
    });
    let exit = cpu.run(&mut bus, 100);
    assert_eq!(exit, Exit::Unsupported { rip: CODE + 9, what: "return to virtual-8086 mode" });

    let (mut cpu, mut bus) = machine(|a| {
        a.db(&[0xea, 0, 0, 0, 0])?;
        a.dw(&[FREE])
    });
    bus.poke64(GDT + u64::from(FREE), 0x0000_8900_0000_0067 | TSS << 16);
    let exit = cpu.run(&mut bus, 100);
    assert_eq!(exit, Exit::Unsupported { rip: CODE, what: "task switch by a far jump or call" });
}

#[test]
fn pusha_and_popa_restore_all_but_the_stack_pointer() {
    let (mut cpu, mut bus) = machine(|a| {
        a.mov(eax, 1)?;
        a.mov(edi, 7)?;
        a.pushad()?;
        a.xor(eax, eax)?;
        a.xor(edi, edi)?;
        a.mov(dword_ptr(esp + 12), 0x9999_9999u32)?; // ESP's slot
        a.popad()?;
        a.hlt()
    });
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(registers(&cpu, [AX, 7, SP]), [1, 7, STACK]);
    assert_eq!(bus.peek::<4>(STACK - 4), [1, 0, 0, 0]);
}

#[test]
fn bound_arpl_into_and_salc() {
    let run = |program: Program| {
        let (mut cpu, mut bus) = machine(program);
        bus.poke(DATA, &[0xfe, 0xff, 0xff, 0xff, 5, 0, 0, 0]);
        run_to_halt(&mut cpu, &mut bus);
        cpu.state()
    };
    for (index, inside) in [(-3, false), (-2, true), (5, true), (6, false)] {
        let (mut cpu, mut bus) = machine(|a| {
            a.mov(eax, index)?;
            a.bound(eax, ptr(DATA))?;
            a.hlt()
        });
        bus.poke(DATA, &[0xfe, 0xff, 0xff, 0xff, 5, 0, 0, 0]);
        run_to_halt(&mut cpu, &mut bus);
        let at = cpu.state().rip() - 1;
        assert_eq!(at, if inside { CODE + 11 } else { HANDLERS + 5 * 16 }, "{index}");
    }
    let state = run(|a| {
        a.mov(eax, 0x1234_5671)?;
        a.mov(ecx, 3)?;
        a.arpl(ax, cx)?;
        a.hlt()
    });
    assert_eq!((state.regs[AX], state.rflags & 0x40), (0x1234_5673, 0x40));
    let state = run(|a| {
        a.mov(al, 0x7f)?;
        a.add(al, 1)?;
        a.into()?;
        a.hlt()
    });
    assert_eq!(state.rip() - 1, HANDLERS + 4 * 16);
    let state = run(|a| {
        a.stc()?;
        a.db(&[0xd6])?;
        a.hlt()
    });
    assert_eq!(state.regs[AX] & 0xff, 0xff);
}

#[test]
fn the_permission_map_of_the_task_opens_ports() {
    for (port, opened) in [(0x60, true), (0x61, false)] {
        let (mut cpu, mut bus) = user_machine(|a| {
            a.mov(edx, port)?;
            a.in_(al, dx)?;
            a.int(0x81)
        });
        bus.poke(TSS + 0x66, &0x68u16.to_le_bytes());
        bus.poke(TSS + 0x68, &[0xff; 0x20]);
        bus.poke(TSS + 0x68 + 0x60 / 8, &[0xfe]);
        let mut state = cpu.state();
        state.tr.limit = 0x87;
        cpu.set_state(state);
        let (vector, _) = run_to_handler::<1>(&mut cpu, &mut bus);
        assert_eq!(vector, if opened { 0x81 } else { 13 }, "{port:#x}");
    }
}
