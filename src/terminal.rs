//! The terminal as a serial console: what is typed goes to the guest as it is, and Ctrl-A begins a command to pmemsim.

use std::io::{IsTerminal, Read};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use rustix::termios::{InputModes, LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::say::note;

/// Ctrl-A.
const ESCAPE: u8 = 1;
/// Said to whoever asks for help.
const HELP: &str = "Ctrl-A x  ends the machine\r
Ctrl-A p  cuts the power, and boots again with what has survived\r
Ctrl-A Ctrl-A  sends Ctrl-A to the guest\r";

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// For the guest.
    Bytes(Vec<u8>),
    /// End the machine.
    Quit,
    /// Cut the power.
    PowerCut,
    /// Say what can be typed.
    Help,
}

/// Standard input. On a terminal every key comes at once, Ctrl-C too, until this is dropped; elsewhere bytes come as they are.
pub struct Input {
    receiver: mpsc::Receiver<Vec<u8>>,
    /// What a terminal was set to before.
    before: Option<Termios>,
    escaped: bool,
    ended: bool,
}

impl Input {
    /// Begins to read.
    pub fn open() -> Input {
        let before = if std::io::stdin().is_terminal() { set_raw().ok() } else { None };
        if before.is_some() {
            note!("pmemsim: Ctrl-A h says what can be typed; Ctrl-A x ends the machine");
        }
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 256];
            while let Ok(len @ 1..) = std::io::stdin().read(&mut buffer) {
                if sender.send(buffer[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        Input { receiver, before, escaped: false, ended: false }
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.before.is_some()
    }

    /// What was typed since the last call.
    pub fn typed(&mut self) -> Vec<Key> {
        let mut keys = Vec::new();
        loop {
            match self.receiver.try_recv() {
                Ok(bytes) => keys.extend(self.keys(&bytes)),
                Err(why) => {
                    self.ended |= why == TryRecvError::Disconnected;
                    return keys;
                }
            }
        }
    }

    /// Whether nothing more will be typed than what was returned.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Waits for something to be typed. `None` when nothing ever will be.
    pub fn wait(&mut self, longest: Duration) -> Option<Vec<Key>> {
        match self.receiver.recv_timeout(longest) {
            Ok(bytes) => Some(self.keys(&bytes)),
            Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
            Err(RecvTimeoutError::Disconnected) => {
                self.ended = true;
                None
            }
        }
    }

    fn keys(&mut self, bytes: &[u8]) -> Vec<Key> {
        if self.is_terminal() { split(&mut self.escaped, bytes) } else { vec![Key::Bytes(bytes.to_vec())] }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Every key comes at once and as it is. What comes out is still processed: lines of our own look right. Returns what was
/// set before.
fn set_raw() -> rustix::io::Result<Termios> {
    let before = tcgetattr(std::io::stdin())?;
    let mut raw = before.clone();
    raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
    raw.input_modes.remove(InputModes::ICRNL | InputModes::IXON);
    tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
    Ok(before)
}

/// Says what can be typed.
pub fn help() {
    note!("\r\n{HELP}");
}

/// Tells commands from what is for the guest.
fn split(escaped: &mut bool, bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut plain = Vec::new();
    for &byte in bytes {
        if !std::mem::take(escaped) {
            match byte {
                ESCAPE => *escaped = true,
                _ => plain.push(byte),
            }
            continue;
        }
        let key = match byte {
            b'x' => Key::Quit,
            b'p' => Key::PowerCut,
            ESCAPE => {
                plain.push(ESCAPE);
                continue;
            }
            _ => Key::Help,
        };
        if !plain.is_empty() {
            keys.push(Key::Bytes(std::mem::take(&mut plain)));
        }
        keys.push(key);
    }
    if !plain.is_empty() {
        keys.push(Key::Bytes(plain));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctrl_a_begins_a_command_also_across_reads() {
        let mut escaped = false;
        assert_eq!(split(&mut escaped, b"ls\n\x01"), [Key::Bytes(b"ls\n".to_vec())]);
        assert_eq!(split(&mut escaped, b"pls"), [Key::PowerCut, Key::Bytes(b"ls".to_vec())]);
        assert_eq!(split(&mut escaped, b"\x01\x01a"), [Key::Bytes(b"\x01a".to_vec())]);
        assert_eq!(split(&mut escaped, b"\x03\x01x"), [Key::Bytes(vec![3]), Key::Quit]);
        assert_eq!(split(&mut escaped, b"\x01?"), [Key::Help]);
    }
}
