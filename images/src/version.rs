//! What versions a kernel file tells about itself, and the order of Debian's versions.

use std::cmp::Ordering;

use object::Object;

/// The release in the kernel's banner (`linux_banner`, init/version-timestamp.c), empty when there is none.
pub(crate) fn release(vmlinux: &[u8]) -> String {
    const START: &[u8] = b"Linux version ";
    for at in memchr::memmem::find_iter(vmlinux, START) {
        let word = vmlinux[at + START.len()..].iter().copied().take_while(u8::is_ascii_graphic).take(64);
        let word: Vec<u8> = word.collect();
        // A format string of the kernel begins with the same words.
        if word.first().is_some_and(u8::is_ascii_digit) {
            return String::from_utf8_lossy(&word).into_owned();
        }
    }
    String::new()
}

/// The GNU build id, hexadecimal, empty when there is none.
pub(crate) fn build_id(vmlinux: &[u8]) -> String {
    let file = object::File::parse(vmlinux).ok();
    let id = file.and_then(|file| file.build_id().ok().flatten().map(<[u8]>::to_vec));
    id.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Debian's order of versions (Debian Policy 5.6.12), for versions without epoch.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    // The revision behind the last hyphen only counts between equal upstream versions.
    fn parts(version: &str) -> (&str, &str) {
        version.rsplit_once('-').unwrap_or((version, ""))
    }
    let ((upstream_a, revision_a), (upstream_b, revision_b)) = (parts(a), parts(b));
    compare_part(upstream_a, upstream_b).then_with(|| compare_part(revision_a, revision_b))
}

fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let (text_a, text_b) = (leading(a, |c| !c.is_ascii_digit()), leading(b, |c| !c.is_ascii_digit()));
        let longer = text_a.len().max(text_b.len());
        for at in 0..longer {
            let order = weight(text_a.get(at)).cmp(&weight(text_b.get(at)));
            if order != Ordering::Equal {
                return order;
            }
        }
        (a, b) = (&a[text_a.len()..], &b[text_b.len()..]);
        let (digits_a, digits_b) = (leading(a, |c| c.is_ascii_digit()), leading(b, |c| c.is_ascii_digit()));
        let order = number(digits_a).cmp(&number(digits_b));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (&a[digits_a.len()..], &b[digits_b.len()..]);
    }
    Ordering::Equal
}

fn leading(bytes: &[u8], is: impl Fn(u8) -> bool) -> &[u8] {
    let length = bytes.iter().position(|c| !is(*c)).unwrap_or(bytes.len());
    &bytes[..length]
}

/// `~` before the end, the end before letters, letters before everything else.
fn weight(c: Option<&u8>) -> i32 {
    match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

/// Numbers of any length: without leading zeros the longer one is larger.
fn number(digits: &[u8]) -> (usize, &[u8]) {
    let zeros = digits.iter().take_while(|c| **c == b'0').count();
    (digits.len() - zeros, &digits[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let ordered = [
            "6.1~rc1",
            "6.1",
            "6.1.9-1",
            "6.1.10-1",
            "6.1.192-2",
            "6.12.90-1~deb12u1",
            "6.12.90-1",
            "6.12.90+deb12",
        ];
        for (low, a) in ordered.iter().enumerate() {
            for (high, b) in ordered.iter().enumerate() {
                assert_eq!(compare(a, b), low.cmp(&high), "{a} {b}");
            }
        }
    }

    #[test]
    fn the_release_is_found_behind_the_format_string() {
        assert_eq!(release(b"..Linux version %s (%s)\0...Linux version 6.1.0-56 (debian)\0"), "6.1.0-56");
        assert_eq!(release(b"nothing"), "");
    }
}
