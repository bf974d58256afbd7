//! User stacks of the guest agent, which is built with frame pointers and keeps its symbols (images/build.rs), and the
//! registers that a kernel stack keeps of the program that entered it. Other programs: `user_programs.rs`.

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use crate::user_unwind::UserRegisters;

/// Longer stacks are cut: user memory is whatever the guest made it.
const DEEPEST: usize = 64;
/// End of the user's half of the linear addresses (Intel SDM volume 1, 3.3.7.1).
const USER_END: u64 = 1 << 47;
/// Size and alignment of a kernel stack: THREAD_SIZE in arch/x86/include/asm/page_64_types.h, without KASAN.
const KERNEL_STACK: u64 = 16 << 10;
/// `struct pt_regs` of an entry from user mode lies at the very top of the kernel stack: its size, and the offsets of
/// RBP, RIP and CS (arch/x86/include/asm/ptrace.h).
const PT_REGS: u64 = 168;
const PT_REGS_RBP: u64 = 32;
const PT_REGS_RIP: u64 = 128;
const PT_REGS_RSP: u64 = 152;
/// The others, in the order of `struct pt_regs`, by the numbers of their encoding.
const PT_REGS_GENERAL: [usize; 15] = [15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7];
const PT_REGS_CS: u64 = 136;

/// Reads a word of guest memory at a linear address.
pub(crate) type Read<'a> = &'a dyn Fn(u64) -> Option<u64>;

/// The guest agent's code and its functions.
pub(crate) struct Agent {
    /// By address, none twice.
    functions: Vec<Function>,
    sections: Vec<(u64, Vec<u8>)>,
}

struct Function {
    address: u64,
    size: u64,
    name: String,
}

impl Agent {
    /// From an ELF file; one that cannot be read has no functions.
    pub(crate) fn new(elf: &[u8]) -> Agent {
        let mut agent = Agent { functions: Vec::new(), sections: Vec::new() };
        let Ok(file) = object::File::parse(elf) else { return agent };
        agent.functions.extend(
            file.symbols()
                .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
                .filter(|symbol| symbol.size() != 0)
                .filter_map(|symbol| {
                    // The alternate form leaves hashes out.
                    let name = format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?));
                    Some(Function { address: symbol.address(), size: symbol.size(), name })
                }),
        );
        agent.functions.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
        agent.functions.dedup_by_key(|function| function.address);
        agent.sections.extend(
            file.sections()
                .filter(|section| section.kind() == object::SectionKind::Text)
                .filter_map(|section| Some((section.address(), section.data().ok()?.to_vec()))),
        );
        agent
    }

    /// The function that holds the address, and the offset in it.
    pub(crate) fn function_at(&self, address: u64) -> Option<(&str, u64)> {
        let behind = self.functions.partition_point(|function| function.address <= address);
        let function = self.functions.get(behind.checked_sub(1)?)?;
        let offset = address - function.address;
        (offset < function.size).then_some((&function.name, offset))
    }

    /// The stack of a user program: `function+0x12 [agent]`, innermost first. `rip` is the instruction to go on with.
    pub(crate) fn stack(&self, rip: u64, rbp: u64, read: Read) -> Vec<String> {
        let addresses = addresses(rip, rbp, read);
        let Some(first) = self.frame(rip, 0, read) else { return vec![format!("{rip:#x} [user]")] };
        // Where the agent's frames end, RBP may be anything: what follows would be no stack.
        let callers = addresses[1..].iter().map_while(|&address| self.frame(address, 1, read));
        std::iter::once(first).chain(callers).collect()
    }

    /// Whether the guest executes the agent's code there.
    pub(crate) fn is_running(&self, rip: u64, read: Read) -> bool {
        self.function_at(rip).is_some() && self.is_at(rip, read)
    }

    /// The address in words. It counts to the function that holds what is `behind` bytes before it: a return address
    /// to that with the call.
    fn frame(&self, address: u64, behind: u64, read: Read) -> Option<String> {
        let inside = address.checked_sub(behind)?;
        let (name, offset) = self.function_at(inside).filter(|_| self.is_at(inside, read))?;
        Some(format!("{name}+{:#x} [agent]", offset + behind))
    }

    /// The stack of the user program that entered the kernel and will go on at `rip`, from the registers saved at the
    /// top of the kernel stack that `rsp` points into. The C library's system calls have no frame: their caller is
    /// left out.
    pub(crate) fn stack_behind_kernel(&self, rip: u64, rsp: u64, read: Read) -> Vec<String> {
        self.stack(rip, saved_rbp(rip, rsp, read).unwrap_or(0), read)
    }

    /// Whether the guest has the agent's code at this address: another program may be linked to the same place.
    fn is_at(&self, address: u64, read: Read) -> bool {
        // Aligned words lie in the page that is being executed, which is present.
        let word = address & !7;
        let bytes = self.sections.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(word.checked_sub(*start)?).ok()?;
            bytes.get(offset..offset.checked_add(8)?)
        });
        bytes.is_some_and(|bytes| read(word).is_some_and(|found| found.to_le_bytes() == *bytes))
    }
}

/// `rip`, then the return addresses in the chain of frames that RBP leads to.
fn addresses(rip: u64, rbp: u64, read: Read) -> Vec<u64> {
    let mut addresses = vec![rip];
    let mut frame = rbp;
    while addresses.len() < DEEPEST && frame != 0 && frame < USER_END {
        let (Some(next), Some(back)) = (read(frame), read(frame + 8)) else { break };
        if back == 0 {
            break;
        }
        addresses.push(back);
        if next <= frame {
            break;
        }
        frame = next;
    }
    addresses
}

/// The registers of the user program that entered the kernel and will go on at `rip`, from the kernel stack that `rsp`
/// points into; none where they are not expected.
pub(crate) fn saved_registers(rip: u64, rsp: u64, read: Read) -> Option<UserRegisters> {
    saved_rbp(rip, rsp, read)?;
    let registers = (rsp & !(KERNEL_STACK - 1)) + KERNEL_STACK - PT_REGS;
    let mut encoded = [0; 16];
    for (number, offset) in PT_REGS_GENERAL.into_iter().zip((0..).step_by(8)) {
        encoded[number] = read(registers + offset)?;
    }
    encoded[4] = read(registers + PT_REGS_RSP)?;
    Some(UserRegisters::new(rip, &encoded))
}

/// The user's RBP, if the saved registers are where they are expected: they must tell the same RIP.
fn saved_rbp(rip: u64, rsp: u64, read: Read) -> Option<u64> {
    let top = (rsp & !(KERNEL_STACK - 1)).checked_add(KERNEL_STACK)?;
    let registers = top - PT_REGS;
    let from_user = read(registers + PT_REGS_CS)? & 3 == 3;
    let same = read(registers + PT_REGS_RIP)? == rip;
    (from_user && same).then(|| read(registers + PT_REGS_RBP)).flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const STACK: u64 = 0x7fff_0000;

    fn function(address: u64, size: u64, name: &str) -> Function {
        Function { address, size, name: name.to_owned() }
    }

    /// Two functions at 0x1000 with a hole between them; all code is 0x90.
    fn agent() -> Agent {
        Agent {
            functions: vec![function(0x1000, 0x20, "store"), function(0x1040, 0x40, "run")],
            sections: vec![(0x1000, vec![0x90; 0x80])],
        }
    }

    /// The agent's code, and these words.
    fn memory(words: &[(u64, u64)]) -> impl Fn(u64) -> Option<u64> {
        let words: BTreeMap<u64, u64> = words.iter().copied().collect();
        move |address| match address {
            0x1000..0x1080 => Some(0x9090_9090_9090_9090),
            _ => words.get(&address).copied(),
        }
    }

    #[test]
    fn addresses_belong_to_the_function_around_them() {
        let agent = agent();
        assert_eq!(agent.function_at(0x1000), Some(("store", 0)));
        assert_eq!(agent.function_at(0x101f), Some(("store", 0x1f)));
        assert_eq!(agent.function_at(0x1020), None);
        assert_eq!(agent.function_at(0x1050), Some(("run", 0x10)));
        assert_eq!((agent.function_at(0xfff), agent.function_at(0x1080)), (None, None));
    }

    #[test]
    fn frame_pointers_are_followed_to_the_outermost_frame() {
        let words = [(STACK, STACK + 32), (STACK + 8, 0x1050), (STACK + 32, 0), (STACK + 40, 0x1060)];
        let stack = agent().stack(0x1008, STACK, &memory(&words));
        assert_eq!(stack, ["store+0x8 [agent]", "run+0x10 [agent]", "run+0x20 [agent]"]);
    }

    #[test]
    fn a_return_address_belongs_to_the_call_before_it() {
        let words = [(STACK, 0), (STACK + 8, 0x1020)];
        let stack = agent().stack(0x1040, STACK, &memory(&words));
        assert_eq!(stack, ["run+0x0 [agent]", "store+0x20 [agent]"]);
    }

    #[test]
    fn chains_that_go_down_in_circles_or_astray_end() {
        let down = [(STACK, STACK - 16), (STACK + 8, 0x1050), (STACK - 16, 0), (STACK - 8, 0x1050)];
        assert_eq!(addresses(0x1000, STACK, &memory(&down)), [0x1000, 0x1050]);
        let circle = [(STACK, STACK), (STACK + 8, 0x1050)];
        assert_eq!(addresses(0x1000, STACK, &memory(&circle)), [0x1000, 0x1050]);
        let unmapped = [(STACK, STACK + 0x1000), (STACK + 8, 0x1050)];
        assert_eq!(addresses(0x1000, STACK, &memory(&unmapped)), [0x1000, 0x1050]);
        for rbp in [0, 1, USER_END, u64::MAX] {
            assert_eq!(addresses(0x1000, rbp, &memory(&[])), [0x1000]);
        }
    }

    #[test]
    fn deep_stacks_are_cut() {
        let read = |address: u64| Some(if address.is_multiple_of(16) { address + 16 } else { 0x1050 });
        assert_eq!(addresses(0x1000, STACK, &read).len(), DEEPEST);
    }

    #[test]
    fn nothing_but_the_address_is_told_of_other_programs() {
        let words = [(STACK, 0), (STACK + 8, 0x1050)];
        assert_eq!(agent().stack(0x5000, STACK, &memory(&words)), ["0x5000 [user]"]);
        // Linked to the agent's addresses, but other code.
        let other = |address: u64| if address < STACK { Some(0) } else { memory(&words)(address) };
        assert_eq!(agent().stack(0x1008, STACK, &other), ["0x1008 [user]"]);
        // Behind the agent's frames.
        let words = [(STACK, 0), (STACK + 8, 0x5000)];
        assert_eq!(agent().stack(0x1008, STACK, &memory(&words)), ["store+0x8 [agent]"]);
    }

    #[test]
    fn the_user_behind_a_kernel_stack_is_found_by_its_saved_registers() {
        const TOP: u64 = 0xffff_c900_0000_4000;
        let mut words = vec![(STACK, 0), (STACK + 8, 0x1050)];
        words.extend([(TOP - 136, STACK), (TOP - 40, 0x1008), (TOP - 32, 0x33)]);
        let stack = agent().stack_behind_kernel(0x1008, TOP - 0x300, &memory(&words));
        assert_eq!(stack, ["store+0x8 [agent]", "run+0x10 [agent]"]);
        // Another stack than the task's: what is at its top are not these registers.
        let stack = agent().stack_behind_kernel(0x1010, TOP - 0x300, &memory(&words));
        assert_eq!(stack, ["store+0x10 [agent]"]);
    }

    #[test]
    fn the_functions_of_the_agent_have_names() {
        let agent = Agent::new(images::AGENT);
        let names: Vec<&str> = agent.functions.iter().map(|function| function.name.as_str()).collect();
        for name in [
            "agent_guarded",
            "guest_agent::straight::store",
            "guest_agent::straight::store_non_temporal",
            "guest_agent::straight::run",
            "guest_agent::maps::Map::run",
            "guest_agent::commands::Guest::execute",
            "guest_agent::main",
        ] {
            assert!(names.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_is_not_elf_has_no_functions() {
        assert_eq!(Agent::new(b"#!/bin/sh").function_at(0x1000), None);
    }
}
