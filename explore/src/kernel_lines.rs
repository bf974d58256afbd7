//! Lines of the kernel's source, from the DWARF of a vmlinux that has it: those that users build do, Debian's do not.

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use object::{Object, ObjectSection};

/// A vmlinux with DWARF, or nothing.
#[derive(Default)]
pub(crate) struct KernelLines {
    vmlinux: Option<Vec<u8>>,
}

impl KernelLines {
    /// Keeps a vmlinux if it knows its lines.
    pub fn of(vmlinux: &[u8]) -> KernelLines {
        let knows =
            object::File::parse(vmlinux).is_ok_and(|elf| elf.section_by_name(".debug_line").is_some());
        KernelLines { vmlinux: knows.then(|| vmlinux.to_vec()) }
    }

    /// For each instruction ` at file.c:7`, or nothing. Addresses of the kernel as it was linked.
    pub fn find(&self, addresses: &[u64]) -> Vec<String> {
        let found = self.vmlinux.as_ref().and_then(|vmlinux| lines(vmlinux, addresses));
        found.unwrap_or_else(|| vec![String::new(); addresses.len()])
    }
}

fn lines(vmlinux: &[u8], addresses: &[u64]) -> Option<Vec<String>> {
    let elf = object::File::parse(vmlinux).ok()?;
    // Sections may be compressed.
    let load = |id: gimli::SectionId| -> Result<Vec<u8>, gimli::Error> {
        let data = elf.section_by_name(id.name()).and_then(|section| section.uncompressed_data().ok());
        Ok(data.unwrap_or_default().into_owned())
    };
    let sections = gimli::DwarfSections::load(load).ok()?;
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let context = addr2line::Context::from_dwarf(dwarf).ok()?;
    let line = |address: &u64| {
        let location = context.find_location(*address).ok().flatten()?;
        let file = location.file?;
        Some(format!(" at {}:{}", file.strip_prefix("./").unwrap_or(file), location.line?))
    };
    Some(addresses.iter().map(|address| line(address).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_a_program_with_debug_information_has_a_line() {
        // This very program: its functions are known by DWARF as a kernel's are.
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let elf = object::File::parse(program.as_slice()).unwrap();
        let lines = KernelLines::of(&program);
        let named = |name: &str| {
            use object::ObjectSymbol;
            let symbol = elf.symbols().find(|symbol| symbol.name().is_ok_and(|it| it.contains(name)));
            symbol.unwrap().address()
        };
        let found = lines.find(&[named("a_function_to_be_found"), 1 << 62]);
        assert!(found[0].starts_with(" at ") && found[0].contains("kernel_lines.rs:"), "{found:?}");
        assert_eq!(found[1], "");
        assert_eq!(std::hint::black_box(a_function_to_be_found as fn(u64) -> u64)(1), 2);
    }

    #[inline(never)]
    fn a_function_to_be_found(number: u64) -> u64 {
        number + 1
    }

    #[test]
    fn what_has_no_lines_gives_none() {
        assert_eq!(KernelLines::of(b"no ELF file").find(&[1, 2]), ["", ""]);
    }
}
