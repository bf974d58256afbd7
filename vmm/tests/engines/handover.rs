//! From one engine to the other, back in time, and through a file.

use iced_x86::code_asm::*;
use vmm::{Engine, Machine, Stop};

use crate::guest::*;

/// Fills 4 KiB with numbers that depend on all that came before: on integer, x87 and SSE registers, calls, exceptions,
/// page faults and flags. Stops now and then by the debug-exit port.
fn busy() -> Vec<u8> {
    Guest::code(|g| {
        let (mut again, mut routine, mut over) = (g.create_label(), g.create_label(), g.create_label());
        let mut fault = g.create_label();
        g.handle(14, fault);
        g.mov(ecx, 0x1000)?;
        g.mov(rbx, 0x9e37_79b9_7f4a_7c15u64)?;
        g.fninit()?;
        g.fld1()?;
        g.movq(xmm1, rbx)?;
        g.set_label(&mut again)?;
        g.mov(rax, rbx)?;
        g.shl(rax, 13)?;
        g.xor(rbx, rax)?;
        g.mov(rax, rbx)?;
        g.shr(rax, 7)?;
        g.xor(rbx, rax)?;
        g.call(routine)?;
        g.mov(byte_ptr(rbp + rcx + 0x2_0000), bl)?;
        g.test(ecx, 0x3f)?;
        let mut calm = g.create_label();
        g.jne(calm)?;
        // The address is in RAX for the handler to skip: the instruction is three bytes long.
        g.mov(rax, 0x7fff_0000_0000u64)?;
        g.or(byte_ptr(rax), 1)?;
        g.set_label(&mut calm)?;
        let mut on = g.create_label();
        g.test(ecx, 0x1ff)?;
        g.jne(on)?;
        g.mov(dx, 0xf4)?;
        g.mov(eax, 1)?;
        g.out(dx, eax)?;
        g.set_label(&mut on)?;
        g.dec(ecx)?;
        g.jne(again)?;
        g.jmp(over)?;
        g.set_label(&mut routine)?;
        g.movq(xmm0, rbx)?;
        g.paddq(xmm1, xmm0)?;
        g.movq(rax, xmm1)?;
        g.xor(rbx, rax)?;
        g.test(cl, 7)?;
        let mut plain = g.create_label();
        g.jne(plain)?;
        g.fld1()?;
        g.faddp(st1, st0)?;
        g.set_label(&mut plain)?;
        g.ret()?;
        g.set_label(&mut fault)?;
        g.add(rsp, 8)?;
        g.add(qword_ptr(rsp), 3)?;
        g.inc(dword_ptr(rbp + 0x40))?;
        g.iretq()?;
        g.set_label(&mut over)?;
        g.fstp(qword_ptr(rbp))?;
        g.cmp(eax, eax)
    })
}

/// All of RAM and what matters of the registers at the end.
fn end(machine: &Machine) -> (Vec<u8>, [u64; 18], [u128; 16]) {
    let state = machine.cpu_state();
    (memory(machine), state.regs, state.xmm)
}

/// Runs to the next of the places where the guest stops by itself.
#[track_caller]
fn to_a_stop(machine: &mut Machine) {
    assert_eq!(machine.run(BUDGET), Stop::DebugExit(1), "{:?}", machine.kvm_counts());
}

/// Runs to the end, over all stops.
#[track_caller]
fn to_the_end(machine: &mut Machine) {
    loop {
        match machine.run(BUDGET) {
            Stop::DebugExit(1) => {}
            stop => return assert_eq!(stop, Stop::DebugExit(21), "{:?}", machine.kvm_counts()),
        }
    }
}

/// What the guest ends with when nothing comes between.
fn undisturbed(mut machine: Machine) -> (Vec<u8>, [u64; 18], [u128; 16]) {
    to_the_end(&mut machine);
    assert_eq!(word(&machine, DATA + 0x40), 64);
    assert_eq!(f64::from_bits(word(&machine, DATA)), 513.0);
    end(&machine)
}

/// Numbers that look random and are the same each time.
fn budgets() -> impl Iterator<Item = u64> {
    std::iter::successors(Some(12_345u64), |it| {
        Some(it.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1))
    })
    .map(|number| 1 + (number >> 40) % 1000)
}

#[test]
fn engines_take_turns_and_the_guest_does_not_notice() {
    let Some([mut machine, software]) = on_both(&config(&busy())) else { return };
    let expected = undisturbed(software);
    let mut turns = 0;
    for budget in budgets() {
        let kvm = machine.engine() == Engine::Kvm;
        // Nanoseconds here, instructions there.
        match machine.run(if kvm { 100 * budget } else { budget }) {
            Stop::Budget | Stop::DebugExit(1) => {}
            stop => {
                assert_eq!(stop, Stop::DebugExit(21));
                break;
            }
        }
        turns += 1;
        machine.set_engine(if kvm { Engine::Software } else { Engine::Kvm }).unwrap();
        machine.set_assist(1);
    }
    assert!(turns >= 8, "{turns}");
    assert!(end(&machine) == expected);
}

#[test]
fn a_level_goes_back_over_what_kvm_wrote() {
    let Some([mut machine, software]) = on_both(&config(&busy())) else { return };
    let expected = undisturbed(software);
    to_a_stop(&mut machine);
    let before = end(&machine);
    machine.push();
    to_a_stop(&mut machine);
    let between = end(&machine);
    machine.push();
    to_the_end(&mut machine);
    assert!(end(&machine) == expected);
    assert!(machine.pop() > 0);
    assert!(end(&machine) == between);
    // The software engine goes on inside a level that KVM began, and KVM in what it left.
    machine.set_engine(Engine::Software).unwrap();
    to_a_stop(&mut machine);
    machine.set_engine(Engine::Kvm).unwrap();
    machine.set_assist(50);
    to_a_stop(&mut machine);
    assert!(machine.rewind() > 0);
    assert!(end(&machine) == before);
    to_the_end(&mut machine);
    assert!(end(&machine) == expected);
    machine.pop();
    assert!(end(&machine) == before);
}

#[test]
fn a_file_goes_on_under_either_engine() {
    let Some([mut machine, software]) = on_both(&config(&busy())) else { return };
    let expected = undisturbed(software);
    to_a_stop(&mut machine);
    let path = std::env::temp_dir().join(format!("pmemsim-engines-{}", std::process::id()));
    machine.save(&path).unwrap();
    for engine in [Engine::Kvm, Engine::Software] {
        let mut loaded = Machine::load(&path).unwrap();
        loaded.set_engine(engine).unwrap();
        to_the_end(&mut loaded);
        assert!(end(&loaded) == expected, "{engine:?}");
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_machine_that_kvm_cannot_offer_is_refused_by_name() {
    let Some(kvm) = on_kvm(&config(&busy())) else { return };
    let lacking = kvm.differences();
    let mut machine = Machine::new(&config(&busy())).unwrap();
    match machine.set_engine(Engine::Kvm) {
        Ok(()) => assert!(lacking.is_empty(), "{lacking:?}"),
        Err(error) => {
            let text = error.to_string();
            assert!(lacking.iter().all(|it| text.contains(&it.name)), "{text}");
            assert_eq!(machine.engine(), Engine::Software);
        }
    }
}
