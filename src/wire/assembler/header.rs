//! Headers of frames (`RFC 6455` section 5.2).

use super::{FrameError, MessageLimits, TOO_LARGE, protocol};
use crate::wire::frame::{BINARY, COMPRESSED, CONTINUATION, CONTROL_BYTES_MAX, TEXT};

/// Two bytes, a length of eight, a key of four.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// A frame whose header has been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) is_final: bool,
    /// With [`COMPRESSED`] where a compressed message begins.
    pub(super) opcode: u8,
    pub(super) key: [u8; 4],
    pub(super) len: usize,
    /// Payload bytes that have arrived.
    pub(super) taken: usize,
}

impl Frame {
    pub(super) fn is_control(&self) -> bool {
        self.opcode & 0x8 != 0
    }
}

/// Reads the frame header at the start of `bytes`; `None` where it is cut off. Every byte is judged
/// as soon as it is there.
pub(super) fn parse_header(bytes: &[u8], limits: &MessageLimits) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(first) = bytes.first() else { return Ok(None) };
    let is_final = first & 0x80 != 0;
    let opcode = first & 0x0F;
    let is_control = opcode & 0x8 != 0;
    // Only a message's first frame says that it is compressed.
    let may_be_compressed = limits.may_compress && matches!(opcode, TEXT | BINARY);
    let compressed = if may_be_compressed { first & COMPRESSED } else { 0 };
    if first & 0x70 != compressed {
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
    // What a continuation continues is known to whoever has the rest of the message.
    let may_continue_compressed = limits.may_compress && opcode == CONTINUATION;
    let most = limits.on_the_wire(if may_continue_compressed { COMPRESSED } else { compressed });
    if !is_control && len > most {
        return Err(TOO_LARGE);
    }
    let Some(key) = bytes.get(key_at..).and_then(|rest| rest.first_chunk()) else { return Ok(None) };
    Ok(Some((Frame { is_final, opcode: opcode | compressed, key: *key, len, taken: 0 }, key_at + 4)))
}
