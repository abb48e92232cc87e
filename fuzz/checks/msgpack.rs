//! MessagePack to JSON and back.

use super::envelope::{is_json, is_same};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringroom::base::limits::JSON_DEPTH_MAX;
use ringroom::wire::codes::WireError;
use ringroom::wire::msgpack::{Refused, from_json, to_json};
use serde_json::Value;

/// Input: a message of a client; taken as MessagePack, and as JSON where it is that.
///
/// - It becomes JSON if and only if a second, naive reader says so, and then the same JSON.
/// - A refusal has a code, and what was written until then is bounded.
/// - JSON that came of MessagePack is the same after another journey; of any JSON the tree is the same.
pub fn msgpack(bytes: &[u8]) {
    let expected = Naive { rest: bytes }.message();
    let mut out = b"before".to_vec();
    let read = to_json(&mut out, bytes, BYTES_MAX);
    let text = out.strip_prefix(b"before").expect("what is there stays");
    // A string may become six times as long before it is looked at.
    assert!(text.len() <= BYTES_MAX + 6 * bytes.len() + 16);
    match (read, expected) {
        (Ok(()), Some(expected)) => {
            assert!(text == expected.as_bytes() && text.len() <= BYTES_MAX && is_json(text));
            assert_eq!(again(&expected), Ok(expected));
        }
        (Err(Refused::TooLarge { bytes_max }), Some(expected)) => {
            assert!(bytes_max == BYTES_MAX && expected.len() > BYTES_MAX);
        }
        (Err(refused), None) => assert!(!WireError::from(refused).message.is_empty()),
        (read, expected) => panic!("{read:?}, not {expected:?}"),
    }
    if is_json(bytes) {
        let text = std::str::from_utf8(bytes).expect("JSON is UTF-8");
        let again = again(text);
        // A tree has no half surrogate pairs and no number beyond a float, which is refused on its way back.
        match serde_json::from_str::<Value>(text) {
            Ok(tree) => {
                let again = again.expect("it unpacks");
                assert!(is_same(&serde_json::from_str(&again).expect("JSON"), &tree), "{again}");
            }
            Err(_) => assert!(again.is_ok() || again == Err(Refused::NoNumber)),
        }
    }
}

/// A bound that small inputs can pass.
const BYTES_MAX: usize = 1_000;

/// JSON packed and unpacked.
fn again(text: &str) -> Result<String, Refused> {
    let mut packed = Vec::new();
    from_json(&mut packed, text);
    let mut out = Vec::new();
    to_json(&mut out, &packed, usize::MAX / 2).map(|()| String::from_utf8(out).expect("JSON is UTF-8"))
}

/// A reader that knows the table of the format and nothing else.
struct Naive<'a> {
    rest: &'a [u8],
}

impl Naive<'_> {
    /// The JSON of one value and nothing behind it.
    fn message(mut self) -> Option<String> {
        self.value(JSON_DEPTH_MAX).filter(|_| self.rest.is_empty())
    }

    fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<u64> {
        self.take(bytes).map(|digits| digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit)))
    }

    fn signed(&mut self, bytes: usize) -> Option<String> {
        let unused = 64 - 8 * bytes as u32;
        self.number(bytes).map(|number| (((number << unused) as i64) >> unused).to_string())
    }

    fn value(&mut self, depth: usize) -> Option<String> {
        let marker = self.take(1)?[0];
        match marker {
            0x00..=0x7F => Some(marker.to_string()),
            0x80..=0x8F => self.map(marker as usize & 0xF, depth),
            0x90..=0x9F => self.array(marker as usize & 0xF, depth),
            0xA0..=0xBF => self.text(marker as usize & 0x1F),
            0xC0 => Some("null".into()),
            0xC2 => Some("false".into()),
            0xC3 => Some("true".into()),
            0xC4..=0xC6 => {
                // As JSON it is an object.
                depth.checked_sub(1)?;
                let len = self.number(1 << (marker - 0xC4))?;
                self.take(len as usize).map(|bytes| format!("{{\"$bin\":\"{}\"}}", STANDARD.encode(bytes)))
            }
            0xCA => float(f64::from(f32::from_bits(self.number(4)? as u32))),
            0xCB => float(f64::from_bits(self.number(8)?)),
            0xCC..=0xCF => self.number(1 << (marker - 0xCC)).map(|number| number.to_string()),
            0xD0..=0xD3 => self.signed(1 << (marker - 0xD0)),
            0xD9..=0xDB => self.number(1 << (marker - 0xD9)).and_then(|len| self.text(len as usize)),
            0xDC | 0xDD => self.number(2 << (marker - 0xDC)).and_then(|len| self.array(len as usize, depth)),
            0xDE | 0xDF => self.number(2 << (marker - 0xDE)).and_then(|len| self.map(len as usize, depth)),
            0xE0..=0xFF => Some((marker as i8).to_string()),
            // Extensions, and what was never given out.
            0xC1 | 0xC7..=0xC9 | 0xD4..=0xD8 => None,
        }
    }

    fn text(&mut self, len: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(len)?).ok()?;
        serde_json::to_string(text).ok()
    }

    fn array(&mut self, len: usize, depth: usize) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        let items: Option<Vec<String>> = (0..len).map(|_| self.value(depth)).collect();
        items.map(|items| format!("[{}]", items.join(",")))
    }

    fn map(&mut self, len: usize, depth: usize) -> Option<String> {
        let depth = depth.checked_sub(1)?;
        let mut field = || {
            let is_text = matches!(self.rest.first()?, 0xA0..=0xBF | 0xD9..=0xDB);
            let key = is_text.then(|| self.value(depth))??;
            Some(format!("{key}:{}", self.value(depth)?))
        };
        let fields: Option<Vec<String>> = (0..len).map(|_| field()).collect();
        fields.map(|fields| format!("{{{}}}", fields.join(",")))
    }
}

fn float(number: f64) -> Option<String> {
    number.is_finite().then(|| serde_json::to_string(&number).ok()).flatten()
}
