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
        let unit = context.find_dwarf_and_unit(*address).skip_all_loads();
        let directory = unit.as_ref().and_then(|unit| unit.comp_dir.as_ref());
        let directory = directory.map(|directory| directory.to_string_lossy());
        Some(format!(" at {}:{}", within(location.file?, directory.as_deref()), location.line?))
    };
    Some(addresses.iter().map(|address| line(address).unwrap_or_default()).collect())
}

/// A file as seen from the directory of the build: where that lies on some host is nobody's business.
fn within<'f>(file: &'f str, directory: Option<&str>) -> &'f str {
    let below = directory.and_then(|directory| file.strip_prefix(directory)?.strip_prefix('/'));
    let below = below.unwrap_or(file);
    below.strip_prefix("./").unwrap_or(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_seen_from_the_directory_of_the_build() {
        assert_eq!(within("/home/me/linux/fs/dax.c", Some("/home/me/linux")), "fs/dax.c");
        assert_eq!(within("/home/me/linux/./fs/dax.c", Some("/home/me/linux")), "fs/dax.c");
        assert_eq!(within("./fs/dax.c", Some(".")), "fs/dax.c");
        assert_eq!(
            within("/home/me/linux-old/fs/dax.c", Some("/home/me/linux")),
            "/home/me/linux-old/fs/dax.c"
        );
        assert_eq!(within("fs/dax.c", None), "fs/dax.c");
    }

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
