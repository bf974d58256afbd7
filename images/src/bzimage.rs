//! The ELF kernel inside a bzImage: Documentation/x86/boot.rst, fields setup_sects, header, version,
//! payload_offset and payload_length.

use std::io::Read;

use crate::error::{Error, Result};

/// Largest kernel or module that is unpacked: a damaged length must not fill the memory of the host.
const LARGEST: usize = 1 << 30;

const ELF: &[u8] = b"\x7fELF\x02\x01";

/// The ELF vmlinux in `file`, which is a vmlinux or a bzImage. `what` names the file in errors.
pub(crate) fn vmlinux(what: &str, file: Vec<u8>) -> Result<Vec<u8>> {
    let bad = |why: String| Error::BadKernel { what: what.into(), why };
    let elf = if file.starts_with(ELF) { file } else { unpack(payload(&file).map_err(bad)?).map_err(bad)? };
    check(&elf).map_err(bad)?;
    Ok(elf)
}

/// The compressed payload of a bzImage.
fn payload(file: &[u8]) -> Result<&[u8], String> {
    let field = |at: usize| -> Option<usize> {
        file.get(at..at + 4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("4 bytes")) as usize)
    };
    if file.get(0x202..0x206) != Some(b"HdrS") {
        return Err("it is neither an x86-64 ELF file nor a bzImage".into());
    }
    let version = field(0x206).ok_or("it ends inside its header")? & 0xffff;
    if version < 0x208 {
        return Err(format!("its boot protocol {version:#x} is older than 2.08 (Linux 2.6.26)"));
    }
    // 0 means 4, for very old boot loaders.
    let sectors = match file[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let (offset, length) = field(0x248).zip(field(0x24c)).ok_or("it ends inside its header")?;
    let start = (sectors + 1) * 512 + offset;
    file.get(start..start + length).ok_or_else(|| {
        format!(
            "it is truncated: the kernel inside ends at byte {}, the file at {}",
            start + length,
            file.len()
        )
    })
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    let unpacked = match payload {
        [0x1f, 0x8b, ..] => gzip(payload),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => xz(payload),
        [0x02, 0x21, 0x4c, 0x18, ..] => lz4_legacy(&payload[4..]),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => zstd(payload),
        [b'B', b'Z', b'h', ..] | [0x5d, 0, 0, ..] | [0x89, b'L', b'Z', b'O', ..] => Err(
            "it is compressed with bzip2, lzma or lzo; gzip, xz, lz4 and zstd are known. Give its vmlinux"
                .into(),
        ),
        [0x7f, b'E', b'L', b'F', ..] => Ok(payload.to_vec()),
        _ => Err("the payload is compressed in an unknown way".into()),
    }?;
    if unpacked.starts_with(ELF) { Ok(unpacked) } else { Err("the payload is no x86-64 ELF file".into()) }
}

pub(crate) fn gzip(payload: &[u8]) -> Result<Vec<u8>, String> {
    read_all(flate2::read::GzDecoder::new(payload))
}

pub(crate) fn xz(payload: &[u8]) -> Result<Vec<u8>, String> {
    // The kernel's build appends the unpacked size (4 bytes): one stream, not a file of several.
    let stream =
        liblzma::stream::Stream::new_stream_decoder(LARGEST as u64, 0).map_err(|error| error.to_string())?;
    read_all(liblzma::read::XzDecoder::new_stream(payload, stream))
}

pub(crate) fn zstd(payload: &[u8]) -> Result<Vec<u8>, String> {
    read_all(ruzstd::decoding::StreamingDecoder::new(payload).map_err(|error| error.to_string())?)
}

/// The legacy frame of `lz4 -l`: blocks of at most 8 MiB when unpacked, each after its packed size. The build appends
/// the unpacked size of all (4 bytes).
fn lz4_legacy(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut all = Vec::new();
    while rest.len() > 4 {
        let (size, blocks) = rest.split_at(4);
        let size = u32::from_le_bytes(size.try_into().expect("4 bytes")) as usize;
        let block = blocks.get(..size).ok_or("it is truncated: its last LZ4 block is not whole")?;
        let unpacked =
            lz4_flex::block::decompress(block, 8 << 20).map_err(|error| format!("it is damaged: {error}"))?;
        all.extend(unpacked);
        if all.len() > LARGEST {
            return Err("the kernel inside is larger than 1 GiB".into());
        }
        rest = &blocks[size..];
    }
    Ok(all)
}

fn read_all(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader
        .take(LARGEST as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("it is truncated or damaged: {error}"))?;
    Ok(bytes)
}

/// Whether the ELF file is whole and for x86-64.
fn check(elf: &[u8]) -> Result<(), String> {
    use object::Endianness;
    use object::read::elf::{FileHeader, ProgramHeader};
    let damaged = |error: object::Error| format!("it is damaged: {error}");
    let header = object::elf::FileHeader64::<Endianness>::parse(elf).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if header.e_machine(endian) != object::elf::EM_X86_64 {
        return Err("it is not for x86-64".into());
    }
    let segments = header.program_headers(endian, elf).map_err(damaged)?;
    let mut loadable =
        segments.iter().filter(|segment| segment.p_type(endian) == object::elf::PT_LOAD).peekable();
    if loadable.peek().is_none() {
        return Err("it has nothing to load (an object file, not a linked kernel?)".into());
    }
    for segment in loadable {
        segment
            .data(endian, elf)
            .map_err(|()| "it is truncated: a segment lies behind the end of the file".to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// An ELF file with one loadable segment of `size` bytes.
    fn elf(size: usize) -> Vec<u8> {
        let mut elf = vec![0; 64 + 56];
        elf[..6].copy_from_slice(ELF);
        elf[6] = 1;
        elf[16..18].copy_from_slice(&2u16.to_le_bytes());
        elf[18..20].copy_from_slice(&62u16.to_le_bytes());
        elf[20..24].copy_from_slice(&1u32.to_le_bytes());
        elf[32..40].copy_from_slice(&64u64.to_le_bytes());
        elf[52..58].copy_from_slice(&[64, 0, 56, 0, 1, 0]);
        elf[64..68].copy_from_slice(&1u32.to_le_bytes());
        elf[72..80].copy_from_slice(&120u64.to_le_bytes());
        elf[96..104].copy_from_slice(&(size as u64).to_le_bytes());
        elf.extend((0..size).map(|at| (at / 7) as u8));
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 1024];
        file[0x1f1] = 1;
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        file[0x248..0x24c].copy_from_slice(&0u32.to_le_bytes());
        file[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        file.extend(payload);
        file
    }

    fn with_size(mut packed: Vec<u8>, size: usize) -> Vec<u8> {
        packed.extend((size as u32).to_le_bytes());
        packed
    }

    fn packed(elf: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(elf).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(elf).unwrap();
        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        for piece in elf.chunks(8 << 20) {
            let block = lz4_flex::block::compress(piece);
            lz4.extend((block.len() as u32).to_le_bytes());
            lz4.extend(block);
        }
        let zstd = ruzstd::encoding::compress_to_vec(elf, ruzstd::encoding::CompressionLevel::Fastest);
        let size = elf.len();
        vec![
            ("gzip", gzip.finish().unwrap()),
            ("xz", with_size(xz.finish().unwrap(), size)),
            ("lz4", with_size(lz4, size)),
            ("zstd", with_size(zstd, size)),
        ]
    }

    #[test]
    fn every_compression_is_undone() {
        let elf = elf(9 << 20);
        for (name, payload) in packed(&elf) {
            assert!(vmlinux(name, bzimage(&payload)).unwrap() == elf, "{name}");
        }
    }

    #[test]
    fn a_vmlinux_is_taken_as_it_is() {
        assert_eq!(vmlinux("k", elf(100)).unwrap(), elf(100));
    }

    #[test]
    fn truncated_kernels_say_so() {
        let elf = elf(100_000);
        let mut files: Vec<_> = packed(&elf).into_iter().map(|(_, payload)| bzimage(&payload)).collect();
        files.push(elf);
        for mut file in files {
            file.truncate(file.len() / 2);
            let error = vmlinux("k", file).unwrap_err().to_string();
            assert!(error.contains("truncated"), "{error}");
        }
    }

    #[test]
    fn what_is_cut_inside_the_compressed_stream_is_noticed() {
        let elf = elf(100_000);
        for (name, payload) in packed(&elf) {
            let short = bzimage(&payload[..payload.len() / 2]);
            let error = vmlinux(name, short).unwrap_err().to_string();
            assert!(error.contains("truncated") || error.contains("damaged"), "{name}: {error}");
        }
    }

    #[test]
    fn other_files_are_no_kernels() {
        for file in [&b""[..], b"hello", &[0; 4096], b"\x7fELF\x02\x01"] {
            assert!(matches!(vmlinux("k", file.to_vec()), Err(Error::BadKernel { .. })));
        }
    }

    #[test]
    fn no_prefix_of_a_header_panics() {
        let file = bzimage(&[0; 10]);
        for length in 0..file.len() {
            assert!(vmlinux("k", file[..length].to_vec()).is_err());
        }
    }
}
