//! The whole machine: payloads of any content, code that does anything to the devices and to the control port, and
//! snapshot files.
//!
//! Promises: no panic and no end but a `Stop`; going back to a snapshot and running again repeats everything; what was
//! saved and loaded goes on as the original; a damaged snapshot is an error or a machine.

use std::io::Write;

use guest_protocol::call;
use vmm::{BootProtocol, Machine, MachineConfig, Module, Nvdimm, PlatformCapability, Stop, VirtioPmem};

use super::elf;
use super::input::Input;

/// Instructions between two looks.
const SLICE: u64 = 2000;
/// Stops after which a machine has been looked at enough.
const STOPS: usize = 12;
const ENTRY: u64 = 0x20_0000;

fn config(kernel: Vec<u8>, protocol: BootProtocol, extra: &[u8]) -> MachineConfig {
    let modules = match protocol {
        BootProtocol::Linux64 => Vec::new(),
        _ => vec![Module { bytes: extra.to_vec(), command_line: "module".to_owned() }],
    };
    MachineConfig {
        kernel,
        initrd: extra.to_vec(),
        modules,
        command_line: "x".to_owned(),
        cpus: 1,
        memory: 32 << 20,
        nvdimms: vec![Nvdimm {
            size: 2 << 20,
            flush_hints: 1,
            labels: true,
            persistence: PlatformCapability::MemoryController,
            media_errors: true,
            smart: true,
            ..Nvdimm::default()
        }],
        virtio_pmem: vec![VirtioPmem { size: 2 << 20, faults: Vec::new() }],
        legacy_pmem: vec![2 << 20],
        seed: 1,
        protocol,
    }
}

/// Payload files: byte 0 the protocol, byte 1 how many bytes of a module follow, then the file.
pub fn payload(data: &[u8]) {
    let mut input = Input(data);
    let protocol = match input.byte() % 3 {
        0 => BootProtocol::Linux64,
        1 => BootProtocol::Pvh,
        _ => BootProtocol::Multiboot,
    };
    let len = input.byte().into();
    let extra = input.take(len);
    vmm::bare_protocol(input.0);
    if let Ok(mut machine) = Machine::new(&config(input.0.to_vec(), protocol, extra)) {
        let _ = machine.run(SLICE);
    }
}

/// An ELF file of each kind, and a multiboot header.
pub fn payload_seeds() -> Vec<Vec<u8>> {
    let linux = elf::executable(ENTRY, &[0xfa, 0xf4]);
    let mut multiboot = vec![0; 8];
    // Magic, flags with addresses, checksum; header, load, end, bss end, entry.
    let flags = 0x1_0003u32;
    let checksum = 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    for word in [0x1bad_b002, flags, checksum, 0x20_0008, 0x20_0000, 0, 0x20_1000, 0x20_0028] {
        multiboot.extend(word.to_le_bytes());
    }
    multiboot.extend([0xfa, 0xf4]);
    let mut seeds = Vec::new();
    for protocol in 0..3 {
        for file in [&linux, &multiboot, &elf::sections()] {
            seeds.push([&[protocol, 4], &b"abcd"[..], file].concat());
        }
    }
    seeds
}

/// Code at CPL 0 in 64-bit mode, on the real board.
pub fn machine(data: &[u8]) {
    let Ok(mut machine) =
        Machine::new(&config(elf::executable(ENTRY, data), BootProtocol::Linux64, b"initrd"))
    else {
        return;
    };
    machine.set_tracing(true);
    machine.push();
    let first = story(&mut machine);
    machine.rewind();
    let second = story(&mut machine);
    for (a, b) in first.iter().zip(&second) {
        assert_eq!(a, b, "after going back the machine does something else");
    }
    assert_eq!(first.len(), second.len(), "after going back the machine stops at another time");
}

/// What a machine does from here on, stop by stop.
fn story(machine: &mut Machine) -> Vec<String> {
    let mut story = Vec::new();
    for _ in 0..STOPS {
        let before = machine.retired();
        let stop = machine.run(SLICE);
        assert!(machine.retired() <= before + SLICE, "ran beyond its budget");
        let events = machine.take_events();
        story.push(format!("{stop:?} {:?} {events:?} {:?}", machine.cpu_state(), machine.take_console()));
        match stop {
            Stop::Call(it) => {
                // A host that believes every word.
                let mut buffer = vec![0; (it.second % 8192) as usize];
                let read = machine.read_guest(it.first, &mut buffer).is_ok();
                let written = machine.write_guest(it.first, &buffer).is_ok();
                machine.answer(if read && written { buffer.len() as i64 } else { -1 });
            }
            Stop::Budget => {
                machine.type_console(b"x");
            }
            Stop::Event(_) | Stop::Symbol(_) => {}
            _ => break,
        }
    }
    story
}

/// Programs that talk to devices.
pub fn machine_seeds() -> Vec<Vec<u8>> {
    let port = guest_protocol::PORT.to_le_bytes();
    let mut seeds = vec![
        // Serial output; PIT, then HLT with interrupts on; the RTC.
        vec![0x66, 0xba, 0xf8, 0x03, 0xb0, 0x41, 0xee, 0xeb, 0xfb],
        vec![0xb0, 0x34, 0xe6, 0x43, 0xb0, 0x10, 0xe6, 0x40, 0xe6, 0x40, 0xfb, 0xf4, 0xeb, 0xfd],
        vec![0xb0, 0x0a, 0xe6, 0x70, 0xe4, 0x71, 0xeb, 0xf8],
        // Local APIC and IOAPIC; persistent memory at 4 GiB.
        vec![0xb8, 0, 0, 0xe0, 0xfe, 0xc7, 0x80, 0xf0, 0, 0, 0, 0xff, 1, 0, 0, 0x8b, 0x48, 0x20, 0xeb, 0xf0],
        vec![0xb8, 0, 0, 0xc0, 0xfe, 0xc7, 0, 0x10, 0, 0, 0, 0xc7, 0x40, 0x10, 0, 0, 1, 0, 0xeb, 0xec],
        vec![0x48, 0xb8, 0, 0, 0, 0, 1, 0, 0, 0, 0x48, 0x89, 0, 0x0f, 0xae, 0x38, 0x0f, 0xae, 0xf8, 0xf4],
        // A virtio device that is driven, its queue in the wrong place.
        vec![
            0xb8, 0, 0, 0x20, 0xfd, 0xc7, 0x40, 0x70, 0x0f, 0, 0, 0, 0xc7, 0x40, 0x44, 1, 0, 0, 0, 0x8b,
            0x48, 0x60, 0xc7, 0x40, 0x50, 0, 0, 0, 0, 0xf4,
        ],
        vec![0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0, 0x34, 0x66, 0xef, 0xf4],
    ];
    for number in [call::HELLO, call::KALLSYMS, call::NEXT, call::PROMISE, call::OBSERVE, call::LOG] {
        let number = number as u8;
        seeds.push(vec![
            0xbf, 0, 0, 0x20, 0, 0xbe, 16, 0, 0, 0, 0x66, 0xba, port[0], port[1], 0xb8, number, 0, 0, 0,
            0xef, 0xf4,
        ]);
    }
    seeds
}

/// Snapshot files: byte 0 is 0 for a file as it comes; else it is the version, and the rest a header's body, which gets a
/// right checksum and the memory of the seeds' machine behind it.
pub fn snapshot(data: &[u8]) {
    loads(data);
}

/// Whether the file is a machine, which is run then.
fn loads(data: &[u8]) -> bool {
    let (version, body) = data.split_first().map_or((0, data), |(first, rest)| (*first, rest));
    let mut file = tempfile::NamedTempFile::new().expect("the host has room for temporary files");
    let bytes = if version == 0 { body.to_vec() } else { with_header(version, body) };
    file.write_all(&bytes).expect("the host has room for temporary files");
    if version != 0 {
        let len = (bytes.len() as u64).next_multiple_of(vmm::PAGE) + MEMORY;
        file.as_file().set_len(len).expect("the host has room for temporary files");
    }
    let Ok(mut machine) = Machine::load(file.path()) else { return false };
    for region in machine.regions().to_vec() {
        machine.read_pmem(region.base, &mut [0; 64]);
    }
    machine.push();
    let _ = machine.run(SLICE);
    machine.rewind();
    let _ = machine.run(SLICE);
    true
}

/// Bytes of memory in the file that seeds are made of: RAM, a region of each kind and a label area.
const MEMORY: u64 = (38 << 20) + vmm::LABELS_SIZE;

fn with_header(version: u8, body: &[u8]) -> Vec<u8> {
    let words = [version.into(), body.len() as u32, crc32fast::hash(body)].map(u32::to_le_bytes);
    [&b"PMEMSIM\0"[..], &words.concat(), body].concat()
}

/// A machine in the middle of its work.
pub fn snapshot_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for code in machine_seeds() {
        let mut machine = Machine::new(&config(elf::executable(ENTRY, &code), BootProtocol::Linux64, b""))
            .unwrap_or_else(|why| panic!("{why}"));
        let _ = machine.run(100);
        let file = tempfile::NamedTempFile::new().expect("the host has room for temporary files");
        machine.save(file.path()).unwrap_or_else(|why| panic!("{why}"));
        let bytes = std::fs::read(file.path()).expect("the file was just written");
        let body = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
        let seed = [&bytes[8..9], &bytes[20..20 + body]].concat();
        assert!(loads(&seed), "what is saved can be loaded");
        seeds.push(seed);
        seeds.push([&[0], &bytes[..4096]].concat());
    }
    seeds
}
