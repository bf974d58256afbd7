//! What the regions of a booted machine hold at first, and where it goes at the end.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use vmm::Machine;

use crate::failure::Usage;
use crate::size::Size;

/// A region: zeroed memory, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backing {
    size: u64,
    file: Option<PathBuf>,
    /// Whether the file stays as it is.
    copy: bool,
}

impl FromStr for Backing {
    type Err = String;

    fn from_str(text: &str) -> Result<Backing, String> {
        let Some(path) = text.strip_prefix("file=") else {
            return text.parse().map(|Size(size)| Backing { size, file: None, copy: false });
        };
        let (path, copy) = path.strip_suffix(",copy").map_or((path, false), |path| (path, true));
        Ok(Backing { size: 0, file: Some(path.into()), copy })
    }
}

impl Backing {
    /// Bytes; of a file, once it was read.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What is there at first; nothing for zeroed memory.
    pub fn read(&mut self) -> Result<Vec<u8>, Usage> {
        let Some(path) = &self.file else { return Ok(Vec::new()) };
        let hint = "make a file first, with truncate -s 64M for instance";
        let content =
            std::fs::read(path).map_err(|why| Usage(format!("{}: {why}; {hint}", path.display())))?;
        self.size = content.len() as u64;
        Ok(content)
    }
}

/// Writes what the regions hold now into the files that are not copies.
pub fn write_back(backings: &[&Backing], machine: &Machine) -> anyhow::Result<()> {
    for (backing, region) in backings.iter().zip(machine.regions()) {
        let Some(path) = backing.file.as_ref().filter(|_| !backing.copy) else { continue };
        let mut content = vec![0; region.size as usize];
        machine.read_pmem(region.base, &mut content);
        std::fs::write(path, content)
            .with_context(|| format!("cannot write the media to {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_a_size_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        let name = file.path().display();
        let read = |text: &str| text.parse::<Backing>();
        assert_eq!(read("2M").unwrap(), Backing { size: 2 << 20, file: None, copy: false });
        let mut there = read(&format!("file={name}")).unwrap();
        assert_eq!(there.read().unwrap().len(), 2 << 20);
        assert_eq!((there.size(), there.copy, there.file.as_deref()), (2 << 20, false, Some(file.path())));
        assert!(read(&format!("file={name},copy")).unwrap().copy);
        assert!(read("file=/there/is/no/such").unwrap().read().is_err() && read("big").is_err());
    }
}
