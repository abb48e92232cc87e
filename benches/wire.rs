//! What each step of the wire costs: `cargo bench --bench wire`. Figures compare on one machine
//! only; the second implementations are there to compare with.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringroom::wire::alias::{Aliases, DeclaredAlias, DeclaredPush};
use ringroom::wire::assembler::{Assembler, Event, MessageLimits};
use ringroom::wire::deflate::Inflater;
use ringroom::wire::dialect::{self, DialectId};
use ringroom::wire::encode::{self, Push};
use ringroom::wire::engine::payload;
use ringroom::wire::envelope;
use ringroom::wire::frame;
use ringroom::wire::handshake;
use ringroom::wire::http;
use ringroom::wire::json;
use ringroom::wire::socketio::{self, Form, Forms, Packet, Style};
use std::hint::black_box;
use std::sync::Arc;

/// A publish whose whole message is `len` bytes of what chats send.
fn message(len: usize) -> Vec<u8> {
    message_of(len, "hello there, it is a nice day")
}

fn message_of(len: usize, words: &str) -> Vec<u8> {
    let head = r#"{"id":"c1024","event":"room:publish","data":{"room":"chat:1","event":"chat","cid":"7f3a1c9e","data":{"items":["#;
    let tail = "]}}}";
    let item = format!(r#"{{"id":17,"from":"alice","text":"{words}","ok":true}},"#);
    let mut text = head.to_owned();
    while text.len() + item.len() + tail.len() + 1 < len {
        text.push_str(&item);
    }
    let rest = len - text.len() - tail.len() - 2;
    text.push_str(&format!("\"{}\"", "x".repeat(rest)));
    text.push_str(tail);
    assert_eq!(text.len(), len);
    text.into_bytes()
}

fn masked(payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut frame = Vec::new();
    frame::header(&mut frame, frame::TEXT, payload.len());
    frame[1] |= 0x80;
    frame.extend_from_slice(&key);
    let at = frame.len();
    frame.extend_from_slice(payload);
    frame::unmask(&mut frame[at..], key, 0);
    frame
}

fn unmask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unmask");
    for len in [32, 241, 1024, 16 * 1024] {
        let mut payload = vec![7; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("{len}"), |bench| {
            bench.iter(|| frame::unmask(black_box(&mut payload), black_box([1, 2, 3, 4]), 1));
        });
    }
}

fn envelopes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("envelope");
    let foreign = message_of(1024, "привет, как дела");
    group.throughput(Throughput::Bytes(1024));
    group.bench_function("parse_cyrillic/1024", |bench| {
        bench.iter(|| envelope::parse(black_box(&foreign)).expect("well formed"));
    });
    for len in [241, 1024, 16 * 1024] {
        let message = message(len);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(format!("parse/{len}"), |bench| {
            bench.iter(|| envelope::parse(black_box(&message)).expect("well formed"));
        });
        group.bench_function(format!("check/{len}"), |bench| {
            bench.iter(|| json::check(black_box(&message)).expect("well formed"));
        });
        let data = envelope::parse(&message).expect("well formed").data.to_owned();
        group.bench_function(format!("publish_fields/{len}"), |bench| {
            bench.iter(|| envelope::publish_fields(black_box(&*data).into()).expect("well formed"));
        });
        group.bench_function(format!("simd_json_check/{len}"), |bench| {
            let mut buffers = simd_json::Buffers::new(len);
            let mut copy = Vec::new();
            let mut spare = Some(simd_json::Tape::null());
            bench.iter(|| {
                copy.clear();
                copy.extend_from_slice(black_box(&message));
                let mut tape = spare.take().expect("put back below").reset();
                simd_json::fill_tape(&mut copy, &mut buffers, &mut tape).expect("well formed");
                spare = Some(black_box(tape).reset());
            });
        });
        group.bench_function(format!("serde_json_check/{len}"), |bench| {
            bench.iter(|| {
                let _: serde::de::IgnoredAny = serde_json::from_slice(black_box(&message)).expect("well formed");
            });
        });
    }
}

fn pushes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("push");
    for len in [100, 1024] {
        let data = format!("\"{}\"", "x".repeat(len - 2));
        let push = Push {
            event: "message:new",
            room: Some("chat:1"),
            seq: Some(41),
            mid: Some(b"01J0000000000000000000000Z"),
            ts: Some(1_763_690_000_123),
            from: Some("alice"),
            data: data.as_bytes(),
        };
        let mut out = Vec::with_capacity(4096);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("encode/{len}"), |bench| {
            bench.iter(|| {
                out.clear();
                encode::push(&mut out, black_box(&push))
            });
        });
    }
}

fn assembler(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("assembler");
    for len in [32, 241] {
        let frame = masked(&message(241)[..len]);
        let read: Vec<u8> = frame.iter().copied().cycle().take(64 * 1024).collect();
        group.throughput(Throughput::Elements((read.len() / frame.len()) as u64));
        group.bench_function(format!("64KiB_of_{len}"), |bench| {
            bench.iter_batched_ref(
                || (Assembler::new(MessageLimits::default()), read.clone()),
                |(assembler, read)| {
                    let mut at = 0;
                    let mut bytes = 0;
                    let mut inflater = Inflater::default();
                    while let Some(event) = assembler.next(read, &mut at, &mut inflater).expect("well formed") {
                        if let Event::Text(text) = event {
                            bytes += text.len();
                        }
                    }
                    bytes
                },
                BatchSize::SmallInput,
            );
        });
    }
}

fn opening(criterion: &mut Criterion) {
    let request = b"GET /ws?token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl HTTP/1.1\r\n\
        Host: example.org\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36\r\n\
        Upgrade: websocket\r\nOrigin: https://example.org\r\nSec-WebSocket-Version: 13\r\n\
        Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-GB,en;q=0.9\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
        Sec-WebSocket-Protocol: ringroom.v1.json\r\n\r\n";
    let mut group = criterion.benchmark_group("opening");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse_head", |bench| bench.iter(|| http::parse_head(black_box(request))));
    group.bench_function("head_and_upgrade", |bench| {
        bench.iter(|| {
            let head = http::parse_head(black_box(request)).expect("well formed").expect("whole");
            handshake::accepted(&handshake::upgrade(&head).expect("an upgrade"))
        });
    });
}

/// The request of [`message`] as clients of Socket.IO send it, and what becomes of pushes and payloads for them.
fn socket_io(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("socketio");
    for len in [241, 1024, 16 * 1024] {
        let message = message(len);
        let data = envelope::parse(&message).expect("well formed").data;
        let packet = format!("212[\"room:publish\",{data}]");
        group.throughput(Throughput::Bytes(packet.len() as u64));
        group.bench_function(format!("parse/{len}"), |bench| {
            bench.iter(|| socketio::parse(black_box(&packet), 10).expect("well formed"));
        });
        group.bench_function(format!("parse_and_publish_fields/{len}"), |bench| {
            bench.iter(|| {
                let packet = socketio::parse(black_box(&packet), 10).expect("well formed");
                let Packet::Event { event, arguments, .. } = &packet else { unreachable!("an event") };
                let aliases = Aliases::default();
                let request = aliases.request(event, arguments).expect("a request");
                envelope::publish_fields(request.data()).expect("well formed").data.len()
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    let rows = [DeclaredAlias {
        event: "send_message".into(),
        request: "room:publish".into(),
        fields: "room = chat:{chatId}, data = {payload}".into(),
        ..DeclaredAlias::default()
    }];
    let pushes = [DeclaredPush {
        event: "message:new".into(),
        name: "NEW_MESSAGE".into(),
        fields: "chatId = {room after chat:}".into(),
    }];
    let aliases = Arc::new(Aliases::new(&rows, &pushes).expect("well declared"));
    let packet = r#"212["send_message",{"chatId":7,"event":"chat","payload":{"text":"hello there"}}]"#;
    group.bench_function("alias_request", |bench| {
        let Ok(Packet::Event { event, arguments, .. }) = socketio::parse(packet, 10) else { unreachable!("an event") };
        bench.iter(|| aliases.request(black_box(&event), &arguments).expect("a request").data.len());
    });
    let form = |aliases: &Arc<Aliases>| Form { namespace: "/".into(), style: Style::Gateway, aliases: aliases.clone() };
    let forms = Forms::new(vec![form(&Arc::default()), form(&aliases)]);
    for (name, data) in [
        ("100", format!(r#"{{"text":"{}"}}"#, "x".repeat(89))),
        ("1024", format!(r#"{{"text":"{}"}}"#, "x".repeat(1013))),
        ("binary_1024", format!(r#"{{"bytes":{{"$bin":"{}"}}}}"#, "AAAA".repeat(250))),
    ] {
        let mut frame = Vec::new();
        let data = data.as_bytes();
        let (room, mid) = (Some("chat:1"), Some(b"01J0000000000000000000000Z"));
        let ts = Some(1_763_690_000_123);
        encode::push(
            &mut frame,
            &Push { event: "message:new", room, seq: Some(41), mid, ts, from: Some("alice"), data },
        );
        let mut out = Vec::with_capacity(4096);
        for (nth, kind) in ["translate", "translate_mapped"].into_iter().enumerate() {
            group.bench_function(format!("{kind}/{name}"), |bench| {
                bench.iter(|| {
                    out.clear();
                    dialect::translate(DialectId::of_namespace(nth), &forms, &mut out, black_box(&frame));
                });
            });
        }
    }
    let mut frame = Vec::new();
    frame::text_of(&mut frame, &["42", &"x".repeat(180)]);
    let pieces = [&*frame; 16];
    let mut out = Vec::with_capacity(4096);
    group.throughput(Throughput::Elements(16));
    group.bench_function("render/16_of_182", |bench| {
        bench.iter(|| {
            out.clear();
            payload::render(black_box(&pieces), 16, 1_000_000, &mut out)
        });
    });
    group.bench_function("parts/16_of_182", |bench| {
        out.clear();
        payload::render(&pieces, 16, 1_000_000, &mut out);
        bench.iter(|| payload::parts(black_box(&out)).filter(Result::is_ok).count());
    });
}

criterion_group!(benches, unmask, envelopes, pushes, socket_io, assembler, opening);
criterion_main!(benches);
