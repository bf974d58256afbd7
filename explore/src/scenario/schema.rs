//! The TOML form of a scenario, version 1. Unknown keys are errors.

use std::path::PathBuf;

use persist::Platform;
use serde::Deserialize;
use toml::Spanned;

use super::mutants::RawMutant;
use super::number::Bytes;
use super::platforms::Claim;
use super::regions::{RawLegacy, RawVirtioPmem};
use super::step_schema::RawStep;
use crate::verdict::Class;

/// Version of the schema that this program reads.
pub const SCHEMA: u32 = 1;

/// A whole scenario file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// Version of the schema; 1 when absent.
    pub schema: Option<Spanned<u32>>,
    /// Name of the scenario in reports.
    pub name: String,
    /// What it shows, for people.
    #[serde(default)]
    pub description: String,
    /// For controls: the class of violation, or all the classes, that must be found.
    #[serde(default)]
    pub expect: Option<OneOrMany>,
    pub machine: Machine,
    #[serde(default)]
    pub nvdimm: Vec<Spanned<Nvdimm>>,
    #[serde(default)]
    pub virtio_pmem: Vec<RawVirtioPmem>,
    #[serde(default)]
    pub pmem_legacy: Vec<RawLegacy>,
    pub filesystem: Option<Filesystem>,
    #[serde(default)]
    pub step: Vec<Spanned<RawStep>>,
    #[serde(default)]
    pub crash: RawCrash,
    #[serde(default)]
    pub limits: LimitOptions,
    #[serde(default)]
    pub oracle: OracleOptions,
    #[serde(default)]
    pub check: Option<Check>,
    #[serde(default)]
    pub plant: Option<Plant>,
    #[serde(default)]
    pub mutant: Vec<RawMutant>,
}

/// `"lost"` or `["stale", "corrupt"]`.
pub(super) struct OneOrMany(pub Vec<Class>);

/// `[machine]`
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `debian-6.1`, `debian-6.1@VERSION`, `small-6.1`, `mutants-6.1`, or a path to a vmlinux or bzImage.
    pub kernel: String,
    /// Directory below which the modules of a kernel given by its path are.
    #[serde(default)]
    pub modules: Option<String>,
    /// RAM in bytes; 256 MiB when absent.
    #[serde(default = "default_memory")]
    pub memory: Bytes,
    /// Processors, 1 to 8; 1 when absent.
    #[serde(default = "one")]
    pub cpus: u8,
    /// Appended to the kernel command line.
    #[serde(default)]
    pub append: String,
    /// Debian programs, by package name, that the initramfs also holds.
    #[serde(default)]
    pub programs: Vec<String>,
    /// The user's own files, that the initramfs also holds.
    #[serde(default)]
    pub files: Vec<GuestFile>,
}

/// A file of the initramfs, executable; its content is exactly one of `text`, `from` and `c`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFile {
    /// Where it is in the guest: an absolute path.
    pub to: String,
    /// What is in it.
    pub text: Option<String>,
    /// A file of the host, as it is there.
    pub from: Option<PathBuf>,
    /// A C source file of the host: the program that Debian's headers and libraries make of it.
    pub c: Option<PathBuf>,
    /// Debian packages with headers and libraries that `c` needs besides those of C itself.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Arguments of the compiler for `c`.
    #[serde(default)]
    pub flags: Vec<String>,
}

/// `[check]`: a program that says of a recovered file system whether what had been acknowledged is there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Program and arguments: exit code 0 says that everything is kept.
    pub command: Vec<String>,
    /// What it is when the program says that something is not kept.
    #[serde(default = "lost")]
    pub broken: Class,
}

fn lost() -> Class {
    Class::Lost
}

fn default_memory() -> Bytes {
    Bytes(256 << 20)
}

fn one() -> u8 {
    1
}

/// `[[nvdimm]]`: one region, on one DIMM or interleaved over several.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nvdimm {
    /// Size in bytes: a multiple of 2 MiB, 16 MiB or more.
    pub size: Bytes,
    /// What survives a power loss.
    #[serde(default)]
    pub platform: Platform,
    /// What the platform says that survives: as it is, when absent.
    pub claims: Option<Claim>,
    /// What the region holds.
    #[serde(default)]
    pub namespace: NamespaceName,
    /// Bytes of a sector of a BTT; 4096 when absent.
    pub sector_size: Option<u32>,
    /// Flush hint addresses of the DIMM.
    #[serde(default)]
    pub flush_hints: u32,
    /// Whether the DIMM has a label area.
    #[serde(default)]
    pub labels: bool,
    /// DIMMs that the region is interleaved over, 1 to 8; 1 when absent.
    #[serde(default = "one_dimm")]
    pub dimms: u32,
    /// Whether the DIMMs save what is written to them; else the region is read-only.
    #[serde(default = "yes")]
    pub armed: bool,
    /// Whether the DIMMs tell of their health, by functions of Intel's family, and of their label areas so, too.
    #[serde(default)]
    pub smart: bool,
    /// Proximity domain, 1 to 7.
    pub proximity: Option<u32>,
    /// What of the region the media has lost from the beginning. An empty list, too, says that media can lose lines.
    pub poison: Option<Vec<RawPoison>>,
}

fn one_dimm() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// `{ at, bytes }`: lines of a region that the media has lost.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawPoison {
    /// Offset in the region, a multiple of 64.
    pub at: Bytes,
    /// Length, a multiple of 64.
    pub bytes: Bytes,
}

/// What a region holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum NamespaceName {
    /// A namespace with a pfn info block: a block device with DAX.
    #[default]
    Fsdax,
    /// No info block: a block device without DAX.
    Raw,
    /// A block translation table: a block device without DAX, whose sectors are never torn.
    Btt,
    /// A character device that programs map, and no file system.
    Devdax,
}

/// `[filesystem]`, on the first region.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    /// `ext4` or `xfs`; `guest_protocol::DEVDAX` where there is none.
    #[serde(rename = "type")]
    pub kind: String,
    /// Additional arguments of mkfs.
    #[serde(default)]
    pub mkfs: Vec<String>,
    /// Mount options, as `mount -o` takes them.
    #[serde(default)]
    pub mount: String,
}

/// `[crash]`
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCrash {
    /// Rules that choose crash points; when absent `durable` and `promises`.
    pub points: Option<Vec<Spanned<String>>>,
    /// The number of a `marker` step in front of which there are no crash points.
    pub from_marker: Option<Spanned<u32>>,
    /// How crash states are found: `sample` or `lazy`.
    pub explore: Option<Spanned<String>>,
    /// Ways that recovery from one crash point can go before a lazy search gives up.
    pub branches: Option<u64>,
    /// States to recover in all, at most, when sampling.
    pub budget: Option<u64>,
    /// States of one crash point, at most, when sampling.
    pub states: Option<u64>,
    /// How often the power is cut again while recovering, 0 to 4.
    pub in_recovery: Option<u32>,
    /// Of how many crash states the recovery is cut, at most.
    pub in_recovery_states: Option<u64>,
    /// Seed of everything chosen by chance.
    pub seed: Option<u64>,
    /// Whether only SFENCE and MFENCE make durable.
    #[serde(default)]
    pub granularity: persist::Granularity,
    #[serde(default)]
    pub strict_fences: bool,
    /// Depth of the store buffer under `eadr`, in parts of stores.
    pub store_buffer: Option<u32>,
    /// Whether what a device flush covered that failed stays lost although a later one succeeds.
    #[serde(default)]
    pub failed_flush_loses: bool,
}

/// `[limits]`: when a guest counts as hung or flooding, while recording and while recovering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitOptions {
    /// Instructions that one command may take, 1 or more; when absent 20 G while recording, 2 G while recovering.
    pub instructions: Option<u64>,
    /// Bytes that the console may say in one recording or recovery, 1 or more; when absent 4 MiB while recording,
    /// 1 MiB while recovering.
    pub console: Option<Bytes>,
}

/// `[oracle]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OracleOptions {
    /// What fsync of a file says about its name.
    #[serde(default)]
    pub names: NamesPolicy,
    /// What is said about the order of changes of metadata.
    #[serde(default)]
    pub metadata: MetadataPolicy,
}

/// What is said about the order of changes of metadata.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetadataPolicy {
    /// As journals of metadata keep it: where one change is there, all before it are, also of other files.
    #[default]
    Ordered,
    /// Nothing: each name and each file is judged by itself.
    AnyOrder,
}

/// What fsync of a file says about its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamesPolicy {
    /// As ext4 and XFS do: the journal commits the file's own creation, links and renames with it.
    #[default]
    Journal,
    /// As POSIX says: names are promised by fsync of their directory only.
    Posix,
}

/// `[plant]`: a fault put into the recording on purpose, for controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plant {
    /// The stores that are taken out of the recording.
    pub drop: Dropped,
}

/// Stores that a plant takes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dropped {
    /// What `blkdev_issue_zeroout` writes into newly allocated blocks, until `ext4_set_iomap` or `xfs_bmbt_to_iomap` is entered.
    Zeroing,
    /// What a BTT writes to its log, from `__btt_log_write` on until `btt_map_write` is entered.
    BttLog,
    /// What the replay of ext4's journal writes, from `jbd2_journal_recover` on until `jbd2_journal_update_sb_log_tail` is
    /// entered: out of the recording of a recovery that is cut (`in_recovery`).
    Replay,
}

mod reading {
    //! Values that are a word or a list.

    use serde::de::value::{SeqAccessDeserializer, StrDeserializer};
    use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

    use super::*;

    impl<'de> Deserialize<'de> for OneOrMany {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OneOrMany, D::Error> {
            struct Reader;
            impl<'de> Visitor<'de> for Reader {
                type Value = OneOrMany;
                fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                    f.write_str("a class such as \"lost\", or a list of classes")
                }
                fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                    Class::deserialize(StrDeserializer::new(text)).map(|class| OneOrMany(vec![class]))
                }
                fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<OneOrMany, A::Error> {
                    Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
                }
            }
            deserializer.deserialize_any(Reader)
        }
    }
}
