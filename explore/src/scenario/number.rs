//! Numbers of bytes as people write them: `4096`, `"0x1000"`, `"4K"`, `"64M"`, `"1G"`.

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let bad = || {
            format!("{text:?} is not a number of bytes; write 4096, \"0x1000\", \"4K\", \"64M\" or \"1G\"")
        };
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K') => (&text[..text.len() - 1], 10),
            Some(b'M') => (&text[..text.len() - 1], 20),
            Some(b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let parsed = match digits.strip_prefix("0x") {
            Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
            None => digits.parse(),
        };
        let number = parsed.map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Bytes).ok_or_else(bad)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Bytes;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a number of bytes such as 4096, \"0x1000\" or \"64M\"")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Bytes, E> {
                u64::try_from(number).map(Bytes).map_err(|_| E::custom("a number of bytes is not negative"))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Bytes, E> {
                Ok(Bytes(number))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::Bytes;

    #[test]
    fn suffixes_and_hexadecimal_are_understood() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("0x1000", 4096), ("4K", 4096), ("64M", 64 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_refused() {
        for text in ["", "K", "-1", "0x", "4k", "1.5M", "99999999999999999999", "18446744073709551615G"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
