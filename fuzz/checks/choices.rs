//! What the first bytes of an input choose: limits, and where the rest is cut. An input that ends too
//! early chooses zeros, so every input means something and small changes of it mean small changes.

/// The bytes not used yet.
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// One of these.
    pub fn of<T: Copy, const N: usize>(&mut self, all: [T; N]) -> T {
        all[usize::from(self.byte()) % N]
    }

    /// The next bytes, at most `len`.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Up to 15 places to cut at, for [`pieces`].
    pub fn cuts(&mut self) -> Vec<u16> {
        let count = self.byte() & 0xF;
        (0..count).map(|_| self.word()).collect()
    }
}

/// The ends of the pieces that `cuts` make of `len` bytes, in order; the last is `len`.
pub fn ends(cuts: &[u16], len: usize) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (len + 1)).chain([len]).collect();
    ends.sort_unstable();
    ends
}
