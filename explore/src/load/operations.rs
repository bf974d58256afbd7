//! The operations of a load, as steps of a scenario.

use rand_chacha::rand_core::Rng;

/// Names that a load uses; the directory `d` is there from the beginning.
const NAMES: [&str; 7] = ["a", "b", "c", "d/a", "d/b", "e", "e/a"];
/// Largest offset that is written to.
const REACH: u64 = 24 << 10;

/// Draws one operation after the other.
pub(super) struct Draw<'a, R> {
    pub random: &'a mut R,
    /// Number of the operation: names of mappings have it in them.
    pub number: usize,
}

impl<R: Rng> Draw<'_, R> {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len() as u64) as usize]
    }

    /// Whole blocks half of the time.
    fn range(&mut self) -> (u64, u64) {
        let (at, bytes) = (self.below(REACH), 1 + self.below(9000));
        if self.below(2) == 0 { (at & !4095, bytes.next_multiple_of(4096)) } else { (at, bytes) }
    }

    /// The steps of one operation, which may make no sense. What is often drawn makes what others need, and what makes
    /// durable.
    pub fn steps(&mut self) -> String {
        let actions = match self.below(32) {
            0..=3 => vec![format!("create = {{ file = \"{}\" }}", self.name())],
            4 => vec![format!("mkdir = \"{}\"", self.name())],
            5..=8 => vec![self.write()],
            9 => vec![format!(
                "write = {{ file = \"{}\", append = true, bytes = {} }}",
                self.name(),
                1 + self.below(9000)
            )],
            10..=11 => {
                vec![format!("truncate = {{ file = \"{}\", size = {} }}", self.name(), self.below(REACH))]
            }
            12..=14 => vec![self.fallocate()],
            15 => vec![format!("rename = {{ from = \"{}\", to = \"{}\" }}", self.name(), self.name())],
            16 => vec![format!("link = {{ from = \"{}\", to = \"{}\" }}", self.name(), self.name())],
            17 => vec![format!("symlink = {{ target = \"a\", path = \"{}\" }}", self.name())],
            18 => vec![format!("unlink = \"{}\"", self.name())],
            19 => vec![self.set_attribute()],
            20 => vec![format!("removexattr = {{ path = \"{}\", name = \"user.x\" }}", self.name())],
            21..=23 => self.mapped(),
            24..=25 => self.map_sync(),
            26..=27 => vec![format!("fsync = \"{}\"", self.name())],
            28 => vec![format!("fdatasync = \"{}\"", self.name())],
            29 => vec!["fsync = \".\"".to_owned()],
            30 => vec!["syncfs = true".to_owned()],
            _ => vec!["sync = true".to_owned()],
        };
        actions.iter().map(|action| format!("\n[[step]]\n{action}\n")).collect()
    }

    fn write(&mut self) -> String {
        let (at, bytes) = self.range();
        format!(
            "write = {{ file = \"{}\", at = {at}, bytes = {bytes}, pattern = \"{}\" }}",
            self.name(),
            self.pattern()
        )
    }

    /// One byte everywhere, mostly: ranges of such a file can be collapsed and inserted.
    fn pattern(&mut self) -> String {
        if self.below(4) == 0 { "seq".to_owned() } else { format!("byte:{:#04x}", 1 + self.below(255)) }
    }

    fn fallocate(&mut self) -> String {
        const MODES: [&str; 7] = [
            "allocate",
            "keep-size",
            "punch-hole",
            "zero-range",
            "zero-range-keep-size",
            "collapse-range",
            "insert-range",
        ];
        let mode = MODES[self.below(MODES.len() as u64) as usize];
        let (at, bytes) = self.range();
        format!("fallocate = {{ file = \"{}\", at = {at}, bytes = {bytes}, mode = \"{mode}\" }}", self.name())
    }

    fn set_attribute(&mut self) -> String {
        let (path, value, bytes) = (self.name(), self.number, 1 + self.below(600));
        format!("setxattr = {{ path = \"{path}\", name = \"user.x\", value = \"{value}\", bytes = {bytes} }}")
    }

    /// A store through a mapping, and msync(2) of it now and then.
    fn mapped(&mut self) -> Vec<String> {
        let (file, (at, bytes), number) = (self.name(), self.range(), self.number);
        let mut actions = vec![
            format!("map = {{ file = \"{file}\", as = \"m{number}\" }}"),
            format!("store = {{ map = \"m{number}\", at = {at}, bytes = {} }}", bytes.min(600)),
        ];
        if self.below(2) == 0 {
            actions.push(format!("msync = {{ map = \"m{number}\" }}"));
        }
        actions.push(format!("munmap = \"m{number}\""));
        actions
    }

    /// A store through a mapping with MAP_SYNC, which is promised by the program's own flush and fence.
    fn map_sync(&mut self) -> Vec<String> {
        let (file, (at, bytes), number) = (self.name(), self.range(), self.number);
        vec![
            format!("map = {{ file = \"{file}\", as = \"s{number}\", sync = true }}"),
            format!(
                "store = {{ map = \"s{number}\", at = {at}, bytes = {} }}\nflush = \"clwb\"\nfence = \"sfence\"\npromise = \"contents\"",
                bytes.min(600)
            ),
            format!("munmap = \"s{number}\""),
        ]
    }
}
