//! From the bytes of a client to its WebSocket messages (`RFC 6455` section 5), inflated where they came
//! compressed (`RFC 7692` section 7.2.2).
//!
//! Invariant: what is kept is at most one frame header, one partial message of at most
//! [`MessageLimits::on_the_wire`] and one partial control frame; between messages nothing is kept and no heap is
//! owned. Memory grows with bytes that arrived, never with a length that was announced. A frame
//! that lies whole in a read is unmasked where it lies and handed on without a copy.

mod header;
#[cfg(test)]
mod tests;

use super::codes::CloseCode;
use super::deflate::{Inflater, deflated_bytes_max};
use super::frame::{self, BINARY, CLOSE, COMPRESSED, CONTINUATION, CONTROL_BYTES_MAX, PING, TEXT};
use crate::base::limits::{FRAGMENTS_MAX, MESSAGE_BYTES_MAX};
use header::{Frame, HEADER_BYTES_MAX, parse_header};
use std::ops::Range;

/// What messages may be like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageLimits {
    /// Without compression, or as they inflate.
    pub message_bytes: usize,
    /// Frames of one message.
    pub fragments: u32,
    /// Whether the handshake agreed on permessage-deflate.
    pub may_compress: bool,
}

impl Default for MessageLimits {
    fn default() -> MessageLimits {
        MessageLimits { message_bytes: MESSAGE_BYTES_MAX, fragments: FRAGMENTS_MAX, may_compress: false }
    }
}

impl MessageLimits {
    /// What a message that begins with `opcode` may have as it travels, bytes.
    pub fn on_the_wire(&self, opcode: u8) -> usize {
        match opcode & COMPRESSED {
            0 => self.message_bytes,
            _ => deflated_bytes_max(self.message_bytes),
        }
    }
}

/// What a client sent.
#[derive(PartialEq, Debug)]
pub enum Event<'a> {
    /// UTF-8 throughout.
    Text(&'a mut [u8]),
    Binary(&'a mut [u8]),
    Ping(&'a [u8]),
    Pong(&'a [u8]),
    /// Nothing that follows counts: stop feeding.
    Close {
        code: Option<u16>,
        reason: &'a str,
    },
}

/// The connection is to be closed with this code; nothing that follows counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameError {
    pub code: CloseCode,
    pub reason: &'static str,
}

fn protocol(reason: &'static str) -> FrameError {
    FrameError { code: CloseCode::Protocol, reason }
}

const BAD_UTF8: FrameError = FrameError { code: CloseCode::BadPayload, reason: "text that is not UTF-8" };

const TOO_LARGE: FrameError =
    FrameError { code: CloseCode::TooLarge, reason: "the message has more bytes than message_bytes allows" };

/// One client's side of a WebSocket.
#[derive(Debug)]
pub struct Assembler {
    limits: MessageLimits,
    partial: Option<Box<Partial>>,
}

const _: () = assert!(size_of::<Assembler>() <= 64);

/// What has begun and not ended.
#[derive(Default, Debug)]
struct Partial {
    /// A header that was cut off.
    header: [u8; HEADER_BYTES_MAX],
    header_len: usize,
    /// A frame whose payload was cut off.
    frame: Option<Frame>,
    /// The opcode of the message under way, if one is, with [`COMPRESSED`] where that is so.
    message_opcode: Option<u8>,
    message: Vec<u8>,
    /// The part of a text that is known to be UTF-8; at most three bytes less than the whole.
    text_checked: usize,
    fragments: u32,
    /// A control frame that was cut off; it may stand between the fragments of a message.
    control: Vec<u8>,
    /// What the last event borrowed, to be given back.
    lent: Lent,
}

#[derive(Clone, Copy, PartialEq, Default, Debug)]
enum Lent {
    #[default]
    Nothing,
    Message,
    Control,
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message_opcode.is_none()
    }
}

/// Where a whole event lies.
enum Found {
    Input { opcode: u8, range: Range<usize> },
    Message { opcode: u8 },
    Control { opcode: u8 },
}

impl Assembler {
    pub fn new(limits: MessageLimits) -> Assembler {
        Assembler { limits, partial: None }
    }

    /// The next event of `input`, the bytes of one read, from `at` on, which moves behind it. `None`
    /// says that all was taken; ask until then, since it is also when the memory of the last event
    /// is given back. Unmasks inside `input`.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        at: &mut usize,
        inflater: &'a mut Inflater,
    ) -> Result<Option<Event<'a>>, FrameError> {
        self.give_back();
        let Some(found) = self.find(input, at)? else { return Ok(None) };
        let partial = &mut self.partial;
        let (opcode, payload): (u8, &'a mut [u8]) = match found {
            Found::Input { opcode, range } => (opcode, &mut input[range]),
            Found::Message { opcode } => (opcode, partial.as_mut().map_or(&mut [], |partial| &mut partial.message)),
            Found::Control { opcode } => (opcode, partial.as_mut().map_or(&mut [], |partial| &mut partial.control)),
        };
        let payload = match opcode & COMPRESSED {
            0 => payload,
            _ => inflater.message(payload, self.limits.message_bytes)?,
        };
        if opcode == TEXT | COMPRESSED && simdutf8::basic::from_utf8(payload).is_err() {
            return Err(BAD_UTF8);
        }
        Ok(Some(match opcode & !COMPRESSED {
            TEXT => Event::Text(payload),
            BINARY => Event::Binary(payload),
            PING => Event::Ping(payload),
            CLOSE => closing(payload)?,
            _ => Event::Pong(payload),
        }))
    }

    /// Bytes of heap that partial input holds.
    pub fn bytes_held(&self) -> usize {
        let held = |partial: &Partial| size_of::<Partial>() + partial.message.capacity() + partial.control.capacity();
        self.partial.as_deref().map_or(0, held)
    }

    fn give_back(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        match std::mem::take(&mut partial.lent) {
            Lent::Nothing => {}
            Lent::Message => partial.message = Vec::new(),
            Lent::Control => partial.control = Vec::new(),
        }
        if partial.is_empty() {
            self.partial = None;
        }
    }

    fn find(&mut self, input: &mut [u8], at: &mut usize) -> Result<Option<Found>, FrameError> {
        loop {
            let resumed = self.partial.as_mut().and_then(|partial| partial.frame.take());
            let frame = match resumed {
                Some(frame) => frame,
                None => match self.read_header(input, at)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            if let Some(found) = self.take_payload(frame, input, at)? {
                return Ok(Some(found));
            }
            if self.partial.as_ref().is_some_and(|partial| partial.frame.is_some()) {
                return Ok(None);
            }
        }
    }

    /// Reads a header that may have begun in an earlier read, and checks it against the message
    /// under way.
    fn read_header(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Frame>, FrameError> {
        let fresh = &input[*at..];
        if fresh.is_empty() {
            return Ok(None);
        }
        let cut_off = self.partial.as_deref_mut().filter(|partial| partial.header_len > 0);
        let parsed = match cut_off {
            None => parse_header(fresh, &self.limits)?,
            Some(partial) => {
                let had = partial.header_len;
                let copied = fresh.len().min(HEADER_BYTES_MAX - had);
                partial.header[had..had + copied].copy_from_slice(&fresh[..copied]);
                let parsed = parse_header(&partial.header[..had + copied], &self.limits)?;
                match parsed {
                    Some((frame, len)) => {
                        partial.header_len = 0;
                        Some((frame, len - had))
                    }
                    None => {
                        partial.header_len = had + copied;
                        *at += copied;
                        return Ok(None);
                    }
                }
            }
        };
        let Some((frame, len)) = parsed else {
            let partial = self.partial.get_or_insert_default();
            partial.header[..fresh.len()].copy_from_slice(fresh);
            partial.header_len = fresh.len();
            *at = input.len();
            return Ok(None);
        };
        *at += len;
        self.check_sequence(&frame)?;
        Ok(Some(frame))
    }

    /// Whether this frame may follow what came before.
    fn check_sequence(&mut self, frame: &Frame) -> Result<(), FrameError> {
        if frame.is_control() {
            return Ok(());
        }
        let under_way = self.partial.as_deref_mut().filter(|partial| partial.message_opcode.is_some());
        match under_way {
            None if frame.opcode == CONTINUATION => Err(protocol("a continuation of no message")),
            None => Ok(()),
            Some(_) if frame.opcode != CONTINUATION => Err(protocol("a message inside a message")),
            Some(partial) => {
                // Whoever cuts a message into equal pieces may end it with an empty one.
                let is_mere_end = frame.is_final && frame.len == 0;
                partial.fragments += u32::from(!is_mere_end);
                if partial.fragments > self.limits.fragments {
                    return Err(FrameError { code: CloseCode::TooLarge, reason: "too many fragments" });
                }
                // Both are bounded, so the sum cannot overflow.
                let most = self.limits.on_the_wire(partial.message_opcode.unwrap_or_default());
                if partial.message.len() + frame.len > most {
                    return Err(TOO_LARGE);
                }
                Ok(())
            }
        }
    }

    /// Takes what there is of a frame's payload. `None`: the frame is not whole, and kept, or it
    /// was a fragment that ends no message.
    fn take_payload(
        &mut self,
        mut frame: Frame,
        input: &mut [u8],
        at: &mut usize,
    ) -> Result<Option<Found>, FrameError> {
        let start = *at;
        let end = input.len().min(start + (frame.len - frame.taken));
        *at = end;
        let arrived = &mut input[start..end];
        frame::unmask(arrived, frame.key, frame.taken);
        let is_whole_here = arrived.len() == frame.len;
        frame.taken += arrived.len();
        let is_whole = frame.taken == frame.len;
        let opcode = frame.opcode;

        if arrived.is_empty() && !is_whole {
            // No message begins before its first byte: with the next read it may still lie whole.
            self.partial.get_or_insert_default().frame = Some(frame);
            return Ok(None);
        }
        if frame.is_control() {
            if is_whole_here {
                return Ok(Some(Found::Input { opcode, range: start..end }));
            }
            let partial = self.partial.get_or_insert_default();
            append(&mut partial.control, arrived, CONTROL_BYTES_MAX);
            if is_whole {
                partial.lent = Lent::Control;
                return Ok(Some(Found::Control { opcode }));
            }
            partial.frame = Some(frame);
            return Ok(None);
        }

        if is_whole_here && frame.is_final && opcode != CONTINUATION {
            if opcode == TEXT && simdutf8::basic::from_utf8(arrived).is_err() {
                return Err(BAD_UTF8);
            }
            return Ok(Some(Found::Input { opcode, range: start..end }));
        }
        let partial = self.partial.get_or_insert_default();
        let message_opcode = *partial.message_opcode.get_or_insert_with(|| {
            partial.fragments = 1;
            opcode
        });
        append(&mut partial.message, arrived, self.limits.on_the_wire(message_opcode));
        let ends_message = is_whole && frame.is_final;
        if message_opcode == TEXT {
            let unchecked = &partial.message[partial.text_checked..];
            match simdutf8::compat::from_utf8(unchecked) {
                Ok(_) => partial.text_checked = partial.message.len(),
                // Cut inside a character, which the next bytes may complete.
                Err(error) if error.error_len().is_none() && !ends_message => {
                    partial.text_checked += error.valid_up_to();
                }
                Err(_) => return Err(BAD_UTF8),
            }
        }
        if ends_message {
            partial.message_opcode = None;
            partial.text_checked = 0;
            partial.lent = Lent::Message;
            return Ok(Some(Found::Message { opcode: message_opcode }));
        }
        if !is_whole {
            partial.frame = Some(frame);
        }
        Ok(None)
    }
}

/// Appends what has been checked to fit. Memory doubles, but never past the bound.
fn append(kept: &mut Vec<u8>, arrived: &[u8], bytes_max: usize) {
    let len = kept.len() + arrived.len();
    debug_assert!(len <= bytes_max);
    if len > kept.capacity() {
        let doubled = (2 * kept.capacity()).min(bytes_max).max(len);
        kept.reserve_exact(doubled - kept.len());
    }
    kept.extend_from_slice(arrived);
}

/// Reads the payload of a close frame, `RFC 6455` section 5.5.1.
fn closing(payload: &[u8]) -> Result<Event<'_>, FrameError> {
    let Some((digits, reason)) = payload.split_first_chunk() else {
        return match payload.is_empty() {
            true => Ok(Event::Close { code: None, reason: "" }),
            false => Err(protocol("a close frame of one byte")),
        };
    };
    let code = u16::from_be_bytes(*digits);
    // What a peer may send: 1004 to 1006 and 1015 stand for what has no frame.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(protocol("a close code that must not be sent"));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| BAD_UTF8)?;
    Ok(Event::Close { code: Some(code), reason })
}
