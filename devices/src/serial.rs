//! The serial console: vm-superio's 16550.
//!
//! vm-superio tells of interrupts by a trigger and writes to a sink; here the trigger does nothing and the line's
//! level is computed from the registers, as on the chip, and the byte that was written is returned.

use std::convert::Infallible;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial as Uart, Trigger};

/// Size of the receive queue in bytes, as vm-superio has it.
const RECEIVE_QUEUE: usize = 64;
/// Interrupt enable register: received data available, transmitter empty.
const ENABLE_RECEIVE: u8 = 1 << 0;
const ENABLE_TRANSMIT: u8 = 1 << 1;
/// The same two conditions as vm-superio keeps them in its interrupt identification.
const IDENTIFY_RECEIVE: u8 = 1 << 2;
const IDENTIFY_TRANSMIT: u8 = 1 << 1;
/// Modem control register: loop back.
const LOOP_BACK: u8 = 1 << 4;

/// 16550A at [`crate::map::port::SERIAL`], IRQ 4. Output leaves at once, so it is never part of the state.
#[derive(Debug)]
pub struct Serial {
    uart: Uart<NoTrigger, NoEvents, Vec<u8>>,
}

#[derive(Debug)]
struct NoTrigger;

impl Trigger for NoTrigger {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        Ok(())
    }
}

impl Serial {
    /// At power-on.
    pub fn new() -> Serial {
        Serial { uart: Uart::new(NoTrigger, Vec::new()) }
    }

    /// IN of register `offset` (0 to 7).
    pub fn read(&mut self, offset: u8) -> u8 {
        self.uart.read(offset)
    }

    /// OUT to register `offset` (0 to 7). Returns the byte that left on the wire, if one did.
    pub fn write(&mut self, offset: u8, value: u8) -> Option<u8> {
        // The sink is a Vec and the trigger infallible: there is no error to tell.
        let _ = self.uart.write(offset, value);
        self.uart.writer_mut().pop()
    }

    /// Level of the interrupt line: feed it to [`crate::IoApic::set_irq`] after every access.
    pub fn irq(&self) -> bool {
        let state = self.uart.state();
        let waits = |identify, enable| {
            state.interrupt_identification & identify != 0 && state.interrupt_enable & enable != 0
        };
        waits(IDENTIFY_RECEIVE, ENABLE_RECEIVE) || waits(IDENTIFY_TRANSMIT, ENABLE_TRANSMIT)
    }

    /// Whether the guest has asked to be interrupted by what arrives.
    pub fn listens(&self) -> bool {
        let state = self.uart.state();
        state.interrupt_enable & ENABLE_RECEIVE != 0 && state.modem_control & LOOP_BACK == 0
    }

    /// Bytes arriving on the wire. Returns how many fitted into the receive queue: none while the guest loops the
    /// line back.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        if self.uart.state().modem_control & LOOP_BACK != 0 {
            return 0;
        }
        self.uart.enqueue_raw_bytes(bytes).unwrap_or(0)
    }

    fn from_state(state: &SerialState) -> Option<Serial> {
        let uart = Uart::from_state(state, NoTrigger, NoEvents, Vec::new()).ok()?;
        Some(Serial { uart })
    }
}

impl Default for Serial {
    fn default() -> Self {
        Serial::new()
    }
}

impl Clone for Serial {
    fn clone(&self) -> Self {
        Serial::from_state(&self.uart.state()).expect("the queue of a live device fits into another one")
    }
}

/// What a snapshot holds: vm-superio's state, which has no serde of its own.
#[derive(Serialize, Deserialize)]
struct Registers {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    received: Vec<u8>,
}

impl Serialize for Serial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = self.uart.state();
        let registers = Registers {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            received: state.in_buffer,
        };
        registers.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Serial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Serial, D::Error> {
        let registers = Registers::deserialize(deserializer)?;
        let state = SerialState {
            baud_divisor_low: registers.divisor[0],
            baud_divisor_high: registers.divisor[1],
            interrupt_enable: registers.interrupt_enable,
            interrupt_identification: registers.interrupt_identification,
            line_control: registers.line_control,
            line_status: registers.line_status,
            modem_control: registers.modem_control,
            modem_status: registers.modem_status,
            scratch: registers.scratch,
            in_buffer: registers.received,
        };
        let too_long = || {
            let message = format!("serial receive queue of more than {RECEIVE_QUEUE} bytes");
            <D::Error as serde::de::Error>::custom(message)
        };
        Serial::from_state(&state).ok_or_else(too_long)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const INTERRUPT_ENABLE: u8 = 1;
    const INTERRUPT_IDENTIFICATION: u8 = 2;
    const MODEM_CONTROL: u8 = 4;
    const LINE_STATUS: u8 = 5;
    const MODEM_STATUS: u8 = 6;
    const SCRATCH: u8 = 7;

    #[test]
    fn bytes_leave_one_by_one() {
        let mut serial = Serial::new();
        assert_eq!(serial.write(DATA, b'a'), Some(b'a'));
        assert_eq!(serial.write(DATA, b'b'), Some(b'b'));
        assert_eq!(serial.write(SCRATCH, 0x5a), None);
        assert_eq!(serial.read(SCRATCH), 0x5a);
        assert_eq!(serial.read(LINE_STATUS) & 0x60, 0x60, "always ready to send");
    }

    #[test]
    fn enabling_the_transmit_interrupt_raises_it() {
        let mut serial = Serial::new();
        assert!(!serial.irq());
        serial.write(INTERRUPT_ENABLE, ENABLE_TRANSMIT);
        assert!(serial.irq());
        assert_eq!(serial.read(INTERRUPT_IDENTIFICATION), 0xc2, "16550A, transmitter empty");
        assert!(!serial.irq());
        assert_eq!(serial.read(INTERRUPT_IDENTIFICATION), 0xc1, "nothing waits");
        serial.write(DATA, b'x');
        assert!(serial.irq(), "empty again");
        serial.write(INTERRUPT_ENABLE, 0);
        assert!(!serial.irq());
    }

    #[test]
    fn received_bytes_interrupt_until_read() {
        let mut serial = Serial::new();
        assert!(!serial.listens());
        serial.write(INTERRUPT_ENABLE, ENABLE_RECEIVE);
        assert!(serial.listens());
        assert_eq!(serial.receive(b"ok"), 2);
        assert!(serial.irq());
        assert_eq!((serial.read(DATA), serial.read(DATA)), (b'o', b'k'));
        assert!(!serial.irq());
        assert_eq!(serial.read(LINE_STATUS) & 1, 0);
        assert_eq!(serial.receive(&[0; 100]), RECEIVE_QUEUE);
        assert_eq!(serial.receive(b"x"), 0);
    }

    #[test]
    fn loop_back_shows_modem_control_in_modem_status() {
        let mut serial = Serial::new();
        serial.write(MODEM_CONTROL, LOOP_BACK | 0x0a);
        assert_eq!(serial.read(MODEM_STATUS) & 0xf0, 0x90, "as serial8250 autoconfig expects");
        assert_eq!(serial.write(DATA, b'q'), None);
        assert_eq!(serial.read(DATA), b'q');
        serial.write(INTERRUPT_ENABLE, ENABLE_RECEIVE);
        assert!(!serial.listens());
        assert_eq!(serial.receive(b"x"), 0);
    }

    #[test]
    fn a_snapshot_goes_on_as_the_original() {
        let mut serial = Serial::new();
        serial.write(INTERRUPT_ENABLE, ENABLE_RECEIVE | ENABLE_TRANSMIT);
        serial.receive(b"abc");
        let bytes = postcard::to_stdvec(&serial).unwrap();
        let mut restored: Serial = postcard::from_bytes(&bytes).unwrap();
        let mut cloned = serial.clone();
        for offset in [2, 0, 5, 0, 0, 5, 2, 1] {
            let expected = serial.read(offset);
            assert_eq!((restored.read(offset), cloned.read(offset)), (expected, expected));
            assert_eq!((restored.irq(), cloned.irq()), (serial.irq(), serial.irq()));
        }
    }
}
