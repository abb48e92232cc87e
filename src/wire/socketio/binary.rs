//! Bytes in packets: attachments behind a packet whose JSON holds placeholders, or `{"$bin":"<base64>"}` in
//! JSON alone, as everything else here has them (`wire::msgpack`).
//! Invariants: one pass each way, whatever is nested; a placeholder that is passed on names an attachment that
//! comes with it, and no two name the same, so no attachment is repeated beyond its bytes.

use crate::base::limits::ATTACHMENTS_MAX;
use crate::wire::engine::Malformed;
use crate::wire::json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use memchr::memchr2;

/// Appends JSON in which the placeholders of these attachments are their bytes in base64. `json` has come
/// through [`parse`](super::parse()) with so many attachments.
pub fn embed(out: &mut String, json: &str, attachments: &[impl AsRef<[u8]>]) {
    let base64_len: usize = attachments.iter().map(|bytes| bytes.as_ref().len().div_ceil(3) * 4).sum();
    out.reserve(json.len() + base64_len);
    let mut done = 0;
    scan(json, |place| {
        let Place::Object(start) = place else { return None };
        let (num, end) = placeholder(json, start)?;
        let bytes = attachments.get(num?)?;
        out.push_str(&json[done..start]);
        out.push_str(r#"{"$bin":""#);
        STANDARD.encode_string(bytes, out);
        out.push_str(r#""}"#);
        done = end;
        Some(end)
    });
    out.push_str(&json[done..]);
}

/// The other way: JSON with placeholders for the bytes that were in it, which are appended to `attachments` and
/// numbered from its length on. `None`: `json` is to be used as it is. So it is where it holds no bytes, and
/// where it has a key `_placeholder` of its own: clients would take that for an attachment which does not
/// come, and close. Beyond `ATTACHMENTS_MAX`, which clients refuse, bytes stay where they are.
pub fn extract(json: &str, attachments: &mut Vec<Vec<u8>>) -> Option<String> {
    if !has_bytes(json) {
        return None;
    }
    let before = attachments.len();
    let mut out = String::with_capacity(json.len());
    let mut done = 0;
    let mut is_ambiguous = false;
    scan(json, |place| match place {
        Place::String(start, end) => {
            is_ambiguous |= is_placeholder_key(&json[start..end], &json[end..]);
            None
        }
        Place::Object(start) => {
            let (bytes, end) = bin(json, start).filter(|_| attachments.len() < ATTACHMENTS_MAX)?;
            out.push_str(&json[done..start]);
            out.push_str(r#"{"_placeholder":true,"num":"#);
            out.push_str(itoa::Buffer::new().format(attachments.len()));
            out.push('}');
            attachments.push(bytes);
            done = end;
            Some(end)
        }
    });
    if is_ambiguous {
        attachments.truncate(before);
    }
    if attachments.len() == before {
        return None;
    }
    out.push_str(&json[done..]);
    Some(out)
}

/// Checks the placeholders in the JSON of a packet with so many attachments.
pub(super) fn check(json: &str, attachments: usize) -> Result<(), Malformed> {
    // Without attachments nobody looks for placeholders.
    if attachments == 0 {
        return Ok(());
    }
    let mut is_named = vec![false; attachments];
    let mut is_wrong = false;
    scan(json, |place| {
        let Place::Object(start) = place else { return None };
        let (num, end) = placeholder(json, start)?;
        match num.and_then(|num| is_named.get_mut(num)) {
            Some(is_named) => is_wrong |= std::mem::replace(is_named, true),
            None => is_wrong = true,
        }
        Some(end)
    });
    match is_wrong {
        false => Ok(()),
        true => Err(Malformed::new("a placeholder names no attachment of its packet, or one twice")),
    }
}

/// Arguments whose placeholders are not written as all clients write them, in that form, with their attachments;
/// `None`: they are so already.
pub fn canonical(arguments: &str, attachments: &[Vec<u8>]) -> Option<(String, Vec<Vec<u8>>)> {
    let count = |what: &str| memchr::memmem::find_iter(arguments.as_bytes(), what).count();
    if attachments.is_empty() || count(CANONICAL) == count(PLACEHOLDER) {
        return None;
    }
    let (mut embedded, mut attached) = (String::new(), Vec::new());
    embed(&mut embedded, arguments, attachments);
    let json = extract(&embedded, &mut attached).unwrap_or(embedded);
    Some((json, attached))
}

/// How all clients begin the place of an attachment.
const CANONICAL: &str = r#"{"_placeholder":true,"num":"#;
const BIN: &str = r#""$bin""#;
const PLACEHOLDER: &str = r#""_placeholder""#;
const NUM: &str = r#""num""#;

/// Whether there may be bytes in it. Nearly no text has a dollar, so this is one look for it.
fn has_bytes(json: &str) -> bool {
    let json = json.as_bytes();
    memchr::memchr_iter(b'$', json).any(|at| at > 0 && json[at - 1..].starts_with(BIN.as_bytes()))
}

/// What a [`scan`] comes by.
enum Place {
    /// A string, from its opening quote to past the closing one.
    String(usize, usize),
    /// The opening bracket of an object.
    Object(usize),
}

/// Goes over checked JSON; `visit` says where to go on if not right behind what it was shown.
fn scan(json: &str, mut visit: impl FnMut(Place) -> Option<usize>) {
    let bytes = json.as_bytes();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'{', rest)) {
        let start = at + found;
        at = match bytes[start] {
            b'{' => visit(Place::Object(start)).unwrap_or(start + 1),
            _ => {
                let end = string_end(bytes, start);
                visit(Place::String(start, end)).unwrap_or(end)
            }
        };
    }
}

/// Past the string of checked JSON that begins at `start`.
pub(super) fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        match bytes[at + found] {
            b'"' => return at + found + 1,
            _ => at += found + 2,
        }
    }
    bytes.len()
}

/// Whether this is `_placeholder`, however it is spelled, as a key.
fn is_placeholder_key(string: &str, rest: &str) -> bool {
    const SPELLED_BYTES_MAX: usize = 2 + 6 * (PLACEHOLDER.len() - 2);
    let is_key = || Ahead { text: rest, at: 0 }.takes(":");
    match string.len() <= SPELLED_BYTES_MAX && string.contains('\\') {
        false => string == PLACEHOLDER && is_key(),
        true => json::string(string).is_some_and(|text| PLACEHOLDER[1..].strip_suffix('"') == Some(&*text)) && is_key(),
    }
}

/// The placeholder at `start`: which attachment it names, if it is written as a number, and where it ends.
fn placeholder(json: &str, start: usize) -> Option<(Option<usize>, usize)> {
    let mut ahead = Ahead { text: json, at: start + 1 };
    if ahead.takes(PLACEHOLDER) {
        if !(ahead.takes(":") && ahead.takes("true")) {
            return None;
        }
        let named = (ahead.takes(",") && ahead.takes(NUM) && ahead.takes(":")).then(|| ahead.number()).flatten();
        return Some((named.filter(|_| ahead.takes("}")), ahead.at));
    }
    let named = (ahead.takes(NUM) && ahead.takes(":")).then(|| ahead.number()).flatten()?;
    let is_one = [",", PLACEHOLDER, ":", "true", "}"].into_iter().all(|token| ahead.takes(token));
    is_one.then_some((Some(named), ahead.at))
}

/// The bytes for which the object at `start` stands, and where it ends.
fn bin(json: &str, start: usize) -> Option<(Vec<u8>, usize)> {
    let mut ahead = Ahead { text: json, at: start + 1 };
    if !(ahead.takes(BIN) && ahead.takes(":")) {
        return None;
    }
    let string = ahead.string()?;
    if !ahead.takes("}") {
        return None;
    }
    let bytes = STANDARD.decode(&*json::string(string)?).ok()?;
    Some((bytes, ahead.at))
}

/// Tokens of checked JSON, one after the other.
struct Ahead<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Ahead<'a> {
    fn rest(&mut self) -> &'a str {
        let space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        while self.text.as_bytes().get(self.at).copied().is_some_and(space) {
            self.at += 1;
        }
        &self.text[self.at.min(self.text.len())..]
    }

    fn takes(&mut self, token: &str) -> bool {
        let is_next = self.rest().starts_with(token);
        self.at += if is_next { token.len() } else { 0 };
        is_next
    }

    fn number(&mut self) -> Option<usize> {
        let rest = self.rest();
        let digits = rest.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += digits;
        rest[..digits].parse().ok()
    }

    /// A string, quotes included.
    fn string(&mut self) -> Option<&'a str> {
        self.rest().starts_with('"').then(|| {
            let start = self.at;
            self.at = string_end(self.text.as_bytes(), start);
            &self.text[start..self.at]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::socketio::values;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    const NOTHING: [Vec<u8>; 0] = [];

    fn embedded(json: &str, attachments: &[Vec<u8>]) -> String {
        let mut out = String::from("x");
        embed(&mut out, json, attachments);
        out[1..].to_owned()
    }

    #[test]
    fn placeholders_become_bytes_however_they_are_spaced() {
        let json =
            "[{\"_placeholder\":true,\"num\":1}, {\n\"num\" : 0 ,\t\"_placeholder\" : true } ,\"{\\\"num\\\":0\"]";
        let embedded = embedded(json, &[b"ab".to_vec(), Vec::new()]);
        assert_eq!(embedded, "[{\"$bin\":\"\"}, {\"$bin\":\"YWI=\"} ,\"{\\\"num\\\":0\"]");
    }

    #[test]
    fn bytes_become_placeholders_in_the_order_of_clients() {
        let mut attachments = vec![b"before".to_vec()];
        let json = r#"{"a":[{"$bin":"YWI="},{ "$bin" : "YW\/=" }],"b":{"$bin":"!"},"c":{"$bin":"YWI=","d":1},"e":{"$bin":""}}"#;
        let out = extract(json, &mut attachments);
        let expected = r#"{"a":[{"_placeholder":true,"num":1},{ "$bin" : "YW\/=" }],"b":{"$bin":"!"},"c":{"$bin":"YWI=","d":1},"e":{"_placeholder":true,"num":2}}"#;
        assert_eq!(out.as_deref(), Some(expected));
        assert_eq!(attachments, [b"before".to_vec(), b"ab".to_vec(), Vec::new()]);
    }

    #[test]
    fn json_without_bytes_is_used_as_it_is() {
        for json in [
            "",
            "{}",
            r#"["bin"]"#,
            r#"["$bin"]"#,
            r#"{"a":"\"$bin\":"}"#,
            r#"{"$bin":1}"#,
            r#"{"$bin":{"$bin":null}}"#,
        ] {
            let mut attachments = Vec::new();
            assert_eq!(extract(json, &mut attachments), None, "{json}");
            assert!(attachments.is_empty());
        }
    }

    #[test]
    fn who_writes_a_placeholder_of_its_own_cannot_close_the_connections_of_others() {
        for key in [r#""_placeholder""#, r#""\u005fplaceholder""#, r#""_pl\u0061ceholder" "#] {
            for json in [
                format!(r#"[{{"$bin":"YWI="}},{{{key}:true,"num":7}}]"#),
                format!(r#"[{{"num":7,"x":1,{key}:true}},{{"$bin":"YWI="}}]"#),
            ] {
                let mut attachments = vec![b"before".to_vec()];
                assert_eq!(extract(&json, &mut attachments), None, "{json}");
                assert_eq!(attachments.len(), 1);
            }
        }
        assert!(extract(r#"["_placeholder",{"$bin":"YWI="}]"#, &mut Vec::new()).is_some());
    }

    #[test]
    fn no_more_attachments_are_made_than_clients_take() {
        let json = format!("[{}]", [r#"{"$bin":"YWI="}"#; ATTACHMENTS_MAX + 1].join(","));
        let mut attachments = Vec::new();
        let out = extract(&json, &mut attachments).expect("bytes");
        assert_eq!(attachments.len(), ATTACHMENTS_MAX);
        assert_eq!(out.matches("$bin").count(), 1);
    }

    /// A tree in which each of `attachments` is named once, and the same tree with the bytes.
    fn with_bytes(tree: Value, attachments: &[Vec<u8>]) -> (Value, Value) {
        let place = |value: &dyn Fn(usize, &Vec<u8>) -> Value| {
            let bytes = attachments.iter().enumerate().map(|(num, bytes)| value(num, bytes));
            json!([tree, bytes.collect::<Vec<_>>(), {"x": tree}])
        };
        (
            place(&|num, _| json!({"_placeholder": true, "num": num})),
            place(&|_, bytes| json!({"$bin": STANDARD.encode(bytes)})),
        )
    }

    /// The naive way: all of a tree replaced.
    fn replaced(tree: &Value, attachments: &[Vec<u8>]) -> Value {
        match tree {
            Value::Array(items) => items.iter().map(|item| replaced(item, attachments)).collect(),
            Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
                let num = fields["num"].as_u64().expect("a number") as usize;
                json!({"$bin": STANDARD.encode(&attachments[num])})
            }
            Value::Object(fields) => fields
                .iter()
                .map(|(key, value)| (key.clone(), replaced(value, attachments)))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn embedding_and_extracting_are_inverse(
            tree in values(), is_spaced: bool,
            attachments in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..40), 0..=ATTACHMENTS_MAX,
            ),
        ) {
            let (placed, expected) = with_bytes(tree, &attachments);
            let text = if is_spaced { serde_json::to_string_pretty(&placed) } else { serde_json::to_string(&placed) };
            let text = text.expect("a tree can be written");
            prop_assert!(check(&text, attachments.len()).is_ok());
            prop_assert!(attachments.len() < 2 || check(&text, attachments.len() - 1).is_err());
            let embedded = embedded(&text, &attachments);
            let read: Value = serde_json::from_str(&embedded).expect("JSON");
            prop_assert_eq!(&read, &expected);
            prop_assert_eq!(&read, &replaced(&placed, &attachments));
            let mut found = Vec::new();
            match extract(&embedded, &mut found) {
                Some(text) => {
                    prop_assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), placed);
                    prop_assert_eq!(&found, &attachments);
                }
                None => prop_assert!(attachments.is_empty()),
            }
            if attachments.is_empty() {
                prop_assert_eq!(self::embedded(&text, &NOTHING), text);
            }
        }
    }

    #[test]
    fn placeholders_of_any_spelling_become_those_that_all_clients_read() {
        let attachments = [b"a".to_vec(), b"b".to_vec()];
        let usual = r#"{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}"#;
        assert_eq!(canonical(usual, &attachments), None);
        assert_eq!(canonical("1", &[]), None);
        let other = r#"{ "num" : 1 , "_placeholder" : true },{"_placeholder":true,"num":0}"#;
        let expected = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
        assert_eq!(canonical(other, &attachments), Some((expected.into(), vec![b"b".to_vec(), b"a".to_vec()])));
    }
}
