//! Translation, rights, accessed and dirty bits, flushes.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, PMEM, STACK, TABLES, Told},
};

/// A page table for the 2 MiB around [`DATA`]'s block, of 4 KiB pages, and where its entry for an address is.
const TABLE: u64 = 0x7000;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const ACCESSED: u64 = 0x20;
const DIRTY: u64 = 0x40;
const GLOBAL: u64 = 0x100;
const NO_EXECUTE: u64 = 1 << 63;

fn entry_of(linear: u64) -> u64 {
    TABLE + (linear >> 12 & 0x1ff) * 8
}

/// Replaces the 2 MiB page at [`DATA`] by 4 KiB pages with the given flags.
fn map_small(bus: &mut TestBus, flags: u64) {
    let base = DATA & !0x1f_ffff;
    for n in 0..512 {
        bus.poke64(TABLE + n * 8, (base + n * 0x1000) | flags);
    }
    bus.poke64(0x3000 + (DATA >> 21) * 8, TABLE | 7);
}

fn load_from(address: u64) -> Vec<u8> {
    assemble(|a| {
        a.mov(rbx, address)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.hlt()
    })
}

fn store_to(address: u64) -> Vec<u8> {
    assemble(|a| {
        a.mov(rbx, address)?;
        a.mov(rax, 0x1122_3344_5566_7788u64)?;
        a.mov(qword_ptr(rbx), rax)?;
        a.hlt()
    })
}

/// Vector 14's error code and CR2, or `None` when nothing was raised.
fn outcome(cpu: &mut Cpu<TestBus>, bus: &mut TestBus) -> Option<(u64, u64)> {
    run_to_halt(cpu, bus);
    if !(HANDLERS..HANDLERS + 0x1000).contains(&cpu.state().rip()) {
        return None;
    }
    assert_eq!(cpu.state().rip(), HANDLERS + 14 * 16 + 1);
    Some((bus.peek64(cpu.state().regs[4]), cpu.state().cr2))
}

fn set(cpu: &mut Cpu<TestBus>, change: impl FnOnce(&mut crate::State)) {
    let mut state = cpu.state();
    change(&mut state);
    cpu.set_state(state);
}

#[test]
fn an_operand_that_ends_outside_of_the_canonical_addresses_is_refused_before_any_page_is_missed() {
    type Access = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let accesses: [Access; 4] = [
        |a| a.mov(eax, dword_ptr(rbx)),
        |a| a.mov(dword_ptr(rbx), eax),
        |a| a.add(dword_ptr(rbx), eax),
        |a| a.lgs(eax, ptr(rbx)),
    ];
    for (address, vector) in [(0x7fff_ffff_fffcu64, 14), (0x7fff_ffff_fffe, 13)] {
        for access in &accesses[..if vector == 14 { 3 } else { 4 }] {
            let code = assemble(|a| {
                a.mov(rbx, address)?;
                access(a)
            });
            let (mut cpu, mut bus) = user_machine(&code);
            assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, vector, "{address:#x}");
        }
    }
}

#[test]
fn loads_set_accessed_and_stores_set_dirty() {
    let (mut cpu, mut bus) = machine_with_traps(&load_from(DATA));
    map_small(&mut bus, PRESENT | WRITABLE);
    assert_eq!(outcome(&mut cpu, &mut bus), None);
    assert_eq!(bus.peek64(entry_of(DATA)) & 0xfff, PRESENT | WRITABLE | ACCESSED);
    assert_eq!(bus.peek64(TABLES) & ACCESSED, ACCESSED);

    let (mut cpu, mut bus) = machine_with_traps(&store_to(DATA));
    map_small(&mut bus, PRESENT | WRITABLE);
    assert_eq!(outcome(&mut cpu, &mut bus), None);
    assert_eq!(bus.peek64(entry_of(DATA)) & 0xfff, PRESENT | WRITABLE | ACCESSED | DIRTY);
    assert_eq!(bus.peek64(0x3000 + (DATA >> 21) * 8) & DIRTY, 0, "only the leaf is dirty");
    assert_eq!(bus.peek64(DATA), 0x1122_3344_5566_7788);
}

#[test]
fn a_store_after_a_load_still_sets_dirty() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(rax, qword_ptr(rbx))?;
        a.mov(qword_ptr(rbx), rax)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    map_small(&mut bus, PRESENT | WRITABLE);
    assert_eq!(outcome(&mut cpu, &mut bus), None);
    assert_ne!(bus.peek64(entry_of(DATA)) & DIRTY, 0);
}

#[test]
fn a_faulting_access_sets_no_bits() {
    let (mut cpu, mut bus) = user_machine(&store_to(DATA));
    map_small(&mut bus, PRESENT | USER);
    assert_eq!(outcome(&mut cpu, &mut bus), Some((0b111, DATA)));
    assert_eq!(bus.peek64(entry_of(DATA)) & 0xfff, PRESENT | USER);
}

#[test]
fn error_codes_tell_what_was_wrong() {
    let cases: [(u64, bool, bool, u64); 8] = [
        // flags, store, user, error code
        (0, false, false, 0b0000),
        (0, true, false, 0b0010),
        (0, false, true, 0b0100),
        (0, true, true, 0b0110),
        (PRESENT | WRITABLE, false, true, 0b0101),
        (PRESENT | USER, true, true, 0b0111),
        (PRESENT | 1 << 50, false, false, 0b1001),
        (PRESENT | 1 << 50, true, true, 0b1111),
    ];
    for (flags, store, user, code) in cases {
        let program = if store { store_to(DATA + 8) } else { load_from(DATA + 8) };
        let (mut cpu, mut bus) = if user { user_machine(&program) } else { machine_with_traps(&program) };
        map_small(&mut bus, flags);
        assert_eq!(outcome(&mut cpu, &mut bus), Some((code, DATA + 8)), "flags {flags:#x}");
    }
}

#[test]
fn supervisor_stores_heed_write_protection_only_with_wp() {
    for (value, expected) in [(0x8001_0033, Some((0b11, DATA))), (0x8000_0033, None)] {
        let (mut cpu, mut bus) = machine_with_traps(&store_to(DATA));
        map_small(&mut bus, PRESENT);
        set(&mut cpu, |state| state.cr0 = value);
        assert_eq!(outcome(&mut cpu, &mut bus), expected);
    }
}

#[test]
fn fetches_heed_no_execute_and_smep() {
    let jump = assemble(|a| {
        a.mov(rax, DATA)?;
        a.jmp(rax)
    });
    const SMEP: u64 = 1 << 20;
    let cases = [
        (PRESENT | NO_EXECUTE, 0, 0xd01, Some(0b1_0001)),
        (PRESENT, 0, 0xd01, None),
        // Without NXE the bit is reserved.
        (PRESENT | NO_EXECUTE, 0, 0x501, Some(0b0_1001)),
        (PRESENT | USER, SMEP, 0xd01, Some(0b1_0001)),
        (PRESENT | USER, 0, 0xd01, None),
        (PRESENT, SMEP, 0xd01, None),
        (0, 0, 0xd01, Some(0b1_0000)),
        (0, 0, 0x501, Some(0)),
    ];
    for (flags, features, efer, code) in cases {
        let (mut cpu, mut bus) = machine_with_traps(&jump);
        bus.poke(DATA, &[0xf4]);
        map_small(&mut bus, flags);
        bus.poke64(0x3000, 0x83); // the kernel itself must not lie in user pages
        set(&mut cpu, |state| {
            state.cr4 |= features;
            state.efer = efer;
        });
        let expected = code.map(|code| (code, DATA));
        assert_eq!(outcome(&mut cpu, &mut bus), expected, "flags {flags:#x} cr4 {features:#x}");
    }
}

#[test]
fn smap_keeps_the_supervisor_off_user_pages_until_ac_is_set() {
    const SMAP: u64 = 1 << 21;
    for (set_ac, expected) in [(false, Some((0b01, DATA))), (true, None)] {
        let code = assemble(|a| {
            a.mov(rbx, DATA)?;
            if set_ac {
                a.stac()?;
            }
            a.mov(rax, qword_ptr(rbx))?;
            a.hlt()
        });
        let (mut cpu, mut bus) = machine_with_traps(&code);
        map_small(&mut bus, PRESENT | WRITABLE | USER);
        // Code, stack and tables must be supervisor pages now.
        for block in [0, CODE, HANDLERS, STACK - 1] {
            let at = 0x3000 + (block >> 21) * 8;
            let entry = bus.peek64(at);
            if block >> 21 != DATA >> 21 {
                bus.poke64(at, entry & !USER);
            }
        }
        set(&mut cpu, |state| state.cr4 |= SMAP);
        assert_eq!(outcome(&mut cpu, &mut bus), expected);
    }
}

#[test]
fn clac_takes_the_right_away_again() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.stac()?;
        a.mov(rax, qword_ptr(rbx))?;
        a.clac()?;
        a.mov(rax, qword_ptr(rbx))?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    map_small(&mut bus, PRESENT | WRITABLE | USER);
    let entry = bus.peek64(0x3000);
    bus.poke64(0x3000, entry & !USER);
    set(&mut cpu, |state| state.cr4 |= 1 << 21);
    assert_eq!(outcome(&mut cpu, &mut bus), Some((1, DATA)));
}

#[test]
fn translations_stay_until_flushed() {
    // Loads, takes the page away, loads again; then INVLPG or CR3, and loads once more.
    for (flags, flush, faults) in [
        (PRESENT, "none", false),
        (PRESENT, "invlpg", true),
        (PRESENT, "cr3", true),
        (PRESENT | GLOBAL, "cr3", false),
        (PRESENT | GLOBAL, "invlpg", true),
        (PRESENT | GLOBAL, "pge", true),
    ] {
        let code = assemble(|a| {
            a.mov(rbx, DATA)?;
            a.mov(rax, qword_ptr(rbx))?;
            a.mov(rcx, entry_of(DATA))?;
            a.mov(qword_ptr(rcx), 0)?;
            a.mov(rax, qword_ptr(rbx))?;
            match flush {
                "invlpg" => a.invlpg(ptr(rbx))?,
                "cr3" => {
                    a.mov(rax, cr3)?;
                    a.mov(cr3, rax)?;
                }
                "pge" => {
                    a.mov(rax, cr4)?;
                    a.xor(rax, 0x80)?;
                    a.mov(cr4, rax)?;
                }
                _ => {}
            }
            a.mov(rax, qword_ptr(rbx))?;
            a.hlt()
        });
        let (mut cpu, mut bus) = machine_with_traps(&code);
        map_small(&mut bus, flags);
        set(&mut cpu, |state| state.cr4 |= 0x80);
        let expected = faults.then_some((0, DATA));
        assert_eq!(outcome(&mut cpu, &mut bus), expected, "{flags:#x} {flush}");
    }
}

#[test]
fn a_way_to_code_is_forgotten_with_the_translation_it_was_found_by() {
    // Calls a function three times, maps another page there, flushes, and calls it three times more.
    for (flush, sum) in [("invlpg", 3 + 3 * 42), ("cr3", 3 + 3 * 42), ("nothing", 6)] {
        let code = assemble(|a| {
            let (mut again, mut skip) = (a.create_label(), a.create_label());
            a.mov(rdi, DATA)?;
            a.mov(rbx, entry_of(DATA))?;
            a.mov(r9, (DATA + 0x1000) | PRESENT)?;
            a.xor(esi, esi)?;
            a.mov(ecx, 6)?;
            a.set_label(&mut again)?;
            a.call(rdi)?;
            a.add(esi, eax)?;
            a.cmp(ecx, 4)?;
            a.jne(skip)?;
            a.mov(qword_ptr(rbx), r9)?;
            match flush {
                "invlpg" => a.invlpg(ptr(rdi))?,
                "cr3" => {
                    a.mov(rax, cr3)?;
                    a.mov(cr3, rax)?;
                }
                _ => {}
            }
            a.set_label(&mut skip)?;
            a.dec(ecx)?;
            a.jnz(again)?;
            a.hlt()
        });
        let (mut cpu, mut bus) = machine_with_traps(&code);
        map_small(&mut bus, PRESENT);
        bus.poke(DATA, &[0xb8, 1, 0, 0, 0, 0xc3]); // mov eax, 1; ret
        bus.poke(DATA + 0x1000, &[0xb8, 42, 0, 0, 0, 0xc3]); // mov eax, 42; ret
        run_to_halt(&mut cpu, &mut bus);
        assert_eq!(cpu.state().regs[6], sum, "{flush}");
    }
}

#[test]
fn set_state_flushes_translations() {
    let (mut cpu, mut bus) = machine_with_traps(&load_from(DATA));
    assert_eq!(outcome(&mut cpu, &mut bus), None);
    map_small(&mut bus, 0);
    set(&mut cpu, |state| {
        state.regs[REG_RIP] = CODE;
        state.halted = false;
    });
    assert_eq!(outcome(&mut cpu, &mut bus), Some((0, DATA)));
}

#[test]
fn a_store_across_pages_that_faults_writes_nothing() {
    let (mut cpu, mut bus) = machine_with_traps(&store_to(DATA + 0xffc));
    map_small(&mut bus, PRESENT | WRITABLE);
    bus.poke64(entry_of(DATA + 0x1000), 0);
    assert_eq!(outcome(&mut cpu, &mut bus), Some((2, DATA + 0x1000)));
    assert_eq!(bus.peek64(DATA + 0xff8), 0);
}

#[test]
fn accesses_across_pages_follow_both_translations() {
    let (mut cpu, mut bus) = machine_with_traps(&store_to(DATA + 0xffc));
    map_small(&mut bus, PRESENT | WRITABLE);
    // The second page lies somewhere else.
    bus.poke64(entry_of(DATA + 0x1000), (DATA + 0x5000) | PRESENT | WRITABLE);
    assert_eq!(outcome(&mut cpu, &mut bus), None);
    assert_eq!(bus.peek::<4>(DATA + 0xffc), [0x88, 0x77, 0x66, 0x55]);
    assert_eq!(bus.peek::<4>(DATA + 0x5000), [0x44, 0x33, 0x22, 0x11]);
}

#[test]
fn large_and_huge_pages_translate() {
    let (mut cpu, mut bus) = machine_with_traps(&load_from((1 << 30) + DATA + 24));
    bus.poke64(0x2008, 0x83); // 1 GiB page at 1 GiB: physical 0
    bus.poke64(DATA + 24, 4711);
    assert_eq!(outcome(&mut cpu, &mut bus), None);
    assert_eq!(cpu.state().regs[0], 4711);
    let (mut cpu, mut bus) = machine_with_traps(&load_from((1 << 30) + DATA));
    bus.poke64(0x2008, 0x83 | 1 << 13); // reserved
    assert_eq!(outcome(&mut cpu, &mut bus), Some((9, (1 << 30) + DATA)));
}

#[test]
fn addresses_that_are_not_canonical_raise_gp_or_ss() {
    let bad = 1 << 47;
    let (mut cpu, mut bus) = machine_with_traps(&load_from(bad));
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 13);
    let by_stack = assemble(|a| {
        a.mov(rbp, bad)?;
        a.mov(rax, qword_ptr(rbp))?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&by_stack);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 12);
    let push = assemble(|a| {
        a.mov(rsp, bad + 64)?;
        a.push(rax)
    });
    let (mut cpu, mut bus) = machine_with_traps(&push);
    bus.poke(IDT + 12 * 16, &gate(12, 1, 0x8e).to_le_bytes());
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rsp), (12, Some(0), bad + 64));
}

#[test]
fn a_page_is_told_dirty_once_until_forgotten() {
    let code = assemble(|a| {
        a.mov(rbx, DATA)?;
        a.mov(qword_ptr(rbx), 1)?;
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)?;
        a.mov(qword_ptr(rbx + 8), 1)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.record_dirtied = true;
    run_to_halt(&mut cpu, &mut bus);
    let count = |bus: &TestBus| bus.told().iter().filter(|told| **told == Told::Dirtied(DATA >> 12)).count();
    assert_eq!(count(&bus), 1);
    cpu.forget_writable();
    set(&mut cpu, |state| {
        state.regs[REG_RIP] = CODE;
        state.halted = false;
    });
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(count(&bus), 2);
}

#[test]
fn page_tables_in_persistent_memory_are_traced() {
    let (mut cpu, mut bus) = machine_with_traps(&load_from(DATA));
    for n in 0..512 {
        bus.poke64(PMEM + n * 8, ((DATA & !0x1f_ffff) + n * 0x1000) | PRESENT | WRITABLE);
    }
    bus.poke64(0x3000 + (DATA >> 21) * 8, PMEM | 7);
    assert_eq!(outcome(&mut cpu, &mut bus), None);
    let entry = PMEM + (DATA >> 12 & 0x1ff) * 8;
    let bytes = (DATA | PRESENT | WRITABLE | ACCESSED).to_le_bytes().to_vec();
    assert_eq!(bus.told(), [Told::Store(entry, bytes, crate::StoreKind::PageWalk)]);
}

#[test]
fn tables_outside_of_memory_map_nothing() {
    let (mut cpu, mut bus) = machine_with_traps(&load_from(DATA));
    set(&mut cpu, |state| state.cr3 = 0x7000_0000);
    assert_eq!(cpu.run(&mut bus, 10), Exit::Shutdown);
}
