//! Contents of pmem regions, ready to be mounted.

use std::fs;
use std::path::Path;

use crate::apt::Package;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::filesystem::{Filesystem, Tools};
use crate::namespace::{self, DATA_OFFSET};

/// Largest region that is made: it is held in memory.
const LARGEST: u64 = 16 << 30;

/// How a region is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// A block device over the whole region, without DAX when the region comes from NFIT.
    Raw,
    /// A block device with DAX; the first 2 MiB hold the info block.
    Fsdax,
}

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
    /// Where the block device begins in it, bytes.
    pub data_offset: u64,
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
    let data_offset = match spec.namespace {
        Namespace::Raw => 0,
        Namespace::Fsdax => {
            namespace::check_fsdax_size(spec.size)?;
            DATA_OFFSET
        }
    };
    let Some(filesystem) = &spec.filesystem else {
        return Ok(PmemImage { bytes: without_file_system(spec)?, data_offset, package: None });
    };
    filesystem.check_options()?;
    let tools = Tools::get(cache, filesystem.kind)?;
    let key = format!("{spec:?} {} layout 1", tools.package().sha256);
    let key = &blake3::hash(key.as_bytes()).to_hex()[..32];
    let name = Path::new("region");
    let tree = cache.tree("regions", key, |dir| {
        let file = dir.join(name);
        fs::write(&file, without_file_system(spec)?).map_err(Error::io("write", &file))?;
        tools.make(&file, data_offset, &filesystem.mkfs)
    })?;
    Ok(PmemImage { bytes: tree.read(name)?, data_offset, package: Some(tools.package().clone()) })
}

fn without_file_system(spec: &ImageSpec) -> Result<Vec<u8>> {
    let mut bytes = namespace::untouched(spec.size);
    if spec.namespace == Namespace::Fsdax {
        namespace::write_info_block(&mut bytes)?;
    }
    Ok(bytes)
}
