//! How bytes become instructions, where it is not just a table.

use super::*;

/// `prefixes` redundant segment prefixes before `rest`.
fn prefixed(prefixes: usize, rest: &[u8]) -> Vec<u8> {
    [vec![0x2e; prefixes], rest.to_vec()].concat()
}

fn vector_of(code: &[u8]) -> (u64, u64) {
    let (mut cpu, mut bus) = user_machine(code);
    let frame = run_to_handler(&mut cpu, &mut bus);
    (frame.vector, frame.rip)
}

const NOP: [u8; 1] = [0x90];
const INT3: [u8; 1] = [0xcc];
/// MOV EAX, imm32: five bytes.
const MOV: [u8; 5] = [0xb8, 1, 2, 3, 4];
const UD2: [u8; 2] = [0x0f, 0x0b];

#[test]
fn an_instruction_of_15_bytes_executes_and_a_longer_one_is_a_general_protection_fault() {
    for instruction in [NOP.as_slice(), MOV.as_slice()] {
        let longest = [prefixed(15 - instruction.len(), instruction), INT3.to_vec()].concat();
        let (_, rip) = vector_of(&longest);
        assert_eq!(rip, CODE + 15);
        assert_eq!(vector_of(&prefixed(16 - instruction.len(), instruction)), (13, CODE));
    }
}

#[test]
fn an_undefined_instruction_is_undefined_up_to_15_bytes() {
    assert_eq!(vector_of(&prefixed(13, &UD2)), (6, CODE));
    assert_eq!(vector_of(&UD2), (6, CODE));
}

#[test]
fn rex_b_makes_an_exchange_of_pause() {
    let code = [0xf3, 0x41, 0x90, 0xcc];
    let (mut cpu, mut bus) = user_machine(&code);
    let mut state = cpu.state();
    (state.regs[0], state.regs[8]) = (1, 2);
    cpu.set_state(state);
    run_to_handler(&mut cpu, &mut bus);
    let regs = cpu.state().regs;
    assert_eq!((regs[0], regs[8]), (2, 1));
}

#[test]
fn prefixes_of_newer_bit_scans_and_of_wbnoinvd_are_ignored() {
    // F3 BSF RAX, RBX: TZCNT elsewhere, and with 0 its destination would become 64.
    let (mut cpu, mut bus) =
        user_machine(&[0xf3, 0x48, 0x0f, 0xbc, 0xc3, 0xf3, 0x48, 0x0f, 0xbd, 0xcb, 0xcc]);
    let mut state = cpu.state();
    (state.regs[0], state.regs[1], state.regs[3]) = (7, 8, 0);
    cpu.set_state(state);
    run_to_handler(&mut cpu, &mut bus);
    assert_eq!((cpu.state().regs[0], cpu.state().regs[1]), (7, 8));
    let (mut cpu, mut bus) = machine_with_traps(&[0xf3, 0x0f, 0x09, 0xf4]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[REG_RIP], CODE + 4);
}

#[test]
fn instructions_of_16_bytes_are_too_long_whatever_their_prefixes() {
    let mut code = vec![0x36; 15];
    code.extend([0x01, 0xc0]);
    // Without its first prefix it has other addresses, and fits.
    let narrow = [0x67, 0x3e, 0x26, 0x2e, 0x36, 0x26, 0xf2, 0x36, 0xf3, 0x64, 0x01, 0xa8, 1, 2, 3, 4];
    for (access, bytes) in [(0xa09b, &code[..]), (0x809b, &narrow)] {
        let (mut cpu, mut bus) = machine_with_traps(bytes);
        let mut state = cpu.state();
        state.segments[1].access = access;
        cpu.set_state(state);
        assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 13, "{access:#x}");
    }
}

#[test]
fn repeated_port_strings_are_refused_even_when_there_is_nothing_to_do() {
    for code in [[0xf3, 0x6c], [0xf3, 0x6e]] {
        let (mut cpu, mut bus) = user_machine(&code);
        let mut state = cpu.state();
        (state.regs[1], state.regs[7]) = (0, 0xdead_0000_0000);
        cpu.set_state(state);
        assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 13);
    }
}

#[test]
fn the_opcode_of_an_x87_instruction_is_kept_when_it_raises_an_unmasked_exception() {
    // FNINIT; FLDZ; FLDCW [RDI]; FDIV ST0, ST0; HLT
    let code = [0xdb, 0xe3, 0xd9, 0xee, 0xd9, 0x2f, 0xd8, 0xf0, 0xf4];
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(crate::testing::DATA, &0x37eu16.to_le_bytes());
    let mut state = cpu.state();
    state.regs[7] = crate::testing::DATA;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    let unit = cpu.state().x87;
    assert_eq!((unit.opcode, unit.ip), (0x0f0, CODE + 6));
}
