//! Where names, strings and the white space between them end.

use super::JsonError;

/// The first byte at or after `at` that is no white space.
#[inline]
pub(super) fn skip_space(raw: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = raw.get(at) {
        at += 1;
    }
    at
}

/// Past the key, and whether it has no escapes.
#[inline(always)]
pub(super) fn key_end(raw: &[u8], at: usize) -> Result<(usize, bool), JsonError> {
    match raw.get(at) {
        Some(b'"') => string_end(raw, at),
        _ => Err(JsonError::Syntax { at, expected: "a key" }),
    }
}

/// Past the colon after a key and the white space around it.
#[inline(always)]
pub(super) fn colon_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
    match raw.get(at) {
        Some(b':') => Ok(skip_space(raw, at + 1)),
        _ => late_colon_end(raw, at),
    }
}

/// [`colon_end`] where no colon follows at once.
#[cold]
fn late_colon_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
    let at = skip_space(raw, at);
    match raw.get(at) {
        Some(b':') => Ok(skip_space(raw, at + 1)),
        _ => Err(JsonError::Syntax { at, expected: "`:`" }),
    }
}

/// Past the string whose opening quote is at `at`, and whether it has no escapes.
#[inline(always)]
pub(super) fn string_end(raw: &[u8], at: usize) -> Result<(usize, bool), JsonError> {
    let end = plain_end(raw, at + 1);
    match raw.get(end) {
        Some(b'"') => Ok((end + 1, true)),
        _ => escaped_string_end(raw, end),
    }
}

/// [`string_end`] from the first byte on that cannot stand in a string as it is.
#[cold]
fn escaped_string_end(raw: &[u8], mut at: usize) -> Result<(usize, bool), JsonError> {
    loop {
        match raw.get(at) {
            Some(b'"') => return Ok((at + 1, false)),
            Some(b'\\') => at = plain_end(raw, escape_end(raw, at)?),
            _ => return Err(JsonError::Syntax { at, expected: "a character or a closing quote" }),
        }
    }
}

/// Past the escape whose backslash is at `at`.
fn escape_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
    match raw.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') if raw.get(at + 2..at + 6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) => Ok(at + 6),
        _ => Err(JsonError::Syntax { at, expected: "an escape" }),
    }
}

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);
const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);

/// The first byte at or after `at` that cannot stand in a string as it is: a quote, a backslash or
/// a control character; the end of `raw` where there is none. Most strings are names: they end in
/// the first eight bytes.
#[inline(always)]
pub(super) fn plain_end(raw: &[u8], at: usize) -> usize {
    match raw.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(chunk) => match special_in(u64::from_le_bytes(*chunk)) {
            Some(nth) => at + nth,
            None => long_plain_end(raw, at + 8),
        },
        None => long_plain_end(raw, at),
    }
}

/// [`plain_end`] past the first word: three words more, then by blocks, which the compiler turns
/// into vector instructions.
fn long_plain_end(raw: &[u8], mut at: usize) -> usize {
    let mut words = 0;
    while let Some(chunk) = raw.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        if let Some(nth) = special_in(u64::from_le_bytes(*chunk)) {
            return at + nth;
        }
        at += 8;
        words += 1;
        if words == 3 {
            while let Some(block) = raw.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>())
                && !has_special(block)
            {
                at += BLOCK;
            }
        }
    }
    at + plain_len(&raw[at.min(raw.len())..])
}

/// [`plain_end`] of what is a string or a name alone, mostly a short one.
#[inline]
pub(super) fn plain_len(text: &[u8]) -> usize {
    if text.len() >= 16 {
        return long_plain_end(text, 0);
    }
    text.iter().position(|byte| IS_SPECIAL[*byte as usize]).unwrap_or(text.len())
}

const BLOCK: usize = 64;

/// Whether any byte [`is_special`], asked in the way that compilers have vector instructions for.
fn has_special(block: &[u8; BLOCK]) -> bool {
    let mut found = 0;
    for byte in block {
        found |= u8::from(*byte == b'"') | u8::from(*byte == b'\\') | u8::from(*byte < 0x20);
    }
    found != 0
}

/// Which of the eight bytes of `word`, the lowest first, is the first that [`is_special`].
#[inline(always)]
fn special_in(word: u64) -> Option<usize> {
    // A borrow can only mark bytes after (above) a true one, so the first mark is exact.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let controls = word.wrapping_sub(SPACES) & !word;
    let found = (zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES) | controls) & HIGHS;
    (found != 0).then(|| found.trailing_zeros() as usize / 8)
}

/// What cannot stand in a string as it is.
const fn is_special(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

const IS_SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = is_special(byte as u8);
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_first_byte_that_needs_an_escape_is_found(bytes in proptest::collection::vec(
            prop_oneof![60 => 0x20u8..=255, 1 => 0u8..0x22, 1 => Just(b'\\')], 0..200,
        )) {
            let naive = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            let naive = naive.unwrap_or(bytes.len());
            prop_assert_eq!(plain_end(&bytes, 0), naive);
            prop_assert_eq!(plain_len(&bytes), naive);
        }
    }
}
