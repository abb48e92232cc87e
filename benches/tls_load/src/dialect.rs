//! What servers want to hear: ringroom's own protocol, or two letters for the peers.

#[derive(Clone, Copy, PartialEq)]
pub enum Dialect {
    Ringroom,
    Raw,
}

/// Of a message, beside what marks it.
const TEXT_BYTES: usize = 256;
pub const ROOM: &str = "load:tls";

impl Dialect {
    pub fn upgrade(self, token: &str) -> Vec<u8> {
        let authorization = match self {
            Dialect::Ringroom => format!("Authorization: Bearer {token}\r\n"),
            Dialect::Raw => String::new(),
        };
        let path = if self == Dialect::Ringroom { "/ws" } else { "/" };
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{authorization}\r\n"
        )
        .into_bytes()
    }

    pub fn join(self) -> String {
        match self {
            Dialect::Ringroom => format!(r#"{{"id":"j","event":"room:join","data":{{"room":"{ROOM}"}}}}"#),
            Dialect::Raw => format!("J{ROOM}"),
        }
    }

    pub fn is_joined(self, text: &[u8]) -> bool {
        match self {
            Dialect::Ringroom => holds(text, br#""id":"j""#) && holds(text, br#""ok":true"#),
            Dialect::Raw => text.starts_with(b"J"),
        }
    }

    /// A message of [`TEXT_BYTES`] with who it is from and its number.
    pub fn publish(self, publisher: usize, number: u64) -> String {
        let mark = format!(r#"{{"m":"@{publisher:04}{number:012}","t":""#);
        let fill = "x".repeat(TEXT_BYTES - mark.len() - 2);
        match self {
            Dialect::Ringroom => {
                format!(
                    r#"{{"event":"room:publish","data":{{"room":"{ROOM}","event":"load","data":{mark}{fill}"}}}}}}"#
                )
            }
            Dialect::Raw => format!(r#"P{ROOM}|{mark}{fill}"}}"#),
        }
    }
}

/// Publisher and number of a message, if it is one.
pub fn mark_of(text: &[u8]) -> Option<(usize, u64)> {
    let at = text.iter().position(|byte| *byte == b'@')?;
    let digits = std::str::from_utf8(text.get(at + 1..at + 17)?).ok()?;
    Some((digits[..4].parse().ok()?, digits[4..].parse().ok()?))
}

fn holds(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|bytes| bytes == what)
}

/// A text as a client's frame. The mask is zeros: what is masked with them is as it was.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// The first frame in `bytes`: opcode, where its payload stands, and where the next begins.
pub fn next_frame(bytes: &[u8]) -> Option<(u8, std::ops::Range<usize>)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (start, length) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    let end = start + usize::try_from(length).ok()?;
    (bytes.len() >= end).then_some((first & 0xf, start..end))
}
