//! The agent with a real kernel in QEMU, which has no control port: the agent does the commands in /script and prints
//! what came of them. Run with `cargo test -p images --test agent -- --ignored`.

use std::io::Write;
use std::process::Command as Process;

use guest_protocol::{Command, Fence, Flush, Op, Pattern};
use images::{Cache, Filesystem, ImageSpec, Initramfs, Kernel, Namespace, PMEM_MODULES, pmem_image};

/// Console output of the guest that ran `commands` on an fsdax region with ext4.
fn run(kernel: &str, programs: &[&str], commands: &[Command]) -> String {
    let cache = Cache::open().expect("a cache directory");
    let kernel = Kernel::get(&cache, kernel).expect("needs the network the first time");
    let mut initramfs = Initramfs::new();
    initramfs.modules(kernel.modules(&PMEM_MODULES).unwrap());
    initramfs.file("/script", 0o644, postcard::to_stdvec(commands).unwrap()).unwrap();
    for program in programs {
        initramfs.program(&cache, program).unwrap();
    }
    let mkfs = vec!["-E".to_string(), "stride=512,stripe_width=512".to_string()];
    let spec = ImageSpec {
        size: 64 << 20,
        namespace: Namespace::Fsdax,
        filesystem: Some(Filesystem { mkfs, ..Filesystem::default() }),
    };
    let image = pmem_image(&cache, &spec).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    };
    let (vmlinux, initrd, pmem) =
        (put("vmlinux", &kernel.vmlinux), put("initrd", &initramfs.finish()), put("pmem", &image.bytes));
    let output = Process::new("qemu-system-x86_64")
        .args([
            "-machine",
            "pc,nvdimm=on",
            "-m",
            "512M,slots=2,maxmem=4G",
            "-cpu",
            "max",
            "-nographic",
            "-no-reboot",
        ])
        .arg("-kernel")
        .arg(vmlinux)
        .arg("-initrd")
        .arg(initrd)
        .args(["-append", "console=ttyS0 nokaslr cryptomgr.notests=1 panic=-1 quiet"])
        .arg("-object")
        .arg(format!("memory-backend-file,id=m0,share=on,mem-path={},size=64M", pmem.display()))
        .args(["-device", "nvdimm,memdev=m0,id=n0"])
        .output()
        .expect("qemu-system-x86_64 is installed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn digest(pattern: Pattern, len: u64) -> String {
    let step = |hash: u64, at| (hash ^ u64::from(pattern.byte(at))).wrapping_mul(0x0100_0000_01b3);
    format!("digest {:016x}", (0..len).fold(0xcbf2_9ce4_8422_2325, step))
}

fn path(name: &str) -> String {
    name.to_string()
}

fn map(name: &str, path: &str, len: u64, align: u64) -> Command {
    Command::Map { name: name.into(), path: path.into(), at: 0, len, sync: true, align }
}

fn mount() -> [Command; 2] {
    [
        Command::Attach { region: 0 },
        Command::Mount { region: 0, fs: "ext4".into(), options: "dax=always,noatime".into() },
    ]
}

/// Every command, and what its reply has to contain.
fn everything() -> Vec<(Command, &'static str)> {
    let seq = Pattern::Seq(1);
    let all = |len| {
        vec![
            Op::Store { at: 0, len, pattern: seq },
            Op::Flush { at: 0, len, with: Flush::Clwb },
            Op::Fence(Fence::Sfence),
            Op::Promise(1),
        ]
    };
    let odd = vec![
        Op::Store { at: 5, len: 20, pattern: seq },
        Op::StoreNonTemporal { at: 32, len: 64, pattern: seq },
        Op::Flush { at: 0, len: 96, with: Flush::Clflushopt },
        Op::Flush { at: 0, len: 96, with: Flush::Clflush },
        Op::Fence(Fence::Mfence),
        Op::Fence(Fence::Lfence),
        Op::Marker(3),
    ];
    let run = |map: &str, ops| Command::Run { map: map.into(), ops };
    let mut steps: Vec<_> = mount().map(|command| (command, "Ok")).into();
    steps.extend([
        (Command::Mkdir { path: path("d") }, "Ok"),
        (Command::Create { path: path("d/small"), size: Some(8192) }, "Ok"),
        (map("s", "d/small", 8192, 4096), "Ok"),
        (run("s", all(8192)), "Ok"),
        (run("s", odd), "Ok"),
        (run("s", all(8193)), "Bad"),
        (run("none", all(1)), "Bad"),
        (Command::Msync { map: path("s"), at: 0, len: 8192 }, "Ok"),
        (Command::Touch { map: path("s"), at: 0, len: 8192 }, "Ok"),
        (Command::Truncate { path: path("d/small"), size: 4096 }, "Ok"),
        (Command::Touch { map: path("s"), at: 0, len: 8192 }, "Signal { signal: 7 }"),
        (run("s", all(8192)), "Signal { signal: 7 }"),
        (Command::Truncate { path: path("d/small"), size: 8192 }, "Ok"),
        (run("s", all(8192)), "Ok"),
        (Command::Munmap { map: path("s") }, "Ok"),
        (Command::Munmap { map: path("s") }, "Bad"),
        (Command::Create { path: path("huge"), size: Some(4 << 20) }, "Ok"),
        (map("h", "huge", 4 << 20, 2 << 20), "Ok"),
        (run("h", all(4 << 20)), "Ok"),
        (Command::Munmap { map: path("h") }, "Ok"),
        (Command::Create { path: path("w"), size: None }, "Ok"),
        (Command::Write { path: path("w"), at: None, len: 5000, pattern: seq }, "Ok"),
        (Command::Write { path: path("w"), at: None, len: 3192, pattern: seq }, "Ok"),
        (Command::Write { path: path("w"), at: Some(100), len: 50, pattern: seq }, "Ok"),
        (Command::Fsync { path: path("w") }, "Ok"),
        (Command::Fsync { path: path("d") }, "Ok"),
        (Command::Fdatasync { path: path("w") }, "Ok"),
        (
            Command::Fallocate { path: path("f"), mode: 0, at: 0, len: 4096 },
            "Errno { call: \"open\", errno: 2 }",
        ),
        (Command::Create { path: path("f"), size: None }, "Ok"),
        (Command::Fallocate { path: path("f"), mode: 0, at: 0, len: 65536 }, "Ok"),
        (Command::Rename { from: path("f"), to: path("g") }, "Ok"),
        (Command::Link { from: path("g"), to: path("k") }, "Ok"),
        (Command::Symlink { target: path("g"), path: path("l") }, "Ok"),
        (Command::Unlink { path: path("k") }, "Ok"),
        (xattr("g"), "Ok"),
        (
            Command::RemoveXattr { path: path("g"), name: path("user.b") },
            "Errno { call: \"removexattr\", errno: 61 }",
        ),
        (Command::Unlink { path: path("d") }, "Errno { call: \"rmdir\", errno: 39 }"),
        (Command::Sync, "Ok"),
        (Command::Syncfs, "Ok"),
        (Command::Marker { id: 7 }, "Ok"),
        (
            Command::Exec { argv: vec![path("/bin/sh"), path("-c"), path("echo hello from $PWD; exit 3")] },
            "Exited { status: 768 }",
        ),
        (Command::Exec { argv: vec![path("/bin/none")] }, "Errno { call: \"exec\", errno: 2 }"),
        (Command::Observe { path: path("nothing") }, "Ok"),
        (Command::ObserveTree, "Ok"),
        (Command::Umount, "Ok"),
        (Command::Umount, "Errno { call: \"umount\", errno: 22 }"),
        mount()[1].clone().into_step(),
        (Command::Observe { path: path("huge") }, "Ok"),
        (Command::Umount, "Ok"),
    ]);
    steps
}

fn xattr(file: &str) -> Command {
    Command::SetXattr { path: path(file), name: path("user.a"), value: b"value".to_vec() }
}

trait Step {
    fn into_step(self) -> (Command, &'static str);
}

impl Step for Command {
    fn into_step(self) -> (Command, &'static str) {
        (self, "Ok")
    }
}

#[test]
#[ignore = "needs qemu-system-x86_64"]
fn every_command_does_what_it_says() {
    for kernel in ["debian-6.1", "debian-6.12"] {
        let steps = everything();
        let commands: Vec<_> = steps.iter().map(|(command, _)| command.clone()).collect();
        let console = run(kernel, &["dash"], &commands);
        println!("{console}");
        let replies: Vec<_> = console.lines().filter_map(|line| line.split_once(" -> ")).collect();
        assert_eq!(replies.len(), steps.len(), "{kernel}: a reply to every command");
        for ((command, expected), (_, reply)) in steps.iter().zip(replies) {
            assert!(reply.starts_with(expected), "{kernel}: {command:?} gave {reply}, not {expected}");
        }
        for part in ["hello from /mnt/pmem", "script: end", "EXT4-fs", "path: \"nothing\", found: Nothing"] {
            assert!(console.contains(part) == (part != "EXT4-fs"), "{kernel}: {part}");
        }
        let seen: Vec<_> = console
            .lines()
            .filter(|line| line.starts_with("observed") || line.starts_with("digest"))
            .collect();
        let seen = seen.join("\n");
        let huge = digest(Pattern::Seq(1), 4 << 20);
        assert_eq!(seen.matches(&huge).count(), 2, "{kernel}: before and after a mount");
        assert_eq!(seen.matches(&digest(Pattern::Seq(1), 8192)).count(), 2, "{kernel}: d/small and w");
        assert!(
            seen.contains("Symlink { target: \"g\" }") && seen.contains("\"d\", found: Directory"),
            "{seen}"
        );
        assert!(seen.contains("xattrs: [(\"user.a\", [118, 97, 108, 117, 101])]"), "{seen}");
        assert!(!seen.contains("lost+found"));
    }
}

#[test]
#[ignore = "needs qemu-system-x86_64"]
fn debian_programs_run() {
    let script = "ls -l /init && seq 3 | sort -r && python3 -c 'import os; print(6 * 7, os.uname().sysname)'";
    let commands = [Command::Exec { argv: vec![path("/bin/dash"), path("-c"), path(script)] }];
    let console = run("debian-6.1", &["dash", "coreutils", "python3-minimal"], &commands);
    println!("{console}");
    assert!(console.contains("Exited { status: 0 }"), "{console}");
    assert!(console.contains("42 Linux"), "{console}");
}
