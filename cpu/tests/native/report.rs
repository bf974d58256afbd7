//! What differs, in words.

use std::fmt::Write;

use iced_x86::{Formatter, Instruction, NasmFormatter};

use super::{
    case::{Case, LAYOUT, Outcome},
    forms::Set,
};

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];

/// One line for everything that is not the same: host's value, then ours.
pub fn differences(host: &Outcome, ours: &Outcome) -> Vec<String> {
    let mut lines = Vec::new();
    let mut number = |name: String, host: u128, ours: u128| {
        if host != ours {
            lines.push(format!("{name:<8} host {host:#x} ours {ours:#x}"));
        }
    };
    number("vector".into(), host.vector as u128, ours.vector as u128);
    number("error".into(), host.error as u128, ours.error as u128);
    number("cr2".into(), host.cr2 as u128, ours.cr2 as u128);
    number("rip".into(), host.rip as u128, ours.rip as u128);
    number("rflags".into(), host.rflags as u128, ours.rflags as u128);
    for (n, name) in SEGMENTS.iter().enumerate() {
        number(name.to_string(), host.selectors[n] as u128, ours.selectors[n] as u128);
    }
    for (n, name) in ["fs base", "gs base"].iter().enumerate() {
        number(name.to_string(), host.bases[n] as u128, ours.bases[n] as u128);
    }
    for (n, name) in NAMES.iter().enumerate() {
        number(name.to_string(), host.regs[n] as u128, ours.regs[n] as u128);
    }
    number("mxcsr".into(), host.fx.mxcsr() as u128, ours.fx.mxcsr() as u128);
    number("fcw".into(), host.fx.control() as u128, ours.fx.control() as u128);
    number("fsw".into(), host.fx.status() as u128, ours.fx.status() as u128);
    number("ftw".into(), host.fx.tags() as u128, ours.fx.tags() as u128);
    number("fop".into(), host.fx.opcode() as u128, ours.fx.opcode() as u128);
    number("fip".into(), host.fx.instruction_pointer() as u128, ours.fx.instruction_pointer() as u128);
    number("fdp".into(), host.fx.data_pointer() as u128, ours.fx.data_pointer() as u128);
    for n in 0..16 {
        number(format!("xmm{n}"), host.fx.xmm(n), ours.fx.xmm(n));
    }
    for n in 0..8 {
        number(format!("st{n}"), host.fx.st(n), ours.fx.st(n));
    }
    if host.memory != ours.memory {
        let pairs = host.memory.iter().zip(&ours.memory).enumerate();
        for (at, (host, ours)) in pairs.filter(|(_, (host, ours))| host != ours).take(16) {
            lines.push(format!("[{:#x}] host {host:02x} ours {ours:02x}", LAYOUT.linear(at)));
        }
    }
    lines
}

/// A mismatch with everything that went in.
pub fn describe(case: &Case, i: &Instruction, host: &Outcome, differences: &[String]) -> String {
    let mut text = String::new();
    let mut assembly = String::new();
    NasmFormatter::new().format(i, &mut assembly);
    let bytes: Vec<String> = case.code.iter().map(|byte| format!("{byte:02x}")).collect();
    let _ = writeln!(text, "--- {} ({:?}) bytes {} at {:#x}", assembly, i.code(), bytes.join(" "), case.at);
    for (n, name) in NAMES.iter().enumerate() {
        let _ = write!(text, "{name}={:#x} ", case.regs[n]);
    }
    let _ = writeln!(text, "rflags={:#x}", case.rflags);
    for (n, name) in SEGMENTS.iter().enumerate() {
        let _ = write!(text, "{name}={:#x} ", case.selectors[n]);
    }
    let _ = writeln!(text, "fs base={:#x} gs base={:#x}", case.bases[0], case.bases[1]);
    let fx = &case.fx;
    let vectors = (0..i.op_count()).map(|n| i.op_register(n)).filter(|register| register.is_xmm());
    for register in vectors {
        let number = register.number();
        let _ = write!(text, "xmm{number}={:#x} ", fx.xmm(number));
    }
    if i.is_invalid() || Set::of(i.code()) >= Set::X87 {
        let (mxcsr, control, status, tags) = (fx.mxcsr(), fx.control(), fx.status(), fx.tags());
        let _ = write!(text, "mxcsr={mxcsr:#x} fcw={control:#x} fsw={status:#x} ftw={tags:#x} ");
        for n in 0..8 {
            let _ = write!(text, "st{n}={:#x} ", fx.st(n));
        }
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "host: vector {} error {:#x} cr2 {:#x} rip {:#x}",
        host.vector, host.error, host.cr2, host.rip
    );
    for line in differences {
        let _ = writeln!(text, "    {line}");
    }
    text
}
