//! One number for what a machine did: the same for the same execution, another one for another.

use persist::Event;

use crate::board::Board;

/// A hash over every turn that a processor took, every jump of time and every event, in their order.
#[derive(Clone, Default)]
pub(crate) struct TraceHash(Option<Box<blake3::Hasher>>);

impl TraceHash {
    /// Begins anew from here.
    pub(crate) fn start(&mut self) {
        self.0 = Some(Box::default());
    }

    /// A processor stopped with so many retired instructions at `rip`, and `next` goes on.
    pub(crate) fn turn(&mut self, next: u8, retired: u64, rip: u64) {
        self.add(b't', &[next.into(), retired, rip]);
    }

    /// All processors were halted until `time`.
    pub(crate) fn waited(&mut self, time: u64) {
        self.add(b'w', &[time]);
    }

    /// Something happened to persistent memory.
    pub(crate) fn event(&mut self, event: &Event) {
        if let (Some(hash), Ok(bytes)) = (&mut self.0, postcard::to_stdvec(event)) {
            hash.update(b"e").update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
        }
    }

    /// The hash up to now, the registers of every processor included.
    pub(crate) fn value(&self, cpu: &cpu::Cpu<Board>) -> Option<blake3::Hash> {
        let mut hash = self.0.as_deref()?.clone();
        let states = postcard::to_stdvec(&cpu.states()).ok()?;
        Some(hash.update(b"s").update(&states).finalize())
    }

    fn add(&mut self, kind: u8, words: &[u64]) {
        let Some(hash) = &mut self.0 else { return };
        hash.update(&[kind]);
        for word in words {
            hash.update(&word.to_le_bytes());
        }
    }
}
