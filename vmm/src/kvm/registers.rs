//! Registers of the software processor in the forms of KVM, and back.

use cpu::{REG_RIP, Segment, State, TableRegister, X87};
use kvm_bindings::{
    KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, KVM_X86_SHADOW_INT_MOV_SS,
    KVM_X86_SHADOW_INT_STI, kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events,
    kvm_xsave,
};

/// Offsets in 32-bit words of the area that XSAVE and FXSAVE share, and of what XSAVE has more (SDM vol. 1, 10.5.1 and
/// 13.4).
mod area {
    pub const CONTROL_STATUS: usize = 0;
    pub const TAGS_OPCODE: usize = 1;
    pub const IP: usize = 2;
    pub const DP: usize = 4;
    pub const MXCSR: usize = 6;
    pub const ST: usize = 8;
    pub const XMM: usize = 40;
    pub const HEADER: usize = 128;
}
/// The x87 unit and SSE stand in the area.
const X87_AND_SSE: u32 = 3;
/// Significant bits of an x87 register.
const X87_BITS: u128 = (1 << 80) - 1;

/// General-purpose registers, RIP and flags.
pub(super) fn general(state: &State) -> kvm_regs {
    let r = &state.regs;
    kvm_regs {
        rax: r[0],
        rcx: r[1],
        rdx: r[2],
        rbx: r[3],
        rsp: r[4],
        rbp: r[5],
        rsi: r[6],
        rdi: r[7],
        r8: r[8],
        r9: r[9],
        r10: r[10],
        r11: r[11],
        r12: r[12],
        r13: r[13],
        r14: r[14],
        r15: r[15],
        rip: r[REG_RIP],
        rflags: state.rflags,
    }
}

/// As [`general`], back.
pub(super) fn set_general(state: &mut State, r: &kvm_regs) {
    let words = [
        r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13,
        r.r14, r.r15,
    ];
    state.regs[..16].copy_from_slice(&words);
    state.regs[REG_RIP] = r.rip;
    state.rflags = r.rflags;
}

fn segment(from: &Segment) -> kvm_segment {
    let bits = |at: u16, mask: u16| (from.access >> at & mask) as u8;
    let present = bits(7, 1);
    kvm_segment {
        base: from.base,
        limit: from.limit,
        selector: from.selector,
        type_: bits(0, 0xf),
        s: bits(4, 1),
        dpl: bits(5, 3),
        present,
        avl: bits(12, 1),
        l: bits(13, 1),
        db: bits(14, 1),
        g: bits(15, 1),
        unusable: 1 - present,
        padding: 0,
    }
}

fn from_segment(from: &kvm_segment) -> Segment {
    let bits = [
        (from.type_, 0),
        (from.s, 4),
        (from.dpl, 5),
        (from.present & !from.unusable, 7),
        (from.avl, 12),
        (from.l, 13),
        (from.db, 14),
        (from.g, 15),
    ];
    let access = bits.iter().fold(0, |access, &(bits, at)| access | u16::from(bits) << at);
    Segment { selector: from.selector, base: from.base, limit: from.limit, access }
}

fn table(from: &TableRegister) -> kvm_dtable {
    kvm_dtable { base: from.base, limit: from.limit, padding: [0; 3] }
}

/// Segments, descriptor tables and control registers. What a state does not have is left as it is in `sregs`.
pub(super) fn special(state: &State, sregs: &mut kvm_sregs) {
    let [es, cs, ss, ds, fs, gs] = state.segments.each_ref().map(segment);
    (sregs.es, sregs.cs, sregs.ss, sregs.ds, sregs.fs, sregs.gs) = (es, cs, ss, ds, fs, gs);
    sregs.ldt = segment(&state.ldtr);
    sregs.tr = segment(&state.tr);
    sregs.gdt = table(&state.gdtr);
    sregs.idt = table(&state.idtr);
    (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4) = (state.cr0, state.cr2, state.cr3, state.cr4);
    sregs.efer = state.efer;
    sregs.interrupt_bitmap = [0; 4];
}

/// As [`special`], back.
pub(super) fn set_special(state: &mut State, sregs: &kvm_sregs) {
    state.segments = [&sregs.es, &sregs.cs, &sregs.ss, &sregs.ds, &sregs.fs, &sregs.gs].map(from_segment);
    state.ldtr = from_segment(&sregs.ldt);
    state.tr = from_segment(&sregs.tr);
    state.gdtr = TableRegister { base: sregs.gdt.base, limit: sregs.gdt.limit };
    state.idtr = TableRegister { base: sregs.idt.base, limit: sregs.idt.limit };
    (state.cr0, state.cr2, state.cr3, state.cr4) = (sregs.cr0, sregs.cr2, sregs.cr3, sregs.cr4);
    state.efer = sregs.efer;
}

/// The x87 unit and SSE, as XSAVE has them. KVM_SET_FPU would leave out MXCSR.
pub(super) fn vector(state: &State) -> kvm_xsave {
    let mut area = kvm_xsave::default();
    let words = &mut area.region;
    let x87 = &state.x87;
    words[area::CONTROL_STATUS] = u32::from(x87.control) | u32::from(x87.status) << 16;
    words[area::TAGS_OPCODE] = u32::from(x87.tags) | u32::from(x87.opcode) << 16;
    put(words, area::IP, &[x87.ip as u32, (x87.ip >> 32) as u32]);
    put(words, area::DP, &[x87.dp as u32, (x87.dp >> 32) as u32]);
    words[area::MXCSR] = state.mxcsr;
    for number in 0..8 {
        put(words, area::ST + 4 * number, &quarters(x87.regs[physical(x87.status, number)] & X87_BITS));
    }
    for (number, &value) in state.xmm.iter().enumerate() {
        put(words, area::XMM + 4 * number, &quarters(value));
    }
    words[area::HEADER] = X87_AND_SSE;
    area
}

/// As [`vector`], back. What is not in the area is as after INIT, and KVM writes it so.
pub(super) fn set_vector(state: &mut State, area: &kvm_xsave) {
    let words = &area.region;
    let pair = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
    let status = (words[area::CONTROL_STATUS] >> 16) as u16;
    let mut x87 = X87 {
        regs: [0; 8],
        control: words[area::CONTROL_STATUS] as u16,
        status,
        tags: words[area::TAGS_OPCODE] as u8,
        opcode: (words[area::TAGS_OPCODE] >> 16) as u16 & 0x7ff,
        ip: pair(area::IP),
        dp: pair(area::DP),
    };
    for number in 0..8 {
        x87.regs[physical(status, number)] = whole(&words[area::ST + 4 * number..]) & X87_BITS;
    }
    state.x87 = x87;
    state.mxcsr = words[area::MXCSR];
    for (number, value) in state.xmm.iter_mut().enumerate() {
        *value = whole(&words[area::XMM + 4 * number..]);
    }
}

/// Index of ST(number) among R0 to R7.
fn physical(status: u16, number: usize) -> usize {
    (usize::from(status >> 11) + number) & 7
}

fn put(words: &mut [u32], at: usize, values: &[u32]) {
    words[at..at + values.len()].copy_from_slice(values);
}

fn quarters(value: u128) -> [u32; 4] {
    [0, 32, 64, 96].map(|shift| (value >> shift) as u32)
}

fn whole(words: &[u32]) -> u128 {
    words[..4].iter().rev().fold(0, |value, &word| value << 32 | u128::from(word))
}

/// DR0 to DR7.
pub(super) fn debug(state: &State) -> kvm_debugregs {
    let [a, b, c, d, .., dr6, dr7] = state.dr;
    kvm_debugregs { db: [a, b, c, d], dr6, dr7, ..Default::default() }
}

/// As [`debug`], back.
pub(super) fn set_debug(state: &mut State, from: &kvm_debugregs) {
    state.dr[..4].copy_from_slice(&from.db);
    (state.dr[6], state.dr[7]) = (from.dr6, from.dr7);
}

/// Non-maskable interrupts and shadows.
pub(super) fn events(state: &State) -> kvm_vcpu_events {
    let flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    let mut events = kvm_vcpu_events { flags, ..Default::default() };
    events.nmi.pending = state.nmi_pending.into();
    events.nmi.masked = state.nmi_blocked.into();
    events.interrupt.shadow = match (state.interrupt_shadow, state.stack_shadow) {
        (_, true) => KVM_X86_SHADOW_INT_MOV_SS as u8,
        (true, false) => KVM_X86_SHADOW_INT_STI as u8,
        (false, false) => 0,
    };
    events
}

/// As [`events`], back.
pub(super) fn set_events(state: &mut State, events: &kvm_vcpu_events) {
    state.nmi_pending = events.nmi.pending != 0 || events.nmi.injected != 0;
    // One whose delivery is under way is delivered anew.
    state.nmi_blocked = events.nmi.masked != 0 && events.nmi.injected == 0;
    state.interrupt_shadow = events.interrupt.shadow != 0;
    state.stack_shadow = u32::from(events.interrupt.shadow) & KVM_X86_SHADOW_INT_MOV_SS != 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state in which no two registers are alike.
    fn state() -> State {
        let mut cpu = cpu::Cpu::<crate::board::Board>::new(1, 1);
        let mut state = cpu.state();
        for (number, register) in
            state.regs.iter_mut().enumerate().filter(|(number, _)| *number != cpu::REG_ZERO)
        {
            *register = 0x1111_2222_3333_4444 * (number as u64 + 1);
        }
        for (number, register) in state.xmm.iter_mut().enumerate() {
            *register = 0x0123_4567_89ab_cdef_u128 << 40 | number as u128;
        }
        for (number, register) in state.x87.regs.iter_mut().enumerate() {
            *register = 0x4000_8000_0000_0000_0000 | number as u128;
        }
        state.x87.status = 3 << 11 | 0x41;
        state.x87.tags = 0x5a;
        state.x87.opcode = 0x7e3;
        (state.x87.ip, state.x87.dp) = (0x1234_5678_9abc, 0xdef0_1234_5678);
        state.mxcsr = 0x1fa0;
        for (number, segment) in state.segments.iter_mut().enumerate() {
            *segment = Segment {
                selector: 8 * number as u16,
                base: 0x1000 * number as u64,
                limit: 0xf_ffff - number as u32,
                access: 0x7093 | (number as u16 & 3) << 5,
            };
        }
        state.ldtr = Segment { selector: 0x77, base: 1, limit: 2, access: 0 };
        state.dr = [1, 2, 3, 4, 0, 0, 0xffff_0ff1, 0x401];
        (state.nmi_pending, state.nmi_blocked, state.interrupt_shadow) = (true, true, true);
        cpu.set_state(state);
        cpu.state()
    }

    #[test]
    fn a_state_comes_back_as_it_went() {
        let before = state();
        let mut after = cpu::Cpu::<crate::board::Board>::new(1, 1).state();
        set_general(&mut after, &general(&before));
        let mut sregs = kvm_sregs::default();
        special(&before, &mut sregs);
        set_special(&mut after, &sregs);
        set_vector(&mut after, &vector(&before));
        set_debug(&mut after, &debug(&before));
        set_events(&mut after, &events(&before));
        assert_eq!(after, before);
    }

    #[test]
    fn the_shadow_of_mov_ss_is_told_from_that_of_sti() {
        let mut before = state();
        before.stack_shadow = true;
        let mut after = before.clone();
        (after.stack_shadow, after.interrupt_shadow) = (false, false);
        set_events(&mut after, &events(&before));
        assert_eq!(after, before);
    }
}
