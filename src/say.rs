//! What the command says: `say!` and `print_text` to standard output, `note!` to standard error.
//!
//! Whoever reads may be gone, as `head` is after ten lines: that is no trouble of this program, and never a panic. What is
//! noted for people is then lost. What is said is an error that `main` ends by, as quietly as other programs do; only
//! commands that judge go on, for their exit code and the files they write.

use std::fmt;
use std::io::{self, ErrorKind, Write};

/// Standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to the standard output: {0}; direct it to where there is space")]
pub struct Unheard(pub io::Error);

impl Unheard {
    /// Whether its reader is gone, which is nothing to complain of.
    pub fn is_quiet(&self) -> bool {
        self.0.kind() == ErrorKind::BrokenPipe
    }
}

/// Writes a line to standard output: `println!` with a result.
macro_rules! say {
    ($($what:tt)*) => { $crate::say::line(format_args!($($what)*)) };
}

/// Writes a line to standard error, if somebody reads it.
macro_rules! note {
    ($($what:tt)*) => { $crate::say::note_line(format_args!($($what)*)) };
}

pub(crate) use {note, say};

/// What `say!` does.
pub fn line(what: fmt::Arguments) -> Result<(), Unheard> {
    writeln!(io::stdout().lock(), "{what}").map_err(Unheard)
}

/// What `note!` does.
pub fn note_line(what: fmt::Arguments) {
    let _ = writeln!(io::stderr().lock(), "{what}");
}

/// For commands that judge: they go on, whatever became of what they said.
pub fn heard(said: Result<(), Unheard>) {
    match said {
        Err(why) if !why.is_quiet() => note!("pmemsim: {why}"),
        _ => {}
    }
}

/// Writes to standard output what ends its lines itself.
pub fn print_text(text: &str) -> Result<(), Unheard> {
    print_bytes(text.as_bytes())
}

/// Writes bytes to standard output as they are, at once.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Unheard> {
    let mut output = io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).map_err(Unheard)
}
