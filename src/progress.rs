//! What a run says while it goes on: to stderr. On a terminal it is one line that is rewritten; elsewhere there is
//! nothing, or if it is asked for, a line now and then.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use explore::Progress;

/// Time between two updates of the line on a terminal.
const PAUSE: Duration = Duration::from_millis(200);
/// Time between two lines elsewhere.
const LONG_PAUSE: Duration = Duration::from_secs(10);
/// Units of work that have to be done before it is told how long the others take.
const ENOUGH: usize = 4;

/// Shows how far a run is.
pub struct Line {
    name: String,
    how: How,
    shown: Mutex<Shown>,
}

/// Where it is shown.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Terminal,
    Lines,
    Nowhere,
}

#[derive(Default)]
struct Shown {
    last: Option<Instant>,
    /// When the work that is being done was begun.
    begun: Option<Instant>,
}

impl Line {
    /// For the scenario of this name; also where there is no terminal if it is `wanted`.
    pub fn new(name: &str, wanted: bool) -> Line {
        let how = match (std::io::stderr().is_terminal(), wanted) {
            (true, _) => How::Terminal,
            (false, true) => How::Lines,
            (false, false) => How::Nowhere,
        };
        Line { name: name.to_owned(), how, shown: Mutex::default() }
    }

    /// Shows the news, unless it comes too soon after the last.
    pub fn show(&self, progress: &Progress) {
        if self.how == How::Nowhere {
            return;
        }
        let Ok(mut shown) = self.shown.lock() else { return };
        let now = Instant::now();
        if matches!(progress, Progress::Recovering { done: 0, .. }) {
            shown.begun = Some(now);
        }
        let pause = if self.how == How::Terminal { PAUSE } else { LONG_PAUSE };
        let counting = matches!(progress, Progress::Recovering { done, of } if (1..*of).contains(done));
        if counting && shown.last.is_some_and(|last| now - last < pause) {
            return;
        }
        shown.last = Some(now);
        let what = match progress {
            Progress::Recording => "recording".to_owned(),
            Progress::Recorded { events } => format!("recorded {events} events"),
            Progress::Recovering { of: 0, .. } => return,
            Progress::Recovering { done, of } => {
                let elapsed = shown.begun.map_or(Duration::ZERO, |begun| now - begun);
                format!("recovering {done}/{of}{}", remaining(elapsed, *done, *of))
            }
            Progress::Explaining => "explaining".to_owned(),
        };
        let _ = match self.how {
            How::Terminal => write!(std::io::stderr(), "\r\x1b[K{}: {what}", self.name),
            _ => writeln!(std::io::stderr(), "{}: {what}", self.name),
        };
    }
}

/// How long the rest takes if it goes on like this.
fn remaining(elapsed: Duration, done: usize, of: usize) -> String {
    let left = of.saturating_sub(done);
    if done < ENOUGH || left == 0 {
        return String::new();
    }
    let seconds = (elapsed.as_secs_f64() / done as f64 * left as f64).round() as u64;
    match seconds {
        0..120 => format!(", about {seconds} s left"),
        120..7200 => format!(", about {} min left", seconds / 60),
        _ => format!(", about {} h left", seconds / 3600),
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.how == How::Terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_is_done_did() {
        let after = |seconds, done, of| remaining(Duration::from_secs(seconds), done, of);
        assert_eq!(after(10, 10, 40), ", about 30 s left");
        assert_eq!(after(600, 10, 40), ", about 30 min left");
        assert_eq!(after(6000, 10, 40), ", about 5 h left");
        assert_eq!((after(10, 3, 40), after(10, 40, 40)), (String::new(), String::new()));
    }
}
