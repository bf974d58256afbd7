//! What a pmem region holds before anything else: a pattern that gives stale data away, and the info block that makes
//! the kernel treat a region without labels as an fsdax or a devdax namespace.

use crate::error::{Error, Result};

/// Where the data of an fsdax or devdax namespace begins, bytes from the start of the region.
pub const DATA_OFFSET: u64 = 2 << 20;

/// Alignment of such a namespace's start, data and end: SUBSECTION_SIZE and PMD_SIZE of x86-64.
const ALIGN: u64 = 2 << 20;

/// Where the info block is: nd_pfn_validate reads it at SZ_4K.
const INFO_BLOCK: usize = 4096;

/// The word at byte `offset` of a region (rounded down to 8) that nobody wrote yet: every word of a region differs from
/// every other, from zero, and from all words of `guest_protocol::Pattern`.
pub fn untouched_word(offset: u64) -> u64 {
    0xd1 << 56 | offset >> 3
}

/// A region of `size` bytes that nobody wrote yet.
pub(crate) fn untouched(size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    for (word, offset) in bytes.chunks_exact_mut(8).zip((0..).step_by(8)) {
        word.copy_from_slice(&untouched_word(offset).to_le_bytes());
    }
    bytes
}

/// Which of the two an info block makes: its signature (drivers/nvdimm/pfn.h), and a UUID, any but zero.
pub(crate) type Kind = (&'static [u8; 16], &'static [u8; 16]);
pub(crate) const FSDAX: Kind = (b"NVDIMM_PFN_INFO\0", b"pmemsim fsdax ns");
pub(crate) const DEVDAX: Kind = (b"NVDIMM_DAX_INFO\0", b"pmemsim devdaxns");

/// Whether an fsdax or devdax namespace can have this many bytes.
pub(crate) fn check_size(size: u64) -> Result<()> {
    if size.is_multiple_of(ALIGN) && size >= 2 * ALIGN {
        return Ok(());
    }
    Err(Error::BadImage {
        why: format!(
            "an fsdax or devdax namespace is a multiple of 2 MiB and at least 4 MiB, not {size} bytes"
        ),
    })
}

/// Writes the info block of a namespace with its page map in RAM: struct nd_pfn_sb, drivers/nvdimm/pfn.h, as
/// nd_pfn_init fills it (version 1.4).
pub(crate) fn write_info_block(region: &mut [u8], (signature, uuid): Kind) -> Result<()> {
    let size = region.len() as u64;
    check_size(size)?;
    let block = &mut region[INFO_BLOCK..2 * INFO_BLOCK];
    block.fill(0);
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, signature);
    put(16, uuid);
    put(52, &1u16.to_le_bytes()); // version_major
    put(54, &4u16.to_le_bytes()); // version_minor
    put(56, &DATA_OFFSET.to_le_bytes()); // dataoff
    put(64, &((size - DATA_OFFSET) / 4096).to_le_bytes()); // npfns
    put(72, &1u32.to_le_bytes()); // mode: PFN_MODE_RAM
    put(84, &(ALIGN as u32).to_le_bytes()); // align
    put(88, &4096u32.to_le_bytes()); // page_size
    put(92, &64u16.to_le_bytes()); // page_struct_size
    let checksum = fletcher64(block);
    block[4088..].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

/// nd_fletcher64, drivers/nvdimm/core.c: sums of 32-bit words.
pub(crate) fn fletcher64(bytes: &[u8]) -> u64 {
    let (mut low, mut high) = (0u32, 0u64);
    for word in bytes.chunks_exact(4) {
        low = low.wrapping_add(u32::from_le_bytes(word.try_into().expect("4 bytes")));
        high = high.wrapping_add(u64::from(low));
    }
    high << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fletcher64_counts_position() {
        assert_eq!(fletcher64(&[]), 0);
        // Words 1, 2: low 1 then 3, high 1 then 4.
        assert_eq!(fletcher64(&[1, 0, 0, 0, 2, 0, 0, 0]), 4 << 32 | 3);
        assert_eq!(fletcher64(&[2, 0, 0, 0, 1, 0, 0, 0]), 5 << 32 | 3);
        assert_eq!(fletcher64(&[0xff; 8]), 0xffff_fffd_ffff_fffe);
    }

    #[test]
    fn the_info_block_has_the_kernels_layout() {
        let mut region = untouched(64 << 20);
        write_info_block(&mut region, FSDAX).unwrap();
        let block = &region[4096..8192];
        assert_eq!(&block[..16], b"NVDIMM_PFN_INFO\0");
        assert_eq!(block[56..64], (2u64 << 20).to_le_bytes());
        assert_eq!(block[64..72], (62u64 * 256).to_le_bytes());
        let mut without = block.to_vec();
        without[4088..].fill(0);
        assert_eq!(block[4088..], fletcher64(&without).to_le_bytes());
    }

    #[test]
    fn odd_sizes_are_refused() {
        for size in [0, 4096, 2 << 20, (64 << 20) + 4096] {
            assert!(write_info_block(&mut untouched(size), DEVDAX).is_err(), "{size}");
        }
    }

    #[test]
    fn untouched_words_are_unlike_anything_stored() {
        use guest_protocol::Pattern;
        for offset in [0, 8, 4096, 1 << 40] {
            let word = untouched_word(offset);
            for pattern in [Pattern::Zero, Pattern::Seq(0), Pattern::Seq(1), Pattern::Byte(0xd1)] {
                assert_ne!(word, pattern.word(offset));
            }
        }
        assert_ne!(untouched_word(8), untouched_word(16));
    }
}
