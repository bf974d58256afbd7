//! Call stacks of the programs in the initramfs. Nobody tells where the guest's kernel has put a program or a library:
//! that is found by its code. Frames are found by `.eh_frame`, which every compiler for x86-64 writes (System V ABI,
//! x86-64 supplement, 4.2.4), functions by the symbol tables, lines of the source by DWARF, where a program has it.

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SegmentFlags, SymbolKind};

use crate::user_stack::Read;
use crate::user_unwind::{Frames, UserRegisters};

/// Longer stacks are cut: user memory is whatever the guest made it.
const DEEPEST: usize = 64;
const PAGE: u64 = 4096;
/// Code that has to be the same for a program to be known by it, at most and at least, in bytes. A page's border cuts it.
const WINDOW: u64 = 64;
const LEAST: usize = 16;

/// The programs and shared libraries that a guest has.
#[derive(Default)]
pub(crate) struct UserPrograms {
    programs: Vec<Program>,
}

struct Program {
    /// The last part of its path.
    name: String,
    file: Vec<u8>,
    /// Executable segments: the address that they are linked to, and what is there.
    code: Vec<(u64, Vec<u8>)>,
    /// Address, size and name, by address.
    functions: Vec<(u64, u64, String)>,
}

/// A place in a program: the address as linked, and what has to be added for the address in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    program: usize,
    linked: u64,
    base: u64,
}

impl UserPrograms {
    /// From all files of an initramfs, by path; those that are no ELF files for x86-64 are left out.
    pub(crate) fn new<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> UserPrograms {
        let programs = files.filter(|(path, _)| *path != "init" && !path.ends_with(".ko"));
        UserPrograms { programs: programs.filter_map(|(path, file)| Program::new(path, file)).collect() }
    }

    /// The stack of a program, innermost first: `function+0x12 [program] at file.c:7`.
    pub(crate) fn stack(&self, registers: UserRegisters, read: Read) -> Vec<String> {
        let mut frames = Vec::new();
        let mut bases: Vec<(usize, u64)> = Vec::new();
        let mut next = Some(registers);
        while let Some(registers) = next.filter(|_| frames.len() < DEEPEST) {
            // A return address stands behind its call.
            let behind = u64::from(!frames.is_empty());
            let place = registers.rip.checked_sub(behind).and_then(|rip| self.find(rip, &mut bases, read));
            let Some(place) = place else {
                if frames.is_empty() {
                    frames.push(format!("{:#x} [user]", registers.rip));
                }
                break;
            };
            let program = &self.programs[place.program];
            frames.extend(program.describe(place.linked, behind));
            next = program.frames().and_then(|unwinder| unwinder.caller(&registers, place.linked, read));
        }
        frames
    }

    /// What stands at an address. Code that several programs have is that of one that is known to be there.
    fn find(&self, rip: u64, bases: &mut Vec<(usize, u64)>, read: Read) -> Option<Place> {
        let page = rip & !(PAGE - 1);
        let from = (rip.saturating_sub(WINDOW / 2) & !7).max(page);
        let to = (from + WINDOW).min(page + PAGE);
        let words: Option<Vec<u64>> = (from..to).step_by(8).map(read).collect();
        let window: Vec<u8> = words?.into_iter().flat_map(u64::to_le_bytes).collect();
        let mut places = self.programs.iter().enumerate().flat_map(|(number, program)| {
            program.find(from, &window).map(move |linked| Place {
                program: number,
                linked: linked.wrapping_add(rip - from),
                base: from.wrapping_sub(linked),
            })
        });
        let all: Vec<Place> = places.by_ref().take(64).collect();
        let known = |place: &&Place| bases.contains(&(place.program, place.base));
        let place = *all.iter().find(known).or(all.first())?;
        bases.push((place.program, place.base));
        Some(place)
    }
}

impl Program {
    fn new(path: &str, file: &[u8]) -> Option<Program> {
        if !file.starts_with(b"\x7fELF") {
            return None;
        }
        let elf = object::File::parse(file).ok()?;
        if elf.architecture() != object::Architecture::X86_64 {
            return None;
        }
        let executable = |segment: &object::Segment| matches!(segment.flags(), SegmentFlags::Elf { p_flags, .. } if p_flags.0 & object::elf::PF_X.0 != 0);
        let code = elf.segments().filter(executable);
        let code: Vec<(u64, Vec<u8>)> =
            code.filter_map(|segment| Some((segment.address(), segment.data().ok()?.to_vec()))).collect();
        let symbols = elf.symbols().chain(elf.dynamic_symbols());
        let text = symbols.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
        let mut functions: Vec<(u64, u64, String)> = text
            .filter(|symbol| symbol.size() != 0)
            .filter_map(|symbol| {
                let name = format!("{:#}", rustc_demangle::demangle(symbol.name().ok()?));
                Some((symbol.address(), symbol.size(), name))
            })
            .collect();
        functions.sort();
        functions.dedup_by_key(|(address, ..)| *address);
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Some(Program { name, file: file.to_vec(), code, functions })
    }

    /// Where in the program, as linked, this code of one page of memory can stand.
    fn find<'a>(&'a self, from: u64, window: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        self.code.iter().flat_map(move |(address, bytes)| {
            let end = address + bytes.len() as u64;
            let first = (address & !(PAGE - 1)) + from % PAGE;
            (first..end).step_by(PAGE as usize).filter(move |linked| {
                // A segment may begin or end in the middle of the window.
                let skip = address.saturating_sub(*linked).min(window.len() as u64) as usize;
                let at = (linked + skip as u64 - address) as usize;
                let len = (window.len() - skip).min(bytes.len().saturating_sub(at));
                len >= LEAST && bytes[at..at + len] == window[skip..skip + len]
            })
        })
    }

    /// The function that holds the address, and the line; before it those that the compiler has put into it. It is
    /// `behind` bytes before the address that is told.
    fn describe(&self, linked: u64, behind: u64) -> Vec<String> {
        let after = self.functions.partition_point(|(address, ..)| *address <= linked);
        let function = after.checked_sub(1).map(|at| &self.functions[at]);
        let name = match function.filter(|(address, size, _)| linked - address < *size) {
            Some((address, _, name)) => format!("{name}+{:#x}", linked + behind - address),
            None => format!("{:#x}", linked + behind),
        };
        let mut lines = self.lines(linked).unwrap_or_default();
        let (_, line) = lines.pop().unwrap_or_default();
        let inlined = lines.into_iter().map(|(name, line)| format!("{name} [{}]{line}", self.name));
        inlined.chain([format!("{name} [{}]{line}", self.name)]).collect()
    }

    /// Functions and ` at file.c:7`, the innermost first.
    fn lines(&self, linked: u64) -> Option<Vec<(String, String)>> {
        let elf = object::File::parse(self.file.as_slice()).ok()?;
        let section = |id: gimli::SectionId| -> Result<EndianSlice<LittleEndian>, gimli::Error> {
            let data = elf.section_by_name(id.name()).and_then(|section| section.data().ok());
            Ok(EndianSlice::new(data.unwrap_or_default(), LittleEndian))
        };
        let context = addr2line::Context::from_dwarf(gimli::Dwarf::load(section).ok()?).ok()?;
        let mut frames = context.find_frames(linked).skip_all_loads().ok()?;
        let mut lines = Vec::new();
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.and_then(|function| Some(function.raw_name().ok()?.into_owned()));
            let name = name.map_or("?".to_owned(), |name| format!("{:#}", rustc_demangle::demangle(&name)));
            let line = frame.location.and_then(|location| {
                let file = location.file?;
                Some(format!(" at {}:{}", file.strip_prefix("./").unwrap_or(file), location.line?))
            });
            lines.push((name, line.unwrap_or_default()));
        }
        Some(lines)
    }

    fn frames(&self) -> Option<Frames<'_>> {
        let elf = object::File::parse(self.file.as_slice()).ok()?;
        let section = elf.section_by_name(".eh_frame")?;
        Some(Frames::new(section.address(), section.data().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test as a program in memory, `base` bytes above where it is linked.
    #[inline(never)]
    fn this(base: u64) -> (UserPrograms, impl Fn(u64) -> Option<u64>) {
        let file = std::fs::read(std::env::current_exe().expect("it has a path")).expect("it can be read");
        let programs = UserPrograms::new([("usr/bin/this", file.as_slice())].into_iter());
        let code = programs.programs[0].code.clone();
        let read = move |address: u64| {
            let linked = address.checked_sub(base)?;
            code.iter().find_map(|(start, bytes)| {
                let at = usize::try_from(linked.checked_sub(*start)?).ok()?;
                Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
            })
        };
        (programs, read)
    }

    #[test]
    fn a_program_is_known_by_its_code_wherever_it_is() {
        for base in [0, 0x5555_5555_4000] {
            let (programs, read) = this(base);
            let wanted = "user_programs::tests::this";
            let (address, _, name) = programs.programs[0]
                .functions
                .iter()
                .find(|(.., name)| name.contains(wanted) && !name.contains("{closure"))
                .expect("this test has the function");
            let registers = UserRegisters { rip: base + address + 4, ..UserRegisters::default() };
            let stack = programs.stack(registers, &read);
            let told = format!("{name}+0x4 [this]");
            assert!(stack.iter().any(|frame| frame.starts_with(&told)), "{stack:?}");
            assert!(stack[0].contains("user_programs.rs:"), "{stack:?}");
        }
    }

    #[test]
    fn of_code_that_no_program_has_the_address_is_told() {
        let (programs, _) = this(0);
        let registers = UserRegisters { rip: 0x1234, ..UserRegisters::default() };
        assert_eq!(programs.stack(registers, &|_| Some(0x1111_2222_3333_4444)), ["0x1234 [user]"]);
        assert_eq!(programs.stack(registers, &|_| None), ["0x1234 [user]"]);
        assert_eq!(UserPrograms::default().stack(registers, &|_| Some(0)), ["0x1234 [user]"]);
    }

    #[test]
    fn files_that_are_no_programs_are_left_out() {
        let files: [(&str, &[u8]); 3] =
            [("etc/passwd", b"root"), ("usr/bin/x", b"\x7fELF"), ("init", b"\x7fELF")];
        assert!(UserPrograms::new(files.into_iter()).programs.is_empty());
    }
}
