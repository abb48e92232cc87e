//! One packet: a digit for its type, and text. Invariant: what we write of a session's opening is what clients
//! read of it, and nothing more.

use super::Malformed;
use crate::wire::frame;
use crate::wire::json;
use std::time::Duration;

/// A packet of a client that is text; binary ones are messages and have no type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packet<'a> {
    /// `probe`, where a WebSocket asks whether it may take over.
    Ping(&'a str),
    Pong(&'a str),
    Message(&'a str),
    Close,
    Upgrade,
    Noop,
}

/// Reads one packet, its type digit included.
pub fn parse(text: &str) -> Result<Packet<'_>, Malformed> {
    let refused = |reason| Err(Malformed::new(reason));
    let Some((kind, rest)) = text.split_at_checked(1) else {
        return refused("a packet begins with its type");
    };
    match (kind, rest) {
        ("4", text) => Ok(Packet::Message(text)),
        ("3", text) => Ok(Packet::Pong(text)),
        ("2", text) => Ok(Packet::Ping(text)),
        ("1", "") => Ok(Packet::Close),
        ("5", "") => Ok(Packet::Upgrade),
        ("6", "") => Ok(Packet::Noop),
        ("1" | "5" | "6", _) => refused("a packet of this type carries nothing"),
        ("0", _) => refused("sessions are opened by the server"),
        _ => refused("no such type of packet"),
    }
}

/// Appends a WebSocket text frame with the packet that opens a session. `payload_bytes` is the most that a
/// payload of the client may have, `may_upgrade` whether a WebSocket may take over from this transport.
pub fn open_frame(
    out: &mut Vec<u8>,
    sid: &str,
    may_upgrade: bool,
    ping_interval: Duration,
    ping_timeout: Duration,
    payload_bytes: usize,
) {
    let (mut interval, mut timeout, mut bytes) = (itoa::Buffer::new(), itoa::Buffer::new(), itoa::Buffer::new());
    let mut quoted = Vec::with_capacity(sid.len() + 2);
    json::write_string(&mut quoted, sid);
    frame::text_of(
        out,
        &[
            r#"0{"sid":"#,
            std::str::from_utf8(&quoted).expect("a string is text"),
            r#","upgrades":["#,
            if may_upgrade { r#""websocket""# } else { "" },
            r#"],"pingInterval":"#,
            interval.format(ping_interval.as_millis()),
            r#","pingTimeout":"#,
            timeout.format(ping_timeout.as_millis()),
            r#","maxPayload":"#,
            bytes.format(payload_bytes),
            "}",
        ],
    );
}

/// Appends a WebSocket text frame with a packet of the type `kind`, a digit: `b'2'` ping, `b'3'` pong,
/// `b'4'` message, `b'6'` noop.
pub fn packet_frame(out: &mut Vec<u8>, kind: u8, text: &str) {
    debug_assert!(matches!(kind, b'1'..=b'6'), "no type of packet: {kind}");
    out.reserve(frame::HEADER_BYTES_MAX + 1 + text.len());
    frame::header(out, frame::TEXT, 1 + text.len());
    out.push(kind);
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_are_told_by_their_digit() {
        for (text, packet) in [
            ("1", Packet::Close),
            ("2", Packet::Ping("")),
            ("2probe", Packet::Ping("probe")),
            ("3probe", Packet::Pong("probe")),
            ("4", Packet::Message("")),
            ("4héllo", Packet::Message("héllo")),
            ("5", Packet::Upgrade),
            ("6", Packet::Noop),
        ] {
            assert_eq!(parse(text), Ok(packet), "{text}");
        }
        for text in ["", "0", "0{}", "7", "é", " 2", "+4", "abc", "1x", "5 ", "66", "\u{1e}", "bAAAA"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_session_is_opened_with_exactly_what_clients_read() {
        for (may_upgrade, upgrades) in [(true, r#"["websocket"]"#), (false, "[]")] {
            let mut out = vec![7];
            let (interval, timeout) = (Duration::from_millis(25_000), Duration::from_millis(20_000));
            open_frame(&mut out, "a_-b", may_upgrade, interval, timeout, 1_000_000);
            let (opcode, payload) = frame::parts(&out[1..]);
            assert_eq!(opcode, frame::TEXT);
            let expected = format!(
                r#"0{{"sid":"a_-b","upgrades":{upgrades},"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}}"#
            );
            assert_eq!(std::str::from_utf8(payload), Ok(&*expected));
        }
    }

    proptest! {
        #[test]
        fn packets_that_we_write_are_read_back(kind in b'1'..=b'6', text in "\\PC{0,300}") {
            let mut out = Vec::new();
            packet_frame(&mut out, kind, &text);
            let (opcode, payload) = frame::parts(&out);
            prop_assert_eq!(opcode, frame::TEXT);
            let expected = match kind {
                b'1' => Packet::Close,
                b'2' => Packet::Ping(&text),
                b'3' => Packet::Pong(&text),
                b'4' => Packet::Message(&text),
                b'5' => Packet::Upgrade,
                _ => Packet::Noop,
            };
            let read = parse(std::str::from_utf8(payload).expect("text"));
            match matches!(kind, b'1' | b'5' | b'6') && !text.is_empty() {
                true => prop_assert!(read.is_err()),
                false => prop_assert_eq!(read, Ok(expected)),
            }
        }
    }
}
