//! Strings as JSON writes them.

use super::scan::{plain_end, plain_len};

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
    use crate::wire::json::{check, string};
    use proptest::prelude::*;
    use std::borrow::Cow;

    proptest! {
        #[test]
        fn a_written_string_is_read_back(text in prop_oneof![any::<String>(), "[\\x00-\\x30\"\\\\]{0,40}"]) {
            let mut out = Vec::new();
            write_string(&mut out, &text);
            prop_assert_eq!(out.len(), string_len(&text));
            let mut as_long = Vec::new();
            write_string_of(&mut as_long, &text, string_len(&text));
            prop_assert_eq!(&as_long, &out);
            prop_assert!(check(&out).is_ok());
            prop_assert_eq!(std::str::from_utf8(&out).ok().and_then(string), Some(Cow::Borrowed(&*text)));
            prop_assert_eq!(serde_json::from_slice::<String>(&out).ok(), Some(text));
        }
    }
}
