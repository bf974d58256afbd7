//! `pmemsim images`: what is in the cache.

use std::path::PathBuf;

use images::Cache;

use crate::say::{Unheard, say};

/// Lists, fetches and removes kernels, programs and images in the cache.
#[derive(clap::Args)]
pub struct Images {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Shows what is in the cache
    List,
    /// Gets kernels (debian-6.1, debian-6.12) or Debian programs by name
    Fetch {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Builds a kernel of our own (small-6.1, small-6.12, mutants-6.1, mutants-6.12) from Debian's source, and prints where
    /// it is. Scenarios take that path, or the name alone for one without patches of yours
    Build {
        /// Its name
        name: String,
        /// Patches to apply, in this order
        #[arg(long)]
        patch: Vec<PathBuf>,
    },
    /// Forgets which versions names stood for, so that the next use takes the newest
    Refresh,
    /// Removes what is soon there again: base snapshots, and packages that are unpacked already
    Prune,
    /// Removes everything from the cache
    Clean,
}

impl Images {
    /// Returns the exit code.
    pub fn run(self) -> anyhow::Result<u8> {
        let cache = Cache::open()?;
        match self.action {
            Action::List => {
                let entries = images::list(&cache)?;
                let all: u64 = entries.iter().map(|entry| entry.size).sum();
                for entry in entries {
                    let size = entry.size as f64 / f64::from(1 << 20);
                    say!("{:<10} {:<28} {:<24} {size:>9.1} MiB", entry.kind, entry.name, entry.version)?;
                }
                say!("{:.1} MiB in {}", all as f64 / f64::from(1 << 20), cache.root().display())?;
            }
            Action::Fetch { names } => {
                for name in names {
                    let (package, version) = images::fetch(&cache, &name)?;
                    say!("{name}: {package} {version}")?;
                }
            }
            Action::Build { name, patch } => {
                say!("{}", images::build_kernel(&cache, &name, &patch)?.display())?;
            }
            Action::Refresh => images::refresh(&cache)?,
            Action::Prune => tell_freed(&cache, cache.prune()?)?,
            Action::Clean => tell_freed(&cache, cache.clean()?)?,
        }
        Ok(0)
    }
}

fn tell_freed(cache: &Cache, bytes: u64) -> Result<(), Unheard> {
    say!("{:.1} MiB removed from {}", bytes as f64 / f64::from(1 << 20), cache.root().display())
}
