//! The native envelope, `{"id":..,"event":..,"data":..}`: its head is read, `data` stays the
//! sender's bytes. Invariant: an [`Envelope`] exists only of a message that is JSON throughout,
//! so its `data` can be passed on unread.

use super::codes::{ErrorCode, Limit, WireError};
use super::json::{self, Fields, Spans};
use crate::base::limits::{CID_BYTES_MAX, EVENT_BYTES_MAX, REQUEST_ID_BYTES_MAX, ROOMS_PER_REQUEST_MAX};
use std::borrow::Cow;

/// What a client calls its request; the reply repeats it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum RequestId {
    Integer(i64),
    Text(Box<str>),
    /// Of a request whose reply goes its own way, and what the client calls it.
    Emit {
        poll: u64,
        id: Option<Box<RequestId>>,
    },
}

/// One message of a client.
#[derive(PartialEq, Debug)]
pub struct Envelope<'a> {
    /// With an id, the request is answered exactly once.
    pub id: Option<RequestId>,
    /// 1 to `EVENT_BYTES_MAX` bytes of `[A-Za-z0-9_.:-]`.
    pub event: Cow<'a, str>,
    /// JSON, as the sender wrote it; `{}` where there was none.
    pub data: &'a str,
    /// Where the first fields of `data` lie.
    pub spans: Spans,
}

/// The data of a request, for who reads it.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// JSON, as the sender wrote it.
    pub json: &'a str,
    /// Of the same text, or [`Spans::NONE`].
    pub spans: &'a Spans,
}

impl<'a> Data<'a> {
    /// The fields, or `None` where the data is no object.
    #[inline]
    pub fn fields(self) -> Option<Fields<'a>> {
        json::fields(self.json, self.spans)
    }
}

impl<'a> From<&'a str> for Data<'a> {
    fn from(json: &'a str) -> Self {
        Data { json, spans: &Spans::NONE }
    }
}

/// A message that is no request.
#[derive(PartialEq, Debug)]
pub struct Malformed {
    /// Where it could be read: the failure is then a reply, else an `error` push.
    pub id: Option<RequestId>,
    pub error: WireError,
}

/// Reads one message. Unknown fields are ignored, known ones may come once, in any order.
pub fn parse(message: &[u8]) -> Result<Envelope<'_>, Malformed> {
    let mut id: Slot<'_> = Slot::Absent;
    let mut event: Slot<'_> = Slot::Absent;
    let mut data: Slot<'_> = Slot::Absent;
    let mut spans = Spans::NONE;
    let walked = json::walk(message, &mut |key, value, inner| match &*key.name() {
        b"id" => id.fill(value),
        b"event" => event.fill(value),
        b"data" => {
            data.fill(value);
            spans.clone_from(inner);
        }
        _ => {}
    });
    let id = read_id(id);
    let malformed = |id, error| Err(Malformed { id, error });
    if let Err(error) = walked {
        return malformed(id.unwrap_or(None), bad_request(format!("the message is {error}")));
    }
    let id = match id {
        Ok(id) => id,
        Err(error) => return malformed(None, error),
    };
    let event = match read_event(event) {
        Ok(event) => event,
        Err(error) => return malformed(id, error),
    };
    match data {
        Slot::Absent => Ok(Envelope { id, event, data: "{}", spans }),
        Slot::Once(data) => Ok(Envelope { id, event, data, spans }),
        Slot::Repeated => malformed(id, repeated("data")),
    }
}

/// A field that may come once.
#[derive(Clone, Copy)]
enum Slot<'a> {
    Absent,
    Once(&'a str),
    Repeated,
}

impl<'a> Slot<'a> {
    fn fill(&mut self, value: &'a str) {
        *self = match self {
            Slot::Absent => Slot::Once(value),
            Slot::Once(_) | Slot::Repeated => Slot::Repeated,
        };
    }

    /// The field's value where it is present; `null` is absent.
    fn optional(self, name: &'static str) -> Result<Option<&'a str>, WireError> {
        match self {
            Slot::Absent => Ok(None),
            Slot::Once(raw) if json::is_null(raw) => Ok(None),
            Slot::Once(raw) => Ok(Some(raw)),
            Slot::Repeated => Err(repeated(name)),
        }
    }
}

fn bad_request(message: impl Into<Cow<'static, str>>) -> WireError {
    WireError::new(ErrorCode::BadRequest, message)
}

fn repeated(name: &str) -> WireError {
    bad_request(format!("`{name}` is there twice; send it once"))
}

fn read_id(slot: Slot<'_>) -> Result<Option<RequestId>, WireError> {
    let wrong = || bad_request(format!("`id` must be an integer or a string of up to {REQUEST_ID_BYTES_MAX} bytes"));
    match slot {
        Slot::Absent => Ok(None),
        Slot::Repeated => Err(repeated("id")),
        Slot::Once(raw) => match json::integer(raw) {
            Some(number) => Ok(Some(RequestId::Integer(number))),
            None => {
                let text = json::string(raw).filter(|text| text.len() <= REQUEST_ID_BYTES_MAX).ok_or_else(wrong)?;
                Ok(Some(RequestId::Text(text.into())))
            }
        },
    }
}

fn read_event(slot: Slot<'_>) -> Result<Cow<'_, str>, WireError> {
    let raw = match slot {
        Slot::Absent => return Err(bad_request("`event` is missing; send {\"id\":..,\"event\":..,\"data\":..}")),
        Slot::Repeated => return Err(repeated("event")),
        Slot::Once(raw) => raw,
    };
    json::string(raw).filter(|event| is_event_name(event)).ok_or_else(|| {
        bad_request(format!(
            "`event` must be a string of 1 to {EVENT_BYTES_MAX} bytes of letters, digits and `_` `.` `:` `-`"
        ))
    })
}

/// Whether an event may have this name.
pub fn is_event_name(name: &str) -> bool {
    (1..=EVENT_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| IS_EVENT_BYTE[byte as usize])
}

const IS_EVENT_BYTE: [bool; 256] = {
    let mut is_event_byte = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        is_event_byte[byte] = (byte as u8).is_ascii_alphanumeric() || matches!(byte as u8, b'_' | b'.' | b':' | b'-');
        byte += 1;
    }
    is_event_byte
};

/// The data of `room:publish`: types and bounds are right, names of rooms and users are unread.
#[derive(PartialEq, Debug)]
pub struct PublishFields<'a> {
    /// Exactly one of `room`, `rooms` and `user` is there.
    pub room: Option<Cow<'a, str>>,
    /// 1 to `ROOMS_PER_REQUEST_MAX`.
    pub rooms: Option<Vec<Cow<'a, str>>>,
    pub user: Option<Cow<'a, str>>,
    pub event: Cow<'a, str>,
    /// JSON, as the sender wrote it; `null` where there was none.
    pub data: &'a str,
    /// 1 to `CID_BYTES_MAX` bytes.
    pub cid: Option<Cow<'a, str>>,
    pub exclude_self: bool,
}

/// Reads the data of a publish, which has been checked as part of its envelope. Unknown fields are
/// ignored; a `null` is an absent field, except as `data`.
pub fn publish_fields(data: Data<'_>) -> Result<PublishFields<'_>, WireError> {
    let fields = data.fields().ok_or_else(|| bad_request("the data of a publish must be an object"))?;
    let (mut room, mut rooms, mut user, mut event) = (Slot::Absent, Slot::Absent, Slot::Absent, Slot::Absent);
    let (mut payload, mut cid, mut exclude_self) = (Slot::Absent, Slot::Absent, Slot::Absent);
    for (key, value) in fields {
        match &*key.name() {
            b"room" => room.fill(value),
            b"rooms" => rooms.fill(value),
            b"user" => user.fill(value),
            b"event" => event.fill(value),
            b"data" => payload.fill(value),
            b"cid" => cid.fill(value),
            b"exclude_self" => exclude_self.fill(value),
            _ => {}
        }
    }
    let room = room.optional("room")?.map(|raw| text(raw, "room")).transpose()?;
    let rooms = rooms.optional("rooms")?.map(room_list).transpose()?;
    let user = user.optional("user")?.map(|raw| text(raw, "user")).transpose()?;
    if [room.is_some(), rooms.is_some(), user.is_some()].iter().filter(|is_there| **is_there).count() != 1 {
        return Err(bad_request("name one receiver: `room`, `rooms` or `user`"));
    }
    let cid = cid.optional("cid")?.map(|raw| text(raw, "cid")).transpose()?;
    if cid.as_ref().is_some_and(|cid| !(1..=CID_BYTES_MAX).contains(&cid.len())) {
        return Err(bad_request(format!("`cid` must be a string of 1 to {CID_BYTES_MAX} bytes")));
    }
    let exclude_self = match exclude_self.optional("exclude_self")? {
        None => false,
        Some(raw) => json::boolean(raw).ok_or_else(|| bad_request("`exclude_self` must be true or false"))?,
    };
    let event = read_event(event)?;
    let data = match payload {
        Slot::Absent => "null",
        Slot::Once(raw) => raw,
        Slot::Repeated => return Err(repeated("data")),
    };
    Ok(PublishFields { room, rooms, user, event, data, cid, exclude_self })
}

fn text<'a>(raw: &'a str, name: &str) -> Result<Cow<'a, str>, WireError> {
    json::string(raw).ok_or_else(|| bad_request(format!("`{name}` must be a string")))
}

fn room_list(raw: &str) -> Result<Vec<Cow<'_, str>>, WireError> {
    let wrong = || bad_request(format!("`rooms` must be an array of 1 to {ROOMS_PER_REQUEST_MAX} strings"));
    let items = json::array(raw).ok_or_else(wrong)?;
    let mut rooms = Vec::new();
    for item in items {
        if rooms.len() == ROOMS_PER_REQUEST_MAX {
            let message = format!("`rooms` holds more than {ROOMS_PER_REQUEST_MAX} rooms; send several requests");
            return Err(WireError::too_many(Limit::RoomsPerRequest, message));
        }
        rooms.push(json::string(item).ok_or_else(wrong)?);
    }
    if rooms.is_empty() { Err(wrong()) } else { Ok(rooms) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &str) -> Result<Envelope<'_>, Malformed> {
        parse(message.as_bytes())
    }

    fn refused(message: &str) -> Malformed {
        read(message).expect_err(message)
    }

    fn text_id(text: &str) -> Option<RequestId> {
        Some(RequestId::Text(text.into()))
    }

    #[test]
    fn fields_come_in_any_order_and_unknown_ones_are_ignored() {
        let envelope = read(r#" {"x":[{"id":1}], "data" : {"room" : "chat:1"} ,"id":"c1","event":"room:join"} "#);
        let envelope = envelope.expect("well formed");
        assert_eq!((envelope.id, &*envelope.event), (text_id("c1"), "room:join"));
        assert_eq!(envelope.data, r#"{"room" : "chat:1"}"#);
    }

    #[test]
    fn id_and_data_may_be_absent() {
        let envelope = Envelope { id: None, event: "ping".into(), data: "{}", spans: Spans::NONE };
        assert_eq!(read(r#"{"event":"ping"}"#), Ok(envelope));
    }

    #[test]
    fn data_stays_as_its_sender_wrote_it() {
        let data = "[ 1.0e+05,\t\"\\u0041\\/\" , 123456789012345678901234567890,{ } ]";
        let message = format!(r#"{{"event":"a","data":  {data}  }}"#);
        assert_eq!(read(&message).expect("well formed").data, data);
    }

    #[test]
    fn ids_are_integers_or_short_strings() {
        let id = |raw: &str| read(&format!(r#"{{"id":{raw},"event":"a"}}"#)).map(|envelope| envelope.id);
        assert_eq!(id("-7"), Ok(Some(RequestId::Integer(-7))));
        assert_eq!(id(r#""""#), Ok(text_id("")));
        assert_eq!(id(&format!("{:?}", "x".repeat(64))), Ok(text_id(&"x".repeat(64))));
        let long = format!("{:?}", "x".repeat(65));
        for wrong in ["null", "1.5", "true", "{}", "[1]", "9223372036854775808", &long] {
            let malformed = id(wrong).expect_err(wrong);
            assert_eq!((malformed.id, malformed.error.code), (None, ErrorCode::BadRequest), "{wrong}");
        }
    }

    #[test]
    fn events_keep_to_their_letters_and_length() {
        let event =
            |raw: &str| read(&format!(r#"{{"id":1,"event":{raw}}}"#)).map(|envelope| envelope.event.into_owned());
        assert_eq!(event(r#""a_B.9:-""#).as_deref(), Ok("a_B.9:-"));
        assert_eq!(event(r#""\u0070ing""#).as_deref(), Ok("ping"));
        let long = format!("{:?}", "x".repeat(65));
        for wrong in [r#""""#, r#""a b""#, r#""é""#, r#""a\n""#, r#""\ud800""#, "1", "null", &long] {
            let malformed = event(wrong).expect_err(wrong);
            assert_eq!(malformed.id, Some(RequestId::Integer(1)), "{wrong}");
            assert!(malformed.error.message.contains("`event`"), "{}", malformed.error.message);
        }
        assert_eq!(refused(r#"{"id":1}"#).id, Some(RequestId::Integer(1)));
    }

    #[test]
    fn a_known_field_comes_once_however_it_is_spelled() {
        for message in [
            r#"{"id":1,"id":1,"event":"a"}"#,
            r#"{"event":"a","event":"b"}"#,
            r#"{"event":"a","data":{},"data":{}}"#,
            r#"{"event":"a","\u0065vent":"b"}"#,
            r#"{"event":"a","data":1,"d\u0061ta":2,"data":3}"#,
        ] {
            assert!(refused(message).error.message.contains("is there twice"), "{message}");
        }
        assert!(read(r#"{"event":"a","x":1,"x":2,"data":{"a":1,"a":2}}"#).is_ok());
    }

    #[test]
    fn what_is_no_object_is_a_bad_request() {
        for message in ["", "[]", "1", "null", r#""event""#, r#"[{"event":"a"}]"#] {
            assert_eq!(refused(message).error.code, ErrorCode::BadRequest, "{message}");
        }
    }

    #[test]
    fn a_broken_message_is_answered_under_its_id_where_that_was_read() {
        assert_eq!(refused(r#"{"id":"c1","event":"a","data":{]}"#).id, text_id("c1"));
        assert_eq!(refused(r#"{"event":"a","data":{],"id":"c1"}"#).id, None);
        let deep = format!(r#"{{"id":2,"event":"a","data":{}"#, "[".repeat(100_000));
        assert_eq!(refused(&deep).id, Some(RequestId::Integer(2)));
    }

    proptest! {
        #[test]
        fn envelopes_agree_with_a_tree(
            id in proptest::option::of(prop_oneof![any::<i64>().prop_map(serde_json::Value::from), "\\PC{0,16}".prop_map(serde_json::Value::from)]),
            event in "[A-Za-z0-9_.:-]{1,64}", data in proptest::option::of("\\PC{0,300}"),
        ) {
            let mut tree = serde_json::Map::new();
            if let Some(id) = &id { tree.insert("id".into(), id.clone()); }
            tree.insert("event".into(), event.clone().into());
            if let Some(data) = &data { tree.insert("data".into(), data.clone().into()); }
            let message = serde_json::to_vec(&tree).expect("a tree can be written");
            let envelope = parse(&message).expect("well formed");
            prop_assert_eq!(&*envelope.event, &*event);
            prop_assert_eq!(envelope.id.map(|id| match id {
                RequestId::Integer(number) => serde_json::Value::from(number),
                RequestId::Text(text) => serde_json::Value::from(&*text),
                RequestId::Emit { .. } => unreachable!("no client writes it"),
            }), id);
            let expected = data.map_or(serde_json::json!({}), serde_json::Value::from);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(envelope.data).ok(), Some(expected));
        }

        #[test]
        fn no_message_makes_the_reader_panic(message: Vec<u8>, start in 0usize..40, cut in 0usize..60) {
            let valid: &[u8] = br#"{"id":"c1","event":"room:join","data":{"room":"\u00e9","rooms":["a"]}}"#;
            let cut = cut.min(valid.len());
            let mixed = [&valid[start.min(cut)..cut], &message].concat();
            let _ = parse(&mixed);
            let _ = publish_fields(Data::from(&*String::from_utf8_lossy(&mixed)));
        }
    }

    fn publish(data: &str) -> Result<PublishFields<'_>, WireError> {
        publish_fields(Data::from(data))
    }

    #[test]
    fn a_publish_names_its_fields_in_any_order() {
        let fields =
            publish(r#"{"data": {"a":1} ,"exclude_self":true,"cid":"7","event":"chat","room":"chat:1","x":0}"#);
        let expected = PublishFields {
            room: Some("chat:1".into()),
            rooms: None,
            user: None,
            event: "chat".into(),
            data: r#"{"a":1}"#,
            cid: Some("7".into()),
            exclude_self: true,
        };
        assert_eq!(fields, Ok(expected));
    }

    #[test]
    fn absent_fields_of_a_publish_have_defaults_and_null_is_absent() {
        let fields = publish(r#"{"user":"bob","event":"chat","cid":null,"room":null,"exclude_self":null}"#)
            .expect("well formed");
        assert_eq!((fields.data, fields.cid, fields.room, fields.exclude_self), ("null", None, None, false));
    }

    #[test]
    fn a_publish_goes_to_one_kind_of_receiver() {
        assert_eq!(
            publish(r#"{"rooms":["a","b"],"event":"e"}"#).map(|fields| fields.rooms),
            Ok(Some(vec!["a".into(), "b".into()]))
        );
        for wrong in
            [r#"{"event":"e"}"#, r#"{"event":"e","room":"a","user":"b"}"#, r#"{"event":"e","room":"a","rooms":["b"]}"#]
        {
            assert_eq!(publish(wrong).map_err(|error| error.code), Err(ErrorCode::BadRequest), "{wrong}");
        }
    }

    #[test]
    fn a_wrong_field_of_a_publish_is_named() {
        let long_cid = format!(r#"{{"room":"a","event":"e","cid":{:?}}}"#, "x".repeat(CID_BYTES_MAX + 1));
        for (wrong, name) in [
            (r#"{"room":1,"event":"e"}"#, "`room`"),
            (r#"{"rooms":"a","event":"e"}"#, "`rooms`"),
            (r#"{"rooms":[],"event":"e"}"#, "`rooms`"),
            (r#"{"rooms":["a",1],"event":"e"}"#, "`rooms`"),
            (r#"{"user":{},"event":"e"}"#, "`user`"),
            (r#"{"room":"a"}"#, "`event`"),
            (r#"{"room":"a","event":"a b"}"#, "`event`"),
            (r#"{"room":"a","event":"e","cid":7}"#, "`cid`"),
            (r#"{"room":"a","event":"e","cid":""}"#, "`cid`"),
            (&long_cid, "`cid`"),
            (r#"{"room":"a","event":"e","exclude_self":1}"#, "`exclude_self`"),
            (r#"{"room":"a","event":"e","data":1,"data":2}"#, "`data`"),
            (r#"{"room":"a","room":"b","event":"e"}"#, "`room`"),
            ("[]", "object"),
        ] {
            let error = publish(wrong).expect_err(wrong);
            assert_eq!(error.code, ErrorCode::BadRequest, "{wrong}");
            assert!(error.message.contains(name), "{wrong}: {}", error.message);
        }
    }

    #[test]
    fn more_rooms_than_a_request_may_name_are_too_many() {
        let data = |rooms: usize| format!(r#"{{"rooms":[{}],"event":"e"}}"#, vec![r#""a""#; rooms].join(","));
        assert!(publish(&data(ROOMS_PER_REQUEST_MAX)).is_ok());
        let error = publish(&data(ROOMS_PER_REQUEST_MAX + 1)).expect_err("one room too many");
        assert_eq!(error.code, ErrorCode::TooMany);
    }
}
