//! How payloads are found in files, loaded and told what they need: multiboot 1 and PVH.

use vmm::{BootProtocol, Module};

use crate::{payload, qemu};

/// Offsets in the header of multiboot.
const FLAGS: usize = 4;
const CHECKSUM: usize = 8;
const MULTIBOOT_MAGIC: u32 = 0x1bad_b002;
const PAGE_ALIGNED: u32 = 1;

/// The file with other flags in its multiboot header.
pub fn with_flags(mut file: Vec<u8>, flags: u32) -> Vec<u8> {
    let at = file.windows(4).step_by(4).position(|word| word == MULTIBOOT_MAGIC.to_le_bytes()).unwrap() * 4;
    let checksum = MULTIBOOT_MAGIC.wrapping_add(flags).wrapping_neg();
    file[at + FLAGS..at + FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
    file[at + CHECKSUM..at + CHECKSUM + 4].copy_from_slice(&checksum.to_le_bytes());
    file
}

/// The same segments in an ELF file for i386. The header of multiboot stays where it is in the file.
pub fn as_elf32(file: &[u8]) -> Vec<u8> {
    const HEADER: usize = 52;
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_le_bytes(file[at..at + 2].try_into().unwrap());
    // Of the ELF64 header: e_entry, e_phoff, e_phnum.
    let (entry, headers, count) = (word(24), word(32) as usize, half(56));
    let mut elf = file.to_vec();
    elf[4] = 1;
    let mut fixed = [3u16.to_le_bytes()].concat();
    fixed.extend(1u32.to_le_bytes());
    fixed.extend([entry, HEADER as u32, 0, 0].map(u32::to_le_bytes).concat());
    fixed.extend([HEADER as u16, 32, count, 40, 0, 0].map(u16::to_le_bytes).concat());
    for index in 0..usize::from(count) {
        let at = headers + 56 * index;
        // Of the ELF64 program header: type, flags, offset, virtual and physical address, sizes, alignment.
        let [kind, flags] = [word(at), word(at + 4)];
        let [offset, linear, physical, in_file, in_memory, align] =
            [8, 16, 24, 32, 40, 48].map(|field| word(at + field));
        fixed.extend(
            [kind, offset, linear, physical, in_file, in_memory, flags, align].map(u32::to_le_bytes).concat(),
        );
    }
    elf[18..18 + fixed.len()].copy_from_slice(&fixed);
    elf
}

fn module() -> Module {
    Module { bytes: b"hello\n".to_vec(), command_line: "hello.txt with arguments".to_owned() }
}

/// What the payload tells of what it was given.
fn given(kernel: Vec<u8>, protocol: BootProtocol) -> String {
    // Only multiboot tells the name of the payload.
    let line = if protocol == BootProtocol::Pvh { "given to it" } else { "bare.elf given to it" };
    let config = payload::config(kernel, protocol, line, &[module(), Module::default()]);
    payload::output(&config, 0)
}

const MULTIBOOT: [&str; 10] = [
    "multiboot flags 0x24d",
    "memory: 640 KiB below, 261120 KiB above 1 MiB",
    "command line: bare.elf given to it",
    "loader: pmemsim",
    "module: 6 bytes of sum 542, page-aligned: hello.txt with arguments",
    "module: 0 bytes of sum 0, page-aligned: ",
    "map: 0xa0000 bytes at 0x0, kind 1",
    "map: 0x60000 bytes at 0xa0000, kind 2",
    "map: 0xff00000 bytes at 0x100000, kind 1",
    "firmware: memory 0x10000000, processors 1, at most 1",
];

#[track_caller]
fn assert_lines(text: &str, expected: &[&str]) {
    let lines: Vec<&str> = text.lines().take(expected.len()).collect();
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn multiboot_loads_by_the_addresses_of_the_header() {
    assert_eq!(vmm::bare_protocol(&payload::bytes()), Some(BootProtocol::Multiboot));
    assert_lines(&given(payload::bytes(), BootProtocol::Multiboot), &MULTIBOOT);
}

#[test]
fn multiboot_loads_64_bit_and_32_bit_elf_files() {
    let without_addresses = with_flags(payload::bytes(), PAGE_ALIGNED);
    for file in [as_elf32(&without_addresses), without_addresses] {
        assert_eq!(vmm::bare_protocol(&file), Some(BootProtocol::Multiboot));
        assert_lines(&given(file, BootProtocol::Multiboot), &MULTIBOOT);
    }
}

#[test]
fn multiboot_loads_what_is_no_elf_file_by_its_addresses() {
    let mut file = payload::bytes();
    file[..4].fill(0);
    assert_eq!(vmm::bare_protocol(&file), Some(BootProtocol::Multiboot));
    assert_lines(&given(file, BootProtocol::Multiboot), &MULTIBOOT);
}

#[test]
fn pvh_loads_64_bit_and_32_bit_elf_files_by_their_note() {
    // Without a multiboot header that would come first.
    let mut file = payload::bytes();
    let at = file.windows(4).position(|word| word == MULTIBOOT_MAGIC.to_le_bytes()).unwrap();
    file[at] = 0;
    for file in [as_elf32(&file), file] {
        assert_eq!(vmm::bare_protocol(&file), Some(BootProtocol::Pvh));
        assert_lines(
            &given(file, BootProtocol::Pvh),
            &[
                "PVH version 1",
                "command line: given to it",
                "RSDP: there",
                MULTIBOOT[4],
                MULTIBOOT[5],
                MULTIBOOT[6],
                MULTIBOOT[7],
                MULTIBOOT[8],
                MULTIBOOT[9],
            ],
        );
    }
}

#[test]
fn the_payload_is_given_the_same_by_qemu() {
    let Some(version) = qemu::version_or_say() else { return };
    let module = payload::file().with_file_name("module");
    std::fs::write(&module, b"hello\n").unwrap();
    let (file, module) = (payload::file().display(), module.display());
    let theirs = qemu::output(payload::file(), "given to it", Some(&format!("{module} with arguments")), 0);
    let modules = [Module { bytes: b"hello\n".to_vec(), command_line: format!("{module} with arguments") }];
    let line = format!("{file} given to it");
    let ours =
        payload::output(&payload::config(payload::bytes(), BootProtocol::Multiboot, &line, &modules), 0);
    for start in ["command line: ", "module: ", "firmware: ", "second serial line: "] {
        let lines = |text: &str| {
            text.lines().filter(|line| line.starts_with(start)).map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(lines(&ours), lines(&theirs), "{version}");
    }
}

#[test]
fn the_value_at_the_debug_exit_port_ends_the_run() {
    let config = payload::config(payload::bytes(), BootProtocol::Multiboot, "bare.elf exit 21", &[]);
    assert_eq!(payload::output(&config, 21), "");
}
