//! permessage-deflate, both ways.

use super::choices::Choices;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use ringroom::wire::assembler::FrameError;
use ringroom::wire::codes::CloseCode;
use ringroom::wire::deflate::{Deflater, Inflater, Window};
use ringroom::wire::frame::{self, COMPRESSED, TEXT};

/// Input: a bound, how often the rest is repeated, and the rest; taken as a compressed message, and as
/// one to be compressed.
///
/// - What inflates keeps its bound, and is the same under a larger one and after other messages.
/// - What we compress is shorter, and becomes what it was, in the window that was asked for.
/// - What clients compress, in whatever way, becomes what it was.
pub fn inflate(input: &[u8]) {
    let mut choices = Choices(input);
    let bytes_max = choices.of([0, 1, 100, 1_023, 1_024, 5_000, 30_000]);
    let times = choices.of([1, 1, 2, 100]);
    let how = choices.bytes(4);
    let rest = choices.0;

    let mut inflater = Inflater::default();
    let bounded = owned(inflater.message(rest, bytes_max));
    let larger = owned(inflater.message(rest, LARGE));
    assert_eq!(owned(inflater.message(rest, bytes_max)), bounded, "after other messages");
    match (&bounded, &larger) {
        (Ok(message), larger) => assert!(message.len() <= bytes_max && larger.as_ref() == Ok(message)),
        (Err(CloseCode::TooLarge), Ok(message)) => assert!(message.len() > bytes_max),
        (Err(CloseCode::TooLarge), Err(_)) => {}
        (Err(CloseCode::BadPayload), larger) => assert_eq!(*larger, Err(CloseCode::BadPayload)),
        (Err(code), _) => panic!("{code:?}"),
    }

    let message = rest[..rest.len().min(MESSAGE_BYTES_MAX / times)].repeat(times);
    let from_client = deflated(&mut Choices(how), &message);
    assert!(owned(inflater.message(&from_client, LARGE)).as_ref() == Ok(&message));
    comes_back(&message, &mut inflater);
}

/// More than what is kept from one message to the next.
const LARGE: usize = 70_000;
/// More than the largest window; longer ones would cost more time than they find.
const MESSAGE_BYTES_MAX: usize = 36_000;

fn owned(inflated: Result<&mut [u8], FrameError>) -> Result<Vec<u8>, CloseCode> {
    inflated.map(|message| message.to_vec()).map_err(|error| error.code)
}

/// What we send, to clients with either window, by a context that was used before and by ours.
fn comes_back(message: &[u8], inflater: &mut Inflater) {
    let mut plain = Vec::new();
    frame::header(&mut plain, TEXT, message.len());
    plain.extend_from_slice(message);
    let mut deflater = Deflater::default();
    deflater.set_bytes_min(Some(1));
    let mut earlier: Option<Vec<u8>> = None;
    for window in [Window::Full, Window::Small, Window::Full] {
        let Some(frame) = deflater.frame(&plain, window) else { continue };
        assert!(frame.len() < plain.len() && frame[0] == 0x80 | COMPRESSED | TEXT);
        let (_, payload) = frame::parts(frame);
        assert!(owned(inflater.message(payload, message.len())).as_deref() == Ok(message));
        assert!(inflated_by(payload, if window == Window::Small { 9 } else { 15 }, message.len()) == message);
        if window == Window::Full
            && let Some(earlier) = earlier.replace(frame.to_vec())
        {
            assert!(earlier == frame, "what was compressed before changes nothing");
        }
    }
}

/// A client with a window of so many bits, which reads a few bytes at a time, so that nothing but the
/// window reaches back.
fn inflated_by(payload: &[u8], window_bits: u8, len: usize) -> Vec<u8> {
    let mut context = Decompress::new_with_window_bits(false, window_bits);
    let mut out = Vec::with_capacity(len + 1);
    for piece in payload.chunks(64).chain([&TAIL[..]]) {
        let before = context.total_in();
        context.decompress_vec(piece, &mut out, FlushDecompress::Sync).expect("it inflates");
        assert_eq!(context.total_in() - before, piece.len() as u64);
    }
    out
}

const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];

/// What a client may make of a message: any level, several flushes, or an end of its stream
/// (`RFC 7692` sections 7.2.1 and 7.2.3).
pub fn deflated(choices: &mut Choices<'_>, message: &[u8]) -> Vec<u8> {
    let level = choices.byte() % 10;
    let how = choices.byte();
    let first = usize::from(choices.word()) % (message.len() + 1);
    let mut context = Compress::new(Compression::new(level.into()), false);
    let mut out = Vec::with_capacity(message.len() + message.len() / 10 + 1_000);
    let flush = if how & 1 == 0 { FlushCompress::Sync } else { FlushCompress::Full };
    let last = if how & 2 == 0 { FlushCompress::Sync } else { FlushCompress::Finish };
    let (first, second) = message.split_at(if how & 4 == 0 { 0 } else { first });
    if !first.is_empty() {
        context.compress_vec(first, &mut out, flush).expect("it compresses");
    }
    context.compress_vec(second, &mut out, last).expect("it compresses");
    assert_eq!(context.total_in(), message.len() as u64);
    // A stream that was flushed and went no further has its tail already.
    let is_flushed = matches!(last, FlushCompress::Sync) && out.ends_with(&TAIL);
    out.truncate(out.len() - if is_flushed { TAIL.len() } else { 0 });
    out
}
