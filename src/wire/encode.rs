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
    let text_len = |key: &str, text: Option<&str>| text.map_or(0, |text| key.len() + json::string_len(text));
    let number_len = |key: &str, digits: Option<&str>| digits.map_or(0, |digits| key.len() + digits.len());
    let len = EVENT.len()
        + json::string_len(push.event)
        + text_len(ROOM, push.room)
        + number_len(SEQ, seq)
        + push.mid.map_or(0, |mid| MID.len() + mid.len() + 2)
        + number_len(TS, ts)
        + text_len(FROM, push.from)
        + DATA.len()
        + push.data.len()
        + 1;
    out.reserve(frame::header_len(len) + len);
    frame::header(out, frame::TEXT, len);
    let start = out.len();
    put(out, EVENT);
    json::write_string(out, push.event);
    if let Some(room) = push.room {
        put(out, ROOM);
        json::write_string(out, room);
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
        json::write_string(out, from);
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
    }
}

fn id_len(id: &RequestId) -> usize {
    match id {
        RequestId::Integer(number) => itoa::Buffer::new().format(*number).len(),
        RequestId::Text(text) => json::string_len(text),
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
    if let Some(limit) = error.limit {
        put(out, r#","limit":"#);
        json::write_string(out, limit);
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
