//! The descriptor tables that cases run with. They are made anew for each.

use core::arch::asm;

use super::arena::{self, TARGET};
use super::entry::{STUB, handler_stubs};
use crate::memory;

/// A table that instructions are pointed at.
#[repr(C, align(16))]
pub struct Tables {
    pub gdt: [u64; GDT],
    pub ldt: [u64; LDT],
    pub idt: [[u64; 2]; 256],
    pub tss: Tss,
}

pub const GDT: usize = 64;
pub const LDT: usize = 8;

/// The 64-bit TSS (SDM vol. 3, figure 8-11), as words because nothing in it is aligned, and the map of ports.
#[repr(C)]
pub struct Tss {
    pub words: [u32; 26],
    pub ports: [u8; PORTS],
    /// Behind the limit of the TSS.
    pub behind: [u8; 64],
}

/// Bytes of the map of ports: ports below 0x200.
pub const PORTS: usize = 65;
/// Limit of the TSS.
pub const TSS_LIMIT: u64 = (26 * 4 + PORTS - 1) as u64;

/// The tables.
pub fn tables() -> &'static mut Tables {
    unsafe { &mut *(arena::TABLES as *mut Tables) }
}

/// Top of the stack that the TSS names for privilege 0 to 2.
pub fn stack_of_privilege(privilege: usize) -> u64 {
    arena::STACKS + 4096 * (privilege as u64 + 1)
}

/// Top of stack 1 to 7 of the IST.
pub fn stack_of_ist(number: usize) -> u64 {
    stack_of_privilege(2 + number)
}

/// Selectors of the GDT, with RPL 0 or that of their privilege.
pub mod select {
    pub const CODE: u16 = 0x08;
    pub const DATA: u16 = 0x10;
    pub const USER_CODE_32: u16 = 0x1b;
    pub const USER_DATA: u16 = 0x23;
    pub const USER_CODE: u16 = 0x2b;
    pub const CODE_32: u16 = 0x30;
    pub const CODE_16: u16 = 0x38;
    pub const DATA_16: u16 = 0x40;
    pub const CONFORMING: u16 = 0x48;
    pub const CODE_1: u16 = 0x51;
    pub const DATA_1: u16 = 0x59;
    pub const CODE_2: u16 = 0x62;
    pub const DATA_2: u16 = 0x6a;
    pub const TSS: u16 = 0x70;
    pub const LDT: u16 = 0x80;
    pub const CODE_ABSENT: u16 = 0x90;
    pub const DATA_ABSENT: u16 = 0x98;
    pub const CODE_NOT_READABLE: u16 = 0xa0;
    pub const DATA_READ_ONLY: u16 = 0xa8;
    pub const CODE_MIXED: u16 = 0xb0;
    /// Call gates, 16 bytes each.
    pub const GATE: u16 = 0xb8;
    pub const GATE_DPL_0: u16 = 0xc8;
    pub const GATE_ABSENT: u16 = 0xd8;
    pub const GATE_CONFORMING: u16 = 0xe8;
    pub const TSS_FREE: u16 = 0xf8;
    pub const TSS_ABSENT: u16 = 0x108;
    pub const LDT_ABSENT: u16 = 0x118;
    pub const GATE_TO_DATA: u16 = 0x128;
    pub const GATE_TO_32: u16 = 0x138;
    pub const GATE_NOT_CANONICAL: u16 = 0x148;
    pub const DATA_EXPAND_DOWN: u16 = 0x158;
    pub const DATA_UNTOUCHED: u16 = 0x160;
    pub const CODE_UNTOUCHED: u16 = 0x168;
    /// A 16-bit TSS, which long mode does not know.
    pub const TSS_16: u16 = 0x170;
    pub const USER_CODE_UNTOUCHED: u16 = 0x183;
    pub const USER_DATA_UNTOUCHED: u16 = 0x18b;
    pub const GATE_TO_NULL: u16 = 0x190;
    pub const GATE_BAD_TYPE: u16 = 0x1a0;
    pub const CONFORMING_3: u16 = 0x1b3;
    pub const GATE_TO_1: u16 = 0x1b8;
    pub const GATE_TO_ABSENT: u16 = 0x1c8;
}

/// A code or data segment: flat, with these access rights (bytes 5 and 6 of the descriptor).
fn flat(rights: u64) -> u64 {
    0x000f_0000_0000_ffff | rights << 40
}

impl Tables {
    /// Everything as cases expect it, and loaded.
    pub fn reset(&mut self) {
        self.reset_gdt();
        self.ldt = [0, flat(0xc0f3), flat(0xa0fb), 0, 0, 0, 0, 0];
        self.reset_idt();
        self.reset_tss();
        self.load();
    }

    /// The usual handlers. They are made once, and copied from then on.
    fn reset_idt(&mut self) {
        static mut MADE: [[u64; 2]; 256] = [[0; 2]; 256];
        let made = &raw mut MADE;
        if unsafe { (*made)[0][0] } == 0 {
            for vector in 0..256 {
                let dpl = if [3, 4, DONE].contains(&vector) { 3 } else { 0 };
                self.set_handler(vector, dpl, 1);
            }
            unsafe { *made = self.idt };
        }
        memory::copy(&raw mut self.idt as u64, made as u64, 512);
    }

    /// An interrupt gate to the usual handler.
    pub fn set_handler(&mut self, vector: usize, dpl: u64, ist: u64) {
        let target = &raw const handler_stubs as u64 + STUB * vector as u64;
        self.idt[vector] = gate(target, select::CODE, 0x8e | dpl << 5, ist);
    }

    fn reset_gdt(&mut self) {
        let target = TARGET;
        let (ldt, tss) = (&raw const self.ldt as u64, &raw const self.tss as u64);
        let mut set = |selector: u16, descriptor: u64| self.gdt[usize::from(selector >> 3)] = descriptor;
        for selector in 0..GDT {
            set((selector * 8) as u16, 0);
        }
        for (selector, rights) in [
            (select::CODE, 0xa09b),
            (select::DATA, 0xc093),
            (select::USER_CODE_32, 0xc0fb),
            (select::USER_DATA, 0xc0f3),
            (select::USER_CODE, 0xa0fb),
            (select::CODE_32, 0xc09b),
            (select::CODE_16, 0x009b),
            (select::DATA_16, 0x0093),
            (select::CONFORMING, 0xa09f),
            (select::CODE_1, 0xa0bb),
            (select::DATA_1, 0xc0b3),
            (select::CODE_2, 0xa0db),
            (select::DATA_2, 0xc0d3),
            (select::CODE_ABSENT, 0xa01b),
            (select::DATA_ABSENT, 0xc013),
            (select::CODE_NOT_READABLE, 0xa099),
            (select::DATA_READ_ONLY, 0xc091),
            (select::CODE_MIXED, 0xe09b),
            (select::DATA_EXPAND_DOWN, 0xc097),
            (select::DATA_UNTOUCHED, 0xc092),
            (select::CODE_UNTOUCHED, 0xa09a),
            (select::USER_CODE_UNTOUCHED, 0xa0fa),
            (select::USER_DATA_UNTOUCHED, 0xc0f2),
            (select::CONFORMING_3, 0xa0ff),
        ] {
            set(selector, flat(rights));
        }
        set(select::TSS_16, 0x0000_8100_0000_002b);
        let mut set_pair = |selector: u16, pair: [u64; 2]| {
            let at = usize::from(selector >> 3);
            (self.gdt[at], self.gdt[at + 1]) = (pair[0], pair[1]);
        };
        set_pair(select::TSS, system(tss, TSS_LIMIT, 0x89));
        set_pair(select::TSS_FREE, system(tss, TSS_LIMIT, 0x89));
        set_pair(select::TSS_ABSENT, system(tss, TSS_LIMIT, 0x09));
        set_pair(select::LDT, system(ldt, 8 * LDT as u64 - 1, 0x82));
        set_pair(select::LDT_ABSENT, system(ldt, 8 * LDT as u64 - 1, 0x02));
        set_pair(select::GATE, gate(target, select::CODE, 0xec, 0));
        set_pair(select::GATE_DPL_0, gate(target, select::CODE, 0x8c, 0));
        set_pair(select::GATE_ABSENT, gate(target, select::CODE, 0x6c, 0));
        set_pair(select::GATE_CONFORMING, gate(target, select::CONFORMING, 0xec, 0));
        set_pair(select::GATE_TO_DATA, gate(target, select::DATA, 0xec, 0));
        set_pair(select::GATE_TO_32, gate(target, select::CODE_32, 0xec, 0));
        set_pair(select::GATE_NOT_CANONICAL, gate(1 << 63 | target, select::CODE, 0xec, 0));
        set_pair(select::GATE_TO_NULL, gate(target, 0, 0xec, 0));
        set_pair(select::GATE_TO_1, gate(target, select::CODE_1, 0xec, 0));
        set_pair(select::GATE_TO_ABSENT, gate(target, select::CODE_ABSENT, 0xec, 0));
        // The upper half's type must be 0.
        let [low, high] = gate(target, select::CODE, 0xec, 0);
        set_pair(select::GATE_BAD_TYPE, [low, high | 0xf00 << 32]);
    }

    fn reset_tss(&mut self) {
        self.tss.words = [0; 26];
        let mut set = |word: usize, address: u64| {
            self.tss.words[word] = address as u32;
            self.tss.words[word + 1] = (address >> 32) as u32;
        };
        for privilege in 0..3 {
            set(1 + 2 * privilege, stack_of_privilege(privilege));
        }
        for number in 1..8 {
            set(7 + 2 * number, stack_of_ist(number));
        }
        // Offset of the map of ports.
        self.tss.words[25] = (26 * 4) << 16;
        self.tss.ports = [0xff; PORTS];
        self.tss.behind = [0xff; 64];
    }

    fn load(&mut self) {
        let pointer = |base: u64, limit: usize| -> [u16; 5] {
            [limit as u16, base as u16, (base >> 16) as u16, (base >> 32) as u16, (base >> 48) as u16]
        };
        let gdt = pointer(&raw const self.gdt as u64, 8 * GDT - 1);
        let idt = pointer(&raw const self.idt as u64, 4095);
        unsafe {
            asm!("lgdt [{}]", in(reg) &gdt);
            asm!("lidt [{}]", in(reg) &idt);
            asm!("lldt {:x}", in(reg) select::LDT);
            asm!("ltr {:x}", in(reg) select::TSS);
        }
    }
}

/// The vector that ends a case by its own will.
pub const DONE: usize = 0x81;

/// A gate of 16 bytes.
pub fn gate(target: u64, selector: u16, rights: u64, ist: u64) -> [u64; 2] {
    let low = target & 0xffff
        | u64::from(selector) << 16
        | ist << 32
        | rights << 40
        | (target >> 16 & 0xffff) << 48;
    [low, target >> 32]
}

/// A descriptor of 16 bytes for a TSS or LDT.
fn system(base: u64, limit: u64, rights: u64) -> [u64; 2] {
    let low = limit & 0xffff | (base & 0xff_ffff) << 16 | rights << 40 | (limit >> 16 & 0xf) << 48;
    [low | (base >> 24 & 0xff) << 56, base >> 32]
}
