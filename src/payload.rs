//! Payloads of `pmemsim boot` that are no Linux kernels, and the modules that they are given.

use std::path::Path;

use vmm::{BootProtocol, Module};

use crate::failure::Usage;

/// A payload as it is told on the command line.
pub struct Payload {
    /// The file.
    pub bytes: Vec<u8>,
    pub protocol: BootProtocol,
}

impl Payload {
    /// The payload that `name` is; `None` for a Linux kernel, by name or in a file. With `pvh` it is entered by PVH
    /// whatever else it offers.
    pub fn find(name: &str, pvh: bool) -> anyhow::Result<Option<Payload>> {
        let path = Path::new(name);
        // A directory is one in which a kernel was built.
        if path.is_dir() || !name.contains('/') && !path.is_file() {
            return Ok(None);
        }
        let bytes = read("--kernel", name, "give a kernel or another payload")?;
        let protocol = vmm::bare_protocol(&bytes).map(|found| if pvh { BootProtocol::Pvh } else { found });
        Ok(protocol.map(|protocol| Payload { bytes, protocol }))
    }

    /// The command line: multiboot payloads are told their name first, as QEMU and GRUB do.
    pub fn command_line(&self, name: &str, append: &str) -> String {
        match self.protocol {
            BootProtocol::Multiboot => format!("{name} {append}"),
            _ => append.to_owned(),
        }
    }
}

/// The module that "FILE ARGUMENTS" names. All of that is its command line.
pub fn module(option: &str, text: &str) -> anyhow::Result<Module> {
    let (file, _) = text.split_once(' ').unwrap_or((text, ""));
    let bytes = read(option, file, "give a file, and its arguments behind a space")?;
    Ok(Module { bytes, command_line: text.to_owned() })
}

fn read(option: &str, path: &str, hint: &str) -> Result<Vec<u8>, Usage> {
    std::fs::read(path).map_err(|why| Usage(format!("{option} {path}: {why}; {hint}")))
}
