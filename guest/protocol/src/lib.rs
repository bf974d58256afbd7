//! The words that the agent in the guest and the simulator outside of it share.
//!
//! A call is one `OUT DX, EAX` to [`PORT`]: EAX is the [`call`] number, RDI and RSI its two arguments (usually a
//! guest-virtual buffer and its length). The answer is in RAX when the next instruction executes; negative values
//! are errors. A call drains nothing and is no event of the machine.

use serde::{Deserialize, Serialize};

mod pattern;

pub use pattern::Pattern;

/// The I/O port of the control port: 32-bit OUT only.
pub const PORT: u16 = 0x0d50;

/// Version of everything in this crate. `hello` with another one is refused.
pub const VERSION: u32 = 5;

/// Largest encoded [`Command`], [`Reply`] or [`Observation`], in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What is kept of the output of a check program, in bytes.
pub const MAX_CHECK_OUTPUT: usize = 4096;

/// Directory of the guest below which every path of a command lies.
pub const MOUNT: &str = "/mnt/pmem";

/// What [`Command::Mount`] is given as the type of a region without a file system: its device-dax device then stands at
/// [`MOUNT`] under its own name (`dax0.0`), and is mapped and observed as a file is.
pub const DEVDAX: &str = "devdax";

/// Numbers of the calls.
pub mod call {
    /// RDI = [`crate::VERSION`]. Answer 0, or negative when the versions differ.
    pub const HELLO: u32 = 1;
    /// RDI, RSI = a piece of /proc/kallsyms, in order, whole lines; RSI = 0 ends it.
    pub const KALLSYMS: u32 = 2;
    /// All modules loaded, all regions unbound: the place of the base snapshot. Answer 0.
    pub const SNAPSHOT_HERE: u32 = 3;
    /// RDI, RSI = an empty buffer. Answer: length of the encoded [`crate::Command`] now in it.
    pub const NEXT: u32 = 4;
    /// RDI, RSI = an encoded [`crate::Reply`] to the last command.
    pub const DONE: u32 = 5;
    /// RDI = number of a marker.
    pub const MARKER: u32 = 6;
    /// RDI = number of a promise.
    pub const PROMISE: u32 = 7;
    /// RDI, RSI = an encoded [`crate::Observation`].
    pub const OBSERVE: u32 = 8;
    /// RDI, RSI = a line of text for the log.
    pub const LOG: u32 = 9;
    /// RDI, RSI = a line of text, at most [`crate::MAX_ACKNOWLEDGEMENT`] bytes, by which a program acknowledges something
    /// to its user: from here on it has to survive power losses. The check program is told all that were made before.
    pub const ACKNOWLEDGE: u32 = 10;
}

/// Longest text of an acknowledgement, in bytes.
pub const MAX_ACKNOWLEDGEMENT: usize = 4096;

/// What the simulator wants done. Paths are relative to [`MOUNT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Bind nd region `region` to its driver and wait until the block device appears.
    Attach {
        /// N of `regionN`.
        region: u32,
    },
    /// Mount the block device of `region` on [`MOUNT`].
    Mount {
        /// N of `regionN`.
        region: u32,
        /// File system type.
        fs: String,
        /// Mount options, as `-o` takes them.
        options: String,
    },
    /// Unmount [`MOUNT`].
    Umount,
    /// mkdir(2)
    Mkdir {
        /// Path of the directory.
        path: String,
    },
    /// open(2) with O_CREAT, then ftruncate(2) if `size` is given.
    Create {
        /// Path of the file.
        path: String,
        /// Size in bytes.
        size: Option<u64>,
    },
    /// pwrite(2), or an append when `at` is `None`.
    Write {
        /// Path of the file.
        path: String,
        /// Offset in bytes.
        at: Option<u64>,
        /// Length in bytes.
        len: u64,
        /// What to write. The pattern counts from the byte's offset in the file.
        pattern: Pattern,
    },
    /// truncate(2)
    Truncate {
        /// Path of the file.
        path: String,
        /// New size in bytes.
        size: u64,
    },
    /// fallocate(2)
    Fallocate {
        /// Path of the file.
        path: String,
        /// FALLOC_FL_* bits.
        mode: i32,
        /// Offset in bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
    },
    /// rename(2)
    Rename {
        /// Old path.
        from: String,
        /// New path.
        to: String,
    },
    /// link(2)
    Link {
        /// Existing path.
        from: String,
        /// New path.
        to: String,
    },
    /// symlink(2)
    Symlink {
        /// What the link says.
        target: String,
        /// Path of the link.
        path: String,
    },
    /// unlink(2), or rmdir(2) for a directory.
    Unlink {
        /// Path.
        path: String,
    },
    /// fsync(2) of a file or directory.
    Fsync {
        /// Path.
        path: String,
    },
    /// fdatasync(2)
    Fdatasync {
        /// Path.
        path: String,
    },
    /// sync(2)
    Sync,
    /// syncfs(2) of the mounted file system.
    Syncfs,
    /// mmap(2), read and write, shared.
    Map {
        /// Name of the mapping in later commands.
        name: String,
        /// Path of the file.
        path: String,
        /// Offset in the file, bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
        /// MAP_SHARED_VALIDATE | MAP_SYNC instead of MAP_SHARED.
        sync: bool,
        /// Alignment of the address in bytes: 2 MiB lets the kernel map huge pages.
        align: u64,
    },
    /// Loads one byte of every page: read faults.
    Touch {
        /// Name of the mapping.
        map: String,
        /// Offset in the mapping, bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Straight-line code on a mapping: between its operations there is no LOCK, XCHG, system call or allocation.
    Run {
        /// Name of the mapping.
        map: String,
        /// The operations, in order.
        ops: Vec<Op>,
    },
    /// Straight-line code on a mapping in two threads, or two processes.
    Race {
        /// Name of the mapping.
        map: String,
        /// What the one does that begins.
        first: Vec<Op>,
        /// What the other does.
        second: Vec<Op>,
        /// Rounds of a loop that the other waits, from the moment before the first begins.
        delay: u64,
        /// Whether the other is a process of its own, with page tables of its own.
        process: bool,
    },
    /// msync(2) with MS_SYNC.
    Msync {
        /// Name of the mapping.
        map: String,
        /// Offset in the mapping, bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
    },
    /// munmap(2)
    Munmap {
        /// Name of the mapping.
        map: String,
    },
    /// Runs a program of the initramfs with working directory [`MOUNT`] and waits for it.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// The same, and every line that the program writes to its standard output is a [`call::ACKNOWLEDGE`], made before
    /// the program goes on.
    ExecHeard {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// Ends all other processes, runs a program as [`Command::Exec`] does, and ends what it leaves behind. The reply is
    /// [`Reply::Checked`].
    Check {
        /// Program and arguments.
        argv: Vec<String>,
        /// What had been acknowledged, in order: the program reads it from its standard input, a line each, and from the
        /// file that `PMEMSIM_ACKNOWLEDGED` in its environment names.
        acknowledged: Vec<String>,
    },
    /// [`call::MARKER`]
    Marker {
        /// Number.
        id: u32,
    },
    /// [`call::PROMISE`]
    Promise {
        /// Number.
        id: u32,
    },
    /// Makes one [`call::OBSERVE`] about the path.
    Observe {
        /// Path.
        path: String,
    },
    /// Makes one [`call::OBSERVE`] about every path below [`MOUNT`], in byte order of the paths, /lost+found aside.
    ObserveTree,
    /// Powers the machine off.
    PowerOff,
    /// Does work that touches no persistent memory: for measuring how fast the machine is.
    Exercise {
        /// Which work.
        what: Exercise,
        /// How often.
        rounds: u64,
    },
    /// setxattr(2)
    SetXattr {
        /// Path; a symbolic link is not followed.
        path: String,
        /// Name with its namespace, as in `user.comment`.
        name: String,
        /// Value.
        value: Vec<u8>,
    },
    /// Has firmware scrub all persistent memory, and waits until the kernel knows what was found.
    Scrub,
    /// pread(2) of a range; what is read is not looked at.
    Read {
        /// Path of the file.
        path: String,
        /// Offset in bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
    },
    /// removexattr(2)
    RemoveXattr {
        /// Path; a symbolic link is not followed.
        path: String,
        /// Name with its namespace.
        name: String,
    },
}

/// Work for [`Command::Exercise`], one round each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exercise {
    /// Mixes 1024 words of a table, with branches that depend on them.
    Integers,
    /// Copies [`EXERCISE_COPY`] bytes by REP MOVSB.
    CopyBytes,
    /// Copies [`EXERCISE_COPY`] bytes by 16-byte SSE loads and stores.
    CopyWide,
    /// getppid(2)
    Calls,
    /// read(2) of 4096 bytes of /dev/zero.
    Reads,
}

/// Bytes that one round of the copies copies.
pub const EXERCISE_COPY: usize = 64 << 10;

/// One operation of straight-line code on a mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Stores by 8-byte MOV where aligned, by byte MOV at the edges; ascending.
    Store {
        /// Offset in the mapping, bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
        /// What to store. The pattern counts from the byte's offset in the *file*.
        pattern: Pattern,
    },
    /// The same by 8-byte MOVNTI; `at` and `len` are multiples of 8.
    StoreNonTemporal {
        /// Offset in the mapping, bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
        /// What to store.
        pattern: Pattern,
    },
    /// Flushes every line that the range touches, ascending.
    Flush {
        /// Offset in the mapping, bytes.
        at: u64,
        /// Length in bytes.
        len: u64,
        /// Which instruction.
        with: Flush,
    },
    /// Executes a fence.
    Fence(Fence),
    /// [`call::PROMISE`]
    Promise(u32),
    /// [`call::MARKER`]
    Marker(u32),
}

/// A flush instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flush {
    /// CLFLUSH
    Clflush,
    /// CLFLUSHOPT
    Clflushopt,
    /// CLWB
    Clwb,
}

/// A fence instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fence {
    /// SFENCE
    Sfence,
    /// MFENCE
    Mfence,
    /// LFENCE
    Lfence,
    /// A LOCK-prefixed instruction on DRAM.
    Lock,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Ok,
    /// A system call failed.
    Errno {
        /// Its name.
        call: String,
        /// errno
        errno: i32,
    },
    /// A signal came while the command ran (SIGBUS, SIGSEGV).
    Signal {
        /// Its number.
        signal: i32,
    },
    /// [`Command::Exec`] ended with this status, as waitpid(2) gives it.
    Exited {
        /// Raw wait status.
        status: i32,
    },
    /// [`Command::Check`] ended.
    Checked {
        /// Raw wait status.
        status: i32,
        /// What it wrote to its standard output and error, at most [`MAX_CHECK_OUTPUT`] bytes, then cut off.
        output: String,
    },
    /// The command itself makes no sense (unknown mapping, range outside of it).
    Bad {
        /// Why.
        why: String,
    },
}

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// The path, relative to [`MOUNT`].
    pub path: String,
    /// What is there.
    pub found: Found,
    /// What else is known of it; the default where nothing is there, or looking at it failed.
    pub attributes: Attributes,
}

/// What a file, directory or symbolic link has beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// st_nlink
    pub links: u64,
    /// Extended attributes that listxattr(2) shows, in byte order of their names.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// ENOENT
    Nothing,
    /// Some other errno when looking, opening or mapping.
    Errno {
        /// The call that failed.
        call: String,
        /// errno
        errno: i32,
    },
    /// A regular file, mapped for the time of the call.
    File {
        /// st_size
        size: u64,
        /// st_blocks * 512
        allocated: u64,
        /// Guest-virtual address of a populated read-only mapping of the whole file, 0 when it is empty.
        address: u64,
        /// Offset and length of what of it cannot be loaded: whole pages, ascending, that are not in the mapping.
        unreadable: Vec<(u64, u64)>,
    },
    /// A directory.
    Directory,
    /// A symbolic link and what it says.
    Symlink {
        /// Its target.
        target: String,
    },
    /// Something else (device, socket, pipe).
    Other,
}
