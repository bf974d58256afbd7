//! Exceptions while exceptions are delivered: every pair of SDM vol. 3, table 6-5, and which of several comes first.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, STACK},
};

const UNMAPPED: u64 = 0x20_0000_0000;

/// An instruction that raises a vector, with RBX not mapped and the code for it.
fn raising(vector: u64) -> Vec<u8> {
    assemble(|a| match vector {
        0 => {
            a.xor(ecx, ecx)?;
            a.div(ecx)
        }
        1 => a.int1(),
        6 => a.ud2(),
        7 => a.movaps(xmm0, xmm1),
        11 => {
            a.mov(eax, u32::from(MISSING_DATA))?;
            a.mov(ds, eax)
        }
        12 => {
            a.mov(rbp, 1u64 << 47)?;
            a.mov(rax, qword_ptr(rbp))
        }
        13 => a.mov(cr3, rax),
        14 => a.mov(rax, qword_ptr(rbx)),
        16 => a.wait(),
        17 => a.mov(rax, qword_ptr(rbx - UNMAPPED as i64 as i32 + 1)),
        _ => a.int(0x60),
    })
}

/// How the delivery of the first exception goes wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    /// The gate is not a gate: #GP.
    NoGate,
    /// The gate is not present: #NP.
    GateMissing,
    /// The code segment is not present: #NP.
    SegmentMissing,
    /// The TSS is too short for the stack: #TS.
    ShortTask,
    /// The stack is not canonical: #SS.
    BadStack,
    /// The stack is not mapped: #PF.
    UnmappedStack,
    /// The IDT is not mapped: #PF.
    UnmappedTable,
}

/// The vector that a handler sees at last, `None` for shutdown.
fn seen(first: u64, second: Second) -> Option<u64> {
    let (mut cpu, mut bus) = machine_with_traps(&raising(first));
    // Everything but the first vector has a stack that works.
    for vector in 0..32 {
        bus.poke(IDT + vector * 16, &gate(vector, 1, 0x8e).to_le_bytes());
    }
    bus.poke64(TSS + 0x2c, if second == Second::BadStack { 1 << 47 } else { UNMAPPED });
    let mut broken = gate(first, 0, 0x8e);
    match second {
        Second::NoGate => broken = gate(first, 0, 0x8c),
        Second::GateMissing => broken = gate(first, 0, 0x0e),
        Second::SegmentMissing => {
            bus.poke64(GDT + 0x20, 0x00af_1b00_0000_ffff);
            broken = broken & !(0xffff << 16) | 0x20 << 16;
        }
        Second::ShortTask => broken = gate(first, 7, 0x8e),
        Second::BadStack | Second::UnmappedStack => broken = gate(first, 2, 0x8e),
        Second::UnmappedTable => {}
    }
    bus.poke(IDT + first * 16, &broken.to_le_bytes());
    let mut state = cpu.state();
    state.tr.limit = 0x24 + 6 * 8; // up to IST6
    state.regs[3] = UNMAPPED;
    if first == 7 {
        state.cr0 |= 8;
    }
    if first == 16 {
        state.x87.status = 0x8081;
        state.x87.control = 0x37e;
    }
    if second == Second::UnmappedTable {
        state.idtr.base = UNMAPPED;
    }
    if first == 13 {
        state.regs[0] = 1 << 60;
    }
    cpu.set_state(state);
    match cpu.run(&mut bus, 10) {
        Exit::Shutdown => None,
        Exit::Halted => Some((cpu.state().rip() - 1 - HANDLERS) / 16),
        exit => panic!("{first} {second:?}: {exit:?}"),
    }
}

#[test]
fn pairs_of_exceptions_become_double_faults_as_the_table_says() {
    use Second::*;
    for second in [NoGate, GateMissing, SegmentMissing, ShortTask, BadStack, UnmappedStack] {
        let alone = match second {
            NoGate => 13,
            GateMissing | SegmentMissing => 11,
            ShortTask => 10,
            BadStack => 12,
            _ => 14,
        };
        for first in [0, 1, 6, 7, 11, 12, 13, 14, 16] {
            let contributory = matches!(first, 0 | 10..=13);
            let expected = match first {
                14 => 8,
                _ if contributory && alone != 14 => 8,
                _ => alone,
            };
            // The second exception's own gate works, unless it is the one that was broken.
            let expected = if alone == first && expected != 8 { continue } else { expected };
            assert_eq!(seen(first, second), Some(expected), "{first} then {second:?}");
        }
    }
}

#[test]
fn without_a_table_everything_ends_in_shutdown() {
    for first in [0, 1, 6, 7, 11, 12, 13, 14, 16] {
        assert_eq!(seen(first, Second::UnmappedTable), None, "{first}");
    }
}

#[test]
fn a_double_fault_pushes_a_zero_and_the_address_of_the_first_fault() {
    let (mut cpu, mut bus) = machine_with_traps(&raising(13));
    bus.poke(IDT + 13 * 16, &[0; 16]);
    cpu.set_register(0, 1 << 60);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rip, frame.rsp), (8, Some(0), CODE, STACK));
}

#[test]
fn a_software_interrupt_that_cannot_be_delivered_is_a_fault_of_its_instruction() {
    let (mut cpu, mut bus) = machine_with_traps(&[0xcd, 0x60]);
    bus.poke(IDT + 0x60 * 16, &gate(0x60, 0, 0x0e).to_le_bytes());
    let frame = run_to_handler(&mut cpu, &mut bus);
    // EXT is clear: it was the program.
    assert_eq!((frame.vector, frame.code, frame.rip), (11, Some(0x60 * 8 + 2), CODE));
}

#[test]
fn faults_of_an_external_interrupts_delivery_have_ext_set() {
    let (mut cpu, mut bus) = machine_with_traps(&assemble(|a| {
        a.sti()?;
        a.nop()?;
        a.nop()
    }));
    bus.poke(IDT + 0x60 * 16, &gate(0x60, 0, 0x0e).to_le_bytes());
    bus.interrupts.push(0x60);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rip), (11, Some(0x60 * 8 + 3), CODE + 2));
}

#[test]
fn delivery_that_fails_changes_nothing_that_the_next_one_saves() {
    // From user mode: #UD's stack in the TSS is not mapped, #PF's is.
    let (mut cpu, mut bus) = user_machine(&[0x0f, 0x0b]);
    bus.poke64(TSS + 4, UNMAPPED);
    bus.poke(IDT + 14 * 16, &gate(14, 1, 0x8e).to_le_bytes());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code), (14, Some(2)));
    assert_eq!((frame.rip, frame.cs, frame.ss, frame.rsp), (CODE, USER_CODE.into(), USER_DATA.into(), STACK));
    assert_eq!(cpu.state().cr2, UNMAPPED - 8);
}

#[test]
fn exceptions_without_an_end_end_the_run() {
    // #PF's handler is not mapped, its stack is always the same.
    let (mut cpu, mut bus) = machine_with_traps(&raising(14));
    let raw = gate(14, 1, 0x8e) | 0x20 << 64;
    bus.poke(IDT + 14 * 16, &raw.to_le_bytes());
    cpu.set_register(3, UNMAPPED);
    let exit = cpu.run(&mut bus, 10);
    assert!(matches!(exit, Exit::Unsupported { what: "exceptions without an end", .. }), "{exit:?}");
}

#[test]
fn of_several_faults_the_first_in_the_order_of_execution_is_raised() {
    let cases: [(&str, Vec<u8>, u64); 8] = [
        // Fetching comes before decoding before executing.
        ("fetch, then decode", vec![0x48, 0xc7, 0xc0], 14),
        ("undefined, then privilege", vec![0xf0, 0x0f, 0x20, 0xd8], 6), // LOCK MOV RAX, CR3
        ("too long", [vec![0x66; 15], vec![0x90]].concat(), 13),
        ("not available, then page fault", assemble(|a| a.addps(xmm0, xmmword_ptr(rbx))), 7),
        ("alignment of the operand, then page fault", assemble(|a| a.movaps(xmm0, xmmword_ptr(rbx + 1))), 7),
        ("canonical, then mapped", assemble(|a| a.mov(rax, qword_ptr(rcx))), 13),
        ("privilege of the port, then its device", assemble(|a| a.in_(al, 0x30)), 13),
        ("division, after its operand is read", assemble(|a| a.div(qword_ptr(rbx))), 14),
    ];
    for (name, code, vector) in cases {
        let (mut cpu, mut bus) = user_machine(&[]);
        let at = if name.starts_with("fetch") { DATA + 0xffd } else { CODE };
        bus.poke(at, &code);
        let mut state = cpu.state();
        state.regs[crate::REG_RIP] = at;
        state.regs[3] = UNMAPPED;
        state.regs[1] = 1 << 47 | 1;
        state.cr0 |= 8;
        cpu.set_state(state);
        if name.starts_with("fetch") {
            let base = DATA & !0x1f_ffff;
            for n in 0..512 {
                bus.poke64(0x7000 + n * 8, (base + n * 0x1000) | 7);
            }
            bus.poke64(0x7000 + ((DATA >> 12 & 0x1ff) + 1) * 8, 0);
            bus.poke64(0x3000 + (DATA >> 21) * 8, 0x7007);
        }
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, frame.rip), (vector, at), "{name}");
    }
}

#[test]
fn a_code_breakpoint_comes_before_the_fetch_and_an_interrupt_before_both() {
    let (mut cpu, mut bus) = machine_with_traps(&assemble(|a| a.jmp(rax)));
    let mut state = cpu.state();
    state.regs[0] = UNMAPPED;
    state.dr[0] = UNMAPPED;
    state.dr[7] |= 1;
    cpu.set_state(state.clone());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (1, UNMAPPED));

    state.rflags |= 0x200;
    cpu.set_state(state);
    let next = cpu.retired() + 1;
    assert_eq!(cpu.run(&mut bus, next), Exit::Limit);
    bus.interrupts.push(0x40);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (0x40, UNMAPPED));
}
