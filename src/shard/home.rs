//! Mail: requests at their rooms' home, and what homes send to the shards of connections.

use crate::admission::gate::Admitted;
use crate::admission::rates::Paid;
use crate::base::time::Now;
use crate::kernel::Limits;
use crate::kernel::calls::{Answers, Asker};
use crate::kernel::conns::Replay;
use crate::kernel::effects::Effects;
use crate::kernel::entry::Class;
use crate::kernel::facts::Fact;
use crate::kernel::feature::{Answer, Told};
use crate::kernel::ids::{ConnAt, ConnId, Pos, RoomId, RoomRef, ShardId};
use crate::kernel::mail::{Ask, Change, Gone, Mail, Reply, Request};
use crate::kernel::mounts;
use crate::kernel::reasons::CloseReason;
use crate::kernel::scope::RoomScope;
use crate::kernel::sequencer::Draft;
use crate::shard::Shard;
use crate::wire::codes::CloseCode;
use crate::wire::encode::{self, Push};
use crate::wire::envelope::Data;
use serde::Serialize;

/// What a connection is told first. Written as it is: a map of values would cost a tenth of a handshake.
#[derive(Serialize)]
struct Connected<'a> {
    conn: &'a str,
    user: &'a str,
    tenant: &'a str,
    name: Option<&'a str>,
    server: &'a str,
    version: &'a str,
    heartbeat_ms: u64,
    limits: Bounds,
}

#[derive(Serialize)]
struct Bounds {
    message_bytes: usize,
    rooms: usize,
    rooms_per_request: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<Requests>,
}

#[derive(Serialize)]
struct Requests {
    burst: u32,
    count: u32,
    per_ms: u64,
}

impl Shard {
    pub(super) fn on_mail(&mut self, now: Now, from: ShardId, mail: Mail, effects: &mut Effects) {
        match mail {
            Mail::Request(request) => self.on_request(now, &request, effects),
            Mail::Gone(gone) => self.on_gone(now, from, &gone),
            Mail::Reply(reply) => self.on_reply(now, from, *reply, effects),
            Mail::Entry { room, entry } => self.kernel.deliver(now, from, room, &entry, effects),
            Mail::Lost { room } => self.on_lost(now, from, room, effects),
        }
    }

    /// A request at its home.
    fn on_request(&mut self, now: Now, request: &Admitted<Request>, effects: &mut Effects) {
        let (room, answer, change) = match self.kernel.room_at_home(now, &request.room, request.known) {
            Ok((room, is_new)) => {
                let (answer, change) = self.ask_room(now, room, request, effects);
                // Only asked about: whoever asks about many names makes no rooms.
                if is_new && self.kernel.rooms.is_unused(room) {
                    self.kernel.rooms.free(room);
                } else {
                    self.kernel.watch_room(now, room);
                }
                (Some(room), answer, change)
            }
            Err(error) => (None, Err(error), Change::Nothing),
        };
        let reply = Reply { call: request.call, part: request.part, answer, change };
        self.kernel.reply(request.from.shard, room, reply, effects);
    }

    fn ask_room(
        &mut self,
        now: Now,
        room: RoomId,
        request: &Admitted<Request>,
        effects: &mut Effects,
    ) -> (Answer, Change) {
        let nothing = || Ok(Told::Json(Vec::new()));
        match &request.ask {
            Ask::Event { declared, data, spans } => {
                let data = Data { json: data, spans };
                let mut scope = RoomScope::new(&mut self.kernel, effects, now, room);
                let answer = self.registry.feature(*declared).on_room_request(&mut scope, request, data);
                (answer, scope.into_change())
            }
            Ask::Enter { since } => {
                let mut scope = RoomScope::new(&mut self.kernel, effects, now, room);
                let answer = scope.join(request, *since).and_then(|_| nothing());
                (answer, scope.into_change())
            }
            Ask::Exit => {
                let mut scope = RoomScope::new(&mut self.kernel, effects, now, room);
                scope.leave(request);
                (nothing(), scope.into_change())
            }
            Ask::Say { event, arguments, is_for_others } => {
                let excluded = is_for_others.then_some(request.from);
                let data = arguments.as_bytes();
                let draft = Draft { event, data, from: None, cid: None, excluded };
                let mut scope = RoomScope::new(&mut self.kernel, effects, now, room);
                (scope.publish(draft).and_then(|_| nothing()), Change::Nothing)
            }
            Ask::Page { epoch, after } => (nothing(), self.kernel.replay_page(room, *epoch, *after)),
        }
    }

    pub(super) fn on_fact(&mut self, now: Now, room: RoomId, fact: &Fact, effects: &mut Effects) {
        // Who is in an application's rooms is the application's to tell.
        if self.kernel.rooms.get(room).is_none_or(|row| mounts::is_of_application(&row.name.tenant)) {
            return;
        }
        for feature in self.registry.all() {
            feature.on_fact(&mut RoomScope::new(&mut self.kernel, effects, now, room), fact);
        }
    }

    fn on_gone(&mut self, now: Now, from: ShardId, gone: &Gone) {
        let at = ConnAt { shard: from, conn: gone.conn };
        for room in &gone.rooms {
            self.kernel.end_membership(*room, at);
            self.kernel.watch_room(now, *room);
        }
    }

    /// The answer to a request of a connection here.
    fn on_reply(&mut self, now: Now, from: ShardId, reply: Reply, effects: &mut Effects) {
        self.kernel.lanes.answered(from);
        let Some((conn, is_replay)) = self.kernel.calls.asked_by(reply.call) else {
            unreachable!("a call waits for its replies");
        };
        let mut gap = false;
        match reply.change {
            Change::Nothing => {}
            Change::Attach { room, name, from: pos, is_behind, has_gap } => {
                gap = has_gap;
                self.attach(now, conn, from, (room, name), (pos, is_behind), effects);
            }
            Change::Detach { room } => self.detach(conn, from, room),
            Change::Page(page) => self.kernel.take_page(now, conn, reply.call, &page, effects),
            Change::PageLost => self.kernel.lose_page(now, conn, reply.call, effects),
        }
        if !is_replay && let Some(cold) = self.kernel.conns.cold_mut(conn) {
            cold.pending -= 1;
        }
        if let Some(answered) = self.kernel.calls.answer(reply.call, reply.part, reply.answer) {
            match (&answered.asker, &answered.answers) {
                (Asker::Inbox, Answers::One(Ok(_))) => {
                    self.welcome(now, conn, effects);
                    self.start_stream(now, conn, gap, effects);
                }
                (Asker::Inbox, _) => {
                    let reason = "this server is full; try later";
                    self.kernel.close(now, conn, CloseCode::Overloaded, reason, effects);
                }
                (Asker::Replay, _) => {}
                (Asker::Application { ack: None }, _) => {}
                (Asker::Application { ack: Some(ack) }, answers) => {
                    let refused = match answers {
                        Answers::One(Err(error)) => Some(error),
                        _ => None,
                    };
                    self.acknowledge_application(now, conn, *ack, refused, effects);
                }
                (Asker::Client { .. }, _) => self.answered.push(answered),
            }
        }
        self.flush_answered(now, effects);
        self.kernel.pump_replay(conn, effects);
        self.catch_up(from, effects);
    }

    fn attach(
        &mut self,
        now: Now,
        conn: ConnId,
        home: ShardId,
        (room, name): (RoomId, RoomRef),
        (pos, is_behind): (Pos, bool),
        effects: &mut Effects,
    ) {
        if !self.kernel.conns.is_open(conn) {
            // It closed while the home let it in.
            return self.kernel.tell_gone(home, conn, vec![room], effects);
        }
        // Requests of members carry this name to its home. Names that all shards count in the same
        // place would make them wait for each other.
        let name = if home == self.kernel.id { name } else { name.copied() };
        let local = self.kernel.membership.attach(conn.0.slot, home, room, name, now.unix_ms);
        if self.is_stream(conn)
            && let Some(row) = self.kernel.membership.room(local)
        {
            self.kernel.streams.attached(conn, row.name.name.as_str(), (home, room), pos);
        }
        let Pos { epoch, seq: after } = pos;
        match is_behind {
            true => self.kernel.start_replay(conn, Replay { home, room, epoch, after, asked: None }),
            false => self.kernel.membership.make_live(conn.0.slot, local),
        }
    }

    fn detach(&mut self, conn: ConnId, home: ShardId, room: RoomId) {
        if !self.kernel.conns.is_open(conn) {
            return;
        }
        if let Some(replays) = self.kernel.conns.cold_mut(conn).and_then(|cold| cold.replays.as_mut()) {
            replays.retain(|replay| (replay.home, replay.room) != (home, room));
        }
        if let Some(local) = self.kernel.membership.find(home, room) {
            self.kernel.membership.detach(conn.0.slot, local);
        }
    }

    /// The first push of a connection, once everything that is sent to its user reaches it.
    fn welcome(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(cold) = self.kernel.conns.cold(conn) else { return };
        let identity = &cold.identity;
        let Limits { message_bytes, rooms_per_conn, rooms_per_request, rates, heartbeat, .. } = &self.kernel.limits;
        // Who is in a namespace hears the beats of its session.
        let beats = self.mount_of(self.kernel.carriers.transport_of(conn));
        let heartbeat = beats.map_or(*heartbeat, |nth| self.served.mounts[nth].settings.ping_interval);
        let rate = rates.conn.filter(|_| Paid::exempt(identity, &rates.unlimited_roles).is_none());
        let name = match self.stream_sid(conn) {
            Some(sid) => sid.text(),
            None => format!("{}-{}-{}", self.kernel.id.0, conn.0.slot, conn.0.generation),
        };
        let data = Connected {
            conn: &name,
            user: &identity.user,
            tenant: identity.tenant(),
            name: identity.name(),
            server: "ringroom",
            version: env!("CARGO_PKG_VERSION"),
            heartbeat_ms: heartbeat.as_millis() as u64,
            limits: Bounds {
                message_bytes: *message_bytes,
                rooms: *rooms_per_conn,
                rooms_per_request: *rooms_per_request,
                requests: rate.map(|rate| Requests {
                    burst: rate.burst,
                    count: rate.tokens,
                    per_ms: rate.period.as_millis() as u64,
                }),
            },
        };
        self.receipt.clear();
        serde_json::to_writer(&mut self.receipt, &data).expect("a welcome is plain data");
        let push = Push {
            event: "connected",
            room: None,
            seq: None,
            mid: None,
            ts: Some(now.unix_ms),
            from: None,
            data: &self.receipt,
        };
        self.frame.clear();
        encode::push(&mut self.frame, &push);
        self.kernel.tell(now, conn, &self.frame, Class::Logged, effects);
        self.kernel.watch_expiry(now, conn);
    }

    /// What members here missed is gone: they are told by being closed, and come back by position.
    fn on_lost(&mut self, now: Now, home: ShardId, room: RoomId, effects: &mut Effects) {
        let Some(local) = self.kernel.membership.find(home, room) else { return };
        let Some(row) = self.kernel.membership.room(local) else { return };
        let members: Vec<ConnId> = row.members().iter().map(|member| self.kernel.conns.id_at(member.slot)).collect();
        for conn in members {
            self.kernel.close_for(now, conn, CloseReason::LostBetweenShards, effects);
        }
    }

    /// There may be credit to `peer` again: sends what waits for it.
    pub(super) fn catch_up(&mut self, peer: ShardId, effects: &mut Effects) {
        if peer == self.kernel.id {
            return;
        }
        self.kernel.catch_up(peer, effects);
        self.unpark(peer, effects);
        if !self.kernel.replaying.is_empty() {
            self.kernel.pump_replays(effects);
        }
    }
}
