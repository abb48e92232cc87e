//! What a client makes of the server's bytes, however they are cut. Headers are read by
//! tungstenite, so that our encoder is checked by another's rules.

use crate::wire::deflate::Window;
use crate::wire::dialect::{DialectId, NATIVE_JSON, NATIVE_MSGPACK};
use crate::wire::msgpack;
use flate2::{Decompress, FlushDecompress};
use std::io::Cursor;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// One frame of the server. It never cuts a message into several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    Text(String),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close { code: u16, reason: String },
}

pub struct Decoder {
    partial: Vec<u8>,
    /// What was agreed on.
    dialect: DialectId,
    is_closed: bool,
}

impl Decoder {
    pub fn new(dialect: DialectId) -> Decoder {
        Decoder { partial: Vec::new(), dialect, is_closed: false }
    }

    pub fn dialect(&self) -> DialectId {
        self.dialect
    }

    /// Takes bytes in and appends the frames that they complete. An error says what no server may
    /// send.
    pub fn take(&mut self, bytes: &[u8], into: &mut Vec<Received>) -> Result<(), String> {
        self.partial.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((received, len)) = next(&self.partial[at..], self.dialect)? {
            if self.is_closed {
                return Err(format!("{received:?} after the close frame"));
            }
            self.is_closed = matches!(received, Received::Close { .. });
            into.push(received);
            at += len;
        }
        self.partial.drain(..at);
        Ok(())
    }
}

fn next(bytes: &[u8], dialect: DialectId) -> Result<Option<(Received, usize)>, String> {
    let mut cursor = Cursor::new(bytes);
    let header = FrameHeader::parse(&mut cursor).map_err(|error| error.to_string())?;
    let Some((header, len)) = header else { return Ok(None) };
    let start = cursor.position() as usize;
    let end = start + len as usize;
    let Some(payload) = bytes.get(start..end) else { return Ok(None) };
    if !header.is_final || header.rsv2 || header.rsv3 || header.mask.is_some() {
        return Err(format!("a frame of a server is whole, unmasked and plain: {header:?}"));
    }
    let inflated;
    let payload = match (header.rsv1, dialect.window(), header.opcode) {
        (false, ..) => payload,
        (true, Some(window), OpCode::Data(_)) => {
            inflated = inflate(payload, window)?;
            &inflated
        }
        (true, ..) => return Err(format!("a compressed frame that nobody agreed on: {header:?}")),
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string());
    let received = match header.opcode {
        OpCode::Data(Data::Text) if dialect.plain() == NATIVE_JSON => Received::Text(text(payload)?),
        OpCode::Data(Data::Binary) if dialect.plain() == NATIVE_MSGPACK => {
            let mut json = Vec::new();
            msgpack::to_json(&mut json, payload, usize::MAX / 2).map_err(|refused| refused.to_string())?;
            Received::Text(text(&json)?)
        }
        OpCode::Control(Control::Ping) => Received::Ping(payload.to_vec()),
        OpCode::Control(Control::Pong) => Received::Pong(payload.to_vec()),
        OpCode::Control(Control::Close) => {
            let (code, reason) = payload.split_first_chunk().ok_or("a close frame without a code")?;
            Received::Close { code: u16::from_be_bytes(*code), reason: text(reason)? }
        }
        other => return Err(format!("an opcode that this server never uses: {other:?}")),
    };
    Ok(Some((received, end)))
}

/// `RFC 7692` section 7.2.2, with no more window than was agreed on.
fn inflate(payload: &[u8], window: Window) -> Result<Vec<u8>, String> {
    let bits = if window == Window::Full { 15 } else { 9 };
    let mut context = Decompress::new_with_window_bits(false, bits);
    let mut message = Vec::new();
    for part in [payload, &[0, 0, 0xFF, 0xFF]] {
        let mut rest = part;
        while !rest.is_empty() || message.len() == message.capacity() {
            message.reserve(1_000);
            let before = context.total_in();
            let status = context.decompress_vec(rest, &mut message, FlushDecompress::Sync);
            status.map_err(|error| format!("a message that does not inflate: {error}"))?;
            rest = &rest[(context.total_in() - before) as usize..];
        }
    }
    Ok(message)
}
