//! From real mode to each of the others and back.

use iced_x86::code_asm::*;

use super::*;
use crate::testing::CODE;

const GDT: u64 = 0x8000;
const CODE32: u16 = 0x08;
const DATA32: u16 = 0x10;
const CODE16: u16 = 0x18;
const DATA16: u16 = 0x20;
const CODE64: u16 = 0x28;
/// Descriptor table register images, in DS of real mode: GDT, then the vector table.
const GDTR_IMAGE: u16 = 0x100;

fn machine(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (Cpu<TestBus>, TestBus) {
    let (cpu, mut bus) = real_machine(&assemble(16, 0, program));
    let descriptors = [
        0,
        0x00cf_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        // Based at the real-mode segment, 64 KiB.
        0x0000_9b01_0000_ffff,
        0x0000_9302_0000_ffff,
        0x00af_9b00_0000_ffff,
    ];
    for (n, raw) in descriptors.into_iter().enumerate() {
        bus.poke64(GDT + n as u64 * 8, raw);
    }
    let image = 0x2_0000 + u64::from(GDTR_IMAGE);
    bus.poke(image, &0x2fu16.to_le_bytes());
    bus.poke(image + 2, &(GDT as u32).to_le_bytes());
    (cpu, bus)
}

/// Loads GDTR and switches protection on.
fn protect(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.db(&[0x66, 0x0f, 0x01, 0x16])?; // lgdtd [GDTR_IMAGE]
    a.db(&GDTR_IMAGE.to_le_bytes())?;
    a.mov(eax, cr0)?;
    a.or(al, 1)?;
    a.mov(cr0, eax)
}

/// JMP selector:offset with a 32-bit offset, from 16-bit code.
fn jump(a: &mut CodeAssembler, selector: u16, offset: u32) -> Result<(), IcedError> {
    a.db(&[0x66, 0xea])?;
    a.db(&offset.to_le_bytes())?;
    a.db(&selector.to_le_bytes())
}

#[test]
fn to_32_bit_protected_mode_and_back() {
    let (mut cpu, mut bus) = machine(|a| {
        protect(a)?;
        jump(a, CODE32, CODE as u32)
    });
    bus.poke(
        CODE,
        &assemble(32, CODE, |a| {
            a.mov(cx, u32::from(DATA32))?;
            a.mov(ds, cx)?;
            a.mov(ss, cx)?;
            a.mov(esp, 0x20_0000)?;
            a.mov(dword_ptr(0x30_0000), 0x1234_5678u32)?;
            a.push(0x55)?;
            // And back, by way of 16-bit protected mode.
            a.mov(bx, u32::from(DATA16))?;
            a.mov(ds, bx)?;
            a.mov(ss, bx)?;
            a.db(&[0xea])?;
            a.dd(&[0x400])?;
            a.dw(&[CODE16])
        }),
    );
    bus.poke(
        REAL_CODE + 0x400,
        &assemble(16, 0x400, |a| {
            a.mov(eax, cr0)?;
            a.and(al, 0xfeu32)?;
            a.mov(cr0, eax)?;
            // Far, to real mode.
            a.db(&[0xea, 0x00, 0x05])?;
            a.dw(&[REAL_SEGMENT])
        }),
    );
    bus.poke(
        REAL_CODE + 0x500,
        &assemble(16, 0x500, |a| {
            a.xor(ax, ax)?;
            a.mov(ss, ax)?;
            a.mov(sp, 0x7000)?;
            a.mov(ax, 0x3000)?;
            a.mov(ds, ax)?;
            a.mov(word_ptr(0), 0xabcd)?;
            a.hlt()
        }),
    );
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.cr0 & 1, state.rip()), (0, 0x513));
    assert_eq!(state.segments[1].base, REAL_CODE);
    assert_eq!(bus.peek::<4>(0x30_0000), [0x78, 0x56, 0x34, 0x12]);
    assert_eq!(bus.peek::<4>(0x1f_fffc), [0x55, 0, 0, 0]);
    assert_eq!(bus.peek::<2>(0x3_0000), [0xcd, 0xab]);
}

#[test]
fn from_any_real_mode_selector_protection_begins_at_privilege_0() {
    let (mut cpu, mut bus) = machine(|a| {
        protect(a)?;
        jump(a, CODE32, CODE as u32)
    });
    bus.poke(CODE, &[0xf4]);
    let mut state = cpu.state();
    // The same bytes by another name: 0x0ff3:0xd0.
    state.segments[1].selector = 0x0ff3;
    state.segments[1].base = 0xff30;
    state.regs[REG_RIP] = 0xd0;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().rip(), CODE + 1);
}

#[test]
fn to_long_mode_as_linux_starts_processors() {
    let (mut cpu, mut bus) = machine(|a| {
        protect(a)?;
        jump(a, CODE32, CODE as u32)
    });
    let tables = crate::testing::TABLES;
    bus.poke64(tables, 0x2003);
    bus.poke64(0x2000, 0x3003);
    bus.poke64(0x3000, 0x83);
    bus.poke(
        CODE,
        &assemble(32, CODE, |a| {
            a.mov(eax, 0x620)?;
            a.mov(cr4, eax)?;
            a.mov(eax, tables as u32)?;
            a.mov(cr3, eax)?;
            a.mov(ecx, 0xc000_0080u32)?;
            a.rdmsr()?;
            a.or(eax, 0x100)?;
            a.wrmsr()?;
            a.mov(eax, cr0)?;
            a.or(eax, 0x8000_0000u32)?;
            a.mov(cr0, eax)?;
            // Compatibility mode until the far jump.
            a.mov(ebx, 0x77)?;
            a.db(&[0xea])?;
            a.dd(&[CODE as u32 + 0x100])?;
            a.dw(&[CODE64])
        }),
    );
    bus.poke(
        CODE + 0x100,
        &assemble(64, CODE + 0x100, |a| {
            a.mov(rdx, 0x1234_5678_9abc_def0u64)?;
            a.hlt()
        }),
    );
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[BX], state.regs[DX]), (0x77, 0x1234_5678_9abc_def0));
    assert_eq!(state.efer & 0x500, 0x500);
}
