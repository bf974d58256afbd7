//! What the boot loader gave: the information of multiboot, or the start info of PVH.

use core::ffi::CStr;

use crate::ports::{firmware_item, print, read};

const MULTIBOOT: u32 = 0x2bad_b002;
const PVH: u32 = 0x336e_c578;

/// The information at the entry.
pub enum Given {
    /// Address of the multiboot information.
    Multiboot(u64),
    /// Address of `struct hvm_start_info`.
    Pvh(u64),
    /// Neither.
    Nothing,
}

impl Given {
    /// By what was in EAX and EBX.
    pub fn read(magic: u32, info: u32) -> Given {
        let info = u64::from(info);
        match magic {
            MULTIBOOT => Given::Multiboot(info),
            PVH if word(info) == PVH => Given::Pvh(info),
            _ => Given::Nothing,
        }
    }

    /// The command line.
    fn command_line(&self) -> &'static str {
        match *self {
            Given::Multiboot(info) => text(word(info + 16).into()),
            Given::Pvh(info) => text(quad(info + 24)),
            Given::Nothing => "",
        }
    }

    /// The words of the command line, without the name of the payload.
    pub fn arguments(&self) -> impl Iterator<Item = &'static str> {
        let named = usize::from(matches!(self, Given::Multiboot(_)));
        self.command_line().split_ascii_whitespace().skip(named)
    }

    /// Prints everything, a thing a line. Returns the exit status.
    pub fn tell(&self) -> u32 {
        match *self {
            Given::Multiboot(info) => tell_multiboot(info),
            Given::Pvh(info) => tell_pvh(info),
            Given::Nothing => {
                print!("nothing known was given\n");
                return 1;
            }
        }
        let number = |key| u64::from_le_bytes(firmware_item(key));
        print!("firmware: memory {:#x}, processors {}, at most {}\n", number(3), number(5), number(15));
        print!("second serial line: {:#x}\n", read(0x2f8 + 5));
        0
    }
}

fn tell_multiboot(info: u64) {
    print!("multiboot flags {:#x}\n", word(info));
    print!("memory: {} KiB below, {} KiB above 1 MiB\n", word(info + 4), word(info + 8));
    print!("command line: {}\n", text(word(info + 16).into()));
    print!("loader: {}\n", text(word(info + 64).into()));
    let list = u64::from(word(info + 24));
    for at in (0..u64::from(word(info + 20))).map(|index| list + 16 * index) {
        let (start, end) = (u64::from(word(at)), u64::from(word(at + 4)));
        tell_module(start, end - start, text(word(at + 8).into()));
    }
    let (mut at, map) = (u64::from(word(info + 48)), u64::from(word(info + 44)));
    let end = at + map;
    while at < end {
        print!("map: {:#x} bytes at {:#x}, kind {}\n", quad(at + 12), quad(at + 4), word(at + 20));
        at += 4 + u64::from(word(at));
    }
}

fn tell_pvh(info: u64) {
    print!("PVH version {}\n", word(info + 4));
    print!("command line: {}\n", text(quad(info + 24)));
    print!(
        "RSDP: {}\n",
        if quad(quad(info + 32)) == u64::from_le_bytes(*b"RSD PTR ") { "there" } else { "missing" }
    );
    for index in 0..u64::from(word(info + 12)) {
        let at = quad(info + 16) + 32 * index;
        tell_module(quad(at), quad(at + 8), text(quad(at + 16)));
    }
    for index in 0..u64::from(word(info + 48)) {
        let at = quad(info + 40) + 24 * index;
        print!("map: {:#x} bytes at {:#x}, kind {}\n", quad(at + 8), quad(at), word(at + 16));
    }
}

/// Its content is told by the sum of its bytes.
fn tell_module(start: u64, len: u64, line: &str) {
    let sum: u64 = (start..start + len).map(|at| u64::from(byte(at))).sum();
    let aligned = if start.is_multiple_of(4096) { "page-aligned" } else { "not page-aligned" };
    print!("module: {len} bytes of sum {sum}, {aligned}: {line}\n");
}

fn byte(at: u64) -> u8 {
    unsafe { (at as *const u8).read_volatile() }
}

fn word(at: u64) -> u32 {
    unsafe { (at as *const u32).read_unaligned() }
}

fn quad(at: u64) -> u64 {
    unsafe { (at as *const u64).read_unaligned() }
}

fn text(at: u64) -> &'static str {
    let text = unsafe { CStr::from_ptr(at as *const core::ffi::c_char) };
    text.to_str().unwrap_or("not UTF-8")
}
