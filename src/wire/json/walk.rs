//! The check itself: one walk over the bytes, which hands on what it comes by.

use super::JsonError;
use super::fields::{Key, Span, Spans};
use super::scan::{colon_end, key_end, skip_space, string_end};
use crate::base::limits::JSON_DEPTH_MAX;

/// One bit for each open bracket.
const _: () = assert!(JSON_DEPTH_MAX <= u64::BITS as usize);

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
    walk_text::<false>(text, field)
}

/// Like [`walk`], of a text that is UTF-8 already, and where it is an array: hands each of its items on, and
/// where the fields of that item lie.
pub fn walk_items<'a>(text: &'a str, mut item: impl FnMut(&'a str, &Spans)) -> Result<(), JsonError> {
    walk_text::<true>(text, &mut |_, value, spans| item(value, spans))
}

/// `ITEMS`: it is the items of an array that are handed on, without a key.
fn walk_text<'a, const ITEMS: bool>(
    text: &'a str,
    field: &mut dyn FnMut(Key<'a>, &'a str, &Spans),
) -> Result<(), JsonError> {
    let raw = text.as_bytes();
    let syntax = |at, expected| Err(JsonError::Syntax { at, expected });
    let mut at = skip_space(raw, 0);
    let mut depth = 0;
    // The lowest bit is the innermost open bracket: set for an object.
    let mut objects: u64 = 0;
    // The field or item under way in the outermost brackets, the field in a value of that, and those before it.
    let (mut outer, mut value_at) = (Key { quoted: &[], is_plain: true }, 0);
    let mut inner = Span::default();
    let mut spans = Spans::NONE;
    'value: loop {
        match depth {
            1 => {
                value_at = at;
                if ITEMS {
                    spans.clear();
                }
            }
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
            if depth == 1 && is_object != ITEMS {
                field(outer, &text[value_at..at], &spans);
            } else if depth == 2 && is_object {
                inner.value_end = at as u32;
                spans.note(inner, value_at as u32);
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
            spans.clear();
        }
        2 => {
            inner.key = at as u32;
            inner.key_end = if is_plain { end as u32 } else { 0 };
        }
        _ => {}
    }
    colon_end(raw, end)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::tests::texts;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    fn accepts(raw: &[u8]) -> bool {
        check(raw).is_ok()
    }

    /// What two well-kept libraries say together: the standard one of UTF-8, the other of syntax.
    fn oracle(raw: &[u8]) -> bool {
        std::str::from_utf8(raw).is_ok() && serde_json::from_slice::<IgnoredAny>(raw).is_ok()
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
}
