//! What has to be done before the simulator can be asked: file systems of the kernel, modules.

use std::fs::{self, File};

use crate::{nd, sys};

/// Mounts /proc, /sys and /dev.
pub fn mount_system() -> Result<(), String> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        sys::mount(kind, place, kind, 0, "").map_err(|error| format!("mounting {place}: {error}"))?;
    }
    Ok(())
}

/// Does what /modules/manifest says: `load PATH` and `unbind` lines (written by images/src/initramfs.rs).
pub fn load_modules() -> Result<(), String> {
    let manifest =
        fs::read_to_string("/modules/manifest").map_err(|error| format!("/modules/manifest: {error}"))?;
    for line in manifest.lines() {
        match line.split_once(' ') {
            Some(("load", path)) => load(path),
            None if line == "unbind" => nd::unbind_all(),
            _ => return Err(format!("/modules/manifest: what is {line:?}?")),
        }
    }
    Ok(())
}

/// A module that cannot be loaded may not matter: that shows when what it drives is missing.
fn load(path: &str) {
    let loaded = File::open(path).and_then(|file| sys::load_module(&file));
    match loaded {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
            println!("agent: loading {path}: {error}")
        }
        // It is only in the way now, and in every snapshot.
        _ => drop(fs::remove_file(path)),
    }
}
