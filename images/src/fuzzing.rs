//! The readers of this crate, for the fuzz targets in `fuzz/`: bytes in, no panic. Not for other use.

use std::path::Path;

use crate::{apt, bzimage, deb, modules, programs, version};

/// A kernel file: a vmlinux or a bzImage. Whether it is one.
pub fn kernel(file: &[u8]) -> bool {
    let Ok(vmlinux) = bzimage::vmlinux("kernel", file.to_vec()) else { return false };
    version::release(&vmlinux);
    version::build_id(&vmlinux);
    true
}

/// A module, perhaps compressed. Whether it is one that depends on nothing that cannot be had.
pub fn module(file: &[u8]) -> bool {
    let Ok(plain) = modules::plain("module.ko", file.to_vec()) else { return false };
    modules::closure(&["a"], |name| Ok((name == "a").then(|| plain.clone()))).is_ok()
}

/// What comes out of a Debian package, a tar archive, and the programs in it.
pub fn package(archive: &[u8]) {
    let _ = deb::members(Path::new("x.deb"), &mut tar::Archive::new(archive), |_| true, &mut |member| {
        programs::needed(&member);
        Ok(())
    });
}

/// What apt prints: packages, what a name stood for, dependencies, versions.
pub fn index(text: &str) {
    for package in apt::stanzas(text) {
        let _ = version::compare(&package.version, &package.name);
    }
    text.lines().for_each(|line| drop(apt::parse_resolved(line)));
    programs::first_alternatives(text);
    let (a, b) = text.split_at(text.floor_char_boundary(text.len() / 2));
    assert_eq!(version::compare(a, b), version::compare(b, a).reverse(), "{a:?} and {b:?}");
}
