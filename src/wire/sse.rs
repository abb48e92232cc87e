//! Server-sent events as a form of pushes, and what their clients say of themselves
//! (HTML standard, section 9.2, <https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//! Invariant: every line of a payload goes behind `data: ` of its own, so nothing in one can begin a field or
//! end an event; and whatever ends without its empty line is nothing to the client.

use super::codes::{ErrorCode, WireError};
use super::engine::Sid;
use super::frame;
use super::json;
use crate::base::base32;
use std::time::Duration;

/// The reply to a join of the query. Nobody can publish an event of this name, nor of the next.
const JOINED: &str = "room:join";
/// What says that the stream ends, and why.
const CLOSED: &str = "connection:closed";
/// What an `EventSource` says of itself, and what a message of that name is called instead. (The other name, `error`,
/// is the server's own everywhere.)
const OPEN: &str = "open";
const OPEN_OF_SOMEBODY: &str = "event:open";
const EVENT_KEY: &[u8] = br#"{"event":""#;

/// A line that every client ignores and that shows every proxy that somebody is there.
pub const COMMENT: &[u8] = b":\n\n";
/// The same inside an event: what goes before it of that event is nothing without its end.
pub const SILENCE: &[u8] = b":\n";

/// Appends a native JSON frame as an event of its name; what has none is the reply to a join.
pub fn translate(out: &mut Vec<u8>, json_frame: &[u8]) {
    let (_, json) = frame::parts(json_frame);
    let name = json.strip_prefix(EVENT_KEY).and_then(|rest| {
        let end = memchr::memchr(b'"', rest)?;
        std::str::from_utf8(&rest[..end]).ok()
    });
    let name = name.unwrap_or(JOINED);
    event(out, if name == OPEN { OPEN_OF_SOMEBODY } else { name }, json);
}

/// Appends an event. `name` is one line.
fn event(out: &mut Vec<u8>, name: &str, data: &[u8]) {
    debug_assert!(!name.contains(['\n', '\r']));
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    let mut rest = data;
    loop {
        out.extend_from_slice(b"\ndata: ");
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else { break };
        out.extend_from_slice(&rest[..end]);
        let ends = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + ends..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\n\n");
}

/// Appends the event that says that the stream ends.
pub fn close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut data = format!(r#"{{"code":{code},"reason":"#).into_bytes();
    json::write_string(&mut data, reason);
    data.push(b'}');
    event(out, CLOSED, &data);
}

/// Appends how long a client is to wait before it comes back, from now on.
pub fn retry(out: &mut Vec<u8>, wait: Duration) {
    out.extend_from_slice(format!("retry: {}\n\n", wait.as_millis()).as_bytes());
}

/// What names a list of rooms in an id: five bits each.
const LIST_CHARS: usize = 7;
const LIST_BITS: u32 = 5 * LIST_CHARS as u32;

/// Appends the line that says how far a client is in each of its rooms; its event comes behind it. `list`: a hash
/// of the rooms' names; `positions`: what appends that of each room, in their order, `None` where it is not known.
pub fn id(out: &mut Vec<u8>, list: u64, positions: impl Iterator<Item = Option<impl FnOnce(&mut Vec<u8>)>>) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(&base32::encode::<LIST_CHARS>(u128::from(list & ((1 << LIST_BITS) - 1))));
    for position in positions {
        out.push(b'.');
        if let Some(put) = position {
            put(out);
        }
    }
    out.push(b'\n');
}

/// The positions of an id, as texts, if it is one of `rooms` rooms that this list names.
pub fn positions(id: &str, list: u64, rooms: usize) -> Option<Vec<Option<&str>>> {
    let mut parts = id.split('.');
    let of = base32::decode(parts.next().filter(|text| text.len() == LIST_CHARS)?.as_bytes())?;
    if of != u128::from(list & ((1 << LIST_BITS) - 1)) {
        return None;
    }
    let positions: Vec<_> = parts.map(|part| Some(part).filter(|part| !part.is_empty())).collect();
    (positions.len() == rooms).then_some(positions)
}

/// The rooms that a query names, each once, in its order.
pub fn rooms(query: &str) -> Vec<&str> {
    let mut rooms: Vec<&str> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    rooms.extend(query.split(',').map(str::trim).filter(|room| !room.is_empty() && seen.insert(*room)));
    rooms
}

/// For whom the body of a `POST /emit` is: `{"conn":..,"id":..,"event":..,"data":..}`.
pub fn emitter(body: &[u8]) -> Result<Sid, WireError> {
    let bad = |message: String| WireError::new(ErrorCode::BadRequest, message);
    let (mut conn, mut is_repeated) = (None, false);
    json::walk(body, &mut |key, value, _| {
        if &*key.name() == b"conn" {
            is_repeated |= conn.replace(value).is_some();
        }
    })
    .map_err(|error| bad(format!("the body is {error}")))?;
    if is_repeated {
        return Err(bad("conn is given twice".into()));
    }
    let conn = conn.ok_or_else(|| bad("conn is missing: the connection's id, as its `connected` says".into()))?;
    let conn = json::string(conn).ok_or_else(|| bad("conn is a string".into()))?;
    // Nobody else's business whether it never was one or is none any more.
    Sid::parse(&conn).ok_or_else(unknown)
}

/// What is told of a connection that is not there.
pub fn unknown() -> WireError {
    WireError::new(ErrorCode::NotFound, "there is no such connection here; it may have ended")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::encode::{self, Push};
    use proptest::prelude::*;

    fn push_of(event: &str, data: &str) -> Vec<u8> {
        let data = data.as_bytes();
        let push = Push { event, room: Some("r"), seq: Some(1), mid: None, ts: None, from: None, data };
        let mut out = Vec::new();
        encode::push(&mut out, &push);
        out
    }

    /// The events of a stream as the standard has them read: name and data of each.
    fn read(stream: &str) -> Vec<(String, String)> {
        let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
        let (mut events, mut name, mut data) = (Vec::new(), String::new(), None::<String>);
        for line in stream.split_inclusive('\n') {
            let Some(line) = line.strip_suffix('\n') else { break };
            match line.split_once(':') {
                None if line.is_empty() => {
                    if let Some(data) = data.take() {
                        events.push((std::mem::take(&mut name), data));
                    }
                    name.clear();
                }
                Some(("event", value)) => name = value.strip_prefix(' ').unwrap_or(value).to_owned(),
                Some(("data", value)) => {
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    match &mut data {
                        None => data = Some(value.to_owned()),
                        Some(data) => {
                            data.push('\n');
                            data.push_str(value);
                        }
                    }
                }
                _ => {}
            }
        }
        events
    }

    #[test]
    fn line_ends_in_a_payload_stay_in_it() {
        for end in ["\n", "\r", "\r\n", "\n\n", "\r\r", "\n\r\n\r"] {
            let data = format!("{{{end}\"a\"{end}:1{end}}}");
            let mut out = Vec::new();
            translate(&mut out, &push_of("chat", &data));
            let text = String::from_utf8(out).unwrap();
            let events = read(&text);
            assert_eq!(events.len(), 1, "{text:?}");
            assert_eq!(events[0].0, "chat");
            let value: serde_json::Value = serde_json::from_str(&events[0].1).unwrap();
            assert_eq!((&value["event"], &value["data"]["a"]), (&"chat".into(), &1.into()), "{text:?}");
            assert!(text.lines().all(|line| line.is_empty() || line.starts_with("data: ") || line == "event: chat"));
        }
    }

    #[test]
    fn what_is_no_push_is_the_reply_to_a_join() {
        let mut out = Vec::new();
        encode::reply_ok(&mut out, &crate::wire::envelope::RequestId::Integer(1), b"{}");
        let mut text = Vec::new();
        translate(&mut text, &out);
        assert_eq!(text, b"event: room:join\ndata: {\"id\":1,\"ok\":true,\"data\":{}}\n\n");
    }

    #[test]
    fn the_end_says_why_and_when_to_come_back() {
        let mut out = Vec::new();
        retry(&mut out, Duration::from_millis(1_500));
        close(&mut out, 1012, "a\nb\"");
        assert_eq!(out, b"retry: 1500\n\nevent: connection:closed\ndata: {\"code\":1012,\"reason\":\"a\\nb\\\"\"}\n\n");
    }

    #[test]
    fn nobody_can_make_a_stream_seem_to_open() {
        let mut out = Vec::new();
        translate(&mut out, &push_of("open", "1"));
        assert!(out.starts_with(b"event: event:open\ndata: {\"event\":\"open\","));
    }

    #[test]
    fn rooms_are_named_once_each() {
        assert_eq!(rooms("a,b, a ,,c"), ["a", "b", "c"]);
        assert!(rooms("").is_empty() && rooms(",").is_empty());
    }

    #[test]
    fn a_body_names_its_connection_once() {
        let sid = Sid { shard: 1, slot: 2, generation: 3, secret: [7; 12] };
        let of = |body: &str| emitter(body.as_bytes()).map(|sid| sid.text()).map_err(|error| error.code);
        assert_eq!(of(&format!(r#"{{"event":"e","conn":"{}"}}"#, sid.text())), Ok(sid.text()));
        assert_eq!(of(&format!(r#"{{"conn":"{}"}}"#, &sid.text()[1..])), Err(ErrorCode::NotFound));
        for bad in [r#"{"conn":1}"#, "{}", r#"{"conn":"a","conn":"a"}"#, "[]", "1", "", "{\"conn\":\"\u{1}\"}"] {
            assert_eq!(of(bad), Err(ErrorCode::BadRequest), "{bad}");
        }
        assert_eq!(emitter(b"{\"conn\":\"\xff\"}").map(|_| ()).map_err(|error| error.code), Err(ErrorCode::BadRequest));
    }

    proptest! {
        #[test]
        fn an_id_is_read_back_by_those_who_have_the_same_rooms(
            list: u64, other: u64, places in proptest::collection::vec(proptest::option::of("[0-9a-z]{13}-[0-9]{1,20}"), 0..40),
        ) {
            let mut line = Vec::new();
            let put = |place: &String| { let place = place.clone(); |out: &mut Vec<u8>| out.extend(place.into_bytes()) };
            id(&mut line, list, places.iter().map(|place| place.as_ref().map(put)));
            let line = String::from_utf8(line).unwrap();
            let text = line.strip_prefix("id: ").and_then(|line| line.strip_suffix('\n')).unwrap();
            prop_assert!(!text.contains(['\n', '\r', '\0']));
            let read = positions(text, list, places.len());
            prop_assert_eq!(read, Some(places.iter().map(Option::as_deref).collect()));
            prop_assert_eq!(positions(text, list, places.len() + 1), None);
            if (other ^ list) & ((1 << LIST_BITS) - 1) != 0 {
                prop_assert_eq!(positions(text, other, places.len()), None);
            }
        }

        #[test]
        fn anything_may_be_sent_as_an_id_or_a_body(text: String, bytes: Vec<u8>) {
            positions(&text, 0, 2);
            rooms(&text);
            let _ = emitter(&bytes);
            let _ = emitter(text.as_bytes());
        }
    }
}
