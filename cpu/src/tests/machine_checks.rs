//! Poisoned lines: which instructions raise #MC, where, and what the registers tell.

use iced_x86::{IcedError, code_asm::*};

use super::*;
use crate::{
    Exit, Model,
    testing::{DATA, PMEM, Told},
};

const LOST: u64 = PMEM + 0x1040;
const CR4_MCE: u64 = 1 << 6;

/// A machine with machine checks enabled, one line of persistent memory poisoned, and RBX at the line's page.
fn poisoned(
    new: impl Fn(&[u8]) -> (Cpu<TestBus>, TestBus),
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = new(&assemble(program));
    let mut state = cpu.state();
    state.model = Model { machine_checks: true, ..Model::default() };
    state.cr4 |= CR4_MCE;
    state.regs[3] = LOST & !0xfff;
    cpu.set_state(state);
    bus.poisoned = LOST..LOST + 64;
    (cpu, bus)
}

fn registers(cpu: &mut Cpu<TestBus>, bus: &mut TestBus) -> [u64; 4] {
    [0x17a, 0x401, 0x402, 0x403].map(|msr| cpu.read_msr(bus, msr).expect("it is there"))
}

#[test]
fn a_load_raises_instead_of_the_instruction_and_the_bank_tells_the_line() {
    for user in [false, true] {
        let new = if user { user_machine } else { machine_with_traps };
        let (mut cpu, mut bus) = poisoned(new, |a| {
            a.inc(rcx)?;
            a.add(rax, qword_ptr(rbx + 0x38))?;
            a.add(rax, qword_ptr(rbx + 0x39))?;
            a.hlt()
        });
        cpu.set_register(0, 5);
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, frame.code, frame.cs & 3), (18, None, if user { 3 } else { 0 }));
        assert_eq!(frame.rip, CODE + 7, "what lies in front of the line can be loaded");
        assert_eq!((cpu.state().regs[0], cpu.state().regs[1]), (5, 1), "nothing of it is visible");
        // RIPV, EIPV, MCIP; valid, uncorrected, enabled, MISCV, ADDRV, S, AR, data load.
        assert_eq!(registers(&mut cpu, &mut bus), [7, 0xbd80_0000_0000_0134, LOST, 0x86]);
    }
}

#[test]
fn a_repeated_copy_ends_in_front_of_the_line() {
    let (mut cpu, mut bus) = poisoned(machine_with_traps, |a| {
        a.mov(rsi, rbx)?;
        a.mov(rdi, DATA)?;
        a.mov(ecx, 0x1000)?;
        a.rep().movsb()
    });
    bus.poke(LOST & !0xfff, &[7; 0x1000]);
    let frame = run_to_handler(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((frame.vector, state.regs[1], state.regs[6]), (18, 0x1000 - 0x40, LOST));
    assert_eq!((bus.peek::<1>(DATA + 0x3f), bus.peek::<1>(DATA + 0x40)), ([7], [0]));
}

#[test]
fn stores_change_nothing_of_it() {
    let (mut cpu, mut bus) = poisoned(machine_with_traps, |a| {
        a.mov(qword_ptr(rbx + 0x40), rbx)?;
        a.movnti(qword_ptr(rbx + 0x48), rbx)?;
        a.clwb(byte_ptr(rbx + 0x40))?;
        a.sfence()?;
        a.mov(rax, qword_ptr(rbx + 0x80))?;
        a.inc(qword_ptr(rbx + 0x40))?;
        a.hlt()
    });
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 18);
    let stores = bus.told().iter().filter(|told| matches!(told, Told::Store(..))).count();
    assert_eq!(stores, 2, "a store to it is a store, and INC loads first");
}

#[test]
fn code_in_it_is_not_executed() {
    let (mut cpu, mut bus) = poisoned(machine_with_traps, |a| {
        a.add(rbx, 0x40)?;
        a.jmp(rbx)
    });
    bus.poke(LOST, &[0xf4]);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (18, LOST));
    assert_eq!(registers(&mut cpu, &mut bus)[1] & 0xffff, 0x150);
}

#[test]
fn a_processor_that_cannot_take_it_shuts_down() {
    let load = |a: &mut CodeAssembler| {
        a.mov(rax, qword_ptr(rbx + 0x40))?;
        a.hlt()
    };
    let cases: [fn(&mut crate::State); 3] = [
        |state| state.cr4 &= !CR4_MCE,
        |state| state.model = Model::default(),
        |state| state.kept_msrs = vec![(0x17a, 4)],
    ];
    for change in cases {
        let (mut cpu, mut bus) = poisoned(machine_with_traps, load);
        let mut state = cpu.state();
        change(&mut state);
        cpu.set_state(state);
        assert_eq!(cpu.run(&mut bus, 1000), Exit::Shutdown);
    }
}

#[test]
fn a_local_one_says_so_and_an_error_that_nobody_cleared_is_lost() {
    let (mut cpu, mut bus) = poisoned(machine_with_traps, |a| {
        a.mov(rax, qword_ptr(rbx + 0x40))?;
        a.hlt()
    });
    assert_eq!(cpu.write_msr(&mut bus, 0x4d0, 1), Some(()));
    let start = cpu.state();
    run_to_handler(&mut cpu, &mut bus);
    assert_eq!(registers(&mut cpu, &mut bus)[0], 0xf);
    let kept: Vec<_> = cpu.state().kept_msrs.into_iter().filter(|(msr, _)| *msr != 0x17a).collect();
    cpu.set_state(crate::State { kept_msrs: kept, ..start });
    run_to_handler(&mut cpu, &mut bus);
    assert_eq!(registers(&mut cpu, &mut bus)[1] >> 62, 3, "overflow");
}

#[test]
fn registers_are_there_only_with_machine_checks_and_banks_can_only_be_cleared() {
    let (mut cpu, mut bus) = machine_with_traps(&[0xf4]);
    let all = [0x3a, 0x179, 0x17a, 0x400, 0x401, 0x402, 0x403, 0x4d0];
    assert!(all.iter().all(|&msr| cpu.read_msr(&mut bus, msr).is_none()));
    assert!(all.iter().all(|&msr| cpu.write_msr(&mut bus, msr, 0).is_none()));
    let told = |model: Model| model.cpuid(1, 0, 0, 1)[3] & (1 << 7 | 1 << 14);
    assert_eq!(told(Model::default()), 0);
    let model = Model { machine_checks: true, ..Model::default() };
    assert_eq!(told(model), 1 << 7 | 1 << 14);
    cpu.set_state(crate::State { model, ..cpu.state() });
    assert_eq!(cpu.read_msr(&mut bus, 0x179), Some(0x0900_0001));
    assert_eq!(cpu.read_msr(&mut bus, 0x3a), Some(0x0010_0001));
    for msr in [0x401, 0x402, 0x403] {
        assert_eq!((cpu.write_msr(&mut bus, msr, 0), cpu.write_msr(&mut bus, msr, 1)), (Some(()), None));
    }
    assert!([0x3a, 0x179].iter().all(|&msr| cpu.write_msr(&mut bus, msr, 0).is_none()));
    assert_eq!(cpu.write_msr(&mut bus, 0x4d0, 2), None);
}
