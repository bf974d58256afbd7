//! Payloads that cannot be loaded: each is refused with an error that says why, and none panics.

use vmm::{BootProtocol, Error, Machine, Module, PayloadError};

use crate::formats::{as_elf32, with_flags};
use crate::payload;

/// Offsets in an ELF64 file: `e_machine`, `e_entry`, and of the first program header `p_offset`, `p_paddr`, `p_filesz`.
const MACHINE: usize = 18;
const ENTRY: usize = 24;
const OFFSET: usize = 64 + 8;
const ADDRESS: usize = 64 + 24;
const SIZE: usize = 64 + 32;
const MEMORY_SIZE: usize = 64 + 40;
/// Flags of the multiboot header: page-aligned modules and nothing else.
const PLAIN: u32 = 1;

fn why(kernel: Vec<u8>, protocol: BootProtocol) -> PayloadError {
    match Machine::new(&payload::config(kernel, protocol, "", &[])) {
        Err(Error::Payload(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was loaded"),
    }
}

/// The payload as an ELF64 file without addresses in its multiboot header, with `bytes` at `at`.
fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = with_flags(payload::bytes(), PLAIN);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

fn refused(at: usize, value: u64) -> PayloadError {
    why(changed(at, &value.to_le_bytes()), BootProtocol::Multiboot)
}

#[test]
fn files_in_no_known_format_are_refused() {
    assert_eq!(why(b"hello".to_vec(), BootProtocol::Pvh), PayloadError::NoFormat);
    assert_eq!(why(b"hello".to_vec(), BootProtocol::Multiboot), PayloadError::NoMultibootHeader);
    assert_eq!(why(changed(0, &[0; 4]), BootProtocol::Multiboot), PayloadError::NoFormat);
    assert!(matches!(why(payload::bytes()[..40].to_vec(), BootProtocol::Pvh), PayloadError::Damaged(_)));
    for file in [&b""[..], b"hello", b"\x7fELF", b"\x7fELF\x02\x01\x01"] {
        assert_eq!(vmm::bare_protocol(file), None);
    }
}

#[test]
fn files_for_other_machines_are_refused() {
    // AArch64, and x86-64 in the other order of bytes.
    assert_eq!(
        why(changed(MACHINE, &[183, 0]), BootProtocol::Multiboot),
        PayloadError::Machine { machine: 183 }
    );
    assert!(matches!(
        why(changed(5, &[2]), BootProtocol::Multiboot),
        PayloadError::Machine { .. } | PayloadError::Damaged(_)
    ));
}

#[test]
fn segments_that_are_not_in_memory_are_refused() {
    assert!(matches!(refused(ADDRESS, 0x1000_0000), PayloadError::OutsideMemory { start: 0x1000_0000, .. }));
    assert!(matches!(refused(ADDRESS, 1 << 40), PayloadError::OutsideMemory { .. }));
    assert!(matches!(refused(ADDRESS, 0u64.wrapping_sub(4096)), PayloadError::Damaged(_)));
    assert!(matches!(refused(MEMORY_SIZE, u64::MAX), PayloadError::Damaged(_)));
    assert!(matches!(refused(MEMORY_SIZE, 1), PayloadError::Damaged(_)));
    // Over the firmware's tables.
    assert!(matches!(refused(ADDRESS, 0xf_0000), PayloadError::OverTables { start: 0xf_0000, .. }));
}

#[test]
fn truncated_files_are_refused() {
    assert!(matches!(refused(OFFSET, 1 << 40), PayloadError::Truncated { .. }));
    assert!(matches!(refused(OFFSET, u64::MAX), PayloadError::Truncated { .. }));
    assert!(matches!(refused(SIZE, 1 << 20), PayloadError::Damaged(_) | PayloadError::Truncated { .. }));
    let whole = payload::bytes();
    for cut in (0..8192).step_by(97) {
        // By the addresses of the header or without them; some are cut in front of the header.
        for file in [whole[..cut].to_vec(), as_elf32(&whole)[..cut].to_vec()] {
            for protocol in [BootProtocol::Multiboot, BootProtocol::Pvh] {
                why(file.clone(), protocol);
            }
            vmm::bare_protocol(&file);
        }
    }
}

#[test]
fn segments_that_overlap_are_refused() {
    // The note becomes a second segment in the middle of the first.
    let note = 64 + 56;
    assert!(matches!(
        why(changed(note, &[1, 0, 0, 0]), BootProtocol::Multiboot),
        PayloadError::Overlap { .. }
    ));
    // The first becomes a note: nothing is left to load.
    assert_eq!(why(changed(64, &[4, 0, 0, 0]), BootProtocol::Multiboot), PayloadError::Empty);
}

#[test]
fn entries_outside_of_what_is_loaded_are_refused() {
    assert_eq!(refused(ENTRY, 0x30_0000), PayloadError::Entry { entry: 0x30_0000 });
    let mut file = payload::bytes();
    let note = file.windows(4).position(|word| word == b"Xen\0").unwrap();
    file[note + 4..note + 8].copy_from_slice(&0x30_0000u32.to_le_bytes());
    assert_eq!(why(file.clone(), BootProtocol::Pvh), PayloadError::Entry { entry: 0x30_0000 });
    file[note] = b'x';
    assert_eq!(why(file, BootProtocol::Pvh), PayloadError::NoPvhEntry);
}

#[test]
fn multiboot_headers_that_ask_for_the_unknown_or_contradict_themselves_are_refused() {
    let flagged = |flags| why(with_flags(payload::bytes(), flags), BootProtocol::Multiboot);
    assert_eq!(flagged(1 << 3), PayloadError::Requirements { flags: 1 << 3 });
    let header = payload::bytes().windows(4).position(|word| word == 0x1bad_b002u32.to_le_bytes()).unwrap();
    // header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr.
    let field = |number: usize, value: u32| {
        let mut file = payload::bytes();
        file[header + 12 + 4 * number..][..4].copy_from_slice(&value.to_le_bytes());
        why(file, BootProtocol::Multiboot)
    };
    assert!(matches!(field(0, 0), PayloadError::Addresses { .. }));
    assert!(matches!(field(0, u32::MAX), PayloadError::Addresses { .. }));
    assert!(matches!(field(1, u32::MAX), PayloadError::Addresses { .. }));
    assert!(matches!(field(2, 1), PayloadError::Addresses { .. }));
    assert!(matches!(field(2, 0xf000_0000), PayloadError::Truncated { .. }));
    assert!(matches!(field(3, 1), PayloadError::Addresses { .. }));
    assert!(matches!(field(3, 0xf000_0000), PayloadError::OutsideMemory { .. }));
    assert_eq!(field(4, 0), PayloadError::Entry { entry: 0 });
}

#[test]
fn modules_that_do_not_fit_are_refused() {
    let with = |modules: &[Module], line: &str, protocol| {
        let error = Machine::new(&payload::config(payload::bytes(), protocol, line, modules)).err();
        error.map(|error| error.to_string()).unwrap_or_default()
    };
    let large = Module { bytes: vec![0; 256 << 20], command_line: String::new() };
    assert!(with(&[large], "", BootProtocol::Multiboot).contains("does not fit behind the payload"));
    let many = vec![Module::default(); 65];
    assert!(with(&many, "", BootProtocol::Multiboot).contains("65 modules; at most 64"));
    assert!(with(&many[..1], "", BootProtocol::Linux64).contains("1 modules for a Linux kernel"));
    let long = "x".repeat(1 << 16);
    for protocol in [BootProtocol::Multiboot, BootProtocol::Pvh] {
        assert!(with(&[], &long, protocol).contains("65537 bytes"));
        assert!(with(&[], "a\0b", protocol).contains("none of them zero"));
    }
}
