//! Seeded random numbers and the values that instructions find interesting.

/// SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// From 0 to `n - 1`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True in `percent` of 100 cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer: often one at the border of some size.
    pub fn integer(&mut self) -> u64 {
        let border = 1u64 << self.pick(&[0, 7, 8, 15, 16, 31, 32, 63]);
        match self.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 => border,
            3 => border.wrapping_sub(1),
            4 => border.wrapping_neg(),
            5 => self.below(100),
            6 => self.below(100).wrapping_neg(),
            _ => self.next(),
        }
    }

    /// A single: often a special one.
    pub fn single(&mut self) -> u32 {
        let sign = (self.next() as u32) << 31;
        let special = [
            0,
            1,
            0x7f_ffff,
            0x80_0000,
            0x3f80_0000,
            0x3f80_0001,
            0x4f00_0000,
            0x5f00_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0x7fc1_2345,
        ];
        match self.below(8) {
            0..3 => sign | self.pick(&special),
            3 => sign | self.next() as u32 & 0x7f_ffff,
            4 => (self.below(4000) as f32 / 8.0 - 250.0).to_bits(),
            5 => sign | (0x3f00_0000 + (self.next() as u32 & 0x1ff_ffff)),
            _ => self.next() as u32,
        }
    }

    /// A double: often a special one.
    pub fn double(&mut self) -> u64 {
        let sign = self.next() << 63;
        let special = [
            0,
            1,
            0xf_ffff_ffff_ffff,
            0x10_0000_0000_0000,
            0x3ff0_0000_0000_0000,
            0x3ff0_0000_0000_0001,
            0x41e0_0000_0000_0000,
            0x43e0_0000_0000_0000,
            0x7fef_ffff_ffff_ffff,
            0x7ff0_0000_0000_0000,
            0x7ff0_0000_0000_0001,
            0x7ff8_0000_0000_0000,
            0x7ff8_1234_5678_9abc,
        ];
        match self.below(8) {
            0..3 => sign | self.pick(&special),
            3 => sign | self.next() & 0xf_ffff_ffff_ffff,
            4 => (self.below(4000) as f64 / 8.0 - 250.0).to_bits(),
            5 => sign | (0x3fe0_0000_0000_0000 + (self.next() & 0x3f_ffff_ffff_ffff)),
            _ => self.next(),
        }
    }

    /// 128 bits for an XMM register: singles, doubles, integers or anything.
    pub fn vector(&mut self) -> u128 {
        let wide = |low: u64, high: u64| (high as u128) << 64 | low as u128;
        match self.below(4) {
            0 => (0..4).fold(0, |vector, _| vector << 32 | self.single() as u128),
            1 => wide(self.double(), self.double()),
            2 => wide(self.integer(), self.integer()),
            _ => wide(self.next(), self.next()),
        }
    }

    /// 80 bits for an x87 register: often a special one, sometimes of an unsupported format.
    pub fn extended(&mut self) -> u128 {
        let of = |exponent: u64, significand: u64| (exponent as u128) << 64 | significand as u128;
        let sign = (self.next() as u128 & 1) << 79;
        let integer_bit = 1 << 63;
        sign | match self.below(12) {
            0 => 0,
            1 => of(0x3fff, integer_bit),
            2 => of(0x7fff, integer_bit),
            3 => of(0x7fff, integer_bit | self.next()),
            4 => of(0, self.next() >> 1),
            5 => of(self.next() & 0x7fff, self.next()),
            6 => of(0x3fff + self.below(64), integer_bit | self.next() << self.below(64)),
            7 => of(0x3fff - 40 + self.below(80), integer_bit | self.next()),
            8 => of(self.next() & 0x7fff, integer_bit | self.next()),
            _ => of(0x3fff - 4 + self.below(10), integer_bit | self.next()),
        }
    }
}
