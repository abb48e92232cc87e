//! Engine.IO: what clients post, and what they get of the frames that wait for them.

use super::choices::Choices;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringroom::wire::engine::payload::{Part, parts, render};
use ringroom::wire::engine::{self, Packet};
use ringroom::wire::frame;

/// Input: how much a poll may take, how many frames an outbox holds in one piece, and a payload.
///
/// - A payload is its packets up to the first that is none, as a naive reading says; who pauses goes on with the
///   rest; nothing is longer than what was posted.
/// - What these packets are as frames of a WebSocket, one poll after the other, gives the same packets: no more
///   of them than asked for, no fewer than fit, and each frame once.
pub fn engine(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let packets_max = 1 + usize::from(choices.byte() % 16);
    let bytes_max = usize::from(choices.byte()) * 4;
    let in_a_piece = 1 + usize::from(choices.byte() % 4);
    let pause = usize::from(choices.byte() % 8);
    let body = choices.0;

    let read: Vec<_> = parts(body).collect();
    let naive: Vec<_> = body.split(|byte| *byte == SEPARATOR).map(naive_part).collect();
    let good = naive.iter().position(Option::is_none).unwrap_or(naive.len());
    // A separator at the end makes the packet before it the last, and it is none.
    let good = if good + 1 == naive.len() && naive[good].is_none() && body.ends_with(b"\x1e") && good > 0 {
        good - 1
    } else {
        good
    };
    let taken: Vec<&Part<'_>> = read.iter().filter_map(|part| part.as_ref().ok()).collect();
    assert_eq!(taken, naive[..good].iter().flatten().collect::<Vec<_>>());
    assert_eq!(read.len(), if good == naive.len() { good } else { good + 1 });
    let len = |part: &&Part<'_>| match part {
        Part::Text(text) => text.len(),
        Part::Binary(bytes) => bytes.len(),
    };
    assert!(taken.iter().map(len).sum::<usize>() <= body.len());
    let mut first = parts(body);
    let mut paused: Vec<_> = first.by_ref().take(pause).collect();
    match first.rest() {
        [] => paused.extend(first),
        rest => paused.extend(parts(rest)),
    }
    assert_eq!(paused, read);
    taken.iter().for_each(|part| packet(part));

    polls(&taken, packets_max, bytes_max, in_a_piece);
}

const SEPARATOR: u8 = 0x1E;

fn naive_part(packet: &[u8]) -> Option<Part<'_>> {
    match packet.first()? {
        b'b' => {
            let len = packet[1..].iter().position(|byte| *byte == b'=').unwrap_or(packet.len() - 1);
            let (digits, written) = packet[1..].split_at(len);
            // All of it, some of it or none.
            let padding = &b"==="[..(4 - len % 4) % 4];
            let bytes = STANDARD.decode([digits, padding].concat()).ok().filter(|_| padding.starts_with(written))?;
            Some(Part::Binary(bytes))
        }
        b'1'..=b'6' => std::str::from_utf8(packet).ok().map(Part::Text),
        _ => None,
    }
}

/// What a packet is follows from its digit.
fn packet(part: &Part<'_>) {
    let Part::Text(text) = part else { return };
    let (digit, rest) = text.split_at(1);
    match engine::parse(text) {
        Ok(Packet::Close) => assert_eq!(*text, "1"),
        Ok(Packet::Ping(data)) => assert_eq!((digit, rest), ("2", data)),
        Ok(Packet::Pong(data)) => assert_eq!((digit, rest), ("3", data)),
        Ok(Packet::Message(data)) => assert_eq!((digit, rest), ("4", data)),
        Ok(Packet::Upgrade) => assert_eq!(*text, "5"),
        Ok(Packet::Noop) => assert_eq!(*text, "6"),
        Err(_) => assert!(matches!(digit, "1" | "5" | "6") && !rest.is_empty()),
    }
}

fn polls(sent: &[&Part<'_>], packets_max: usize, bytes_max: usize, in_a_piece: usize) {
    let frame = |part: &&Part<'_>| {
        let mut out = Vec::new();
        // What is no packet stands between those that are.
        frame::ping(&mut out, b"");
        let (opcode, payload) = match part {
            Part::Text(text) => (frame::TEXT, text.as_bytes()),
            Part::Binary(bytes) => (frame::BINARY, &**bytes),
        };
        frame::header(&mut out, opcode, payload.len());
        out.extend_from_slice(payload);
        out
    };
    let pieces: Vec<Vec<u8>> = sent.chunks(in_a_piece).map(|some| some.iter().flat_map(frame).collect()).collect();
    let all: usize = pieces.iter().map(Vec::len).sum();
    let (mut taken, mut told) = (0, 0);
    while taken < all {
        let mut skip = taken;
        let mut rest: Vec<&[u8]> = Vec::new();
        for piece in &pieces {
            rest.push(&piece[skip.min(piece.len())..]);
            skip = skip.saturating_sub(piece.len());
        }
        let mut out = b"before".to_vec();
        let rendered = render(&rest, packets_max, bytes_max, &mut out);
        let payload = out.strip_prefix(b"before").expect("what is there stays");
        assert!(rendered.bytes > 0 && rendered.packets <= packets_max);
        assert!(payload.len() <= bytes_max || rendered.packets == 1, "{} bytes", payload.len());
        let packets: Vec<Part<'_>> = parts(payload).map(|part| part.expect("what we wrote is a payload")).collect();
        assert_eq!(packets.iter().collect::<Vec<_>>(), &sent[told..told + rendered.packets]);
        taken += rendered.bytes;
        told += rendered.packets;
        if let Some(next) = sent.get(told) {
            let next = match next {
                Part::Text(text) => text.len(),
                Part::Binary(bytes) => 1 + STANDARD.encode(bytes).len(),
            };
            assert!(rendered.packets == packets_max || payload.len() + 1 + next > bytes_max, "there was room for more");
        }
    }
    assert_eq!(told, sent.len());
}
