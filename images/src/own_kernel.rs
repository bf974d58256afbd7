//! Small kernels of our own, built from Debian's source: `small-6.1`, `small-6.12`, with patches or without.
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
/// Series that Debian has the source of, and what they are configured to besides.
const SERIES: [(&str, &str); 2] = [("6.1", include_str!("../../guest/kernel/config-6.1")), ("6.12", "")];
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

/// The series of `small-SERIES`, `None` for other names.
pub(crate) fn series(name: &str) -> Option<&'static str> {
    let wanted = name.strip_prefix("small-")?;
    SERIES.into_iter().map(|(series, _)| series).find(|series| *series == wanted)
}

/// What the kernels of a series are configured to: the settings, without what is said about them.
fn settings(series: &str) -> String {
    let own = SERIES.iter().find(|(name, _)| *name == series).map_or("", |(_, settings)| settings);
    let lines = CONFIG.lines().chain(own.lines()).filter(|line| line.starts_with("CONFIG_"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Builds the kernel `small-6.1` or `small-6.12` with `patches` applied in their order, unless that was done before.
/// Returns where its vmlinux is.
///
/// # Errors
/// [`Error::UnknownKernel`], [`Error::BuildTools`], [`Error::BadPatch`], [`Error::Build`], and all that fetching can meet.
pub fn build_kernel(cache: &Cache, name: &str, patches: &[PathBuf]) -> Result<PathBuf> {
    let series = series(name).ok_or_else(|| Error::UnknownKernel { name: name.into() })?;
    let texts = patches.iter().map(|path| fs::read(path).map_err(Error::io("read", path)));
    Ok(built(cache, series, &texts.collect::<Result<Vec<_>>>()?)?.tree.root().join("vmlinux"))
}

/// The kernel of a series with patches applied, from the cache or built now.
pub(crate) fn built(cache: &Cache, series: &str, patches: &[Vec<u8>]) -> Result<Built> {
    let package = Apt::new(cache).resolve(&format!("linux-source-{series}"))?;
    let (settings, compiler) = (settings(series), compiler()?);
    let mut key = blake3::Hasher::new();
    for part in [package.sha256.as_bytes(), settings.as_bytes(), compiler.as_bytes()] {
        key.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    for patch in patches {
        key.update(&(patch.len() as u64).to_le_bytes()).update(patch);
    }
    let key = format!("{series}-{}", &key.finalize().to_hex()[..32]);
    let tree = cache.tree("own-kernels", &key, |dir| {
        check_tools()?;
        let work = WorkingTree::open(cache, series, &package)?;
        work.set_patches(patches)?;
        Build { cache, series, settings: &settings, work: &work }.run(dir)
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
    series: &'a str,
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
        let map = format!("KCFLAGS=-ffile-prefix-map={}/=", source.display());
        let mut make = Command::new("make");
        make.arg("-C").arg(&source).arg(format!("O={}", self.work.objects().display())).args(arguments);
        // The same input makes the same kernel, whoever builds it and when.
        make.args(["KBUILD_BUILD_TIMESTAMP=Thu Jan  1 00:00:00 UTC 1970", "KBUILD_BUILD_USER=pmemsim"]);
        make.args(["KBUILD_BUILD_HOST=pmemsim", "KBUILD_BUILD_VERSION=1", "LOCALVERSION=-pmemsim", &map]);
        // Options of the user's own builds are not ours.
        for variable in ["MAKEFLAGS", "MFLAGS", "ARCH", "CROSS_COMPILE", "KCFLAGS", "KBUILD_OUTPUT", "CC"] {
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
                self.cache.say(&format!("building small-{}: {files} files in {seconds} s", self.series));
            }
        }
        let status = child.wait().map_err(|error| self.failed(error.to_string()))?;
        let errors = errors.and_then(|errors| errors.join().ok()).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(self.failed(errors.join("\n"))) }
    }

    fn failed(&self, why: String) -> Error {
        Error::Build { name: format!("small-{}", self.series), why }
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

    #[test]
    fn only_the_series_that_debian_has_have_a_name() {
        assert_eq!(series("small-6.1"), Some("6.1"));
        assert_eq!(series("small-6.12"), Some("6.12"));
        for name in ["small-6.2", "small-", "debian-6.1", "small-6.1@1"] {
            assert_eq!(series(name), None, "{name}");
        }
    }

    #[test]
    fn a_series_has_its_own_settings_and_those_of_all() {
        let (old, new) = (settings("6.1"), settings("6.12"));
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
    #[ignore = "builds two kernels from their source: minutes"]
    fn both_series_build() {
        let cache = Cache::open().unwrap();
        for (series, _) in SERIES {
            let started = Instant::now();
            let kernel = crate::Kernel::get(&cache, &format!("small-{series}")).unwrap();
            eprintln!("{} in {:?}, {} bytes", kernel.release, started.elapsed(), kernel.vmlinux.len());
            assert!(kernel.release.starts_with(&format!("{series}.")), "{}", kernel.release);
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
