//! Messages compressed and inflated by permessage-deflate (`RFC 7692` section 7.2), whole and each by
//! itself: one context a shard serves all its connections, since none is carried from message to message.
//! Invariant: what is inflated never grows past the bound of a message, however much it would become.

use super::assembler::FrameError;
use super::codes::CloseCode;
use super::frame;
use crate::base::limits::{DEFLATE_BYTES_MIN, INFLATED_BYTES_KEPT};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// By `benches/deflate`, as `docs/compression.md` has it: the first level with codes made for the message.
/// Level 1 takes half of the instructions and leaves a third more bytes, which every receiver has to be sent.
const LEVEL: u32 = 2;
/// What a flush ends with, and a message does not have (`RFC 7692` section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// The tail, and a last block of nothing: a stream that goes on to here has left no block unfinished.
const TAIL_AND_END: [u8; 9] = [0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];

/// How far back a compressed message may refer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// 32 KiB, which every client takes that does not say otherwise.
    Full,
    /// 256 bytes: for clients that ask for less, which are few, and that is what any of them can do.
    Small,
}

/// Compresses frames.
pub struct Deflater {
    /// Shorter payloads are left as they are.
    bytes_min: usize,
    /// Made when first needed: 371 KiB and 245 KiB, most of it tables that do not shrink with the window.
    full: Option<Box<Compress>>,
    small: Option<Box<Compress>>,
    header: Vec<u8>,
    out: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Deflater {
        Deflater { bytes_min: DEFLATE_BYTES_MIN, full: None, small: None, header: Vec::new(), out: Vec::new() }
    }
}

impl Deflater {
    /// `None`: nothing is compressed.
    pub fn set_bytes_min(&mut self, bytes_min: Option<usize>) {
        self.bytes_min = bytes_min.unwrap_or(usize::MAX);
    }

    /// The frame, plain and whole as [`frame::header`] begins it, compressed; `None` where that does
    /// not pay, and where these are several frames behind each other: it is sent as it is.
    pub fn frame(&mut self, plain: &[u8], window: Window) -> Option<&[u8]> {
        let (opcode, payload, bytes) = frame::first(plain)?;
        if bytes < plain.len() || payload.len() < self.bytes_min {
            return None;
        }
        let (slot, bits) = match window {
            Window::Full => (&mut self.full, 15),
            // Distances of a window of 512 stay under 256, so it serves those with 8 bits too.
            Window::Small => (&mut self.small, 9),
        };
        let context = slot.get_or_insert_with(|| context(bits));
        context.reset();
        self.out.clear();
        self.out.shrink_to(INFLATED_BYTES_KEPT);
        self.out.resize(frame::HEADER_BYTES_MAX, 0);
        // Room for what only grows too. A context without room keeps bytes back, and zlib-rs 0.6.8 forgets
        // at the reset where they lay: it may find no place for later ones, and panic.
        self.out.reserve(deflated_bytes_max(payload.len()));
        let status = context.compress_vec(payload, &mut self.out, FlushCompress::Sync);
        let is_whole = context.total_in() == payload.len() as u64 && self.out.len() < self.out.capacity();
        if !matches!(status, Ok(Status::Ok)) || !is_whole || !self.out.ends_with(&TAIL) {
            *slot = None;
            return None;
        }
        self.out.truncate(self.out.len() - TAIL.len());
        let len = self.out.len() - frame::HEADER_BYTES_MAX;
        if len >= payload.len() {
            return None;
        }
        let start = frame::HEADER_BYTES_MAX - frame::header_len(len);
        self.header.clear();
        frame::header(&mut self.header, frame::COMPRESSED | opcode, len);
        self.out[start..frame::HEADER_BYTES_MAX].copy_from_slice(&self.header);
        Some(&self.out[start..])
    }
}

/// What a message of so many bytes may become where compression can do nothing for it, whatever its sender's
/// zlib is told: an eighth more, and a little (`deflateBound`).
pub const fn deflated_bytes_max(bytes: usize) -> usize {
    bytes + bytes / 8 + 64
}

fn context(window_bits: u8) -> Box<Compress> {
    Box::new(Compress::new_with_window_bits(Compression::new(LEVEL), false, window_bits))
}

/// Inflates messages.
#[derive(Default)]
pub struct Inflater {
    /// Made when first needed: 50 KB.
    context: Option<Box<Decompress>>,
    message: Vec<u8>,
}

impl Inflater {
    /// The message that `compressed` is, at most `bytes_max` long. One that is cut off is refused like
    /// what is no stream at all.
    pub fn message(&mut self, compressed: &[u8], bytes_max: usize) -> Result<&mut [u8], FrameError> {
        let context = self.context.get_or_insert_with(|| Box::new(Decompress::new(false)));
        context.reset(false);
        self.message.clear();
        // All room that is there is filled: none may be left of a message with a larger bound.
        if self.message.capacity() > INFLATED_BYTES_KEPT.min(bytes_max + 1) {
            self.message = Vec::new();
        }
        let mut streams = 1;
        // No byte is a message of nothing; from the first one on, a stream has to end.
        let mut is_whole = true;
        // Some leave the tail on.
        let trimmed = compressed.strip_suffix(&TAIL).unwrap_or(compressed);
        for (mut rest, is_ours) in [(trimmed, false), (&TAIL_AND_END[..], true)] {
            if is_whole && is_ours {
                break;
            }
            // All that was read may have become less than it stands for, for want of room.
            while !rest.is_empty() || self.message.len() == self.message.capacity() {
                let room = room(&self.message, rest.len(), bytes_max).ok_or(TOO_LARGE)?;
                self.message.reserve_exact(room);
                let before = context.total_in();
                let status = context.decompress_vec(rest, &mut self.message, FlushDecompress::Sync);
                let taken = (context.total_in() - before) as usize;
                is_whole &= taken == 0;
                rest = &rest[taken..];
                match status {
                    Ok(Status::Ok) => {}
                    // The last block of a stream: another stream may follow, or nothing.
                    Ok(Status::StreamEnd) if streams < STREAMS_MAX => {
                        streams += 1;
                        is_whole = true;
                        context.reset(false);
                    }
                    // Nothing more comes of it.
                    Ok(Status::BufError) if rest.is_empty() => break,
                    Ok(Status::StreamEnd | Status::BufError) | Err(_) => return Err(NOT_DEFLATE),
                }
            }
        }
        match self.message.len() <= bytes_max {
            true if is_whole => Ok(&mut self.message),
            true => Err(NOT_DEFLATE),
            false => Err(TOO_LARGE),
        }
    }
}

/// For how many bytes to make room behind `message`; `None`: it is longer than it may be. One more
/// than is allowed shows that there are more.
fn room(message: &[u8], compressed: usize, bytes_max: usize) -> Option<usize> {
    let more = message.len().max(4 * compressed).max(INFLATED_BYTES_MIN);
    (bytes_max + 1).checked_sub(message.len()).filter(|left| *left > 0).map(|left| more.min(left))
}

const INFLATED_BYTES_MIN: usize = 1_024;
/// Streams in one message: a client needs one.
const STREAMS_MAX: usize = 16;
const TOO_LARGE: FrameError =
    FrameError { code: CloseCode::TooLarge, reason: "the message inflates to more than message_bytes allows" };
const NOT_DEFLATE: FrameError = FrameError { code: CloseCode::BadPayload, reason: "a message that does not inflate" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{BINARY, COMPRESSED, TEXT};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MAX: usize = 1 << 20;

    fn framed(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame::header(&mut out, opcode, payload.len());
        out.extend_from_slice(payload);
        out
    }

    /// JSON as chats send it, about `bytes` long.
    fn chat(bytes: usize) -> Vec<u8> {
        let mut text = String::from("[");
        for number in 0u64.. {
            if text.len() >= bytes {
                break;
            }
            let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            text += &format!(r#"{{"id":{mixed},"from":"user{}","text":"hello number {number}"}},"#, mixed % 97);
        }
        text.into_bytes()
    }

    /// The frame without the bit that says that it is compressed.
    fn framed_alike(frame: &[u8]) -> Vec<u8> {
        assert_eq!(frame[0] & COMPRESSED, COMPRESSED);
        std::iter::once(frame[0] & !COMPRESSED).chain(frame[1..].iter().copied()).collect()
    }

    /// What a client makes of a compressed frame, with a window of its own size.
    fn inflated(frame: &[u8], window_bits: u8) -> Vec<u8> {
        let plain = framed_alike(frame);
        let (_, payload) = frame::parts(&plain);
        let mut context = Decompress::new_with_window_bits(false, window_bits);
        let mut out = Vec::with_capacity(MAX);
        for part in [payload, &TAIL] {
            // A few bytes at a time, so that nothing but the window reaches back.
            for piece in part.chunks(16) {
                context.decompress_vec(piece, &mut out, FlushDecompress::Sync).expect("it inflates");
            }
        }
        out
    }

    #[test]
    fn a_compressed_frame_is_the_same_message_and_smaller() {
        let mut deflater = Deflater::default();
        for (opcode, bytes) in [(TEXT, 1_024), (BINARY, 70_000), (TEXT, 900_000), (TEXT, 1_100)] {
            let payload = chat(bytes);
            let plain = framed(opcode, &payload);
            let frame = deflater.frame(&plain, Window::Full).expect("it pays").to_vec();
            assert!(frame.len() < plain.len() / 2, "{} of {}", frame.len(), plain.len());
            assert_eq!(frame[0], 0x80 | COMPRESSED | opcode);
            assert_eq!(inflated(&frame, 15), payload);
        }
    }

    #[test]
    fn what_is_small_or_does_not_shrink_is_left_plain() {
        let mut deflater = Deflater::default();
        let noise: Vec<u8> =
            (0..8_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n).to_le_bytes()).collect();
        let noise: Vec<u8> = noise.chunks(4).map(|four| four[0] ^ four[3].rotate_left(3)).collect();
        assert!(deflater.frame(&framed(TEXT, &chat(400)), Window::Full).is_none());
        assert!(deflater.frame(&framed(BINARY, &noise), Window::Full).is_none());
        assert!(deflater.frame(&framed(TEXT, &chat(2_000)), Window::Full).is_some(), "and the next one is well");
    }

    #[test]
    fn several_frames_are_left_plain() {
        let mut deflater = Deflater::default();
        let text = framed(TEXT, &chat(2_000));
        for behind in [framed(BINARY, b"ab"), framed(BINARY, &chat(2_000)), framed(TEXT, b"")] {
            let frames = [&text[..], &behind].concat();
            assert!(deflater.frame(&frames, Window::Full).is_none());
        }
        assert!(deflater.frame(&text, Window::Full).is_some());
    }

    /// Bytes without any pattern.
    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..bytes).map(|_| next()).collect()
    }

    #[test]
    fn what_does_not_shrink_leaves_nothing_behind() {
        // Level 1 is where it was met, by a panic.
        for (level, window) in [(1, Window::Full), (LEVEL, Window::Full), (LEVEL, Window::Small)] {
            let full = Compress::new_with_window_bits(Compression::new(level), false, 15);
            let mut deflater = Deflater { full: Some(Box::new(full)), ..Deflater::default() };
            for (seed, bytes) in [40_000, 70_000, 130_000, 400_000, 600_000, 5_000].into_iter().enumerate() {
                let noise = noise(bytes, seed as u64 + 1);
                assert!(deflater.frame(&framed(BINARY, &noise), window).is_none(), "{bytes} bytes of noise");
                // Half of each: enough of the one that the library's own buffers fill, and it pays all the same.
                let mixed = [&chat(bytes)[..], &noise[..bytes / 2]].concat();
                let frame = deflater.frame(&framed(BINARY, &mixed), window).expect("it pays");
                assert!(inflated(frame, 15) == mixed, "{bytes} bytes, {window:?}");
            }
        }
    }

    #[test]
    fn a_library_with_no_code_in_common_reads_what_is_sent() {
        let mut deflater = Deflater::default();
        for window in [Window::Full, Window::Small] {
            for bytes in [1_024, 1_500, 4_096, 16_384, 70_000, 900_000] {
                let payload = chat(bytes);
                let frame = deflater.frame(&framed(TEXT, &payload), window).expect("it pays").to_vec();
                let header = frame.len() - frame::parts(&framed_alike(&frame)).1.len();
                // The tail that a message lacks, and an empty last block, since it wants an end.
                let stream = [&frame[header..], &TAIL, &[0x03, 0x00]].concat();
                let read = miniz_oxide::inflate::decompress_to_vec(&stream).expect("it inflates");
                assert!(read == payload, "{bytes} bytes, {window:?}");
            }
        }
    }

    #[test]
    fn codes_are_made_for_the_message() {
        // Letters beyond ASCII in no order: nothing repeats, and fixed codes are longer than the letters.
        let letter = |n: u32| {
            let mixed = (n ^ n << 13).wrapping_mul(0x9E37_79B1);
            char::from_u32(0x430 + ((mixed ^ mixed >> 15).wrapping_mul(0x85EB_CA77) >> 27)).expect("Cyrillic")
        };
        let plain = framed(TEXT, (0..3_000).map(letter).collect::<String>().as_bytes());
        let frame = Deflater::default().frame(&plain, Window::Full).expect("it pays").len();
        assert!(frame < plain.len() / 2, "{frame} of {}", plain.len());
    }

    proptest! {
        #[test]
        fn what_one_side_compresses_the_other_inflates(
            seeds in proptest::collection::vec("[a-f]{0,9}", 1..9), times in 1usize..400, is_small: bool,
        ) {
            let payload = seeds.concat().repeat(times).into_bytes();
            let window = if is_small { Window::Small } else { Window::Full };
            let plain = framed(TEXT, &payload);
            if let Some(frame) = Deflater::default().frame(&plain, window) {
                prop_assert!(frame.len() < plain.len());
                prop_assert_eq!(inflated(frame, if is_small { 9 } else { 15 }), payload);
            }
        }

        #[test]
        fn distances_of_the_small_window_stay_within_eight_bits(
            seeds in proptest::collection::vec("[a-z0-9]{1,40}", 1..40),
        ) {
            // What repeats at every distance around 256 and far beyond.
            let once: String = (0..60).map(|n| seeds[n * 7 % seeds.len()].as_str()).collect();
            let payload = once.repeat(6).into_bytes();
            let plain = framed(TEXT, &payload);
            if let Some(frame) = Deflater::default().frame(&plain, Window::Small) {
                prop_assert!(farthest(frame::parts(&framed_alike(frame)).1) <= 256);
            }
        }

        #[test]
        fn no_bytes_make_inflating_panic_or_go_on(bytes: Vec<u8>) {
            if let Ok(message) = Inflater::default().message(&bytes, 10_000) {
                prop_assert!(message.len() <= 10_000);
            }
        }
    }

    /// The greatest distance in a stream of stored and fixed blocks and dynamic ones: walked by hand,
    /// since decoders do not tell (`RFC 1951`).
    fn farthest(stream: &[u8]) -> usize {
        Bits { stream, at: 0 }.farthest()
    }

    struct Bits<'a> {
        stream: &'a [u8],
        at: usize,
    }

    impl Bits<'_> {
        fn take(&mut self, count: usize) -> usize {
            (0..count).fold(0, |value, place| {
                let bit = self.stream.get(self.at / 8).map_or(0, |byte| byte >> (self.at % 8) & 1);
                self.at += 1;
                value | usize::from(bit) << place
            })
        }

        fn farthest(&mut self) -> usize {
            let mut farthest = 0;
            while self.at + 3 <= self.stream.len() * 8 {
                let (_, kind) = (self.take(1), self.take(2));
                match kind {
                    // The stored block of a flush, whose length was cut off with the tail.
                    0 => break,
                    1 => {
                        let lengths: Vec<usize> = (0..288)
                            .map(|symbol| match symbol {
                                0..=143 => 8,
                                144..=255 => 9,
                                256..=279 => 7,
                                _ => 8,
                            })
                            .collect();
                        farthest = farthest.max(self.block(&lengths, &[5; 30]));
                    }
                    2 => {
                        let (literals, distances, orders) = (self.take(5) + 257, self.take(5) + 1, self.take(4) + 4);
                        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
                        let mut of_codes = [0; 19];
                        for place in &ORDER[..orders] {
                            of_codes[*place] = self.take(3);
                        }
                        let of_codes = codes(&of_codes);
                        let mut lengths: Vec<usize> = Vec::new();
                        while lengths.len() < literals + distances {
                            match self.symbol(&of_codes) {
                                16 => {
                                    let (last, times) = (lengths[lengths.len() - 1], self.take(2) + 3);
                                    lengths.extend(std::iter::repeat_n(last, times));
                                }
                                17 => lengths.extend(std::iter::repeat_n(0, self.take(3) + 3)),
                                18 => lengths.extend(std::iter::repeat_n(0, self.take(7) + 11)),
                                len => lengths.push(len),
                            }
                        }
                        let (literals, distances) = lengths.split_at(literals);
                        farthest = farthest.max(self.block(literals, distances));
                    }
                    _ => panic!("no such block"),
                }
            }
            farthest
        }

        fn block(&mut self, literals: &[usize], distances: &[usize]) -> usize {
            let (literals, distances) = (&codes(literals), &codes(distances));
            let mut farthest = 0;
            loop {
                match self.symbol(literals) {
                    0..=255 => {}
                    256 => return farthest,
                    symbol => {
                        let extra = match symbol {
                            257..=264 | 285 => 0,
                            symbol => (symbol - 261) / 4,
                        };
                        self.take(extra);
                        let code = self.symbol(distances);
                        let distance = match code {
                            0..=3 => code + 1,
                            _ => {
                                let extra = code / 2 - 1;
                                ((2 + code % 2) << extra) + 1 + self.take(extra)
                            }
                        };
                        farthest = farthest.max(distance);
                    }
                }
            }
        }

        /// The next symbol, bit by bit.
        fn symbol(&mut self, codes: &Codes) -> usize {
            let mut code = 0;
            (1..=15)
                .find_map(|len| {
                    code = code << 1 | self.take(1);
                    codes.get(&(len, code)).copied()
                })
                .expect("a code of the stream")
        }
    }

    /// The symbol of each (length, code).
    type Codes = BTreeMap<(usize, usize), usize>;

    /// The canonical code with these lengths (`RFC 1951` section 3.2.2).
    fn codes(lengths: &[usize]) -> Codes {
        let mut codes = Codes::new();
        let mut code = 0;
        for len in 1..=15 {
            for symbol in (0..lengths.len()).filter(|symbol| lengths[*symbol] == len) {
                codes.insert((len, code), symbol);
                code += 1;
            }
            code <<= 1;
        }
        codes
    }

    /// What a client sends, with the end of its stream as `flush` makes it.
    fn compressed(payload: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut context = Compress::new(Compression::best(), false);
        let mut out = Vec::with_capacity(payload.len() + 1_000);
        context.compress_vec(payload, &mut out, flush).expect("it compresses");
        if matches!(flush, FlushCompress::Sync) {
            out.truncate(out.len() - TAIL.len());
        }
        out
    }

    #[test]
    fn the_examples_of_the_rfc_inflate_to_hello() {
        let mut inflater = Inflater::default();
        for example in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(inflater.message(example, MAX).as_deref(), Ok(&b"Hello"[..]));
        }
    }

    #[test]
    fn messages_of_every_size_inflate_up_to_the_bound() {
        let mut inflater = Inflater::default();
        for len in [0, 1, 1_023, 1_024, 4_096, 100_000, MAX - 1, MAX] {
            for flush in [FlushCompress::Sync, FlushCompress::Finish] {
                let payload = &chat(MAX + 100)[..len];
                let message = inflater.message(&compressed(payload, flush), MAX);
                assert!(message.as_deref() == Ok(payload), "{len} bytes, {flush:?}");
            }
        }
        let larger = &chat(MAX + 100)[..MAX + 1];
        assert_eq!(inflater.message(&compressed(larger, FlushCompress::Sync), MAX), Err(TOO_LARGE));
    }

    #[test]
    fn a_bomb_ends_at_the_bound_and_takes_no_more_memory() {
        let bomb = compressed(&vec![0; 8 << 20], FlushCompress::Sync);
        assert!(bomb.len() < 20_000);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.message(&bomb, MAX), Err(TOO_LARGE));
        assert!(inflater.message.capacity() <= 2 * MAX, "{} bytes", inflater.message.capacity());
        assert_eq!(inflater.message(&compressed(b"after", FlushCompress::Sync), MAX).as_deref(), Ok(&b"after"[..]));
    }

    #[test]
    fn a_message_that_is_cut_off_is_refused() {
        let mut inflater = Inflater::default();
        // With codes of its own, with the fixed ones, and stored: shorter than a tail, which would make it whole.
        let own = compressed(&chat(3_000), FlushCompress::Sync);
        let fixed = compressed(b"hello", FlushCompress::Sync);
        let stored = [&[0, 3, 0, !3, 0xFF][..], b"abc", &[0]].concat();
        for whole in [own, fixed, stored] {
            assert!(inflater.message(&whole, MAX).is_ok());
            // One byte may be the message of nothing.
            for len in 2..whole.len() {
                let message = inflater.message(&whole[..len], MAX);
                assert_eq!(message, Err(NOT_DEFLATE), "{len} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn streams_may_end_with_or_without_a_tail() {
        let mut inflater = Inflater::default();
        let last = [1, 2, 0, !2, 0xFF, b'h', b'i'];
        let with = |message: &[u8], end: &[u8]| [message, end].concat();
        for message in [
            last.to_vec(),
            // As in the RFC.
            with(&last, &[0]),
            with(&last, &[&[0][..], &TAIL].concat()),
            with(&last, &TAIL),
            with(&compressed(b"hi", FlushCompress::Sync), &TAIL),
        ] {
            assert_eq!(inflater.message(&message, MAX).as_deref(), Ok(&b"hi"[..]), "{message:?}");
        }
        // What looks like a tail is part of the last block, or all there is of it.
        let content = [1, 5, 0, !5, 0xFF, b'!', 0, 0, 0xFF, 0xFF];
        assert_eq!(inflater.message(&content, MAX).as_deref(), Ok(&[b'!', 0, 0, 0xFF, 0xFF][..]));
        for empty in [&[][..], &TAIL, &[0], &[1, 0, 0, 0xFF, 0xFF], &[3, 0]] {
            assert_eq!(inflater.message(empty, MAX).as_deref(), Ok(&b""[..]), "{empty:?}");
        }
    }

    #[test]
    fn a_bound_is_kept_after_a_message_with_a_larger_one() {
        let rubbish_behind = [&compressed(b"abc", FlushCompress::Sync)[..], &TAIL, &[0x06]].concat();
        let mut inflater = Inflater::default();
        assert_eq!(inflater.message(&rubbish_behind, 1), Err(TOO_LARGE));
        assert!(inflater.message(&compressed(&chat(10_000), FlushCompress::Sync), MAX).is_ok());
        assert_eq!(inflater.message(&rubbish_behind, 1), Err(TOO_LARGE));
    }

    #[test]
    fn what_is_no_stream_is_refused_and_harms_nothing_after_it() {
        let mut inflater = Inflater::default();
        // A reserved block, a stored block whose lengths disagree, ends without an end.
        for wrong in [&[0x06][..], &[0x00, 1, 0, 1, 0], &[0x03, 0x00].repeat(STREAMS_MAX + 1)] {
            assert_eq!(inflater.message(wrong, MAX), Err(NOT_DEFLATE), "{wrong:?}");
        }
        assert_eq!(inflater.message(&compressed(b"after", FlushCompress::Sync), MAX).as_deref(), Ok(&b"after"[..]));
    }
}
