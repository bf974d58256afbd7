//! Commands to what does them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use guest_protocol::{Command, DEVDAX, MOUNT, Reply, call};

use crate::files::{self, errno};
use crate::host::Host;
use crate::maps::Maps;
use crate::{exercise, nd, observe, programs, sys};

/// How a command fails is a reply, too.
pub type Outcome = Result<(), Reply>;

/// What lives from command to command.
#[derive(Default)]
pub struct Guest {
    maps: Maps,
}

impl Guest {
    #[inline(never)]
    pub fn execute(&mut self, host: &mut Host, command: &Command) -> Reply {
        let outcome = match command {
            Command::Exec { argv } => return programs::exec(argv),
            Command::ExecHeard { argv } => return programs::exec_heard(host, argv),
            Command::Check { argv, acknowledged } => return programs::check(argv, acknowledged),
            Command::Marker { .. }
            | Command::Promise { .. }
            | Command::Observe { .. }
            | Command::ObserveTree
            | Command::PowerOff => {
                tell(host, command);
                Ok(())
            }
            Command::Map { .. }
            | Command::Touch { .. }
            | Command::Run { .. }
            | Command::Race { .. }
            | Command::Msync { .. }
            | Command::Munmap { .. } => self.on_map(command),
            Command::Attach { .. }
            | Command::Mount { .. }
            | Command::Umount
            | Command::Sync
            | Command::Scrub
            | Command::Syncfs => on_file_system(command),
            Command::Exercise { what, rounds } => exercise::run(*what, *rounds).map_err(errno("exercise")),
            _ => on_file(command),
        };
        outcome.err().unwrap_or(Reply::Ok)
    }

    #[inline(never)]
    fn on_map(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Map { name, path, at, len, sync, align } => {
                self.maps.map(name, path, *at, *len, *sync, *align)
            }
            Command::Touch { map, at, len } => self.maps.get(map)?.touch(*at, *len),
            Command::Run { map, ops } => self.maps.get(map)?.run(ops),
            Command::Race { map, first, second, delay, process } => {
                self.maps.get(map)?.race(first, second, *delay, *process)
            }
            Command::Msync { map, at, len } => self.maps.get(map)?.msync(*at, *len),
            Command::Munmap { map } => self.maps.unmap(map),
            other => Err(unknown(other)),
        }
    }
}

/// Commands whose effect is a call.
fn tell(host: &mut Host, command: &Command) {
    match command {
        Command::Marker { id } => host.call(call::MARKER, u64::from(*id), 0),
        Command::Promise { id } => host.call(call::PROMISE, u64::from(*id), 0),
        Command::Observe { path } => observe::one(host, path),
        Command::ObserveTree => observe::tree(host),
        _ => {}
    }
}

#[inline(never)]
fn on_file_system(command: &Command) -> Outcome {
    match command {
        Command::Attach { region } => nd::attach(*region).map(drop).map_err(errno("attach")),
        Command::Mount { region, fs, options } => mount(*region, fs, options),
        Command::Umount => umount(),
        Command::Sync => {
            sys::sync();
            Ok(())
        }
        Command::Syncfs => files::syncfs(),
        Command::Scrub => nd::scrub().map_err(errno("scrub")),
        other => Err(unknown(other)),
    }
}

#[inline(never)]
fn on_file(command: &Command) -> Outcome {
    match command {
        Command::Mkdir { path } => files::mkdir(path),
        Command::Create { path, size } => files::create(path, *size),
        Command::Write { path, at, len, pattern } => files::write(path, *at, *len, *pattern),
        Command::Read { path, at, len } => files::read(path, *at, *len),
        Command::Truncate { path, size } => files::truncate(path, *size),
        Command::Fallocate { path, mode, at, len } => files::fallocate(path, *mode, *at, *len),
        Command::Rename { from, to } => files::rename(from, to),
        Command::Link { from, to } => files::link(from, to),
        Command::Symlink { target, path } => files::symlink(target, path),
        Command::Unlink { path } => files::unlink(path),
        Command::Fsync { path } => files::fsync(path),
        Command::Fdatasync { path } => files::fdatasync(path),
        Command::SetXattr { path, name, value } => files::set_xattr(path, name, value),
        Command::RemoveXattr { path, name } => files::remove_xattr(path, name),
        other => Err(unknown(other)),
    }
}

fn unknown(command: &Command) -> Reply {
    Reply::Bad { why: format!("the agent cannot do {command:?}") }
}

/// Options of mount(8) that are flags of mount(2).
const FLAGS: [(&str, u64); 10] = [
    ("ro", libc::MS_RDONLY),
    ("rw", 0),
    ("defaults", 0),
    ("noatime", libc::MS_NOATIME),
    ("nodiratime", libc::MS_NODIRATIME),
    ("relatime", libc::MS_RELATIME),
    ("strictatime", libc::MS_STRICTATIME),
    ("lazytime", libc::MS_LAZYTIME),
    ("sync", libc::MS_SYNCHRONOUS),
    ("dirsync", libc::MS_DIRSYNC),
];

fn mount(region: u32, fs: &str, options: &str) -> Outcome {
    if fs == DEVDAX {
        return expose(region);
    }
    let device = nd::block_device(region);
    let device = device.ok_or_else(|| Reply::Bad { why: format!("region {region} is not attached") })?;
    let (mut flags, mut data) = (0, Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match FLAGS.iter().find(|(name, _)| *name == option) {
            Some((_, flag)) => flags |= flag,
            None => data.push(option),
        }
    }
    sys::mount(&device.to_string_lossy(), MOUNT, fs, flags, &data.join(",")).map_err(errno("mount"))
}

/// A device-dax device stands at the mount point under its own name, to be mapped and observed as files are.
fn expose(region: u32) -> Outcome {
    let device = nd::dax_device(region);
    let device =
        device.ok_or_else(|| Reply::Bad { why: format!("region {region} has no device-dax device") })?;
    let number = fs::metadata(&device).map_err(errno("stat"))?.rdev();
    let name = device.file_name().unwrap_or_default();
    sys::character_device(&Path::new(MOUNT).join(name), number).map_err(errno("mknod"))
}

fn umount() -> Outcome {
    let mut exposed = fs::read_dir(MOUNT).map_err(errno("readdir"))?.flatten();
    let exposed = exposed.find(|entry| entry.file_type().is_ok_and(|kind| kind.is_char_device()));
    match exposed {
        Some(device) => fs::remove_file(device.path()).map_err(errno("unlink")),
        None => sys::umount(MOUNT).map_err(errno("umount")),
    }
}
