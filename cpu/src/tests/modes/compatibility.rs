//! 32-bit and 16-bit code under a 64-bit kernel.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, STACK},
    tests::{GDT, HANDLERS, IDT, KERNEL_CODE, KERNEL_STACK, USER_DATA, gate, run_to_handler, user_machine},
};

const CODE32: u16 = 0x53;
const DATA16: u16 = 0x5b;
const CODE16: u16 = 0x63;
/// A call gate for everybody, 16 bytes.
const CALL_GATE: u16 = 0x70;
/// Vectors that INT may use from CPL 3.
const SYSTEM_CALL: u64 = 0x80;
const END: u64 = 0x81;

/// A processor at CPL 3 in compatibility mode at `DATA`.
fn machine(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = user_machine(&[]);
    bus.poke(DATA, &assemble(32, DATA, program));
    bus.poke64(GDT + 0x50, 0x00cf_fb00_0000_ffff);
    bus.poke64(GDT + 0x58, 0x0000_f300_0000_ffff);
    bus.poke64(GDT + 0x60, 0x0000_fb30_0000_ffff);
    let entry = HANDLERS + 0x2000;
    let low = entry & 0xffff | u64::from(KERNEL_CODE) << 16 | 0xec00 << 32 | (entry >> 16 & 0xffff) << 48;
    bus.poke64(GDT + u64::from(CALL_GATE), low);
    bus.poke64(GDT + u64::from(CALL_GATE) + 8, entry >> 32);
    for vector in [SYSTEM_CALL, END] {
        bus.poke(IDT + vector * 16, &gate(vector, 0, 0xee).to_le_bytes());
    }
    let mut state = cpu.state();
    state.gdtr.limit = 0xff;
    state.segments[1] = Segment { selector: CODE32, base: 0, limit: u32::MAX, access: 0xc0fb };
    state.regs[REG_RIP] = DATA;
    state.regs[SP] = STACK;
    cpu.set_state(state);
    (cpu, bus)
}

fn end(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.int(END as i32)
}

#[test]
fn a_system_call_by_interrupt_goes_to_64_bit_code_and_comes_back() {
    let (mut cpu, mut bus) = machine(|a| {
        a.mov(eax, 5)?;
        a.int(SYSTEM_CALL as i32)?;
        a.push(eax)?;
        a.inc(ecx)?; // a REX prefix in 64-bit code
        end(a)
    });
    let handler = HANDLERS + SYSTEM_CALL * 16;
    bus.poke(
        handler,
        &assemble(64, handler, |a| {
            a.mov(rbx, rsp)?;
            a.add(rax, 0x100)?;
            a.iretq()
        }),
    );
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!(
        (frame.vector, frame.cs, frame.rsp, frame.ss),
        (END, CODE32.into(), STACK - 4, USER_DATA.into())
    );
    assert_eq!(bus.peek::<4>(STACK - 4), [5, 1, 0, 0]);
    assert_eq!(cpu.state().regs[CX], 1);
    // RIP, CS, RFLAGS, RSP, SS, as pushed by the first interrupt.
    assert_eq!(cpu.state().regs[BX], KERNEL_STACK - 40);
}

#[test]
fn faults_push_the_64_bit_frame() {
    let (mut cpu, mut bus) = machine(|a| a.ud2());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, frame.cs), (6, DATA, CODE32.into()));
    assert!(cpu.long_code());
}

#[test]
fn syscall_is_undefined_as_on_intel() {
    let (mut cpu, mut bus) = machine(|a| a.syscall());
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 6);
}

#[test]
fn sysenter_and_sysexit() {
    let (mut cpu, mut bus) = machine(|a| a.sysenter());
    let entry = HANDLERS + 0x1000;
    bus.poke(
        entry,
        &assemble(64, entry, |a| {
            a.mov(ebx, cs)?;
            a.mov(rsi, rsp)?;
            a.mov(ecx, 0x12_3450)?;
            a.mov(edx, DATA as u32 + 0x100)?;
            a.sysexit()
        }),
    );
    bus.poke(DATA + 0x100, &assemble(32, DATA + 0x100, end));
    let mut state = cpu.state();
    state.sysenter = [u64::from(KERNEL_CODE), KERNEL_STACK - 0x100, entry];
    state.rflags |= 1 << 9;
    cpu.set_state(state);
    // 32-bit code is 16 behind SYSENTER_CS, its stack 24.
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.cs, frame.ss, frame.rsp), (END, 0x23, 0x2b, 0x12_3450));
    assert_eq!(frame.rflags & 1 << 9, 0, "SYSENTER clears IF");
    assert_eq!((cpu.state().regs[BX], cpu.state().regs[6]), (KERNEL_CODE.into(), KERNEL_STACK - 0x100));
}

#[test]
fn sysret_to_32_bit_code() {
    let (mut cpu, mut bus) = machine(end);
    let entry = HANDLERS + 0x1000;
    bus.poke(entry, &assemble(64, entry, |a| a.sysret()));
    let mut state = cpu.state();
    state.segments[1] = Segment { selector: KERNEL_CODE, base: 0, limit: u32::MAX, access: 0xa09b };
    state.segments[2] = Segment { selector: 0, base: 0, limit: 0, access: 0 };
    state.star = 0x0050_0010 << 32;
    state.regs[CX] = DATA | 7 << 32;
    state.regs[11] = 0x202;
    state.regs[REG_RIP] = entry;
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.cs, frame.ss, frame.rflags), (END, CODE32.into(), 0x5b, 0x202));
}

#[test]
fn far_jumps_lead_into_64_bit_code_and_back() {
    let (mut cpu, mut bus) = machine(|a| {
        a.db(&[0xea])?;
        a.dd(&[DATA as u32 + 0x100])?;
        a.dw(&[0x33])
    });
    bus.poke(
        DATA + 0x100,
        &assemble(64, DATA + 0x100, |a| {
            a.mov(rax, 0x1_0000_0001u64)?;
            a.push(i32::from(CODE32))?;
            a.push(DATA as i32 + 0x200)?;
            a.db(&[0x48, 0xcb])
        }),
    );
    bus.poke(
        DATA + 0x200,
        &assemble(32, DATA + 0x200, |a| {
            a.mov(ebx, cs)?;
            end(a)
        }),
    );
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.cs, frame.rsp), (CODE32.into(), STACK));
    assert_eq!(registers(&cpu, [AX, BX]), [0x1_0000_0001, CODE32.into()]);
}

#[test]
fn a_call_gate_leads_to_64_bit_code_on_the_kernel_stack_and_retf_back() {
    let (mut cpu, mut bus) = machine(|a| {
        a.db(&[0x9a, 0, 0, 0, 0])?; // the offset does not matter
        a.dw(&[CALL_GATE])?;
        end(a)
    });
    let entry = HANDLERS + 0x2000;
    bus.poke(
        entry,
        &assemble(64, entry, |a| {
            a.mov(rbx, rsp)?;
            a.mov(ecx, ss)?;
            a.mov(edx, cs)?;
            a.db(&[0x48, 0xcb])
        }),
    );
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip, frame.cs, frame.rsp), (END, DATA + 9, CODE32.into(), STACK));
    assert_eq!(registers(&cpu, [BX, CX, DX]), [KERNEL_STACK - 32, 0, KERNEL_CODE.into()]);
    let pushed: [u64; 4] = std::array::from_fn(|n| bus.peek64(KERNEL_STACK - 8 - 8 * n as u64));
    // The second interrupt's frame lies over the first three.
    assert_eq!(pushed[0], USER_DATA.into());
}

#[test]
fn a_return_to_a_16_bit_stack_changes_only_half_of_esp() {
    let (mut cpu, mut bus) = machine(|_| Ok(()));
    bus.poke(
        DATA,
        &assemble(16, 0, |a| {
            a.push(bx)?;
            end(a)
        }),
    );
    let entry = HANDLERS + 0x1000;
    bus.poke(entry, &assemble(64, entry, |a| a.iretq()));
    let frame = [0, CODE16.into(), 2, 0x1234_8000, DATA16.into()];
    for (n, value) in frame.into_iter().enumerate() {
        bus.poke64(KERNEL_STACK - 40 + 8 * n as u64, value);
    }
    let mut state = cpu.state();
    state.segments[1] = Segment { selector: KERNEL_CODE, base: 0, limit: u32::MAX, access: 0xa09b };
    state.segments[2] = Segment::default();
    state.regs[REG_RIP] = entry;
    state.regs[SP] = KERNEL_STACK - 40;
    state.regs[BX] = 0x5678;
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    let half = (KERNEL_STACK - 40) & !0xffff;
    assert_eq!((frame.rip, frame.cs, frame.ss, frame.rsp), (3, CODE16.into(), DATA16.into(), half | 0x7ffe));
    assert_eq!(bus.peek::<2>(0x7ffe), [0x78, 0x56]);
}

#[test]
fn addresses_wrap_at_4_gib() {
    let (mut cpu, mut bus) = machine(|a| {
        a.mov(ebx, 0xffff_fff8u32)?;
        a.mov(eax, ptr(ebx + 0x308))?;
        a.mov(ecx, ptr(ebx + 6))?;
        end(a)
    });
    bus.poke(0x300, &[1, 2, 3, 4]);
    bus.poke(0, &[0x33, 0x44]);
    bus.device_value = 0x2211;
    run_to_handler(&mut cpu, &mut bus);
    assert_eq!(registers(&cpu, [AX, CX]), [0x0403_0201, 0x4433_2211]);
}

#[test]
fn stops_are_exact_in_32_bit_code() {
    let (mut cpu, mut bus) = machine(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(eax)?;
        a.jmp(again)
    });
    for until in [1, 2, 5, 100] {
        assert_eq!(cpu.run(&mut bus, until), Exit::Limit);
        assert_eq!((cpu.state().retired, cpu.state().regs[AX]), (until, until.div_ceil(2)));
    }
}

#[test]
fn returning_to_an_outer_privilege_takes_the_rpl_of_null_selectors_but_not_their_bases() {
    let (mut cpu, mut bus) = machine(|a| {
        a.int(SYSTEM_CALL as i32)?;
        end(a)
    });
    let mut state = cpu.state();
    state.segments[3] = Segment { selector: 3, ..Segment::default() };
    state.segments[4] = Segment { selector: 2, base: 0x1234_5678_9abc, ..Segment::default() };
    cpu.set_state(state);
    let handler = HANDLERS + SYSTEM_CALL * 16;
    bus.poke(
        handler,
        &assemble(64, handler, |a| {
            a.mov(ebx, ds)?;
            a.iretq()
        }),
    );
    run_to_handler(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[BX], state.segments[3].selector), (3, 0));
    assert_eq!((state.segments[4].selector, state.segments[4].base), (0, 0x1234_5678_9abc));
}
