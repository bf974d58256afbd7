//! The TOML form of a `[[step]]`, version 1. Unknown keys are errors.

use serde::Deserialize;

use super::Failure;
use super::number::Bytes;

/// `[[step]]`: exactly one action; `store`, `flush` and `fence` go together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStep {
    pub mkdir: Option<String>,
    pub create: Option<RawCreate>,
    pub write: Option<RawWrite>,
    pub truncate: Option<RawTruncate>,
    pub fallocate: Option<RawFallocate>,
    pub rename: Option<RawPair>,
    pub link: Option<RawPair>,
    pub symlink: Option<RawSymlink>,
    pub unlink: Option<String>,
    pub setxattr: Option<RawSetXattr>,
    pub removexattr: Option<RawRemoveXattr>,
    pub fsync: Option<String>,
    pub fdatasync: Option<String>,
    pub sync: Option<bool>,
    pub syncfs: Option<bool>,
    pub map: Option<RawMap>,
    pub touch: Option<RawRange>,
    pub store: Option<RawStore>,
    pub flush: Option<RawFlush>,
    pub fence: Option<guest_protocol::Fence>,
    pub non_temporal: Option<bool>,
    pub race: Option<RawRace>,
    pub fault: Option<FaultGuard>,
    pub msync: Option<RawRange>,
    pub munmap: Option<String>,
    pub exec: Option<Vec<String>>,
    pub acknowledge: Option<Acknowledge>,
    pub marker: Option<u32>,
    pub promise: Option<RawPromise>,
    pub observe: Option<String>,
    pub poison: Option<RawFileRange>,
    pub scrub: Option<bool>,
    pub read: Option<RawFileRange>,
    pub waive: Option<bool>,
    pub fails: Option<Errno>,
}

/// A range of a file; all of it without `at` and `bytes`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFileRange {
    pub file: String,
    pub at: Option<Bytes>,
    pub bytes: Option<Bytes>,
}

/// How the program of an `exec` step acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Acknowledge {
    /// Every line of its standard output is an acknowledgement.
    Stdout,
}

/// The error, or the signal, that a step is to end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Errno {
    Eio,
    Erofs,
    Eopnotsupp,
    Sigbus,
}

impl Errno {
    /// As asm-generic/errno-base.h, asm-generic/errno.h and asm/signal.h number it.
    pub(super) fn failure(self) -> Failure {
        match self {
            Errno::Eio => Failure::Errno(5),
            Errno::Erofs => Failure::Errno(30),
            Errno::Eopnotsupp => Failure::Errno(95),
            Errno::Sigbus => Failure::Signal(7),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCreate {
    pub file: String,
    pub size: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWrite {
    pub file: String,
    pub at: Option<Bytes>,
    pub bytes: Bytes,
    pub pattern: Option<PatternName>,
    pub append: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTruncate {
    pub file: String,
    pub size: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFallocate {
    pub file: String,
    pub at: Option<Bytes>,
    pub bytes: Bytes,
    #[serde(default)]
    pub mode: FallocateMode,
}

/// What fallocate(2) does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FallocateMode {
    /// Allocates and extends the file.
    #[default]
    Allocate,
    /// FALLOC_FL_KEEP_SIZE
    KeepSize,
    /// FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    PunchHole,
    /// FALLOC_FL_ZERO_RANGE
    ZeroRange,
    /// FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
    ZeroRangeKeepSize,
    /// FALLOC_FL_COLLAPSE_RANGE
    CollapseRange,
    /// FALLOC_FL_INSERT_RANGE
    InsertRange,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPair {
    pub from: String,
    pub to: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSymlink {
    pub target: String,
    pub path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSetXattr {
    pub path: String,
    pub name: String,
    pub value: String,
    /// The value is repeated until it has so many bytes.
    pub bytes: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRemoveXattr {
    pub path: String,
    pub name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMap {
    pub file: String,
    #[serde(rename = "as")]
    pub name: String,
    pub at: Option<Bytes>,
    pub size: Option<Bytes>,
    #[serde(default)]
    pub sync: bool,
    pub align: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRange {
    pub map: String,
    pub at: Option<Bytes>,
    pub bytes: Option<Bytes>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    pub map: String,
    pub at: Option<Bytes>,
    pub bytes: Bytes,
    pub pattern: Option<PatternName>,
}

/// The fault that a `store` step is to take: if it takes another one, the run says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultGuard {
    /// What is mapped by it.
    pub size: PageSize,
    /// Whether it waits for the journal; either will do when absent.
    pub synchronous: Option<bool>,
}

/// What one entry of a page table maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PageSize {
    /// 4 KiB
    #[serde(rename = "4K")]
    Small,
    /// 2 MiB
    #[serde(rename = "2M")]
    Huge,
}

/// Another thread that stores to the mapping of a `store` step, and begins before it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRace {
    pub at: Option<Bytes>,
    pub bytes: Bytes,
    pub pattern: Option<PatternName>,
    /// Rounds of a loop by which it is ahead.
    pub delay: u64,
    /// Whether it is another process, not only another thread.
    #[serde(default)]
    pub process: bool,
}

/// `flush = "clwb"` beside a store, or `flush = { map, at, bytes, with }` alone.
pub(super) enum RawFlush {
    Beside(guest_protocol::Flush),
    Alone(RawFlushRange),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFlushRange {
    pub map: String,
    pub at: Option<Bytes>,
    pub bytes: Option<Bytes>,
    pub with: guest_protocol::Flush,
}

/// `promise = "contents"` beside a store, or a table with exactly one key alone.
pub(super) enum RawPromise {
    Beside,
    Alone(RawPromiseTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPromiseTable {
    pub contents: Option<RawContents>,
    pub exists: Option<String>,
    pub absent: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawContents {
    pub file: String,
    pub at: Option<Bytes>,
    pub bytes: Option<Bytes>,
    pub pattern: Option<PatternName>,
}

/// `zero`, `seq` (another tag for every step), `seq:TAG` or `byte:VALUE`.
#[derive(Clone, Copy)]
pub(super) enum PatternName {
    Zero,
    Byte(u8),
    Seq(Option<u16>),
}

mod reading {
    //! Values that are a word or a table.

    use serde::de::value::{MapAccessDeserializer, StrDeserializer};
    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

    use super::*;

    impl<'de> Deserialize<'de> for RawFlush {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawFlush, D::Error> {
            struct Reader;
            impl<'de> Visitor<'de> for Reader {
                type Value = RawFlush;
                fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                    f.write_str("\"clwb\", \"clflushopt\", \"clflush\", or a table { map, at, bytes, with }")
                }
                fn visit_str<E: Error>(self, text: &str) -> Result<RawFlush, E> {
                    Deserialize::deserialize(StrDeserializer::new(text)).map(RawFlush::Beside)
                }
                fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawFlush, A::Error> {
                    Deserialize::deserialize(MapAccessDeserializer::new(map)).map(RawFlush::Alone)
                }
            }
            deserializer.deserialize_any(Reader)
        }
    }

    impl<'de> Deserialize<'de> for RawPromise {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawPromise, D::Error> {
            struct Reader;
            impl<'de> Visitor<'de> for Reader {
                type Value = RawPromise;
                fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                    f.write_str(
                        "\"contents\" beside a store, or a table with one of contents, exists, absent",
                    )
                }
                fn visit_str<E: Error>(self, text: &str) -> Result<RawPromise, E> {
                    match text {
                        "contents" => Ok(RawPromise::Beside),
                        _ => Err(E::unknown_variant(text, &["contents"])),
                    }
                }
                fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawPromise, A::Error> {
                    Deserialize::deserialize(MapAccessDeserializer::new(map)).map(RawPromise::Alone)
                }
            }
            deserializer.deserialize_any(Reader)
        }
    }

    impl<'de> Deserialize<'de> for PatternName {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PatternName, D::Error> {
            let text = String::deserialize(deserializer)?;
            let bad = || {
                D::Error::custom(format!(
                    "unknown pattern {text:?}: write zero, seq, seq:0 to seq:4095, or byte:0x00 to byte:0xff"
                ))
            };
            let number = |text: &str| text.parse::<Bytes>().map_err(|_| bad());
            match text.split_once(':') {
                None if text == "zero" => Ok(PatternName::Zero),
                None if text == "seq" => Ok(PatternName::Seq(None)),
                Some(("seq", tag)) => {
                    let tag = number(tag)?.0;
                    if tag < 0x1000 { Ok(PatternName::Seq(Some(tag as u16))) } else { Err(bad()) }
                }
                Some(("byte", value)) => {
                    u8::try_from(number(value)?.0).map(PatternName::Byte).map_err(|_| bad())
                }
                _ => Err(bad()),
            }
        }
    }
}
