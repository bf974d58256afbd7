//! Tests of other tools as scenarios.

pub mod ace;
mod shell;
#[cfg(test)]
mod tests;
mod verdicts;
pub mod vinter;

use std::fmt::Write;

pub use self::verdicts::{Verdict, verdicts};
use crate::scenario::Scenario;

/// A file of another tool that cannot be read, or asks for what is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {what}")]
pub struct ImportError {
    /// The file.
    pub file: String,
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong, and what to do about it.
    pub what: String,
}

/// What the files do not tell: where the test is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The kernel, as scenarios name it.
    pub kernel: String,
    /// `ext4` or `xfs`
    pub filesystem: String,
    /// Options of mount.
    pub mount: String,
}

/// The text of a scenario, and from which line of the imported file each of its steps comes.
struct Text {
    file: String,
    text: String,
    /// Line of the text at which a step begins, and the line that it comes from.
    lines: Vec<(usize, usize)>,
}

impl Text {
    fn new(file: &str, machine: &Machine, description: &str, crash: &str) -> Text {
        // The smallest regions that these file systems fit on.
        let size = if machine.filesystem == "xfs" { "18M" } else { "16M" };
        let name = std::path::Path::new(file).file_name().map_or(file.into(), |name| name.to_string_lossy());
        let text = format!(
            "name = {}\ndescription = {}\n\n[machine]\nkernel = {}\n\n[[nvdimm]]\nsize = \"{size}\"\n\n[filesystem]\ntype = {}\nmount = {}\n\n[crash]\npoints = [\"durable\", \"promises\"]\nexplore = \"lazy\"\nbranches = 256\n{crash}",
            quoted(&name),
            quoted(description),
            quoted(&machine.kernel),
            quoted(&machine.filesystem),
            quoted(&machine.mount)
        );
        Text { file: file.to_owned(), text, lines: Vec::new() }
    }

    fn step(&mut self, line: usize, action: &str) {
        self.lines.push((self.text.lines().count() + 2, line));
        // Writing to a string never fails.
        let _ = write!(self.text, "\n[[step]]\n{action}\n");
    }

    /// The text; an error when it makes no sense, at the line of the imported file.
    fn finish(self) -> Result<String, ImportError> {
        match Scenario::parse(&self.text, &self.file) {
            Ok(_) => Ok(self.text),
            Err(error) => {
                let from = self.lines.iter().rev().find(|(begin, _)| *begin <= error.line);
                let line = from.map_or(1, |(_, line)| *line);
                Err(ImportError { file: self.file, line, what: error.what })
            }
        }
    }
}

/// A string of TOML: as JSON has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => drop(write!(quoted, "\\u{:04x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
