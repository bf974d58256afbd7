//! What the compiler calls for copies and comparisons, and other code would take from the C library.

use core::arch::asm;

#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    unsafe { asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        return unsafe { memcpy(to, from, len) };
    }
    for at in (0..len).rev() {
        unsafe { to.add(at).write_volatile(from.add(at).read()) };
    }
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    unsafe { asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") value as u8) };
    to
}

#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    for at in 0..len {
        let (a, b) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    unsafe { memcmp(a, b, len) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut len = 0;
    while unsafe { text.add(len).read_volatile() } != 0 {
        len += 1;
    }
    len
}

/// Sets `words` words of 8 bytes to zero.
pub fn clear(at: u64, words: u64) {
    unsafe { asm!("rep stosq", inout("rcx") words => _, inout("rdi") at => _, in("rax") 0u64) };
}

/// Copies `words` words of 8 bytes.
pub fn copy(to: u64, from: u64, words: u64) {
    unsafe { asm!("rep movsq", inout("rcx") words => _, inout("rdi") to => _, inout("rsi") from => _) };
}
