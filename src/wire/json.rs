//! JSON without a tree: a strict check of what clients send, and spans over what was checked.
//!
//! Invariant: [`check`] accepts exactly `RFC 8259` texts in UTF-8 of at most `JSON_DEPTH_MAX`
//! levels. It walks the bytes once, without recursion, allocation or copy: the open brackets are
//! the bits of one word. Numbers of any size pass, since `data` travels as its sender wrote it.

use crate::base::limits::JSON_DEPTH_MAX;
use std::borrow::Cow;
use std::fmt;

/// One bit for each open bracket.
const _: () = assert!(JSON_DEPTH_MAX <= u64::BITS as usize);

/// Why bytes are not JSON that we take; `at` is the offset of the first bad byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JsonError {
    /// Not UTF-8.
    Utf8 { at: usize },
    /// Not JSON: something else was expected there. Cut-off texts fail at their end.
    Syntax { at: usize, expected: &'static str },
    /// More than `JSON_DEPTH_MAX` levels.
    TooDeep { at: usize },
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonError::Utf8 { at } => write!(f, "byte {at} is not UTF-8"),
            JsonError::Syntax { at, expected } => write!(f, "not JSON at byte {at}: expected {expected}"),
            JsonError::TooDeep { at } => write!(f, "JSON at byte {at} is nested deeper than {JSON_DEPTH_MAX} levels"),
        }
    }
}

/// What reading one message may leave for the next to use again, one a shard. The walk over JSON
/// needs none; forms that have to be rewritten as JSON first will.
#[derive(Default, Debug)]
pub struct Scratch(());

/// Checks that `raw` is one JSON text.
pub fn check(_scratch: &mut Scratch, raw: &[u8]) -> Result<(), JsonError> {
    walk(raw, |_, _| {})
}

/// Checks like [`check`], and where the text is an object hands each of its fields on as it goes
/// by: the key in its quotes, and the value without the white space around it. After an error, the
/// fields before it have been handed on.
pub fn walk<'a>(raw: &'a [u8], mut field: impl FnMut(&'a [u8], &'a [u8])) -> Result<(), JsonError> {
    if let Err(error) = std::str::from_utf8(raw) {
        return Err(JsonError::Utf8 { at: error.valid_up_to() });
    }
    let syntax = |at, expected| Err(JsonError::Syntax { at, expected });
    let mut at = skip_space(raw, 0);
    let mut depth = 0;
    // The lowest bit is the innermost open bracket: set for an object.
    let mut objects: u64 = 0;
    let mut key: &[u8] = &[];
    let mut value_at = 0;
    'value: loop {
        if depth == 1 {
            value_at = at;
        }
        match raw.get(at) {
            Some(b'"') => at = string_end(raw, at)?,
            Some(open @ (b'{' | b'[')) => {
                if depth == JSON_DEPTH_MAX {
                    return Err(JsonError::TooDeep { at });
                }
                depth += 1;
                let is_object = *open == b'{';
                objects = objects << 1 | is_object as u64;
                at = skip_space(raw, at + 1);
                // Both closing brackets lie two above their opening one.
                if raw.get(at) == Some(&(open + 2)) {
                    at += 1;
                    depth -= 1;
                    objects >>= 1;
                } else {
                    if is_object {
                        let start = at;
                        at = key_end(raw, at)?;
                        if depth == 1 {
                            key = &raw[start..at];
                        }
                        at = colon_end(raw, at)?;
                    }
                    continue 'value;
                }
            }
            Some(b'-' | b'0'..=b'9') => at = number_end(raw, at)?,
            Some(b't') if raw[at..].starts_with(b"true") => at += 4,
            Some(b'f') if raw[at..].starts_with(b"false") => at += 5,
            Some(b'n') if raw[at..].starts_with(b"null") => at += 4,
            _ => return syntax(at, "a value"),
        }
        // After a value: close what closes here, until a comma asks for the next one.
        loop {
            if depth == 1 && objects == 1 {
                field(key, &raw[value_at..at]);
            }
            at = skip_space(raw, at);
            if depth == 0 {
                return if at == raw.len() { Ok(()) } else { syntax(at, "the end") };
            }
            let is_object = objects & 1 == 1;
            match raw.get(at) {
                Some(b',') => {
                    at = skip_space(raw, at + 1);
                    if is_object {
                        let start = at;
                        at = key_end(raw, at)?;
                        if depth == 1 {
                            key = &raw[start..at];
                        }
                        at = colon_end(raw, at)?;
                    }
                    continue 'value;
                }
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                _ if is_object => return syntax(at, "`,` or `}`"),
                _ => return syntax(at, "`,` or `]`"),
            }
            at += 1;
            depth -= 1;
            objects >>= 1;
        }
    }
}

/// The first byte at or after `at` that is no white space.
#[inline]
fn skip_space(raw: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\t' | b'\n' | b'\r') = raw.get(at) {
        at += 1;
    }
    at
}

#[inline]
fn key_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
    match raw.get(at) {
        Some(b'"') => string_end(raw, at),
        _ => Err(JsonError::Syntax { at, expected: "a key" }),
    }
}

/// Past the colon after a key and the white space around it.
#[inline]
fn colon_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
    let at = skip_space(raw, at);
    match raw.get(at) {
        Some(b':') => Ok(skip_space(raw, at + 1)),
        _ => Err(JsonError::Syntax { at, expected: "`:`" }),
    }
}

/// Past the string whose opening quote is at `at`.
#[inline]
fn string_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
    let mut at = at + 1;
    loop {
        at = plain_end(raw, at);
        match raw.get(at) {
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => at = escape_end(raw, at)?,
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

/// The first byte at or after `at` that cannot stand in a string as it is: a quote, a backslash or
/// a control character; the end of `raw` where there is none. Eight bytes a step.
#[inline]
fn plain_end(raw: &[u8], mut at: usize) -> usize {
    // A borrow can only mark bytes after (above) a true one, so the first mark is exact.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = raw.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = zeros(word ^ ONES * b'"' as u64) | zeros(word ^ ONES * b'\\' as u64) | controls;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = raw.get(at) {
        if *byte < 0x20 || *byte == b'"' || *byte == b'\\' {
            break;
        }
        at += 1;
    }
    at
}

/// Past the number that begins at `at` with a digit or a minus.
fn number_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
    let digits_end = |mut at: usize| {
        let start = at;
        while let Some(b'0'..=b'9') = raw.get(at) {
            at += 1;
        }
        if at == start { Err(JsonError::Syntax { at, expected: "a digit" }) } else { Ok(at) }
    };
    let at = at + usize::from(raw.get(at) == Some(&b'-'));
    let mut at = if raw.get(at) == Some(&b'0') { at + 1 } else { digits_end(at)? };
    if raw.get(at) == Some(&b'.') {
        at = digits_end(at + 1)?;
    }
    if let Some(b'e' | b'E') = raw.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = raw.get(at) {
            at += 1;
        }
        at = digits_end(at)?;
    }
    Ok(at)
}

/// The fields of an object, or `None` where `raw` is something else. `raw` has been checked; of
/// anything else the fields are unspecified, but nothing panics.
pub fn object(raw: &[u8]) -> Option<Fields<'_>> {
    let at = skip_space(raw, 0);
    (raw.get(at) == Some(&b'{')).then(|| Fields { raw, at: skip_space(raw, at + 1) })
}

/// See [`object`].
pub struct Fields<'a> {
    raw: &'a [u8],
    /// At a key's quote or the closing bracket.
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    /// The key, unescaped, and the value without the white space around it.
    type Item = (Cow<'a, str>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let key_end = key_end(self.raw, self.at).ok()?;
        let key = string(&self.raw[self.at..key_end]);
        let start = colon_end(self.raw, key_end).ok()?;
        let end = value_end(self.raw, start)?;
        self.at = next_start(self.raw, end);
        // A key with half a surrogate pair has no name in UTF-8; it equals no known key either way.
        Some((key.unwrap_or(Cow::Borrowed("\u{FFFD}")), &self.raw[start..end]))
    }
}

/// The items of an array, or `None` where `raw` is something else; like [`object`].
pub fn array(raw: &[u8]) -> Option<Items<'_>> {
    let at = skip_space(raw, 0);
    (raw.get(at) == Some(&b'[')).then(|| Items { raw, at: skip_space(raw, at + 1) })
}

/// See [`array`].
pub struct Items<'a> {
    raw: &'a [u8],
    /// At a value or the closing bracket.
    at: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let end = value_end(self.raw, start).filter(|end| *end > start)?;
        self.at = next_start(self.raw, end);
        Some(&self.raw[start..end])
    }
}

/// Past the comma after a value, or at the closing bracket.
fn next_start(raw: &[u8], value_end: usize) -> usize {
    let at = skip_space(raw, value_end);
    if raw.get(at) == Some(&b',') { skip_space(raw, at + 1) } else { at }
}

/// Past the value that begins at `at`, in checked JSON.
fn value_end(raw: &[u8], at: usize) -> Option<usize> {
    match raw.get(at)? {
        b'"' => string_end(raw, at).ok(),
        b'{' | b'[' => {
            let mut at = at;
            let mut depth = 0usize;
            loop {
                match raw.get(at)? {
                    b'"' => {
                        at = string_end(raw, at).ok()?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            Some(raw[at..].iter().position(ends).map_or(raw.len(), |len| at + len))
        }
    }
}

/// The text of a JSON string, or `None` where `raw` is something else or holds half a surrogate
/// pair, which JSON can spell and UTF-8 cannot.
pub fn string(raw: &[u8]) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let plain = plain_end(inner, 0);
    if plain == inner.len() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    let inner = std::str::from_utf8(inner).ok()?;
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        let plain = plain_end(rest.as_bytes(), 0);
        text.push_str(&rest[..plain]);
        rest = &rest[plain..];
        if rest.is_empty() {
            return Some(Cow::Owned(text));
        }
        let (character, len) = unescape(rest.as_bytes())?;
        text.push(character);
        rest = &rest[len..];
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
pub fn boolean(raw: &[u8]) -> Option<bool> {
    match raw {
        b"true" => Some(true),
        b"false" => Some(false),
        _ => None,
    }
}

/// A number that is written as an unsigned integer and fits.
pub fn unsigned(raw: &[u8]) -> Option<u64> {
    // The standard parser would take a plus.
    raw.first().filter(|byte| byte.is_ascii_digit())?;
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// A number that is written as an integer and fits.
pub fn integer(raw: &[u8]) -> Option<i64> {
    raw.first().filter(|byte| byte.is_ascii_digit() || **byte == b'-')?;
    std::str::from_utf8(raw).ok()?.parse().ok()
}

/// `null`, which optional fields take for absent.
pub fn is_null(raw: &[u8]) -> bool {
    raw == b"null"
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut done = 0;
    loop {
        let plain = plain_end(bytes, done);
        out.extend_from_slice(&bytes[done..plain]);
        let Some(byte) = bytes.get(plain) else { break };
        let (escape, len) = escape(*byte);
        out.extend_from_slice(&escape[..len]);
        done = plain + 1;
    }
    out.push(b'"');
}

/// The bytes that [`write_string`] appends.
pub fn string_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut len = bytes.len() + 2;
    let mut at = plain_end(bytes, 0);
    while let Some(byte) = bytes.get(at) {
        len += escape(*byte).1 - 1;
        at = plain_end(bytes, at + 1);
    }
    len
}

/// How a byte that cannot stand in a string is written, and how many bytes of that count.
fn escape(byte: u8) -> ([u8; 6], usize) {
    let short = |letter| ([b'\\', letter, 0, 0, 0, 0], 2);
    match byte {
        b'"' | b'\\' => short(byte),
        b'\n' => short(b'n'),
        b'\r' => short(b'r'),
        b'\t' => short(b't'),
        0x08 => short(b'b'),
        0x0C => short(b'f'),
        _ => {
            let digit = |value: u8| b"0123456789abcdef"[value as usize & 15];
            ([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)], 6)
        }
    }
}
