//! What of a file a program reads: every system call that it makes is looked at, by ptrace(2).
//!
//! Reads that go through read(2) and pread(2) are told apart by place. A program that gets at the file in any other way -
//! maps it, has the kernel copy it, reads it behind its own back - counts as having read everything, and so does one that
//! cannot be followed. It is trusted not to hide: another thread that exchanges the file descriptor of a call between
//! two looks at it would not be seen.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Output};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Which parts of a file were read; `None` is everything.
pub(crate) type Reads = Option<Vec<Range<u64>>>;

/// linux/audit.h: system calls of 64-bit programs. Others have other numbers.
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// linux/ptrace.h: what `PTRACE_GET_SYSCALL_INFO` tells of.
const ENTRY: u8 = 1;
const EXIT: u8 = 2;
/// linux/fs.h: ioctls that make other files share what a file holds.
const SHARING: [u64; 3] = [0x4004_9409, 0x4020_940d, 0xc018_9436];

/// Whether this host lets us follow programs. Containers may forbid it.
pub(crate) fn is_allowed() -> bool {
    let Ok(file) = tempfile::tempfile() else { return false };
    let mut command = Command::new("/proc/self/exe");
    // Any program would do: it is ended before its first instruction.
    command.env_clear();
    spawn(&mut command, &file).is_ok_and(|mut traced| {
        traced.end();
        true
    })
}

/// Runs the program to its end, and tells what of `file` it has read. An error of the kind
/// [`io::ErrorKind::PermissionDenied`] says that this host does not let us follow programs.
pub(crate) fn run(command: &mut Command, file: &File) -> io::Result<(Output, Reads)> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut traced = spawn(command, file)?;
    let status = match traced.follow() {
        Ok(status) => status,
        Err(why) => {
            traced.end();
            return Err(why);
        }
    };
    let output = Output { status, stdout: whole(&mut stdout)?, stderr: whole(&mut stderr)? };
    Ok((output, (!traced.everything).then(|| together(traced.read))))
}

fn whole(file: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Starts a program that stops in front of its first instruction.
fn spawn(command: &mut Command, file: &File) -> io::Result<Traced> {
    let metadata = file.metadata()?;
    let ask = || ptrace::traceme().map_err(io::Error::from);
    // SAFETY: ptrace(2) is a system call that neither allocates nor locks, as is wanted between fork and exec.
    unsafe { command.pre_exec(ask) };
    let child = command.spawn()?;
    let main = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let mut traced = Traced {
        main,
        file: (metadata.dev(), metadata.ino()),
        threads: BTreeMap::new(),
        read: Vec::new(),
        everything: false,
    };
    match waitpid(main, Some(WaitPidFlag::__WALL))? {
        WaitStatus::Stopped(..) => (),
        other => return Err(io::Error::other(format!("the program did not stop at its start: {other:?}"))),
    }
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    if let Err(why) = ptrace::setoptions(main, options) {
        traced.end();
        return Err(why.into());
    }
    Ok(traced)
}

/// A program that is followed, with all its threads.
struct Traced {
    main: Pid,
    /// Device and inode of the file.
    file: (u64, u64),
    /// Threads that were seen, and where the read begins that each is in the middle of.
    threads: BTreeMap<Pid, Option<u64>>,
    read: Vec<Range<u64>>,
    everything: bool,
}

impl Traced {
    /// Ends the program, whatever it does.
    fn end(&mut self) {
        let _ = nix::sys::signal::kill(self.main, Signal::SIGKILL);
        while let Ok(status) = waitpid(self.main, Some(WaitPidFlag::__WALL)) {
            if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                break;
            }
        }
    }

    /// Lets it run to its end.
    fn follow(&mut self) -> io::Result<ExitStatus> {
        self.threads.insert(self.main, None);
        go_on(self.main, None)?;
        loop {
            // Only of this thread: other threads have children of their own.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            let (thread, signal) = match waitpid(None, Some(flags)) {
                Err(Errno::EINTR) => continue,
                Err(why) => return Err(why.into()),
                // The first thread ends as the last.
                Ok(WaitStatus::Exited(thread, code)) if thread == self.main => {
                    return Ok(ExitStatus::from_raw(code << 8));
                }
                Ok(WaitStatus::Signaled(thread, signal, _)) if thread == self.main => {
                    return Ok(ExitStatus::from_raw(signal as i32));
                }
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    self.look(thread)?;
                    (thread, None)
                }
                Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
                // A thread that has just been made stops by itself.
                Ok(WaitStatus::Stopped(thread, signal)) => {
                    let is_new = !self.threads.contains_key(&thread);
                    (thread, Some(signal).filter(|_| !is_new))
                }
                Ok(_) => continue,
            };
            self.threads.entry(thread).or_default();
            go_on(thread, signal)?;
        }
    }

    /// A thread enters a system call, or comes back from one.
    fn look(&mut self, thread: Pid) -> io::Result<()> {
        let call = match ptrace::syscall_info(thread) {
            Ok(call) => call,
            // Killed meanwhile.
            Err(Errno::ESRCH) => return Ok(()),
            Err(why) => return Err(why.into()),
        };
        let begun = self.threads.entry(thread).or_default().take();
        match call.op {
            ENTRY if call.arch == AUDIT_ARCH_X86_64 => {
                // SAFETY: at an entry, the kernel has filled in `entry`.
                let entry = unsafe { call.u.entry };
                let begins = self.enters(thread, entry.nr, entry.args);
                self.threads.insert(thread, begins);
            }
            EXIT if call.arch == AUDIT_ARCH_X86_64 => {
                // SAFETY: at an exit, the kernel has filled in `exit`.
                let result = unsafe { call.u.exit.sval };
                if let (Some(begin), Ok(len @ 1..)) = (begun, u64::try_from(result)) {
                    self.read.push(begin..begin.saturating_add(len));
                }
            }
            _ => self.everything = true,
        }
        Ok(())
    }

    /// Where in the file a call begins to read, if it does.
    fn enters(&mut self, thread: Pid, number: u64, arguments: [u64; 6]) -> Option<u64> {
        let [first, second, third, fourth, fifth, _] = arguments;
        let is = |descriptor: u64| self.is_file(thread, descriptor);
        let everything = match i64::try_from(number).unwrap_or(-1) {
            libc::SYS_read if is(first) => return self.begin(position(thread, first)),
            libc::SYS_pread64 if is(first) => return Some(fourth),
            libc::SYS_readv | libc::SYS_preadv | libc::SYS_preadv2 => is(first),
            libc::SYS_splice | libc::SYS_copy_file_range => is(first),
            libc::SYS_sendfile => is(second),
            libc::SYS_mmap => fourth & libc::MAP_ANONYMOUS as u64 == 0 && is(fifth),
            libc::SYS_ioctl => SHARING.contains(&second) && (is(first) || is(third)),
            // What these read is not seen.
            libc::SYS_io_setup | libc::SYS_io_submit | libc::SYS_io_uring_setup => true,
            // The numbers of the x32 ABI.
            number => number < 0 || number & 0x4000_0000 != 0,
        };
        self.everything |= everything;
        None
    }

    fn begin(&mut self, position: Option<u64>) -> Option<u64> {
        self.everything |= position.is_none();
        position
    }

    /// Whether a file descriptor is of the file, by whatever name it was opened.
    fn is_file(&self, thread: Pid, descriptor: u64) -> bool {
        let path = format!("/proc/{thread}/fd/{}", descriptor as u32 as i32);
        fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.file)
    }
}

/// Where a file descriptor stands.
fn position(thread: Pid, descriptor: u64) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/{thread}/fdinfo/{}", descriptor as u32 as i32)).ok()?;
    info.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
}

/// Lets a thread run to its next system call.
fn go_on(thread: Pid, signal: Option<Signal>) -> io::Result<()> {
    match ptrace::syscall(thread, signal) {
        // Killed meanwhile: its end is still to be seen.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(why) => Err(why.into()),
    }
}

/// The same in order, and as few ranges as it goes.
fn together(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut().filter(|last| range.start <= last.end) {
            Some(last) => last.end = last.end.max(range.end),
            None => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    /// What a script of the shell reads of a file of 10000 bytes, which it finds as `$0`.
    fn reads_of(script: &str) -> (Output, Reads) {
        assert!(is_allowed(), "ptrace is forbidden here: this test cannot be done");
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10000]).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        run(Command::new("sh").args(["-c", script, &path]), &file).unwrap()
    }

    #[test]
    fn reads_are_told_by_place_in_children_and_by_other_names_too() {
        let (output, read) = reads_of("dd if=$0 bs=1000 skip=2 count=1 2>/dev/null | wc -c; exit 3");
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"1000\n"[..]));
        let third = 2000..3000;
        assert_eq!(read, Some(vec![third]));
        let (_, read) =
            reads_of("exec 3<$0; head -c 10 <&3 >/dev/null; dd bs=100 skip=1 count=1 <&3 2>/dev/null >&2");
        let read = read.expect("it is told");
        assert!(read.first().is_some_and(|range| range.start == 0), "{read:?}");
    }

    #[test]
    fn who_reads_nothing_has_read_nothing() {
        let (output, read) = reads_of("echo said; echo wrong >&2");
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"said\n"[..], &b"wrong\n"[..]));
        assert_eq!(read, Some(Vec::new()));
    }

    #[test]
    fn a_program_that_dies_is_seen_to_die() {
        let (output, _) = reads_of("kill -9 $$");
        assert_eq!(output.status.signal(), Some(9));
    }

    #[test]
    fn copies_by_the_kernel_count_as_everything() {
        // coreutils' cp uses copy_file_range(2), or reads everything.
        let (_, read) = reads_of("cp $0 /dev/null");
        let everything = 0..10000;
        assert!(read.is_none_or(|read| read == vec![everything]));
    }

    #[test]
    fn ranges_are_put_together() {
        assert_eq!(together(vec![5..9, 0..3, 8..12, 3..4]), [0..4, 5..12]);
    }
}
