//! Spans over what was checked: the fields of an object and the items of an array.

use super::scan::{colon_end, key_end, skip_space, string_end};
use super::values::string;
use crate::base::limits::{JSON_SPANS_MAX, MESSAGE_BYTES_MAX};
use std::borrow::Cow;

/// Places in a text fit into a [`Span`].
const _: () = assert!(MESSAGE_BYTES_MAX <= u32::MAX as usize);

/// Where a field lies in a text.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub(super) struct Span {
    pub(super) key: u32,
    /// 0 for a key with escapes.
    pub(super) key_end: u32,
    pub(super) value: u32,
    pub(super) value_end: u32,
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
    pub(super) fn note(&mut self, field: Span, start: u32) {
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

    /// Begins anew, with another object.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        (self.count, self.is_cut) = (0, false);
    }

    #[inline]
    fn noted(&self) -> &[Span] {
        &self.noted[..self.count as usize]
    }
}

/// The key of a field, not yet read.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Key<'a> {
    pub(super) quoted: &'a [u8],
    /// Without escapes.
    pub(super) is_plain: bool,
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

    /// As it was written, quotes included.
    #[inline]
    pub fn quoted(self) -> &'a [u8] {
        self.quoted
    }

    #[cold]
    fn unescaped(self) -> Vec<u8> {
        let text = std::str::from_utf8(self.quoted).ok().and_then(string);
        text.unwrap_or_default().into_owned().into_bytes()
    }
}

/// The fields of an object, or `None` where `text` is something else. `text` has been checked; of
/// anything else the fields are unspecified, but nothing panics.
pub fn object(text: &str) -> Option<Fields<'_>> {
    fields(text, &Spans::NONE)
}

/// Like [`object`], of a text that [`walk`](super::walk()) came by as the value of a field, or
/// [`walk_items`](super::walk_items()) as an item: `spans` are its own.
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

/// The items of an array whose brackets are cut off; like [`array()`].
pub fn items(text: &str) -> Items<'_> {
    Items { text, at: skip_space(text.as_bytes(), 0) }
}

/// See [`array()`].
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json::tests::texts;
    use crate::wire::json::{boolean, integer, unsigned, walk, walk_items, write_string};
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn fields_and_items_are_those_of_a_tree(text in texts()) {
            // A tree cannot hold half a surrogate pair or a huge number.
            if let Ok(tree) = serde_json::from_str::<serde_json::Value>(&text) {
                prop_assert_eq!(rebuild(text.trim()), Some(tree));
                let inside = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
                let inside: Option<Vec<&str>> = inside.map(|inside| items(inside).collect());
                prop_assert_eq!(inside, array(&text).map(Iterator::collect));
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
        fn walking_hands_on_the_items_that_the_iterator_finds(text in texts()) {
            let mut walked = Vec::new();
            let checked = walk_items(&text, |item, spans| walked.push((item, spans.clone())));
            prop_assert!(checked.is_ok());
            let found: Vec<_> = array(&text).into_iter().flatten().collect();
            prop_assert_eq!(walked.iter().map(|(item, _)| *item).collect::<Vec<_>>(), found);
            for (item, spans) in walked {
                let noted: Option<Vec<_>> = fields(item, &spans).map(Iterator::collect);
                prop_assert_eq!(noted, object(item).map(Iterator::collect));
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
    }
}
