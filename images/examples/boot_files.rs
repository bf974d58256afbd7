//! Writes what is needed to boot: `cargo run -p images --example boot_files -- debian-6.1 DIRECTORY`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory, ..] = &arguments[..] else {
        return Err("usage: boot_files KERNEL DIRECTORY".into());
    };
    let directory = PathBuf::from(directory);
    std::fs::create_dir_all(&directory)?;
    let cache = images::Cache::open()?;
    let kernel = images::Kernel::get(&cache, name)?;
    let mut initramfs = images::Initramfs::new();
    initramfs.modules(kernel.modules(&images::PMEM_MODULES)?);
    std::fs::write(directory.join("vmlinux"), &kernel.vmlinux)?;
    std::fs::write(directory.join("initramfs"), initramfs.finish())?;
    println!("{} {} {:?}", kernel.release, kernel.build_id, kernel.package);
    Ok(())
}
