//! WebSocket frames of a client, inflated where they are compressed.

use super::choices::{Choices, ends};
use super::inflate::deflated;
use ringroom::base::limits::MESSAGE_BYTES_MAX;
use ringroom::wire::assembler::{Assembler, Event, FrameError, MessageLimits};
use ringroom::wire::codes::CloseCode;
use ringroom::wire::deflate::Inflater;
use ringroom::wire::frame::{BINARY, CLOSE, COMPRESSED, CONTINUATION, CONTROL_BYTES_MAX, PING, PONG, TEXT};
use std::io::{self, Read, Write};
use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

/// Input: limits, cuts, then what a client sends.
///
/// - However the bytes are cut into reads, they have the same events and end with the same error.
/// - No more is held than the limits say, nor twice what came.
/// - What is taken, a second implementation takes for the same, as long as nothing is compressed.
pub fn frames_raw(input: &[u8]) {
    let mut choices = Choices(input);
    let limits = limits(&mut choices);
    let cuts = choices.cuts();
    let bytes = choices.0;
    let whole = played(limits, bytes, &[bytes.len()]);
    is_the_same_in_pieces(limits, bytes, &cuts, &whole);
    if !limits.may_compress {
        let theirs = second_opinion(bytes, limits.message_bytes);
        match whole.error {
            // Registered since: they answer it as a breach of the protocol.
            None if matches!(whole.events.last(), Some(Owned::Close(Some(1014), _))) => {
                assert_eq!(whole.events[..whole.events.len() - 1], theirs[..theirs.len() - 1]);
            }
            None => assert_eq!(whole.events, theirs),
            // We may be stricter, and stop sooner, but say nothing that they do not.
            Some(error) => assert!(theirs.starts_with(&whole.events), "{error:?}, {:?} of {theirs:?}", whole.events),
        }
    }
}

/// Input: limits, cuts, then what messages and control frames a client is to send, and how.
///
/// - What was sent is what comes out, whatever it is compressed with, up to the first that breaks a limit.
/// - Between messages nothing is held.
pub fn frames(input: &[u8]) {
    let mut choices = Choices(input);
    let limits = limits(&mut choices);
    let cuts = choices.cuts();
    let mut client = Client { limits, bytes: Vec::new(), expected: Vec::new(), broken: None };
    while !choices.0.is_empty() && client.broken.is_none() && client.bytes.len() < CLIENT_BYTES_MAX {
        client.send(&mut choices);
    }
    let whole = played(limits, &client.bytes, &[client.bytes.len()]);
    assert_eq!(whole.events, client.expected);
    assert_eq!(whole.error.map(|error| error.code), client.broken);
    let is_over = whole.error.is_some() || matches!(whole.events.last(), Some(Owned::Close(..)));
    assert!(is_over || whole.held == 0, "{} bytes are held between messages", whole.held);
    is_the_same_in_pieces(limits, &client.bytes, &cuts, &whole);
}

/// Longer streams would cost more time than they find.
const CLIENT_BYTES_MAX: usize = 100_000;

fn limits(choices: &mut Choices<'_>) -> MessageLimits {
    let flags = choices.byte();
    let message_bytes = [MESSAGE_BYTES_MAX, 70_000, 300, 126, 125, 10, 1, 0][usize::from(flags >> 1 & 7)];
    let fragments = [16_384, 3, 2, 1][usize::from(flags >> 4 & 3)];
    MessageLimits { message_bytes, fragments, may_compress: flags & 1 == 1 }
}

/// An event that borrows nothing.
#[derive(Clone, PartialEq, Debug)]
enum Owned {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

/// What became of a stream.
#[derive(PartialEq, Debug)]
struct Played {
    events: Vec<Owned>,
    error: Option<FrameError>,
    /// Bytes of heap in the end.
    held: usize,
}

/// Feeds the reads that end at `ends`, up to an error or a close, after which nothing counts.
fn played(limits: MessageLimits, bytes: &[u8], ends: &[usize]) -> Played {
    let mut assembler = Assembler::new(limits);
    let mut inflater = Inflater::default();
    let mut bytes = bytes.to_vec();
    let mut events = Vec::new();
    let mut start = 0;
    for end in ends {
        let read = &mut bytes[start..*end];
        let mut at = 0;
        loop {
            match assembler.next(read, &mut at, &mut inflater) {
                Ok(Some(event)) => events.push(owned(event, &limits)),
                Ok(None) => break,
                Err(error) => return Played { events, error: Some(error), held: 0 },
            }
            if matches!(events.last(), Some(Owned::Close(..))) {
                return Played { events, error: None, held: 0 };
            }
            holds_its_bound(&assembler, &limits, *end);
        }
        assert_eq!(at, read.len(), "all was taken");
        holds_its_bound(&assembler, &limits, *end);
        start = *end;
    }
    Played { events, error: None, held: assembler.bytes_held() }
}

fn holds_its_bound(assembler: &Assembler, limits: &MessageLimits, came: usize) {
    let held = assembler.bytes_held();
    let most = limits.on_the_wire(if limits.may_compress { COMPRESSED } else { TEXT });
    assert!(held <= most + CONTROL_BYTES_MAX + STATE_BYTES_MAX, "{held} bytes are held");
    assert!(held <= 2 * came + STATE_BYTES_MAX, "{held} bytes are held of {came}");
}

/// What a message under way takes beside its bytes.
const STATE_BYTES_MAX: usize = 256;

fn owned(event: Event<'_>, limits: &MessageLimits) -> Owned {
    match event {
        Event::Text(text) => {
            assert!(std::str::from_utf8(text).is_ok() && text.len() <= limits.message_bytes);
            Owned::Text(text.to_vec())
        }
        Event::Binary(bytes) => {
            assert!(bytes.len() <= limits.message_bytes);
            Owned::Binary(bytes.to_vec())
        }
        Event::Ping(bytes) => Owned::Ping(control(bytes)),
        Event::Pong(bytes) => Owned::Pong(control(bytes)),
        Event::Close { code, reason } => {
            assert!(code.is_none_or(|code| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)));
            control(reason.as_bytes());
            Owned::Close(code, reason.to_owned())
        }
    }
}

fn control(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() <= CONTROL_BYTES_MAX);
    bytes.to_vec()
}

fn is_the_same_in_pieces(limits: MessageLimits, bytes: &[u8], cuts: &[u16], whole: &Played) {
    let in_pieces = played(limits, bytes, &ends(cuts, bytes.len()));
    assert_eq!((&in_pieces.events, in_pieces.error), (&whole.events, whole.error), "in pieces: {cuts:?}");
    assert_eq!(in_pieces.held == 0, whole.held == 0);
    if bytes.len() <= BYTEWISE_MAX {
        let ends: Vec<usize> = (1..=bytes.len()).collect();
        let byte_by_byte = played(limits, bytes, &ends);
        assert_eq!((&byte_by_byte.events, byte_by_byte.error), (&whole.events, whole.error), "byte by byte");
    }
}

/// Longer streams are not fed byte by byte, for the sake of time.
const BYTEWISE_MAX: usize = 1_000;

/// A client that keeps to the protocol, except for the size of what it sends.
struct Client {
    limits: MessageLimits,
    bytes: Vec<u8>,
    expected: Vec<Owned>,
    broken: Option<CloseCode>,
}

impl Client {
    fn send(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 8 {
            0 => self.control(choices),
            1 => {
                let code = choices.of([1000, 1001, 1003, 1007, 1014, 3000, 4999]);
                let reason = String::from_utf8_lossy(choices.0.get(..40).unwrap_or(choices.0)).into_owned();
                // After a close nothing counts.
                choices.0 = &[];
                self.frame(CLOSE, true, [9, 9, 9, 9], &[&u16::to_be_bytes(code), reason.as_bytes()].concat());
                self.expected.push(Owned::Close(Some(code), reason));
            }
            kind => self.message(choices, kind & 1 == 0, kind >= 4 && self.limits.may_compress),
        }
    }

    fn control(&mut self, choices: &mut Choices<'_>) {
        let is_ping = choices.byte() & 1 == 0;
        let len = choices.byte() & 0x7F;
        let payload = choices.bytes(usize::from(len).min(CONTROL_BYTES_MAX)).to_vec();
        self.frame(if is_ping { PING } else { PONG }, true, [7, 0, 0, 7], &payload);
        self.expected.push(if is_ping { Owned::Ping(payload) } else { Owned::Pong(payload) });
    }

    fn message(&mut self, choices: &mut Choices<'_>, is_text: bool, is_compressed: bool) {
        let len = usize::from(choices.byte());
        let times = choices.of([1, 1, 1, 1, 2, 3, 30, 300]);
        let once = choices.bytes(len);
        let message = match is_text {
            true => String::from_utf8_lossy(once).repeat(times).into_bytes(),
            false => once.repeat(times),
        };
        let payload = if is_compressed { deflated(choices, &message) } else { message.clone() };
        let mut ends = ends(&choices.cuts(), payload.len());
        // The last frame, or all, may be empty.
        ends.extend((choices.byte() & 3 == 0).then_some(payload.len()));
        let compressed_message = if is_compressed { COMPRESSED } else { 0 };
        let key = choices.word().to_be_bytes();
        let mut start = 0;
        for (place, end) in ends.iter().enumerate() {
            if place > 0 && choices.byte() & 3 == 0 {
                self.control(choices);
            }
            let opcode = match (place, is_text) {
                (0, true) => TEXT,
                (0, false) => BINARY,
                _ => CONTINUATION,
            };
            let compressed = if place == 0 { compressed_message } else { 0 };
            let is_final = place + 1 == ends.len();
            self.frame(opcode | compressed, is_final, [key[0], key[1], 0, 1], &payload[start..*end]);
            // An empty end of a message that was cut evenly is no fragment of it.
            let is_mere_end = place > 0 && is_final && *end == start;
            let fragments = place as u32 + u32::from(!is_mere_end);
            if *end > self.limits.on_the_wire(compressed_message) || fragments > self.limits.fragments {
                return self.broken = Some(CloseCode::TooLarge);
            }
            start = *end;
        }
        if message.len() > self.limits.message_bytes {
            return self.broken = Some(CloseCode::TooLarge);
        }
        self.expected.push(if is_text { Owned::Text(message) } else { Owned::Binary(message) });
    }

    /// Appends a masked frame (`RFC 6455` section 5.2).
    fn frame(&mut self, opcode: u8, is_final: bool, key: [u8; 4], payload: &[u8]) {
        self.bytes.push(if is_final { 0x80 | opcode } else { opcode });
        match payload.len() {
            len @ 0..=125 => self.bytes.push(0x80 | len as u8),
            len @ 126..=0xFFFF => {
                self.bytes.push(0x80 | 126);
                self.bytes.extend((len as u16).to_be_bytes());
            }
            len => {
                self.bytes.push(0x80 | 127);
                self.bytes.extend((len as u64).to_be_bytes());
            }
        }
        self.bytes.extend(key);
        self.bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
}

/// The events that another server's library has of the same bytes, until it finds a fault or a close.
fn second_opinion(bytes: &[u8], message_bytes: usize) -> Vec<Owned> {
    let config = WebSocketConfig::default()
        .read_buffer_size(4_096)
        .max_message_size(Some(message_bytes))
        .max_frame_size(Some(message_bytes.max(CONTROL_BYTES_MAX)));
    let mut server = WebSocket::from_raw_socket(Peer { rest: bytes }, Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        events.push(match server.read() {
            Ok(Message::Text(text)) => Owned::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Owned::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Owned::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Owned::Pong(bytes.to_vec()),
            Ok(Message::Close(None)) => Owned::Close(None, String::new()),
            Ok(Message::Close(Some(close))) => Owned::Close(Some(close.code.into()), close.reason.as_str().to_owned()),
            Ok(Message::Frame(frame)) => unreachable!("{frame:?} is never read"),
            Err(_) => return events,
        });
        if matches!(events.last(), Some(Owned::Close(..))) {
            return events;
        }
    }
}

/// A peer whose bytes have all come and who reads whatever it is sent.
struct Peer<'a> {
    rest: &'a [u8],
}

impl Read for Peer<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.rest.read(out)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
