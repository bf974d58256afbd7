//! Memory for cases, mapped page by page: user code may use it, and cases may change how it is mapped.

use core::arch::asm;

use super::entry::boot_pml4;

/// Linear address of the pages.
pub const ARENA: u64 = 0x4000_0000;
/// Linear address of the payload itself for user code: this plus its own.
pub const ALIAS: u64 = 0x4020_0000;
/// Pages there are.
pub const PAGES: usize = 32;
/// Top of the stack of cases.
pub const STACK: u64 = ARENA + 8 * 4096;
/// Data for cases.
pub const DATA: u64 = ARENA + 16 * 4096;

pub const PRESENT: u64 = 1 << 0;
pub const WRITABLE: u64 = 1 << 1;
pub const USER: u64 = 1 << 2;
pub const ACCESSED: u64 = 1 << 5;
pub const DIRTY: u64 = 1 << 6;
pub const LARGE: u64 = 1 << 7;
pub const NO_EXECUTE: u64 = 1 << 63;
/// How pages are mapped unless a case says otherwise.
pub const USUAL: u64 = PRESENT | WRITABLE | USER | ACCESSED | DIRTY;

#[repr(C, align(4096))]
struct Page<T>(T);

static mut MEMORY: Page<[[u64; 512]; PAGES]> = Page([[0; 512]; PAGES]);
static mut TABLE: Page<[u64; 512]> = Page([0; 512]);
static mut DIRECTORY: Page<[u64; 512]> = Page([0; 512]);

/// The entries of the page table, one a page of the arena.
pub fn table() -> &'static mut [u64; 512] {
    unsafe { &mut (*(&raw mut TABLE)).0 }
}

/// The page directory: entry 0 names the table, entry 1 maps the payload.
pub fn directory() -> &'static mut [u64; 512] {
    unsafe { &mut (*(&raw mut DIRECTORY)).0 }
}

/// The entry of the page-directory-pointer table that names the directory.
pub fn directory_pointer() -> &'static mut u64 {
    let pml4 = &raw const boot_pml4 as u64;
    unsafe { &mut *((pml4 + 4096 + 8) as *mut u64) }
}

/// The first entry of the PML4.
pub fn top() -> &'static mut u64 {
    unsafe { &mut *(&raw const boot_pml4 as *mut u64) }
}

/// Physical address of a page.
pub fn frame(page: usize) -> u64 {
    &raw const MEMORY as u64 + 4096 * page as u64
}

/// Maps everything as usual, and forgets what the processor remembers of it.
pub fn reset() {
    for (page, entry) in table().iter_mut().enumerate() {
        *entry = if page < PAGES { frame(page) | USUAL } else { 0 };
    }
    directory().fill(0);
    directory()[0] = &raw const TABLE as u64 | USUAL;
    directory()[1] = USUAL | LARGE;
    *directory_pointer() = &raw const DIRECTORY as u64 | PRESENT | WRITABLE | USER | ACCESSED;
    *top() = *top() & !0xfff | PRESENT | WRITABLE | USER | ACCESSED;
    flush();
}

/// Empties the data pages.
pub fn clear() {
    let at = DATA as *mut u64;
    for word in 0..512 {
        unsafe { at.add(word).write_volatile(0) };
    }
    for word in 1..=64 {
        unsafe { ((STACK - 8 * word) as *mut u64).write_volatile(0) };
    }
}

/// Forgets all translations.
pub fn flush() {
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _) };
}

/// Writes a word of the data pages.
pub fn put(offset: u64, value: u64) {
    unsafe { ((DATA + offset) as *mut u64).write_unaligned(value) };
}

/// Reads a word anywhere.
pub fn peek(at: u64) -> u64 {
    unsafe { (at as *const u64).read_unaligned() }
}
