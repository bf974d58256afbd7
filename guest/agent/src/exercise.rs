//! Work that touches no persistent memory: `pmemsim bench cpu` measures it.
#![allow(unsafe_code)] // The copies are to be these very instructions.

use std::arch::asm;
use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Result};

use guest_protocol::{EXERCISE_COPY, Exercise};

/// Words of the table that the integer loop works on.
const WORDS: usize = 1024;

pub fn run(what: Exercise, rounds: u64) -> Result<()> {
    match what {
        Exercise::Integers => integers(rounds),
        Exercise::CopyBytes => copy(rounds, copy_bytes),
        Exercise::CopyWide => copy(rounds, copy_wide),
        Exercise::Calls => calls(rounds),
        Exercise::Reads => reads(rounds)?,
    }
    Ok(())
}

#[inline(never)]
fn integers(rounds: u64) {
    let mut table = [0u64; WORDS];
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..rounds {
        for index in 0..WORDS {
            // Marsaglia's xorshift64.
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let other = table[(seed % WORDS as u64) as usize];
            let word = &mut table[index];
            if seed & 1 == 0 {
                *word = word.wrapping_add(other) ^ round;
            } else if *word > other {
                *word = word.wrapping_mul(31).rotate_left(5);
            } else {
                *word = word.wrapping_sub(seed);
            }
        }
        black_box(&mut table);
    }
}

fn copy(rounds: u64, copy: fn(&mut [u8], &[u8])) {
    let source = vec![1; EXERCISE_COPY];
    let mut target = vec![0; EXERCISE_COPY];
    for _ in 0..rounds {
        copy(black_box(&mut target), black_box(&source));
    }
}

/// The slices are equally long.
#[inline(never)]
fn copy_bytes(target: &mut [u8], source: &[u8]) {
    let len = target.len().min(source.len());
    // SAFETY: reads and writes `len` bytes of each slice. DF is clear, as the calling convention demands.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rsi") source.as_ptr() => _, inout("rdi") target.as_mut_ptr() => _,
             options(nostack, preserves_flags));
    }
}

/// The slices are equally long, and their length is a multiple of 64.
#[inline(never)]
fn copy_wide(target: &mut [u8], source: &[u8]) {
    for (target, source) in target.chunks_exact_mut(64).zip(source.chunks_exact(64)) {
        // SAFETY: reads and writes 64 bytes of each chunk.
        unsafe {
            asm!("movups {a}, [{source}]", "movups {b}, [{source} + 16]", "movups {c}, [{source} + 32]",
                 "movups {d}, [{source} + 48]", "movups [{target}], {a}", "movups [{target} + 16], {b}",
                 "movups [{target} + 32], {c}", "movups [{target} + 48], {d}",
                 source = in(reg) source.as_ptr(), target = in(reg) target.as_mut_ptr(),
                 a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                 options(nostack, preserves_flags));
        }
    }
}

#[inline(never)]
fn calls(rounds: u64) {
    for _ in 0..rounds {
        black_box(std::os::unix::process::parent_id());
    }
}

#[inline(never)]
fn reads(rounds: u64) -> Result<()> {
    let mut zero = File::open("/dev/zero")?;
    let mut buffer = [0; 4096];
    for _ in 0..rounds {
        zero.read_exact(black_box(&mut buffer))?;
    }
    Ok(())
}
