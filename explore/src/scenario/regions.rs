//! Regions of persistent memory: `[[nvdimm]]`, `[[virtio_pmem]]` and `[[pmem_legacy]]`.

use std::ops::Range;

use images::{Device, Namespace};
use persist::Platform;
use serde::Deserialize;
use vmm::{FlushAction, FlushFault};

use super::number::Bytes;
use super::platforms::Claim;
use super::poison;
use super::schema::{Document, NamespaceName, Nvdimm};
use super::{ScenarioError, Source};

/// Regions of each kind that a machine has at most.
const MAX_REGIONS: usize = 8;
/// Flush hint addresses of a DIMM.
const MAX_FLUSH_HINTS: u32 = 16;

impl Region {
    /// Offsets of what its media has lost from the beginning.
    pub(crate) fn poison(&self) -> &[Range<u64>] {
        match &self.interface {
            Interface::Nvdimm { poison, .. } => poison,
            Interface::VirtioPmem { .. } | Interface::Legacy => &[],
        }
    }
}

/// A region of persistent memory. The kernel numbers those of NFIT first, then those of virtio-pmem, then legacy ones, each
/// in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// Size in bytes: a multiple of 2 MiB, 16 MiB or more.
    pub size: Bytes,
    /// What survives a power loss.
    pub platform: Platform,
    /// What it holds.
    pub namespace: Namespace,
    /// How the guest finds it.
    pub interface: Interface,
}

/// How the guest finds a region.
#[derive(Clone, Debug, PartialEq)]
pub enum Interface {
    /// `[[nvdimm]]`: NFIT tells of it.
    Nvdimm {
        /// Flush hint addresses of its DIMM.
        flush_hints: u32,
        /// Whether its DIMM has a label area.
        labels: bool,
        /// Offsets in the region of what its media has lost from the beginning: whole lines, ascending, apart.
        poison: Vec<Range<u64>>,
        /// What the platform says that it saves, if that is not what it does.
        claims: Option<Claim>,
    },
    /// `[[virtio_pmem]]`: a virtio-pmem device tells of it.
    VirtioPmem {
        /// What goes wrong with its flushes while the scenario is recorded. Recovering machines have none of that.
        faults: Vec<FlushFault>,
    },
    /// `[[pmem_legacy]]`: the memory map tells of it, as e820 type 12.
    Legacy,
}

/// `[[virtio_pmem]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVirtioPmem {
    size: Bytes,
    platform: Option<Platform>,
    /// Linux gives such a region DAX without an info block.
    #[serde(default = "raw")]
    namespace: NamespaceName,
    #[serde(default)]
    faults: Vec<RawFault>,
}

/// `[[pmem_legacy]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLegacy {
    size: Bytes,
    #[serde(default)]
    platform: Platform,
    #[serde(default = "raw")]
    namespace: NamespaceName,
    sector_size: Option<u32>,
}

fn raw() -> NamespaceName {
    NamespaceName::Raw
}

/// `{ flush = 3, action = "fail" }`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFault {
    flush: Option<u64>,
    action: RawAction,
    by: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RawAction {
    Fail,
    Late,
    NeverAnswer,
}

impl RawFault {
    fn check(&self) -> Result<FlushFault, &'static str> {
        let action = match (self.action, self.by) {
            (RawAction::Fail, None) => FlushAction::Fail,
            (RawAction::NeverAnswer, None) => FlushAction::NeverAnswer,
            (RawAction::Late, Some(by)) => FlushAction::Late(by),
            (RawAction::Late, None) => return Err("\"late\" needs by = INSTRUCTIONS"),
            (_, Some(_)) => return Err("by stands beside action = \"late\" only"),
        };
        if self.flush == Some(0) {
            return Err("flushes are counted from 1; without flush the fault is in all of them");
        }
        Ok(FlushFault { which: self.flush, action })
    }
}

/// All regions of the scenario, checked.
pub(super) fn compile(source: &Source, document: &Document) -> Result<Vec<Region>, ScenarioError> {
    let mut regions = Vec::new();
    for (number, nvdimm) in document.nvdimm.iter().enumerate() {
        let Nvdimm { size, platform, claims, namespace, sector_size, flush_hints, labels, poison } =
            nvdimm.get_ref().clone();
        if flush_hints > MAX_FLUSH_HINTS {
            let place = source.place(&["nvdimm", &number.to_string(), "flush_hints"]);
            let what = format!("{flush_hints}: a DIMM has at most {MAX_FLUSH_HINTS}");
            return Err(source.error(place, "flush_hints", what));
        }
        check(source, "nvdimm", number, size)?;
        let poison = poison::check(source, number, &poison.unwrap_or_default(), size.0)?;
        let namespace = namespace_of(source, "nvdimm", number, (namespace, sector_size, size))?;
        let interface = Interface::Nvdimm { flush_hints, labels, poison, claims };
        regions.push(checked(source, "nvdimm", number, Region { size, platform, namespace, interface })?);
    }
    for (number, device) in document.virtio_pmem.iter().enumerate() {
        check(source, "virtio_pmem", number, device.size)?;
        let faults = device.faults.iter().map(RawFault::check).collect::<Result<_, _>>().map_err(|what| {
            source.error(source.place(&["virtio_pmem", &number.to_string(), "faults"]), "faults", what)
        })?;
        let region = Region {
            size: device.size,
            platform: device.platform.unwrap_or(Platform::VirtioPmem),
            namespace: namespace_of(source, "virtio_pmem", number, (device.namespace, None, device.size))?,
            interface: Interface::VirtioPmem { faults },
        };
        regions.push(checked(source, "virtio_pmem", number, region)?);
    }
    for (number, legacy) in document.pmem_legacy.iter().enumerate() {
        check(source, "pmem_legacy", number, legacy.size)?;
        let RawLegacy { size, platform, namespace, sector_size } = legacy.clone();
        let namespace = namespace_of(source, "pmem_legacy", number, (namespace, sector_size, size))?;
        let region = Region { size, platform, namespace, interface: Interface::Legacy };
        regions.push(checked(source, "pmem_legacy", number, region)?);
    }
    if regions.is_empty() {
        let what = "a scenario needs at least one [[nvdimm]], [[virtio_pmem]] or [[pmem_legacy]]";
        return Err(source.error(0, "nvdimm", what));
    }
    Ok(regions)
}

/// A region that can be on its platform.
fn checked(source: &Source, table: &str, number: usize, region: Region) -> Result<Region, ScenarioError> {
    match region.refuses(region.platform) {
        None => Ok(region),
        Some(why) => {
            let place = source.place(&[table, &number.to_string(), "platform"]);
            Err(source.error(place, "platform", why))
        }
    }
}

/// What a region holds, if its size and its kind let it.
fn namespace_of(
    source: &Source,
    table: &str,
    number: usize,
    (name, sector_size, size): (NamespaceName, Option<u32>, Bytes),
) -> Result<Namespace, ScenarioError> {
    let wrong = |key: &str, what: String| {
        let place = source.place(&[table, &number.to_string(), key]);
        Err(source.error(place, key, what))
    };
    let namespace = match name {
        NamespaceName::Fsdax => Namespace::Fsdax,
        NamespaceName::Raw => Namespace::Raw,
        NamespaceName::Devdax => Namespace::Devdax,
        NamespaceName::Btt => Namespace::Btt { sector: sector_size.unwrap_or(4096) },
    };
    if let Some(bytes) = sector_size {
        if name != NamespaceName::Btt {
            return wrong("sector_size", "stands beside namespace = \"btt\" only".to_owned());
        }
        if ![512, 4096].contains(&bytes) {
            return wrong("sector_size", format!("{bytes}: a sector of a BTT has 512 or 4096 bytes"));
        }
    }
    if table == "virtio_pmem" && name == NamespaceName::Btt {
        let what =
            "virtio-pmem cannot have a BTT: the kernel flushes every step of it while it must not sleep";
        return wrong("namespace", what.to_owned());
    }
    match Device::of(namespace, size.0) {
        Ok(_) => Ok(namespace),
        Err(why) => wrong("size", why.to_string()),
    }
}

/// Size and number of a region, which are those that machines have (vmm's `MachineConfig`), or narrower.
fn check(source: &Source, table: &str, number: usize, size: Bytes) -> Result<(), ScenarioError> {
    let index = number.to_string();
    if number >= MAX_REGIONS {
        let what = format!("a machine has at most {MAX_REGIONS}");
        return Err(source.error(source.place(&[table, &index]), table, what));
    }
    let size = size.0;
    if !size.is_multiple_of(2 << 20) || !(16 << 20..=16 << 30).contains(&size) {
        let what = format!("{size} bytes: a region has a multiple of 2M, from 16M to 16G");
        return Err(source.error(source.place(&[table, &index, "size"]), "size", what));
    }
    Ok(())
}
