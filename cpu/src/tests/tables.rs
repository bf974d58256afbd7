//! SGDT, SIDT and SLDT.

use iced_x86::code_asm::*;

use super::*;
use crate::testing::DATA;

const LOCAL: u16 = 0x123;

/// Runs `program` with known tables; memory at [`DATA`] is all ones before.
fn stored(
    access: u16,
    bits: u32,
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Cpu<TestBus>, [u8; 16]) {
    let mut assembler = CodeAssembler::new(bits).unwrap();
    program(&mut assembler).unwrap();
    assembler.hlt().unwrap();
    let (mut cpu, mut bus) = machine_with_traps(&assembler.assemble(CODE).unwrap());
    bus.poke(DATA, &[0xff; 16]);
    let mut state = cpu.state();
    state.segments[1].access = access;
    state.gdtr = TableRegister { base: 0xffff_8765_4321_0ff8, limit: 0x7f };
    state.idtr = TableRegister { base: 0x0000_1122_3344_5566, limit: 0xfff };
    state.ldtr.selector = LOCAL;
    state.regs[0] = u64::MAX;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    let bytes = bus.peek(DATA);
    (cpu, bytes)
}

const LONG: u16 = 0xa09b;
const COMPATIBILITY: u16 = 0xc09b;

#[test]
fn tables_are_stored_as_ten_bytes_in_64_bit_code_and_as_six_elsewhere() {
    const GLOBAL_TABLE: [u8; 10] = [0x7f, 0, 0xf8, 0x0f, 0x21, 0x43, 0x65, 0x87, 0xff, 0xff];
    const INTERRUPT_TABLE: [u8; 10] = [0xff, 0x0f, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0];
    let data = DATA as u32;
    let cases = [
        (stored(LONG, 64, |a| a.sgdt(ptr(data))).1, GLOBAL_TABLE, 10),
        (stored(LONG, 64, |a| a.sidt(ptr(data))).1, INTERRUPT_TABLE, 10),
        (stored(COMPATIBILITY, 32, |a| a.sgdt(ptr(data))).1, GLOBAL_TABLE, 6),
        (stored(COMPATIBILITY, 32, |a| a.sidt(ptr(data))).1, INTERRUPT_TABLE, 6),
        // With 16-bit operands all of the base, too: SDM vol. 2, SGDT, operation.
        (stored(COMPATIBILITY, 32, |a| a.db(&[0x66]).and_then(|()| a.sgdt(ptr(data)))).1, GLOBAL_TABLE, 6),
    ];
    for (n, (bytes, table, len)) in cases.into_iter().enumerate() {
        assert_eq!((&bytes[..len], &bytes[len..]), (&table[..len], &[0xff; 16][len..]), "{n}");
    }
}

#[test]
fn tables_are_read_back_by_the_instructions_that_load_them() {
    let (cpu, _) = stored(LONG, 64, |a| {
        a.sgdt(ptr(DATA as u32))?;
        a.lidt(ptr(DATA as u32))
    });
    let state = cpu.state();
    assert_eq!((state.idtr.base, state.idtr.limit), (state.gdtr.base, state.gdtr.limit));
}

#[test]
fn sldt_stores_a_word_in_memory_and_fills_registers_as_wide_as_they_are() {
    let (_, bytes) = stored(LONG, 64, |a| a.sldt(word_ptr(DATA as u32)));
    assert_eq!((&bytes[..2], &bytes[2..]), (&LOCAL.to_le_bytes()[..], &[0xff; 14][..]));
    let register = |cpu: Cpu<TestBus>| cpu.state().regs[0];
    assert_eq!(register(stored(LONG, 64, |a| a.sldt(ax)).0), 0xffff_ffff_ffff_0123);
    assert_eq!(register(stored(LONG, 64, |a| a.sldt(eax)).0), 0x123);
    assert_eq!(register(stored(LONG, 64, |a| a.sldt(rax)).0), 0x123);
}

#[test]
fn sldt_is_undefined_where_there_are_no_descriptors() {
    let (mut cpu, mut bus) = machine_with_traps(&[0x0f, 0x00, 0xc0]);
    let mut state = cpu.state();
    state.cr0 &= !0x8000_0001;
    state.efer = 0;
    state.segments[1] = Segment { selector: 0, base: CODE, limit: 0xffff, access: 0x9b };
    state.regs[REG_RIP] = 0;
    state.idtr = TableRegister { base: IDT, limit: 0x3ff };
    cpu.set_state(state);
    // Vector 6 leads to the HLT of a handler.
    bus.poke(IDT + 6 * 4, &[0, 0, 0, 0x18]);
    bus.poke(0x1_8000, &[0xf4]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().segments[1].selector, 0x1800);
}
