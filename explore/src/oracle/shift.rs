//! fallocate(2) that moves what lies behind a range: the content of the file, run by run.

use guest_protocol::Pattern;

use super::history::{ContentChange, FileHistory, FileId, SizeChange, Unit};
use super::model::{Model, Refusal, refuse};

/// Bytes behind one another that the steps filled alike: offset, length, pattern.
type Run = (u64, u64, Pattern);

impl Model {
    /// FALLOC_FL_COLLAPSE_RANGE: takes a range out.
    pub fn collapse(&mut self, command: usize, path: &str, at: u64, len: u64) -> Result<(), Refusal> {
        let (file, size) = self.shifted(path, at, len)?;
        if at.checked_add(len).is_none_or(|end| end >= size) {
            return refuse("bytes", format!("the range must end before the end of {path:?} at {size:#x}"));
        }
        let runs = self.runs_behind(file, path, at + len)?;
        let moved = runs.into_iter().map(|(start, len_of, pattern)| (start - len, len_of, pattern));
        self.replace(command, file, (at, size), moved.collect(), size - len);
        Ok(())
    }

    /// FALLOC_FL_INSERT_RANGE: puts a hole in.
    pub fn insert(&mut self, command: usize, path: &str, at: u64, len: u64) -> Result<(), Refusal> {
        let (file, size) = self.shifted(path, at, len)?;
        let new = size.checked_add(len).filter(|new| at < size && *new < 1 << 44);
        let Some(new) = new else {
            return refuse("at", format!("the range must begin before the end of {path:?} at {size:#x}"));
        };
        let runs = self.runs_behind(file, path, at)?;
        let moved = runs.into_iter().map(|(start, len_of, pattern)| (start + len, len_of, pattern));
        self.replace(command, file, (at, new), moved.collect(), new);
        Ok(())
    }

    fn shifted(&self, path: &str, at: u64, len: u64) -> Result<(FileId, u64), Refusal> {
        for (key, value) in [("at", at), ("bytes", len)] {
            if !value.is_multiple_of(4096) {
                return refuse(key, format!("{value:#x} is not a multiple of 4096, the size of a block"));
            }
        }
        let file = self.file("file", path)?;
        Ok((file, self.size(file)))
    }

    /// What the file holds from `from` to its end; refuses what would not be the same pattern elsewhere.
    fn runs_behind(&self, file: FileId, path: &str, from: u64) -> Result<Vec<Run>, Refusal> {
        let runs = runs(&self.history.files[file.0], self.size(file));
        let behind = runs.into_iter().filter(|(start, len, _)| start + len > from);
        let behind = behind.map(|(start, len, pattern)| {
            let cut = from.saturating_sub(start);
            (start + cut, len - cut, pattern)
        });
        let behind: Vec<Run> = behind.collect();
        match behind.iter().find(|(_, _, pattern)| matches!(pattern, Pattern::Seq(_))) {
            Some((start, ..)) => refuse(
                "file",
                format!(
                    "what {path:?} holds from {start:#x} on counts from the beginning of the file and cannot be moved: write it with a pattern such as \"byte:0x41\""
                ),
            ),
            None => Ok(behind),
        }
    }

    /// From `range.0` to `range.1` there is what the runs say, or, on the way there, nothing.
    fn replace(&mut self, command: usize, file: FileId, range: (u64, u64), runs: Vec<Run>, size: u64) {
        let history = &mut self.history.files[file.0];
        let nothing = (range.0, range.1 - range.0, Pattern::Zero);
        let changes = std::iter::once(nothing).chain(runs);
        let changes = changes.filter(|(_, len, _)| *len > 0);
        history.contents.extend(changes.map(|(at, len, pattern)| ContentChange {
            command,
            at,
            len,
            pattern,
            unit: Unit::Byte,
        }));
        history.sizes.push(SizeChange { command, to: size, gradual: false });
    }
}

/// What the changes leave in the first `size` bytes, in order.
fn runs(history: &FileHistory, size: u64) -> Vec<Run> {
    let mut edges: Vec<u64> =
        history.contents.iter().flat_map(|change| [change.at, change.at + change.len]).collect();
    edges.extend([0, size]);
    edges.retain(|edge| *edge <= size);
    edges.sort_unstable();
    edges.dedup();
    let of = |at: u64| {
        let last =
            history.contents.iter().rev().find(|change| change.at <= at && at < change.at + change.len);
        last.map_or(Pattern::Zero, |change| change.pattern)
    };
    edges.windows(2).map(|edge| (edge[0], edge[1] - edge[0], of(edge[0]))).collect()
}
