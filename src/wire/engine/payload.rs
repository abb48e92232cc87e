//! Payloads: the packets of one HTTP body. What a client posts is taken apart, and what waits for one as
//! WebSocket frames is rendered, so that both transports are told the same from one outbox.
//! Invariant: a payload that is rendered holds whole frames, so who takes over goes on at a frame's first byte.

use super::Malformed;
use crate::wire::frame;
use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, PAD, STANDARD};

/// Between two packets.
const SEPARATOR: u8 = 0x1E;

/// Clients write the padding; the protocol does not ask for it.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// One packet of a payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part<'a> {
    /// Its type included, one of `1` to `6`.
    Text(&'a str),
    /// A message.
    Binary(Vec<u8>),
}

/// The packets of a POST's body, one by one, up to the first that is none.
pub fn parts(body: &[u8]) -> Parts<'_> {
    Parts { rest: Some(body) }
}

/// See [`parts`].
#[derive(Clone, Debug)]
pub struct Parts<'a> {
    /// `None` at the end; empty only before the first packet of an empty body.
    rest: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    /// What has not been looked at: who pauses goes on with its [`parts`], unless it is empty.
    pub fn rest(&self) -> &'a [u8] {
        self.rest.unwrap_or_default()
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Result<Part<'a>, Malformed>;

    fn next(&mut self) -> Option<Result<Part<'a>, Malformed>> {
        let rest = self.rest.take()?;
        let packet = match memchr::memchr(SEPARATOR, rest) {
            None => rest,
            Some(end) if end + 1 == rest.len() => return Some(Err(EMPTY)),
            Some(end) => {
                self.rest = Some(&rest[end + 1..]);
                &rest[..end]
            }
        };
        let part = part(packet);
        if part.is_err() {
            self.rest = None;
        }
        Some(part)
    }
}

const EMPTY: Malformed = Malformed::new("a packet of a payload is empty");

fn part(packet: &[u8]) -> Result<Part<'_>, Malformed> {
    match packet {
        [b'b', base64 @ ..] => match LENIENT.decode(base64) {
            Ok(bytes) => Ok(Part::Binary(bytes)),
            Err(_) => Err(Malformed::new("a binary packet of a payload is not base64")),
        },
        [b'1'..=b'6', ..] => match simdutf8::basic::from_utf8(packet) {
            Ok(text) => Ok(Part::Text(text)),
            Err(_) => Err(Malformed::new("a packet of a payload is not UTF-8")),
        },
        [] => Err(EMPTY),
        _ => Err(Malformed::new("a packet of a payload has no known type")),
    }
}

/// What was taken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Rendered {
    /// Of the pieces: whole frames.
    pub bytes: usize,
    pub packets: usize,
}

/// Appends the packets that these frames carry, at most `packets_max`, and no more than `bytes_max` bytes unless
/// one packet alone is larger. A piece is whole frames of ours, none of them compressed; pings and pongs of the
/// WebSocket are taken, and are no packets.
pub fn render(pieces: &[&[u8]], packets_max: usize, bytes_max: usize, out: &mut Vec<u8>) -> Rendered {
    let start = out.len();
    let mut rendered = Rendered::default();
    for piece in pieces {
        let mut rest = *piece;
        while let Some((opcode, payload, bytes)) = frame::first(rest) {
            debug_assert_eq!(rest[0] & frame::COMPRESSED, 0, "a payload has no room for compressed frames");
            let len = match opcode {
                frame::TEXT => payload.len(),
                frame::BINARY => 1 + payload.len().div_ceil(3) * 4,
                frame::CLOSE => 1,
                _ => 0,
            };
            if len > 0 {
                let is_first = rendered.packets == 0;
                let fits = out.len() - start + usize::from(!is_first) + len <= bytes_max;
                if rendered.packets == packets_max || !(is_first || fits) {
                    return rendered;
                }
                out.reserve(1 + len);
                if !is_first {
                    out.push(SEPARATOR);
                }
                put(out, opcode, payload, len);
                rendered.packets += 1;
            }
            rendered.bytes += bytes;
            rest = &rest[bytes..];
        }
        assert!(rest.is_empty(), "a piece ends inside a frame");
    }
    rendered
}

/// Appends the packet of `len` bytes that a frame carries.
fn put(out: &mut Vec<u8>, opcode: u8, payload: &[u8], len: usize) {
    match opcode {
        frame::TEXT => out.extend_from_slice(payload),
        frame::CLOSE => out.push(b'1'),
        _ => {
            out.push(b'b');
            let at = out.len();
            out.resize(at + len - 1, 0);
            STANDARD.encode_slice(payload, &mut out[at..]).expect("room for all");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::POLL_PACKETS_MAX;
    use proptest::prelude::*;

    fn all(body: &[u8]) -> Result<Vec<Part<'_>>, Malformed> {
        parts(body).collect()
    }

    #[test]
    fn a_body_is_taken_apart_at_its_separators() {
        let parts = [Part::Text("4héllo"), Part::Binary(vec![1, 2, 3, 4]), Part::Text("2"), Part::Binary(vec![])];
        assert_eq!(all("4héllo\u{1e}bAQIDBA==\u{1e}2\u{1e}b".as_bytes()), Ok(parts.into()));
        assert_eq!(all(b"bAQIDBA"), Ok(vec![Part::Binary(vec![1, 2, 3, 4])]));
    }

    #[test]
    fn what_is_no_packet_ends_a_body() {
        for body in [
            &b""[..],
            b"\x1e",
            b"\x1e4a",
            b"4a\x1e",
            b"4a\x1e\x1e4b",
            b"0{}",
            b"7",
            b"abc",
            b"4\xff",
            b"4\xc3\x1e\xa9",
            b"bAQ!DBA==",
            b"bAQIDB",
            b"bA",
            b"b AQID",
            b"ping",
        ] {
            assert!(all(body).is_err(), "{body:?}");
        }
        // Who pauses is not left with nothing where there is something to complain of.
        assert!(parts(b"4a\x1e").next().expect("an end").is_err());
        let mut parts = parts(b"4a\x1e9\x1e4b");
        assert_eq!(parts.next(), Some(Ok(Part::Text("4a"))));
        assert!(parts.next().expect("an end").is_err());
        assert_eq!((parts.next(), parts.rest()), (None, &b""[..]));
    }

    /// Frames of one packet each, or of none.
    #[derive(Clone, Debug)]
    enum Sent {
        Text(String),
        Binary(Vec<u8>),
        Close,
        Ping,
    }

    impl Sent {
        fn frame(&self) -> Vec<u8> {
            let mut out = Vec::new();
            match self {
                Sent::Text(text) => frame::text_of(&mut out, &["4", text]),
                Sent::Binary(bytes) => {
                    frame::header(&mut out, frame::BINARY, bytes.len());
                    out.extend_from_slice(bytes);
                }
                Sent::Close => frame::close(&mut out, 1000, "bye"),
                Sent::Ping => frame::ping(&mut out, b"x"),
            }
            out
        }

        fn part(&self) -> Option<Vec<u8>> {
            match self {
                Sent::Text(text) => Some(format!("4{text}").into_bytes()),
                Sent::Binary(bytes) => Some(format!("b{}", STANDARD.encode(bytes)).into_bytes()),
                Sent::Close => Some(b"1".to_vec()),
                Sent::Ping => None,
            }
        }
    }

    fn sent() -> impl Strategy<Value = Sent> {
        prop_oneof![
            4 => "\\PC{0,200}".prop_map(Sent::Text),
            2 => proptest::collection::vec(any::<u8>(), 0..200).prop_map(Sent::Binary),
            1 => Just(Sent::Close),
            1 => Just(Sent::Ping),
        ]
    }

    proptest! {
        #[test]
        fn what_is_rendered_poll_by_poll_is_what_was_sent(
            sent in proptest::collection::vec(sent(), 0..60), packets_max in 1usize..=POLL_PACKETS_MAX,
            bytes_max in 0usize..600, in_a_piece in 1usize..5, before in "[a-z]{0,3}",
        ) {
            let pieces: Vec<Vec<u8>> =
                sent.chunks(in_a_piece).map(|some| some.iter().flat_map(Sent::frame).collect()).collect();
            let all = pieces.concat();
            let expected: Vec<Vec<u8>> = sent.iter().filter_map(Sent::part).collect();
            let (mut taken, mut told) = (0, Vec::new());
            while taken < all.len() {
                // What is left, as an outbox hands it out.
                let mut skip = taken;
                let mut rest: Vec<&[u8]> = Vec::new();
                for piece in &pieces {
                    rest.push(&piece[skip.min(piece.len())..]);
                    skip = skip.saturating_sub(piece.len());
                }
                let mut out = before.clone().into_bytes();
                let rendered = render(&rest, packets_max, bytes_max, &mut out);
                prop_assert!(rendered.bytes > 0, "nothing was taken");
                prop_assert!(out.starts_with(before.as_bytes()));
                let payload = &out[before.len()..];
                prop_assert!(payload.len() <= bytes_max || rendered.packets <= 1);
                let packets: Vec<Vec<u8>> = match payload {
                    [] => Vec::new(),
                    payload => payload.split(|byte| *byte == SEPARATOR).map(<[u8]>::to_vec).collect(),
                };
                prop_assert_eq!(packets.len(), rendered.packets);
                prop_assert!(packets.len() <= packets_max);
                taken += rendered.bytes;
                // As much as fits is taken: nothing waits for a poll more than it must.
                if let Some(next) = expected.get(told.len() + packets.len()) {
                    let is_full = packets.len() == packets_max || payload.len() + 1 + next.len() > bytes_max;
                    prop_assert!(is_full);
                }
                told.extend(packets);
            }
            prop_assert_eq!(told, expected);
        }

        #[test]
        fn what_is_rendered_is_taken_apart_again(sent in proptest::collection::vec(sent(), 0..20)) {
            let frames: Vec<u8> = sent.iter().flat_map(Sent::frame).collect();
            let mut out = Vec::new();
            let rendered = render(&[&frames], usize::MAX, usize::MAX, &mut out);
            prop_assert_eq!(rendered.bytes, frames.len());
            let expected: Vec<Vec<u8>> = sent.iter().filter_map(Sent::part).collect();
            let written = |part: Part<'_>| match part {
                Part::Text(text) => text.as_bytes().to_vec(),
                Part::Binary(bytes) => format!("b{}", STANDARD.encode(bytes)).into_bytes(),
            };
            match expected.is_empty() {
                true => prop_assert!(out.is_empty()),
                false => prop_assert_eq!(all(&out).map(|parts| parts.into_iter().map(written).collect()), Ok(expected)),
            }
        }

        #[test]
        fn who_pauses_goes_on_where_the_rest_begins(body in "([0-9b]?[a-zA-Z=]{0,5}\u{1e}?){0,6}", pause in 0usize..6) {
            let whole: Vec<_> = parts(body.as_bytes()).collect();
            let mut first = parts(body.as_bytes());
            let mut read: Vec<_> = first.by_ref().take(pause).collect();
            if !first.rest().is_empty() {
                read.extend(parts(first.rest()));
            } else {
                read.extend(first);
            }
            prop_assert_eq!(read, whole);
        }
    }
}
