//! Whether the guest can execute a file: said before it boots, and in words, for the kernel says ENOENT whatever is missing.

use object::elf;
use object::read::elf::{ElfFile32, ElfFile64, FileHeader};

use crate::deb::{Content, Member};
use crate::error::{Error, Result};
use crate::programs::needed;

/// `has` tells whether a library, by its name, or an interpreter, by its path without a leading slash, is there.
pub(crate) fn check(path: &str, bytes: &[u8], has: &dyn Fn(&str) -> bool) -> Result<()> {
    let bad = |why: String| Err(Error::BadProgram { program: path.into(), why });
    if let Some(script) = bytes.strip_prefix(b"#!") {
        let line = String::from_utf8_lossy(script.split(|byte| *byte == b'\n').next().unwrap_or_default());
        let interpreter = line.split_whitespace().next().unwrap_or_default().to_owned();
        let inner = crate::programs::merged(std::path::Path::new(interpreter.trim_start_matches('/')));
        if !has(&inner.to_string_lossy()) {
            return bad(format!(
                "its interpreter {interpreter} is not in the guest: name its package in programs"
            ));
        }
        return Ok(());
    }
    let machine = match machine(bytes) {
        None => return Ok(()),
        Some(machine) => machine,
    };
    if ![elf::EM_X86_64, elf::EM_386].contains(&machine) {
        return bad(format!("is for another processor ({}): the guest's is x86-64", name(machine)));
    }
    let member = Member { path: path.into(), mode: 0, content: Content::File(bytes.to_vec()) };
    let missing: Vec<String> = needed(&member).into_iter().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    bad(format!(
        "needs {}, which the guest does not have: name the Debian package that has it in programs, or link statically",
        missing.join(", ")
    ))
}

/// The processor that an ELF file is for; none of other files.
fn machine(bytes: &[u8]) -> Option<elf::Machine> {
    if let Ok(file) = ElfFile64::<object::Endianness>::parse(bytes) {
        return Some(file.elf_header().e_machine(file.endian()));
    }
    let file = ElfFile32::<object::Endianness>::parse(bytes).ok()?;
    Some(file.elf_header().e_machine(file.endian()))
}

fn name(machine: elf::Machine) -> String {
    match machine {
        elf::EM_AARCH64 => "AArch64".to_owned(),
        elf::EM_ARM => "ARM".to_owned(),
        elf::EM_RISCV => "RISC-V".to_owned(),
        elf::EM_PPC64 => "PowerPC".to_owned(),
        elf::EM_S390 => "S/390".to_owned(),
        other => format!("ELF machine {}", other.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(bytes: &[u8], has: &[&str]) -> String {
        let has = |name: &str| has.contains(&name);
        check("/a", bytes, &has).map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn a_program_for_another_processor_is_refused() {
        let mut agent = crate::AGENT.to_vec();
        assert_eq!(why(&agent, &[]), "fine");
        // e_machine: offset 18 of the header.
        agent[18..20].copy_from_slice(&elf::EM_AARCH64.0.to_le_bytes());
        assert!(why(&agent, &[]).contains("another processor (AArch64)"), "{}", why(&agent, &[]));
    }

    #[test]
    fn what_a_program_misses_is_named() {
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let missing = why(&this, &["ld-linux-x86-64.so.2"]);
        assert!(missing.contains("libc.so.6") && !missing.contains("ld-linux"), "{missing}");
        assert!(why(b"#!/bin/sh -e\nexit\n", &[]).contains("its interpreter /bin/sh is not in the guest"));
        assert_eq!(why(b"#!/bin/sh -e\nexit\n", &["usr/bin/sh"]), "fine");
        assert_eq!(why(b"any data", &[]), "fine");
    }
}
