//! Memory for cases, mapped page by page: user code may use it, and cases may change how it is mapped.

use core::arch::asm;

use super::entry::boot_pml4;
use crate::memory;

/// Linear address of the pages. Everything that cases see is at a fixed address in them, so that what they tell does not
/// depend on how the payload was compiled.
pub const ARENA: u64 = 0x4000_0000;
/// Pages there are.
pub const PAGES: usize = 48;
/// The code of the case.
pub const CODE: u64 = ARENA;
/// Where cases go: two NOPs and INT DONE. The same code is at its low 16 bits.
pub const TARGET: u64 = ARENA + 0x1000;
/// The code of the case once more, in a page that user code may not use.
pub const SUPERVISOR_CODE: u64 = ARENA + 0x2000;
const SUPERVISOR_PAGE: usize = 2;
/// Top of the stack of cases.
pub const STACK: u64 = ARENA + 0x8000;
/// Data for cases: two pages.
pub const DATA_PAGE: usize = 16;
pub const DATA: u64 = ARENA + 0x1000 * DATA_PAGE as u64;
/// The descriptor tables: three pages.
const TABLES_PAGE: usize = 20;
pub const TABLES: u64 = ARENA + 0x1000 * TABLES_PAGE as u64;
/// Stacks of the TSS: ten pages.
pub const STACKS: u64 = ARENA + 0x18000;
/// Bytes that the code of a case may have.
const LONGEST: u64 = 128;

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

/// The entry of the page-directory-pointer table that names the directory.
fn directory_pointer() -> &'static mut u64 {
    let pml4 = &raw const boot_pml4 as u64;
    unsafe { &mut *((pml4 + 4096 + 8) as *mut u64) }
}

/// An entry of the PML4.
pub fn top_of(index: usize) -> &'static mut u64 {
    unsafe { &mut *((&raw const boot_pml4 as u64 + 8 * index as u64) as *mut u64) }
}

/// Physical address of a page.
pub fn frame(page: usize) -> u64 {
    &raw const MEMORY as u64 + 4096 * page as u64
}

/// Maps everything as usual, and forgets what the processor remembers of it.
pub fn reset() {
    let (table, directory) = (&raw mut TABLE, &raw mut DIRECTORY);
    let (table, directory) = unsafe { (&mut (*table).0, &mut (*directory).0) };
    for (page, entry) in table.iter_mut().enumerate() {
        // Processors read the tables with the rights of a supervisor, whom SMAP keeps from user pages.
        let supervisor = page == SUPERVISOR_PAGE || page >= TABLES_PAGE;
        let rights = if supervisor { USUAL & !USER } else { USUAL };
        *entry = if page < PAGES { frame(page) | rights } else { 0 };
    }
    directory[0] = &raw const TABLE as u64 | USUAL;
    *directory_pointer() = &raw const DIRECTORY as u64 | PRESENT | WRITABLE | USER | ACCESSED;
    *top_of(0) |= PRESENT | WRITABLE | USER | ACCESSED;
    *top_of(1) = 0;
    flush();
}

/// Empties data and stack, and puts the code of a case in place.
pub fn fill(code: u64) {
    memory::clear(DATA, 1024);
    memory::clear(STACK - 512, 64);
    for page in [CODE, SUPERVISOR_CODE] {
        memory::copy(page, code, LONGEST / 8);
    }
    for (at, byte) in (0..).zip([0x90, 0x90, 0xcd, 0x81]) {
        for page in [TARGET, TARGET & 0xffff] {
            unsafe { ((page + at) as *mut u8).write_volatile(byte) };
        }
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
