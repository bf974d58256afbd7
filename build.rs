//! Names the version of the code: results of one are not taken over by another.

use std::fs;
use std::path::{Path, PathBuf};

/// What the program is made of.
const SOURCES: [&str; 9] = [
    "Cargo.lock",
    "src",
    "explore/src",
    "vmm/src",
    "cpu/src",
    "devices/src",
    "persist/src",
    "images",
    "guest",
];

fn main() {
    let mut hash = blake3::Hasher::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
        add(Path::new(source), &mut hash);
    }
    let hash = hash.finalize().to_hex();
    println!("cargo::rustc-env=PMEMSIM_CODE={}+{}", env!("CARGO_PKG_VERSION"), &hash[..16]);
}

/// Adds a file, or all files of a directory, with their names.
fn add(path: &Path, hash: &mut blake3::Hasher) {
    if let Ok(entries) = fs::read_dir(path) {
        let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| add(entry, hash));
    } else if let Ok(bytes) = fs::read(path) {
        hash.update(path.as_os_str().as_encoded_bytes())
            .update(&(bytes.len() as u64).to_le_bytes())
            .update(&bytes);
    }
}
