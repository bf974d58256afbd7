//! A private apt root in the cache: own state, sources and configuration. The system's apt is not touched, no
//! privileges are needed, and the host may be Debian or Ubuntu.

use std::collections::HashMap;
use std::fs;
use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sha2::{Digest, Sha256};

use crate::cache::{Cache, create_dir, entries};
use crate::error::{Error, Result};
use crate::watched;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const RELEASE: &str = "bookworm";

/// A processor architecture that Debian has packages for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Architecture {
    #[default]
    Amd64,
    I386,
}

impl Architecture {
    /// Debian's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Architecture::Amd64 => "amd64",
            Architecture::I386 => "i386",
        }
    }

    /// Where its shared libraries are.
    pub(crate) fn libraries(self) -> &'static str {
        match self {
            Architecture::Amd64 => "usr/lib/x86_64-linux-gnu",
            Architecture::I386 => "usr/lib/i386-linux-gnu",
        }
    }
}

/// A package of Debian in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// SHA-256 of the .deb, hexadecimal.
    pub sha256: String,
}

pub(crate) struct Apt<'a> {
    cache: &'a Cache,
    architecture: Architecture,
    root: PathBuf,
    mirror: String,
}

impl<'a> Apt<'a> {
    pub(crate) fn new(cache: &'a Cache) -> Apt<'a> {
        Apt::of(cache, Architecture::Amd64)
    }

    /// Each architecture has a root of its own: nobody pays for an index that is not asked for.
    pub(crate) fn of(cache: &'a Cache, architecture: Architecture) -> Apt<'a> {
        let mirror =
            variable("PMEMSIM_DEBIAN_MIRROR").unwrap_or_else(|| "http://deb.debian.org/debian".into());
        let root = match architecture {
            Architecture::Amd64 => cache.root().join("apt"),
            other => cache.root().join("apt").join(other.name()),
        };
        Apt { cache, architecture, root, mirror }
    }

    /// The package as it was resolved the first time; kept until [`Apt::forget`], so that runs repeat.
    pub(crate) fn resolve(&self, name: &str) -> Result<Package> {
        let known = match self.architecture {
            Architecture::Amd64 => name.to_owned(),
            other => format!("{name}:{}", other.name()),
        };
        self.resolve_with(&known, || self.candidate(name))
    }

    /// The same for a name that is not a package's: `find` says what it means today.
    pub(crate) fn resolve_with(&self, name: &str, find: impl FnOnce() -> Result<Package>) -> Result<Package> {
        let path = self.cache.root().join("resolved").join(name);
        if let Some(package) = fs::read_to_string(&path).ok().as_deref().and_then(parse_resolved) {
            return Ok(package);
        }
        let package = find()?;
        let line = format!("{} {} {}\n", package.name, package.version, package.sha256);
        self.cache.write(&path, line.as_bytes())?;
        Ok(package)
    }

    /// What names stand for, in their order.
    pub(crate) fn resolved(&self) -> Result<Vec<(String, Package)>> {
        let dir = self.cache.root().join("resolved");
        let mut found = Vec::new();
        for path in if dir.exists() { entries(&dir)? } else { Vec::new() } {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let package = fs::read_to_string(&path).ok().as_deref().and_then(parse_resolved);
            found.extend(package.map(|package| (name, package)));
        }
        Ok(found)
    }

    /// Forgets what names were resolved to, and gets Debian's index anew; those of other architectures when they
    /// have been used.
    pub(crate) fn refresh(&self) -> Result<()> {
        self.cache.remove("resolved")?;
        let _lock = self.cache.lock("apt")?;
        self.update()?;
        let other = Apt::of(self.cache, Architecture::I386);
        if other.updated().exists() { other.update() } else { Ok(()) }
    }

    /// Every package whose name begins with `prefix`, each in its newest version.
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<Package>> {
        let _lock = self.index()?;
        let names = self.query(&["pkgnames", prefix])?;
        let names: Vec<&str> = names.lines().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut arguments = vec!["show", "--no-all-versions"];
        arguments.extend(names);
        Ok(stanzas(&self.query(&arguments)?))
    }

    fn candidate(&self, name: &str) -> Result<Package> {
        let missing = || Error::NoSuchPackage { wanted: format!("package {name}"), available: Vec::new() };
        let _lock = self.index()?;
        let shown = self.query(&["show", "--no-all-versions", name]).map_err(|error| match error {
            Error::Tool { detail, .. } if detail.contains("No packages found") => missing(),
            other => other,
        })?;
        stanzas(&shown).into_iter().find(|package| package.name == name).ok_or_else(missing)
    }

    /// Path of the package's .deb, downloaded when it is not in the cache or damaged there.
    pub(crate) fn fetch(&self, package: &Package) -> Result<PathBuf> {
        let dir = self.cache.root().join("debs");
        let place = dir.join(format!("{}_{}.deb", package.name, package.sha256));
        if place.exists() {
            if sha256(&place)? == package.sha256 {
                return Ok(place);
            }
            self.cache.say(&format!("{} is damaged; fetching it anew", place.display()));
        }
        let _lock = self.index()?;
        let scratch = self.cache.scratch()?;
        self.cache.say(&format!("fetching {} {}", package.name, package.version));
        if let Err(first) = self.download(package, scratch.path()) {
            // The mirror drops a file when its successor arrives: the index may be too old.
            if matches!(first, Error::Network { .. } | Error::DiskFull { .. }) {
                return Err(first);
            }
            self.update()?;
            self.download(package, scratch.path())?;
        }
        let files = entries(scratch.path())?;
        let file = files.iter().find(|path| path.extension().is_some_and(|suffix| suffix == "deb"));
        let file = file
            .ok_or_else(|| Error::Tool { tool: "apt-get".into(), detail: "it downloaded nothing".into() })?;
        let found = sha256(file)?;
        if found != package.sha256 {
            return Err(Error::Damaged {
                package: package.name.clone(),
                expected: package.sha256.clone(),
                found,
            });
        }
        create_dir(&dir)?;
        fs::File::open(file).and_then(|file| file.sync_all()).map_err(Error::io("write", &place))?;
        fs::rename(file, &place).map_err(Error::io("write", &place))?;
        Ok(place)
    }

    fn download(&self, package: &Package, into: &Path) -> Result<()> {
        let mut apt = self.command("apt-get");
        apt.current_dir(into).arg("download").arg(format!("{}={}", package.name, package.version));
        self.run(apt, true).map(drop)
    }

    /// Takes the lock and sees to it that there is an index.
    fn index(&self) -> Result<fs::File> {
        let lock = self.cache.lock("apt")?;
        if self.updated().exists() {
            self.configure()?;
        } else {
            self.update()?;
        }
        Ok(lock)
    }

    fn update(&self) -> Result<()> {
        self.configure()?;
        self.cache.say(&format!(
            "getting the package index of Debian {RELEASE} {} from {}",
            self.architecture.name(),
            self.mirror
        ));
        let mut apt = self.command("apt-get");
        apt.arg("update");
        let output = self.run(apt, false)?;
        // apt-get ends with 0 when a mirror cannot be reached, and keeps what it had.
        let stderr = String::from_utf8_lossy(&output.stderr);
        match stderr.lines().find(|line| line.contains("Failed to fetch")) {
            Some(line) => Err(self.network(line)),
            None => self.cache.write(&self.updated(), b""),
        }
    }

    /// A file that is there when the index is whole.
    fn updated(&self) -> PathBuf {
        self.root.join("state/updated")
    }

    fn network(&self, detail: &str) -> Error {
        Error::Network { mirror: self.mirror.clone(), detail: detail.trim().to_string() }
    }

    fn query(&self, arguments: &[&str]) -> Result<String> {
        let mut apt = self.command("apt-cache");
        apt.args(arguments);
        Ok(String::from_utf8_lossy(&self.run(apt, false)?.stdout).into_owned())
    }

    fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(tool);
        command.env("APT_CONFIG", self.root.join("apt.conf")).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn run(&self, mut command: Command, progress: bool) -> Result<Output> {
        let tool = command.get_program().to_string_lossy().into_owned();
        if progress && std::io::stderr().is_terminal() {
            command.stdout(std::io::stderr());
        } else {
            command.stdout(Stdio::piped());
        }
        let child = command.stderr(Stdio::piped()).spawn().map_err(|error| missing(&tool, error))?;
        let output = watched::output(child, &self.root).map_err(|error| missing(&tool, error))?;
        let output = output.ok_or_else(|| Error::DiskFull { path: self.root.clone() })?;
        if output.status.success() {
            return Ok(output);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let detail = stderr.lines().filter(|line| line.starts_with("E:")).collect::<Vec<_>>().join("\n");
        let detail = if detail.is_empty() { stderr.trim().to_string() } else { detail };
        if ["No space left", "enough free space"].iter().any(|words| stderr.contains(words)) {
            return Err(Error::DiskFull { path: self.root.clone() });
        }
        let unreachable = [
            "Could not resolve",
            "Could not connect",
            "Unable to connect",
            "Connection failed",
            "Temporary failure",
            "Failed to fetch",
            "Network is unreachable",
            "Connection timed out",
        ];
        if unreachable.iter().any(|words| stderr.contains(words)) && !stderr.contains("404") {
            return Err(self.network(&detail));
        }
        Err(Error::Tool { tool, detail })
    }

    /// Writes the configuration when it is not there or another.
    fn configure(&self) -> Result<()> {
        if !Path::new(KEYRING).exists() {
            return Err(Error::MissingKeyring { path: KEYRING.into() });
        }
        for dir in ["state/lists/partial", "cache/archives/partial", "etc/none"] {
            create_dir(&self.root.join(dir))?;
        }
        let security = variable("PMEMSIM_DEBIAN_SECURITY_MIRROR")
            .unwrap_or_else(|| "http://deb.debian.org/debian-security".into());
        let mut sources = String::new();
        let mut suites = vec![(&self.mirror, ""), (&self.mirror, "-updates")];
        // Nobody serves anything with 32-bit programs in a guest: the releases themselves are enough.
        if self.architecture == Architecture::Amd64 {
            suites.push((&security, "-security"));
        }
        for (mirror, suite) in suites {
            sources += &format!(
                "deb [arch={} signed-by={KEYRING}] {mirror} {RELEASE}{suite} main\n",
                self.architecture.name()
            );
        }
        for (name, text) in
            [("state/status", ""), ("etc/sources.list", &sources), ("apt.conf", &self.settings())]
        {
            let path = self.root.join(name);
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                self.cache.write(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    fn settings(&self) -> String {
        let root = self.root.display();
        let mut text = String::new();
        for (name, value) in [
            ("Dir::State", "state"),
            ("Dir::State::status", "state/status"),
            ("Dir::Cache", "cache"),
            ("Dir::Etc", "etc"),
            ("Dir::Etc::main", "etc/none/apt.conf"),
            ("Dir::Etc::parts", "etc/none"),
            ("Dir::Etc::preferences", "etc/none/preferences"),
            ("Dir::Etc::preferencesparts", "etc/none"),
            ("Dir::Etc::sourcelist", "etc/sources.list"),
            ("Dir::Etc::sourceparts", "etc/none"),
            ("Dir::Etc::trusted", "etc/none/trusted.gpg"),
            ("Dir::Etc::trustedparts", "etc/none"),
        ] {
            text += &format!("{name} \"{root}/{value}\";\n");
        }
        let architecture = self.architecture.name();
        text += &format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\nAPT::Sandbox::User \"\";\n"
        );
        text += "Acquire::Languages \"none\";\nAcquire::Retries \"2\";\nDebug::NoLocking \"true\";\n";
        text + &host_network_settings()
    }
}

/// How the host's apt reaches mirrors (proxies, timeouts, clocks that are off) holds here as well.
fn host_network_settings() -> String {
    let Ok(output) = Command::new("apt-config").arg("dump").stdin(Stdio::null()).output() else {
        return String::new();
    };
    let dump = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = ["Acquire::http::", "Acquire::https::", "Acquire::Check-"];
    let chosen = dump.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    chosen.map(|line| format!("{line}\n")).collect()
}

fn missing(tool: &str, error: std::io::Error) -> Error {
    const WHY: &str = "kernels and programs come from Debian through apt; Debian and Ubuntu have it. \
                       Without it, give paths to a kernel and its modules";
    match (error.kind(), tool) {
        (ErrorKind::NotFound, "apt-cache") => Error::MissingTool { tool: "apt-cache", why: WHY },
        (ErrorKind::NotFound, _) => Error::MissingTool { tool: "apt-get", why: WHY },
        _ => Error::Tool { tool: tool.into(), detail: error.to_string() },
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name)
        .ok()
        .map(|value| value.trim_end_matches('/').to_string())
        .filter(|value| !value.is_empty())
}

pub(crate) fn parse_resolved(line: &str) -> Option<Package> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, version, sha256] = words[..] else { return None };
    (sha256.len() == 64).then(|| Package {
        name: name.into(),
        version: version.into(),
        sha256: sha256.into(),
    })
}

/// The packages in what `apt-cache show` prints.
pub(crate) fn stanzas(text: &str) -> Vec<Package> {
    let parse = |stanza: &str| {
        let fields: HashMap<&str, &str> = stanza.lines().filter_map(|line| line.split_once(": ")).collect();
        let field = |name| fields.get(name).map(|value| value.trim().to_string());
        Some(Package { name: field("Package")?, version: field("Version")?, sha256: field("SHA256")? })
    };
    text.split("\n\n").filter_map(parse).collect()
}

fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_from_what_apt_cache_shows() {
        let text = "Package: a\nVersion: 1.0-1\nDescription: x\n more: y\nSHA256: 00ff\n\nPackage: b\nVersion: 2\n\n";
        let packages = stanzas(text);
        assert_eq!(packages, [Package { name: "a".into(), version: "1.0-1".into(), sha256: "00ff".into() }]);
    }

    #[test]
    fn a_damaged_resolution_is_not_used() {
        assert_eq!(parse_resolved("linux 6.1"), None);
        assert_eq!(parse_resolved("linux 6.1 abc\n"), None);
        assert!(parse_resolved(&format!("linux 6.1 {}\n", "a".repeat(64))).is_some());
    }

    #[test]
    fn an_unreachable_mirror_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let apt = Apt { mirror: "http://127.0.0.1:9/debian".into(), ..Apt::new(&cache) };
        match apt.resolve("dash") {
            Err(Error::Network { mirror, .. }) => assert_eq!(mirror, "http://127.0.0.1:9/debian"),
            other => panic!("{other:?}"),
        }
    }
}
