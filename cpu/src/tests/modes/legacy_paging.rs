//! 32-bit paging and PAE paging.

use iced_x86::code_asm::*;

use super::{
    protected::{machine, run_to_handler},
    *,
};
use crate::testing::{CODE, DATA, RAM};

const DIRECTORY: u64 = 0x4_0000;
const TABLE: u64 = 0x4_1000;
const POINTERS: u64 = 0x4_2020;
const OTHER_DIRECTORY: u64 = 0x4_3000;
const PE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const PAGED: u64 = 0x8001_0033;
/// A linear address that only the tables of a test map.
const LINEAR: u64 = 0x4000_0000;

fn poke32(bus: &mut TestBus, at: u64, value: u64) {
    bus.poke(at, &(value as u32).to_le_bytes());
}

fn peek32(bus: &mut TestBus, at: u64) -> u32 {
    u32::from_le_bytes(bus.peek(at))
}

/// Maps the first 4 MiB to themselves by a large page, and `LINEAR` to `DATA` by a table, both writable.
fn machine_with_32_bit_paging(
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = machine(program);
    poke32(&mut bus, DIRECTORY, 0x83);
    poke32(&mut bus, DIRECTORY + (LINEAR >> 22) * 4, TABLE | 3);
    poke32(&mut bus, TABLE, DATA | 3);
    poke32(&mut bus, TABLE + 4, (DATA + 0x1000) | 1);
    let mut state = cpu.state();
    state.cr0 = PAGED;
    state.cr3 = DIRECTORY;
    state.cr4 |= PE;
    cpu.set_state(state);
    (cpu, bus)
}

#[test]
fn two_levels_translate_and_mark_what_they_used() {
    let (mut cpu, mut bus) = machine_with_32_bit_paging(|a| {
        a.mov(eax, dword_ptr(LINEAR as u32 + 8))?;
        a.hlt()
    });
    bus.poke(DATA + 8, &[1, 2, 3, 4]);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[AX], 0x0403_0201);
    let directory_at = DIRECTORY + (LINEAR >> 22) * 4;
    assert_eq!(
        (peek32(&mut bus, directory_at), peek32(&mut bus, TABLE)),
        (TABLE as u32 | 0x23, DATA as u32 | 0x23)
    );
    assert_eq!(peek32(&mut bus, TABLE + 4) & 0x60, 0, "its neighbour was not used");
    assert_eq!(peek32(&mut bus, DIRECTORY), 0xa3, "the large page was fetched from");
}

#[test]
fn a_store_sets_the_dirty_bit_and_needs_the_right_to_write() {
    let (mut cpu, mut bus) = machine_with_32_bit_paging(|a| {
        a.mov(dword_ptr(LINEAR as u32), 7)?;
        a.mov(dword_ptr(LINEAR as u32 + 0x1000), 7)
    });
    let (vector, frame) = run_to_handler::<2>(&mut cpu, &mut bus);
    assert_eq!((vector, frame), (14, [3, CODE as u32 + 10]));
    assert_eq!(cpu.state().cr2, LINEAR + 0x1000);
    assert_eq!((bus.peek::<1>(DATA), bus.peek::<1>(DATA + 0x1000)), ([7], [0]));
    assert_eq!(peek32(&mut bus, TABLE) & 0x60, 0x60);
}

#[test]
fn large_pages_reach_above_4_gib_and_their_reserved_bit_faults() {
    for (entry, fault) in [(0x0000_2083, false), (0x0020_0083, true)] {
        let (mut cpu, mut bus) = machine_with_32_bit_paging(|a| {
            a.mov(eax, dword_ptr(LINEAR as u32 + 0x12_3458))?;
            a.hlt()
        });
        bus.device_value = 0x77;
        poke32(&mut bus, DIRECTORY + (LINEAR >> 22) * 4, entry);
        if fault {
            let (vector, frame) = run_to_handler::<1>(&mut cpu, &mut bus);
            assert_eq!((vector, frame), (14, [9]));
        } else {
            run_to_halt(&mut cpu, &mut bus);
            let read = crate::testing::Told::MmioRead(0x1_0012_3458, 4);
            assert_eq!(bus.told(), [read]);
        }
    }
}

#[test]
fn without_pse_the_size_bit_means_nothing() {
    let (mut cpu, mut bus) = machine_with_32_bit_paging(|a| {
        a.mov(eax, dword_ptr(LINEAR as u32))?;
        a.hlt()
    });
    // The code's own page must then have a table, too.
    poke32(&mut bus, DIRECTORY, OTHER_DIRECTORY | 3);
    for page in 0..1024 {
        poke32(&mut bus, OTHER_DIRECTORY + page * 4, page << 12 | 3);
    }
    poke32(&mut bus, DIRECTORY + (LINEAR >> 22) * 4, TABLE | 0x83);
    bus.poke(DATA, &[9]);
    let mut state = cpu.state();
    state.cr4 &= !PE;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(cpu.state().regs[AX], 9);
}

/// The first 2 MiB to themselves, `LINEAR` by its own directory to `DATA`; paging is off until the program sets CR0.
fn machine_with_pae_tables(
    program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> (Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = machine(|a| {
        a.mov(eax, PAGED as u32)?;
        a.mov(cr0, eax)?;
        program(a)
    });
    bus.poke64(POINTERS, OTHER_DIRECTORY | 1);
    bus.poke64(POINTERS + 8, DIRECTORY | 1);
    bus.poke64(OTHER_DIRECTORY, 0x83);
    bus.poke64(DIRECTORY, TABLE | 3);
    bus.poke64(TABLE, DATA | 3);
    let mut state = cpu.state();
    state.cr3 = POINTERS;
    state.cr4 |= PAE;
    cpu.set_state(state);
    (cpu, bus)
}

#[test]
fn pae_paging_keeps_its_first_level_until_cr3_is_loaded() {
    let (mut cpu, mut bus) = machine_with_pae_tables(|a| {
        a.mov(dword_ptr(POINTERS as u32 + 8), 0)?;
        a.mov(ebx, dword_ptr(LINEAR as u32))?; // still mapped
        a.mov(eax, cr3)?;
        a.mov(cr3, eax)?;
        a.mov(ecx, dword_ptr(LINEAR as u32))
    });
    bus.poke(DATA, &[5]);
    let (vector, frame) = run_to_handler::<1>(&mut cpu, &mut bus);
    assert_eq!((vector, frame, cpu.state().cr2), (14, [0], LINEAR));
    assert_eq!(cpu.state().regs[BX], 5);
    assert_eq!((bus.peek64(DIRECTORY), bus.peek64(TABLE)), (TABLE | 0x23, DATA | 0x23));
}

#[test]
fn reserved_bits_in_the_first_level_refuse_the_load() {
    for (entry, refused) in [(OTHER_DIRECTORY | 3, true), (OTHER_DIRECTORY, false), (1 << 63 | 1, true)] {
        let (mut cpu, mut bus) = machine_with_pae_tables(|a| a.hlt());
        bus.poke64(POINTERS + 24, entry);
        if refused {
            let (vector, frame) = run_to_handler::<2>(&mut cpu, &mut bus);
            assert_eq!((vector, frame), (13, [0, CODE as u32 + 5]), "{entry:#x}");
            assert_eq!(cpu.state().cr0 >> 31, 0);
        } else {
            run_to_halt(&mut cpu, &mut bus);
        }
    }
}

#[test]
fn pae_entries_have_no_bits_for_software_at_their_top() {
    let (mut cpu, mut bus) = machine_with_pae_tables(|a| a.mov(ecx, dword_ptr(LINEAR as u32)));
    bus.poke64(TABLE, DATA | 3 | 1 << 52);
    let (vector, frame) = run_to_handler::<1>(&mut cpu, &mut bus);
    assert_eq!((vector, frame), (14, [9]));
    const { assert!(DATA < RAM) };
}
