//! JSON without a tree: a strict check of what clients send, and spans over what was checked.
//!
//! Invariant: [`check`] accepts exactly `RFC 8259` texts in UTF-8 of at most `JSON_DEPTH_MAX`
//! levels. It walks the bytes once, without recursion, allocation or copy: the open brackets are
//! the bits of one word. Numbers of any size and escapes of half a surrogate pair pass, since
//! `data` travels as its sender wrote it.
//!
//! Why not `simd-json`: it refuses numbers beyond 64 bits and half surrogate pairs, both of which
//! browsers write, it needs a copy, and building its tape takes longer than the whole reading of an
//! envelope here (241 B: 218 ns against 168; 16 KiB: 13.9 us against 8.6; `benches/wire.rs`).

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

/// Checks that `raw` is one JSON text.
pub fn check(raw: &[u8]) -> Result<(), JsonError> {
    walk(raw, |_, _| {})
}

/// Checks like [`check`], and where the text is an object hands each of its fields on as it goes
/// by: the key in its quotes, and the value without the white space around it. After an error, the
/// fields before it have been handed on.
pub fn walk<'a>(raw: &'a [u8], mut field: impl FnMut(&'a [u8], &'a [u8])) -> Result<(), JsonError> {
    if simdutf8::basic::from_utf8(raw).is_err() {
        let at = std::str::from_utf8(raw).map_or_else(|error| error.valid_up_to(), str::len);
        return Err(JsonError::Utf8 { at });
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
const SPACES: u64 = u64::from_ne_bytes([b' '; 8]);
const QUOTES: u64 = u64::from_ne_bytes([b'"'; 8]);
const BACKSLASHES: u64 = u64::from_ne_bytes([b'\\'; 8]);

/// The first byte at or after `at` that cannot stand in a string as it is: a quote, a backslash or
/// a control character; the end of `raw` where there is none. Eight bytes a step.
#[inline]
fn plain_end(raw: &[u8], mut at: usize) -> usize {
    // A borrow can only mark bytes after (above) a true one, so the first mark is exact.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = raw.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let controls = word.wrapping_sub(SPACES) & !word & HIGHS;
        let found = zeros(word ^ QUOTES) | zeros(word ^ BACKSLASHES) | controls;
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

impl<'a> Fields<'a> {
    /// The next key in its quotes, and the value without the white space around it.
    #[inline]
    pub fn next_raw(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let key_end = key_end(self.raw, self.at).ok()?;
        let key = &self.raw[self.at..key_end];
        let start = colon_end(self.raw, key_end).ok()?;
        let end = value_end(self.raw, start)?;
        self.at = next_start(self.raw, end);
        Some((key, &self.raw[start..end]))
    }
}

impl<'a> Iterator for Fields<'a> {
    /// The key, unescaped, and the value without the white space around it.
    type Item = (Cow<'a, str>, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value) = self.next_raw()?;
        // A key with half a surrogate pair has no name in UTF-8; it equals no known key either way.
        Some((string(key).unwrap_or(Cow::Borrowed("\u{FFFD}")), value))
    }
}

/// The bytes of a key that is still in its quotes: how [`walk`] and [`Fields::next_raw`] give it.
/// Keys are compared, not kept, so the common one is not even looked at as text.
#[inline]
pub fn key_bytes(quoted: &[u8]) -> Cow<'_, [u8]> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    Cow::Owned(string(quoted).unwrap_or_default().into_owned().into_bytes())
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn accepts(raw: &[u8]) -> bool {
        check(raw).is_ok()
    }

    /// What two well-kept libraries say together: the standard one of UTF-8, the other of syntax.
    fn oracle(raw: &[u8]) -> bool {
        std::str::from_utf8(raw).is_ok() && serde_json::from_slice::<IgnoredAny>(raw).is_ok()
    }

    /// JSON texts with white space, escapes and nesting.
    fn texts() -> impl Strategy<Value = String> {
        let space = "[ \t\r\n]{0,2}";
        let string = proptest::collection::vec(
            prop_oneof![
                "[ -!#-\\[\\]-~]{0,12}",
                "[é中🎈]",
                prop_oneof![
                    Just("\\n"),
                    Just("\\\""),
                    Just("\\\\"),
                    Just("\\/"),
                    Just("\\u00e9"),
                    Just("\\ud83c\\udf88"),
                    Just("\\ud800")
                ]
                .prop_map(str::to_owned),
            ],
            0..4,
        )
        .prop_map(|parts| format!("\"{}\"", parts.concat()));
        let number = prop_oneof![
            any::<i64>().prop_map(|number| number.to_string()),
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,4})?",
        ];
        let word = prop_oneof![Just("true"), Just("false"), Just("null")].prop_map(str::to_owned);
        let leaf = prop_oneof![string.clone(), number, word];
        leaf.prop_recursive(5, 40, 5, move |inner| {
            let item = (space, inner, space).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
            let pair = (space, string.clone(), space, item.clone())
                .prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
            prop_oneof![
                (space, proptest::collection::vec(item, 0..5)).prop_map(|(space, items)| if items.is_empty() {
                    format!("[{space}]")
                } else {
                    format!("[{}]", items.join(","))
                }),
                (space, proptest::collection::vec(pair, 0..5)).prop_map(|(space, pairs)| if pairs.is_empty() {
                    format!("{{{space}}}")
                } else {
                    format!("{{{}}}", pairs.join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn well_formed_texts_pass(text in texts()) {
            prop_assert!(oracle(text.as_bytes()), "the generator writes JSON");
            prop_assert!(accepts(text.as_bytes()));
        }

        #[test]
        fn a_text_with_one_byte_changed_is_judged_as_a_second_implementation_does(
            text in texts(), place: prop::sample::Index, change in 0..3, byte in prop_oneof![any::<u8>(), Just(b'"'), Just(b','), Just(b'}'), Just(b'\\')],
        ) {
            let mut bytes = text.into_bytes();
            let place = place.index(bytes.len());
            match change {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                _ => { bytes.remove(place); }
            }
            prop_assert_eq!(accepts(&bytes), oracle(&bytes));
        }

        #[test]
        fn noise_is_judged_as_a_second_implementation_does(
            text in "[\\[\\]{}:, \"\\\\0-9eE+.\\-truefalsn\u{1}\u{7f}é]{0,24}",
        ) {
            prop_assert_eq!(accepts(text.as_bytes()), oracle(text.as_bytes()));
        }

        #[test]
        fn no_bytes_make_the_readers_panic(raw: Vec<u8>, lead in "[{\\[\"]?") {
            let raw = [lead.as_bytes(), &raw].concat();
            let _ = accepts(&raw);
            let _ = (string(&raw), boolean(&raw), unsigned(&raw), integer(&raw));
            object(&raw).into_iter().flatten().for_each(drop);
            array(&raw).into_iter().flatten().for_each(drop);
        }

        #[test]
        fn fields_and_items_are_those_of_a_tree(text in texts()) {
            // A tree cannot hold half a surrogate pair or a huge number.
            if let Ok(tree) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(rebuild(text.trim().as_bytes()), Some(tree));
            }
        }

        #[test]
        fn walking_hands_on_the_fields_that_the_iterator_finds(text in texts()) {
            let mut walked = Vec::new();
            prop_assert!(walk(text.as_bytes(), |key, value| walked.push((string(key), value))).is_ok());
            let found: Vec<_> = object(text.as_bytes()).into_iter().flatten().collect();
            let walked: Vec<_> = walked.into_iter().map(|(key, value)| (key.unwrap_or("\u{FFFD}".into()), value)).collect();
            prop_assert_eq!(walked, found);
        }

        #[test]
        fn a_written_string_is_read_back(text in prop_oneof![any::<String>(), "[\\x00-\\x30\"\\\\]{0,40}"]) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(out.len(), string_len(&text));
            prop_assert!(accepts(&out));
            prop_assert_eq!(string(&out), Some(Cow::Borrowed(&*text)));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
        }

        #[test]
        fn the_first_byte_that_needs_an_escape_is_found(bytes in proptest::collection::vec(
            prop_oneof![8 => 0x20u8..=255, 1 => 0u8..0x22, 1 => Just(b'\\')], 0..60,
        )) {
            let naive = bytes.iter().position(|byte| *byte < 0x20 || *byte == b'"' || *byte == b'\\');
            prop_assert_eq!(plain_end(&bytes, 0), naive.unwrap_or(bytes.len()));
        }
    }

    /// The tree of a text, through this module's readers.
    fn rebuild(raw: &[u8]) -> Option<serde_json::Value> {
        if let Some(fields) = object(raw) {
            return fields.map(|(key, value)| Some((key.into_owned(), rebuild(value)?))).collect();
        }
        if let Some(items) = array(raw) {
            return items.map(rebuild).collect();
        }
        if let Some(text) = string(raw) {
            return Some(text.into());
        }
        if let Some(value) = boolean(raw) {
            return Some(value.into());
        }
        if let Some(number) = unsigned(raw) {
            return Some(number.into());
        }
        match integer(raw) {
            // The tree has a float for minus zero.
            Some(number) if raw != b"-0" => Some(number.into()),
            _ => serde_json::from_slice(raw).ok(),
        }
    }

    #[test]
    fn nesting_ends_at_its_bound_however_deep_the_text() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(accepts(nested(JSON_DEPTH_MAX).as_bytes()));
        let too_deep = JsonError::TooDeep { at: JSON_DEPTH_MAX };
        for depth in [JSON_DEPTH_MAX + 1, 100_000] {
            assert_eq!(check(nested(depth).as_bytes()), Err(too_deep));
        }
        let objects = r#"{"a":"#.repeat(100_000);
        let too_deep = JsonError::TooDeep { at: 5 * JSON_DEPTH_MAX };
        assert_eq!(check(objects.as_bytes()), Err(too_deep));
    }

    #[test]
    fn what_the_grammar_lacks_is_refused() {
        for text in [
            "",
            " ",
            "nul",
            "True",
            "01",
            "-",
            "1.",
            ".1",
            "+1",
            "1e",
            "0x1",
            "NaN",
            "'a'",
            "\"a",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\t\"",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "{1:1}",
            "{\"a\":1}}",
            "[1]]",
            "[1}",
            "{]",
            "1 2",
            "[1]x",
            "\u{feff}1",
            "// a\n1",
        ] {
            assert!(!accepts(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn numbers_of_any_size_and_half_surrogates_pass_unread() {
        for text in ["1e999", "-123456789012345678901234567890", "\"\\ud800\""] {
            assert!(accepts(text.as_bytes()), "{text}");
        }
        assert_eq!(string(b"\"\\ud800\""), None);
        assert_eq!(string(b"\"\\udf88\\ud83c\""), None);
    }

    #[test]
    fn only_integers_that_fit_are_integers() {
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        for raw in ["18446744073709551616", "+1", "-1", "1.0", "1e3", "", "\"1\""] {
            assert_eq!(unsigned(raw.as_bytes()), None, "{raw}");
        }
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        for raw in ["9223372036854775808", "+1", "-", "1.0", ""] {
            assert_eq!(integer(raw.as_bytes()), None, "{raw}");
        }
    }

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        let error = check(br#"{"a":1 "b":2}"#).expect_err("no comma");
        assert_eq!(error.to_string(), "not JSON at byte 7: expected `,` or `}`");
    }
}
