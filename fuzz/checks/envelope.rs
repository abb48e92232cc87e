//! The native envelope, and JSON without a tree, against a library that builds one.

use ringroom::base::limits::{CID_BYTES_MAX, JSON_DEPTH_MAX, REQUEST_ID_BYTES_MAX, ROOMS_PER_REQUEST_MAX};
use ringroom::wire::codes::ErrorCode;
use ringroom::wire::envelope::{Data, Envelope, PublishFields, RequestId, is_event_name, parse, publish_fields};
use ringroom::wire::json;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::fmt;

/// Input: a message of a client.
///
/// - It is an envelope if and only if `serde_json` and a naive reading of the same fields say so.
/// - `data` is the sender's bytes, and its fields are the same with the places noted as without.
/// - What is read of a value is what a tree has.
pub fn envelope(message: &[u8]) {
    let is_json = is_json(message);
    assert_eq!(json::check(message).is_ok(), is_json);
    let read = parse(message);
    match (&read, is_json.then(|| naive(message)).flatten()) {
        (Ok(envelope), Some(Ok(expected))) => {
            assert_eq!(*envelope, Envelope { spans: envelope.spans.clone(), ..expected })
        }
        (Err(malformed), expected) => {
            assert_eq!(malformed.error.code, ErrorCode::BadRequest);
            match expected {
                Some(Ok(expected)) => panic!("{} is refused: {malformed:?}", expected.data),
                // The id of a message that is no envelope, where it can be read.
                Some(Err(id)) => assert_eq!(malformed.id, id),
                None => {}
            }
        }
        (Ok(envelope), expected) => panic!("{envelope:?} is taken, not {expected:?}"),
    }
    if let Ok(envelope) = &read {
        fields_are_noted(envelope);
        publish_is_read(envelope);
    }
    if is_json {
        let text = std::str::from_utf8(message).expect("JSON is UTF-8");
        // A tree has no half surrogate pairs and no number beyond a float.
        if let Ok(tree) = serde_json::from_str::<Value>(text) {
            assert!(is_same(&rebuilt(text.trim_ascii()).expect("JSON can be read"), &tree));
        }
    } else if let Ok(text) = std::str::from_utf8(message) {
        // Unspecified, but nothing panics or goes on for ever.
        json::object(text).into_iter().flatten().for_each(|(key, _)| drop(key.name()));
        json::array(text).into_iter().flatten().for_each(drop);
        let _ = (json::string(text), json::string_lossy(text), json::integer(text));
        let _ = publish_fields(Data::from(text));
    }
}

/// What `RFC 8259` and the bound of the depth say.
pub fn is_json(bytes: &[u8]) -> bool {
    let is_text = std::str::from_utf8(bytes).is_ok() && serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    is_text && depth(bytes) <= JSON_DEPTH_MAX
}

/// Of JSON, the most brackets that are open at once.
fn depth(json: &[u8]) -> usize {
    let (mut open, mut most, mut in_string, mut is_escaped) = (0usize, 0, false, false);
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => open += 1,
            b'}' | b']' => open -= 1,
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// The fields of an object as a second implementation finds them: keys as bytes, since they may hold
/// half surrogate pairs, and values as they were written.
struct Pairs<'a>(Vec<(Vec<u8>, &'a str)>);

struct KeyBytes(Vec<u8>);

impl<'a> Deserialize<'a> for KeyBytes {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<KeyBytes, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = KeyBytes;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a key")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<KeyBytes, E> {
                Ok(KeyBytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

impl<'a> Deserialize<'a> for Pairs<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Pairs<'a>, D::Error> {
        struct Object;
        impl<'a> Visitor<'a> for Object {
            type Value = Pairs<'a>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Pairs<'a>, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<KeyBytes, &RawValue>()? {
                    pairs.push((key.0, value.get()));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// The fields of a text that is one object.
pub fn pairs(json: &str) -> Option<Vec<(Vec<u8>, &str)>> {
    serde_json::from_str::<Pairs>(json).ok().map(|pairs| pairs.0)
}

/// What a message that is JSON says; the id where it is no envelope, and `None` where it is no object.
fn naive(message: &[u8]) -> Option<Result<Envelope<'_>, Option<RequestId>>> {
    let text = std::str::from_utf8(message).expect("JSON is UTF-8");
    let pairs = pairs(text)?;
    let all = |name: &str| {
        pairs.iter().filter(|(key, _)| key == name.as_bytes()).map(|(_, value)| *value).collect::<Vec<_>>()
    };
    let (ids, events, datas) = (all("id"), all("event"), all("data"));
    let id = match ids[..] {
        [] => Ok(None),
        [id] => match (serde_json::from_str::<i64>(id), serde_json::from_str::<String>(id)) {
            // The library takes minus zero for a float.
            _ if id == "-0" => Ok(Some(RequestId::Integer(0))),
            (Ok(number), _) => Ok(Some(RequestId::Integer(number))),
            (_, Ok(text)) if text.len() <= REQUEST_ID_BYTES_MAX => Ok(Some(RequestId::Text(text.into()))),
            _ => Err(None),
        },
        _ => Err(None),
    };
    let id = match id {
        Ok(id) => id,
        Err(none) => return Some(Err(none)),
    };
    let event = match events[..] {
        [event] => serde_json::from_str::<String>(event).ok().filter(|event| is_event_name(event)),
        _ => None,
    };
    Some(match (event, &datas[..]) {
        (Some(event), []) => Ok(Envelope { id, event: event.into(), data: "{}", spans: json::Spans::NONE }),
        (Some(event), [data]) => Ok(Envelope { id, event: event.into(), data, spans: json::Spans::NONE }),
        _ => Err(id),
    })
}

fn fields_are_noted(envelope: &Envelope<'_>) {
    let noted = Data { json: envelope.data, spans: &envelope.spans }.fields();
    let walked = Data::from(envelope.data).fields();
    let named = |fields: json::Fields<'_>| {
        fields.map(|(key, value)| (key.name().into_owned(), value.to_owned())).collect::<Vec<_>>()
    };
    let noted = noted.map(named);
    assert_eq!(noted, walked.map(named));
    let expected = pairs(envelope.data).map(|pairs| {
        // A key that UTF-8 cannot spell has no name.
        let name = |key: Vec<u8>| if std::str::from_utf8(&key).is_ok() { key } else { Vec::new() };
        pairs.into_iter().map(|(key, value)| (name(key), value.to_owned())).collect::<Vec<_>>()
    });
    assert_eq!(noted, expected);
}

fn publish_is_read(envelope: &Envelope<'_>) {
    let read = publish_fields(Data { json: envelope.data, spans: &envelope.spans });
    assert_eq!(read, publish_fields(Data::from(envelope.data)));
    let Ok(PublishFields { room, rooms, user, event, data, cid, exclude_self }) = read else { return };
    let pairs = pairs(envelope.data).expect("a publish is an object");
    let raw = |name: &str| pairs.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| *value);
    let tree =
        |name: &str| raw(name).map_or(Value::Null, |raw| serde_json::from_str(raw).expect("a field of ours is plain"));
    let text = |text: Option<&str>| text.map_or(Value::Null, Value::from);
    assert_eq!((text(room.as_deref()), text(user.as_deref())), (tree("room"), tree("user")));
    assert_eq!(rooms.as_ref().map_or(Value::Null, |rooms| rooms.iter().map(|room| &**room).collect()), tree("rooms"));
    assert_eq!([room.is_some(), rooms.is_some(), user.is_some()].map(usize::from).iter().sum::<usize>(), 1);
    assert!(rooms.is_none_or(|rooms| (1..=ROOMS_PER_REQUEST_MAX).contains(&rooms.len())));
    assert_eq!(text(cid.as_deref()), tree("cid"));
    assert!(cid.is_none_or(|cid| (1..=CID_BYTES_MAX).contains(&cid.len())));
    assert_eq!((text(Some(&*event)), is_event_name(&event)), (tree("event"), true));
    assert_eq!((data, exclude_self), (raw("data").unwrap_or("null"), tree("exclude_self") == Value::Bool(true)));
}

/// The tree of a text, through our readers; as deep as the text.
fn rebuilt(text: &str) -> Option<Value> {
    if let Some(fields) = json::object(text) {
        let pair = |(key, value): (json::Key<'_>, &str)| {
            Some((String::from_utf8(key.name().into_owned()).ok()?, rebuilt(value)?))
        };
        return fields.map(pair).collect();
    }
    if let Some(items) = json::array(text) {
        return items.map(rebuilt).collect();
    }
    if let Some(text) = json::string(text) {
        assert_eq!(text, json::string_lossy(&serde_json::to_string(&text).expect("a string can be written")));
        return Some(Value::from(text));
    }
    let number = json::unsigned(text).map(Value::from).or(json::integer(text).map(Value::from));
    json::boolean(text).map(Value::from).or(number).or_else(|| match json::is_null(text) {
        true => Some(Value::Null),
        false => text.parse::<f64>().ok().map(Value::from),
    })
}

/// Whether two trees are one, but for the last digit of floats: the library rounds them its own way.
pub fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| is_same(ours, theirs))
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|((key, ours), (other, theirs))| key == other && is_same(ours, theirs))
        }
        (Value::Number(one), Value::Number(other)) if one.is_f64() || other.is_f64() => {
            let (Some(one), Some(other)) = (one.as_f64(), other.as_f64()) else { return false };
            (one - other).abs() <= one.abs() * 1e-14 || (one - other).abs() < 1e-300
        }
        _ => ours == theirs,
    }
}
