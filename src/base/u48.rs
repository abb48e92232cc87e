//! A number of 48 bits in six bytes, for rows of which there are very many: milliseconds since 1970
//! reach to the year 10889, and counts of what happens a million times a second to 8 years.
//! Invariant: what is read is what was written, modulo 2^48.

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct U48([u16; 3]);

impl U48 {
    /// Keeps the lower 48 bits of `number`.
    pub const fn new(number: u64) -> U48 {
        U48([number as u16, (number >> 16) as u16, (number >> 32) as u16])
    }

    pub const fn get(self) -> u64 {
        self.0[0] as u64 | (self.0[1] as u64) << 16 | (self.0[2] as u64) << 32
    }
}

const _: () = assert!(size_of::<U48>() == 6 && align_of::<U48>() == 2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_lower_48_bits_are_kept(number: u64) {
            prop_assert_eq!(U48::new(number).get(), number & 0xFFFF_FFFF_FFFF);
        }
    }
}
