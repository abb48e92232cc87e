//! Native JSON as the server writes it: whole WebSocket text frames, header included, appended to
//! one buffer. Invariant: fields stand in the protocol's order, and a frame lies in one piece
//! behind a header of the shortest form.

use super::codes::WireError;
use super::envelope::RequestId;
use super::frame;
use super::json;
use std::ops::Range;

/// A message to a client that answers nothing.
#[derive(Clone, Copy, Debug)]
pub struct Push<'a> {
    pub event: &'a str,
    pub room: Option<&'a str>,
    pub seq: Option<u64>,
    /// Base32, so it needs no escape.
    pub mid: Option<&'a [u8; 26]>,
    /// Milliseconds since 1970.
    pub ts: Option<u64>,
    /// The authenticated sender; none where a server published.
    pub from: Option<&'a str>,
    /// JSON, written as it is.
    pub data: &'a [u8],
}

/// Appends `push`; returns where its `data` lies inside `out`.
pub fn push(out: &mut Vec<u8>, push: &Push<'_>) -> Range<usize> {
    // The length is known before the first byte is written, so nothing is moved or grown twice.
    let (mut seq, mut ts) = (itoa::Buffer::new(), itoa::Buffer::new());
    let seq = push.seq.map(|number| seq.format(number));
    let ts = push.ts.map(|number| ts.format(number));
    let event_len = json::string_len(push.event);
    let (room_len, from_len) = (push.room.map_or(0, json::string_len), push.from.map_or(0, json::string_len));
    let text_len = |key: &str, text: Option<&str>, len: usize| text.map_or(0, |_| key.len() + len);
    let number_len = |key: &str, digits: Option<&str>| digits.map_or(0, |digits| key.len() + digits.len());
    let len = EVENT.len()
        + event_len
        + text_len(ROOM, push.room, room_len)
        + number_len(SEQ, seq)
        + push.mid.map_or(0, |mid| MID.len() + mid.len() + 2)
        + number_len(TS, ts)
        + text_len(FROM, push.from, from_len)
        + DATA.len()
        + push.data.len()
        + 1;
    out.reserve(frame::header_len(len) + len);
    frame::header(out, frame::TEXT, len);
    let start = out.len();
    put(out, EVENT);
    json::write_string_of(out, push.event, event_len);
    if let Some(room) = push.room {
        put(out, ROOM);
        json::write_string_of(out, room, room_len);
    }
    if let Some(seq) = seq {
        put(out, SEQ);
        put(out, seq);
    }
    if let Some(mid) = push.mid {
        put(out, MID);
        out.push(b'"');
        out.extend_from_slice(mid);
        out.push(b'"');
    }
    if let Some(ts) = ts {
        put(out, TS);
        put(out, ts);
    }
    if let Some(from) = push.from {
        put(out, FROM);
        json::write_string_of(out, from, from_len);
    }
    put(out, DATA);
    let data = out.len()..out.len() + push.data.len();
    out.extend_from_slice(push.data);
    out.push(b'}');
    debug_assert_eq!(out.len() - start, len);
    data
}

const EVENT: &str = r#"{"event":"#;
const ROOM: &str = r#","room":"#;
const SEQ: &str = r#","seq":"#;
const MID: &str = r#","mid":"#;
const TS: &str = r#","ts":"#;
const FROM: &str = r#","from":"#;
const DATA: &str = r#","data":"#;

/// Appends the reply to a request that succeeded; `data` is JSON and written as it is.
pub fn reply_ok(out: &mut Vec<u8>, id: &RequestId, data: &[u8]) {
    const OK: &str = r#","ok":true,"data":"#;
    let len = ID.len() + id_len(id) + OK.len() + data.len() + 1;
    out.reserve(frame::header_len(len) + len);
    frame::header(out, frame::TEXT, len);
    let start = out.len();
    put(out, ID);
    put_id(out, id);
    put(out, OK);
    out.extend_from_slice(data);
    out.push(b'}');
    debug_assert_eq!(out.len() - start, len);
}

/// Appends the reply to a request that failed.
pub fn reply_error(out: &mut Vec<u8>, id: &RequestId, error: &WireError) {
    framed(out, |out| {
        put(out, ID);
        put_id(out, id);
        put(out, r#","ok":false,"error":{"#);
        put_error(out, error);
        put(out, "}}");
    });
}

/// Appends the `error` push that tells of a failed request without an id; `event` is its name
/// where it had one.
pub fn error_push(out: &mut Vec<u8>, event: Option<&str>, error: &WireError) {
    framed(out, |out| {
        put(out, r#"{"event":"error","data":{"#);
        if let Some(event) = event {
            put(out, r#""event":"#);
            json::write_string(out, event);
            out.push(b',');
        }
        put_error(out, error);
        put(out, "}}");
    });
}

/// Appends the error as a JSON object of its own, for answers that hold several.
pub fn error_object(out: &mut Vec<u8>, error: &WireError) {
    out.push(b'{');
    put_error(out, error);
    out.push(b'}');
}

const ID: &str = r#"{"id":"#;

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    put(out, itoa::Buffer::new().format(number));
}

fn put_id(out: &mut Vec<u8>, id: &RequestId) {
    match id {
        RequestId::Integer(number) => put_number(out, *number),
        RequestId::Text(text) => json::write_string(out, text),
        RequestId::Emit { id: Some(id), .. } => put_id(out, id),
        RequestId::Emit { id: None, .. } => put(out, "null"),
    }
}

fn id_len(id: &RequestId) -> usize {
    match id {
        RequestId::Integer(number) => itoa::Buffer::new().format(*number).len(),
        RequestId::Text(text) => json::string_len(text),
        RequestId::Emit { id: Some(id), .. } => id_len(id),
        RequestId::Emit { id: None, .. } => "null".len(),
    }
}

/// The fields of an error, without the brackets around them.
fn put_error(out: &mut Vec<u8>, error: &WireError) {
    put(out, r#""code":"#);
    json::write_string(out, error.code.as_str());
    put(out, r#","message":"#);
    json::write_string(out, &error.message);
    if let Some(retry_after_ms) = error.retry_after_ms {
        put(out, r#","retry_after_ms":"#);
        put_number(out, retry_after_ms);
    }
    if let Some(limit) = &error.limit {
        put(out, r#","limit":"#);
        json::write_string(out, &limit.name());
    }
}

/// Appends a text frame whose length is known only once it is written. For the short and rare: the
/// body is moved behind its header.
fn framed(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    body(out);
    let end = out.len();
    frame::header(out, frame::TEXT, end - start);
    let header_len = out.len() - end;
    out[start..].rotate_right(header_len);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codes::{ErrorCode, Limit};
    use proptest::prelude::*;
    use std::io::Cursor;
    use tungstenite::protocol::frame::{
        FrameHeader,
        coding::{Data, OpCode},
    };

    /// The payload of the one frame that `bytes` are, read by a second implementation.
    fn payload(bytes: &[u8]) -> &str {
        let mut cursor = Cursor::new(bytes);
        let (header, len) = FrameHeader::parse(&mut cursor).expect("a header").expect("a whole header");
        assert!(header.is_final && header.mask.is_none());
        assert_eq!(header.opcode, OpCode::Data(Data::Text));
        let start = cursor.position() as usize;
        assert_eq!(start, frame::header_len(len as usize), "the shortest form");
        assert_eq!(bytes.len() - start, len as usize);
        std::str::from_utf8(&bytes[start..]).expect("UTF-8")
    }

    const PUSH: Push<'_> = Push {
        event: "message:new",
        room: Some("chat:1"),
        seq: Some(41),
        mid: Some(b"01J0000000000000000000000Z"),
        ts: Some(1_763_690_000_123),
        from: Some("alice"),
        data: b"{ }",
    };

    #[test]
    fn a_push_has_its_fields_in_the_protocols_order() {
        let mut out = Vec::new();
        let data = push(&mut out, &PUSH);
        assert_eq!(
            payload(&out),
            r#"{"event":"message:new","room":"chat:1","seq":41,"mid":"01J0000000000000000000000Z","ts":1763690000123,"from":"alice","data":{ }}"#
        );
        assert_eq!(&out[data], b"{ }");
        out.clear();
        push(&mut out, &Push { room: None, seq: None, mid: None, ts: None, from: None, ..PUSH });
        assert_eq!(payload(&out), r#"{"event":"message:new","data":{ }}"#);
    }

    #[test]
    fn replies_are_as_the_protocol_shows_them() {
        let mut out = Vec::new();
        reply_ok(&mut out, &RequestId::Text("c\"1".into()), br#"{"pos":"1"}"#);
        assert_eq!(payload(&out), r#"{"id":"c\"1","ok":true,"data":{"pos":"1"}}"#);
        out.clear();
        let limited = WireError {
            retry_after_ms: Some(1200),
            limit: Some(Limit::Event("room:publish".into())),
            ..WireError::new(ErrorCode::RateLimited, "too \"fast\"")
        };
        reply_error(&mut out, &RequestId::Integer(-7), &limited);
        assert_eq!(
            payload(&out),
            r#"{"id":-7,"ok":false,"error":{"code":"rate_limited","message":"too \"fast\"","retry_after_ms":1200,"limit":"event:room:publish"}}"#
        );
        out.clear();
        error_push(&mut out, Some("room:join"), &WireError::new(ErrorCode::Forbidden, "no"));
        assert_eq!(
            payload(&out),
            r#"{"event":"error","data":{"event":"room:join","code":"forbidden","message":"no"}}"#
        );
        out.clear();
        error_push(&mut out, None, &WireError::new(ErrorCode::BadRequest, "no"));
        assert_eq!(payload(&out), r#"{"event":"error","data":{"code":"bad_request","message":"no"}}"#);
    }

    proptest! {
        #[test]
        fn pushes_of_any_content_and_length_are_read_back(
            event: String, room: Option<String>, seq: Option<u64>, ts: Option<u64>, from: Option<String>,
            data_len in prop_oneof![0usize..200, 65_300usize..65_700], before in 0usize..20,
        ) {
            let data = serde_json::Value::from("x".repeat(data_len));
            let raw = data.to_string();
            let mut out = vec![7; before];
            let range = push(&mut out, &Push {
                event: &event, room: room.as_deref(), seq, mid: None, ts, from: from.as_deref(), data: raw.as_bytes(),
            });
            prop_assert_eq!(&out[range], raw.as_bytes());
            let tree: serde_json::Value = serde_json::from_str(payload(&out[before..])).expect("JSON");
            let mut expected = serde_json::json!({"event": event, "data": data});
            for (key, value) in [("room", room.map(Into::into)), ("seq", seq.map(Into::into)), ("ts", ts.map(Into::into)), ("from", from.map(Into::<serde_json::Value>::into))] {
                if let Some(value) = value { expected[key] = value; }
            }
            prop_assert_eq!(tree, expected);
        }

        #[test]
        fn replies_of_any_content_and_length_are_read_back(
            id in prop_oneof![any::<i64>().prop_map(RequestId::Integer), any::<String>().prop_map(|text| RequestId::Text(text.into())),
                any::<Option<i64>>().prop_map(|id| RequestId::Emit { poll: 7, id: id.map(RequestId::Integer).map(Box::new) })],
            data_len in prop_oneof![0usize..200, 65_300usize..65_700], before in 0usize..20,
        ) {
            let text = "é\n".repeat(data_len / 3);
            let raw = serde_json::Value::from(text.as_str()).to_string();
            let id_tree = match &id {
                RequestId::Integer(number) => serde_json::Value::from(*number),
                RequestId::Text(text) => serde_json::Value::from(&**text),
                RequestId::Emit { id, .. } => serde_json::json!(id.as_deref().map(|id| match id {
                    RequestId::Integer(number) => *number,
                    other => unreachable!("{other:?} was not asked"),
                })),
            };
            let mut out = vec![7; before];
            reply_ok(&mut out, &id, raw.as_bytes());
            let tree: serde_json::Value = serde_json::from_str(payload(&out[before..])).expect("JSON");
            prop_assert_eq!(tree, serde_json::json!({"id": id_tree, "ok": true, "data": text}));
            out.truncate(before);
            reply_error(&mut out, &id, &WireError::new(ErrorCode::TooLarge, text.clone()));
            let tree: serde_json::Value = serde_json::from_str(payload(&out[before..])).expect("JSON");
            prop_assert_eq!(tree, serde_json::json!({"id": id_tree, "ok": false, "error": {"code": "too_large", "message": text}}));
            prop_assert_eq!(&out[..before], &vec![7; before][..]);
        }
    }
}
