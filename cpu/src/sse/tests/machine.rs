//! What instructions do beside computing: memory, alignment, faults, the x87 unit, exceptions.

use iced_x86::{Decoder, DecoderOptions, Instruction};

use super::super::{execute, general, specialise};
use crate::{
    Cpu, Fault, StoreKind,
    op::{Mem, Op},
    testing::{DATA, PMEM, TestBus, Told, machine},
};

const CR0_EM: u64 = 1 << 2;
const CR0_TS: u64 = 1 << 3;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const RSI: usize = 6;
const RDI: usize = 7;

fn decode(bytes: &[u8]) -> Instruction {
    Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode()
}

fn general_op(i: &Instruction) -> Op<TestBus> {
    Op {
        run: execute,
        imm: 0,
        mem: Mem::NONE,
        dst: 0,
        src: 0,
        len: i.len() as u8,
        jump: 0,
        full: Some(Box::new((*i).into())),
    }
}

/// Executes one instruction on a machine whose RSI and RDI point to `DATA` unless `prepare` moves them.
fn run(
    bytes: &[u8],
    prepare: impl FnOnce(&mut Cpu<TestBus>, &mut TestBus),
) -> (Result<(), Fault>, Cpu<TestBus>, TestBus) {
    let (mut cpu, mut bus) = machine(&[]);
    cpu.state.regs[RSI] = DATA;
    cpu.state.regs[RDI] = DATA;
    prepare(&mut cpu, &mut bus);
    let i = decode(bytes);
    let result = execute(&mut cpu, &mut bus, &general_op(&i));
    (result, cpu, bus)
}

const MOVNTI_RAX: &[u8] = &[0x48, 0x0f, 0xc3, 0x06];
const MOVNTDQ: &[u8] = &[0x66, 0x0f, 0xe7, 0x0e];
const MOVNTQ: &[u8] = &[0x0f, 0xe7, 0x0e];
const MOVAPS_LOAD: &[u8] = &[0x0f, 0x28, 0x0e];
const MOVUPS_LOAD: &[u8] = &[0x0f, 0x10, 0x0e];
const PADDD_LOAD: &[u8] = &[0x66, 0x0f, 0xfe, 0x0e];
const PCMPESTRI_LOAD: &[u8] = &[0x66, 0x0f, 0x3a, 0x61, 0x0e, 0x00];
const MASKMOVDQU: &[u8] = &[0x66, 0x0f, 0xf7, 0xca];
const LDMXCSR: &[u8] = &[0x0f, 0xae, 0x16];
const EMMS: &[u8] = &[0x0f, 0x77];
const DIVSD: &[u8] = &[0xf2, 0x0f, 0x5e, 0xca];
const COMISD: &[u8] = &[0x66, 0x0f, 0x2f, 0xca];
const PADDB_MMX: &[u8] = &[0x0f, 0xfc, 0xca];
const PADDB_MMX_LOAD: &[u8] = &[0x0f, 0xfc, 0x0e];

#[test]
fn non_temporal_stores_are_told_as_such() {
    for (bytes, stored) in [(MOVNTI_RAX, 8), (MOVNTDQ, 16), (MOVNTQ, 8)] {
        let (result, _, bus) = run(bytes, |cpu, _| {
            cpu.state.regs[0] = 0x0807_0605_0403_0201;
            cpu.state.xmm[1] = 0x100f0e0d0c0b0a09_0807060504030201;
            cpu.state.x87.regs[1] = 0x0807_0605_0403_0201;
            cpu.state.regs[RSI] = PMEM + 0x40;
        });
        assert_eq!(result, Ok(()));
        let value = (1..=stored).collect();
        assert_eq!(bus.told(), [Told::Store(PMEM + 0x40, value, StoreKind::NonTemporal)]);
    }
}

#[test]
fn sixteen_byte_operands_must_be_aligned_unless_the_instruction_says_otherwise() {
    let at = |bytes, offset| run(bytes, |cpu, _| cpu.state.regs[RSI] = DATA + offset).0;
    for bytes in [MOVAPS_LOAD, PADDD_LOAD, MOVNTDQ] {
        assert_eq!(at(bytes, 8), Err(Fault::GP0));
        assert_eq!(at(bytes, 16), Ok(()));
    }
    for bytes in [MOVUPS_LOAD, PCMPESTRI_LOAD, MOVNTI_RAX, PADDB_MMX_LOAD] {
        assert_eq!(at(bytes, 3), Ok(()));
    }
}

#[test]
fn masked_stores_store_selected_bytes_only() {
    let (result, _, mut bus) = run(MASKMOVDQU, |cpu, bus| {
        bus.poke(PMEM, &[0xee; 16]);
        cpu.state.xmm[1] = 0x0f0e0d0c_0b0a0908_07060504_03020100;
        cpu.state.xmm[2] = 0x80000000_00000000_000080ff_7f7f0080;
        cpu.state.regs[RDI] = PMEM;
    });
    assert_eq!(result, Ok(()));
    let stored = |at: u64, bytes: &[u8]| Told::Store(PMEM + at, bytes.to_vec(), StoreKind::NonTemporal);
    assert_eq!(bus.told(), [stored(0, &[0]), stored(4, &[4, 5]), stored(15, &[15])]);
    assert_eq!(bus.peek::<8>(PMEM), [0, 0xee, 0xee, 0xee, 4, 5, 0xee, 0xee]);
}

#[test]
fn a_masked_store_that_faults_has_stored_nothing() {
    // The last bytes below 4 GiB, and the first above, which nothing maps.
    let edge = 1u64 << 32;
    let store = |mask| {
        run(MASKMOVDQU, |cpu, _| {
            cpu.state.xmm[2] = mask;
            cpu.state.regs[RDI] = edge - 8;
        })
    };
    let (result, _, bus) = store(0x80 | 0x80 << 120);
    assert_eq!(result.map_err(Fault::vector), Err(14));
    assert_eq!(bus.told(), []);
    assert_eq!(store(0).0.map_err(Fault::vector), Err(14));
}

#[test]
fn mxcsr_takes_no_bit_that_it_does_not_have() {
    let load = |value: u64| run(LDMXCSR, |_, bus| bus.poke64(DATA, value));
    assert_eq!(load(0x1_0000).0, Err(Fault::GP0));
    let (result, cpu, _) = load(0xffff);
    assert_eq!((result, cpu.state.mxcsr), (Ok(()), 0xffff));
}

#[test]
fn an_unmasked_exception_leaves_the_destination_and_keeps_its_flag() {
    const ZE: u32 = 1 << 2;
    let divide_by_zero = |cr4: u64, mxcsr: u32| {
        run(DIVSD, |cpu, _| {
            cpu.state.cr4 = CR4_OSFXSR | cr4;
            cpu.state.mxcsr = mxcsr;
            cpu.state.xmm[1] = 1.0f64.to_bits() as u128;
            cpu.state.xmm[2] = 0;
        })
    };
    let unmasked = 0x1f80 & !(ZE << 7);
    let (result, cpu, _) = divide_by_zero(CR4_OSXMMEXCPT, unmasked);
    assert_eq!((result, cpu.state.mxcsr), (Err(Fault::XM), unmasked | ZE));
    assert_eq!(cpu.state.xmm[1], 1.0f64.to_bits() as u128);
    assert_eq!(divide_by_zero(0, unmasked).0, Err(Fault::UD));
    let (result, cpu, _) = divide_by_zero(0, 0x1f80);
    assert_eq!((result, cpu.state.xmm[1]), (Ok(()), f64::INFINITY.to_bits() as u128));
}

#[test]
fn an_unmasked_comparison_leaves_the_flags() {
    let (result, cpu, _) = run(COMISD, |cpu, _| {
        cpu.state.mxcsr = 0;
        cpu.state.xmm[1] = f64::NAN.to_bits() as u128;
        cpu.flags = crate::integer::LazyFlags::load(0);
    });
    assert_eq!((result, cpu.flags.fold(0)), (Err(Fault::XM), 0));
}

#[test]
fn instructions_wait_for_the_system_to_switch_them_on() {
    let with = |bytes, cr0: u64, cr4: u64| {
        run(bytes, |cpu, _| {
            cpu.state.cr0 |= cr0;
            cpu.state.cr4 = cr4;
        })
        .0
    };
    assert_eq!(with(MOVUPS_LOAD, CR0_TS, CR4_OSFXSR), Err(Fault::NM));
    assert_eq!(with(MOVUPS_LOAD, CR0_EM | CR0_TS, CR4_OSFXSR), Err(Fault::UD));
    assert_eq!(with(MOVUPS_LOAD, 0, 0), Err(Fault::UD));
    assert_eq!(with(PADDB_MMX, CR0_TS, 0), Err(Fault::NM));
    assert_eq!(with(PADDB_MMX, 0, 0), Ok(()));
    assert_eq!(with(EMMS, CR0_TS, 0), Err(Fault::NM));
    assert_eq!(with(MOVNTI_RAX, CR0_EM | CR0_TS, 0), Ok(()));
}

#[test]
fn mmx_instructions_take_the_x87_registers() {
    let (result, cpu, _) = run(PADDB_MMX, |cpu, _| {
        cpu.state.x87.status = 5 << 11;
        cpu.state.x87.regs[1] = 0x3fff << 64 | 0xff;
        cpu.state.x87.regs[2] = 0x4000 << 64 | 0x0102;
    });
    let x87 = cpu.state.x87;
    assert_eq!((result, x87.status, x87.tags), (Ok(()), 0, 0xff));
    assert_eq!(x87.regs[1], 0xffff << 64 | 0x0101);
    assert_eq!(x87.regs[2], 0x4000 << 64 | 0x0102);
    let (result, cpu, _) = run(EMMS, |cpu, _| cpu.state.x87.tags = 0xff);
    assert_eq!((result, cpu.state.x87.tags), (Ok(()), 0));
}

#[test]
fn mmx_instructions_that_fault_leave_the_x87_unit() {
    let (result, cpu, _) = run(PADDB_MMX_LOAD, |cpu, _| {
        cpu.state.x87.status = 5 << 11;
        cpu.state.regs[RSI] = 1 << 32;
    });
    assert_eq!(result.map_err(Fault::vector), Err(14));
    assert_eq!((cpu.state.x87.status, cpu.state.x87.tags), (5 << 11, 0));
}

#[test]
fn mmx_instructions_report_what_x87_left_pending() {
    let pending = |cpu: &mut Cpu<TestBus>| {
        cpu.state.x87.control = 0x37e;
        cpu.state.x87.status = 1;
    };
    for bytes in [PADDB_MMX, EMMS] {
        assert_eq!(run(bytes, |cpu, _| pending(cpu)).0, Err(Fault::MF));
    }
    assert_eq!(run(MOVUPS_LOAD, |cpu, _| pending(cpu)).0, Ok(()));
}

#[test]
fn integers_from_memory_do_not_touch_the_x87_registers() {
    for cvtpi2ps in [&[0x0f, 0x2a, 0x0e][..], &[0x66, 0x0f, 0x2a, 0x0e][..]] {
        let (result, cpu, _) = run(cvtpi2ps, |_, _| {});
        assert_eq!((result, cpu.state.x87.tags), (Ok(()), 0));
    }
}

#[test]
fn mmx_elements_stay_within_64_bits() {
    let result = |bytes: &[u8]| {
        let (_, cpu, _) = run(bytes, |cpu, _| {
            cpu.state.regs[2] = 0x1234_5678;
            cpu.state.x87.regs[1] = 0x0706_0504_0302_0100;
            cpu.state.x87.regs[2] = 0x0f0e_0d0c_8b8a_8988;
        });
        cpu.state.x87.regs[1] as u64
    };
    // packsswb, punpckhbw, phaddw, pshufb, palignr 3, pshufw 0x1b, pinsrw from edx, psrlq by a register.
    assert_eq!(result(&[0x0f, 0x63, 0xca]), 0x7f7f_8080_7f7f_7f7f);
    assert_eq!(result(&[0x0f, 0x68, 0xca]), 0x0f07_0e06_0d05_0c04);
    assert_eq!(result(&[0x0f, 0x38, 0x01, 0xca]), 0x1c1a_1512_0c0a_0402);
    assert_eq!(result(&[0x0f, 0x38, 0x00, 0xca]), 0x0706_0504_0000_0000);
    assert_eq!(result(&[0x0f, 0x3a, 0x0f, 0xca, 3]), 0x0201_000f_0e0d_0c8b);
    assert_eq!(result(&[0x0f, 0x70, 0xca, 0x1b]), 0x8988_8b8a_0d0c_0f0e);
    assert_eq!(result(&[0x0f, 0xc4, 0xca, 5]), 0x0706_0504_5678_0100);
    assert_eq!(result(&[0x0f, 0xd3, 0xca]), 0);
}

#[test]
fn moves_of_scalars_keep_or_clear_the_rest() {
    let value = |bytes| {
        let (_, cpu, _) = run(bytes, |cpu, bus| {
            bus.poke(DATA, &[0x77; 16]);
            (cpu.state.xmm[1], cpu.state.xmm[2]) = (0x1111 << 96 | 1, 2);
        });
        cpu.state.xmm[1]
    };
    assert_eq!(value(&[0xf3, 0x0f, 0x10, 0x0e]), 0x7777_7777);
    assert_eq!(value(&[0xf3, 0x0f, 0x10, 0xca]), 0x1111 << 96 | 2);
}

#[test]
fn an_element_inserted_from_memory_is_the_one_in_memory() {
    // insertps xmm1, [rsi], 0xd0: COUNT_S of 3 means nothing here.
    let (_, cpu, _) = run(&[0x66, 0x0f, 0x3a, 0x21, 0x0e, 0xd0], |cpu, bus| {
        bus.poke(DATA, &[0x77, 0x77, 0x77, 0x77, 1, 1, 1, 1]);
        cpu.state.xmm[1] = 5;
    });
    assert_eq!(cpu.state.xmm[1], 0x7777_7777 << 32 | 5);
}

#[test]
fn extracted_elements_store_no_more_than_themselves() {
    for (bytes, expected) in [
        (&[0x66, 0x0f, 0x3a, 0x14, 0x0e, 3][..], [0x44, 0, 0, 0]),
        (&[0x66, 0x0f, 0x3a, 0x15, 0x0e, 1][..], [0x33, 0x44, 0, 0]),
    ] {
        let (_, _, mut bus) = run(bytes, |cpu, _| cpu.state.xmm[1] = 0x88776655_44332211);
        assert_eq!(bus.peek::<4>(DATA), expected);
    }
}

/// Makes registers and memory what they are in every comparison.
fn reset(cpu: &mut Cpu<TestBus>, bus: &mut TestBus, seed: u8) {
    let mut state = cpu.state();
    for n in 0..16 {
        state.regs[n] = PMEM + 0x400 + n as u64 * 0x40;
        // Elements that are equal in every register, and some that are not.
        let byte =
            |k: usize| if k.is_multiple_of(3) { k as u8 } else { (k * 37 + n * 91 + seed as usize) as u8 };
        state.xmm[n] = u128::from_le_bytes(std::array::from_fn(byte));
    }
    cpu.set_state(state);
    let pattern: Vec<u8> = (0..0x1000u32).map(|n| (n * 7 + n / 251 + seed as u32) as u8).collect();
    bus.poke(PMEM, &pattern);
    bus.told.clear();
}

/// Runs `bytes` by its general handler on one machine and by its specialised one, if it has one, on the other, and
/// expects the same of both.
fn compare_handlers(machines: &mut [(Cpu<TestBus>, TestBus); 2], bytes: &[u8], seed: u8) -> bool {
    let i = decode(bytes);
    if i.is_invalid() || general::<TestBus>(&i).is_none() {
        return false;
    }
    let Some(hot) = specialise::<TestBus>(&i) else { return false };
    assert_eq!(hot.len as usize, i.len());
    let ops = [general_op(&i), hot];
    let [slow, fast] = std::array::from_fn(|n| {
        let (cpu, bus) = &mut machines[n];
        reset(cpu, bus, seed);
        let result = (ops[n].run)(cpu, bus, &ops[n]);
        (result, cpu.state(), bus.told())
    });
    assert_eq!(fast, slow, "{i} {bytes:02x?}");
    true
}

#[test]
fn specialised_handlers_do_what_the_general_ones_do() {
    // Registers, and memory at [rbx + 0x10], [rbx + 0x13] and [rbx + riz + 0x20], or with registers of REX.
    let operands: [&[u8]; 4] = [&[0xd3], &[0x53, 0x10], &[0x53, 0x13], &[0x54, 0x23, 0x20]];
    let prefixes: [&[u8]; 4] = [&[], &[0x66], &[0xf3], &[0xf2]];
    let rexes: [&[u8]; 4] = [&[], &[0x48], &[0x45], &[0x4c]];
    let mut machines = [machine(&[]), machine(&[])];
    let mut compared = 0;
    for (prefix, rex) in prefixes.iter().flat_map(|prefix| rexes.iter().map(move |rex| (prefix, rex))) {
        for (opcode, operand) in
            (0..=255).flat_map(|opcode| operands.iter().map(move |operand| (opcode, operand)))
        {
            for immediate in [0x1b, 0x05] {
                let bytes = [prefix, rex, &[0x0f, opcode][..], operand, &[immediate]].concat();
                compared += compare_handlers(&mut machines, &bytes, opcode) as u32;
            }
        }
    }
    // Some 50 opcodes in several shapes: fewer means that the enumeration misses what it is for.
    assert!(compared > 1000, "{compared}");
}
