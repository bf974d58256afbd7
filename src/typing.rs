//! What was typed, until the guest takes it: the serial port holds 64 bytes.

use std::collections::VecDeque;

use vmm::Machine;

/// Ctrl-D: to a terminal, the end of what is typed.
const END: u8 = 4;

/// Bytes that wait for the guest.
pub struct Typing {
    waiting: VecDeque<u8>,
    /// Whether they wait until it asks for interrupts: Linux throws away what comes before it has opened the port
    /// (serial8250_do_startup reads the receive register to clear it).
    patient: bool,
    last: u8,
    /// Whether nothing more will come, and whether the guest was told so.
    ended: bool,
    told: bool,
}

impl Typing {
    /// To Linux, or to a payload that may look at the port without any interrupt.
    pub fn new(linux: bool) -> Typing {
        Typing { waiting: VecDeque::new(), patient: linux, last: b'\n', ended: false, told: false }
    }

    /// More was typed.
    pub fn add(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Nothing more will be typed.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The machine boots again: what waits is for that one, which has to be told the end, too.
    pub fn restart(&mut self) {
        (self.last, self.told) = (b'\n', false);
    }

    /// Linux is told the end as by a terminal: once at the beginning of a line, or else twice.
    fn tell_end(&mut self) {
        if self.ended && !self.told && self.patient {
            let times = if self.last == b'\n' { 1 } else { 2 };
            self.waiting.extend(std::iter::repeat_n(END, times));
            self.told = true;
        }
    }

    /// Whether it was said that nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing waits any more.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives the guest what it takes now. Whether that is anything.
    pub fn feed(&mut self, machine: &mut Machine) -> bool {
        self.tell_end();
        if self.waiting.is_empty() || self.patient && !machine.console_listens() {
            return false;
        }
        let taken = machine.type_console(self.waiting.make_contiguous());
        self.waiting.drain(..taken);
        taken > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(linux: bool, text: &str) -> Vec<u8> {
        let mut typing = Typing::new(linux);
        typing.add(text.as_bytes());
        typing.tell_end();
        typing.end();
        typing.tell_end();
        typing.tell_end();
        typing.waiting.into()
    }

    #[test]
    fn the_end_is_told_to_linux_as_a_terminal_does() {
        assert_eq!(typed(true, ""), b"\x04");
        assert_eq!(typed(true, "ls\n"), b"ls\n\x04");
        assert_eq!(typed(true, "ls"), b"ls\x04\x04");
        assert_eq!(typed(false, "ls\n"), b"ls\n");
    }

    #[test]
    fn the_next_machine_is_told_the_end_too() {
        let mut typing = Typing::new(true);
        typing.add(b"half a line");
        typing.end();
        typing.waiting.clear();
        typing.restart();
        typing.tell_end();
        assert_eq!(typing.waiting, b"\x04");
    }
}
