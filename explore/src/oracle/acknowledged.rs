//! What programs acknowledge to their users. What that means only a check program knows, so it is told what had been
//! acknowledged when the power went.

use std::fmt;
use std::sync::Arc;

/// A line of text by which a program acknowledged something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    /// Events that had happened.
    pub events: u64,
    pub text: String,
}

/// What had been acknowledged at one moment: the first of all that ever was.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Acknowledged {
    all: Arc<[Acknowledgement]>,
    count: usize,
}

impl Acknowledged {
    /// What had been acknowledged behind the first `events` events.
    pub fn behind(all: &Arc<[Acknowledgement]>, events: u64) -> Acknowledged {
        let count = all.iter().take_while(|it| it.events <= events).count();
        Acknowledged { all: all.clone(), count }
    }

    /// How many there are: of one recording, that tells one from another.
    pub fn count(&self) -> usize {
        self.count
    }

    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.all.iter().take(self.count).map(|it| it.text.as_str())
    }

    pub fn last(&self) -> Option<&Acknowledgement> {
        self.all[..self.count].last()
    }
}

impl fmt::Debug for Acknowledged {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} acknowledged", self.count)
    }
}
