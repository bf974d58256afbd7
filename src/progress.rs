//! What a run says while it goes on: to stderr, in one line that is rewritten, and only on a terminal.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use explore::Progress;

/// Time between two updates of the line.
const PAUSE: Duration = Duration::from_millis(200);

/// Shows how far a run is.
pub struct Line {
    name: String,
    shown: bool,
    last: Mutex<Option<Instant>>,
    started: Instant,
}

impl Line {
    /// For the scenario of this name.
    pub fn new(name: &str) -> Line {
        let shown = std::io::stderr().is_terminal();
        Line { name: name.to_owned(), shown, last: Mutex::new(None), started: Instant::now() }
    }

    /// Shows the news, unless it comes too soon after the last.
    pub fn show(&self, progress: &Progress) {
        if !self.shown {
            return;
        }
        let Ok(mut last) = self.last.lock() else { return };
        let now = Instant::now();
        let counting = matches!(progress, Progress::Recovering { done, of } if done < of);
        if counting && last.is_some_and(|last| now - last < PAUSE) {
            return;
        }
        *last = Some(now);
        let what = match progress {
            Progress::Recording => "recording".to_owned(),
            Progress::Recorded { events } => format!("recorded {events} events"),
            Progress::Recovering { done, of } => {
                format!("recovering {done}/{of}{}", self.remaining(*done, *of))
            }
            Progress::Explaining => "explaining".to_owned(),
        };
        let _ = write!(std::io::stderr(), "\r\x1b[K{}: {what}", self.name);
    }

    fn remaining(&self, done: usize, of: usize) -> String {
        if done < 4 {
            return String::new();
        }
        let left = self.started.elapsed().as_secs_f64() / done as f64 * of.saturating_sub(done) as f64;
        format!(", {left:.0} s left")
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
