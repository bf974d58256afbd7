//! Names of bits in RFLAGS, control registers, EFER and segment access rights. SDM vol. 3, chapters 2 and 3.

pub(crate) const RFLAGS_RESERVED_ONE: u64 = 1 << 1;
pub(crate) const RFLAGS_TF: u64 = 1 << 8;
pub(crate) const RFLAGS_IF: u64 = 1 << 9;
pub(crate) const RFLAGS_DF: u64 = 1 << 10;
pub(crate) const RFLAGS_IOPL: u64 = 3 << 12;
pub(crate) const RFLAGS_NT: u64 = 1 << 14;
pub(crate) const RFLAGS_RF: u64 = 1 << 16;
pub(crate) const RFLAGS_VM: u64 = 1 << 17;
pub(crate) const RFLAGS_AC: u64 = 1 << 18;
pub(crate) const RFLAGS_ID: u64 = 1 << 21;
/// Arithmetic flags.
pub(crate) const RFLAGS_ARITHMETIC: u64 = 0x8d5;

pub(crate) const CR0_PE: u64 = 1 << 0;
pub(crate) const CR0_TS: u64 = 1 << 3;
pub(crate) const CR0_ET: u64 = 1 << 4;
pub(crate) const CR0_WP: u64 = 1 << 16;
pub(crate) const CR0_AM: u64 = 1 << 18;
pub(crate) const CR0_NW: u64 = 1 << 29;
pub(crate) const CR0_CD: u64 = 1 << 30;
pub(crate) const CR0_PG: u64 = 1 << 31;
/// Every bit that may be set.
pub(crate) const CR0_DEFINED: u64 = 0xe005_003f;

pub(crate) const CR4_TSD: u64 = 1 << 2;
pub(crate) const CR4_DE: u64 = 1 << 3;
pub(crate) const CR4_PSE: u64 = 1 << 4;
pub(crate) const CR4_PAE: u64 = 1 << 5;
pub(crate) const CR4_MCE: u64 = 1 << 6;
pub(crate) const CR4_PGE: u64 = 1 << 7;
pub(crate) const CR4_FSGSBASE: u64 = 1 << 16;
pub(crate) const CR4_SMEP: u64 = 1 << 20;
pub(crate) const CR4_SMAP: u64 = 1 << 21;
/// Every bit that may be set: TSD, DE, PSE, PAE, MCE, PGE, PCE, OSFXSR, OSXMMEXCPT, FSGSBASE, SMEP, SMAP.
pub(crate) const CR4_DEFINED: u64 = 0x7fc | CR4_FSGSBASE | CR4_SMEP | CR4_SMAP;

pub(crate) const EFER_SCE: u64 = 1 << 0;
pub(crate) const EFER_LME: u64 = 1 << 8;
pub(crate) const EFER_LMA: u64 = 1 << 10;
pub(crate) const EFER_NXE: u64 = 1 << 11;

/// Access rights of a segment, as in `Segment::access`.
pub(crate) const ACCESS_PRESENT: u16 = 1 << 7;
pub(crate) const ACCESS_NOT_SYSTEM: u16 = 1 << 4;
pub(crate) const ACCESS_CODE: u16 = 1 << 3;
pub(crate) const ACCESS_CONFORMING: u16 = 1 << 2;
/// Of data segments.
pub(crate) const ACCESS_EXPAND_DOWN: u16 = 1 << 2;
pub(crate) const ACCESS_READABLE_OR_WRITABLE: u16 = 1 << 1;
pub(crate) const ACCESS_ACCESSED: u16 = 1 << 0;
pub(crate) const ACCESS_LONG: u16 = 1 << 13;
pub(crate) const ACCESS_BIG: u16 = 1 << 14;
pub(crate) const ACCESS_GRANULAR: u16 = 1 << 15;

/// Index of CS in `State::segments`.
pub(crate) const CS: usize = 1;
/// Index of SS in `State::segments`.
pub(crate) const SS: usize = 2;
/// Index of FS in `State::segments`.
pub(crate) const FS: usize = 4;
/// Index of GS in `State::segments`.
pub(crate) const GS: usize = 5;
/// Number of RSP in `State::regs`.
pub(crate) const RSP: usize = 4;
