//! New inputs from old ones.

use super::fuzz::input::Random;

/// Longest input.
const MOST: usize = 4096;

/// One of the seeds with some changes, or random bytes.
pub fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    if seeds.is_empty() || random.below(8) == 0 {
        return noise(random);
    }
    let mut data = seeds[random.below(seeds.len() as u64) as usize].clone();
    for _ in 0..1 + random.below(8) * random.below(2) {
        change(&mut data, seeds, random);
    }
    data
}

fn noise(random: &mut Random) -> Vec<u8> {
    let len = random.pick(&[16, 64, 256, 1024]);
    (0..random.below(len)).map(|_| random.next() as u8).collect()
}

fn change(data: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(data.len() as u64 + 1) as usize;
    match random.below(9) {
        0 => data.truncate(at),
        8 if at < data.len() => {
            // One byte becomes a number of postcard's, seven bits a byte.
            let mut value =
                random.pick(&[u64::MAX, u64::MAX >> 1, 1 << 63, u64::from(u32::MAX), 0xffff, 1 << 40]);
            let mut bytes = Vec::new();
            while value >= 0x80 {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
            data.splice(at..=at, bytes);
        }
        1 => {
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => overwrite(data, at, &[random.next() as u8]),
        3 => {
            // A length, an offset or a count.
            let value = random.pick(&[
                0,
                1,
                0x7f,
                0x80,
                0xff,
                0xffff,
                0x7fff_ffff,
                0x8000_0000,
                0xffff_ffff,
                u64::MAX,
                1 << 63,
            ]);
            let size = random.pick(&[1, 2, 4, 8]);
            overwrite(data, at, &value.to_le_bytes()[..size]);
        }
        4 if data.len() < MOST => {
            let bytes = noise(random);
            data.splice(at..at, bytes);
        }
        5 => {
            let end = (at + random.below(16) as usize).min(data.len());
            data.drain(at..end);
        }
        6 if data.len() < MOST => {
            let other = &seeds[random.below(seeds.len() as u64) as usize];
            let from = random.below(other.len() as u64 + 1) as usize;
            let len = (random.below(256) as usize).min(other.len() - from);
            data.splice(at..at, other[from..from + len].iter().copied());
        }
        _ => {
            let value = random.next().to_le_bytes();
            overwrite(data, at, &value[..1 + random.below(8) as usize]);
        }
    }
}

fn overwrite(data: &mut [u8], at: usize, bytes: &[u8]) {
    for (byte, new) in data[at..].iter_mut().zip(bytes) {
        *byte = *new;
    }
}
