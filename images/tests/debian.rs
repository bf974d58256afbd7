//! With Debian's real packages: these tests need the network once, then the cache (the user's own).

use std::sync::Arc;

use images::{
    Cache, Checker, Filesystem, FilesystemKind, ImageSpec, Initramfs, Kernel, Namespace, PMEM_MODULES,
    PmemImage, pmem_image,
};

fn spec_of(kind: FilesystemKind, mkfs: &[&str]) -> ImageSpec {
    let mkfs = mkfs.iter().map(|option| option.to_string()).collect();
    ImageSpec { size: 64 << 20, namespace: Namespace::Fsdax, filesystem: Some(Filesystem { kind, mkfs }) }
}

fn spec(mkfs: &[&str]) -> ImageSpec {
    spec_of(FilesystemKind::Ext4, mkfs)
}

fn checker(kind: FilesystemKind, image: PmemImage) -> Checker {
    Checker::new(&cache(), kind, Arc::from(image.bytes), image.device).unwrap()
}

fn cache() -> Cache {
    Cache::open().expect("a cache directory")
}

#[test]
fn a_kernel_comes_with_its_modules_in_order() {
    for (name, release) in [("debian-6.1", "6.1."), ("debian-6.12", "6.12.")] {
        let kernel = Kernel::get(&cache(), name).expect("needs the network the first time");
        assert!(kernel.release.starts_with(release), "{}", kernel.release);
        assert_eq!(kernel.build_id.len(), 40);
        let modules = kernel.modules(&PMEM_MODULES).unwrap();
        let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["libnvdimm", "nfit", "nd_btt", "nd_pmem"], "{name}");
    }
}

#[test]
fn an_unknown_version_names_what_there_is() {
    let error = Kernel::get(&cache(), "debian-6.1@1.2.3").unwrap_err().to_string();
    assert!(error.contains("debian-6.1@1.2.3") && error.contains("6.1.1"), "{error}");
}

#[test]
fn an_ext4_image_is_clean_and_the_same_every_time() {
    let other = tempfile::tempdir().unwrap();
    let (one, two) = (
        pmem_image(&cache(), &spec(&[])).unwrap(),
        pmem_image(&Cache::at(other.path()).unwrap(), &spec(&[])).unwrap(),
    );
    assert!(one.bytes == two.bytes, "made twice, in two places");
    assert_eq!(one.bytes[2 << 20..][0x438..0x43a], [0x53, 0xef], "ext4's magic");
    let mut checker = checker(FilesystemKind::Ext4, one);
    let result = checker.check(std::iter::empty()).unwrap();
    assert!(result.clean, "{}", result.output);
}

#[test]
fn options_of_mkfs_reach_it() {
    let image = pmem_image(&cache(), &spec(&["-E", "stride=512,stripe_width=512"])).unwrap();
    let superblock = &image.bytes[(2 << 20) + 1024..];
    assert_eq!(superblock[0x164..0x166], 512u16.to_le_bytes(), "s_raid_stride");
    let error = pmem_image(&cache(), &spec(&["-E", "nonsense=1"])).unwrap_err().to_string();
    assert!(error.contains("nonsense"), "{error}");
}

#[test]
fn blocks_that_no_one_wrote_keep_the_pattern() {
    let image = pmem_image(&cache(), &spec(&[])).unwrap();
    let at = |offset: usize| u64::from_le_bytes(image.bytes[offset..offset + 8].try_into().unwrap());
    let untouched = (0..image.bytes.len())
        .step_by(4096)
        .filter(|offset| at(*offset) == images::untouched_word(*offset as u64));
    assert!(untouched.count() > 10_000);
}

#[test]
fn damage_is_found_and_does_not_last() {
    let image = pmem_image(&cache(), &spec(&[])).unwrap();
    let start = image.device.extent().start;
    let mut checker = checker(FilesystemKind::Ext4, image);
    let zeros = [0; 4096];
    let damaged = checker.check([(start + 4096, &zeros[..])].into_iter()).unwrap();
    assert!(!damaged.clean, "{}", damaged.output);
    let no_superblock = checker.check([(start, &zeros[..])].into_iter()).unwrap();
    assert!(!no_superblock.clean, "{}", no_superblock.output);
    assert!(checker.check(std::iter::empty()).unwrap().clean);
}

#[test]
fn an_xfs_image_is_clean_and_the_same_every_time() {
    // Two sizes of inodes and ways to keep times, and alignment that lets huge faults happen.
    for mkfs in [&["-d", "su=2m,sw=1", "-l", "su=4096"], &["-m", "bigtime=0", "-i", "size=1024"]] {
        let spec = ImageSpec { size: 20 << 20, ..spec_of(FilesystemKind::Xfs, mkfs) };
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&here, &there] {
            // The same programs, not fetched again, but nothing that was made before.
            for part in ["apt", "debs", "programs", "resolved"] {
                let _ = std::os::unix::fs::symlink(cache().root().join(part), dir.path().join(part));
            }
        }
        pmem_image(&cache(), &spec).unwrap();
        let one = pmem_image(&Cache::at(here.path()).unwrap(), &spec).unwrap();
        // Times in the image would be others now.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let two = pmem_image(&Cache::at(there.path()).unwrap(), &spec).unwrap();
        assert!(one.bytes == two.bytes, "made twice, in two places: {mkfs:?}");
        assert_eq!(one.bytes[2 << 20..][..4], *b"XFSB");
        assert_eq!(one.package.as_ref().unwrap().name, "xfsprogs");
        let at = |offset: usize| u64::from_le_bytes(one.bytes[offset..offset + 8].try_into().unwrap());
        let untouched = (0..one.bytes.len())
            .step_by(4096)
            .filter(|offset| at(*offset) == images::untouched_word(*offset as u64));
        assert!(untouched.count() > 2000, "blocks that no one wrote keep the pattern");
        let result = checker(FilesystemKind::Xfs, one).check(std::iter::empty()).unwrap();
        assert!(result.clean, "{}", result.output);
    }
}

#[test]
fn damage_of_xfs_is_found_and_does_not_last() {
    let image = pmem_image(&cache(), &spec_of(FilesystemKind::Xfs, &[])).unwrap();
    let start = image.device.extent().start;
    let mut checker = checker(FilesystemKind::Xfs, image);
    let zeros = [0; 4096];
    let damaged = checker.check([(start + 512, &zeros[..512])].into_iter()).unwrap();
    assert!(!damaged.clean && damaged.code == 1, "{damaged:?}");
    assert!(damaged.output.contains("bad magic # 0x0 for agf 0"), "{}", damaged.output);
    assert_eq!(checker.check([(start + 512, &zeros[..512])].into_iter()).unwrap(), damaged, "said the same");
    let no_superblock = checker.check([(start, &zeros[..])].into_iter()).unwrap();
    assert!(!no_superblock.clean, "{}", no_superblock.output);
    // What stands in front of the file system is nothing that it checks, nor is it mistaken for it.
    assert!(checker.check([(start - 4096, &[1; 4096][..])].into_iter()).unwrap().clean);
    assert!(checker.check(std::iter::empty()).unwrap().clean);
}

#[test]
fn an_xfs_log_that_was_not_replayed_is_damage() {
    let image = pmem_image(&cache(), &spec_of(FilesystemKind::Xfs, &[])).unwrap();
    let (start, bytes) = (image.device.extent().start, image.bytes.clone());
    // The record that mkfs.xfs leaves in the log says that the file system was unmounted.
    let record = bytes.chunks(512).position(|sector| sector.starts_with(&[0xfe, 0xed, 0xba, 0xbe])).unwrap();
    let mut operation = bytes[(record + 1) * 512..][..512].to_vec();
    // struct xlog_op_header: oh_flags, and XLOG_UNMOUNT_TRANS in it.
    assert_eq!(operation[9], 0x20);
    operation[9] = 0;
    let mut checker = checker(FilesystemKind::Xfs, image);
    let place = (record as u64 + 1) * 512;
    assert!(place > start);
    let fsck = checker.check([(place, &operation[..])].into_iter()).unwrap();
    assert!(!fsck.clean && fsck.output.contains("valuable metadata changes in a log"), "{fsck:?}");
}

#[test]
fn xfs_on_the_smallest_device_is_made_and_checked() {
    let spec = |size| ImageSpec { size, ..spec_of(FilesystemKind::Xfs, &[]) };
    let image = pmem_image(&cache(), &spec(18 << 20)).unwrap();
    let result = checker(FilesystemKind::Xfs, image).check(std::iter::empty()).unwrap();
    assert!(result.clean, "{}", result.output);
    let error = pmem_image(&cache(), &spec(16 << 20)).unwrap_err().to_string();
    assert!(error.contains("XFS needs 16777216 bytes"), "{error}");
    let wrong = pmem_image(&cache(), &spec_of(FilesystemKind::Xfs, &["-d", "su=3"])).unwrap_err().to_string();
    assert!(wrong.contains("mkfs.xfs -d su=3 failed") && !wrong.contains("Usage"), "{wrong}");
}

#[test]
fn programs_come_with_their_libraries() {
    let mut initramfs = Initramfs::new();
    for name in ["dash", "coreutils/ls"] {
        initramfs.program(&cache(), name).expect("needs the network the first time");
    }
    let archive = String::from_utf8_lossy(&initramfs.finish()).into_owned();
    for path in [
        "usr/bin/dash",
        "usr/bin/ls",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib64/ld-linux-x86-64.so.2",
        "libselinux.so.1",
    ] {
        assert!(archive.contains(path), "{path}");
    }
    assert!(!archive.contains("usr/bin/cat\0"), "only what was asked for");
    let error = initramfs.program(&cache(), "coreutils/nothing").unwrap_err().to_string();
    assert!(error.contains("nothing"), "{error}");
}

#[test]
fn what_was_fetched_is_listed() {
    let (name, version) = images::fetch(&cache(), "debian-6.1").expect("needs the network the first time");
    assert!(name.starts_with("linux-image-6.1.0-"));
    images::fetch(&cache(), "dash").unwrap();
    let entries = images::list(&cache()).unwrap();
    let kernel = entries.iter().find(|entry| entry.name == "debian-6.1").unwrap();
    assert_eq!((kernel.kind, &kernel.version), ("kernel", &version));
    assert!(kernel.size > 10 << 20);
    let dash = entries.iter().find(|entry| entry.kind == "programs" && entry.name == "dash").unwrap();
    assert!(!dash.version.is_empty() && dash.path.exists());
}
