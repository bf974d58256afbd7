//! Two ports through which a guest speaks to whoever started it.

use crate::map::port;

/// Value of an `OUT` of `size` bytes to the control port, or `None` when it is not a 32-bit OUT to that port: other
/// widths are ignored.
pub fn control_call(port: u16, size: usize, value: u32) -> Option<u32> {
    (port == port::CONTROL && size == 4).then_some(value)
}

/// Value of an `OUT` of `size` bytes to the debug exit port. The exit status is by convention `2 * value + 1`.
pub fn debug_exit(port: u16, size: usize, value: u32) -> Option<u32> {
    (port == port::DEBUG_EXIT).then_some(match size {
        1 => value & 0xff,
        2 => value & 0xffff,
        _ => value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_port_takes_32_bit_writes_only() {
        assert_eq!(control_call(0x0d50, 4, 7), Some(7));
        assert_eq!(control_call(0x0d50, 2, 7), None);
        assert_eq!(control_call(0x0d51, 4, 7), None);
    }

    #[test]
    fn debug_exit_takes_what_the_width_carries() {
        assert_eq!(debug_exit(0xf4, 1, 0x1234_5678), Some(0x78));
        assert_eq!(debug_exit(0xf4, 4, 0x1234_5678), Some(0x1234_5678));
        assert_eq!(debug_exit(0xf5, 1, 0), None);
    }
}
