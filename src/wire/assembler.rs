//! From the bytes of a client to its WebSocket messages (`RFC 6455` section 5).
//!
//! Invariant: what is kept is at most one frame header, one partial message of at most
//! `message_bytes` and one partial control frame; between messages nothing is kept and no heap is
//! owned. Memory grows with bytes that arrived, never with a length that was announced. A frame
//! that lies whole in a read is unmasked where it lies and handed on without a copy.

use super::codes::CloseCode;
use super::frame::{self, BINARY, CLOSE, CONTINUATION, CONTROL_BYTES_MAX, PING, TEXT};
use crate::base::limits::{FRAGMENTS_MAX, MESSAGE_BYTES_MAX};
use std::ops::Range;

/// How large a message may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MessageLimits {
    pub message_bytes: usize,
    pub fragments: u32,
}

impl Default for MessageLimits {
    fn default() -> MessageLimits {
        MessageLimits { message_bytes: MESSAGE_BYTES_MAX, fragments: FRAGMENTS_MAX }
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
    /// The opcode of the message under way, if one is.
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

/// Two bytes, a length of eight, a key of four.
const HEADER_BYTES_MAX: usize = 14;

/// A frame whose header has been read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    is_final: bool,
    opcode: u8,
    key: [u8; 4],
    len: usize,
    /// Payload bytes that have arrived.
    taken: usize,
}

impl Frame {
    fn is_control(&self) -> bool {
        self.opcode & 0x8 != 0
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
    pub fn next<'a>(&'a mut self, input: &'a mut [u8], at: &mut usize) -> Result<Option<Event<'a>>, FrameError> {
        self.give_back();
        let Some(found) = self.find(input, at)? else { return Ok(None) };
        let partial = &mut self.partial;
        let (opcode, payload): (u8, &'a mut [u8]) = match found {
            Found::Input { opcode, range } => (opcode, &mut input[range]),
            Found::Message { opcode } => (opcode, partial.as_mut().map_or(&mut [], |partial| &mut partial.message)),
            Found::Control { opcode } => (opcode, partial.as_mut().map_or(&mut [], |partial| &mut partial.control)),
        };
        Ok(Some(match opcode {
            TEXT => Event::Text(payload),
            BINARY => Event::Binary(payload),
            PING => Event::Ping(payload),
            CLOSE => closing(payload)?,
            _ => Event::Pong(payload),
        }))
    }

    /// Bytes of heap that partial input holds.
    pub fn bytes_held(&self) -> usize {
        let held =
            |partial: &Box<Partial>| size_of::<Partial>() + partial.message.capacity() + partial.control.capacity();
        self.partial.as_ref().map_or(0, held)
    }

    fn give_back(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        match std::mem::take(&mut partial.lent) {
            Lent::Nothing => return,
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
            None => parse_header(fresh, self.limits.message_bytes)?,
            Some(partial) => {
                let had = partial.header_len;
                let copied = fresh.len().min(HEADER_BYTES_MAX - had);
                partial.header[had..had + copied].copy_from_slice(&fresh[..copied]);
                let parsed = parse_header(&partial.header[..had + copied], self.limits.message_bytes)?;
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
                partial.fragments += 1;
                if partial.fragments > self.limits.fragments {
                    return Err(FrameError { code: CloseCode::TooLarge, reason: "too many fragments" });
                }
                // Both are at most `message_bytes`, so the sum cannot overflow.
                if partial.message.len() + frame.len > self.limits.message_bytes {
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

        if frame.is_control() {
            if is_whole_here {
                return Ok(Some(Found::Input { opcode, range: start..end }));
            }
            let partial = self.partial.get_or_insert_default();
            partial.control.extend_from_slice(arrived);
            if is_whole {
                partial.lent = Lent::Control;
                return Ok(Some(Found::Control { opcode }));
            }
            partial.frame = Some(frame);
            return Ok(None);
        }

        if is_whole_here && frame.is_final && opcode != CONTINUATION {
            if opcode == TEXT && std::str::from_utf8(arrived).is_err() {
                return Err(BAD_UTF8);
            }
            return Ok(Some(Found::Input { opcode, range: start..end }));
        }
        let partial = self.partial.get_or_insert_default();
        let message_opcode = *partial.message_opcode.get_or_insert_with(|| {
            partial.fragments = 1;
            opcode
        });
        partial.message.extend_from_slice(arrived);
        let ends_message = is_whole && frame.is_final;
        if message_opcode == TEXT {
            let unchecked = &partial.message[partial.text_checked..];
            match std::str::from_utf8(unchecked) {
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

const TOO_LARGE: FrameError = FrameError { code: CloseCode::TooLarge, reason: "the message is too large" };

/// Reads the frame header at the start of `bytes`; `None` where it is cut off. Every byte is judged
/// as soon as it is there.
fn parse_header(bytes: &[u8], len_max: usize) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let is_final = first & 0x80 != 0;
    let opcode = first & 0x0F;
    let is_control = opcode & 0x8 != 0;
    if first & 0x70 != 0 {
        return Err(protocol("a reserved bit is set"));
    }
    if matches!(opcode, 0x3..=0x7 | 0xB..=0xF) {
        return Err(protocol("a reserved opcode"));
    }
    if is_control && !is_final {
        return Err(protocol("a fragmented control frame"));
    }
    let Some(second) = bytes.get(1) else { return Ok(None) };
    if second & 0x80 == 0 {
        return Err(protocol("a frame without a mask"));
    }
    let short = second & 0x7F;
    if is_control && short as usize > CONTROL_BYTES_MAX {
        return Err(protocol("a control frame of more than 125 bytes"));
    }
    let (len, key_at) = match short {
        126 => {
            let Some(digits) = bytes.get(2..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
            (u16::from_be_bytes(*digits) as u64, 4)
        }
        127 => {
            let Some(digits) = bytes.get(2..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
            (u64::from_be_bytes(*digits), 10)
        }
        _ => (short as u64, 2),
    };
    if len >> 63 != 0 {
        return Err(protocol("a length of more than 63 bits"));
    }
    if (short == 126 && len < 126) || (short == 127 && len <= 0xFFFF) {
        return Err(protocol("a length that is not in its shortest form"));
    }
    let len = usize::try_from(len).map_err(|_| TOO_LARGE)?;
    if !is_control && len > len_max {
        return Err(TOO_LARGE);
    }
    let Some(key) = bytes.get(key_at..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
    Ok(Some((Frame { is_final, opcode, key: *key, len, taken: 0 }, key_at + 4)))
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
