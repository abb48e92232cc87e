//! Server-sent events: what clients say of themselves, and what they are told, as the HTML standard has it read.

use super::choices::Choices;
use super::envelope::{is_json, pairs};
use ringroom::wire::codes::ErrorCode;
use ringroom::wire::encode::{self, Push};
use ringroom::wire::engine::Sid;
use ringroom::wire::envelope::is_event_name;
use ringroom::wire::sse;
use std::time::Duration;

/// Input: lengths of the rooms of a query, of an id and of an event's name, these, and a body.
///
/// - Rooms are those that a plain split finds, each once; positions are those of an id if and only if it was made
///   of so many rooms of the same list, and what we write is read as the same.
/// - A body names a connection if and only if `serde_json` finds one text under that name which is an id.
/// - Whatever is pushed is one event of its name with the same data, whose line ends are line feeds, and so are
///   replies, errors and closes; no line of any of them begins a field of its own.
pub fn sse(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let list = u64::from(choices.byte()) << 27 | u64::from(choices.word());
    let [query, id, name] = [(); 3].map(|()| choices.byte());
    let query = String::from_utf8_lossy(choices.bytes(query.into())).into_owned();
    let id = String::from_utf8_lossy(choices.bytes(id.into())).into_owned();
    let name = String::from_utf8_lossy(choices.bytes(name.into())).into_owned();
    let body = choices.0;

    let rooms = rooms_are_named_once(&query);
    positions_are_read(&id, list, rooms + 1);
    emitter_is_found(body);
    pushes_are_events(&name, body);
    ends_are_events(&name, list);
}

fn rooms_are_named_once(query: &str) -> usize {
    let mut naive: Vec<&str> = Vec::new();
    for room in query.split(',').map(str::trim) {
        if !room.is_empty() && !naive.contains(&room) {
            naive.push(room);
        }
    }
    assert_eq!(sse::rooms(query), naive);
    naive.len()
}

/// Crockford's digits of the low 35 bits.
fn name_of(list: u64) -> String {
    let digits = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    (0..7).rev().map(|nth| char::from(digits[(list >> (5 * nth)) as usize & 31])).collect()
}

fn positions_are_read(id: &str, list: u64, rooms: usize) {
    let mut parts = id.split('.');
    let is_ours = parts.next() == Some(&*name_of(list));
    let naive: Vec<Option<&str>> = parts.map(|part| (!part.is_empty()).then_some(part)).collect();
    let expected = (is_ours && naive.len() == rooms).then_some(naive);
    assert_eq!(sse::positions(id, list, rooms), expected);

    // The same positions under our own name; a position of ours has no line end and no NUL.
    let written = |part: &str| part.chars().all(|char| char.is_ascii_graphic());
    let ours: Vec<Option<&str>> =
        id.split('.').map(|part| Some(part).filter(|part| !part.is_empty() && written(part))).collect();
    let mut line = Vec::new();
    let put = |place: &str| {
        let place = place.to_owned();
        move |out: &mut Vec<u8>| out.extend_from_slice(place.as_bytes())
    };
    sse::id(&mut line, list, ours.iter().map(|place| place.map(put)));
    let line = String::from_utf8(line).expect("ASCII");
    let value = line.strip_prefix("id: ").and_then(|line| line.strip_suffix('\n')).expect("one field");
    assert!(!value.contains(['\n', '\r', '\0']));
    assert_eq!(sse::positions(value, list, ours.len()), Some(ours.clone()));
    assert_eq!(sse::positions(value, list, ours.len() + 1), None);
    assert_eq!(sse::positions(value, list ^ 1, ours.len()), None);
}

fn emitter_is_found(body: &[u8]) {
    let found = sse::emitter(body);
    let code = found.as_ref().err().map(|error| error.code);
    let fields = std::str::from_utf8(body).ok().filter(|_| is_json(body)).and_then(pairs);
    let Some(fields) = fields else { return assert_eq!(code, Some(ErrorCode::BadRequest)) };
    let conns: Vec<&str> = fields.iter().filter(|(key, _)| key == b"conn").map(|(_, value)| *value).collect();
    let [conn] = conns[..] else { return assert_eq!(code, Some(ErrorCode::BadRequest)) };
    if !conn.starts_with('"') {
        return assert_eq!(code, Some(ErrorCode::BadRequest));
    }
    // A text with half a surrogate pair is a text, and no id.
    let sid = serde_json::from_str::<String>(conn).ok().and_then(|text| Sid::parse(&text));
    match sid {
        Some(sid) => assert_eq!(found.map(|found| found.text()).ok(), Some(sid.text())),
        None => assert!(matches!(code, Some(ErrorCode::NotFound | ErrorCode::BadRequest))),
    }
}

fn pushes_are_events(name: &str, data: &[u8]) {
    if !is_event_name(name) || !is_json(data) {
        return;
    }
    let mut frame = Vec::new();
    let push = Push { event: name, room: Some("chat:1"), seq: Some(7), mid: None, ts: Some(1), from: Some("é"), data };
    let at = encode::push(&mut frame, &push);
    assert_eq!(&frame[at.clone()], data);
    let mut out = b": before\n\n".to_vec();
    sse::translate(&mut out, &frame);
    let json = std::str::from_utf8(&frame[payload_start(&frame)..]).expect("UTF-8");
    // An `EventSource` says of itself that it is open.
    let name = if name == "open" { "event:open" } else { name };
    assert_eq!(events(&out), [(name.to_owned(), with_line_feeds(json))]);
}

/// `RFC 6455` section 5.2, of a frame that is not masked.
fn payload_start(frame: &[u8]) -> usize {
    match frame[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    }
}

fn ends_are_events(reason: &str, list: u64) {
    let code = list as u16;
    let mut out = Vec::new();
    sse::retry(&mut out, Duration::from_millis(list));
    sse::close(&mut out, code, reason);
    let [(name, data)] = &events(&out)[..] else { panic!("{out:?} is not one event") };
    assert_eq!(name, "connection:closed");
    let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data, serde_json::json!({"code": code, "reason": reason}));
    assert!(out.starts_with(format!("retry: {list}\n").as_bytes()));
}

fn with_line_feeds(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

/// Names and data of the events of a whole stream, by section 9.2.6; a field that is none of ours is one that a
/// payload has begun.
fn events(stream: &[u8]) -> Vec<(String, String)> {
    let text = with_line_feeds(std::str::from_utf8(stream).expect("a stream is UTF-8"));
    assert!(text.ends_with("\n\n"), "the last event is not ended");
    let (mut events, mut name, mut data) = (Vec::new(), "", String::new());
    for line in text.lines() {
        match line.split_once(':') {
            None if line.is_empty() => {
                if let Some(data) = data.strip_suffix('\n') {
                    events.push((name.to_owned(), data.to_owned()));
                }
                (name, data) = ("", String::new());
            }
            None => panic!("{line:?} has no value"),
            Some(("event", value)) => name = &value[1..],
            Some(("data", value)) => {
                data.push_str(value.strip_prefix(' ').unwrap_or(value));
                data.push('\n');
            }
            Some(("retry", value)) => assert!(value.trim().parse::<u64>().is_ok()),
            Some(("", _)) => {}
            Some((field, _)) => panic!("{field:?} was injected"),
        }
    }
    events
}
