//! What differs, in words.

use std::fmt::Write;

use iced_x86::{Formatter, Instruction, NasmFormatter};

use super::case::{Case, LAYOUT, Outcome};

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

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
    for (n, name) in NAMES.iter().enumerate() {
        number(name.to_string(), host.regs[n] as u128, ours.regs[n] as u128);
    }
    number("mxcsr".into(), host.fx.mxcsr() as u128, ours.fx.mxcsr() as u128);
    number("fcw".into(), host.fx.control() as u128, ours.fx.control() as u128);
    number("fsw".into(), host.fx.status() as u128, ours.fx.status() as u128);
    number("ftw".into(), host.fx.tags() as u128, ours.fx.tags() as u128);
    for n in 0..16 {
        number(format!("xmm{n}"), host.fx.xmm(n), ours.fx.xmm(n));
    }
    for n in 0..8 {
        number(format!("st{n}"), host.fx.st(n), ours.fx.st(n));
    }
    if host.memory != ours.memory {
        let pairs = host.memory.iter().zip(&ours.memory).enumerate();
        for (at, (host, ours)) in pairs.filter(|(_, (host, ours))| host != ours).take(16) {
            lines.push(format!("[{:#x}] host {host:02x} ours {ours:02x}", LAYOUT.data.start + at as u64));
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
    let _ = writeln!(text, "--- {} ({:?}) bytes {} at {:#x}", assembly, i.code(), bytes.join(" "), case.rip);
    for (n, name) in NAMES.iter().enumerate() {
        let _ = write!(text, "{name}={:#x} ", case.regs[n]);
    }
    let _ = writeln!(text, "rflags={:#x} gs={:#x}", case.rflags, case.gs_base);
    let fx = &case.fx;
    let uses_vectors = i.op_kinds().count() > 0 && (0..i.op_count()).any(|n| i.op_register(n).is_xmm());
    if uses_vectors {
        for n in (0..i.op_count()).filter(|n| i.op_register(*n).is_xmm()) {
            let number = i.op_register(n).number();
            let _ = write!(text, "xmm{number}={:#x} ", fx.xmm(number));
        }
    }
    if !i.cpuid_features().iter().all(|feature| format!("{feature:?}").starts_with("INTEL")) {
        let _ = write!(
            text,
            "mxcsr={:#x} fcw={:#x} fsw={:#x} ftw={:#x} ",
            fx.mxcsr(),
            fx.control(),
            fx.status(),
            fx.tags()
        );
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
