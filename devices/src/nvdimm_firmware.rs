//! What stands behind the methods by which a kernel reaches the firmware of NVDIMMs: _LSI, _LSR and _LSW (ACPI 6.4
//! 6.5.10) for label areas, and the _DSM of the NVDIMM root device (9.20.7) and of NVDIMMs.
//!
//! A mailbox of one page that only AML uses ([`crate::acpi`]): it puts a handle, an offset and a length into registers,
//! bytes into the window, and writes a command, which is done when the write is. The label areas and the media are the
//! board's.
//!
//! | offset | register |
//! |---|---|
//! | 0x000 | NFIT device handle |
//! | 0x004 | offset in the label area, bytes; behind the command [`command::INFORMATION`] its size |
//! | 0x008 | length, bytes; behind that command the most that one command moves, behind a function the length of its output |
//! | 0x00c | written: a command. [`command::BUS`], [`command::DIMM`] plus the number of a function is that function, its input in the window. Read: the status of the last one |
//! | 0x400 | window of [`WINDOW`] bytes |

use serde::{Deserialize, Serialize};

/// Bytes that one command moves at most.
pub const WINDOW: usize = 1024;
/// Offset of the window.
pub(crate) const WINDOW_OFFSET: u64 = 0x400;

pub(crate) mod command {
    pub const INFORMATION: u32 = 1;
    pub const READ: u32 = 2;
    pub const WRITE: u32 = 3;
    /// Functions of the root device's _DSM: this plus their numbers, up to 255.
    pub const BUS: u32 = 0x100;
    /// Functions of an NVDIMM's _DSM: this plus their numbers, up to 255.
    pub const DIMM: u32 = 0x200;
}

/// Status codes that the three methods share (ACPI 6.4 tables 6.82, 6.84, 6.86).
mod status {
    pub const SUCCESS: u32 = 0;
    pub const INVALID: u32 = 2;
}

/// What the mailbox wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirmwareRequest {
    /// Answered by [`NvdimmFirmware::answer`].
    Labels(LabelRequest),
    /// A function of the root device's _DSM. Answered by [`NvdimmFirmware::output`].
    Bus {
        /// Its number.
        function: u32,
        /// At most 1024 bytes.
        input: Vec<u8>,
    },
    /// A function of an NVDIMM's _DSM. Answered by [`NvdimmFirmware::output`].
    Dimm {
        /// NFIT device handle.
        handle: u32,
        /// Its number.
        function: u32,
        /// At most 1024 bytes.
        input: Vec<u8>,
    },
}

/// What the mailbox wants done with the label area of an NVDIMM. Answered by [`NvdimmFirmware::answer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelRequest {
    /// How large it is.
    Size {
        /// NFIT device handle.
        handle: u32,
    },
    /// Bytes of it.
    Read {
        /// NFIT device handle.
        handle: u32,
        /// Offset, bytes.
        offset: u32,
        /// At most 1024.
        length: u32,
    },
    /// Other bytes in it.
    Write {
        /// NFIT device handle.
        handle: u32,
        /// Offset, bytes.
        offset: u32,
        /// At most 1024 of them.
        bytes: Vec<u8>,
    },
}

/// How a [`LabelRequest`] ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LabelAnswer {
    /// The area has so many bytes.
    Size(u32),
    /// They are these.
    Bytes(Vec<u8>),
    /// They are durable.
    Written,
    /// There is no such NVDIMM, or the range lies outside of its label area.
    Invalid,
}

/// The mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvdimmFirmware {
    handle: u32,
    offset: u32,
    length: u32,
    status: u32,
    window: Vec<u8>,
}

impl Default for NvdimmFirmware {
    fn default() -> Self {
        NvdimmFirmware { handle: 0, offset: 0, length: 0, status: status::SUCCESS, window: vec![0; WINDOW] }
    }
}

impl NvdimmFirmware {
    /// Reads `size` bytes of the page. Registers are read whole.
    pub fn read(&self, offset: u64, size: usize) -> u64 {
        if let Some(bytes) = window(offset, size) {
            let bytes = self.window.get(bytes).unwrap_or_default();
            return bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        }
        match (offset, size) {
            (0x0, 4) => self.handle.into(),
            (0x4, 4) => self.offset.into(),
            (0x8, 4) => self.length.into(),
            (0xc, 4) => self.status.into(),
            _ => 0,
        }
    }

    /// Writes `size` bytes of the page. Registers are written whole.
    pub fn write(&mut self, offset: u64, size: usize, value: u64) -> Option<FirmwareRequest> {
        if let Some(bytes) = window(offset, size) {
            if let Some(bytes) = self.window.get_mut(bytes) {
                bytes.copy_from_slice(&value.to_le_bytes()[..size]);
            }
            return None;
        }
        let register = match (offset, size) {
            (0x0, 4) => &mut self.handle,
            (0x4, 4) => &mut self.offset,
            (0x8, 4) => &mut self.length,
            (0xc, 4) => return self.command(value as u32),
            _ => return None,
        };
        *register = value as u32;
        None
    }

    fn command(&mut self, command: u32) -> Option<FirmwareRequest> {
        let NvdimmFirmware { handle, offset, length, .. } = *self;
        self.status = status::INVALID;
        if command == command::INFORMATION {
            return Some(FirmwareRequest::Labels(LabelRequest::Size { handle }));
        }
        let window = self.window.get(..length as usize)?;
        match command {
            command::READ => Some(FirmwareRequest::Labels(LabelRequest::Read { handle, offset, length })),
            command::WRITE => {
                let bytes = window.to_vec();
                Some(FirmwareRequest::Labels(LabelRequest::Write { handle, offset, bytes }))
            }
            command::DIMM..0x300 => Some(FirmwareRequest::Dimm {
                handle,
                function: command - command::DIMM,
                input: window.to_vec(),
            }),
            command::BUS..command::DIMM => {
                Some(FirmwareRequest::Bus { function: command - command::BUS, input: window.to_vec() })
            }
            _ => None,
        }
    }

    /// The output of the last function, at most 1024 bytes of it.
    pub fn output(&mut self, output: &[u8]) {
        self.status = status::SUCCESS;
        self.length = output.len().min(WINDOW) as u32;
        self.window.fill(0);
        self.window.iter_mut().zip(output).for_each(|(to, from)| *to = *from);
    }

    /// The answer to the last request.
    pub fn answer(&mut self, answer: LabelAnswer) {
        self.status = status::SUCCESS;
        match answer {
            LabelAnswer::Size(size) => (self.offset, self.length) = (size, WINDOW as u32),
            LabelAnswer::Bytes(bytes) => {
                self.window.fill(0);
                self.window.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
            }
            LabelAnswer::Written => (),
            LabelAnswer::Invalid => self.status = status::INVALID,
        }
    }
}

/// The range of the window that an access means; `None` where it means registers.
fn window(offset: u64, size: usize) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(offset.checked_sub(WINDOW_OFFSET)?).ok()?;
    Some(start..start.saturating_add(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(firmware: &mut NvdimmFirmware, command: u32, offset: u32, length: u32) -> Option<FirmwareRequest> {
        firmware.write(0x0, 4, 7);
        firmware.write(0x4, 4, offset.into());
        firmware.write(0x8, 4, length.into());
        firmware.write(0xc, 4, command.into())
    }

    #[test]
    fn bytes_go_through_the_window() {
        let mut firmware = NvdimmFirmware::default();
        firmware.write(0x400, 8, 0x0807_0605_0403_0201);
        firmware.write(0x404, 2, 0xbbaa);
        let bytes = vec![1, 2, 3, 4, 0xaa, 0xbb];
        assert_eq!(
            ask(&mut firmware, command::WRITE, 96, 6),
            Some(FirmwareRequest::Labels(LabelRequest::Write { handle: 7, offset: 96, bytes }))
        );
        firmware.answer(LabelAnswer::Written);
        assert_eq!(firmware.read(0xc, 4), 0);
        assert_eq!(
            ask(&mut firmware, command::READ, 3, 2),
            Some(FirmwareRequest::Labels(LabelRequest::Read { handle: 7, offset: 3, length: 2 }))
        );
        firmware.answer(LabelAnswer::Bytes(vec![9, 8]));
        assert_eq!((firmware.read(0x400, 8), firmware.read(0xc, 4)), (0x0809, 0));
    }

    #[test]
    fn the_size_comes_back_in_the_registers() {
        let mut firmware = NvdimmFirmware::default();
        assert_eq!(
            ask(&mut firmware, command::INFORMATION, u32::MAX, u32::MAX),
            Some(FirmwareRequest::Labels(LabelRequest::Size { handle: 7 }))
        );
        firmware.answer(LabelAnswer::Size(128 << 10));
        assert_eq!(
            (firmware.read(0x4, 4), firmware.read(0x8, 4), firmware.read(0xc, 4)),
            (128 << 10, 1024, 0)
        );
    }

    #[test]
    fn functions_have_their_input_and_output_in_the_window() {
        let mut firmware = NvdimmFirmware::default();
        firmware.write(0x400, 4, 0x0403_0201);
        let asked = ask(&mut firmware, command::BUS + 3, 0, 3);
        assert_eq!(asked, Some(FirmwareRequest::Bus { function: 3, input: vec![1, 2, 3] }));
        firmware.output(&[9; 2000]);
        assert_eq!((firmware.read(0x8, 4), firmware.read(0xc, 4)), (1024, 0));
        firmware.output(&[7; 2]);
        assert_eq!((firmware.read(0x8, 4), firmware.read(0x400, 4)), (2, 0x0707));
        assert_eq!(ask(&mut firmware, command::BUS + 3, 0, 1025), None);
    }

    #[test]
    fn what_makes_no_sense_is_invalid() {
        let mut firmware = NvdimmFirmware::default();
        for (command, length) in [(command::READ, 1025), (command::WRITE, u32::MAX), (0, 1), (99, 1)] {
            assert_eq!(ask(&mut firmware, command, 0, length), None);
            assert_eq!(firmware.read(0xc, 4), 2, "command {command}, {length} bytes");
        }
        assert!(ask(&mut firmware, command::READ, 0, 1024).is_some());
        firmware.answer(LabelAnswer::Invalid);
        assert_eq!(firmware.read(0xc, 4), 2);
    }

    #[test]
    fn accesses_beyond_registers_and_window_do_nothing() {
        let mut firmware = NvdimmFirmware::default();
        for (offset, size) in [(0x7fc, 8), (0x800, 1), (0x3fc, 4), (0x0, 8), (0x2, 4), (u64::MAX, 8)] {
            assert_eq!(firmware.write(offset, size, u64::MAX), None);
            assert_eq!(firmware.read(offset, size), 0, "{size} bytes at {offset:#x}");
        }
        assert_eq!(firmware, NvdimmFirmware::default());
    }
}
