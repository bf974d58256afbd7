//! Kernel symbols, as /proc/kallsyms lists them.

use std::collections::BTreeMap;

/// One symbol.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Symbol {
    /// Linear address.
    pub address: u64,
    /// Name without a compiler's suffix removed: as the kernel has it.
    pub name: String,
    /// Module it belongs to; `None` for the kernel itself.
    pub module: Option<String>,
}

/// A kernel's function symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Symbols {
    /// Sorted by address; of several at one address the first listed comes first.
    by_address: Vec<Symbol>,
    by_name: BTreeMap<String, Vec<usize>>,
}

impl Symbols {
    /// Reads /proc/kallsyms text. Data symbols and lines that are none are left out.
    pub fn from_kallsyms(text: &str) -> Symbols {
        let mut by_address: Vec<Symbol> = text.lines().filter_map(parse).collect();
        by_address.sort_by_key(|symbol| symbol.address);
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, symbol) in by_address.iter().enumerate() {
            by_name.entry(symbol.name.clone()).or_default().push(index);
        }
        Symbols { by_address, by_name }
    }

    /// Address of a function; of several with this name the lowest.
    pub fn address(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).and_then(|all| all.first()).map(|&index| self.by_address[index].address)
    }

    /// From the function's address to the next symbol's.
    pub fn range(&self, name: &str) -> Option<std::ops::Range<u64>> {
        let start = self.address(name)?;
        let next = self.by_address.partition_point(|symbol| symbol.address <= start);
        Some(start..self.by_address.get(next).map_or(start + 4096, |symbol| symbol.address))
    }

    /// The function that holds an address, and the offset in it. Addresses more than 1 MiB behind the last symbol
    /// before them belong to none.
    pub fn find(&self, address: u64) -> Option<(&Symbol, u64)> {
        let behind = self.by_address.partition_point(|symbol| symbol.address <= address);
        let last = self.by_address.get(behind.checked_sub(1)?)?;
        let first = self.by_address.partition_point(|symbol| symbol.address < last.address);
        let symbol = &self.by_address[first];
        let offset = address - symbol.address;
        (offset < 1 << 20).then_some((symbol, offset))
    }

    /// All symbols, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Symbol> {
        self.by_address.iter()
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_address.is_empty()
    }
}

/// One line: `ffffffff81000000 T name [module]`. Addresses of 0 are what a kernel shows that hides them.
fn parse(line: &str) -> Option<Symbol> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok().filter(|&address| address != 0)?;
    if !matches!(words.next()?, "T" | "t" | "W" | "w") {
        return None;
    }
    let name = words.next()?.to_owned();
    let module = words.next().and_then(|word| word.strip_prefix('[')).and_then(|word| word.strip_suffix(']'));
    Some(Symbol { address, name, module: module.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbols() -> Symbols {
        Symbols::from_kallsyms(
            "ffffffff81000000 T _text\nffffffff81000100 t small\nffffffff81000100 t alias\n\
             ffffffff81000200 D data\nffffffffc0000000 t in_module\t[nfit]\n0000000000000000 T hidden\nnonsense\n",
        )
    }

    #[test]
    fn functions_are_found_by_name_and_by_address() {
        let symbols = symbols();
        assert_eq!(symbols.address("small"), Some(0xffffffff81000100));
        assert_eq!(symbols.address("data"), None);
        let (symbol, offset) = symbols.find(0xffffffff81000110).unwrap();
        assert_eq!((symbol.name.as_str(), offset), ("small", 0x10));
        let (symbol, _) = symbols.find(0xffffffffc0000004).unwrap();
        assert_eq!(symbol.module.as_deref(), Some("nfit"));
        assert_eq!(symbols.find(0x1000), None);
    }

    #[test]
    fn a_range_ends_at_the_next_symbol_behind_all_aliases() {
        assert_eq!(symbols().range("small"), Some(0xffffffff81000100..0xffffffffc0000000));
    }
}
