//! What a value says that is no object and no array.

use super::scan::{plain_end, plain_len};
use std::borrow::Cow;

/// What a JSON string says, or `None` where `text` is something else or holds half a surrogate
/// pair, which JSON can spell and UTF-8 cannot.
pub fn string(text: &str) -> Option<Cow<'_, str>> {
    string_or(text, None)
}

/// What a JSON string says, with U+FFFD where it holds half a surrogate pair. `text` has been checked.
pub fn string_lossy(text: &str) -> Cow<'_, str> {
    // All escapes but those of halves are read; these take six bytes.
    string_or(text, Some((char::REPLACEMENT_CHARACTER, 6))).unwrap_or_default()
}

/// `half`: what stands for an escape that is no character, and the bytes that it takes.
fn string_or(text: &str, half: Option<(char, usize)>) -> Option<Cow<'_, str>> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let plain = plain_len(inner.as_bytes());
    if plain == inner.len() {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        let plain = plain_end(rest.as_bytes(), 0);
        text.push_str(&rest[..plain]);
        rest = &rest[plain..];
        if rest.is_empty() {
            return Some(Cow::Owned(text));
        }
        let (character, len) = unescape(rest.as_bytes()).or(half)?;
        text.push(character);
        rest = rest.get(len..)?;
    }
}

/// The character of the escape that `rest` begins with, and the bytes it takes.
fn unescape(rest: &[u8]) -> Option<(char, usize)> {
    let plain = |character| Some((character, 2));
    match rest.strip_prefix(b"\\")?.first()? {
        b'"' => plain('"'),
        b'\\' => plain('\\'),
        b'/' => plain('/'),
        b'b' => plain('\u{8}'),
        b'f' => plain('\u{C}'),
        b'n' => plain('\n'),
        b'r' => plain('\r'),
        b't' => plain('\t'),
        b'u' => {
            let first = code_unit(rest)?;
            if !(0xD800..0xE000).contains(&first) {
                return char::from_u32(first).map(|character| (character, 6));
            }
            let second = code_unit(rest.get(6..)?)?;
            let is_pair = first < 0xDC00 && (0xDC00..0xE000).contains(&second);
            let scalar = is_pair.then(|| 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00))?;
            char::from_u32(scalar).map(|character| (character, 12))
        }
        _ => None,
    }
}

/// The UTF-16 unit that `rest` begins with, spelled `\uXXXX`.
fn code_unit(rest: &[u8]) -> Option<u32> {
    let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | (*digit as char).to_digit(16)?))
}

/// `true` or `false`.
pub fn boolean(text: &str) -> Option<bool> {
    text.parse().ok()
}

/// A number that is written as an unsigned integer and fits.
pub fn unsigned(text: &str) -> Option<u64> {
    // The standard parser would take a plus.
    text.bytes().next().filter(u8::is_ascii_digit)?;
    text.parse().ok()
}

/// A number that is written as an integer and fits.
pub fn integer(text: &str) -> Option<i64> {
    text.bytes().next().filter(|byte| byte.is_ascii_digit() || *byte == b'-')?;
    text.parse().ok()
}

/// `null`, which optional fields take for absent.
pub fn is_null(text: &str) -> bool {
    text == "null"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_integers_that_fit_are_integers() {
        assert_eq!(unsigned("18446744073709551615"), Some(u64::MAX));
        for raw in ["18446744073709551616", "+1", "-1", "1.0", "1e3", "", "\"1\""] {
            assert_eq!(unsigned(raw), None, "{raw}");
        }
        assert_eq!(integer("-9223372036854775808"), Some(i64::MIN));
        for raw in ["9223372036854775808", "+1", "-", "1.0", ""] {
            assert_eq!(integer(raw), None, "{raw}");
        }
    }
}
