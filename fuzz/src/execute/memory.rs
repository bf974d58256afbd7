//! Guest memory whose every page stands alone between host pages that nobody may touch: an access that leaves its page
//! by a single byte ends the process.

#![allow(unsafe_code)] // mmap, and guest memory is written through raw pointers.

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// Guest pages, all of them zero at first.
pub struct GuardedMemory {
    base: *mut u8,
    pages: usize,
}

impl GuardedMemory {
    /// Maps `pages` pages.
    pub fn new(pages: usize) -> GuardedMemory {
        let bytes = (2 * pages + 1) * PAGE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing one.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED, "no host memory for the guest");
        let memory = GuardedMemory { base: base.cast(), pages };
        for page in 0..pages {
            let host = memory.page(page).cast();
            // SAFETY: the page lies in the mapping above.
            let done = unsafe { libc::mprotect(host, PAGE, libc::PROT_READ | libc::PROT_WRITE) };
            assert_eq!(done, 0, "a page of the guest cannot be made writable");
        }
        memory
    }

    /// Host address of a page.
    pub fn page(&self, page: usize) -> *mut u8 {
        assert!(page < self.pages);
        // SAFETY: page `n` stands at place 2n + 1 of the mapping, which has 2 * pages + 1.
        unsafe { self.base.add((2 * page + 1) * PAGE) }
    }

    /// A copy of a page.
    pub fn content(&self, page: usize) -> [u8; PAGE] {
        // SAFETY: the page is mapped readable, and nobody else has a reference to it.
        unsafe { self.page(page).cast::<[u8; PAGE]>().read() }
    }

    /// Replaces a page.
    pub fn set(&mut self, page: usize, content: &[u8; PAGE]) {
        // SAFETY: the page is mapped writable, and nobody else has a reference to it.
        unsafe { self.page(page).cast::<[u8; PAGE]>().write(*content) };
    }
}

impl Drop for GuardedMemory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`; the pointers that were given out end with the machine.
        unsafe { libc::munmap(self.base.cast(), (2 * self.pages + 1) * PAGE) };
    }
}
