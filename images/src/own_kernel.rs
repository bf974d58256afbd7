//! Small kernels of our own, built from Debian's source, with patches or without: `small-6.1`, `small-6.12`, and
//! `mutants-6.1`, `mutants-6.12`, which are wrong when they are told to be.
//!
//! Each series has one working tree in the cache, with its objects: another patch costs only what it touches. What comes
//! out is kept by what went in: source package, configuration, patches, compiler.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::apt::{Apt, Package};
use crate::cache::{Cache, Tree, create_dir};
use crate::error::{Error, Result};
use crate::source::WorkingTree;

/// What all kernels are configured to, on top of `tinyconfig`.
const CONFIG: &str = include_str!("../../guest/kernel/config");
/// Series that Debian has the source of.
const SERIES: [Series; 2] = [
    Series {
        name: "6.1",
        settings: include_str!("../../guest/kernel/config-6.1"),
        mutants: include_str!("../../guest/kernel/mutants-6.1.patch"),
    },
    Series { name: "6.12", settings: "", mutants: include_str!("../../guest/kernel/mutants-6.12.patch") },
];
/// Programs that building takes, and the Debian packages that have them.
const TOOLS: [(&str, &str); 7] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("patch", "patch"),
];
/// How often progress is told.
const TELL: Duration = Duration::from_secs(15);
/// Lines of the compiler's that an error shows.
const SHOWN: usize = 20;

/// A kernel that was built.
pub(crate) struct Built {
    /// The source package.
    pub package: Package,
    /// Holds `vmlinux` and `config`.
    pub tree: Tree,
}

/// Kernels that share their source.
pub(crate) struct Series {
    /// What Debian calls it.
    name: &'static str,
    /// What its kernels are configured to besides.
    settings: &'static str,
    /// Bugs that can be switched on.
    mutants: &'static str,
}

/// A kernel of our own, by name.
#[derive(Clone, Copy)]
pub(crate) struct Own {
    series: &'static Series,
    with_mutants: bool,
}

impl Own {
    /// What `small-SERIES` and `mutants-SERIES` stand for, `None` for other names.
    pub(crate) fn named(name: &str) -> Option<Own> {
        let (kind, wanted) = name.split_once('-')?;
        let with_mutants = match kind {
            "small" => false,
            "mutants" => true,
            _ => return None,
        };
        let series = SERIES.iter().find(|series| series.name == wanted)?;
        Some(Own { series, with_mutants })
    }

    fn name(self) -> String {
        format!("{}-{}", if self.with_mutants { "mutants" } else { "small" }, self.series.name)
    }

    /// What it is configured to: the settings, without what is said about them.
    fn settings(self) -> String {
        let lines = CONFIG.lines().chain(self.series.settings.lines());
        lines.filter(|line| line.starts_with("CONFIG_")).flat_map(|line| [line, "\n"]).collect()
    }
}

/// Builds the kernel `small-SERIES` or `mutants-SERIES` with `patches` applied in their order, unless that was done
/// before. Returns where its vmlinux is.
///
/// # Errors
/// [`Error::UnknownKernel`], [`Error::BuildTools`], [`Error::BadPatch`], [`Error::Build`], and all that fetching can meet.
pub fn build_kernel(cache: &Cache, name: &str, patches: &[PathBuf]) -> Result<PathBuf> {
    let own = Own::named(name).ok_or_else(|| Error::UnknownKernel { name: name.into() })?;
    let texts = patches.iter().map(|path| fs::read(path).map_err(Error::io("read", path)));
    Ok(built(cache, own, texts.collect::<Result<Vec<_>>>()?)?.tree.root().join("vmlinux"))
}

/// The kernel with patches applied on top of its own, from the cache or built now.
pub(crate) fn built(cache: &Cache, own: Own, mut patches: Vec<Vec<u8>>) -> Result<Built> {
    let series = own.series.name;
    let package = Apt::new(cache).resolve(&format!("linux-source-{series}"))?;
    let (settings, compiler) = (own.settings(), compiler()?);
    if own.with_mutants {
        patches.insert(0, own.series.mutants.into());
    }
    let mut key = blake3::Hasher::new();
    for part in [package.sha256.as_bytes(), settings.as_bytes(), compiler.as_bytes()] {
        key.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    for patch in &patches {
        key.update(&(patch.len() as u64).to_le_bytes()).update(patch);
    }
    let key = format!("{series}-{}", &key.finalize().to_hex()[..32]);
    let tree = cache.tree("own-kernels", &key, |dir| {
        check_tools()?;
        let work = WorkingTree::open(cache, series, &package)?;
        work.set_patches(&patches)?;
        Build { cache, name: &own.name(), settings: &settings, work: &work }.run(dir)
    })?;
    Ok(Built { package, tree })
}

/// The first line of what the compiler says about itself: another one makes other kernels.
fn compiler() -> Result<String> {
    let output = Command::new("gcc").arg("--version").stdin(Stdio::null()).output();
    let output = output.map_err(|_| Error::BuildTools { packages: "gcc".into() })?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

fn check_tools() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let mut packages: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| !is_there(tool)).map(|(_, package)| *package).collect();
    // objtool makes the tables of the ORC unwinder, and reads ELF by this library.
    if !Path::new("/usr/include/gelf.h").exists() {
        packages.push("libelf-dev");
    }
    if packages.is_empty() { Ok(()) } else { Err(Error::BuildTools { packages: packages.join(" ") }) }
}

struct Build<'a> {
    cache: &'a Cache,
    name: &'a str,
    settings: &'a str,
    work: &'a WorkingTree,
}

impl Build<'_> {
    /// Configures, compiles, and puts the kernel and its configuration into `dir`.
    fn run(&self, dir: &Path) -> Result<()> {
        let objects = self.work.objects();
        create_dir(&objects)?;
        self.make(&["tinyconfig"])?;
        let config = objects.join(".config");
        let mut text = fs::read_to_string(&config).map_err(Error::io("read", &config))?;
        text += self.settings;
        fs::write(&config, text).map_err(Error::io("write", &config))?;
        self.make(&["olddefconfig"])?;
        let text = fs::read_to_string(&config).map_err(Error::io("read", &config))?;
        let lost = lost_options(self.settings, &text);
        if !lost.is_empty() {
            let why = format!("its configuration has no {}", lost.join(", "));
            return Err(self.failed(why));
        }
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        self.make(&[&format!("-j{jobs}"), "vmlinux"])?;
        for (from, to) in [("vmlinux", "vmlinux"), (".config", "config")] {
            let from = objects.join(from);
            fs::copy(&from, dir.join(to)).map_err(Error::io("copy", &from))?;
        }
        Ok(())
    }

    /// Runs make, tells how far it is, and keeps what it says for the case that it fails.
    fn make(&self, arguments: &[&str]) -> Result<()> {
        let source = self.work.source();
        // Neither in messages nor in debug information is it seen where the source and the objects are.
        let objects = self.work.objects();
        let maps =
            format!("-ffile-prefix-map={}/= -ffile-prefix-map={}=.", source.display(), objects.display());
        let mut make = Command::new("make");
        make.arg("-C").arg(&source).arg(format!("O={}", objects.display())).args(arguments);
        // The same input makes the same kernel, whoever builds it and when.
        make.args(["KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970", "KBUILD_BUILD_USER=pmemsim"]);
        make.args(["KBUILD_BUILD_HOST=pmemsim", "KBUILD_BUILD_VERSION=1", "LOCALVERSION=-pmemsim"]);
        make.arg(format!("KCFLAGS={maps}")).arg(format!("KAFLAGS={maps}"));
        // Options of the user's own builds are not ours.
        for variable in
            ["MAKEFLAGS", "MFLAGS", "ARCH", "CROSS_COMPILE", "KCFLAGS", "KAFLAGS", "KBUILD_OUTPUT", "CC"]
        {
            make.env_remove(variable);
        }
        make.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = make.spawn().map_err(|error| self.failed(error.to_string()))?;
        let errors = child.stderr.take().map(|stderr| std::thread::spawn(move || last_lines(stderr)));
        let (started, mut told, mut files) = (Instant::now(), Instant::now(), 0);
        for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
            let Ok(line) = line else { break };
            files += usize::from(["  CC ", "  AS "].iter().any(|step| line.starts_with(step)));
            if files > 0 && told.elapsed() > TELL {
                told = Instant::now();
                let seconds = started.elapsed().as_secs();
                self.cache.say(&format!("building {}: {files} files in {seconds} s", self.name));
            }
        }
        let status = child.wait().map_err(|error| self.failed(error.to_string()))?;
        let errors = errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(self.failed(errors.join("\n"))) }
    }

    fn failed(&self, why: String) -> Error {
        Error::Build { name: self.name.to_owned(), why }
    }
}

fn last_lines(stderr: impl std::io::Read) -> Vec<String> {
    let mut lines = std::collections::VecDeque::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if lines.len() == SHOWN {
            lines.pop_front();
        }
        lines.push_back(line);
    }
    lines.into()
}

/// What `wanted` sets to `y` and `config` does not.
fn lost_options<'a>(wanted: &'a str, config: &str) -> Vec<&'a str> {
    let set: std::collections::HashSet<&str> = config.lines().collect();
    wanted.lines().filter(|line| line.ends_with("=y") && !set.contains(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(name: &str) -> Own {
        Own::named(name).unwrap()
    }

    #[test]
    fn only_the_series_that_debian_has_have_a_name() {
        for name in ["small-6.1", "small-6.12", "mutants-6.1", "mutants-6.12"] {
            assert_eq!(own(name).name(), name);
        }
        for name in ["small-6.2", "small-", "debian-6.1", "small-6.1@1", "mutants"] {
            assert!(Own::named(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_series_has_its_own_settings_and_those_of_all() {
        let (old, new) = (own("small-6.1").settings(), own("mutants-6.12").settings());
        assert!(old.starts_with(&new) && old.contains("CONFIG_RANDOM_TRUST_CPU=y\n"));
        assert!(new.contains("CONFIG_FS_DAX=y\n") && !new.contains("CONFIG_RANDOM_TRUST_CPU"));
        assert!(!old.contains('#'));
    }

    #[test]
    fn an_option_that_kconfig_dropped_is_told() {
        let wanted = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\nCONFIG_D=8\n";
        assert_eq!(lost_options(wanted, "CONFIG_A=y\n# CONFIG_B is not set\n"), ["CONFIG_B=y"]);
    }

    #[test]
    #[ignore = "builds four kernels from their source: minutes"]
    fn both_series_build_with_mutants_and_without() {
        let cache = Cache::open().unwrap();
        for name in ["small-6.1", "mutants-6.1", "small-6.12", "mutants-6.12"] {
            let started = Instant::now();
            let kernel = crate::Kernel::get(&cache, name).unwrap();
            eprintln!(
                "{name}: {} in {:?}, {} bytes",
                kernel.release,
                started.elapsed(),
                kernel.vmlinux.len()
            );
            assert!(kernel.release.starts_with(&format!("{}.", own(name).series.name)), "{}", kernel.release);
            assert!(kernel.release.ends_with("-pmemsim"), "{}", kernel.release);
            assert!(!kernel.build_id.is_empty());
        }
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let error = build_kernel(&cache, "small-2.6", &[]).unwrap_err();
        assert!(matches!(error, Error::UnknownKernel { name } if name == "small-2.6"));
    }
}
