//! Everything that reads what it did not write: files of kernels and packages, scenarios, reports, what guests say.
//!
//! Promise: an error or a value, no panic, no allocation that the input's length does not explain (libFuzzer's
//! `-malloc_limit_mb` and `-rss_limit_mb` watch), no endless work.

use std::io::Write;

use super::elf;
use super::input::Input;

/// vmlinux and bzImage.
pub fn kernel(data: &[u8]) {
    images::fuzzing::kernel(data);
    vmm::bare_protocol(data);
}

/// A bzImage with each kind of payload, and the vmlinux itself.
pub fn kernel_seeds() -> Vec<Vec<u8>> {
    let vmlinux = [elf::executable(0x20_0000, b"\xf4 Linux version 6.1.0 (x)\0"), elf::sections()].concat();
    let mut payloads = packed(&vmlinux);
    let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
    let block = lz4_flex::block::compress(&vmlinux);
    lz4.extend((block.len() as u32).to_le_bytes());
    lz4.extend(block);
    payloads.push(lz4);
    let mut seeds: Vec<_> = payloads.iter().map(|payload| bzimage(payload)).collect();
    seeds.push(vmlinux);
    assert!(seeds.iter().all(|seed| images::fuzzing::kernel(seed)), "seeds are kernels");
    seeds.push(elf::sections());
    seeds
}

fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024];
    file[0x1f1] = 1;
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    file.extend(payload);
    file
}

/// The bytes by gzip, xz and zstd.
fn packed(bytes: &[u8]) -> Vec<Vec<u8>> {
    let whole = "writing to a vector does not fail";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect(whole);
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(bytes).expect(whole);
    let zstd = ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    vec![gzip.finish().expect(whole), xz.finish().expect(whole), zstd]
}

/// Kernel modules.
pub fn module(data: &[u8]) {
    images::fuzzing::module(data);
}

/// A module, plain and packed.
pub fn module_seeds() -> Vec<Vec<u8>> {
    let module = elf::sections();
    let mut seeds = packed(&module);
    seeds.push(module);
    assert!(seeds.iter().all(|seed| images::fuzzing::module(seed)), "seeds are modules");
    seeds
}

/// Unwind tables of kernels and modules, symbols, stacks. The first 200 bytes at most are symbols, up to a zero byte;
/// then registers; then the file, whose bytes are the stack, too.
pub fn unwind(data: &[u8]) {
    let end = data.iter().take(200).position(|&byte| byte == 0).unwrap_or(data.len().min(200));
    let (text, rest) = data.split_at(end);
    let symbols = vmm::Symbols::from_kallsyms(&String::from_utf8_lossy(text));
    for symbol in symbols.iter().take(16) {
        symbols.range(&symbol.name);
        symbols.find(symbol.address.wrapping_add(5));
    }
    let mut input = Input(rest);
    let registers = vmm::unwind::Registers {
        rip: input.quad(),
        rsp: input.quad(),
        rbp: input.quad(),
        r10: input.quad(),
        ..Default::default()
    };
    let file = input.0;
    let tables: Vec<_> =
        [vmm::unwind::OrcTable::from_vmlinux(file), vmm::unwind::OrcTable::from_module(file, "a", &symbols)]
            .into_iter()
            .flatten()
            .collect();
    let read = |address: u64| {
        let at = usize::try_from(address % (file.len().max(1) as u64)).ok()?;
        Some(u64::from_le_bytes(file.get(at..at + 8)?.try_into().ok()?))
    };
    let stack = vmm::unwind::unwind(&tables, registers, &read);
    let _ = stack.frames(&symbols).iter().map(ToString::to_string).collect::<Vec<_>>();
    explore::fuzzing::user_stack(file, [registers.rip, registers.rsp, registers.rbp], file);
}

/// A file with all the tables, symbols that name its functions, and registers in its code.
pub fn unwind_seeds() -> Vec<Vec<u8>> {
    let symbols: [&[u8]; 3] =
        [b"", b"ffffffffc0000000 t first\t[a]\nffffffff81000000 T _text\n", b"1 T first [a]"];
    let registers = [0x1000u64, 0x40, 0x48, 0x50].map(u64::to_le_bytes).concat();
    symbols.map(|text| [text, &[0], &registers[..31], &elf::sections()].concat()).to_vec()
}

/// What comes out of Debian packages.
pub fn package(data: &[u8]) {
    images::fuzzing::package(data);
}

/// An archive with a file, links, and a program.
pub fn package_seeds() -> Vec<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind, link, content) in [
        ("./usr/bin/x", tar::EntryType::Regular, "", elf::sections()),
        ("./usr/lib/l", tar::EntryType::Symlink, "../bin/x", Vec::new()),
        ("usr/lib/h", tar::EntryType::Link, "./usr/bin/x", Vec::new()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        if !link.is_empty() {
            header.set_link_name(link).expect("a short name");
        }
        archive.append_data(&mut header, path, &content[..]).expect("writing to a vector does not fail");
    }
    vec![archive.into_inner().expect("writing to a vector does not fail")]
}

/// What apt prints.
pub fn index(data: &[u8]) {
    images::fuzzing::index(&String::from_utf8_lossy(data));
}

/// Some of it.
pub fn index_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "Package: a\nVersion: 1.0-1~deb12u1+b2\nSHA256: 00ff\nDepends: libc6 (>= 2.34), x | y\n\nPackage: b\nVersion: 2\n\n",
        "linux-image-6.1.0-13-cloud-amd64 6.1.55-1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n",
        "6.12.90-1~deb12u1",
        "6.1.0-000123-2a-2b",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Scenarios.
pub fn scenario(data: &[u8]) {
    if let Err(error) = explore::Scenario::parse(&String::from_utf8_lossy(data), "x.toml") {
        let _ = error.to_string();
    }
}

/// The ready scenarios.
pub fn scenario_seeds() -> Vec<Vec<u8>> {
    vec![
        include_bytes!("../../scenarios/map-sync-ext4.toml").to_vec(),
        include_bytes!("../../scenarios/virtio-flush-fails.toml").to_vec(),
        b"name = \"x\"\n[machine]\nkernel = \"debian-6.1\"\nmemory = \"256M\"\n[[nvdimm]]\nsize = \"64M\"\n"
            .to_vec(),
    ]
}

/// Reports, one or a list.
pub fn report(data: &[u8]) {
    let Ok(reports) = explore::Report::all_from_json(&String::from_utf8_lossy(data)) else { return };
    for report in reports {
        let again = explore::Report::from_json(&report.to_json());
        assert_eq!(again.as_ref(), Ok(&report), "a report is read as it was written");
        let _ = explore::replay::scenario_of(&report);
    }
}

/// A small report.
pub fn report_seeds() -> Vec<Vec<u8>> {
    let one = include_str!("report.json");
    assert!(explore::Report::from_json(one).is_ok(), "report.json is no report any more");
    vec![one.as_bytes().to_vec(), format!("[{one}, {one}]").into_bytes(), b"{\"version\": 2}".to_vec()]
}

/// What a guest says by the control port, and on its console.
pub fn conversation(data: &[u8]) {
    explore::fuzzing::conversation(data);
    let _ = postcard::from_bytes::<guest_protocol::Command>(data);
    let _ = postcard::from_bytes::<Vec<guest_protocol::Command>>(data);
}

/// Calls in order with the messages that belong to them.
pub fn conversation_seeds() -> Vec<Vec<u8>> {
    use guest_protocol::{Found, Observation, Reply, call};
    let encode = |reply: &Reply| postcard::to_allocvec(reply).unwrap_or_default();
    let call = |number: u32, len: usize| vec![number as u8 + 3, 0, 0, len as u8, 0];
    let mut seeds = Vec::new();
    for reply in [Reply::Ok, Reply::Bad { why: "no".into() }, Reply::Exited { status: 256 }] {
        let message = encode(&reply);
        seeds.push([call(call::NEXT, 0), call(call::DONE, message.len()), message].concat());
    }
    for found in [Found::Nothing, Found::Directory, Found::Symlink { target: "a".into() }] {
        let observation = Observation { path: "a".into(), found, attributes: Default::default() };
        let message = postcard::to_allocvec(&observation).unwrap_or_default();
        let calls = [call(call::NEXT, 0), call(call::OBSERVE, message.len())].concat();
        seeds.push(
            [calls, message, call(call::LOG, 3), b"abc".to_vec(), call(call::DONE, 1), vec![0]].concat(),
        );
    }
    seeds
}
