//! What a client sends becomes requests: parsed, admitted, routed to its home. Each request that
//! has an id is answered exactly once, from here when it goes no further.

use crate::admission::gate::{self, Admitted, Standing};
use crate::admission::names::{self, RoomName};
use crate::admission::rights::Right;
use crate::base::limits::ROOMS_PER_REQUEST_MAX;
use crate::base::time::Now;
use crate::kernel::calls::{Answered, Answers, Asker};
use crate::kernel::conns::{Flags, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::entry::Frame;
use crate::kernel::feature::{Answer, ConnRequest, Declared, DeclaredId, Home};
use crate::kernel::ids::{CallId, ConnAt, ConnId, RoomRef, ShardId};
use crate::kernel::lanes::Parked;
use crate::kernel::mail::{Ask, Request};
use crate::kernel::scope::ConnScope;
use crate::shard::{Opening, Shard};
use crate::wire::codes::{ErrorCode, WireError};
use crate::wire::encode;
use crate::wire::envelope::{self, RequestId};
use crate::wire::json;
use std::borrow::Cow;
use std::sync::Arc;

/// Requests of one event, each with its home.
type Requests = Vec<(ShardId, Box<Admitted<Request>>)>;

/// What the data of a request names as its home.
struct Targets<'a> {
    names: Vec<Cow<'a, str>>,
    /// Answered for each, even when there is one.
    is_list: bool,
    /// A user's own room, named by the user.
    is_user: bool,
}

impl Shard {
    pub(super) fn open(&mut self, now: Now, opening: Opening, effects: &mut Effects) {
        let Opening { conn, identity, dialect, greeting } = opening;
        let inbox = RoomName::inbox_of(&identity.user);
        self.kernel.conns.open(conn, dialect, identity, now.at);
        self.kernel.counters.opened += 1;
        if !greeting.is_empty() {
            self.kernel.push_to(now, conn, &Frame::logged(&self.kernel.memory.account, &greeting), effects);
        }
        self.start_heartbeat(now, conn);
        let call = self.kernel.calls.open(conn, Asker::Inbox);
        let request = self.request(conn, call, 0, inbox, Right::Join, Ask::Inbox);
        let home = self.kernel.placement.of(&request.room);
        self.send(conn, vec![(home, Box::new(gate::admit_own(request)))], effects);
    }

    pub(super) fn on_text(&mut self, now: Now, conn: ConnId, message: &[u8], effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        row.heard_s = seconds(now.at);
        row.active_s = row.heard_s;
        self.kernel.counters.requests += 1;
        let envelope = match envelope::parse(message) {
            Ok(envelope) => envelope,
            Err(malformed) => {
                return self.refuse(now, conn, malformed.id.as_ref(), None, &malformed.error, effects);
            }
        };
        let Some((declared_id, declared)) = self.registry.find(&envelope.event) else {
            let message = format!("there is no event `{}`; custom events go through room:publish", envelope.event);
            let error = WireError::new(ErrorCode::UnknownEvent, message);
            return self.refuse(now, conn, envelope.id.as_ref(), Some(&envelope.event), &error, effects);
        };
        let id = envelope.id;
        if declared.home == Home::Conn {
            let answer = self.answer_here(now, conn, declared_id, declared, envelope.data);
            return self.reply(now, conn, id.as_ref(), declared.event, answer, effects);
        }
        match self.route(conn, &id, declared_id, declared, envelope.data) {
            Ok(requests) if requests.is_empty() => {}
            Ok(requests) => self.send(conn, requests, effects),
            Err(error) => self.refuse(now, conn, id.as_ref(), Some(declared.event), &error, effects),
        }
        self.flush_answered(now, effects);
    }

    fn answer_here(
        &mut self,
        now: Now,
        conn: ConnId,
        id: DeclaredId,
        declared: &'static Declared,
        data: &[u8],
    ) -> Answer {
        let identity = &self.kernel.conns.cold(conn).expect("an open connection has a row").identity;
        let request = ConnRequest { event: declared.event, needs: declared.needs, data };
        let request = gate::admit(request, &Standing { identity })?;
        let mut scope = ConnScope::new(&self.kernel, now, conn);
        self.registry.feature(id).on_conn_request(&mut scope, &request)
    }

    /// Makes the requests that one event stands for, under one call. Those of a list that are
    /// refused here have their answer already.
    fn route(
        &mut self,
        conn: ConnId,
        id: &Option<RequestId>,
        declared_id: DeclaredId,
        declared: &'static Declared,
        data: &[u8],
    ) -> Result<Requests, WireError> {
        let targets = targets(declared, data)?;
        let asker = Asker::Client { id: id.clone(), declared: declared_id };
        let call = match targets.is_list {
            true => self.kernel.calls.open_many(conn, asker, targets.names.iter().map(|name| Box::from(&**name))),
            false => self.kernel.calls.open(conn, asker),
        };
        let needs = if targets.is_user { Right::Direct } else { declared.needs };
        let data: Arc<[u8]> = Arc::from(data);
        let mut requests = Requests::with_capacity(targets.names.len());
        for (part, name) in targets.names.iter().enumerate() {
            let name = if targets.is_user { user_room(name) } else { room_name(name) };
            let ask = Ask::Event { declared: declared_id, data: data.clone() };
            match name.and_then(|name| self.admit(conn, call, part as u16, name, needs, ask)) {
                Ok(admitted) => requests.push(admitted),
                Err(error) if targets.is_list => {
                    self.kernel.counters.error(error.code);
                    self.answered.extend(self.kernel.calls.answer(call, part as u16, Err(error)));
                }
                Err(error) => {
                    self.kernel.calls.forget(call);
                    return Err(error);
                }
            }
        }
        Ok(requests)
    }

    /// The part of a call that is about one room of the connection's tenant, past the gate.
    fn admit(
        &self,
        conn: ConnId,
        call: CallId,
        part: u16,
        name: RoomName,
        needs: Right,
        ask: Ask,
    ) -> Result<(ShardId, Box<Admitted<Request>>), WireError> {
        let request = self.request(conn, call, part, name, needs, ask);
        let identity = &self.kernel.conns.cold(conn).expect("a request comes from an open connection").identity;
        let home = self.kernel.placement.of(&request.room);
        Ok((home, Box::new(gate::admit(request, &Standing { identity })?)))
    }

    fn request(&self, conn: ConnId, call: CallId, part: u16, name: RoomName, needs: Right, ask: Ask) -> Request {
        let row = self.kernel.conns.row(conn).expect("a request comes from an open connection");
        let cold = self.kernel.conns.cold(conn).expect("a request comes from an open connection");
        let joined = self.kernel.membership.rooms_of(conn.0.slot).len() as u32;
        Request {
            call,
            part,
            room: RoomRef { tenant: cold.identity.tenant.clone(), name },
            needs,
            from: ConnAt { shard: self.kernel.id, conn },
            user: cold.identity.user.clone(),
            dialect: row.dialect,
            rooms: joined + cold.pending + u32::from(part),
            ask,
        }
    }

    /// Sends the requests of one event; while some have to wait, the connection's reads pause.
    fn send(&mut self, conn: ConnId, requests: Requests, effects: &mut Effects) {
        if let Some(cold) = self.kernel.conns.cold_mut(conn) {
            cold.pending += requests.len() as u32;
        }
        if self.kernel.lanes.request(Parked { conn, requests }, effects) {
            return;
        }
        self.kernel.counters.parked += 1;
        if let Some(row) = self.kernel.conns.row_mut(conn) {
            row.flags.set(Flags::PAUSED);
        }
    }

    /// Tries what is parked for `peer` again.
    pub(super) fn unpark(&mut self, peer: ShardId, effects: &mut Effects) {
        while let Some(parked) = self.kernel.lanes.unpark(peer) {
            let conn = parked.conn;
            if !self.kernel.conns.is_open(conn) {
                // Nobody hears the answer, but parts that were sent before still bring theirs.
                for (_, request) in parked.requests {
                    let error = WireError::new(ErrorCode::Unavailable, "the connection has gone");
                    drop(self.kernel.calls.answer(request.call, request.part, Err(error)));
                }
                continue;
            }
            if !self.kernel.lanes.request(parked, effects) {
                // The rest is parked again, where it lacks credit now.
                continue;
            }
            if let Some(row) = self.kernel.conns.row_mut(conn) {
                row.flags.clear(Flags::PAUSED);
                effects.resumed.push(conn);
            }
        }
    }

    /// Replies to calls that have all their answers.
    pub(super) fn flush_answered(&mut self, now: Now, effects: &mut Effects) {
        for Answered { conn, asker, answers } in std::mem::take(&mut self.answered) {
            let Asker::Client { id, declared } = asker else { continue };
            let event = self.registry.declared(declared).event;
            let answer = match answers {
                Answers::One(answer) => answer,
                Answers::Many(answers) => self.registry.feature(declared).on_answers(event, answers),
            };
            self.reply(now, conn, id.as_ref(), event, answer, effects);
        }
    }

    pub(super) fn reply(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<&RequestId>,
        event: &'static str,
        answer: Answer,
        effects: &mut Effects,
    ) {
        match (answer, id) {
            (Ok(data), Some(id)) => {
                self.frame.clear();
                encode::reply_ok(&mut self.frame, id, &data);
                let reply = Frame::logged(&self.kernel.memory.account, &self.frame);
                self.kernel.push_to(now, conn, &reply, effects);
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.refuse(now, conn, id, Some(event), &error, effects),
        }
    }

    fn refuse(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<&RequestId>,
        event: Option<&str>,
        error: &WireError,
        effects: &mut Effects,
    ) {
        self.kernel.counters.error(error.code);
        self.frame.clear();
        match id {
            Some(id) => encode::reply_error(&mut self.frame, id, error),
            None => encode::error_push(&mut self.frame, event, error),
        }
        let refusal = Frame::logged(&self.kernel.memory.account, &self.frame);
        self.kernel.push_to(now, conn, &refusal, effects);
    }
}

fn bad(message: impl Into<Cow<'static, str>>) -> WireError {
    WireError::new(ErrorCode::BadRequest, message)
}

fn room_name(name: &str) -> Result<RoomName, WireError> {
    RoomName::parse(name).map_err(|refused| bad(refused.to_string()))
}

fn user_room(user: &str) -> Result<RoomName, WireError> {
    names::check_user(user).map_err(|refused| bad(refused.to_string()))?;
    Ok(RoomName::inbox_of(user))
}

/// Finds what `data` names, by the declared kind of home.
fn targets<'a>(declared: &Declared, data: &'a [u8]) -> Result<Targets<'a>, WireError> {
    let (mut room, mut rooms, mut user) = (None, None, None);
    for (key, value) in json::object(data).ok_or_else(|| bad("data is an object"))? {
        let place = match &*key {
            "room" => &mut room,
            "rooms" => &mut rooms,
            "user" => &mut user,
            _ => continue,
        };
        if json::is_null(value) {
            continue;
        }
        if place.replace(value).is_some() {
            return Err(bad(format!("data.{key} is given twice")));
        }
        // The publish path: the feature reads all fields and refuses a second receiver.
        if declared.home == Home::Target && key != "rooms" {
            break;
        }
    }
    let named = |key: &str, value: &'a [u8]| json::string(value).ok_or_else(|| bad(format!("data.{key} is a string")));
    let one = |name, is_user| Targets { names: vec![name], is_list: false, is_user };
    match (declared.home, room, rooms, user) {
        (Home::Room, Some(room), _, _) => Ok(one(named("room", room)?, false)),
        (Home::Room, None, _, _) => Err(bad("data.room is missing: the room's name")),
        (Home::Rooms, _, Some(rooms), _) => list(rooms),
        (Home::Rooms, _, None, _) => Err(bad("data.rooms is missing: a list of rooms")),
        (Home::Target, Some(room), None, None) => Ok(one(named("room", room)?, false)),
        (Home::Target, None, Some(rooms), None) => list(rooms),
        (Home::Target, None, None, Some(user)) => Ok(one(named("user", user)?, true)),
        (Home::Target, ..) => Err(bad("data names exactly one of `room`, `rooms` and `user`")),
        (Home::Conn, ..) => unreachable!("answered at the connection"),
    }
}

fn list(rooms: &[u8]) -> Result<Targets<'_>, WireError> {
    let allowed = || bad(format!("data.rooms is a list of 1 to {ROOMS_PER_REQUEST_MAX} names"));
    let mut names = Vec::new();
    for item in json::array(rooms).ok_or_else(allowed)? {
        if names.len() == ROOMS_PER_REQUEST_MAX {
            return Err(WireError { limit: Some("rooms_per_request"), ..allowed() });
        }
        names.push(json::string(item).ok_or_else(allowed)?);
    }
    if names.is_empty() {
        return Err(allowed());
    }
    // A room named twice is asked once: two requests of one call must not race each other.
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(Targets { names, is_list: true, is_user: false })
}
