//! Crockford's base32 (no I, L, O, U): short, case-insensitive to the eye, sorts like the number.

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Writes the low `5 * N` bits of `value`, most significant digit first.
pub fn encode<const N: usize>(value: u128) -> [u8; N] {
    let mut out = [b'0'; N];
    let mut rest = value;
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(rest & 31) as usize];
        rest >>= 5;
    }
    out
}

/// Reads upper-case digits; `None` for any other byte or a value over 128 bits.
pub fn decode(digits: &[u8]) -> Option<u128> {
    let mut value: u128 = 0;
    for byte in digits {
        let digit = DIGITS.iter().position(|d| d == byte)? as u128;
        if value >> 123 != 0 {
            return None;
        }
        value = value << 5 | digit;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_sorts_alike(a: u128, b: u128) {
            let (x, y) = (encode::<26>(a), encode::<26>(b));
            prop_assert_eq!(decode(&x), Some(a));
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }
    }

    #[test]
    fn foreign_digits_and_overflow_are_refused() {
        assert_eq!(decode(b"01U"), None);
        assert_eq!(decode(b"01a"), None);
        assert_eq!(decode(&[b'Z'; 26]), None);
    }
}
