//! What a client sends becomes requests: parsed, admitted, routed to its home. Each request that
//! has an id is answered exactly once, from here when it goes no further.

use crate::admission::gate::{self, Standing, Verdict};
use crate::admission::names::{self, RoomName};
use crate::admission::rates::Paid;
use crate::admission::rights::Right;
use crate::base::limits::{INFLATED_BYTES_KEPT, ROOMS_LOOKED_THROUGH_MAX};
use crate::base::time::Now;
use crate::kernel::asked::Waiting;
use crate::kernel::calls::{Answered, Answers, Asker};
use crate::kernel::carriers::PollId;
use crate::kernel::conns::{Flags, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::endpoint::Message;
use crate::kernel::entry::{Class, Frame};
use crate::kernel::feature::{Answer, ConnRequest, Declared, DeclaredId, Home};
use crate::kernel::ids::{CallId, ConnAt, ConnId, Cursor, RoomId, RoomRef, ShardId};
use crate::kernel::lanes::Parked;
use crate::kernel::mail::{Ask, Request};
use crate::kernel::rates::Price;
use crate::kernel::reasons::CloseReason;
use crate::kernel::scope::ConnScope;
use crate::shard::{Opening, Shard};
use crate::wire::codes::{CloseCode, ErrorCode, Limit, WireError};
use crate::wire::dialect::{DialectId, NATIVE_JSON, NATIVE_MSGPACK, SSE};
use crate::wire::encode;
use crate::wire::envelope::{self, Data, Envelope, Malformed, RequestId};
use crate::wire::frame;
use crate::wire::{json, msgpack};
use std::borrow::Cow;
use std::sync::Arc;

/// What the data of a request names as its home.
pub(super) enum Targets<'a> {
    Room(Cow<'a, str>),
    /// A user's own room, named by the user.
    User(Cow<'a, str>),
    /// Answered for each, even when there is one.
    Rooms(Vec<Cow<'a, str>>),
}

impl Targets<'_> {
    fn count(&self) -> u32 {
        match self {
            Targets::Room(_) | Targets::User(_) => 1,
            Targets::Rooms(names) => names.len() as u32,
        }
    }
}

/// A room of the connection's tenant.
struct Seen {
    room: RoomRef,
    home: ShardId,
    known: Option<RoomId>,
}

impl Shard {
    pub(super) fn open(&mut self, now: Now, opening: Opening, effects: &mut Effects) {
        self.begin(now, opening, None, effects);
    }

    /// Opens a connection, which is in its user's own room from `since` on.
    pub(super) fn begin(&mut self, now: Now, opening: Opening, since: Option<Cursor>, effects: &mut Effects) {
        let Opening { conn, identity, dialect, greeting } = opening;
        let is_void = self.kernel.is_void(now, &identity);
        let inbox = identity.user.inbox().clone();
        let bucket = self.kernel.meters.full(now.at);
        self.kernel.conns.open(conn, dialect, identity, bucket, now.at);
        self.kernel.counters.opened += 1;
        if dialect == SSE
            && let Some(row) = self.kernel.conns.row_mut(conn)
        {
            row.flags.set(Flags::STREAM);
        }
        if !greeting.is_empty() {
            self.kernel.push_to(now, conn, &Frame::logged(&self.kernel.memory.account, &greeting), effects);
        }
        if is_void {
            // Taken back between its check and now, perhaps on another shard.
            return self.kernel.close_for(now, conn, CloseReason::TokenRevokedBefore, effects);
        }
        if self.is_draining() {
            // It was let in before its shard was told, perhaps by another.
            return self.send_back(now, conn, effects);
        }
        self.start_heartbeat(now, conn);
        if let Some(nth) = dialect.endpoint() {
            return self.open_endpoint(now, conn, nth, effects);
        }
        self.enter_inbox(conn, inbox, since, effects);
    }

    /// A whole binary message.
    pub(super) fn on_binary(&mut self, now: Now, conn: ConnId, message: &[u8], effects: &mut Effects) {
        if let Some(nth) = self.endpoint_of(conn) {
            return self.on_message(now, conn, nth, Message::Binary(message), effects);
        }
        if self.mount_of(conn).is_some() {
            return self.on_engine_binary(now, conn, message, effects);
        }
        if !self.speaks(conn, NATIVE_MSGPACK) {
            let reason = "this subprotocol is JSON in text messages";
            return self.kernel.close(now, conn, CloseCode::Unsupported, reason, effects);
        }
        let mut json = std::mem::take(&mut self.unpacked);
        json.clear();
        match msgpack::to_json(&mut json, message, self.kernel.limits.message_bytes) {
            Ok(()) => self.on_request_of_client(now, conn, &json, effects),
            Err(refused) => self.refuse_rubbish(now, conn, None, None, refused.into(), effects),
        }
        json.clear();
        json.shrink_to(INFLATED_BYTES_KEPT);
        self.unpacked = json;
    }

    /// A whole text message.
    pub(super) fn on_text(&mut self, now: Now, conn: ConnId, message: &[u8], effects: &mut Effects) {
        if self.speaks(conn, NATIVE_JSON) {
            return self.on_request_of_client(now, conn, message, effects);
        }
        if let Some(nth) = self.endpoint_of(conn) {
            return self.on_message(now, conn, nth, Message::Text(text_of(message)), effects);
        }
        if self.mount_of(conn).is_some() {
            return self.on_packet(now, conn, text_of(message), effects);
        }
        let reason = "this subprotocol is MessagePack in binary messages";
        self.kernel.close(now, conn, CloseCode::Unsupported, reason, effects);
    }

    fn speaks(&self, conn: ConnId, plain: DialectId) -> bool {
        self.kernel.conns.row(conn).is_some_and(|row| row.dialect.plain() == plain)
    }

    fn on_request_of_client(&mut self, now: Now, conn: ConnId, message: &[u8], effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        row.heard_s = seconds(now.at);
        row.active_s = row.heard_s;
        self.kernel.counters.requests += 1;
        match envelope::parse(message) {
            Ok(envelope) => self.answer(now, conn, envelope, effects),
            Err(Malformed { id, error }) => self.refuse_rubbish(now, conn, id.as_ref(), None, error, effects),
        }
    }

    /// A request of an open connection.
    pub(super) fn answer(&mut self, now: Now, conn: ConnId, envelope: Envelope<'_>, effects: &mut Effects) {
        let Some((declared_id, declared)) = self.registry.find(&envelope.event) else {
            let message = format!("there is no event `{}`; custom events go through room:publish", envelope.event);
            let error = WireError::new(ErrorCode::UnknownEvent, message);
            let (id, event) = (envelope.id, envelope.event);
            return self.refuse_rubbish(now, conn, id.as_ref(), Some(&event), error, effects);
        };
        self.doing = declared.event;
        let id = envelope.id;
        let data = Data { json: envelope.data, spans: &envelope.spans };
        if declared.home == Home::Conn {
            let answer = self.kernel.pay(now, conn, Price::of(declared, 1));
            let answer = answer.and_then(|paid| self.answer_here(now, conn, declared_id, paid, data, effects));
            self.audit_answer(conn, declared.event, &answer, effects);
            return self.reply(now, conn, id.as_ref(), declared.event, answer, effects);
        }
        match self.route(now, conn, id, (declared_id, declared), data, effects) {
            Ok(()) => self.send(conn, effects),
            Err((id, error)) => {
                self.audit_refused(conn, declared, data, &error, effects);
                self.refuse(now, conn, id.as_ref(), Some(declared.event), &error, effects);
            }
        }
        self.flush_answered(now, effects);
    }

    fn answer_here(
        &mut self,
        now: Now,
        conn: ConnId,
        id: DeclaredId,
        paid: Paid,
        data: Data<'_>,
        effects: &mut Effects,
    ) -> Answer {
        let declared = self.registry.declared(id);
        let request = ConnRequest { event: declared.event, needs: declared.needs, data };
        let request = gate::admit(request, &self.standing(conn, paid)).at_once()?;
        let mut scope = ConnScope::new(&mut self.kernel, effects, now, conn);
        self.registry.feature(id).on_conn_request(&mut scope, &request)
    }

    /// Makes the requests that one event stands for, under one call. Those of a list that are
    /// refused here have their answer already; those that wait for an answer from outside are parked.
    pub(super) fn route(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<RequestId>,
        (declared_id, declared): (DeclaredId, &'static Declared),
        data: Data<'_>,
        effects: &mut Effects,
    ) -> Result<(), (Option<RequestId>, WireError)> {
        let targets = targets(declared, data, self.kernel.limits.rooms_per_request);
        // Paid before anything is looked up or sent anywhere; what is wrong costs as much as one room.
        let rooms = targets.as_ref().map_or(1, Targets::count);
        let paid = match self.kernel.pay(now, conn, Price::of(declared, rooms)) {
            Ok(paid) => paid,
            Err(error) => return Err((id, error)),
        };
        let targets = match targets {
            Ok(targets) => targets,
            Err(error) => return Err((id, error)),
        };
        let audit = self.audited(declared.event, &targets);
        let asker = Asker::Client { id, declared: declared_id, audit };
        let (call, names) = match &targets {
            Targets::Room(name) | Targets::User(name) => {
                (self.kernel.calls.open(conn, asker), std::slice::from_ref(name))
            }
            Targets::Rooms(names) => {
                (self.kernel.calls.open_many(conn, asker, names.iter().map(|name| Box::from(&**name))), &names[..])
            }
        };
        let is_user = matches!(targets, Targets::User(_));
        let needs = if is_user { Right::Direct } else { declared.needs };
        let json: Arc<str> = Arc::from(data.json);
        for (part, name) in names.iter().enumerate() {
            let seen = if is_user { self.inbox(conn, name) } else { self.look_up(conn, name) };
            let ask = Ask::Event { declared: declared_id, data: json.clone(), spans: data.spans.clone() };
            let asked = (needs, paid, ask);
            match seen.and_then(|seen| self.pass(now, conn, (call, part as u16), seen, asked, effects)) {
                Ok(()) => {}
                Err(error) if matches!(targets, Targets::Rooms(_)) => {
                    self.kernel.counters.error(&error);
                    self.answered.extend(self.kernel.calls.answer(call, part as u16, Err(error)));
                }
                Err(error) => {
                    let Some(Asker::Client { id, .. }) = self.kernel.calls.forget(call) else {
                        unreachable!("a call is a client's as it was opened");
                    };
                    return Err((id, error));
                }
            }
        }
        Ok(())
    }

    /// The room that a client names.
    fn look_up(&self, conn: ConnId, name: &str) -> Result<Seen, WireError> {
        // Who speaks in a room is mostly in it, and in few others: then its place is known here. An
        // inbox has a name that clients may not be able to spell, so that is looked at below.
        let membership = &self.kernel.membership;
        for joined in membership.rooms_of(conn.0.slot).iter().take(ROOMS_LOOKED_THROUGH_MAX) {
            if let Some(row) = membership.room_of(joined)
                && row.name.name.as_str() == name
                && !name.starts_with("user:")
            {
                return Ok(Seen { room: row.name.clone(), home: row.home, known: Some(row.id) });
            }
        }
        let name = RoomName::parse(name).map_err(|refused| bad(refused.to_string()))?;
        Ok(self.place(conn, name))
    }

    /// The own room of a user that a client names.
    fn inbox(&self, conn: ConnId, user: &str) -> Result<Seen, WireError> {
        names::check_user(user).map_err(|refused| bad(refused.to_string()))?;
        Ok(self.place(conn, RoomName::inbox_of(user)))
    }

    fn place(&self, conn: ConnId, name: RoomName) -> Seen {
        let cold = self.kernel.conns.cold(conn).expect("a request comes from an open connection");
        self.at_home(RoomRef::new(cold.identity.tenant().clone(), name))
    }

    fn at_home(&self, room: RoomRef) -> Seen {
        Seen { home: self.kernel.placement.of(&room), room, known: None }
    }

    /// Takes the part of a call that is about one room of the connection's tenant to the gate: from
    /// there it goes on with the next [`Shard::send`], or waits for an answer from outside.
    fn pass(
        &mut self,
        now: Now,
        conn: ConnId,
        (call, part): (CallId, u16),
        seen: Seen,
        (needs, paid, ask): (Right, Paid, Ask),
        effects: &mut Effects,
    ) -> Result<(), WireError> {
        let home = seen.home;
        let request = self.request(conn, call, part, seen, needs, ask);
        if let Some(ahead) = self.kernel.asking.ahead(conn, &request.room) {
            let waiting = Waiting { home, paid, request: Box::new(request) };
            self.kernel.follow(ahead, waiting)?;
        } else {
            match gate::admit(request, &self.standing(conn, paid)) {
                Verdict::Admitted(admitted) => {
                    self.requests.push((home, Box::new(admitted)));
                    return Ok(());
                }
                Verdict::Refused(error) => return Err(error),
                Verdict::Asked(asked) => {
                    let waiting = Waiting { home, paid, request: Box::new(asked) };
                    self.kernel.ask(now, conn, waiting, effects)?;
                }
            }
        }
        if let Some(cold) = self.kernel.conns.cold_mut(conn) {
            cold.pending += 1;
        }
        Ok(())
    }

    pub(super) fn standing(&self, conn: ConnId, paid: Paid) -> Standing<'_> {
        let cold = self.kernel.conns.cold(conn).expect("a request comes from an open connection");
        Standing { identity: &cold.identity, policy: &self.kernel.policy, paid }
    }

    fn request(&self, conn: ConnId, call: CallId, part: u16, seen: Seen, needs: Right, ask: Ask) -> Request {
        let row = self.kernel.conns.row(conn).expect("a request comes from an open connection");
        let cold = self.kernel.conns.cold(conn).expect("a request comes from an open connection");
        let joined = self.kernel.membership.rooms_of(conn.0.slot).len() as u32;
        Request {
            call,
            part,
            room: seen.room,
            known: seen.known,
            needs,
            from: ConnAt { shard: self.kernel.id, conn },
            user: cold.identity.user.clone(),
            dialect: row.dialect,
            rooms: joined + u32::from(cold.pending) + self.requests.len() as u32,
            ask,
        }
    }

    /// Sends the requests that one event was made into; while some have to wait, the connection's
    /// reads pause.
    /// Has an open connection join its user's own room, after which it is told that it is connected.
    pub(super) fn enter_inbox(&mut self, conn: ConnId, inbox: RoomRef, since: Option<Cursor>, effects: &mut Effects) {
        let call = self.kernel.calls.open(conn, Asker::Inbox);
        let inbox = self.at_home(inbox);
        let home = inbox.home;
        let request = self.request(conn, call, 0, inbox, Right::Join, Ask::Enter { since });
        self.requests.push((home, Box::new(gate::admit_own(request))));
        self.send(conn, effects);
    }

    pub(super) fn send(&mut self, conn: ConnId, effects: &mut Effects) {
        if let Some(cold) = self.kernel.conns.cold_mut(conn) {
            cold.pending += self.requests.len() as u16;
        }
        if self.kernel.lanes.request(conn, &mut self.requests, effects) {
            return;
        }
        self.kernel.pause(conn);
    }

    /// Tries what is parked for `peer` again.
    pub(super) fn unpark(&mut self, peer: ShardId, effects: &mut Effects) {
        while let Some(Parked { conn, mut requests }) = self.kernel.lanes.unpark(peer) {
            if !self.kernel.conns.is_open(conn) {
                // Nobody hears the answer, but parts that were sent before still bring theirs.
                for (_, request) in requests {
                    let error = WireError::new(ErrorCode::Unavailable, "the connection has gone");
                    drop(self.kernel.calls.answer(request.call, request.part, Err(error)));
                }
                continue;
            }
            if !self.kernel.lanes.request(conn, &mut requests, effects) {
                // The rest is parked again, where it lacks credit now.
                continue;
            }
            self.resume(conn, effects);
        }
    }

    /// Reads a client again that was paused, which is its carrier where it is in a namespace.
    pub(super) fn resume(&mut self, conn: ConnId, effects: &mut Effects) {
        let heard = self.kernel.carriers.transport_of(conn);
        if let Some(row) = self.kernel.conns.row_mut(heard) {
            row.flags.clear(Flags::PAUSED);
            effects.resumed.push(heard);
            if row.flags.has(Flags::STREAM) {
                self.kernel.streams.due.push(heard);
            }
        }
    }

    /// Replies to calls that have all their answers.
    pub(super) fn flush_answered(&mut self, now: Now, effects: &mut Effects) {
        if self.answered.is_empty() {
            return;
        }
        let mut answered = std::mem::take(&mut self.answered);
        for Answered { conn, asker, answers } in answered.drain(..) {
            let Asker::Client { id, declared, audit } = asker else { continue };
            let event = self.registry.declared(declared).event;
            let answer = match answers {
                Answers::One(answer) => answer,
                Answers::Many(answers) => self.registry.feature(declared).on_answers(event, answers),
            };
            if let Some(rooms) = audit {
                self.tell_request(conn, event, *rooms, answer.as_ref().err(), effects);
            }
            self.reply(now, conn, id.as_ref(), event, answer, effects);
        }
        debug_assert!(self.answered.is_empty(), "a reply answers no other call");
        self.answered = answered;
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
            (Ok(told), Some(id)) => {
                self.frame.clear();
                encode::reply_ok(&mut self.frame, id, told.json(&mut self.receipt));
                self.send_reply(now, conn, Some(id), None, effects);
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.refuse(now, conn, id, Some(event), &error, effects),
        }
    }

    pub(super) fn refuse(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<&RequestId>,
        event: Option<&str>,
        error: &WireError,
        effects: &mut Effects,
    ) {
        self.kernel.counters.error(error);
        self.frame.clear();
        match id {
            Some(id) => encode::reply_error(&mut self.frame, id, error),
            None => encode::error_push(&mut self.frame, event, error),
        }
        self.send_reply(now, conn, id, Some(error), effects);
        if error.code == ErrorCode::RateLimited {
            self.kernel.note_rate_refusal(now, conn, effects);
        }
    }

    /// Sends the reply that lies in the buffer to where it was asked for.
    fn send_reply(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<&RequestId>,
        error: Option<&WireError>,
        effects: &mut Effects,
    ) {
        match id {
            Some(RequestId::Emit { poll, .. }) => {
                let (_, body) = frame::parts(&self.frame);
                self.kernel.answer_emit(conn, PollId(*poll), error, body, effects);
            }
            Some(_) if error.is_none() => {
                self.tell_position(now, conn, effects);
                self.kernel.tell(now, conn, &self.frame, Class::Logged, effects);
            }
            _ => self.kernel.tell(now, conn, &self.frame, Class::Logged, effects),
        }
    }

    /// Refuses what is no request: it costs as much as the dearest, or rubbish would be free.
    pub(super) fn refuse_rubbish(
        &mut self,
        now: Now,
        conn: ConnId,
        id: Option<&RequestId>,
        event: Option<&str>,
        error: WireError,
        effects: &mut Effects,
    ) {
        let error = self.kernel.pay(now, conn, Price::RUBBISH).err().unwrap_or(error);
        self.refuse(now, conn, id, event, &error, effects);
    }
}

fn text_of(message: &[u8]) -> &str {
    simdutf8::basic::from_utf8(message).expect("a text message is UTF-8 throughout")
}

fn bad(message: impl Into<Cow<'static, str>>) -> WireError {
    WireError::new(ErrorCode::BadRequest, message)
}

/// Finds what `data` names, by the declared kind of home.
pub(super) fn targets<'a>(declared: &Declared, data: Data<'a>, rooms_max: usize) -> Result<Targets<'a>, WireError> {
    let (mut room, mut rooms, mut user) = (None, None, None);
    for (key, value) in data.fields().ok_or_else(|| bad("data is an object"))? {
        let (place, key) = match &*key.name() {
            b"room" => (&mut room, "room"),
            b"rooms" => (&mut rooms, "rooms"),
            b"user" => (&mut user, "user"),
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
    let named = |key: &str, value: &'a str| json::string(value).ok_or_else(|| bad(format!("data.{key} is a string")));
    match (declared.home, room, rooms, user) {
        (Home::Room, Some(room), _, _) => Ok(Targets::Room(named("room", room)?)),
        (Home::Room, None, _, _) => Err(bad("data.room is missing: the room's name")),
        (Home::Rooms, _, Some(rooms), _) => list(rooms, rooms_max),
        (Home::Rooms, _, None, _) => Err(bad("data.rooms is missing: a list of rooms")),
        (Home::Target, Some(room), None, None) => Ok(Targets::Room(named("room", room)?)),
        (Home::Target, None, Some(rooms), None) => list(rooms, rooms_max),
        (Home::Target, None, None, Some(user)) => Ok(Targets::User(named("user", user)?)),
        (Home::Target, ..) => Err(bad("data names exactly one of `room`, `rooms` and `user`")),
        (Home::Conn, ..) => unreachable!("answered at the connection"),
    }
}

fn list(rooms: &str, rooms_max: usize) -> Result<Targets<'_>, WireError> {
    let allowed = || bad(format!("data.rooms is a list of 1 to {rooms_max} names"));
    let mut names = Vec::new();
    for item in json::array(rooms).ok_or_else(allowed)? {
        if names.len() == rooms_max {
            let message = format!("data.rooms names more than {rooms_max} rooms; send several requests");
            return Err(WireError::too_many(Limit::RoomsPerRequest, message));
        }
        names.push(json::string(item).ok_or_else(allowed)?);
    }
    if names.is_empty() {
        return Err(allowed());
    }
    // A room named twice is asked once: two requests of one call must not race each other.
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(Targets::Rooms(names))
}
