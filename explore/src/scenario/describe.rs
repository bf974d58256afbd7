//! Commands in a few words, as reports name steps.

use guest_protocol::{Command, Fence, Op};

/// A command in a few words.
pub(super) fn describe(command: &Command) -> String {
    match command {
        Command::Mkdir { path } => format!("mkdir {path}"),
        Command::Create { path, .. } => format!("create {path}"),
        Command::Write { path, at: Some(at), len, .. } => format!("write {path} {at:#x}+{len:#x}"),
        Command::Write { path, len, .. } => format!("append {len:#x} to {path}"),
        Command::Truncate { path, size } => format!("truncate {path} to {size:#x}"),
        Command::Fallocate { path, at, len, .. } => format!("fallocate {path} {at:#x}+{len:#x}"),
        Command::Rename { from, to } => format!("rename {from} to {to}"),
        Command::Link { from, to } => format!("link {from} to {to}"),
        Command::Symlink { path, .. } => format!("symlink {path}"),
        Command::Unlink { path } => format!("unlink {path}"),
        Command::SetXattr { path, name, value } => {
            format!("setxattr {name} of {path}, {:#x} bytes", value.len())
        }
        Command::RemoveXattr { path, name } => format!("removexattr {name} of {path}"),
        Command::Fsync { path } => format!("fsync {path}"),
        Command::Fdatasync { path } => format!("fdatasync {path}"),
        Command::Map { name, path, sync, .. } => {
            format!("map {path} as {name}{}", if *sync { " with MAP_SYNC" } else { "" })
        }
        Command::Run { map, ops } => {
            format!("{} on {map}", ops.iter().map(describe_op).collect::<Vec<_>>().join(", "))
        }
        Command::Race { map, first, second, delay, process } => {
            let other = if *process { "process" } else { "thread" };
            let ops = |ops: &[Op]| ops.iter().map(describe_op).collect::<Vec<_>>().join(", ");
            format!(
                "{} on {map} against {} of another {other}, {delay} rounds ahead",
                ops(second),
                ops(first)
            )
        }
        Command::Touch { map, .. } => format!("touch {map}"),
        Command::Msync { map, .. } => format!("msync {map}"),
        Command::Munmap { map } => format!("munmap {map}"),
        Command::Exec { argv } | Command::ExecHeard { argv } => {
            format!("exec {}", shortened(&argv.join(" ")))
        }
        Command::Promise { id } => format!("promise {id}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The first line, and not too much of it.
fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    let line = text.lines().next().unwrap_or_default();
    let short: String = line.chars().take(MOST).collect();
    if short == text { short } else { format!("{short} ...") }
}

fn describe_op(op: &Op) -> String {
    match op {
        Op::Store { at, len, .. } => format!("store {at:#x}+{len:#x}"),
        Op::StoreNonTemporal { at, len, .. } => format!("non-temporal store {at:#x}+{len:#x}"),
        Op::Flush { with, .. } => format!("{with:?}").to_lowercase(),
        Op::Fence(Fence::Sfence) => "sfence".to_owned(),
        Op::Fence(fence) => format!("{fence:?}").to_lowercase(),
        Op::Promise(_) => "promise".to_owned(),
        Op::Marker(id) => format!("marker {id}"),
    }
}
