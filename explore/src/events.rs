//! The events of a recording. There can be more of them than fit in memory: all but the last are kept compressed, and
//! from some size on in a file that has no name, so that nothing of it remains.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use persist::{Event, Origin};

use crate::target::HostError;

/// Events that are compressed together. Unpacked they take about 1.5 MB.
const CHUNK: usize = 1 << 14;
/// Bytes of compressed events that stay in memory; what comes behind them goes to the file.
const IN_MEMORY: usize = 256 << 20;

/// Events in the order in which they happened, by ascending numbers.
pub(crate) struct Events {
    scratch: PathBuf,
    /// Events of a chunk.
    chunk: usize,
    /// Bytes of compressed events that stay in memory.
    in_memory: usize,
    /// Bytes of compressed events in memory.
    held: usize,
    packed: Vec<Packed>,
    /// Behind them, fewer than a chunk.
    last: Vec<Event>,
    file: Option<File>,
    /// Bytes in the file.
    written: u64,
    /// The chunk that was unpacked last.
    cached: Mutex<Option<(usize, Arc<Vec<Event>>)>>,
    /// Why not everything could be read.
    unreadable: Mutex<Option<HostError>>,
}

/// A compressed chunk.
struct Packed {
    /// Number of its first event.
    first: u64,
    place: Place,
}

enum Place {
    Memory(Box<[u8]>),
    File { at: u64, len: usize },
}

impl Events {
    /// None yet. If there get to be many, they are in a file in the directory `scratch`.
    pub fn new(scratch: &Path) -> Events {
        Events {
            scratch: scratch.to_owned(),
            chunk: CHUNK,
            in_memory: IN_MEMORY,
            held: 0,
            packed: Vec::new(),
            last: Vec::new(),
            file: None,
            written: 0,
            cached: Mutex::default(),
            unreadable: Mutex::default(),
        }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        (self.packed.len() * self.chunk + self.last.len()) as u64
    }

    /// Number of the last one.
    pub fn last_seq(&self) -> Option<u64> {
        // Only a chunk that was full was packed, and its last event may be the last of all.
        match self.last.last() {
            Some(event) => Some(event.seq),
            None => self
                .packed
                .len()
                .checked_sub(1)
                .and_then(|number| self.unpacked(number)?.last().map(|event| event.seq)),
        }
    }

    /// Appends events. Fails when the disk is full, for example.
    pub fn extend(&mut self, events: impl IntoIterator<Item = Event>) -> Result<(), HostError> {
        for event in events {
            self.last.push(event);
            if self.last.len() == self.chunk {
                self.pack()?;
            }
        }
        Ok(())
    }

    /// All of them.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0)
    }

    /// The events from number `from` to before number `to`.
    pub fn between(&self, from: u64, to: u64) -> impl Iterator<Item = Event> {
        let first = self.packed.partition_point(|packed| packed.first <= from).saturating_sub(1);
        self.iter_from(first)
            .skip_while(move |event| event.seq < from)
            .take_while(move |event| event.seq < to)
    }

    /// Takes out the events that are wanted. The others keep their numbers.
    pub fn take_out(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Result<Vec<Event>, HostError> {
        let mut kept = Events { chunk: self.chunk, in_memory: self.in_memory, ..Events::new(&self.scratch) };
        let mut taken = Vec::new();
        for event in self.iter() {
            if wanted(&event) {
                taken.push(event);
            } else {
                kept.extend([event])?;
            }
        }
        self.check()?;
        *self = kept;
        Ok(taken)
    }

    /// Whether all could be read. An iterator ends early at what cannot be.
    pub fn check(&self) -> Result<(), HostError> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.clone().map_or(Ok(()), Err)
    }

    fn iter_from(&self, chunk: usize) -> Iter<'_> {
        Iter { events: self, next: chunk, now: Now::None, at: 0 }
    }

    fn pack(&mut self) -> Result<(), HostError> {
        let Some(first) = self.last.first().map(|event| event.seq) else { return Ok(()) };
        let bytes = lz4_flex::compress_prepend_size(&encode(&self.last)).into_boxed_slice();
        let place = if self.held + bytes.len() <= self.in_memory {
            self.held += bytes.len();
            Place::Memory(bytes)
        } else {
            self.append(&bytes).map_err(|why| self.trouble("write", &why.to_string()))?
        };
        self.packed.push(Packed { first, place });
        self.last.clear();
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> std::io::Result<Place> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                std::fs::create_dir_all(&self.scratch)?;
                none.insert(tempfile::tempfile_in(&self.scratch)?)
            }
        };
        file.write_all_at(bytes, self.written)?;
        let place = Place::File { at: self.written, len: bytes.len() };
        self.written += bytes.len() as u64;
        Ok(place)
    }

    /// The events of a packed chunk, or `None` if it cannot be read, which [`Events::check`] tells.
    fn unpacked(&self, number: usize) -> Option<Arc<Vec<Event>>> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, events)) = cached.as_ref().filter(|(chunk, _)| *chunk == number) {
            return Some(events.clone());
        }
        match self.unpack(&self.packed[number]) {
            Ok(events) => {
                let events = Arc::new(events);
                *cached = Some((number, events.clone()));
                Some(events)
            }
            Err(why) => {
                let error = self.trouble("read", &why);
                self.unreadable.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                None
            }
        }
    }

    fn unpack(&self, packed: &Packed) -> Result<Vec<Event>, String> {
        let bytes = match &packed.place {
            Place::Memory(bytes) => lz4_flex::decompress_size_prepended(bytes),
            Place::File { at, len } => {
                let mut bytes = vec![0; *len];
                let file = self.file.as_ref().ok_or("it is not there")?;
                file.read_exact_at(&mut bytes, *at).map_err(|why| why.to_string())?;
                lz4_flex::decompress_size_prepended(&bytes)
            }
        };
        decode(&bytes.map_err(|why| why.to_string())?).map_err(|why| why.to_string())
    }

    fn trouble(&self, what: &str, why: &str) -> HostError {
        HostError(format!(
            "cannot {what} the file of recorded events in {}: {why}; there are {} events so far",
            self.scratch.display(),
            self.len()
        ))
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = Event;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Goes over events, one chunk in memory at a time.
pub(crate) struct Iter<'a> {
    events: &'a Events,
    /// The chunk that comes next.
    next: usize,
    now: Now<'a>,
    /// The event of the present chunk that comes next.
    at: usize,
}

enum Now<'a> {
    None,
    Packed(Arc<Vec<Event>>),
    Last(&'a [Event]),
}

impl Iterator for Iter<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let now: &[Event] = match &self.now {
                Now::None => &[],
                Now::Packed(events) => events,
                Now::Last(events) => events,
            };
            if let Some(event) = now.get(self.at) {
                self.at += 1;
                return Some(event.clone());
            }
            self.now = match self.next.cmp(&self.events.packed.len()) {
                std::cmp::Ordering::Less => Now::Packed(self.events.unpacked(self.next)?),
                std::cmp::Ordering::Equal => Now::Last(&self.events.last),
                std::cmp::Ordering::Greater => return None,
            };
            (self.next, self.at) = (self.next + 1, 0);
        }
    }
}

/// Events by what they differ in from the one before: small numbers are short, and like ones compress.
fn encode(events: &[Event]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (mut seq, mut retired) = (0, 0);
    for event in events {
        let origin = Origin { retired: event.origin.retired.wrapping_sub(retired), ..event.origin };
        let difference = Event { seq: event.seq.wrapping_sub(seq), origin, kind: event.kind.clone() };
        bytes = postcard::to_extend(&difference, bytes).expect("an event has only numbers and bytes");
        (seq, retired) = (event.seq, event.origin.retired);
    }
    bytes
}

fn decode(mut bytes: &[u8]) -> postcard::Result<Vec<Event>> {
    let mut events = Vec::new();
    let (mut seq, mut retired) = (0_u64, 0_u64);
    while !bytes.is_empty() {
        let (mut event, rest): (Event, _) = postcard::take_from_bytes(bytes)?;
        event.seq = event.seq.wrapping_add(seq);
        event.origin.retired = event.origin.retired.wrapping_add(retired);
        (seq, retired) = (event.seq, event.origin.retired);
        events.push(event);
        bytes = rest;
    }
    Ok(events)
}

#[cfg(test)]
mod tests;
