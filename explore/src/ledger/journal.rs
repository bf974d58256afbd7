//! The file that keeps results as they come, for a run that is started again after it was ended, however hard.
//!
//! It begins with [`MAGIC`]. Records follow: length and CRC-32 of what comes then, both 32 bits and little-endian, and
//! a [`Record`] as postcard. The first says for what the file is. A record that is cut off or does not fit its CRC ends
//! the file; it is cut there, and what stood behind is done again. Records are handed to the kernel one by one, so the
//! end of the process loses none; they are not synced, so the end of the host may.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::{Key, Ledger, Results};
use crate::options::RunOptions;
use crate::scenario::Scenario;
use crate::target::HostError;

/// How the file begins. The last byte is the version of the form.
const MAGIC: &[u8; 16] = b"pmemsim results\x01";
/// The largest record that is believed.
const LARGEST: usize = 1 << 30;
/// Bytes of the length and of the CRC in front of a record.
const HEAD: usize = 8;

/// Results on disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    /// What was found in it when it was opened, by the number of the run.
    known: Mutex<Vec<Known>>,
    cut: u64,
}

/// What is known of one run.
#[derive(Clone, Debug, Default)]
struct Known {
    execution: Option<Key>,
    results: Results,
}

#[derive(Serialize, Deserialize)]
enum Record {
    /// For what the file is: the program, and each run with the hash of all that was asked for.
    Header { code: String, runs: Vec<(String, Key)> },
    /// A run has been recorded: this is its execution.
    Run { run: u32, execution: Key },
    /// A unit of work is done.
    Result { run: u32, key: Key, result: Vec<u8> },
}

/// Why a file cannot keep the results.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be opened, read or written.
    #[error("{path}: {why}; give a file in a directory that can be written")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        why: std::io::Error,
    },
    /// It holds something else.
    #[error("{path} is no file of results, and it is not empty: give another one, it was left as it is")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another process is at it.
    #[error("{path} is in use by another run: wait for it, or give another file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// It is of another program.
    #[error("{path} has results of another version of pmemsim ({of}; this is {code}): give another file")]
    Code {
        /// The file.
        path: PathBuf,
        /// The version that made it.
        of: String,
        /// This version.
        code: String,
    },
    /// It is of something else.
    #[error("{path} has results of something else: {what}; give another file, or ask for the same as before")]
    Other {
        /// The file.
        path: PathBuf,
        /// What is not the same.
        what: String,
    },
}

impl Journal {
    /// Opens or makes the file for a run of these scenarios with these options. What is torn at its end is cut off.
    pub fn open(
        path: &Path,
        scenarios: &[&Scenario],
        options: &RunOptions,
    ) -> Result<Arc<Journal>, JournalError> {
        let io = |why| JournalError::Io { path: path.to_owned(), why };
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        file.try_lock().map_err(|why| match why {
            TryLockError::WouldBlock => JournalError::InUse { path: path.to_owned() },
            TryLockError::Error(why) => io(why),
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io)?;
        if !bytes.starts_with(MAGIC) && !MAGIC.starts_with(&bytes) {
            return Err(JournalError::Foreign { path: path.to_owned() });
        }
        let asked: Vec<(String, Key)> = scenarios.iter().map(|scenario| asked(scenario, options)).collect();
        let mut known = vec![Known::default(); asked.len()];
        let mut end = MAGIC.len();
        let mut records = 0;
        while let Some((record, next)) = next_record(&bytes, end) {
            match record {
                Record::Header { code, runs } if records == 0 => {
                    check_header(path, &code, &runs, &options.code, &asked)?;
                }
                Record::Run { run, execution } => {
                    known.get_mut(run as usize).into_iter().for_each(|run| run.execution = Some(execution));
                }
                Record::Result { run, key, result } => {
                    known.get_mut(run as usize).into_iter().for_each(|run| {
                        run.results.insert(key, result.clone());
                    });
                }
                Record::Header { .. } => break,
            }
            records += 1;
            end = next;
        }
        let whole = if records == 0 { 0 } else { end };
        file.set_len(whole as u64).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let cut = (bytes.len() - whole.min(bytes.len())) as u64;
        if records == 0 {
            let header = Record::Header { code: options.code.clone(), runs: asked };
            file.write_all(&[MAGIC.as_slice(), &written(&header)].concat()).map_err(io)?;
        }
        let cut = if records == 0 { 0 } else { cut };
        Ok(Arc::new(Journal { path: path.to_owned(), file: Mutex::new(file), known: Mutex::new(known), cut }))
    }

    /// Bytes that were torn, or did not fit their CRC, and were cut off when it was opened.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Results that were in it when it was opened.
    pub fn len(&self) -> usize {
        super::lock(&self.known).iter().map(|run| run.results.len()).sum()
    }

    /// Whether there were none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ledger of the scenario with this index.
    pub fn ledger(self: &Arc<Self>, index: usize) -> Ledger {
        let known = super::lock(&self.known).get(index).cloned().unwrap_or_default();
        Ledger {
            journal: Some((Arc::clone(self), index as u32)),
            ..Ledger::knowing(known.execution, known.results)
        }
    }

    pub(super) fn begin(&self, run: u32, execution: Key) -> Result<(), HostError> {
        self.write(&Record::Run { run, execution })
    }

    pub(super) fn append(&self, run: u32, key: Key, result: &[u8]) -> Result<(), HostError> {
        self.write(&Record::Result { run, key, result: result.to_vec() })
    }

    fn write(&self, record: &Record) -> Result<(), HostError> {
        super::lock(&self.file)
            .write_all(&written(record))
            .map_err(|why| HostError(format!("cannot write results to {}: {why}", self.path.display())))
    }
}

/// A record with its length and CRC.
fn written(record: &Record) -> Vec<u8> {
    let body = postcard::to_stdvec(record).expect("a record has only numbers, text and bytes");
    let head = [(body.len() as u32).to_le_bytes(), crc32fast::hash(&body).to_le_bytes()];
    [head.as_flattened(), &body].concat()
}

/// The record at an offset and the offset behind it; `None` at the end, and where the file is torn.
fn next_record(bytes: &[u8], at: usize) -> Option<(Record, usize)> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (len, crc) = (word(at)? as usize, word(at + 4)?);
    let body = bytes.get(at + HEAD..at + HEAD + len).filter(|_| len <= LARGEST)?;
    let record = (crc32fast::hash(body) == crc).then(|| postcard::from_bytes(body).ok())??;
    Some((record, at + HEAD + len))
}

/// A run by name, and the hash of all that was asked for.
fn asked(scenario: &Scenario, options: &RunOptions) -> (String, Key) {
    let mutant = scenario.mutant.as_ref().map_or(String::new(), |mutant| format!(", mutant {mutant}"));
    let what = (
        &scenario.text,
        &scenario.kernel_override,
        &scenario.machine.modules,
        scenario.platform_override,
        &scenario.mutant,
        // As text: fields that are left out when they are not set do not suit postcard.
        serde_json::to_string(options).expect("options are numbers and words"),
    );
    (format!("{}{mutant}", scenario.name), super::key("asked", &what))
}

fn check_header(
    path: &Path,
    of: &str,
    runs: &[(String, Key)],
    code: &str,
    asked: &[(String, Key)],
) -> Result<(), JournalError> {
    if of != code {
        return Err(JournalError::Code { path: path.to_owned(), of: of.to_owned(), code: code.to_owned() });
    }
    let names = |runs: &[(String, Key)]| runs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let what = if names(runs) != names(asked) {
        format!("of {}, not of {}", names(runs).join(", "), names(asked).join(", "))
    } else if let Some(((name, _), _)) = runs.iter().zip(asked).find(|(was, is)| was.1 != is.1) {
        format!("{name} was run with other options, or has been edited since")
    } else {
        return Ok(());
    };
    Err(JournalError::Other { path: path.to_owned(), what })
}
