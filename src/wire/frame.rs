//! WebSocket frames as a server writes them, and the mask that clients put on theirs
//! (`RFC 6455` section 5.2). Invariant: a length is written in its shortest form.

pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = 0x8;
pub const PING: u8 = 0x9;
pub const PONG: u8 = 0xA;
/// Beside the opcode of a message's first frame: it is compressed (`RFC 7692` section 6).
pub const COMPRESSED: u8 = 0x40;

/// The payload of a control frame, bytes.
pub const CONTROL_BYTES_MAX: usize = 125;
/// The reason of a close frame: what a control frame holds, less the code.
pub const REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;
/// The longest header that a server writes.
pub const HEADER_BYTES_MAX: usize = 10;

/// Bytes of the header of an unmasked frame with a payload of `len` bytes.
pub fn header_len(len: usize) -> usize {
    match len {
        0..=125 => 2,
        126..=0xFFFF => 4,
        _ => 10,
    }
}

/// Appends the header of a whole (FIN set), unmasked frame. `opcode` may have [`COMPRESSED`] beside it.
pub fn header(out: &mut Vec<u8>, opcode: u8, len: usize) {
    debug_assert!(opcode & !COMPRESSED <= 0xF);
    let first = 0x80 | opcode;
    match len {
        0..=125 => out.extend_from_slice(&[first, len as u8]),
        126..=0xFFFF => {
            let [high, low] = (len as u16).to_be_bytes();
            out.extend_from_slice(&[first, 126, high, low]);
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// The opcode and the payload of a whole frame of ours.
pub fn parts(frame: &[u8]) -> (u8, &[u8]) {
    // The header's length follows from the whole: each length has one shortest header.
    let header =
        [2, 4, 10].into_iter().find(|header| frame.len().checked_sub(*header).map(header_len) == Some(*header));
    (frame[0] & 0xF, &frame[header.expect("a frame of ours has the shortest header")..])
}

/// The opcode and the payload of the first of several whole frames of ours, and the bytes that it takes in all;
/// `None` where not even one is whole.
pub fn first(frames: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (header, len) = match *frames.get(1)? {
        126 => (4, u16::from_be_bytes(*frames.get(2..)?.first_chunk()?).into()),
        127 => (10, usize::try_from(u64::from_be_bytes(*frames.get(2..)?.first_chunk()?)).ok()?),
        len => (2, usize::from(len)),
    };
    let end = len.checked_add(header)?;
    Some((frames[0] & 0xF, frames.get(header..end)?, end))
}

/// Appends a text frame whose payload is these pieces, one behind the other.
pub fn text_of(out: &mut Vec<u8>, pieces: &[&str]) {
    let len = pieces.iter().map(|piece| piece.len()).sum();
    out.reserve(header_len(len) + len);
    header(out, TEXT, len);
    pieces.iter().for_each(|piece| out.extend_from_slice(piece.as_bytes()));
}

/// Appends a close frame. A reason that does not fit is cut between two characters.
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut len = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(len) {
        len -= 1;
    }
    header(out, CLOSE, 2 + len);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..len]);
}

/// Appends a ping. The payload is ours and at most [`CONTROL_BYTES_MAX`] long.
pub fn ping(out: &mut Vec<u8>, payload: &[u8]) {
    control(out, PING, payload);
}

/// Appends a pong; the payload is that of the ping, which the assembler has bounded.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    control(out, PONG, payload);
}

fn control(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    assert!(payload.len() <= CONTROL_BYTES_MAX, "a control frame of {} bytes", payload.len());
    header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Unmasks `payload` in place, `RFC 6455` section 5.3. `offset` counts the payload bytes of this
/// frame unmasked earlier. Cannot fail, never allocates.
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    // As a number in memory order the key repeats, so whole words are done at once; the loop over
    // arrays of fixed size is what the compiler turns into vector instructions.
    let turned: [u8; 4] = std::array::from_fn(|place| key[(place + offset) & 3]);
    let word = u64::from_ne_bytes(std::array::from_fn(|place| turned[place & 3]));
    let (chunks, rest) = payload.as_chunks_mut::<32>();
    for chunk in chunks {
        let (words, _) = chunk.as_chunks_mut::<8>();
        for bytes in words {
            *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
        }
    }
    let (words, rest) = rest.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (place, byte) in rest.iter_mut().enumerate() {
        *byte ^= turned[place & 3];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tungstenite::protocol::frame::{
        Frame, FrameHeader,
        coding::{Data, OpCode},
    };

    proptest! {
        #[test]
        fn unmasking_agrees_with_the_loop_of_the_rfc(
            payload in proptest::collection::vec(any::<u8>(), 0..200), key: [u8; 4], cut in 0usize..200,
        ) {
            let naive: Vec<u8> = payload.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            let cut = cut.min(payload.len());
            let mut in_two_parts = payload;
            let (first, second) = in_two_parts.split_at_mut(cut);
            unmask(first, key, 0);
            unmask(second, key, cut);
            prop_assert_eq!(in_two_parts, naive);
        }

        #[test]
        fn headers_are_those_of_a_second_implementation(
            len in prop_oneof![0usize..300, 65_000usize..66_000, any::<u32>().prop_map(|len| len as usize)],
        ) {
            let mut ours = Vec::new();
            header(&mut ours, TEXT, len);
            let mut theirs = Vec::new();
            let oracle = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
            oracle.format(len as u64, &mut theirs).expect("a vector takes all");
            prop_assert_eq!(ours.len(), header_len(len));
            prop_assert_eq!(ours, theirs);
        }
    }

    proptest! {
        #[test]
        fn frames_behind_each_other_are_taken_apart(
            lens in proptest::collection::vec(prop_oneof![0usize..300, 65_500usize..65_600], 0..4), cut in 1usize..200,
        ) {
            let mut frames = Vec::new();
            for (nth, len) in lens.iter().enumerate() {
                let payload = "x".repeat(*len);
                match nth % 2 {
                    0 => text_of(&mut frames, &[&payload[..len / 3], &payload[len / 3..]]),
                    _ => { header(&mut frames, BINARY, *len); frames.extend_from_slice(payload.as_bytes()); }
                }
            }
            let mut rest = &*frames;
            for (nth, len) in lens.iter().enumerate() {
                let (opcode, payload, bytes) = first(rest).expect("a whole frame");
                prop_assert_eq!(opcode, if nth % 2 == 0 { TEXT } else { BINARY });
                prop_assert_eq!(payload, &vec![b'x'; *len][..]);
                prop_assert_eq!((opcode, payload), parts(&rest[..bytes]));
                prop_assert_eq!(first(&rest[..bytes.saturating_sub(cut)]), None);
                rest = &rest[bytes..];
            }
            prop_assert_eq!(first(rest), None);
        }
    }

    #[test]
    fn control_frames_are_those_of_a_second_implementation() {
        let mut ours = Vec::new();
        ping(&mut ours, b"abc");
        pong(&mut ours, b"");
        let mut theirs = Vec::new();
        Frame::ping(b"abc".to_vec()).format(&mut theirs).expect("a vector takes all");
        Frame::pong(Vec::new()).format(&mut theirs).expect("a vector takes all");
        assert_eq!(ours, theirs);
    }

    #[test]
    fn a_long_close_reason_is_cut_between_two_characters() {
        let mut out = Vec::new();
        close(&mut out, 4410, &"é".repeat(100));
        assert_eq!(&out[..4], &[0x88, 2 + 122, 0x11, 0x3A]);
        assert_eq!(std::str::from_utf8(&out[4..]), Ok("é".repeat(61).as_str()));
    }
}
