//! What the steps of a scenario do to files and names, and what they promise, in order. Times are numbers of
//! commands; the recording gives them their events.

use guest_protocol::Pattern;

/// Everything that the steps do and promise.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub files: Vec<FileHistory>,
    /// Changes of names, in order; each takes effect as a whole or not at all.
    pub names: Vec<NameChange>,
    /// Promise `id` is `promises[id]`.
    pub promises: Vec<Promise>,
    /// Whether the file system keeps the order of all changes of metadata.
    pub metadata_is_ordered: bool,
    /// A program ran: names that no step made are not judged.
    pub programs_ran: bool,
}

/// The number of no command: of what was there before the first.
pub(crate) const BEFORE: usize = usize::MAX;

/// Index into [`History::files`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId(pub usize);

/// One file, directory or symbolic link.
#[derive(Clone, Debug)]
pub(crate) struct FileHistory {
    pub kind: FileKind,
    /// Changes of content, in order. Bytes that none covers are zero.
    pub contents: Vec<ContentChange>,
    /// Changes of size, in order. The size before the first is 0.
    pub sizes: Vec<SizeChange>,
    /// Changes of extended attributes, in order.
    pub attributes: Vec<AttributeChange>,
    /// Losses of content, in order.
    pub losses: Vec<Loss>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    Regular,
    /// Made by a program: only what a promise says of it is judged.
    Foreign,
    Directory,
    Symlink {
        target: String,
    },
}

/// A range of a file gets new bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContentChange {
    /// Number of the command that does it.
    pub command: usize,
    pub at: u64,
    pub len: u64,
    pub pattern: Pattern,
    /// What does not tear.
    pub unit: Unit,
}

/// What of a change of content does not tear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// write(2) and its like.
    Byte,
    /// Stores of aligned 8-byte words through a mapping.
    Word,
}

/// The media loses bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Number of the command that does it.
    pub command: usize,
    pub at: u64,
    pub len: u64,
    /// How many changes of content came before it: nothing can be promised of them any more.
    pub upto: usize,
}

/// A file gets another size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SizeChange {
    /// Number of the command that does it.
    pub command: usize,
    pub to: u64,
    /// Sizes between the old and the new one may be seen too: a write that extends.
    pub gradual: bool,
}

/// An extended attribute gets a value, or goes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttributeChange {
    /// Number of the command that does it.
    pub command: usize,
    pub name: String,
    pub value: Option<Vec<u8>>,
}

/// Some names come to mean something else, all at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameChange {
    /// Number of the command that does it.
    pub command: usize,
    /// What each path means from then on.
    pub sets: Vec<(String, Option<FileId>)>,
}

/// What is promised durable from a moment on.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// Index of the step, from 0.
    pub step: usize,
    /// For people.
    pub text: String,
    pub terms: Vec<Term>,
    /// Mapped stores that the promise is about: (command, offset in the file, length).
    pub stores: Vec<(usize, u64, u64)>,
}

/// One thing that is promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Term {
    /// What the first `upto` changes of content left in a range of the file.
    Content { file: FileId, at: u64, len: u64, upto: usize },
    /// What the first `upto` changes of size left.
    Size { file: FileId, upto: usize },
    /// What the first `upto` changes of extended attributes left.
    Attributes { file: FileId, upto: usize },
    /// These changes of names, by index.
    Names(Vec<usize>),
}

impl History {
    /// The name a file got first, for messages.
    pub fn first_name(&self, file: FileId) -> &str {
        let sets = self.names.iter().flat_map(|change| &change.sets);
        sets.into_iter().find(|(_, to)| *to == Some(file)).map_or("?", |(path, _)| path)
    }

    /// Indices of the changes of names in which the file gets or loses a name.
    pub fn names_of(&self, file: FileId) -> Vec<usize> {
        let mut bound = std::collections::BTreeSet::new();
        let touches = |change: &NameChange| {
            let mut touched = false;
            for (path, to) in &change.sets {
                if *to == Some(file) {
                    bound.insert(path.clone());
                    touched = true;
                } else if bound.remove(path) {
                    touched = true;
                }
            }
            touched
        };
        let touched: Vec<bool> = self.names.iter().map(touches).collect();
        (0..touched.len()).filter(|&index| touched[index]).collect()
    }
}
