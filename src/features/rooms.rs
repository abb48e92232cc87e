//! Rooms: coming and going, who is there, what was said.
//! Promise: a member gets every logged push of its room from its join on, or from its position on,
//! in the room's order; a position that is too old is answered with `gap`, never with silence.

use crate::admission::gate::Admitted;
use crate::admission::rights::{Rate, Right};
use crate::base::limits::{MEMBER_EVENTS_MAX, ONLINE_PAGE_MAX, PAGE_ENTRIES_MAX, ROOM_DETAILS_BYTES_MAX};
use crate::features::data;
use crate::kernel::facts::Fact;
use crate::kernel::feature::{Answer, ConnRequest, Declaration, Declared, Feature, Home, RoomAnswer, Told};
use crate::kernel::ids::Cursor;
use crate::kernel::mail::{Ask, Request};
use crate::kernel::scope::{ConnScope, Messages, RoomScope};
use crate::kernel::sequencer::Draft;
use crate::wire::codes::{ErrorCode, Limit, WireError};
use crate::wire::envelope::Data;
use crate::wire::{encode, json};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

const fn declared(event: &'static str, home: Home, needs: Right, rate: Rate) -> Declared {
    Declared { event, home, needs, rate }
}

const DECLARATION: Declaration = Declaration {
    name: "rooms",
    requests: &[
        declared(JOIN, Home::Room, Right::Join, Rate::Normal),
        declared(LEAVE, Home::Room, Right::None, Rate::Normal),
        declared(JOIN_MANY, Home::Rooms, Right::Join, Rate::Normal),
        declared(LEAVE_MANY, Home::Rooms, Right::None, Rate::Normal),
        declared(INFO, Home::Room, Right::Join, Rate::Normal),
        declared(ONLINE, Home::Room, Right::Presence, Rate::Normal),
        declared(HISTORY, Home::Room, Right::Join, Rate::Normal),
        declared(UPDATE, Home::Room, Right::Manage, Rate::Heavy),
        declared(LIST, Home::Conn, Right::None, Rate::Light),
        declared(STATUS, Home::Conn, Right::None, Rate::Light),
        declared(DETAILS, Home::Conn, Right::None, Rate::Light),
    ],
};

const JOIN: &str = "room:join";
const LEAVE: &str = "room:leave";
const JOIN_MANY: &str = "room:join-many";
const LEAVE_MANY: &str = "room:leave-many";
const INFO: &str = "room:info";
const ONLINE: &str = "room:online";
const HISTORY: &str = "room:history";
const UPDATE: &str = "room:update";
const LIST: &str = "room:list";
const STATUS: &str = "room:subscription-status";
const DETAILS: &str = "room:subscription-details";

const MEMBER_JOINED: &str = "room:member-joined";
const MEMBER_LEFT: &str = "room:member-left";
const UPDATED: &str = "room:updated";

pub struct Rooms;

impl Feature for Rooms {
    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn on_room_request(&mut self, scope: &mut RoomScope<'_>, request: &Admitted<Request>, data: Data<'_>) -> Answer {
        let Ask::Event { declared, .. } = &request.ask else { unreachable!("features get events") };
        match DECLARATION.requests[declared.nth as usize].event {
            JOIN => {
                #[derive(Deserialize)]
                struct Join {
                    since: Option<String>,
                }
                let Join { since } = data::read(data)?;
                join(scope, request, data::cursor("since", since.as_deref())?)
            }
            JOIN_MANY => join(scope, request, None),
            LEAVE | LEAVE_MANY => leave(scope, request),
            INFO => info(scope, request),
            ONLINE => online(scope, data),
            HISTORY => history(scope, data),
            UPDATE => update(scope, request, data),
            other => unreachable!("{other} is not declared with a room's home"),
        }
    }

    fn on_conn_request(&mut self, scope: &mut ConnScope<'_>, request: &Admitted<ConnRequest<'_>>) -> Answer {
        match request.event {
            LIST => {
                let rooms: Vec<&str> = scope.rooms().map(|room| room.name).collect();
                Ok(data::write(&json!({ "rooms": rooms })))
            }
            STATUS => status(scope, request.data),
            DETAILS => {
                let detail = |room: crate::kernel::scope::MyRoom<'_>| {
                    json!({
                        "room": room.name,
                        "since": room.joined.since_unix_ms(),
                        "delivered": room.delivered,
                        "dropped": room.joined.dropped,
                    })
                };
                Ok(data::write(&scope.rooms().map(detail).collect::<Vec<_>>()))
            }
            other => unreachable!("{other} is not declared with Home::Conn"),
        }
    }

    fn on_answers(&mut self, event: &'static str, answers: Vec<RoomAnswer>) -> Answer {
        let done = if event == JOIN_MANY { "joined" } else { "left" };
        let (mut good, mut failed) = (Vec::new(), Vec::new());
        for RoomAnswer { room, answer } in answers {
            let list = if answer.is_ok() { &mut good } else { &mut failed };
            let mut item = Vec::new();
            match answer {
                Ok(_) => json::write_string(&mut item, &room),
                Err(error) => {
                    item.extend_from_slice(br#"{"room":"#);
                    json::write_string(&mut item, &room);
                    item.extend_from_slice(br#","error":"#);
                    encode::error_object(&mut item, &error);
                    item.push(b'}');
                }
            }
            list.push(item);
        }
        let mut out = format!(r#"{{"{done}":["#).into_bytes();
        out.extend(good.join(&b','));
        out.extend_from_slice(br#"],"failed":["#);
        out.extend(failed.join(&b','));
        out.extend_from_slice(b"]}");
        Ok(Told::Json(out))
    }

    fn on_fact(&mut self, scope: &mut RoomScope<'_>, fact: &Fact) {
        let (event, user, by) = match fact {
            Fact::Joined { user, by } => (MEMBER_JOINED, user, by),
            Fact::Left { user, by } => (MEMBER_LEFT, user, by),
        };
        let users = scope.directory().users();
        // A room of thousands would be told of nothing but comings and goings.
        if users > MEMBER_EVENTS_MAX || users == 0 {
            return;
        }
        let room = scope.room().name.name.clone();
        let told = data::to_json(&json!({ "room": room.as_str(), "user": &**user }));
        scope.announce(event, &told, Some(*by));
    }
}

fn join(scope: &mut RoomScope<'_>, request: &Request, since: Option<Cursor>) -> Answer {
    let resumed = scope.join(request, since)?;
    let room = scope.room();
    let mut answer = json!({
        "room": room.name.name.as_str(),
        "pos": room.pos().to_string(),
        "seq": room.head.0,
        "epoch": room.epoch.to_string(),
        "members": room.directory().users(),
    });
    if let Some(resumed) = resumed {
        answer["resumed"] = json!({ "recovered": !resumed.gap, "replayed": resumed.replayed, "gap": resumed.gap });
    }
    Ok(data::write(&answer))
}

fn leave(scope: &mut RoomScope<'_>, request: &Request) -> Answer {
    if scope.leave(request) {
        return Ok(Told::Json(b"{}".to_vec()));
    }
    let message = format!("this connection is not in {}", request.room.name.as_str());
    Err(WireError::new(ErrorCode::NotMember, message))
}

fn info(scope: &mut RoomScope<'_>, request: &Request) -> Answer {
    let room = scope.room();
    let mut answer = json!({
        "room": room.name.name.as_str(),
        "members": room.directory().users(),
        "connections": room.directory().conns(),
        "seq": room.head.0,
        "pos": room.pos().to_string(),
        "epoch": room.epoch.to_string(),
        "created": room.created_unix_ms(),
        "policy": scope.policy(&request.user),
    });
    if let Some(details) = room.details() {
        answer["data"] = serde_json::from_slice(details).unwrap_or_default();
    }
    Ok(data::write(&answer))
}

fn online(scope: &mut RoomScope<'_>, data: Data<'_>) -> Answer {
    #[derive(Deserialize)]
    struct Online {
        limit: Option<u64>,
        after: Option<String>,
    }
    let Online { limit, after } = data::read(data)?;
    let limit = bounded("limit", limit, ONLINE_PAGE_MAX)?;
    let from = match after {
        None => 0,
        Some(after) => after.parse().map_err(|_| data::bad("data.after is the `next` of the page before"))?,
    };
    let (users, next) = scope.directory().page(from, limit);
    let users: Vec<&str> = users.iter().map(|user| &**user).collect();
    let mut answer = json!({ "users": users, "total": scope.directory().users() });
    if let Some(next) = next {
        answer["next"] = json!(next.to_string());
    }
    Ok(data::write(&answer))
}

fn history(scope: &mut RoomScope<'_>, data: Data<'_>) -> Answer {
    #[derive(Deserialize)]
    struct History {
        since: Option<String>,
        before: Option<String>,
        limit: Option<u64>,
    }
    let History { since, before, limit } = data::read(data)?;
    if since.is_some() && before.is_some() {
        return Err(data::bad("data names `since` or `before`, not both"));
    }
    let since = data::cursor("since", since.as_deref())?;
    let before = data::cursor("before", before.as_deref())?;
    let limit = bounded("limit", limit, PAGE_ENTRIES_MAX)?;
    let Messages { entries, pos, gap, more } = scope.messages(since, before, limit);
    // The messages as they were pushed.
    let pushed: Vec<&[u8]> = entries.iter().map(|entry| entry.json()).collect();
    let mut out = br#"{"messages":["#.to_vec();
    out.extend(pushed.join(&b','));
    out.extend(format!(r#"],"pos":"{pos}","gap":{gap},"more":{more}}}"#).into_bytes());
    Ok(Told::Json(out))
}

fn update(scope: &mut RoomScope<'_>, request: &Request, data: Data<'_>) -> Answer {
    let field = data.fields().and_then(|mut fields| fields.find(|(key, _)| &*key.name() == b"data"));
    let Some((_, details)) = field else {
        return Err(data::bad("data.data is missing: what to set"));
    };
    if details.len() > ROOM_DETAILS_BYTES_MAX {
        let message = format!("data.data has at most {ROOM_DETAILS_BYTES_MAX} bytes");
        let error = WireError::new(ErrorCode::TooLarge, message);
        return Err(WireError { limit: Some(Limit::RoomData), ..error });
    }
    let user = Some(request.user.clone());
    scope.publish(Draft { event: UPDATED, data: details.as_bytes(), from: user, cid: None, excluded: None })?;
    scope.set_details(details.as_bytes());
    Ok(Told::Json(b"{}".to_vec()))
}

fn status(scope: &ConnScope<'_>, data: Data<'_>) -> Answer {
    #[derive(Deserialize)]
    struct Status {
        rooms: Vec<String>,
    }
    let Status { rooms } = data::read(data)?;
    let most = scope.rooms_per_request();
    if rooms.len() > most {
        let message = format!("data.rooms names more than {most} rooms; send several requests");
        return Err(WireError::too_many(Limit::RoomsPerRequest, message));
    }
    let is_in = |name: &str| scope.rooms().any(|room| room.name == name);
    let status: BTreeMap<&str, bool> = rooms.iter().map(|name| (name.as_str(), is_in(name))).collect();
    Ok(data::write(&status))
}

fn bounded(name: &str, given: Option<u64>, max: usize) -> Result<usize, WireError> {
    match given {
        None => Ok(max),
        Some(given) if (1..=max as u64).contains(&given) => Ok(given as usize),
        Some(_) => Err(data::bad(format!("data.{name} is a number from 1 to {max}"))),
    }
}
