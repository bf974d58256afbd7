//! Single steps and breakpoints.

use crate::harness::arena::{self, DATA, TARGET};
use crate::harness::entry::Entry;
use crate::harness::report::{Group, Report};
use crate::harness::{RAX, RBX, RCX, RDI, code, write_msr};

const TF: u64 = 1 << 8;

pub fn run(report: &Report) {
    report.group("step", steps);
    report.group("breakpoint", breakpoints);
}

fn steps(group: &mut Group) {
    let codes = [
        ("nop", code!("nop", "nop")),
        ("popfq", code!("popfq", "nop")),
        ("mov-ss", code!("mov ecx, ss", "mov ss, ecx", "nop", "nop")),
        ("rep", code!("mov ecx, 3", "rep stosb", "nop")),
        ("ud2", code!("ud2")),
        ("pushfq", code!("pushfq", "pop rbx")),
        ("cpuid", code!("xor eax, eax", "nop")),
        ("jump", code!("jmp 2f", "ud2", "2: nop")),
    ];
    for (name, code) in codes {
        for cpl in [0, 3] {
            group.case(format_args!("{name} cpl {cpl}"), Entry::at(code, cpl).flags(TF).set(RDI, DATA));
        }
    }
    let set = code!("pushfq", "bts qword ptr [rsp], 8", "popfq", "nop", "nop");
    group.case(format_args!("set by popfq"), Entry::at(set, 0));
    let shadow =
        code!("mov ecx, ss", "pushfq", "bts qword ptr [rsp], 8", "popfq", "mov ss, ecx", "nop", "nop");
    group.case(format_args!("set, then mov ss"), Entry::at(shadow, 0));
    let shadow =
        code!("pushfq", "bts qword ptr [rsp], 8", "mov ecx, ss", "mov ss, ecx", "popfq", "nop", "nop");
    group.case(format_args!("set in the shadow of mov ss"), Entry::at(shadow, 0));
    let clear = code!("pushfq", "btr qword ptr [rsp], 8", "popfq", "nop", "nop");
    group.case(format_args!("cleared by popfq"), Entry::at(clear, 0));
    let string = code!("pushfq", "bts qword ptr [rsp], 8", "mov ecx, 3", "popfq", "rep stosb", "nop");
    group.case(format_args!("rep"), Entry::at(string, 0).set(RDI, DATA));
    let int = code!("pushfq", "bts qword ptr [rsp], 8", "popfq", "int 0x40");
    group.case(format_args!("int"), Entry::at(int, 0));
    let iret = code!("mov rax, rsp", "push rcx", "push rax", "push 0x102", "push rdx", "push rbx", "iretq");
    let entry = Entry::at(iret, 0).set(RCX, 0x10).set(2, 0x08).set(RBX, TARGET);
    group.case(format_args!("set by iretq"), entry);
    let target = TARGET;
    let call = code!("syscall");
    for mask in [0, TF] {
        let prepare = |_: &mut Entry| {
            write_msr(0xc000_0082, target);
            write_msr(0xc000_0084, mask);
        };
        group.with(format_args!("syscall mask {mask:x}"), Entry::at(call, 3).flags(TF), prepare, |_| {});
    }
}

/// DR7 for register 0: enabled, with kind and length.
fn control(kind: u64, length: u64) -> u64 {
    0x401 | kind << 16 | length << 18
}

fn breakpoints(group: &mut Group) {
    let arm = |code| {
        // RAX: where, RBX: DR7.
        Entry::at(code, 0).set(RDI, DATA + 8)
    };
    let store = code!("mov dr0, rax", "mov dr7, rbx", "mov [rdi], cl", "nop");
    let load = code!("mov dr0, rax", "mov dr7, rbx", "mov cl, [rdi]", "nop");
    let wide = code!("mov dr0, rax", "mov dr7, rbx", "mov [rdi], rcx", "nop");
    let push = code!("mov dr0, rax", "mov dr7, rbx", "push rcx", "pop rcx");
    for (name, code) in [("store", store), ("load", load), ("wide store", wide)] {
        for (kind, kind_name) in [(1, "write"), (3, "access")] {
            for (length, bytes) in [(0, 1), (1, 2), (3, 4), (2, 8)] {
                for offset in [0u64, 7, 8, 9, 15, 16] {
                    let entry =
                        arm(code).set(RAX, (DATA + offset) & !(bytes - 1)).set(RBX, control(kind, length));
                    let what = format_args!("{name} {kind_name} of {bytes} at {}", offset & !(bytes - 1));
                    group.case(what, entry);
                }
            }
        }
    }
    let entry = arm(push).set(RAX, arena::STACK - 8).set(RBX, control(1, 2));
    group.case(format_args!("push"), entry);
    let string = code!("mov dr0, rax", "mov dr7, rbx", "mov ecx, 4", "rep stosb", "nop");
    group.case(format_args!("rep stosb"), arm(string).set(RAX, DATA + 9).set(RBX, control(1, 0)));
    let execute = code!("mov dr0, rax", "mov dr7, rbx", "nop", "nop", "nop");
    for offset in 5..9 {
        let entry = arm(execute).set(RAX, arena::CODE + offset).set(RBX, control(0, 0));
        group.case(format_args!("execute at {offset}"), entry);
    }
    let entry = arm(execute).set(RAX, arena::CODE + 7).set(RBX, control(0, 0)).flags(1 << 16);
    group.case(format_args!("execute with RF set before"), entry);
    let detect = code!("mov dr7, rbx", "mov rax, dr0");
    group.case(format_args!("general detect"), arm(detect).set(RBX, 0x2400));
    let not_enabled = arm(store).set(RAX, DATA + 8).set(RBX, control(1, 0) & !1);
    group.case(format_args!("not enabled"), not_enabled);
}
