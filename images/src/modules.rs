//! Kernel modules in the order in which they can be loaded. Debian's packages bring no modules.dep: each .ko names
//! what it depends on in its .modinfo section (`depends=a,b`).

use std::collections::BTreeMap;

use object::{Object, ObjectSection};

use crate::bzimage;
use crate::error::{Error, Result};

/// A kernel module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name as the kernel knows it: `nd_pmem`, with underscores.
    pub name: String,
    /// The .ko file, not compressed.
    pub ko: Vec<u8>,
}

/// `wanted` and all that they depend on, each after what it depends on. Names that `find` does not know are left
/// out: what is not a module is built into the kernel, or the kernel cannot do it and the guest will say so.
pub(crate) fn closure(
    wanted: &[&str],
    mut find: impl FnMut(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<Module>> {
    let mut ordered = Vec::new();
    let mut seen = BTreeMap::new();
    for name in wanted {
        visit(&canonical(name), &mut find, &mut seen, &mut ordered)?;
    }
    Ok(ordered)
}

fn visit(
    name: &str,
    find: &mut impl FnMut(&str) -> Result<Option<Vec<u8>>>,
    seen: &mut BTreeMap<String, bool>,
    ordered: &mut Vec<Module>,
) -> Result<()> {
    match seen.get(name) {
        Some(true) => return Ok(()),
        Some(false) => {
            return Err(Error::BadModule { module: name.into(), why: "it depends on itself".into() });
        }
        None => seen.insert(name.into(), false),
    };
    if let Some(ko) = find(name)? {
        for dependency in depends(name, &ko)? {
            visit(&dependency, find, seen, ordered)?;
        }
        ordered.push(Module { name: name.into(), ko });
    }
    seen.insert(name.into(), true);
    Ok(())
}

/// The module's name for a path or a name: `a/nd-pmem.ko.xz` is `nd_pmem`.
pub(crate) fn canonical(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = [".ko", ".ko.xz", ".ko.gz", ".ko.zst"].iter().find_map(|suffix| file.strip_suffix(suffix));
    stem.unwrap_or(file).replace('-', "_")
}

/// Whether the path is a module's.
pub(crate) fn is_module(path: &str) -> bool {
    [".ko", ".ko.xz", ".ko.gz", ".ko.zst"].iter().any(|suffix| path.ends_with(suffix))
}

/// The .ko without its compression.
pub(crate) fn plain(name: &str, file: Vec<u8>) -> Result<Vec<u8>> {
    let plain = match &file[..] {
        [0xfd, b'7', b'z', b'X', b'Z', ..] => bzimage::xz(&file),
        [0x1f, 0x8b, ..] => bzimage::gzip(&file),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => bzimage::zstd(&file),
        _ => return Ok(file),
    };
    plain.map_err(|why| Error::BadModule { module: name.into(), why: format!("cannot be unpacked: {why}") })
}

/// Names in `depends=` of .modinfo, whose entries are `key=value`, each ended by a zero byte.
fn depends(name: &str, ko: &[u8]) -> Result<Vec<String>> {
    let bad = |why: String| Error::BadModule { module: name.into(), why };
    let file = object::File::parse(ko).map_err(|error| bad(format!("not an object file: {error}")))?;
    let section = file.section_by_name(".modinfo").ok_or_else(|| bad("it has no .modinfo section".into()))?;
    let data = section.data().map_err(|error| bad(error.to_string()))?;
    let entry = data.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let list = String::from_utf8_lossy(entry.unwrap_or_default()).into_owned();
    Ok(list.split(',').filter(|name| !name.is_empty()).map(canonical).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A relocatable ELF file with sections "", ".modinfo", ".shstrtab".
    fn ko(depends: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let mut file = vec![0; 64];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..20].copy_from_slice(&[1, 0, 62, 0]);
        file[20] = 1;
        let at = 64 + info.len() + names.len();
        file[40..48].copy_from_slice(&(at as u64).to_le_bytes());
        file[52..64].copy_from_slice(&[64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        file.extend(info.as_bytes());
        file.extend(names);
        let section = |name: u32, kind: u32, offset: usize, size: usize| {
            let mut header = vec![0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
            header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
            header
        };
        file.extend(vec![0; 64]);
        file.extend(section(1, 1, 64, info.len()));
        file.extend(section(10, 3, 64 + info.len(), names.len()));
        file
    }

    fn order(wanted: &[&str], modules: &[(&str, &str)]) -> Result<Vec<String>> {
        let find =
            |name: &str| Ok(modules.iter().find(|(other, _)| *other == name).map(|(_, depends)| ko(depends)));
        Ok(closure(wanted, find)?.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let modules = [
            ("nd_pmem", "nd-btt,libnvdimm"),
            ("nd_btt", "libnvdimm"),
            ("libnvdimm", ""),
            ("nfit", "libnvdimm"),
        ];
        assert_eq!(
            order(&["nfit", "nd-pmem"], &modules).unwrap(),
            ["libnvdimm", "nfit", "nd_btt", "nd_pmem"]
        );
    }

    #[test]
    fn what_is_built_in_is_left_out() {
        assert_eq!(order(&["ext4", "a"], &[("a", "jbd2")]).unwrap(), ["a"]);
    }

    #[test]
    fn a_circle_is_an_error() {
        let error = order(&["a"], &[("a", "b"), ("b", "a")]).unwrap_err();
        assert_eq!(error.to_string(), "module a: it depends on itself");
    }

    #[test]
    fn garbage_is_an_error() {
        let error = closure(&["a"], |_| Ok(Some(b"not a module".to_vec()))).unwrap_err();
        assert!(error.to_string().starts_with("module a: not an object file"));
    }

    #[test]
    fn file_names_give_module_names() {
        assert_eq!(canonical("lib/modules/6.1/kernel/drivers/nvdimm/nd-pmem.ko.xz"), "nd_pmem");
        assert_eq!(canonical("nfit"), "nfit");
    }
}
