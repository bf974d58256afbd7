//! Contents of pmem regions, ready to be mounted.

use std::fs;
use std::path::Path;

use crate::apt::Package;
use crate::cache::Cache;
use crate::device::{Device, Namespace};
use crate::error::{Error, Result};
use crate::filesystem::{Filesystem, Tools};
use crate::namespace;

/// Largest region that is made: it is held in memory.
const LARGEST: u64 = 16 << 30;

/// What a region is to hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageSpec {
    /// Bytes of the region.
    pub size: u64,
    /// How it is used.
    pub namespace: Namespace,
    /// Its file system; none leaves it untouched.
    pub filesystem: Option<Filesystem>,
}

/// What a region holds.
#[derive(Clone, Debug)]
pub struct PmemImage {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Where the device is in it.
    pub device: Device,
    /// The package that made the file system.
    pub package: Option<Package>,
}

/// Makes the image, or takes it from the cache. The same input gives the same bytes.
///
/// # Errors
/// [`Error::BadImage`] for sizes and options that do not work; what fetching the programs that make it can meet.
pub fn pmem_image(cache: &Cache, spec: &ImageSpec) -> Result<PmemImage> {
    if spec.size == 0 || !spec.size.is_multiple_of(4096) || spec.size > LARGEST {
        let why = format!("its size is a multiple of 4 KiB up to 16 GiB, not {} bytes", spec.size);
        return Err(Error::BadImage { why });
    }
    let device = Device::of(spec.namespace, spec.size)?;
    let Some(filesystem) = &spec.filesystem else {
        return Ok(PmemImage { bytes: without_file_system(spec, &device)?, device, package: None });
    };
    filesystem.check_options()?;
    let tools = Tools::get(cache, filesystem.kind)?;
    let key = format!("{spec:?} {} layout 1", tools.package().sha256);
    let key = &blake3::hash(key.as_bytes()).to_hex()[..32];
    let name = Path::new("region");
    let tree = cache.tree("regions", key, |dir| {
        let file = dir.join(name);
        fs::write(&file, without_file_system(spec, &device)?).map_err(Error::io("write", &file))?;
        tools.make(&file, &device, &filesystem.mkfs)
    })?;
    Ok(PmemImage { bytes: tree.read(name)?, device, package: Some(tools.package().clone()) })
}

fn without_file_system(spec: &ImageSpec, device: &Device) -> Result<Vec<u8>> {
    let mut bytes = namespace::untouched(spec.size);
    device.write_info(spec.namespace, &mut bytes)?;
    Ok(bytes)
}
