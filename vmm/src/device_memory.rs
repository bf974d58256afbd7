//! Guest memory as the rust-vmm device crates take it: the RAM of the machine, all of whose writers leave their mark in
//! the undo log and with the processor, as [`Memory::write`] does.
//!
//! Those crates write through slices of host memory that they ask for, and say beforehand whether they will: that is
//! when the mark is left. Persistent memory is out of reach, as are device registers: a driver that puts rings or buffers
//! there gets an error, and so no device stores to persistent memory behind the back of the persistence domain.

#![allow(unsafe_code)] // Slices of guest memory are made of host addresses.

use std::cell::RefCell;
use std::iter::FusedIterator;

use vm_memory::guest_memory::{Error, GuestMemorySliceIterator, Result};
use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

use crate::memory::{Memory, split};

/// The machine's memory for the time of one call of a device.
pub(crate) struct DeviceMemory<'m>(RefCell<&'m mut Memory>);

impl<'m> DeviceMemory<'m> {
    pub(crate) fn new(memory: &'m mut Memory) -> DeviceMemory<'m> {
        DeviceMemory(RefCell::new(memory))
    }
}

impl GuestMemory for DeviceMemory<'_> {
    type PhysicalMemory = GuestMemoryMmap<()>;
    type Bitmap = ();

    fn check_range(&self, addr: GuestAddress, count: usize, _: Permissions) -> bool {
        self.0.borrow().is_ram(addr.0, count as u64)
    }

    fn get_slices<'a>(
        &'a self,
        addr: GuestAddress,
        count: usize,
        access: Permissions,
    ) -> Result<impl GuestMemorySliceIterator<'a, ()>> {
        let mut memory = self.0.borrow_mut();
        if !memory.is_ram(addr.0, count as u64) {
            return Err(Error::InvalidGuestAddress(addr));
        }
        if matches!(access, Permissions::Read | Permissions::ReadWrite) && memory.undecided.any(addr.0, count)
        {
            memory.read_by_device(addr.0);
            return Err(Error::InvalidGuestAddress(addr));
        }
        if access.has_write() {
            memory.device_writes(addr.0, count);
        }
        let slice = |piece: std::ops::Range<usize>| {
            let at = addr.0 + piece.start as u64;
            let (_, host) =
                memory.page(at / crate::PAGE).ok_or(Error::InvalidGuestAddress(GuestAddress(at)))?;
            // SAFETY: `host` is a whole page of a mapping that lives as long as the `Memory`, which `self` borrows for
            // longer than the slice lives; `split` cuts at page borders, so the piece lies in that page. Nobody else
            // uses it: the machine is stopped while a device is called.
            Ok(unsafe { VolatileSlice::new(host.add((at % crate::PAGE) as usize), piece.len()) })
        };
        let slices: Vec<_> = split(addr.0, count).map(slice).collect();
        Ok(Slices(slices.into_iter()))
    }
}

/// The pieces of a range, cut at page borders.
struct Slices<'a>(std::vec::IntoIter<Result<VolatileSlice<'a>>>);

impl<'a> Iterator for Slices<'a> {
    type Item = Result<VolatileSlice<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

impl FusedIterator for Slices<'_> {}

impl<'a> GuestMemorySliceIterator<'a, ()> for Slices<'a> {}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use vm_memory::Bytes;

    use super::*;
    use crate::PAGE;
    use crate::memory::BankKind;

    const PMEM: u64 = 1 << 32;

    fn memory() -> Memory {
        Memory::new(&[(0, 4 * PAGE, BankKind::Ram), (PMEM, 2 * PAGE, BankKind::Pmem)], None).unwrap()
    }

    #[test]
    fn what_a_device_writes_is_undone_and_told_to_the_processor() {
        let mut memory = memory();
        memory.write(PAGE - 2, &[1, 2, 3, 4]);
        memory.take_written();
        memory.push();
        let device = DeviceMemory::new(&mut memory);
        assert_eq!(device.read_obj::<u32>(GuestAddress(PAGE - 2)).unwrap(), 0x0403_0201);
        device.write_slice(&[9; 4], GuestAddress(PAGE - 2)).unwrap();
        device.store(7_u16, GuestAddress(2 * PAGE), Ordering::Release).unwrap();
        assert_eq!(memory.take_written(), [0, 1, 2]);
        assert_eq!(memory.dirty_pages(), 3);
        memory.pop();
        let mut bytes = [0; 4];
        memory.read(PAGE - 2, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4]);
    }

    #[test]
    fn undecided_bytes_are_kept_from_devices_and_told_to_the_board() {
        let mut memory = memory();
        let copied = PAGE + 8;
        memory.undecided.set(&[(PMEM, 0xff)]);
        memory.undecided.put(copied, &[PMEM, PMEM + 1]);
        let device = DeviceMemory::new(&mut memory);
        assert!(device.read_obj::<u16>(GuestAddress(copied - 2)).is_ok());
        assert!(device.read_obj::<u32>(GuestAddress(copied - 2)).is_err());
        assert_eq!(memory.take_read_by_device(), Some(copied - 2));
        assert_eq!(memory.take_read_by_device(), None, "it is told once");
        let device = DeviceMemory::new(&mut memory);
        device.write_slice(&[0; 2], GuestAddress(copied)).unwrap();
        assert!(device.read_obj::<u32>(GuestAddress(copied - 2)).is_ok(), "what a device writes is decided");
    }

    #[test]
    fn only_ram_is_in_reach() {
        let mut memory = memory();
        memory.push();
        let device = DeviceMemory::new(&mut memory);
        for addr in [4 * PAGE - 3, 4 * PAGE, PMEM, PMEM - 1, u64::MAX - 3, u64::MAX] {
            assert!(!device.check_range(GuestAddress(addr), 4, Permissions::Read), "{addr:#x}");
            assert!(device.write_slice(&[1; 4], GuestAddress(addr)).is_err(), "{addr:#x}");
            assert!(device.read_obj::<u32>(GuestAddress(addr)).is_err(), "{addr:#x}");
            assert!(
                device.load::<u32>(GuestAddress(addr & !3), Ordering::Acquire).is_err()
                    || addr & !3 < 4 * PAGE
            );
        }
        assert_eq!((memory.take_written(), memory.dirty_pages()), (vec![], 0));
    }
}
