//! MessagePack to JSON and back: what clients of `ringroom.v1.msgpack` send becomes the JSON that
//! everything else reads, and what they are sent is made of it.
//! Invariants: nothing that is not JSON comes out of a message, and no more than its bound; a message
//! goes through in one pass, however it is nested.
//!
//! | JSON | MessagePack |
//! | --- | --- |
//! | `null`, `true`, `false` | nil, true, false |
//! | integers of 64 bits, signed or not | int, in the shortest form |
//! | other numbers | float 64 |
//! | string | str |
//! | array | array |
//! | object | map with str keys, in the same order |
//! | `{"$bin":"<base64>"}` | bin |
//!
//! The other way float 32 is a number too. A map with other keys, an extension, a float that is no
//! number, a str that is not UTF-8: JSON has no words for them, and they are refused.

use super::codes::{ErrorCode, Limit, WireError};
use super::json;
use crate::base::limits::JSON_DEPTH_MAX;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmp::{Marker, encode};
use std::fmt;

/// Appends the JSON text `text`, which has been checked.
pub fn from_json(out: &mut Vec<u8>, text: &str) {
    Source { text, at: 0 }.value(out);
}

/// Why a message is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    CutOff,
    /// Something follows the value.
    Trailing,
    TooDeep,
    TooLarge {
        bytes_max: usize,
    },
    Key,
    Extension,
    NoNumber,
    Utf8,
}

/// Appends as JSON the one value that `bytes` are, at most `bytes_max` long.
pub fn to_json(out: &mut Vec<u8>, bytes: &[u8], bytes_max: usize) -> Result<(), Refused> {
    let mut reader = Reader { rest: bytes, out_max: out.len() + bytes_max, bytes_max };
    reader.value(out, JSON_DEPTH_MAX)?;
    match reader.rest.is_empty() {
        true => Ok(()),
        false => Err(Refused::Trailing),
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::CutOff => out.write_str("the message ends inside a value; is it MessagePack?"),
            Refused::Trailing => out.write_str("something follows the message's one value"),
            Refused::TooDeep => write!(out, "the message is nested deeper than {JSON_DEPTH_MAX}"),
            Refused::TooLarge { bytes_max } => write!(out, "the message is more than {bytes_max} bytes as JSON"),
            Refused::Key => out.write_str("keys of maps are strings"),
            Refused::Extension => out.write_str("extension types mean nothing here; send bin, or a map"),
            Refused::NoNumber => out.write_str("a float is no finite number, which JSON cannot say"),
            Refused::Utf8 => out.write_str("a str is not UTF-8; send bytes as bin"),
        }
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for WireError {
    fn from(refused: Refused) -> WireError {
        match refused {
            Refused::TooLarge { .. } => WireError {
                limit: Some(Limit::MessageBytes),
                ..WireError::new(ErrorCode::TooLarge, refused.to_string())
            },
            _ => WireError::new(ErrorCode::BadRequest, refused.to_string()),
        }
    }
}

/// A JSON text that has been checked, and how far it was read.
#[derive(Clone, Copy)]
struct Source<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Source<'a> {
    fn peek(&mut self) -> u8 {
        let bytes = self.text.as_bytes();
        while matches!(bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Takes `mark` if it comes next.
    fn takes(&mut self, mark: u8) -> bool {
        let is_next = self.peek() == mark;
        self.at += usize::from(is_next);
        is_next
    }

    /// The text of a string, quotes included.
    fn string(&mut self) -> &'a str {
        self.peek();
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[end.min(bytes.len())..]) {
            end += found + 1;
            match bytes[end - 1] {
                b'"' => break,
                _ => end += 1,
            }
        }
        self.at = end.min(bytes.len());
        &self.text[start..self.at]
    }

    /// The text of a number or a word.
    fn plain(&mut self) -> &'a str {
        let start = self.at;
        let is_end = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r');
        let rest = &self.text.as_bytes()[start..];
        self.at += rest.iter().position(is_end).unwrap_or(rest.len());
        &self.text[start..self.at]
    }

    /// Recursion is bounded as the text's depth is.
    fn value(&mut self, out: &mut Vec<u8>) {
        match self.peek() {
            b'"' => write_str(out, self.string()),
            b'[' => self.array(out),
            b'{' => match self.bin() {
                Some(bytes) => put(encode::write_bin(out, &bytes)),
                None => self.object(out),
            },
            _ => write_plain(out, self.plain()),
        }
    }

    fn array(&mut self, out: &mut Vec<u8>) {
        let at = begin(out);
        let mut items = 0;
        self.at += 1;
        while !self.takes(b']') && self.at < self.text.len() {
            self.value(out);
            self.takes(b',');
            items += 1;
        }
        end(out, at, |header| put(encode::write_array_len(header, items).map(drop)));
    }

    fn object(&mut self, out: &mut Vec<u8>) {
        let at = begin(out);
        let mut fields = 0;
        self.at += 1;
        while !self.takes(b'}') && self.at < self.text.len() {
            write_str(out, self.string());
            self.takes(b':');
            self.value(out);
            self.takes(b',');
            fields += 1;
        }
        end(out, at, |header| put(encode::write_map_len(header, fields).map(drop)));
    }

    /// Takes an object that stands for bytes, if it is one.
    fn bin(&mut self) -> Option<Vec<u8>> {
        let mut ahead = *self;
        let is_bin = ahead.takes(b'{') && ahead.peek() == b'"' && ahead.string() == "\"$bin\"" && ahead.takes(b':');
        if !is_bin || ahead.peek() != b'"' {
            return None;
        }
        let base64 = json::string(ahead.string())?;
        let bytes = STANDARD.decode(&*base64).ok()?;
        if !ahead.takes(b'}') {
            return None;
        }
        *self = ahead;
        Some(bytes)
    }
}

/// The place of a header whose number is not known yet.
fn begin(out: &mut Vec<u8>) -> usize {
    out.push(0);
    out.len() - 1
}

/// Writes the header. What it needs beyond the byte that was left for it moves the rest.
fn end(out: &mut Vec<u8>, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let mut header = Vec::with_capacity(5);
    write(&mut header);
    match header[..] {
        [byte] => out[at] = byte,
        _ => drop(out.splice(at..at + 1, header)),
    }
}

fn write_str(out: &mut Vec<u8>, text: &str) {
    match json::string(text) {
        Some(text) => put(encode::write_str(out, &text)),
        // JSON can spell half a surrogate pair, UTF-8 cannot.
        None => put(encode::write_str(out, &json::string_lossy(text))),
    }
}

fn write_plain(out: &mut Vec<u8>, text: &str) {
    match text {
        "null" => put_plain(encode::write_nil(out)),
        "true" => put_plain(encode::write_bool(out, true)),
        "false" => put_plain(encode::write_bool(out, false)),
        number => {
            if let Some(number) = json::unsigned(number) {
                put(encode::write_uint(out, number).map(drop));
            } else if let Some(number) = json::integer(number) {
                put(encode::write_sint(out, number).map(drop));
            } else {
                put(encode::write_f64(out, number.parse().unwrap_or(0.0)));
            }
        }
    }
}

fn put<E: fmt::Debug>(written: Result<(), E>) {
    written.expect("a vector takes all");
}

fn put_plain<E: fmt::Debug>(written: Result<(), E>) {
    put(written);
}

struct Reader<'a> {
    rest: &'a [u8],
    /// How long the output may get.
    out_max: usize,
    bytes_max: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Refused::CutOff)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A number of `N` bytes.
    fn number<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Refused::CutOff)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn len8(&mut self) -> Result<usize, Refused> {
        Ok(usize::from(u8::from_be_bytes(self.number()?)))
    }

    fn len16(&mut self) -> Result<usize, Refused> {
        Ok(usize::from(u16::from_be_bytes(self.number()?)))
    }

    fn len32(&mut self) -> Result<usize, Refused> {
        Ok(u32::from_be_bytes(self.number()?) as usize)
    }

    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Refused> {
        let [marker] = self.number()?;
        match Marker::from_u8(marker) {
            Marker::Null => out.extend_from_slice(b"null"),
            Marker::True => out.extend_from_slice(b"true"),
            Marker::False => out.extend_from_slice(b"false"),
            Marker::FixPos(number) => write_number(out, number.into()),
            Marker::FixNeg(number) => write_number(out, number.into()),
            Marker::U8 => write_number(out, u8::from_be_bytes(self.number()?).into()),
            Marker::U16 => write_number(out, u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => write_number(out, u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => write_number(out, u64::from_be_bytes(self.number()?).into()),
            Marker::I8 => write_number(out, i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => write_number(out, i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => write_number(out, i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => write_number(out, i64::from_be_bytes(self.number()?).into()),
            Marker::F32 => write_float(out, f32::from_be_bytes(self.number()?).into())?,
            Marker::F64 => write_float(out, f64::from_be_bytes(self.number()?))?,
            Marker::FixStr(len) => self.str(out, len.into())?,
            Marker::Str8 => self.len8().and_then(|len| self.str(out, len))?,
            Marker::Str16 => self.len16().and_then(|len| self.str(out, len))?,
            Marker::Str32 => self.len32().and_then(|len| self.str(out, len))?,
            Marker::Bin8 => self.len8().and_then(|len| self.bin(out, len, depth))?,
            Marker::Bin16 => self.len16().and_then(|len| self.bin(out, len, depth))?,
            Marker::Bin32 => self.len32().and_then(|len| self.bin(out, len, depth))?,
            Marker::FixArray(len) => self.array(out, len.into(), depth)?,
            Marker::Array16 => self.len16().and_then(|len| self.array(out, len, depth))?,
            Marker::Array32 => self.len32().and_then(|len| self.array(out, len, depth))?,
            Marker::FixMap(len) => self.map(out, len.into(), depth)?,
            Marker::Map16 => self.len16().and_then(|len| self.map(out, len, depth))?,
            Marker::Map32 => self.len32().and_then(|len| self.map(out, len, depth))?,
            Marker::Reserved
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32
            | Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16 => return Err(Refused::Extension),
        }
        match out.len() <= self.out_max {
            true => Ok(()),
            false => Err(Refused::TooLarge { bytes_max: self.bytes_max }),
        }
    }

    fn str(&mut self, out: &mut Vec<u8>, len: usize) -> Result<(), Refused> {
        let text = simdutf8::basic::from_utf8(self.take(len)?).map_err(|_| Refused::Utf8)?;
        json::write_string(out, text);
        Ok(())
    }

    fn bin(&mut self, out: &mut Vec<u8>, len: usize, depth: usize) -> Result<(), Refused> {
        // As JSON it is an object.
        depth.checked_sub(1).ok_or(Refused::TooDeep)?;
        let bytes = self.take(len)?;
        out.extend_from_slice(br#"{"$bin":""#);
        out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
        out.extend_from_slice(br#""}"#);
        Ok(())
    }

    fn array(&mut self, out: &mut Vec<u8>, len: usize, depth: usize) -> Result<(), Refused> {
        let depth = depth.checked_sub(1).ok_or(Refused::TooDeep)?;
        out.push(b'[');
        for item in 0..len {
            if item > 0 {
                out.push(b',');
            }
            self.value(out, depth)?;
        }
        out.push(b']');
        Ok(())
    }

    fn map(&mut self, out: &mut Vec<u8>, len: usize, depth: usize) -> Result<(), Refused> {
        let depth = depth.checked_sub(1).ok_or(Refused::TooDeep)?;
        out.push(b'{');
        for field in 0..len {
            if field > 0 {
                out.push(b',');
            }
            match self.rest.first().map(|marker| Marker::from_u8(*marker)) {
                Some(Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32) => self.value(out, depth)?,
                Some(_) => return Err(Refused::Key),
                None => return Err(Refused::CutOff),
            }
            out.push(b':');
            self.value(out, depth)?;
        }
        out.push(b'}');
        Ok(())
    }
}

fn write_number(out: &mut Vec<u8>, number: i128) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn write_float(out: &mut Vec<u8>, number: f64) -> Result<(), Refused> {
    match number.is_finite() {
        true => serde_json::to_writer(out, &number).map_err(|_| Refused::NoNumber),
        false => Err(Refused::NoNumber),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn packed(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        from_json(&mut out, text);
        out
    }

    fn unpacked(bytes: &[u8]) -> Result<String, Refused> {
        let mut out = Vec::new();
        to_json(&mut out, bytes, 10_000).map(|()| String::from_utf8(out).expect("JSON is UTF-8"))
    }

    #[test]
    fn every_row_of_the_table_goes_both_ways() {
        for (text, bytes) in [
            ("null", &[0xC0][..]),
            ("true", &[0xC3]),
            ("false", &[0xC2]),
            ("0", &[0x00]),
            ("127", &[0x7F]),
            ("128", &[0xCC, 0x80]),
            ("65536", &[0xCE, 0, 1, 0, 0]),
            ("18446744073709551615", &[0xCF, 255, 255, 255, 255, 255, 255, 255, 255]),
            ("-1", &[0xFF]),
            ("-33", &[0xD0, 0xDF]),
            ("-9223372036854775808", &[0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            ("1.5", &[0xCB, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0]),
            (r#""é""#, &[0xA2, 0xC3, 0xA9]),
            (r#""a\"\n""#, &[0xA3, b'a', b'"', b'\n']),
            ("[]", &[0x90]),
            ("[1,[2]]", &[0x92, 1, 0x91, 2]),
            (r#"{"b":1,"a":2}"#, &[0x82, 0xA1, b'b', 1, 0xA1, b'a', 2]),
            (r#"{"$bin":"AQID"}"#, &[0xC4, 3, 1, 2, 3]),
        ] {
            assert_eq!(packed(text), bytes, "{text}");
            assert_eq!(unpacked(bytes).as_deref(), Ok(text));
        }
    }

    #[test]
    fn numbers_of_no_64_bits_and_floats_of_32_are_floats() {
        assert_eq!(unpacked(&packed("1e2")).as_deref(), Ok("100.0"));
        assert_eq!(unpacked(&packed("-9223372036854775809")).as_deref(), Ok("-9.223372036854776e+18"));
        assert_eq!(unpacked(&[0xCA, 0x3F, 0x80, 0, 0]).as_deref(), Ok("1.0"));
    }

    #[test]
    fn only_an_object_of_base64_alone_stands_for_bytes() {
        for text in [r#"{"$bin":"A"}"#, r#"{"$bin":1}"#, r#"{"$bin":"AQID","a":1}"#, r#"{"a":1,"$bin":"AQID"}"#] {
            assert_eq!(unpacked(&packed(text)).as_deref(), Ok(text));
            assert_eq!(packed(text)[0] & 0xF0, 0x80, "{text} is a map");
        }
        assert_eq!(packed(r#" { "$bin" : "" } "#), [0xC4, 0]);
    }

    #[test]
    fn half_a_surrogate_pair_becomes_the_character_for_what_is_none() {
        assert_eq!(unpacked(&packed(r#""a\ud800b""#)).as_deref(), Ok("\"a\u{FFFD}b\""));
    }

    #[test]
    fn long_ones_have_long_headers() {
        for len in [15, 16, 65_535, 65_536] {
            let text = format!("[{}]", vec!["1"; len].join(","));
            let bytes = packed(&text);
            assert_eq!(
                bytes.len(),
                len + if len < 16 {
                    1
                } else if len < 65_536 {
                    3
                } else {
                    5
                }
            );
            let mut again = Vec::new();
            assert_eq!(to_json(&mut again, &bytes, 200_000), Ok(()));
            assert_eq!(again, text.as_bytes());
        }
    }

    #[test]
    fn what_json_has_no_words_for_is_refused() {
        let deep = |depth: usize| [vec![0x91; depth], vec![0xC0]].concat();
        assert!(unpacked(&deep(JSON_DEPTH_MAX)).is_ok());
        let deep_bin = |depth: usize| [vec![0x91; depth], vec![0xC4, 1, 7]].concat();
        assert!(unpacked(&deep_bin(JSON_DEPTH_MAX - 1)).is_ok_and(|text| json::check(text.as_bytes()).is_ok()));
        for (bytes, why) in [
            (&deep(JSON_DEPTH_MAX + 1)[..], Refused::TooDeep),
            (&deep_bin(JSON_DEPTH_MAX), Refused::TooDeep),
            (&[], Refused::CutOff),
            (&[0x92, 1], Refused::CutOff),
            (&[0xDD, 0xFF, 0xFF, 0xFF, 0xFF], Refused::CutOff),
            (&[0xDB, 0xFF, 0xFF, 0xFF, 0xFF, b'a'], Refused::CutOff),
            (&[0x81, 0xA1, b'a'], Refused::CutOff),
            (&[1, 2], Refused::Trailing),
            (&[0x81, 1, 2], Refused::Key),
            (&[0xD4, 1, 1], Refused::Extension),
            (&[0xC1], Refused::Extension),
            (&[0xCB, 0x7F, 0xF0, 0, 0, 0, 0, 0, 0], Refused::NoNumber),
            (&[0xCA, 0x7F, 0xC0, 0, 0], Refused::NoNumber),
            (&[0xA1, 0xFF], Refused::Utf8),
        ] {
            assert_eq!(unpacked(bytes), Err(why), "{bytes:?}");
        }
        let large = [&[0xC5, 0x27, 0x10][..], &[0; 10_000]].concat();
        assert_eq!(unpacked(&large), Err(Refused::TooLarge { bytes_max: 10_000 }));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // Those that the oracle reads to the last bit.
            any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
            "\\PC{0,40}".prop_map(Value::from),
            "[\"\\\\\n\u{1}a]{0,6}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| json!({ "$bin": STANDARD.encode(bytes) })),
        ];
        leaf.prop_recursive(5, 200, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::from),
                proptest::collection::btree_map("[a-z\"\\\\]{0,4}", inner, 0..20)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_packed_unpacks_to_the_same(value in values(), is_pretty: bool) {
            let text = if is_pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let mut again = Vec::new();
            to_json(&mut again, &packed(&text.expect("JSON")), 1 << 20).expect("it unpacks");
            prop_assert!(json::check(&again).is_ok());
            prop_assert_eq!(serde_json::from_slice::<Value>(&again).expect("JSON"), value);
        }

        #[test]
        fn whatever_bytes_come_what_comes_out_is_json_within_its_bound(bytes: Vec<u8>) {
            let mut out = Vec::new();
            if to_json(&mut out, &bytes, 100).is_ok() {
                prop_assert!(out.len() <= 100 && json::check(&out).is_ok());
            }
        }
    }
}
