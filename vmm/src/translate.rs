//! Guest-virtual to guest-physical addresses, as the host looks them up: no accessed bits, no permissions.
//!
//! SDM vol. 3, 4.5 "4-level paging".

use crate::memory::Memory;

const PRESENT: u64 = 1;
const HUGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Guest-physical address of a linear one, `None` where nothing is mapped.
pub(crate) fn translate(memory: &Memory, state: &cpu::State, linear: u64) -> Option<u64> {
    if state.cr0 >> 31 == 0 {
        return Some(linear);
    }
    if (linear as i64) << 16 >> 16 != linear as i64 {
        return None;
    }
    let mut table = state.cr3 & ADDRESS;
    for level in (0..4).rev() {
        let shift = 12 + 9 * level;
        let mut bytes = [0; 8];
        if !memory.read(table + (linear >> shift & 0x1ff) * 8, &mut bytes) {
            return None;
        }
        let entry = u64::from_le_bytes(bytes);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 0 || (level < 3 && entry & HUGE != 0) {
            let within = (1 << shift) - 1;
            return Some(entry & ADDRESS & !within | linear & within);
        }
        table = entry & ADDRESS;
    }
    None
}
