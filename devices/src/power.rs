//! Power off and reset: ACPI sleep registers, the reset control register, the keyboard controller's reset line.

use serde::{Deserialize, Serialize};

use crate::map::port;

/// SLP_TYP of the soft-off state, as \_S5 in the DSDT says.
pub(crate) const SLEEP_TYPE_S5: u8 = 5;
/// Value that the FADT tells to write to the reset register: full reset.
pub(crate) const RESET_VALUE: u8 = 0x06;

/// SLP_EN of the sleep control register (ACPI 6.4 table 4.24), and of the upper byte of the PM1 control register.
const SLEEP_ENABLE: u8 = 1 << 5;
/// SLP_TYPx of both.
const SLEEP_TYPE_SHIFT: u8 = 2;
/// SLP_TYP of the soft-off state in the PM1 control register of QEMU's PC.
const PM1_SLEEP_TYPE_S5: u8 = 0;
/// Bit of port 0xcf9 whose setting resets.
const RESET_CPU: u8 = 1 << 2;
/// Keyboard controller command that pulses the reset line: bit 0 of the output port low.
const PULSE_RESET: u8 = 0xfe;

/// What the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerEvent {
    /// The machine goes off, orderly (S5).
    PowerOff,
    /// The machine restarts.
    Reset,
}

/// Ports 0x64, 0x600, 0x601, 0x605 and 0xcf9.
///
/// The sleep registers are those of hardware-reduced ACPI (ACPI 6.4 4.8.3.7): two bytes, no SCI, no PM timer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    reset_control: u8,
}

impl Power {
    /// IN of one byte. The keyboard controller is absent and reads all ones.
    pub fn read(&self, port: u16) -> u8 {
        match port {
            port::SLEEP_CONTROL | port::SLEEP_STATUS => 0,
            port::RESET => self.reset_control,
            _ => 0xff,
        }
    }

    /// OUT of one byte.
    pub fn write(&mut self, port: u16, value: u8) -> Option<PowerEvent> {
        match port {
            port::SLEEP_CONTROL => {
                let sleeps = value & SLEEP_ENABLE != 0 && (value >> SLEEP_TYPE_SHIFT) & 7 == SLEEP_TYPE_S5;
                sleeps.then_some(PowerEvent::PowerOff)
            }
            port::PM1_CONTROL_HIGH => {
                let sleep_type = value >> SLEEP_TYPE_SHIFT & 7;
                (value & SLEEP_ENABLE != 0 && sleep_type == PM1_SLEEP_TYPE_S5).then_some(PowerEvent::PowerOff)
            }
            port::RESET => {
                let rises = value & !self.reset_control & RESET_CPU != 0;
                self.reset_control = value & 0x0e & !RESET_CPU;
                rises.then_some(PowerEvent::Reset)
            }
            port::KEYBOARD if value == PULSE_RESET => Some(PowerEvent::Reset),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_enable_with_type_five_powers_off() {
        let mut power = Power::default();
        assert_eq!(power.write(0x600, 5 << 2 | 1 << 5), Some(PowerEvent::PowerOff));
        assert_eq!(power.write(0x600, 5 << 2), None);
        assert_eq!(power.write(0x600, 3 << 2 | 1 << 5), None);
        assert_eq!(power.write(0x601, 0x80), None);
    }

    #[test]
    fn the_power_management_register_of_a_pc_powers_off_too() {
        let mut power = Power::default();
        assert_eq!(power.write(0x605, 0x20), Some(PowerEvent::PowerOff));
        assert_eq!(power.write(0x605, 0x00), None);
        assert_eq!(power.write(0x605, 0x24), None);
    }

    #[test]
    fn each_way_of_resetting_resets() {
        let mut power = Power::default();
        assert_eq!(power.write(0xcf9, 0x02), None);
        assert_eq!(power.read(0xcf9), 0x02);
        assert_eq!(power.write(0xcf9, 0x06), Some(PowerEvent::Reset));
        assert_eq!(Power::default().write(0xcf9, RESET_VALUE), Some(PowerEvent::Reset));
        assert_eq!(power.write(0x64, 0xfe), Some(PowerEvent::Reset));
        assert_eq!(power.write(0x64, 0xd1), None);
        assert_eq!(power.read(0x64), 0xff);
    }
}
