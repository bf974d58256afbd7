//! CPUID, MSRs, control registers, ports, descriptor tables.

use iced_x86::code_asm::*;

use super::*;
use crate::{
    Exit,
    testing::{DATA, Told},
};

fn run(program: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> (crate::State, TestBus) {
    let code = assemble(|a| {
        program(a)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.msrs.push((0x1b, 0xfee0_0900));
    run_to_halt(&mut cpu, &mut bus);
    (cpu.state(), bus)
}

fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let (state, _) = run(|a| {
        a.mov(eax, leaf)?;
        a.mov(ecx, subleaf)?;
        a.cpuid()
    });
    [0, 3, 1, 2].map(|register: usize| state.regs[register] as u32)
}

#[test]
fn cpuid_says_who_and_how_fast() {
    let [last, b, c, d] = cpuid(0, 0);
    assert_eq!(last, 0x16);
    assert_eq!([b, d, c].map(u32::to_le_bytes).concat(), b"GenuineIntel");
    let [denominator, numerator, crystal, _] = cpuid(0x15, 0);
    assert_eq!(u64::from(crystal) * u64::from(numerator) / u64::from(denominator), 1_000_000_000);
    assert_eq!(cpuid(0x16, 0)[0], 1000);
    assert_eq!(cpuid(0x8000_0008, 0)[0], 48 << 8 | 46);
}

#[test]
fn cpuid_does_not_offer_what_is_not_there() {
    let [_, _, c, d] = cpuid(1, 0);
    // MONITOR, PCID, x2APIC, XSAVE, OSXSAVE, AVX, F16C, hypervisor; MCE
    assert_eq!(c & (1 << 3 | 1 << 17 | 1 << 21 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31), 0);
    assert_eq!(d & 1 << 7, 0);
    let offered = assemble(|a| {
        a.xor(ecx, ecx)?;
        a.xgetbv()
    });
    let (mut cpu, mut bus) = machine_with_traps(&offered);
    assert_eq!(run_to_handler(&mut cpu, &mut bus).vector, 6);
}

#[test]
fn every_offered_bit_of_cr4_can_be_set_and_no_other() {
    let (mut cpu, mut bus) = machine_with_traps(&assemble(|a| {
        a.mov(cr4, rax)?;
        a.hlt()
    }));
    // With SMEP and SMAP the kernel must not lie in user pages.
    bus.poke64(0x3000, 0x83);
    for bit in 0..64 {
        let mut state = cpu.state();
        state.regs[REG_RIP] = CODE;
        state.regs[0] = 0x620 | 1 << bit;
        state.cr4 = 0x620;
        state.halted = false;
        cpu.set_state(state);
        run_to_halt(&mut cpu, &mut bus);
        let accepted = cpu.state().rip() < HANDLERS;
        let known = matches!(bit, 2..=10 | 16 | 20 | 21);
        assert_eq!(accepted, known, "bit {bit}");
    }
}

#[test]
fn unknown_registers_raise_gp_and_others_go_to_the_bus() {
    let (mut cpu, mut bus) = machine_with_traps(&assemble(|a| {
        a.mov(ecx, 0x1234)?;
        a.rdmsr()
    }));
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.code, frame.rip), (13, Some(0), CODE + 5));
    let (state, _) = run(|a| {
        a.mov(ecx, 0x1b)?;
        a.rdmsr()
    });
    assert_eq!((state.regs[0], state.regs[2]), (0xfee0_0900, 0));
}

#[test]
fn kept_registers_keep() {
    let (state, _) = run(|a| {
        a.mov(ecx, 0x200)?;
        a.mov(eax, 6)?;
        a.mov(edx, 1)?;
        a.wrmsr()?;
        a.xor(eax, eax)?;
        a.xor(edx, edx)?;
        a.rdmsr()
    });
    assert_eq!((state.regs[0], state.regs[2], &state.kept_msrs[..]), (6, 1, &[(0x200, 1 << 32 | 6)][..]));
}

#[test]
fn writing_the_tsc_moves_it() {
    let (state, _) = run(|a| {
        a.mov(ecx, 0x10)?;
        a.mov(eax, 1000)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.rdtsc()
    });
    assert_eq!(state.regs[0], 1001);
}

#[test]
fn random_numbers_follow_the_seed() {
    let code = assemble(|a| {
        a.rdrand(rax)?;
        a.rdrand(ebx)?;
        a.setc(cl)?;
        a.hlt()
    });
    let results = [1, 1, 2].map(|seed| {
        let (mut cpu, mut bus) = machine_with_traps(&code);
        let mut state = cpu.state();
        state.random = seed;
        cpu.set_state(state);
        run_to_halt(&mut cpu, &mut bus);
        cpu.state().regs
    });
    assert_eq!(results[0], results[1]);
    assert_ne!(results[0][0], results[2][0]);
    assert_eq!((results[0][3] >> 32, results[0][1]), (0, 1));
}

#[test]
fn user_mode_may_not() {
    type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let programs: [Program; 10] = [
        |a| a.hlt(),
        |a| a.cli(),
        |a| a.sti(),
        |a| a.mov(rax, cr3),
        |a| a.wrmsr(),
        |a| a.invlpg(ptr(rax)),
        |a| a.wbinvd(),
        |a| a.in_(al, 0x80),
        |a| a.lgdt(ptr(rsp)),
        |a| a.swapgs(),
    ];
    for (n, program) in programs.into_iter().enumerate() {
        let (mut cpu, mut bus) = user_machine(&assemble(program));
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, frame.code, frame.rip), (13, Some(0), CODE), "program {n}");
    }
}

#[test]
fn the_bitmap_of_the_tss_opens_ports() {
    let code = assemble(|a| {
        a.in_(al, 0x80)?;
        a.in_(al, 0x81)
    });
    let (mut cpu, mut bus) = user_machine(&code);
    bus.poke(TSS + 0x66, &0x68u16.to_le_bytes());
    bus.poke(TSS + 0x68, &[0xff; 0x20]);
    bus.poke(TSS + 0x68 + 0x10, &[0b10]);
    let mut state = cpu.state();
    state.tr.limit = 0x68 + 0x20;
    cpu.set_state(state);
    let frame = run_to_handler(&mut cpu, &mut bus);
    assert_eq!((frame.vector, frame.rip), (13, CODE + 2));
    assert_eq!(bus.told(), [Told::PortRead(0x80, 1)]);
}

#[test]
fn ports_and_devices_give_values_of_their_size() {
    let code = assemble(|a| {
        a.mov(rax, u64::MAX)?;
        a.in_(al, 0x10)?;
        a.mov(rbx, rax)?;
        a.in_(eax, 0x10)?;
        a.mov(rdi, 0xf000_0000u64)?;
        a.mov(rcx, qword_ptr(rdi))?;
        a.mov(word_ptr(rdi + 2), ax)?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.device_value = 0x1122_3344_5566_7788;
    run_to_halt(&mut cpu, &mut bus);
    let regs = cpu.state().regs;
    assert_eq!((regs[3], regs[0], regs[1]), (0xffff_ffff_ffff_ff88, 0x5566_7788, 0x1122_3344_5566_7788));
    assert_eq!(bus.told().last(), Some(&Told::MmioWrite(0xf000_0002, 2, 0x7788)));
}

#[test]
fn port_strings_go_one_by_one() {
    let code = assemble(|a| {
        a.mov(edi, DATA as u32)?;
        a.mov(ecx, 3)?;
        a.mov(edx, 0x60)?;
        a.rep().insd()?;
        a.hlt()
    });
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.device_value = 0xaabb_ccdd;
    run_to_halt(&mut cpu, &mut bus);
    assert_eq!(bus.told(), vec![Told::PortRead(0x60, 4); 3]);
    assert_eq!((bus.peek64(DATA + 4), cpu.state().regs[7]), (0xaabb_ccdd_aabb_ccdd, DATA + 12));
    assert_eq!(cpu.state().retired, 3 + 3 + 1);
}

#[test]
fn far_returns_and_jumps_change_the_code_segment() {
    let (state, _) = run(|a| {
        let mut next = a.create_label();
        a.push(i32::from(KERNEL_CODE))?;
        a.lea(rax, ptr(next))?;
        a.push(rax)?;
        a.retf()?;
        a.ud2()?;
        a.set_label(&mut next)?;
        a.mov(ebx, 1)
    });
    assert_eq!((state.regs[3], state.segments[1].selector), (1, KERNEL_CODE));
}

#[test]
fn the_way_from_protected_to_long_mode_works() {
    // As Linux's PVH entry goes it: 32-bit code without paging, PAE, EFER.LME, CR0.PG, far jump.
    let mut a = CodeAssembler::new(32).unwrap();
    a.mov(eax, 0x20).unwrap();
    a.mov(cr4, eax).unwrap();
    a.mov(ecx, 0xc000_0080u32).unwrap();
    a.rdmsr().unwrap();
    a.bts(eax, 8).unwrap();
    a.wrmsr().unwrap();
    a.mov(eax, crate::testing::TABLES as u32).unwrap();
    a.mov(cr3, eax).unwrap();
    a.mov(eax, 0x8000_0001u32).unwrap();
    a.mov(cr0, eax).unwrap();
    a.jmp_far(KERNEL_CODE, DATA as u32).unwrap();
    let code = a.assemble(CODE).unwrap();
    let (mut cpu, mut bus) = machine_with_traps(&code);
    bus.poke(
        DATA,
        &assemble_at(DATA, |a| {
            a.mov(rbx, u64::MAX)?;
            a.hlt()
        }),
    );
    let mut state = cpu.state();
    state.cr0 = 0x11;
    state.cr4 = 0;
    state.efer = 0;
    state.segments[1].access = 0xc09b;
    state.segments[1].selector = 8;
    cpu.set_state(state);
    run_to_halt(&mut cpu, &mut bus);
    let state = cpu.state();
    assert_eq!((state.regs[3], state.efer, state.segments[1].selector), (u64::MAX, 0x500, KERNEL_CODE));
}

#[test]
fn a_processor_out_of_reset_fetches_at_the_reset_vector() {
    let mut cpu = Cpu::new(1, 0);
    let exit = cpu.run(&mut TestBus::new(), 1);
    assert_eq!(exit, Exit::Unsupported { rip: 0xffff_fff0, what: "execution from device memory" });
}

#[test]
fn task_registers_load_and_mark_busy() {
    let (state, mut bus) = run(|a| {
        a.mov(eax, 0x38)?;
        a.ltr(ax)?;
        a.str(ebx)?;
        a.lar(ecx, eax)?;
        a.lsl(edx, eax)
    });
    assert_eq!((state.tr.base, state.tr.limit, state.regs[3]), (TSS, 0x67, 0x38));
    assert_eq!((state.regs[1], state.regs[2]), (0x8b00, 0x67));
    assert_eq!(bus.peek::<1>(GDT + 0x38 + 5), [0x8b]);
}

#[test]
fn hints_do_nothing() {
    let hints: [&[u8]; 14] = [
        b"\x0f\x0d\x00",               // PREFETCH
        b"\x0f\x0d\x08",               // PREFETCHW
        b"\x0f\x0d\x10",               // PREFETCHWT1
        b"\x0f\x18\x08",               // PREFETCHT0
        b"\x0f\x18\x20",               // reserved
        b"\x0f\x19\xc0",               // reserved
        b"\x0f\x1a\xc0",               // MPX elsewhere
        b"\x0f\x1b\xc0",               // MPX elsewhere
        b"\x0f\x1c\x00",               // CLDEMOTE elsewhere
        b"\xf3\x0f\x1e\xfa",           // ENDBR64
        b"\xf3\x48\x0f\x1e\xc8",       // RDSSPQ elsewhere
        b"\x0f\x1e\xc0",               // reserved
        b"\x66\x0f\x1f\x84\0\0\0\0\0", // NOP
        b"\xf3\x90",                   // PAUSE
    ];
    for hint in hints {
        let (mut cpu, mut bus) = machine_with_traps(&[hint, b"\xf4"].concat());
        let before = cpu.state();
        run_to_halt(&mut cpu, &mut bus);
        let after = cpu.state();
        assert_eq!(after.rip(), CODE + hint.len() as u64 + 1, "{hint:x?}");
        assert_eq!((&after.regs[..16], after.rflags), (&before.regs[..16], before.rflags), "{hint:x?}");
    }
}

#[test]
fn what_cpuid_does_not_offer_is_undefined() {
    let missing: [&[u8]; 15] = [
        b"\xc5\xf8\x58\xc0",         // VADDPS
        b"\x66\x0f\x38\xf6\xc0",     // ADCX
        b"\x0f\x38\xf0\x00",         // MOVBE
        b"\x66\x0f\x38\xdc\xc0",     // AESENC
        b"\x66\x0f\x3a\x44\xc0\x00", // PCLMULQDQ
        b"\x0f\x38\xc8\xc0",         // SHA1NEXTE
        b"\xf3\x0f\xc7\xf8",         // RDPID
        b"\x0f\xae\x20",             // XSAVE
        b"\x66\x0f\x38\x82\x00",     // INVPCID
        b"\x0f\x01\xc1",             // VMCALL
        b"\x0f\x01\xef",             // WRPKRU
        b"\x0f\x01\xc8",             // MONITOR
        b"\x0f\x38\xf9\x00",         // MOVDIRI
        b"\x0f\xff\xc0",             // UD0
        b"\x06",                     // PUSH ES in 64-bit mode
    ];
    for bytes in missing {
        let (mut cpu, mut bus) = machine_with_traps(bytes);
        let frame = run_to_handler(&mut cpu, &mut bus);
        assert_eq!((frame.vector, frame.rip), (6, CODE), "{bytes:x?}");
    }
}
