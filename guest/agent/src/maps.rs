//! Mappings of files.

use std::collections::BTreeMap;
use std::fs::OpenOptions;

use guest_protocol::{Op, Reply};

use crate::commands::Outcome;
use crate::files::{errno, full};
use crate::{race, signals, straight, sys};

const HUGE: u64 = 2 << 20;
const PAGE: u64 = 4096;

/// Mappings by name.
#[derive(Default)]
pub struct Maps(BTreeMap<String, Map>);

/// A mapping, inside a larger piece of reserved address space.
pub struct Map {
    address: u64,
    len: u64,
    /// Offset in the file of the first byte.
    offset: u64,
    reserved: (usize, usize),
}

fn bad(why: impl Into<String>) -> Reply {
    Reply::Bad { why: why.into() }
}

impl Maps {
    pub fn get(&self, name: &str) -> Result<&Map, Reply> {
        self.0.get(name).ok_or_else(|| bad(format!("no mapping is called {name:?}")))
    }

    pub fn map(&mut self, name: &str, path: &str, at: u64, len: u64, sync: bool, align: u64) -> Outcome {
        if self.0.contains_key(name) {
            return Err(bad(format!("a mapping is called {name:?} already")));
        }
        if len == 0 || len > 1 << 40 || at > i64::MAX as u64 || !align.is_power_of_two() || align > 1 << 30 {
            return Err(bad("length, offset or alignment of the mapping makes no sense"));
        }
        let file = OpenOptions::new().read(true).write(true).open(full(path)).map_err(errno("open"))?;
        let reserved_len = (len + 2 * align.max(HUGE)) as usize;
        let reserved = sys::reserve(reserved_len).map_err(errno("mmap"))?;
        let address = place(reserved as u64, at, align);
        let flags = if sync { libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC } else { libc::MAP_SHARED };
        if let Err(error) = sys::map_over(address as usize, len as usize, flags, &file, at as i64) {
            let _ = sys::unmap(reserved, reserved_len);
            return Err(errno("mmap")(error));
        }
        self.0.insert(name.into(), Map { address, len, offset: at, reserved: (reserved, reserved_len) });
        Ok(())
    }

    pub fn unmap(&mut self, name: &str) -> Outcome {
        let (address, len) = self.get(name)?.reserved;
        sys::unmap(address, len).map_err(errno("munmap"))?;
        self.0.remove(name);
        Ok(())
    }
}

/// An address at or behind `start` for offset `at` of a file. The two agree modulo `align`. When `align` is less than
/// 2 MiB they disagree modulo 2 MiB: the kernel can then only map single pages, every time.
fn place(start: u64, at: u64, align: u64) -> u64 {
    let align = align.max(PAGE);
    if align >= HUGE {
        return start.next_multiple_of(align) + at % align;
    }
    start.next_multiple_of(HUGE) + (at + align) % HUGE
}

impl Map {
    /// Checks that a range lies in the mapping.
    fn inside(&self, at: u64, len: u64) -> Outcome {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(bad(format!("bytes {at} to {at}+{len} are not in the mapping, which has {}", self.len))),
        }
    }

    pub fn touch(&self, at: u64, len: u64) -> Outcome {
        self.inside(at, len)?;
        signals::guarded(|| straight::touch(self.address + at, len))
    }

    pub fn msync(&self, at: u64, len: u64) -> Outcome {
        self.inside(at, len)?;
        sys::msync((self.address + at) as usize, len as usize).map_err(errno("msync"))
    }

    /// Checks everything first, so that nothing but the operations happens when they run.
    #[inline(never)]
    pub fn run(&self, ops: &[Op]) -> Outcome {
        self.check(ops)?;
        signals::guarded(|| straight::run(ops, self.address, self.offset))
    }

    /// Runs `first` and, in another thread or process, `second`.
    pub fn race(&self, first: &[Op], second: &[Op], delay: u64, process: bool) -> Outcome {
        self.check(first)?;
        self.check(second)?;
        let place = race::Place { address: self.address, offset: self.offset };
        if process {
            race::in_processes(first, second, delay, place)
        } else {
            race::in_threads(first, second, delay, place)
        }
    }

    fn check(&self, ops: &[Op]) -> Outcome {
        for op in ops {
            match op {
                Op::Store { at, len, .. } | Op::Flush { at, len, .. } => self.inside(*at, *len)?,
                Op::StoreNonTemporal { at, len, .. } => {
                    self.inside(*at, *len)?;
                    if at % 8 != 0 || len % 8 != 0 {
                        return Err(bad("non-temporal stores are in units of 8 bytes"));
                    }
                }
                Op::Fence(_) | Op::Promise(_) | Op::Marker(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_wanted_alignment() {
        for start in [0x7000_0000_1000, 0x7000_0020_0000] {
            let huge = place(start, 4 << 20, HUGE);
            assert!(huge >= start && huge.is_multiple_of(HUGE) && huge - start < 2 * HUGE);
            for at in [0, 4096, HUGE - 4096, HUGE] {
                let small = place(start, at, PAGE);
                assert!(small >= start && small - start < 2 * HUGE);
                assert_eq!(small % PAGE, 0);
                assert_ne!(small % HUGE, at % HUGE, "huge pages are impossible");
            }
        }
    }
}
