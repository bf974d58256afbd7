//! Files that are put into memory beside the payload.

use std::ops::Range;

use super::{Boot, MIB, put};
use crate::Error;
use crate::memory::{Memory, PAGE};

/// A file for the payload, and what to tell about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its command line; by convention the name of the file and arguments.
    pub command_line: String,
}

/// Most modules of a payload, the initrd among them.
pub(super) const MAX_MODULES: usize = 64;
/// Most bytes of all command lines together.
pub(super) const MAX_TEXT: usize = 64 << 10;

/// A module in memory.
pub(super) struct Placed<'a> {
    /// Guest-physical addresses.
    pub at: Range<u64>,
    pub command_line: &'a str,
}

/// Puts the initrd, if there is one, and the modules behind the payload, each on a page of its own.
pub(super) fn place<'a>(memory: &mut Memory, boot: &Boot<'a>, end: u64) -> Result<Vec<Placed<'a>>, Error> {
    let initrd = Some((boot.initrd, "")).filter(|(bytes, _)| !bytes.is_empty());
    let modules = boot.modules.iter().map(|module| (&module.bytes[..], &module.command_line[..]));
    let all: Vec<(&[u8], &str)> = initrd.into_iter().chain(modules).collect();
    check(boot, &all)?;
    let mut next = end.max(MIB);
    let mut placed = Vec::new();
    for (bytes, command_line) in all {
        let start = next.next_multiple_of(PAGE);
        next = start + bytes.len() as u64;
        if next > boot.low_memory {
            return Err(Error::Config {
                what: format!("a module of {} bytes does not fit behind the payload", bytes.len()),
                hint: "give the machine more memory",
            });
        }
        put(memory, start, bytes)?;
        placed.push(Placed { at: start..next, command_line });
    }
    Ok(placed)
}

fn check(boot: &Boot, modules: &[(&[u8], &str)]) -> Result<(), Error> {
    if modules.len() > MAX_MODULES {
        return Err(Error::Config {
            what: format!("{} modules", modules.len()),
            hint: "at most 64, the initrd among them",
        });
    }
    let lines = || modules.iter().map(|(_, line)| *line).chain([boot.command_line]);
    let text: usize = lines().map(|line| line.len() + 1).sum();
    if text > MAX_TEXT || lines().any(|line| line.contains('\0')) {
        return Err(Error::Config {
            what: format!("the command lines of the payload and its modules have {text} bytes"),
            hint: "they may have 65536 together, none of them zero",
        });
    }
    Ok(())
}
