//! `pmemsim doctor`: what this host is good for.

use std::path::PathBuf;

use images::Cache;
use vmm::KvmHost;

use crate::engine::EngineName;
use crate::failure::TROUBLE;
use crate::say::{Unheard, say};

/// Says what this host is good for: which engines work, how well, and which tools are missing.
///
/// Exit code 0 if everything is there that the engine needs, 3 if something is missing.
#[derive(clap::Args)]
pub struct Doctor {
    /// The engine that is to be used
    #[arg(long, value_enum, default_value_t)]
    engine: EngineName,
}

/// A program that something here needs.
struct Tool {
    name: &'static str,
    /// Kernels cannot be had without it.
    needed: bool,
    purpose: &'static str,
}

const TOOLS: [Tool; 6] = [
    Tool { name: "apt-get", needed: true, purpose: "fetches kernels and programs from Debian" },
    Tool { name: "apt-cache", needed: true, purpose: "finds them" },
    Tool { name: "dpkg-deb", needed: true, purpose: "unpacks them" },
    Tool { name: "sh", needed: true, purpose: "watches over file system checks" },
    Tool { name: "qemu-system-x86_64", needed: false, purpose: "is compared with by `bench` and by tests" },
    Tool { name: "cc", needed: false, purpose: "builds QEMU's plugin for `bench`" },
];

impl Doctor {
    /// Returns the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        say!("engine software: works everywhere, deterministic; `run` uses it unless told otherwise")?;
        let kvm = KvmHost::examine();
        match &kvm {
            Ok(host) => tell(host)?,
            Err(why) => say!("engine kvm: not usable: {why}")?,
        }
        tell_cache()?;
        let missing = tools()?;
        let kvm_missing = self.engine == EngineName::Kvm && kvm.is_err();
        Ok(if missing || kvm_missing { TROUBLE } else { 0 })
    }
}

fn tell(host: &KvmHost) -> Result<(), Unheard> {
    let speed = host.supervisor.picoseconds as f64 / 1000.0;
    let (backing, so) = match host.supervisor.is_emulated() {
        false => (
            "hardware",
            "everything executes natively; the software processor helps out where KVM cannot go on",
        ),
        true => {
            ("emulated", "user mode executes natively, and the software processor takes over supervisor mode")
        }
    };
    say!("engine kvm: usable, {backing}: {speed:.2} ns an instruction in supervisor mode; {so}")?;
    say!("  time stamp counter of a machine: {} kHz", host.tsc_khz)?;
    for capability in &host.capabilities {
        let there =
            if capability.there { "there".to_owned() } else { format!("not there: {}", capability.without) };
        say!("  {}: {there}", capability.name)?;
    }
    let lacking: Vec<&str> = host.lacking.iter().map(|it| it.name.as_str()).collect();
    let lacking = if lacking.is_empty() { "nothing".to_owned() } else { lacking.join(", ") };
    say!("  processors lack, of what those of the software engine have: {lacking}")?;
    if host.leaked != (0, 0) {
        let (ecx, edx) = host.leaked;
        say!(
            "  CPUID shows the host's processor through: leaf 1 has more in ECX ({ecx:#x}) and EDX ({edx:#x}) than it was told; \
             a Linux guest may need noxsave, nosmap or clearcpuid= on its command line"
        )?;
    }
    Ok(())
}

/// Says where the cache is, and how large.
fn tell_cache() -> Result<(), Unheard> {
    let size =
        |cache: &Cache| Ok::<u64, images::Error>(images::list(cache)?.iter().map(|entry| entry.size).sum());
    match Cache::open().and_then(|cache| Ok((size(&cache)?, cache))) {
        Ok((bytes, cache)) => say!("cache: {} MiB in {}", bytes >> 20, cache.root().display()),
        Err(why) => say!("cache: NOT USABLE: {why}"),
    }
}

/// Says which programs are there. Whether a needed one is missing.
fn tools() -> Result<bool, Unheard> {
    let mut missing = false;
    for tool in TOOLS {
        match find(tool.name) {
            Some(path) => say!("{}: {}", tool.name, path.display())?,
            None => {
                missing |= tool.needed;
                let how_bad = if tool.needed { "MISSING" } else { "not there" };
                say!("{}: {how_bad}: it {}", tool.name, tool.purpose)?;
            }
        }
    }
    Ok(missing)
}

/// Where a program is on the path.
fn find(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|path| path.join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use vmm::KvmError;

    use super::*;

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(find("sh").is_some());
        assert!(find("there-is-no-such-program").is_none());
    }

    #[test]
    fn an_error_says_what_to_do() {
        let error = KvmError::Missing { capability: "KVM_CAP_X" };
        assert!(error.to_string().contains("use the software engine"));
    }
}
