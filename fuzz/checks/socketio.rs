//! Socket.IO: packets of clients, and what they become for others.

use super::choices::Choices;
use super::envelope::{is_json, is_same, pairs};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringroom::base::limits::{ARGUMENTS_MAX, ATTACHMENTS_MAX, NAMESPACE_BYTES_MAX};
use ringroom::wire::alias::{Aliases, DeclaredAlias, DeclaredPush};
use ringroom::wire::codes::ErrorCode;
use ringroom::wire::dialect::{DialectId, translate};
use ringroom::wire::encode::{self, Push};
use ringroom::wire::envelope::{Data, RequestId};
use ringroom::wire::frame;
use ringroom::wire::json;
use ringroom::wire::socketio::{self, Arguments, Form, Forms, Packet, Style, is_reserved, parse};
use serde_json::Value;
use serde_json::value::RawValue;
use std::sync::{Arc, LazyLock};

/// Input: how many attachments are taken, and a packet; where the rest is JSON, it is also what somebody
/// publishes.
///
/// - It is a packet if and only if `serde_json` and a naive reading say so, with the same parts.
/// - What is read of it, written by us, is read as the same.
/// - Attachments go into its JSON and come out again; nothing that we write closes a client's connection.
/// - What an alias makes of it is JSON, and bounded by what was sent.
pub fn socketio(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let attachments_max = usize::from(choices.byte() % 16);
    let Ok(text) = std::str::from_utf8(choices.0) else { return };
    let read = parse(text, attachments_max);
    let expected = Naive::packet(text, attachments_max);
    match (&read, &expected) {
        (Ok(packet), Some(expected)) => {
            assert_eq!(Naive::of(packet), *expected);
            written(packet);
        }
        (Err(_), None) => {}
        // Keys of placeholders with escapes are read as others by the naive reading alone.
        _ if text.contains('\\') && text.starts_with(['5', '6']) => {}
        (read, expected) => panic!("{read:?}, not {expected:?}"),
    }
    if let Ok(Packet::Event { event, arguments, .. }) = &read {
        aliased(event, arguments);
    }
    if is_json(text.as_bytes()) {
        published(text.trim_ascii());
    }
}

/// A packet as a naive reading has it.
#[derive(PartialEq, Debug)]
struct Naive<'a> {
    kind: char,
    namespace: &'a str,
    ack: Option<u64>,
    name: Option<String>,
    /// The object of a CONNECT, or the arguments.
    items: Vec<&'a str>,
    attachments: usize,
}

impl<'a> Naive<'a> {
    fn of(packet: &Packet<'a>) -> Naive<'a> {
        let bare = |kind, namespace, items| Naive { kind, namespace, ack: None, name: None, items, attachments: 0 };
        let items = |arguments: &Arguments<'a>| {
            let items: Vec<&str> = json::items(arguments.json).collect();
            assert_eq!((items.len(), items.first().copied()), (arguments.count, arguments.first));
            items
        };
        match packet {
            Packet::Connect { namespace, auth } => bare('0', namespace, vec![auth]),
            Packet::Disconnect { namespace } => bare('1', namespace, Vec::new()),
            Packet::Event { namespace, ack, event, arguments, attachments } => Naive {
                ack: *ack,
                name: Some(event.to_string()),
                attachments: *attachments,
                ..bare('2', namespace, items(arguments))
            },
            Packet::Ack { namespace, ack, arguments, attachments } => {
                Naive { ack: Some(*ack), attachments: *attachments, ..bare('3', namespace, items(arguments)) }
            }
        }
    }

    fn packet(text: &'a str, attachments_max: usize) -> Option<Naive<'a>> {
        let mut rest = text.get(1..)?;
        let mut attachments = 0;
        let kind = match text.chars().next()? {
            kind @ ('5' | '6') => {
                let (count, behind) = rest.split_once('-')?;
                attachments = digits(count)?.try_into().ok().filter(|count| *count <= attachments_max)?;
                rest = behind;
                if kind == '5' { '2' } else { '3' }
            }
            kind => kind,
        };
        let mut namespace = "/";
        if rest.starts_with('/') {
            let end = rest.find(',').unwrap_or(rest.len());
            namespace = rest[..end].split('?').next()?;
            rest = rest.get(end + 1..).unwrap_or("");
        }
        if namespace.len() > NAMESPACE_BYTES_MAX || namespace.chars().any(|letter| letter.is_ascii_control()) {
            return None;
        }
        let mut read = Naive { kind, namespace, ack: None, name: None, items: Vec::new(), attachments };
        match kind {
            '0' if rest.is_empty() => read.items.push("{}"),
            '0' => {
                pairs(rest).filter(|_| is_json(rest.as_bytes()) && rest.starts_with('{'))?;
                read.items.push(rest.trim_ascii_end());
            }
            '1' => rest.is_empty().then_some(())?,
            '2' | '3' => {
                let array = rest.find('[')?;
                if array > 0 {
                    read.ack = Some(digits(&rest[..array]).filter(|ack| *ack < 1 << 53 && array <= 16)?);
                }
                let array = &rest[array..];
                is_json(array.as_bytes()).then_some(())?;
                read.items =
                    serde_json::from_str::<Vec<&RawValue>>(array).ok()?.into_iter().map(RawValue::get).collect();
                match kind {
                    '2' => {
                        let name = (!read.items.is_empty()).then(|| read.items.remove(0))?;
                        let name = serde_json::from_str::<String>(name).ok().filter(|name| !is_reserved(name))?;
                        read.name = Some(name);
                    }
                    _ => drop(read.ack?),
                }
                let mut named = vec![false; attachments];
                let are_right = read.items.iter().all(|item| placeholders(item, &mut named));
                (read.items.len() <= ARGUMENTS_MAX && (attachments == 0 || are_right)).then_some(())?;
            }
            _ => return None,
        }
        Some(read)
    }
}

fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Whether the placeholders in a value name what is there, each once.
fn placeholders(value: &str, named: &mut [bool]) -> bool {
    if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(value) {
        return items.into_iter().all(|item| placeholders(item.get(), named));
    }
    let Some(fields) = pairs(value) else { return true };
    let is_mark = |field: &(Vec<u8>, &str)| field.0 == b"_placeholder" && field.1 == "true";
    let num = |field: &(Vec<u8>, &str)| (field.0 == b"num").then(|| digits(field.1))?;
    let which = match &fields[..] {
        [mark, other] if is_mark(mark) => num(other),
        [other, mark] if is_mark(mark) && num(other).is_some() => num(other),
        [mark, ..] if is_mark(mark) => None,
        fields => return fields.iter().all(|(_, value)| placeholders(value, named)),
    };
    let place = which.and_then(|which| named.get_mut(usize::try_from(which).ok()?));
    place.is_some_and(|named| !std::mem::replace(named, true))
}

/// Frames of one packet: its text, without the type of Engine.IO, and its attachments.
fn taken_apart(mut frames: &[u8]) -> (String, Vec<Vec<u8>>) {
    let (opcode, text, bytes) = frame::first(frames).expect("a whole frame");
    assert_eq!((opcode, text[0]), (frame::TEXT, b'4'));
    let mut attachments = Vec::new();
    frames = &frames[bytes..];
    while let Some((opcode, payload, bytes)) = frame::first(frames) {
        assert_eq!(opcode, frame::BINARY);
        attachments.push(payload.to_vec());
        frames = &frames[bytes..];
    }
    assert!(frames.is_empty());
    (String::from_utf8(text[1..].to_vec()).expect("text"), attachments)
}

/// Writes a packet of a client as the server would, and reads it again; then has its attachments go in and out.
fn written(packet: &Packet<'_>) {
    let mut out = Vec::new();
    let (arguments, count) = match packet {
        Packet::Event { arguments, attachments, .. } | Packet::Ack { arguments, attachments, .. } => {
            (arguments, *attachments)
        }
        Packet::Connect { .. } | Packet::Disconnect { .. } => return,
    };
    let attachments: Vec<Vec<u8>> = (0..count).map(|nth| vec![nth as u8; nth + 1]).collect();
    match packet {
        Packet::Event { namespace, ack, event, .. } => {
            socketio::event(&mut out, namespace, *ack, event, arguments.json, &attachments);
        }
        Packet::Ack { namespace, ack, .. } => {
            socketio::ack(&mut out, namespace, *ack, arguments.json, &attachments);
        }
        _ => unreachable!("returned above"),
    }
    let (text, read) = taken_apart(&out);
    assert_eq!(read, attachments);
    let again = parse(&text, count).expect("what we wrote is a packet");
    assert_eq!(Naive::of(&again), Naive::of(packet));

    let mut embedded = String::new();
    socketio::embed(&mut embedded, arguments.json, &attachments);
    assert!(is_json(format!("[{embedded}]").as_bytes()));
    let base64: usize = attachments.iter().map(|bytes| STANDARD.encode(bytes).len()).sum();
    assert!(embedded.len() <= arguments.json.len() + base64, "a placeholder is longer than what surrounds bytes");
    if attachments.is_empty() {
        assert_eq!(embedded, arguments.json);
    }
}

/// Takes the bytes out of JSON; what is left and they make the same tree again.
fn extracted(text: &str) {
    let mut attachments = vec![b"before".to_vec()];
    let Some(placed) = socketio::extract(text, &mut attachments) else {
        assert_eq!(attachments.len(), 1);
        return;
    };
    assert!((2..=ATTACHMENTS_MAX).contains(&attachments.len()));
    assert!(attachments.iter().map(Vec::len).sum::<usize>() <= text.len() + 6);
    let packet = format!("5{}-[\"a\",{placed}]", attachments.len());
    assert!(parse(&packet, ATTACHMENTS_MAX).is_ok(), "a client closes its connection: {packet}");
    if let (Ok(placed), Ok(tree)) = (serde_json::from_str::<Value>(&placed), serde_json::from_str::<Value>(text)) {
        assert!(is_same(&with_bytes(placed, &attachments), &tree));
    }
}

/// Placeholders, as clients see them, back to what they stand for: in packets without attachments they see none.
fn with_bytes(tree: Value, attachments: &[Vec<u8>]) -> Value {
    match tree {
        tree if attachments.is_empty() => tree,
        Value::Array(items) => items.into_iter().map(|item| with_bytes(item, attachments)).collect(),
        Value::Object(fields) if fields.get("_placeholder") == Some(&Value::Bool(true)) => {
            let num = fields["num"].as_u64().expect("clients close their connections") as usize;
            serde_json::json!({"$bin": STANDARD.encode(&attachments[num])})
        }
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, with_bytes(value, attachments))).collect(),
        other => other,
    }
}

static FORMS: LazyLock<Forms> = LazyLock::new(|| {
    let push = DeclaredPush {
        event: "a".into(),
        name: "b".into(),
        fields: "chatId = {room after chat:}, from = {from}, list = [x:{list}, {one}]".into(),
    };
    let aliases = Aliases::new(&rows(), &[push]).expect("well declared");
    let form = |style, aliases| Form { namespace: "/n".into(), style, aliases };
    Forms::new(vec![
        form(Style::Gateway, Arc::default()),
        form(Style::Application, Arc::default()),
        form(Style::Gateway, Arc::new(aliases)),
    ])
});

fn rows() -> [DeclaredAlias; 3] {
    let alias = |event: &str, arguments: &str, fields: &str| DeclaredAlias {
        event: event.into(),
        arguments: arguments.into(),
        fields: fields.into(),
        reply_fields: "chatId = {room after chat:}".into(),
        reply_push: "done".into(),
        ..DeclaredAlias::default()
    };
    [
        alias("a", "w, z", "rooms = [warehouse:{w}, zone:{w}:{z}], data = {payload}"),
        alias("b", "", "room = chat:{chatId}, is = true"),
        alias("c", "room", ""),
    ]
}

/// What a request or a push may grow by: a hundred texts for each template, and a little.
const GROWTH_MAX: usize = 100 * 2 * (6 * 2 * 256 + 256);

fn aliased(event: &str, arguments: &Arguments<'_>) {
    let aliases = Aliases::new(&rows(), &[]).expect("well declared");
    match aliases.request(event, arguments) {
        Ok(request) => {
            assert!(is_json(request.data.as_bytes()), "{}", request.data);
            assert!(request.data.len() <= arguments.json.len() + GROWTH_MAX);
            let Data { json, .. } = request.data();
            let read: Option<Vec<_>> = request.data().fields().map(Iterator::collect);
            assert_eq!(read, json::object(json).map(Iterator::collect));
            assert_eq!(
                request.id(Some(7)).is_some_and(|id| id == RequestId::Integer(7)),
                !["a", "b", "c"].contains(&event)
            );
        }
        Err(error) => assert!(matches!(error.code, ErrorCode::BadRequest | ErrorCode::TooMany)),
    }
}

/// What somebody publishes is told to who is in a namespace.
fn published(text: &str) {
    extracted(text);
    let known = Push {
        event: "a",
        room: Some("chat:1"),
        seq: Some(1),
        mid: None,
        ts: None,
        from: Some("x"),
        data: text.as_bytes(),
    };
    let tree = serde_json::from_str::<Value>(text).ok();
    for (nth, bare) in [(0, false), (0, true), (1, true), (2, false), (2, true)] {
        let mut frame = Vec::new();
        let push = Push { room: known.room.filter(|_| !bare), seq: None, from: None, ..known };
        encode::push(&mut frame, &push);
        let mut out = Vec::new();
        translate(DialectId::of_namespace(nth), &FORMS, &mut out, &frame);
        let (packet, attachments) = taken_apart(&out);
        let read = match parse(&packet, ATTACHMENTS_MAX) {
            Ok(Packet::Event { namespace: "/n", ack: None, event, arguments, attachments: count }) => {
                assert_eq!((&*event, count), (if nth == 2 { "b" } else { "a" }, attachments.len()));
                arguments
            }
            // One level more, and more arguments than clients send.
            other => return assert!(deep_or_many(text), "{packet}: {other:?}"),
        };
        let arguments = serde_json::from_str::<Value>(&format!("[{}]", read.json)).ok();
        let (Some(tree), Some(arguments)) = (&tree, arguments) else { continue };
        let told = with_bytes(arguments, &attachments);
        let meta = if bare { serde_json::json!({}) } else { serde_json::json!({"room": "chat:1"}) };
        match (nth, tree) {
            (0, tree) => assert!(is_same(&told, &serde_json::json!([tree, meta]))),
            (1, Value::Array(_)) => assert!(is_same(&told, tree)),
            (1, tree) => assert!(is_same(&told, &serde_json::json!([tree]))),
            _ => assert_eq!(told[1], meta),
        }
    }
    for id in [RequestId::Integer(7), RequestId::Text("7:1".into()), RequestId::Text(":1".into())] {
        let mut frame = Vec::new();
        encode::reply_ok(&mut frame, &id, text.as_bytes());
        let mut out = Vec::new();
        translate(DialectId::of_namespace(2), &FORMS, &mut out, &frame);
        let (_, first, _) = frame::first(&out).expect("a whole frame");
        let is_answer = matches!(first[1], b'3' | b'6');
        assert_eq!(is_answer, id != RequestId::Text(":1".into()));
    }
}

fn deep_or_many(text: &str) -> bool {
    !is_json(format!("[{text}]").as_bytes()) || json::array(text).is_some_and(|items| items.count() > ARGUMENTS_MAX)
}
