//! Streams of frames that a second implementation wrote, cut into reads.

use super::*;
use crate::wire::frame::PONG;
use proptest::prelude::*;
use tungstenite::protocol::frame::{
    Frame as ClientFrame, FrameHeader,
    coding::{Control, Data, OpCode},
};

/// An event that borrows nothing.
#[derive(Clone, PartialEq, Debug)]
enum Owned {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

fn owned(event: Event<'_>) -> Owned {
    match event {
        Event::Text(text) => Owned::Text(text.to_vec()),
        Event::Binary(bytes) => Owned::Binary(bytes.to_vec()),
        Event::Ping(bytes) => Owned::Ping(bytes.to_vec()),
        Event::Pong(bytes) => Owned::Pong(bytes.to_vec()),
        Event::Close { code, reason } => Owned::Close(code, reason.to_owned()),
    }
}

/// Feeds one read.
fn feed(assembler: &mut Assembler, input: &[u8], events: &mut Vec<Owned>) -> Result<(), FrameError> {
    let mut input = input.to_vec();
    let mut at = 0;
    let mut inflater = Inflater::default();
    while let Some(event) = assembler.next(&mut input, &mut at, &mut inflater)? {
        events.push(owned(event));
    }
    assert_eq!(at, input.len(), "all was taken");
    Ok(())
}

/// All events of a stream that arrives in one read.
fn events(input: &[u8]) -> Result<Vec<Owned>, FrameError> {
    let mut events = Vec::new();
    feed(&mut Assembler::new(COMPRESSING), input, &mut events).map(|()| events)
}

/// After a handshake that agreed on compression.
const COMPRESSING: MessageLimits =
    MessageLimits { message_bytes: MESSAGE_BYTES_MAX, fragments: FRAGMENTS_MAX, may_compress: true };

/// What a client sends of a compressed message, less its frames.
fn deflated(message: &[u8]) -> Vec<u8> {
    let mut context = flate2::Compress::new(flate2::Compression::default(), false);
    let mut out = Vec::with_capacity(message.len() + 100);
    context.compress_vec(message, &mut out, flate2::FlushCompress::Sync).expect("it compresses");
    out.truncate(out.len() - 4);
    out
}

fn compressed(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = plain(opcode, is_final, payload);
    frame[0] |= COMPRESSED;
    frame
}

fn code(input: &[u8]) -> Result<Vec<Owned>, CloseCode> {
    events(input).map_err(|error| error.code)
}

/// A client's frame, written by a second implementation.
fn client_frame(opcode: u8, is_final: bool, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let opcode = match opcode {
        CONTINUATION => OpCode::Data(Data::Continue),
        TEXT => OpCode::Data(Data::Text),
        BINARY => OpCode::Data(Data::Binary),
        CLOSE => OpCode::Control(Control::Close),
        PING => OpCode::Control(Control::Ping),
        _ => OpCode::Control(Control::Pong),
    };
    let header = FrameHeader { is_final, opcode, mask: Some(key), ..FrameHeader::default() };
    let mut out = Vec::new();
    ClientFrame::from_payload(header, payload.to_vec().into()).format(&mut out).expect("a vector takes all");
    out
}

fn plain(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
    client_frame(opcode, is_final, [1, 2, 3, 4], payload)
}

/// One message in fragments, with control frames before and between them.
#[derive(Clone, Debug)]
struct Sent {
    message: Owned,
    is_compressed: bool,
    cuts: Vec<prop::sample::Index>,
    controls: Vec<(bool, Vec<u8>)>,
    key: [u8; 4],
}

fn sent() -> impl Strategy<Value = Sent> {
    let len = prop_oneof![4 => 0usize..40, 2 => 100usize..300, 1 => 65_400usize..65_700];
    let text = (len.clone(), "[a-zé中🎈]{1,8}").prop_map(|(len, seed)| {
        let mut text = seed.repeat(len / seed.len() + 1);
        while text.len() > len {
            text.pop();
        }
        Owned::Text(text.into_bytes())
    });
    let binary = (len, any::<u8>())
        .prop_map(|(len, seed)| Owned::Binary((0..len).map(|i| seed.wrapping_add(i as u8)).collect()));
    let control = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..=125));
    (
        prop_oneof![text, binary],
        any::<bool>(),
        proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
        proptest::collection::vec(control, 0..3),
        any::<[u8; 4]>(),
    )
        .prop_map(|(message, is_compressed, cuts, controls, key)| Sent {
            message,
            is_compressed,
            cuts,
            controls,
            key,
        })
}

impl Sent {
    /// Appends the frames and the events that they are to become.
    fn write(&self, bytes: &mut Vec<u8>, expected: &mut Vec<Owned>) {
        let (opcode, payload) = match &self.message {
            Owned::Text(text) => (TEXT, text),
            Owned::Binary(bytes) => (BINARY, bytes),
            other => unreachable!("{other:?} is no message"),
        };
        let payload = if self.is_compressed { &deflated(payload) } else { payload };
        let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(payload.len());
        let mut controls = self.controls.iter();
        let mut start = 0;
        for (place, cut) in cuts.iter().enumerate() {
            if let Some((is_ping, control)) = controls.next() {
                bytes.extend(client_frame(if *is_ping { PING } else { PONG }, true, self.key, control));
                expected.push(if *is_ping { Owned::Ping(control.clone()) } else { Owned::Pong(control.clone()) });
            }
            let opcode = if place == 0 { opcode } else { CONTINUATION };
            let mut frame = client_frame(opcode, place + 1 == cuts.len(), self.key, &payload[start..*cut]);
            if place == 0 && self.is_compressed {
                frame[0] |= COMPRESSED;
            }
            bytes.extend(frame);
            start = *cut;
        }
        expected.push(self.message.clone());
    }
}

proptest! {
    #[test]
    fn however_a_stream_is_cut_into_reads_it_has_the_same_events(
        sent in proptest::collection::vec(sent(), 0..5), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        sent.iter().for_each(|sent| sent.write(&mut bytes, &mut expected));
        prop_assert_eq!(events(&bytes), Ok(expected.clone()));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).chain([bytes.len()]).collect();
        cuts.sort_unstable();
        let mut assembler = Assembler::new(COMPRESSING);
        let (mut found, mut start) = (Vec::new(), 0);
        for cut in cuts {
            prop_assert_eq!(feed(&mut assembler, &bytes[start..cut], &mut found), Ok(()));
            start = cut;
        }
        prop_assert_eq!(found, expected);
        prop_assert_eq!(assembler.bytes_held(), 0);
    }

    #[test]
    fn a_stream_byte_by_byte_has_the_same_events(sent in proptest::collection::vec(sent(), 1..3)) {
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        sent.iter().for_each(|sent| sent.write(&mut bytes, &mut expected));
        let mut assembler = Assembler::new(COMPRESSING);
        let mut found = Vec::new();
        for byte in bytes {
            prop_assert_eq!(feed(&mut assembler, &[byte], &mut found), Ok(()));
        }
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_bytes_make_the_assembler_panic_or_hold_more_than_came(
        reads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8), opcodes: Vec<u8>,
    ) {
        let mut assembler = Assembler::new(MessageLimits { message_bytes: 300, fragments: 3, may_compress: true });
        let mut came = 0;
        for (read, opcode) in reads.iter().zip(opcodes.iter().cycle()) {
            // Noise alone rarely gets past the first two bytes.
            let likely = plain(opcode & 0xF, opcode & 0x80 != 0, &read[..read.len().min(60)]);
            for input in [&likely, read] {
                came += input.len();
                if feed(&mut assembler, input, &mut Vec::new()).is_err() {
                    return Ok(());
                }
                let held = assembler.bytes_held().saturating_sub(size_of::<Partial>());
                prop_assert!(held <= 2 * came && held <= 300 + CONTROL_BYTES_MAX);
            }
        }
    }

    #[test]
    fn text_fails_with_the_first_byte_that_cannot_continue_it(
        text in proptest::collection::vec(prop_oneof![3 => b'a'..=b'z', 2 => any::<u8>()], 1..12),
    ) {
        // The first prefix of which no continuation is UTF-8.
        let fails_at = (1..=text.len()).find(|len| {
            std::str::from_utf8(&text[..*len]).is_err_and(|error| error.error_len().is_some())
        });
        let bytes = plain(TEXT, false, &text);
        let mut assembler = Assembler::new(MessageLimits::default());
        let failed = (0..bytes.len()).find(|at| feed(&mut assembler, &bytes[*at..at + 1], &mut Vec::new()).is_err());
        let header_len = bytes.len() - text.len();
        prop_assert_eq!(failed.map(|at| at + 1 - header_len), fails_at);
    }
}

#[test]
fn a_whole_frame_is_unmasked_where_it_lies() {
    let mut input = plain(TEXT, true, b"hello");
    let place = input[6..].as_ptr();
    let mut assembler = Assembler::new(MessageLimits::default());
    let mut inflater = Inflater::default();
    let Ok(Some(Event::Text(text))) = assembler.next(&mut input, &mut 0, &mut inflater) else { panic!("a text") };
    assert_eq!((&*text, text.as_ptr()), (&b"hello"[..], place));
    assert_eq!(assembler.bytes_held(), 0);
}

#[test]
fn broken_framing_is_a_protocol_error() {
    let rsv = |bit: u8| vec![0x81 | bit, 0x80];
    let mut cases = vec![
        (vec![0x81, 0x05], "no mask"),
        (rsv(0x20), "second reserved bit"),
        (rsv(0x10), "third reserved bit"),
        (vec![0x09, 0x80], "a fragmented ping"),
        (vec![0x89, 0xFE], "a long ping"),
        (vec![0x88, 0xFF], "a long close"),
        (plain(CONTINUATION, true, b"a"), "a continuation of nothing"),
        ([plain(TEXT, false, b"a"), plain(TEXT, true, b"b")].concat(), "a text inside a text"),
        ([plain(TEXT, false, b"a"), plain(BINARY, true, b"b")].concat(), "a binary inside a text"),
        ([plain(TEXT, true, b"a"), plain(CONTINUATION, true, b"b")].concat(), "a continuation of an ended text"),
        (vec![0x82, 0xFE, 0, 125], "a length of 125 in two bytes"),
        ([&[0x82, 0xFF][..], &0xFFFFu64.to_be_bytes()].concat(), "a length of 65535 in eight bytes"),
        ([&[0x82, 0xFF][..], &(1u64 << 63).to_be_bytes()].concat(), "a length of 64 bits"),
    ];
    cases.extend([3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(|opcode| (vec![0x80 | opcode], "a reserved opcode")));
    for (bytes, name) in cases {
        assert_eq!(code(&bytes), Err(CloseCode::Protocol), "{name}");
    }
}

#[test]
fn only_the_first_frame_of_a_message_says_that_it_is_compressed() {
    let hello = deflated(b"Hello");
    assert_eq!(code(&compressed(TEXT, true, &hello)), Ok(vec![Owned::Text(b"Hello".to_vec())]));
    let (first, rest) = hello.split_at(2);
    for (frames, name) in [
        (vec![compressed(TEXT, false, first), compressed(CONTINUATION, true, rest)], "a continuation"),
        (vec![compressed(PING, true, b"")], "a ping"),
        (vec![compressed(CLOSE, true, b"")], "a close"),
    ] {
        assert_eq!(code(&frames.concat()), Err(CloseCode::Protocol), "{name}");
    }
    let mut never_agreed = Assembler::new(MessageLimits::default());
    let refused = feed(&mut never_agreed, &compressed(TEXT, true, &hello), &mut Vec::new());
    assert_eq!(refused.map_err(|error| error.code), Err(CloseCode::Protocol));
}

#[test]
fn a_compressed_message_keeps_the_bounds_of_what_it_inflates_to() {
    let text = |payload: &[u8]| code(&compressed(TEXT, true, &deflated(payload)));
    assert_eq!(text(&[b'a'; MESSAGE_BYTES_MAX]).map(|events| events.len()), Ok(1));
    assert_eq!(text(&[b'a'; MESSAGE_BYTES_MAX + 1]), Err(CloseCode::TooLarge));
    assert_eq!(text(b"a\xFFb"), Err(CloseCode::BadPayload));
    assert_eq!(code(&compressed(BINARY, true, &deflated(b"\xFF"))), Ok(vec![Owned::Binary(vec![0xFF])]));
    assert_eq!(code(&compressed(TEXT, true, b"\x06")), Err(CloseCode::BadPayload));
}

#[test]
fn an_announced_length_is_judged_before_a_byte_is_kept_for_it() {
    let limit = MESSAGE_BYTES_MAX as u64;
    for (len, opcode) in [(limit + 1, 0x82), (u64::MAX >> 1, 0x81), (u64::from(u32::MAX) + 1, 0x82)] {
        let header = [&[opcode, 0xFF][..], &len.to_be_bytes()].concat();
        assert_eq!(code(&header), Err(CloseCode::TooLarge), "{len}");
    }
    let mut assembler = Assembler::new(MessageLimits::default());
    let header = [&[0x82, 0xFF][..], &limit.to_be_bytes(), &[0; 4], &[7; 10]].concat();
    assert_eq!(feed(&mut assembler, &header, &mut Vec::new()), Ok(()));
    assert!(assembler.bytes_held() < 512, "{} bytes are held", assembler.bytes_held());
}

#[test]
fn what_compression_only_makes_larger_may_be_as_large_as_the_rest() {
    /// Stored, in blocks of as little as zlib's settings come to.
    fn stored(message: &[u8]) -> Vec<u8> {
        let block = |bytes: &[u8]| {
            let len = (bytes.len() as u16).to_le_bytes();
            [&[0, len[0], len[1], !len[0], !len[1]], bytes].concat()
        };
        let mut out: Vec<u8> = message.chunks(60).flat_map(block).collect();
        out.push(0);
        out
    }
    let run = |frames: &[Vec<u8>]| {
        let mut events = Vec::new();
        let fed = feed(&mut Assembler::new(COMPRESSING), &frames.concat(), &mut events);
        fed.map(|()| events.len()).map_err(|error| error.code)
    };
    let most = vec![7; MESSAGE_BYTES_MAX];
    let sent = stored(&most);
    assert!(sent.len() > most.len() && sent.len() <= COMPRESSING.on_the_wire(COMPRESSED));
    assert_eq!(run(&[compressed(BINARY, true, &sent)]), Ok(1));
    let (head, rest) = sent.split_at(100);
    assert_eq!(run(&[compressed(BINARY, false, head), plain(CONTINUATION, true, rest)]), Ok(1));
    let more = stored(&vec![7; MESSAGE_BYTES_MAX + 1]);
    assert_eq!(run(&[compressed(BINARY, true, &more)]), Err(CloseCode::TooLarge), "it inflates to too much");
    assert_eq!(run(&[plain(BINARY, true, &sent)]), Err(CloseCode::TooLarge), "without compression");
    assert_eq!(run(&[plain(BINARY, false, head), plain(CONTINUATION, true, &sent)]), Err(CloseCode::TooLarge));
    let endless = vec![0; COMPRESSING.on_the_wire(COMPRESSED)];
    let frames = [compressed(BINARY, false, b"0"), plain(CONTINUATION, false, &endless)];
    assert_eq!(run(&frames), Err(CloseCode::TooLarge), "before it is looked at");
}

#[test]
fn a_message_may_have_as_many_bytes_and_fragments_as_its_limits_say() {
    let limits = MessageLimits { message_bytes: 10, fragments: 3, may_compress: false };
    let with_limits = |frames: &[Vec<u8>]| {
        let mut events = Vec::new();
        feed(&mut Assembler::new(limits), &frames.concat(), &mut events).map(|()| events).map_err(|error| error.code)
    };
    let (first, middle) = (plain(BINARY, false, b"aaaaa"), plain(CONTINUATION, false, b""));
    let last = plain(CONTINUATION, true, b"bbbbb");
    let whole = Owned::Binary(b"aaaaabbbbb".to_vec());
    assert_eq!(with_limits(&[first.clone(), middle.clone(), last.clone()]), Ok(vec![whole.clone()]));
    assert_eq!(
        with_limits(&[first.clone(), last.clone(), first.clone(), last.clone()]),
        Ok(vec![whole.clone(), whole])
    );
    assert_eq!(with_limits(&[first.clone(), middle.clone(), middle, last]), Err(CloseCode::TooLarge));
    let end = plain(CONTINUATION, true, b"");
    let cut_evenly = [first.clone(), plain(CONTINUATION, false, b"bbb"), plain(CONTINUATION, false, b"bb"), end];
    assert_eq!(with_limits(&cut_evenly), Ok(vec![Owned::Binary(b"aaaaabbbbb".to_vec())]));
    assert_eq!(with_limits(&[first, plain(CONTINUATION, true, b"bbbbbb")]), Err(CloseCode::TooLarge));
    assert_eq!(with_limits(&[plain(BINARY, true, &[0; 11])]), Err(CloseCode::TooLarge));
}

#[test]
fn text_that_is_not_utf_8_is_a_bad_payload() {
    for (frames, name) in [
        (vec![plain(TEXT, true, b"a\xFFb")], "in one frame"),
        (vec![plain(TEXT, true, "é".as_bytes().split_at(1).0)], "cut off at the end"),
        (vec![plain(TEXT, false, b"a"), plain(CONTINUATION, true, b"\xC3")], "cut off at the end of a fragment"),
        (vec![plain(TEXT, false, b"\xC3"), plain(CONTINUATION, false, b"a")], "inside a character"),
        (vec![plain(TEXT, false, b"\xF4\x90")], "beyond the last character, before the message ends"),
        (vec![plain(CLOSE, true, b"\x03\xE8\xFF")], "in a close reason"),
    ] {
        assert_eq!(code(&frames.concat()), Err(CloseCode::BadPayload), "{name}");
    }
    assert_eq!(code(&plain(BINARY, true, b"\xFF")), Ok(vec![Owned::Binary(vec![0xFF])]));
}

#[test]
fn close_frames_carry_allowed_codes_only() {
    let closed = |payload: &[u8]| code(&plain(CLOSE, true, payload));
    assert_eq!(closed(b""), Ok(vec![Owned::Close(None, String::new())]));
    assert_eq!(closed(b"\x03\xE8bye"), Ok(vec![Owned::Close(Some(1000), "bye".into())]));
    assert_eq!(closed(b"\x03"), Err(CloseCode::Protocol));
    for number in [1000u16, 1003, 1007, 1011, 1014, 3000, 3999, 4000, 4999] {
        assert_eq!(closed(&number.to_be_bytes()), Ok(vec![Owned::Close(Some(number), String::new())]));
    }
    for number in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(closed(&number.to_be_bytes()), Err(CloseCode::Protocol), "{number}");
    }
}

#[test]
fn a_delivered_message_gives_its_memory_back() {
    let mut assembler = Assembler::new(MessageLimits::default());
    let bytes = plain(BINARY, true, &[7; 100_000]);
    let (first, second) = bytes.split_at(50_000);
    let mut found = Vec::new();
    assert_eq!(feed(&mut assembler, first, &mut found), Ok(()));
    assert!(assembler.bytes_held() > 49_000);
    assert_eq!(feed(&mut assembler, second, &mut found), Ok(()));
    assert_eq!(found, [Owned::Binary(vec![7; 100_000])]);
    assert_eq!(assembler.bytes_held(), 0);
}

#[test]
fn nothing_is_held_once_a_frame_with_a_cut_off_header_is_whole() {
    let mut assembler = Assembler::new(MessageLimits::default());
    let bytes = plain(PONG, true, b"abc");
    let mut found = Vec::new();
    assert_eq!(feed(&mut assembler, &bytes[..3], &mut found), Ok(()));
    assert_eq!(feed(&mut assembler, &bytes[3..], &mut found), Ok(()));
    assert_eq!(found, [Owned::Pong(b"abc".to_vec())]);
    assert_eq!(assembler.bytes_held(), 0);
}

#[test]
fn a_payload_that_comes_whole_after_its_header_leaves_no_message_under_way() {
    let mut assembler = Assembler::new(MessageLimits::default());
    let (first, second) = (plain(BINARY, true, b"a"), plain(TEXT, true, b"b"));
    let mut found = Vec::new();
    for read in [&first[..6], &first[6..], &second] {
        assert_eq!(feed(&mut assembler, read, &mut found), Ok(()));
    }
    assert_eq!(found, [Owned::Binary(b"a".to_vec()), Owned::Text(b"b".to_vec())]);
}
