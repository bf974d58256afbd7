//! A second copy of memory, for an engine that says which pages were written only after it was done: the undo log takes
//! from here what stood in a page before.
//!
//! A page of the copy is what memory held when it was last looked at: nobody has written the page since, but for who is
//! yet to say so.

#![allow(unsafe_code)] // As in `memory`: no slice may stand for what an engine writes.

use std::sync::Arc;

use vm_memory::MmapRegion;

use crate::Error;
use crate::memory::PAGE;

const PAGE_BYTES: usize = PAGE as usize;

/// The copy of one bank.
struct Copy {
    base: u64,
    original: Arc<MmapRegion>,
    copy: MmapRegion,
}

/// The copies of all banks.
pub(crate) struct Shadow {
    banks: Vec<Copy>,
    /// Pages that were or are being written by somebody who says so first.
    stale: Vec<u64>,
}

impl Shadow {
    /// Copies all of memory: base and mapping of every bank. Pages of zeros cost nothing.
    pub(crate) fn new<'a>(banks: impl Iterator<Item = (u64, &'a Arc<MmapRegion>)>) -> Result<Shadow, Error> {
        let copies = banks.map(|(base, original)| {
            let size = original.size();
            let copy = MmapRegion::new(size).map_err(|error| Error::HostMemory {
                size: size as u64,
                source: std::io::Error::other(error.to_string()),
            })?;
            Ok(Copy { base, original: original.clone(), copy })
        });
        let shadow = Shadow { banks: copies.collect::<Result<_, Error>>()?, stale: Vec::new() };
        for bank in &shadow.banks {
            for offset in (0..bank.copy.size()).step_by(PAGE_BYTES) {
                bank.take(offset, true);
            }
        }
        Ok(shadow)
    }

    /// `page` is about to be written, or has been, by somebody who says so.
    pub(crate) fn mark(&mut self, page: u64) {
        self.stale.push(page);
    }

    /// Takes over what marked pages and `pages` hold now.
    pub(crate) fn follow(&mut self, pages: &[u64]) {
        let marked = std::mem::take(&mut self.stale);
        for &page in marked.iter().chain(pages) {
            if let Some((bank, offset)) = self.find(page) {
                bank.take(offset, false);
            }
        }
    }

    /// What `page` held when it was last looked at.
    pub(crate) fn page(&self, page: u64) -> Option<&[u8]> {
        let (bank, offset) = self.find(page)?;
        // SAFETY: the whole page lies in the copy, which only `take` writes, and that not while `self` is borrowed here.
        Some(unsafe { std::slice::from_raw_parts(bank.copy.as_ptr().add(offset), PAGE_BYTES) })
    }

    fn find(&self, page: u64) -> Option<(&Copy, usize)> {
        let addr = page.checked_mul(PAGE)?;
        let inside = |bank: &&Copy| addr >= bank.base && addr - bank.base < bank.copy.size() as u64;
        self.banks.iter().find(inside).map(|bank| (bank, (addr - bank.base) as usize))
    }
}

impl Copy {
    /// Copies the page at `offset`, unless it is `fresh` (the copy is still zero) and holds nothing but zeros.
    fn take(&self, offset: usize, fresh: bool) {
        let mut page = [0; PAGE_BYTES];
        // SAFETY: both mappings are equally long and made of whole pages, of which this is one. The machine stands still.
        unsafe {
            std::ptr::copy_nonoverlapping(self.original.as_ptr().add(offset), page.as_mut_ptr(), PAGE_BYTES);
            if !fresh || page.iter().any(|&byte| byte != 0) {
                std::ptr::copy_nonoverlapping(page.as_ptr(), self.copy.as_ptr().add(offset), PAGE_BYTES);
            }
        }
    }
}
