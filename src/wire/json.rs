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

use crate::base::limits::{JSON_DEPTH_MAX, JSON_SPANS_MAX, MESSAGE_BYTES_MAX};
use std::borrow::Cow;
use std::fmt;

/// One bit for each open bracket.
const _: () = assert!(JSON_DEPTH_MAX <= u64::BITS as usize);
/// Places in a text fit into a [`Span`].
const _: () = assert!(MESSAGE_BYTES_MAX <= u32::MAX as usize);

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
    walk(raw, &mut |_, _, _| {})
}

/// Checks like [`check`], and where the text is an object hands each of its fields on as it goes
/// by: the key, the value without the white space around it, and where the fields of that value
/// lie. After an error, the fields before it have been handed on.
pub fn walk<'a>(raw: &'a [u8], field: &mut dyn FnMut(Key<'a>, &'a str, &Spans)) -> Result<(), JsonError> {
    let Ok(text) = simdutf8::basic::from_utf8(raw) else {
        let at = std::str::from_utf8(raw).map_or_else(|error| error.valid_up_to(), str::len);
        return Err(JsonError::Utf8 { at });
    };
    let syntax = |at, expected| Err(JsonError::Syntax { at, expected });
    let mut at = skip_space(raw, 0);
    let mut depth = 0;
    // The lowest bit is the innermost open bracket: set for an object.
    let mut objects: u64 = 0;
    // The field under way in the outermost object, the one in a value of that, and those before it.
    let (mut outer, mut value_at) = (Key { quoted: &[], is_plain: true }, 0);
    let mut inner = Span::default();
    let mut spans = Spans::NONE;
    'value: loop {
        match depth {
            1 => value_at = at,
            2 => inner.value = at as u32,
            _ => {}
        }
        match raw.get(at) {
            Some(b'"') => at = string_end(raw, at)?.0,
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
                        at = key(raw, at, depth, &mut outer, &mut inner, &mut spans)?;
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
            let is_object = objects & 1 == 1;
            if depth <= 2 && is_object {
                if depth == 1 {
                    field(outer, &text[value_at..at], &spans);
                } else {
                    inner.value_end = at as u32;
                    spans.note(inner, value_at as u32);
                }
            }
            at = skip_space(raw, at);
            if depth == 0 {
                return if at == raw.len() { Ok(()) } else { syntax(at, "the end") };
            }
            match raw.get(at) {
                Some(b',') => {
                    at = skip_space(raw, at + 1);
                    if is_object {
                        at = key(raw, at, depth, &mut outer, &mut inner, &mut spans)?;
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

/// Past the key that begins at `at`, its colon and the white space around that; notes the key as
/// that of the field under way at its level.
#[inline(always)]
fn key<'a>(
    raw: &'a [u8],
    at: usize,
    depth: usize,
    outer: &mut Key<'a>,
    inner: &mut Span,
    spans: &mut Spans,
) -> Result<usize, JsonError> {
    let (end, is_plain) = key_end(raw, at)?;
    match depth {
        1 => {
            *outer = Key { quoted: &raw[at..end], is_plain };
            (spans.count, spans.is_cut) = (0, false);
        }
        2 => {
            inner.key = at as u32;
            inner.key_end = if is_plain { end as u32 } else { 0 };
        }
        _ => {}
    }
    colon_end(raw, end)
}

/// Where a field lies in a text.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
struct Span {
    key: u32,
    /// 0 for a key with escapes.
    key_end: u32,
    value: u32,
    value_end: u32,
}

/// Where the first fields of an object lie in its text, as the walk that checked it came by them:
/// who reads it next need not walk over them again. Of no object, none.
#[derive(Clone, PartialEq, Debug)]
pub struct Spans {
    noted: [Span; JSON_SPANS_MAX],
    count: u16,
    /// Something could not be noted, nor is anything after it.
    is_cut: bool,
}

impl Spans {
    /// Nothing is noted.
    pub const NONE: Spans =
        Spans { noted: [Span { key: 0, key_end: 0, value: 0, value_end: 0 }; JSON_SPANS_MAX], count: 0, is_cut: false };

    /// Notes the next field, whose places are counted from `start` on.
    #[inline(always)]
    fn note(&mut self, field: Span, start: u32) {
        match self.noted.get_mut(self.count as usize) {
            Some(place) if field.key_end != 0 && !self.is_cut => {
                *place = Span {
                    key: field.key - start,
                    key_end: field.key_end - start,
                    value: field.value - start,
                    value_end: field.value_end - start,
                };
                self.count += 1;
            }
            _ => self.is_cut = true,
        }
    }

    #[inline]
    fn noted(&self) -> &[Span] {
        &self.noted[..self.count as usize]
    }
}

/// The key of a field, not yet read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Key<'a> {
    quoted: &'a [u8],
    /// Without escapes.
    is_plain: bool,
}

impl<'a> Key<'a> {
    /// The key unescaped, as bytes: keys are compared, not kept. One that spells half a surrogate
    /// pair has no name in UTF-8, and is empty here; it equals no known key either way.
    #[inline]
    pub fn name(self) -> Cow<'a, [u8]> {
        if self.is_plain {
            return Cow::Borrowed(&self.quoted[1..self.quoted.len() - 1]);
        }
        Cow::Owned(self.unescaped())
    }

    #[cold]
    fn unescaped(self) -> Vec<u8> {
        let text = std::str::from_utf8(self.quoted).ok().and_then(string);
        text.unwrap_or_default().into_owned().into_bytes()
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

/// Past the key, and whether it has no escapes.
#[inline(always)]
fn key_end(raw: &[u8], at: usize) -> Result<(usize, bool), JsonError> {
    match raw.get(at) {
        Some(b'"') => string_end(raw, at),
        _ => Err(JsonError::Syntax { at, expected: "a key" }),
    }
}

/// Past the colon after a key and the white space around it.
#[inline(always)]
fn colon_end(raw: &[u8], at: usize) -> Result<usize, JsonError> {
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
fn string_end(raw: &[u8], at: usize) -> Result<(usize, bool), JsonError> {
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
fn plain_end(raw: &[u8], at: usize) -> usize {
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
fn plain_len(text: &[u8]) -> usize {
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

/// The fields of an object, or `None` where `text` is something else. `text` has been checked; of
/// anything else the fields are unspecified, but nothing panics.
pub fn object(text: &str) -> Option<Fields<'_>> {
    fields(text, &Spans::NONE)
}

/// Like [`object`], of a text that [`walk`] came by as the value of a field: `spans` are its own.
#[inline]
pub fn fields<'a>(text: &'a str, spans: &'a Spans) -> Option<Fields<'a>> {
    let raw = text.as_bytes();
    let noted = spans.noted();
    let at = match noted.last() {
        Some(last) => next_start(raw, last.value_end as usize),
        None => {
            let at = skip_space(raw, 0);
            (raw.get(at) == Some(&b'{')).then(|| skip_space(raw, at + 1))?
        }
    };
    Some(Fields { text, noted: noted.iter(), at })
}

/// See [`object`].
pub struct Fields<'a> {
    text: &'a str,
    noted: std::slice::Iter<'a, Span>,
    /// Behind those: at a key's quote or the closing bracket.
    at: usize,
}

impl<'a> Iterator for Fields<'a> {
    /// The key, and the value without the white space around it.
    type Item = (Key<'a>, &'a str);

    #[inline]
    fn next(&mut self) -> Option<(Key<'a>, &'a str)> {
        if let Some(span) = self.noted.next() {
            let quoted = &self.text.as_bytes()[span.key as usize..span.key_end as usize];
            let value = &self.text[span.value as usize..span.value_end as usize];
            return Some((Key { quoted, is_plain: true }, value));
        }
        let raw = self.text.as_bytes();
        let (key_end, is_plain) = key_end(raw, self.at).ok()?;
        let quoted = &raw[self.at..key_end];
        let start = colon_end(raw, key_end).ok()?;
        let end = value_end(raw, start)?;
        self.at = next_start(raw, end);
        Some((Key { quoted, is_plain }, &self.text[start..end]))
    }
}

/// The items of an array, or `None` where `text` is something else; like [`object`].
pub fn array(text: &str) -> Option<Items<'_>> {
    let raw = text.as_bytes();
    let at = skip_space(raw, 0);
    (raw.get(at) == Some(&b'[')).then(|| Items { text, at: skip_space(raw, at + 1) })
}

/// See [`array`].
pub struct Items<'a> {
    text: &'a str,
    /// At a value or the closing bracket.
    at: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let raw = self.text.as_bytes();
        let start = self.at;
        let end = value_end(raw, start).filter(|end| *end > start)?;
        self.at = next_start(raw, end);
        Some(&self.text[start..end])
    }
}

/// Past the comma after a value, or at the closing bracket.
#[inline]
fn next_start(raw: &[u8], value_end: usize) -> usize {
    let at = skip_space(raw, value_end);
    if raw.get(at) == Some(&b',') { skip_space(raw, at + 1) } else { at }
}

/// Past the value that begins at `at`, in checked JSON.
fn value_end(raw: &[u8], at: usize) -> Option<usize> {
    match raw.get(at)? {
        b'"' => Some(string_end(raw, at).ok()?.0),
        b'{' | b'[' => {
            let mut at = at;
            let mut depth = 0usize;
            loop {
                match raw.get(at)? {
                    b'"' => {
                        at = string_end(raw, at).ok()?.0;
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

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut done = 0;
    loop {
        let plain = done + plain_len(&bytes[done..]);
        out.extend_from_slice(&bytes[done..plain]);
        let Some(byte) = bytes.get(plain) else { break };
        let (escape, len) = escape(*byte);
        out.extend_from_slice(&escape[..len]);
        done = plain + 1;
    }
    out.push(b'"');
}

/// [`write_string`] where [`string_len`] has been asked for.
#[inline]
pub fn write_string_of(out: &mut Vec<u8>, text: &str, len: usize) {
    if len != text.len() + 2 {
        return write_string(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// The bytes that [`write_string`] appends.
pub fn string_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut len = bytes.len() + 2;
    let mut at = plain_len(bytes);
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
            let text = &*String::from_utf8_lossy(&raw);
            let _ = (string(text), boolean(text), unsigned(text), integer(text));
            object(text).into_iter().flatten().for_each(|(key, _)| drop(key.name()));
            array(text).into_iter().flatten().for_each(drop);
        }

        #[test]
        fn fields_and_items_are_those_of_a_tree(text in texts()) {
            // A tree cannot hold half a surrogate pair or a huge number.
            if let Ok(tree) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(rebuild(text.trim()), Some(tree));
            }
        }

        #[test]
        fn walking_hands_on_the_fields_that_the_iterator_finds(text in texts()) {
            let (mut walked, mut inner) = (Vec::new(), Vec::new());
            let checked = walk(text.as_bytes(), &mut |key, value, spans| {
                walked.push((key, value));
                inner.push((value, spans.clone()));
            });
            prop_assert!(checked.is_ok());
            let found: Vec<_> = object(&text).into_iter().flatten().collect();
            prop_assert_eq!(walked, found);
            for (value, spans) in inner {
                let noted: Option<Vec<_>> = fields(value, &spans).map(Iterator::collect);
                prop_assert_eq!(noted, object(value).map(Iterator::collect));
            }
        }

        #[test]
        fn the_fields_of_a_value_are_found_however_many_they_are(
            pairs in proptest::collection::vec(("[a-z\\\\n]{0,3}", texts()), 0..3 * JSON_SPANS_MAX), space in "[ \n]{0,2}",
        ) {
            let mut tree = Vec::new();
            let mut written = Vec::new();
            for (key, value) in &pairs {
                let mut quoted = Vec::new();
                write_string(&mut quoted, key);
                let quoted = String::from_utf8(quoted).expect("UTF-8");
                written.push(format!("{space}{quoted}{space}:{space}{value}{space}"));
                tree.push((key.clone().into_bytes(), value.trim().to_owned()));
            }
            let object = format!("{{{}}}", if written.is_empty() { space } else { written.join(",") });
            let message = format!(r#"{{"x":{{"y":1}},"data":{object},"z":[{{"y":1}}]}}"#);
            let mut read = Vec::new();
            let checked = walk(message.as_bytes(), &mut |key, value, spans| {
                if &*key.name() == b"data" {
                    let found = fields(value, spans).into_iter().flatten();
                    read.extend(found.map(|(key, value)| (key.name().into_owned(), value.trim().to_owned())));
                }
            });
            prop_assert!(checked.is_ok(), "{}", message);
            prop_assert_eq!(read, tree);
        }

        #[test]
        fn a_written_string_is_read_back(text in prop_oneof![any::<String>(), "[\\x00-\\x30\"\\\\]{0,40}"]) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(out.len(), string_len(&text));
            let mut as_long = Vec::new();
            write_string_of(&mut as_long, &text, string_len(&text));
            prop_assert_eq!(&as_long, &out);
            prop_assert!(accepts(&out));
            prop_assert_eq!(std::str::from_utf8(&out).ok().and_then(string), Some(Cow::Borrowed(&*text)));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
        }

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

    /// The tree of a text, through this module's readers.
    fn rebuild(text: &str) -> Option<serde_json::Value> {
        if let Some(fields) = object(text) {
            return fields
                .map(|(key, value)| Some((String::from_utf8(key.name().into_owned()).ok()?, rebuild(value)?)))
                .collect();
        }
        if let Some(items) = array(text) {
            return items.map(rebuild).collect();
        }
        if let Some(text) = string(text) {
            return Some(text.into());
        }
        if let Some(value) = boolean(text) {
            return Some(value.into());
        }
        if let Some(number) = unsigned(text) {
            return Some(number.into());
        }
        match integer(text) {
            // The tree has a float for minus zero.
            Some(number) if text != "-0" => Some(number.into()),
            _ => serde_json::from_str(text).ok(),
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
        assert_eq!(string("\"\\ud800\""), None);
        assert_eq!(string("\"\\udf88\\ud83c\""), None);
    }

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

    #[test]
    fn an_error_says_where_and_what_was_expected() {
        let error = check(br#"{"a":1 "b":2}"#).expect_err("no comma");
        assert_eq!(error.to_string(), "not JSON at byte 7: expected `,` or `}`");
    }
}
