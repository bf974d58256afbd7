//! The serial line, and the way out.

use core::arch::asm;
use core::fmt;

const SERIAL: u16 = 0x3f8;
const LINE_STATUS: u16 = SERIAL + 5;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
const DEBUG_EXIT: u16 = 0xf4;
const FW_CFG_SELECTOR: u16 = 0x510;
const FW_CFG_DATA: u16 = 0x511;

/// IN of a byte.
pub fn read(port: u16) -> u8 {
    let value;
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack)) };
    value
}

/// OUT of a byte.
pub fn write(port: u16, value: u8) {
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack)) };
}

/// Up to 8 bytes of an item of QEMU's firmware configuration.
pub fn firmware_item(key: u16) -> [u8; 8] {
    unsafe { asm!("out dx, ax", in("dx") FW_CFG_SELECTOR, in("ax") key, options(nomem, nostack)) };
    core::array::from_fn(|_| read(FW_CFG_DATA))
}

/// Ends the run with `2 * status + 1`; halts where there is no debug-exit port.
pub fn exit(status: u32) -> ! {
    unsafe { asm!("out dx, eax", in("dx") DEBUG_EXIT, in("eax") status, options(nomem, nostack)) };
    loop {
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// The serial line as a sink for text.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while read(LINE_STATUS) & TRANSMITTER_EMPTY == 0 {}
            write(SERIAL, byte);
        }
        Ok(())
    }
}

/// Prints on the serial line.
macro_rules! print {
    ($($argument:tt)*) => {{
        // The line takes everything.
        let _ = core::fmt::Write::write_fmt(&mut $crate::ports::Serial, format_args!($($argument)*));
    }};
}
pub(crate) use print;
