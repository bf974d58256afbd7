//! Rights of pages of every size, reserved bits, what a walk marks, what INVLPG and CR4.PGE drop.

use iced_x86::code_asm::*;

use super::*;
use crate::testing::{DATA, TABLES};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 0x20;
const DIRTY: u64 = 0x40;
const LARGE: u64 = 0x80;
const GLOBAL: u64 = 0x100;
const NO_EXECUTE: u64 = 1 << 63;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const WP: u64 = 1 << 16;
const AC: u64 = 1 << 18;

/// Linear address of the page under test: 8 TiB, far from everything else.
const PLACE: u64 = 0x800_0000_0000;
/// Tables of [`PLACE`]: PDPT, PD, PT.
const OWN: [u64; 3] = [0xd000, 0xe000, 0xf000];

/// Maps the page around [`DATA`] of 4 KiB, 2 MiB or 1 GiB (level 3, 2, 1 below the root) at [`PLACE`], with these flags in
/// each entry from the root on.
fn map(bus: &mut TestBus, level: usize, flags: [u64; 4]) -> [u64; 4] {
    let places = [TABLES + (PLACE >> 39) * 8, OWN[0], OWN[1], OWN[2]];
    for depth in 0..=level {
        let next = match (depth == level, level) {
            (false, _) => OWN[depth],
            (true, 1) => LARGE,
            (true, 2) => DATA & !0x1f_ffff | LARGE,
            _ => DATA,
        };
        bus.poke64(places[depth], next | flags[depth]);
    }
    places
}

/// Where DATA is seen through a page of that level.
fn seen(level: usize) -> u64 {
    match level {
        1 => PLACE + DATA,
        2 => PLACE + (DATA & 0x1f_ffff),
        _ => PLACE,
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Try {
    Read,
    Write,
    Fetch,
}

/// The page fault's error code, or `None`.
fn attempt(
    access: Try,
    user: bool,
    level: usize,
    flags: [u64; 4],
    change: impl FnOnce(&mut crate::State),
) -> Option<u64> {
    let code = assemble(|a| {
        a.mov(rbx, seen(level))?;
        match access {
            Try::Read => a.mov(al, byte_ptr(rbx))?,
            Try::Write => a.mov(byte_ptr(rbx), al)?,
            Try::Fetch => a.jmp(rbx)?,
        }
        a.int3()
    });
    let (mut cpu, mut bus) = if user { user_machine(&code) } else { machine_with_traps(&code) };
    bus.poke(IDT + 48, &gate(3, 0, 0xee).to_le_bytes());
    if access == Try::Fetch {
        bus.poke(DATA, &[0xcc]);
    }
    let places = map(&mut bus, level, flags);
    if !user {
        // With SMEP and SMAP the kernel must not live in user pages.
        bus.poke64(0x3000, 0x83);
        bus.poke64(TABLES, 0x2000 | 3);
    }
    let before = places.map(|at| bus.peek64(at));
    let mut state = cpu.state();
    change(&mut state);
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    let after = places.map(|at| bus.peek64(at));
    let vector = (cpu.state().rip() - 1 - HANDLERS) / 16;
    match vector {
        3 => {
            for depth in 0..=level {
                let dirty = if depth == level && access == Try::Write { DIRTY } else { 0 };
                assert_eq!(after[depth], before[depth] | ACCESSED | dirty, "entry {depth}");
            }
            None
        }
        14 => {
            assert_eq!((after, cpu.state().cr2), (before, seen(level)), "a walk that faults marks nothing");
            Some(bus.peek64(cpu.state().regs[4]))
        }
        _ => panic!("vector {vector}"),
    }
}

#[test]
fn every_level_can_take_every_right_away() {
    let all = PRESENT | WRITABLE | USER;
    for level in 1..=3 {
        for taking in 0..=level {
            for access in [Try::Read, Try::Write, Try::Fetch] {
                for user in [false, true] {
                    for taken in [0, PRESENT, WRITABLE, USER, NO_EXECUTE] {
                        let mut flags = [all; 4];
                        flags[taking] ^= taken;
                        let denied = match taken {
                            WRITABLE => access == Try::Write,
                            USER => user,
                            NO_EXECUTE => access == Try::Fetch,
                            _ => taken == PRESENT,
                        };
                        let code = (taken != PRESENT) as u64
                            | ((access == Try::Write) as u64) << 1
                            | (user as u64) << 2
                            | ((access == Try::Fetch) as u64) << 4;
                        let result = attempt(access, user, level, flags, |_| {});
                        let what = format!("{access:?} user {user} level {level} {taken:#x} at {taking}");
                        assert_eq!(result, denied.then_some(code), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_supervisor_heeds_wp_smep_and_smap() {
    let user_page = [PRESENT | WRITABLE | USER; 4];
    // User only where every level says so.
    let mut system_page = user_page;
    system_page[1] &= !USER;
    let mut read_only = system_page;
    read_only[0] &= !WRITABLE;
    for (name, access, flags, wp, features, rflags, expected) in [
        ("WP", Try::Write, read_only, WP, 0, 0, Some(0b11)),
        ("no WP", Try::Write, read_only, 0, 0, 0, None),
        ("no WP, user page", Try::Write, [PRESENT | USER; 4], 0, 0, 0, None),
        ("SMEP", Try::Fetch, user_page, WP, SMEP, 0, Some(0b1_0001)),
        ("SMEP, system page", Try::Fetch, system_page, WP, SMEP, 0, None),
        ("SMEP does not stop reading", Try::Read, user_page, WP, SMEP, 0, None),
        ("SMAP read", Try::Read, user_page, WP, SMAP, 0, Some(0b01)),
        ("SMAP write", Try::Write, user_page, WP, SMAP, 0, Some(0b11)),
        ("SMAP without WP", Try::Write, user_page, 0, SMAP, 0, Some(0b11)),
        ("SMAP with AC", Try::Write, user_page, WP, SMAP, AC, None),
        ("SMAP does not stop fetching", Try::Fetch, user_page, WP, SMAP, 0, None),
        ("SMAP, system page", Try::Write, system_page, WP, SMAP, 0, None),
    ] {
        for level in 1..=3 {
            let result = attempt(access, false, level, flags, |state| {
                state.cr0 = state.cr0 & !WP | wp;
                state.cr4 |= features;
                state.rflags |= rflags;
            });
            assert_eq!(result, expected, "{name}, level {level}");
        }
    }
}

#[test]
fn reserved_bits_of_every_level_are_told() {
    let all = PRESENT | WRITABLE | USER;
    for level in 1..=3 {
        for depth in 0..=level {
            let leaf = depth == level;
            let bits: Vec<u32> = match (leaf, depth) {
                (_, 0) => vec![7, 46, 51],
                (true, 1) => vec![13, 29, 46, 51],
                (true, 2) => vec![13, 20, 46, 51],
                _ => vec![46, 51],
            };
            for bit in bits {
                let mut flags = [all; 4];
                flags[depth] |= 1 << bit;
                let result = attempt(Try::Read, true, level, flags, |_| {});
                assert_eq!(result, Some(0b1101), "level {level} depth {depth} bit {bit}");
                // Reserved comes before rights, not before presence.
                flags[depth] &= !PRESENT;
                assert_eq!(attempt(Try::Read, true, level, flags, |_| {}), Some(0b0100));
            }
            // Bits that software may use.
            let mut flags = [all; 4];
            flags[depth] |= 0x7 << 9 | 0x7f << 52;
            assert_eq!(attempt(Try::Read, true, level, flags, |_| {}), None);
        }
    }
}

/// Loads through [`PLACE`], takes its leaf away, does what `flush` does, loads again. True if the second load faults.
fn forgotten(
    level: usize,
    flags: u64,
    flush: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> bool {
    let leaf = [TABLES, OWN[0], OWN[1], OWN[2]][level];
    let code = assemble(|a| {
        a.mov(rbx, seen(level))?;
        a.mov(al, byte_ptr(rbx))?;
        a.mov(ecx, leaf as u32)?;
        a.mov(qword_ptr(rcx), 0)?;
        flush(a)?;
        a.mov(al, byte_ptr(rbx))?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    let mut all = [PRESENT | WRITABLE; 4];
    all[level] |= flags;
    map(&mut bus, level, all);
    let mut state = cpu.state();
    state.cr4 |= 0x80;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    cpu.state().rip() > HANDLERS
}

#[test]
fn translations_of_every_page_size_are_dropped_by_what_drops_them() {
    for level in 1..=3 {
        for global in [0, GLOBAL] {
            assert!(!forgotten(level, global, |_| Ok(())), "level {level}: nothing dropped it");
            assert!(forgotten(level, global, |a| a.invlpg(byte_ptr(rbx))), "level {level}: INVLPG");
            // Any address of the 4 KiB will do.
            assert!(
                forgotten(level, global, |a| a.invlpg(byte_ptr(rbx + 0x7ff))),
                "level {level}: INVLPG inside"
            );
            let by_cr3 = forgotten(level, global, |a| {
                a.mov(rdx, cr3)?;
                a.mov(cr3, rdx)
            });
            assert_eq!(by_cr3, global == 0, "level {level}: CR3");
            let by_pge = forgotten(level, global, |a| {
                a.mov(rdx, cr4)?;
                a.btr(edx, 7)?;
                a.mov(cr4, rdx)?;
                a.bts(edx, 7)?;
                a.mov(cr4, rdx)
            });
            assert!(by_pge, "level {level}: CR4.PGE");
        }
    }
}

#[test]
fn invlpg_with_another_address_of_a_large_page_drops_all_of_it() {
    // SDM vol. 3, 4.10.4.1: all translations of the page, whatever its size.
    for level in 1..=2 {
        let other = if level == 1 { PLACE + (1 << 30) - 0x1000 } else { PLACE + (2 << 20) - 0x1000 };
        let dropped = forgotten(level, 0, |a| {
            a.mov(rdx, other)?;
            a.invlpg(byte_ptr(rdx))
        });
        assert!(dropped, "level {level}");
    }
}

#[test]
fn global_means_nothing_without_pge_or_above_the_leaf() {
    let by_cr3 = |a: &mut CodeAssembler| {
        a.mov(rdx, cr3)?;
        a.mov(cr3, rdx)
    };
    let code = assemble(|a| {
        a.mov(rbx, PLACE)?;
        a.mov(al, byte_ptr(rbx))?;
        a.mov(ecx, OWN[2] as u32)?;
        a.mov(qword_ptr(rcx), 0)?;
        by_cr3(a)?;
        a.mov(al, byte_ptr(rbx))?;
        a.hlt()
    });
    for (pge, flags) in [(0, [0, 0, 0, GLOBAL]), (0x80, [0, GLOBAL, GLOBAL, 0])] {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        map(&mut bus, 3, flags.map(|it| it | PRESENT | WRITABLE));
        let mut state = cpu.state();
        state.cr4 |= pge;
        cpu.set_state(state);
        assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 14);
    }
}

#[test]
fn a_store_across_pages_that_faults_on_the_second_still_marks_only_what_was_allowed() {
    let code = assemble(|a| {
        a.mov(rbx, PLACE + 0xffc)?;
        a.mov(qword_ptr(rbx), rax)
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    map(&mut bus, 3, [PRESENT | WRITABLE; 4]);
    bus.poke64(OWN[2] + 8, DATA | PRESENT);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, cpu.state().cr2), (14, Some(3), PLACE + 0x1000));
    assert_eq!(bus.peek64(OWN[2] + 8), DATA | PRESENT, "neither accessed nor dirty");
    assert_eq!(bus.peek64(DATA + 0xff8), 0, "nothing is written");
}

#[test]
fn a_fault_reported_once_is_looked_up_again() {
    // The handler maps the page and returns: no translation of the fault may stay.
    let code = assemble(|a| {
        a.mov(rbx, PLACE)?;
        a.mov(qword_ptr(rbx), rbx)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    map(&mut bus, 3, [PRESENT | WRITABLE, PRESENT | WRITABLE, PRESENT | WRITABLE, 0]);
    let at = HANDLERS + 14 * 16;
    let handler = assemble_at(at, |a| {
        a.or(dword_ptr(OWN[2]), 3)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    bus.poke(at, &handler);
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!((cpu.state().rip(), bus.peek64(DATA)), (CODE + code.len() as u64, PLACE));
}
