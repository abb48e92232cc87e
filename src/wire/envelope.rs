//! The native envelope, `{"id":..,"event":..,"data":..}`: its head is read, `data` stays the
//! sender's bytes. Invariant: an [`Envelope`] exists only of a message that is JSON throughout,
//! so its `data` can be passed on unread.

use super::codes::{ErrorCode, WireError};
use super::json::{self, Scratch};
use crate::base::limits::{CID_BYTES_MAX, EVENT_BYTES_MAX, REQUEST_ID_BYTES_MAX, ROOMS_PER_REQUEST_MAX};
use std::borrow::Cow;

/// What a client calls its request; the reply repeats it.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub enum RequestId {
    Integer(i64),
    Text(Box<str>),
}

/// One message of a client.
#[derive(PartialEq, Debug)]
pub struct Envelope<'a> {
    /// With an id, the request is answered exactly once.
    pub id: Option<RequestId>,
    /// 1 to `EVENT_BYTES_MAX` bytes of `[A-Za-z0-9_.:-]`.
    pub event: Cow<'a, str>,
    /// JSON, as the sender wrote it; `{}` where there was none.
    pub data: &'a [u8],
}

/// A message that is no request.
#[derive(PartialEq, Debug)]
pub struct Malformed {
    /// Where it could be read: the failure is then a reply, else an `error` push.
    pub id: Option<RequestId>,
    pub error: WireError,
}

/// Reads one message. Unknown fields are ignored, known ones may come once, in any order.
pub fn parse<'a>(_scratch: &mut Scratch, message: &'a [u8]) -> Result<Envelope<'a>, Malformed> {
    let mut id: Slot<'_> = Slot::Absent;
    let mut event: Slot<'_> = Slot::Absent;
    let mut data: Slot<'_> = Slot::Absent;
    let walked = json::walk(message, |key, value| match key {
        b"\"id\"" => id.fill(value),
        b"\"event\"" => event.fill(value),
        b"\"data\"" => data.fill(value),
        // Rare: a key can be spelled with escapes.
        _ if key.contains(&b'\\') => match json::string(key).as_deref() {
            Some("id") => id.fill(value),
            Some("event") => event.fill(value),
            Some("data") => data.fill(value),
            _ => {}
        },
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
        Slot::Absent => Ok(Envelope { id, event, data: b"{}" }),
        Slot::Once(data) => Ok(Envelope { id, event, data }),
        Slot::Repeated => malformed(id, repeated("data")),
    }
}

/// A field that may come once.
#[derive(Clone, Copy)]
enum Slot<'a> {
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> Slot<'a> {
    fn fill(&mut self, value: &'a [u8]) {
        *self = match self {
            Slot::Absent => Slot::Once(value),
            Slot::Once(_) | Slot::Repeated => Slot::Repeated,
        };
    }

    /// The field's value where it is present; `null` is absent.
    fn optional(self, name: &'static str) -> Result<Option<&'a [u8]>, WireError> {
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
    (1..=EVENT_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-'))
}

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
    pub data: &'a [u8],
    /// 1 to `CID_BYTES_MAX` bytes.
    pub cid: Option<Cow<'a, str>>,
    pub exclude_self: bool,
}

/// Reads the data of a publish, which has been checked as part of its envelope. Unknown fields are
/// ignored; a `null` is an absent field, except as `data`.
pub fn publish_fields(data: &[u8]) -> Result<PublishFields<'_>, WireError> {
    let fields = json::object(data).ok_or_else(|| bad_request("the data of a publish must be an object"))?;
    let (mut room, mut rooms, mut user, mut event) = (Slot::Absent, Slot::Absent, Slot::Absent, Slot::Absent);
    let (mut payload, mut cid, mut exclude_self) = (Slot::Absent, Slot::Absent, Slot::Absent);
    for (key, value) in fields {
        match &*key {
            "room" => room.fill(value),
            "rooms" => rooms.fill(value),
            "user" => user.fill(value),
            "event" => event.fill(value),
            "data" => payload.fill(value),
            "cid" => cid.fill(value),
            "exclude_self" => exclude_self.fill(value),
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
        Slot::Absent => b"null",
        Slot::Once(raw) => raw,
        Slot::Repeated => return Err(repeated("data")),
    };
    Ok(PublishFields { room, rooms, user, event, data, cid, exclude_self })
}

fn text<'a>(raw: &'a [u8], name: &str) -> Result<Cow<'a, str>, WireError> {
    json::string(raw).ok_or_else(|| bad_request(format!("`{name}` must be a string")))
}

fn room_list(raw: &[u8]) -> Result<Vec<Cow<'_, str>>, WireError> {
    let wrong = || bad_request(format!("`rooms` must be an array of 1 to {ROOMS_PER_REQUEST_MAX} strings"));
    let items = json::array(raw).ok_or_else(wrong)?;
    let mut rooms = Vec::new();
    for item in items {
        if rooms.len() == ROOMS_PER_REQUEST_MAX {
            let message = format!("`rooms` holds more than {ROOMS_PER_REQUEST_MAX} rooms; send several requests");
            return Err(WireError::new(ErrorCode::TooMany, message));
        }
        rooms.push(json::string(item).ok_or_else(wrong)?);
    }
    if rooms.is_empty() { Err(wrong()) } else { Ok(rooms) }
}
