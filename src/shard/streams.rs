//! Streams of server-sent events: they begin with the rooms of their query, and what their clients ask comes by
//! requests of its own.
//! Invariant: a client is told that it is connected before anything else, and of each room of its query whether
//! it is in before anything of that room.

use crate::admission::names::User;
use crate::base::table::Key;
use crate::base::time::Now;
use crate::kernel::carriers::PollId;
use crate::kernel::conns::{Flags, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::entry::Class;
use crate::kernel::ids::ConnId;
use crate::kernel::streams::Stream;
use crate::shard::{Shard, StreamOpening};
use crate::wire::codes::{ErrorCode, WireError};
use crate::wire::dialect::SSE;
use crate::wire::encode;
use crate::wire::engine::Sid;
use crate::wire::envelope::{self, Data, Envelope, Malformed, RequestId};
use crate::wire::json;
use std::time::Duration;

/// What is asked for each room of a query.
const JOIN: &str = "room:join";

impl Shard {
    pub(super) fn open_stream(&mut self, now: Now, opening: StreamOpening, effects: &mut Effects) {
        let StreamOpening { conn, identity, is_anonymous, secret, rooms, last_event, greeting } = opening;
        let own = identity.user.inbox().clone();
        let stream = {
            // Who has no token has another name each time, and nothing is kept for it.
            let own = (!is_anonymous).then_some(own.name.as_str());
            Stream::new(secret, own, &rooms, last_event.as_deref())
        };
        let since = stream.own_since();
        self.kernel.streams.insert(conn, stream);
        self.kernel.counters.streams_opened += 1;
        self.begin(now, crate::shard::Opening { conn, identity, dialect: SSE, greeting }, since, effects);
    }

    pub(super) fn is_stream(&self, conn: ConnId) -> bool {
        self.kernel.conns.row(conn).is_some_and(|row| row.flags.has(Flags::STREAM))
    }

    /// What its client may name a stream by.
    pub(super) fn stream_sid(&self, conn: ConnId) -> Option<Sid> {
        if !self.is_stream(conn) {
            return None;
        }
        let secret = self.kernel.streams.get(conn)?.secret;
        Some(Sid { shard: self.kernel.id.0, slot: conn.0.slot, generation: conn.0.generation, secret })
    }

    /// The stream of that name, if it is open.
    pub fn stream(&self, sid: &Sid) -> Option<ConnId> {
        let conn = ConnId(Key { slot: sid.slot, generation: sid.generation });
        let ours = self.stream_sid(conn).filter(|_| self.kernel.conns.is_open(conn))?;
        // All of it is looked at, so the time that it takes tells nothing.
        let differs = ours.secret.iter().zip(sid.secret).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs));
        (differs == 0 && sid.shard == ours.shard).then_some(conn)
    }

    /// Whether a user may speak for an open stream; `None`: it has no token.
    pub fn may_emit(&self, conn: ConnId, user: Option<&User>) -> Result<(), WireError> {
        let is_anonymous = self.kernel.streams.get(conn).is_some_and(|stream| stream.is_anonymous);
        let ours = self.kernel.conns.cold(conn).map(|cold| &cold.identity.user).filter(|_| !is_anonymous);
        match (user, ours) {
            (Some(theirs), Some(ours)) if (theirs.tenant(), &**theirs) == (ours.tenant(), &**ours) => Ok(()),
            (None, None) => Ok(()),
            (None, Some(_)) => {
                Err(WireError::new(ErrorCode::Unauthorized, "the token of this connection's user is missing"))
            }
            (Some(_), _) => Err(WireError::new(ErrorCode::Forbidden, "this connection is another user's")),
        }
    }

    /// How long nothing may be heard of a client.
    pub fn silence_max(&self) -> Duration {
        self.kernel.limits.heartbeat_time_out
    }

    /// Rooms that one request may name.
    pub fn rooms_per_request(&self) -> usize {
        self.kernel.limits.rooms_per_request
    }

    /// Joins the rooms of the query of one that was told that it is connected. `has_gap`: messages to its user
    /// are missing.
    pub(super) fn start_stream(&mut self, now: Now, conn: ConnId, has_gap: bool, effects: &mut Effects) {
        let Some(stream) = self.kernel.streams.get(conn).filter(|_| self.is_stream(conn)) else { return };
        let rooms: Vec<(Box<str>, _)> = stream.rooms().map(|(room, since)| (room.into(), since)).collect();
        if has_gap {
            let error = WireError::new(ErrorCode::Gap, "messages to this user were missed and are no longer kept");
            let mut push = Vec::new();
            encode::error_push(&mut push, None, &error);
            self.kernel.tell(now, conn, &push, Class::Logged, effects);
        }
        let (declared_id, declared) = self.registry.find(JOIN).expect("rooms can be joined");
        for (room, since) in rooms {
            let mut data = br#"{"room":"#.to_vec();
            json::write_string(&mut data, &room);
            if let Some(since) = since {
                data.extend_from_slice(format!(r#","since":"{since}""#).as_bytes());
            }
            data.push(b'}');
            let data = String::from_utf8(data).expect("JSON is UTF-8");
            let id = Some(RequestId::Text(room));
            if let Err((id, error)) = self.route(now, conn, id, (declared_id, declared), Data::from(&*data), effects) {
                self.audit_refused(conn, declared, Data::from(&*data), &error, effects);
                self.refuse(now, conn, id.as_ref(), Some(declared.event), &error, effects);
            }
        }
        // All together, for what waits of them waits as one.
        self.send(conn, effects);
        self.flush_answered(now, effects);
    }

    /// The reply to a room of the query is about to be told: from there on the client comes back to it.
    pub(super) fn tell_position(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        if self.is_stream(conn)
            && let Some(line) = self.kernel.streams.id(conn, &self.kernel.memory.account)
        {
            self.kernel.push_to(now, conn, &line, effects);
        }
    }

    pub(super) fn on_emit(&mut self, now: Now, conn: ConnId, poll: PollId, message: &[u8], effects: &mut Effects) {
        if let Some(message) = self.kernel.take_emit(conn, poll, message, effects) {
            self.hear_emit(now, conn, poll, message, effects);
        }
    }

    pub(super) fn go_on_emitting(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        while let Some((poll, message)) = self.kernel.next_held(conn) {
            self.hear_emit(now, conn, poll, &message, effects);
        }
    }

    fn hear_emit(&mut self, now: Now, conn: ConnId, poll: PollId, message: &[u8], effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn) else { return };
        row.heard_s = seconds(now.at);
        row.active_s = row.heard_s;
        self.kernel.counters.requests += 1;
        let named = |id: Option<RequestId>| Some(RequestId::Emit { poll: poll.0, id: id.map(Box::new) });
        match envelope::parse(message) {
            Ok(envelope) => {
                let id = named(envelope.id.clone());
                self.answer(now, conn, Envelope { id, ..envelope }, effects);
            }
            Err(Malformed { id, error }) => {
                self.refuse_rubbish(now, conn, named(id).as_ref(), None, error, effects);
            }
        }
    }
}
