//! Floor 5: composes floors 1 to 4 into [`Shard::step`]. Knows no operating system.
//!
//! A shard is told the time and one thing that happened, and says what is to be done. By subject:
//! `intake` (what a client sent becomes requests), `endpoints` (what clients of an application's own
//! paths send), `home` (mail that reaches rooms and connections here), `answers` (what somebody outside
//! says of a request), `clock` (what the time brings), `auditing` (what is told of requests), `snapshot`
//! (what an operator may see), `streams` (of server-sent events).

mod answers;
mod auditing;
mod census;
mod clock;
mod drain;
mod endpoints;
mod engine;
mod home;
mod intake;
mod namespaces;
mod snapshot;
mod streams;

pub use crate::kernel::ShardConfig;
pub use census::{Census, Held};
pub use drain::DrainPace;
pub use engine::Spoken;
pub use snapshot::Snapshot;

use crate::admission::identity::Identity;
use crate::admission::policy::Policy;
use crate::admission::revocations::Revocation;
use crate::admission::token::{TokenRefused, Verifier};
use crate::base::limits::{CLOSES_PER_STEP, FRAGMENTS_MAX, PONGS_PENDING_MAX};
use crate::base::time::{Instant, Now};
use crate::kernel::asked::{Outside, Ticket};
use crate::kernel::calls::Answered;
use crate::kernel::carriers::{PollId, Transport};
use crate::kernel::conns::{Flags, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::endpoint::{EndpointLimits, Served};
use crate::kernel::entry::Frame;
use crate::kernel::feature::{Feature, Registry};
use crate::kernel::ids::{ConnId, ShardId};
use crate::kernel::lanes::Requests;
use crate::kernel::mail::{Ask, Mail};
use crate::kernel::mounts;
use crate::kernel::paths::Paths;
use crate::kernel::{Kernel, Limits};
use crate::wire::assembler::MessageLimits;
use crate::wire::codes::{CloseCode, WireError};
use crate::wire::dialect::DialectId;
use crate::wire::frame;
use drain::Drain;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A connection whose handshake is done.
pub struct Opening {
    /// From [`Shard::reserve`].
    pub conn: ConnId,
    pub identity: Identity,
    pub dialect: DialectId,
    /// What goes before the first frame, such as the answer to the upgrade: both leave in one write.
    pub greeting: Box<[u8]>,
}

/// An Engine.IO session that begins, or a WebSocket that is to take one over.
pub struct EngineOpening {
    /// From [`Shard::reserve`].
    pub conn: ConnId,
    /// Of the path, compressed where that was agreed on.
    pub dialect: DialectId,
    pub transport: Transport,
    /// Random: who knows it may speak for the session.
    pub secret: [u8; 12],
    /// Whom the token of the first request names; a guest where there was none, or none that is good.
    pub identity: Identity,
    /// Why that token is not good.
    pub refused: Option<TokenRefused>,
    /// What goes before the first packet: the answer to the upgrade.
    pub greeting: Box<[u8]>,
}

/// A stream of server-sent events that begins.
pub struct StreamOpening {
    /// From [`Shard::reserve`].
    pub conn: ConnId,
    pub identity: Identity,
    /// It came without a token.
    pub is_anonymous: bool,
    /// Random: who knows it may speak for the stream, if it is of the same user.
    pub secret: [u8; 12],
    /// To be joined, each once.
    pub rooms: Vec<Box<str>>,
    /// The id of the last event that the client has.
    pub last_event: Option<Box<str>>,
    /// What goes before the first event: the head of the response.
    pub greeting: Box<[u8]>,
}

/// One thing that happened.
pub enum Input<'a> {
    Open(Box<Opening>),
    OpenEngine(Box<EngineOpening>),
    OpenStream(Box<StreamOpening>),
    /// A request of a stream's client; it gets one answer, by [`Effects::polls`].
    Emit {
        conn: ConnId,
        poll: PollId,
        message: &'a [u8],
    },
    /// Nobody waits for the answer any more.
    EmitGone {
        conn: ConnId,
        poll: PollId,
    },
    /// A GET waits for the session's packets; it gets one answer, by [`Effects::polls`].
    Poll {
        conn: ConnId,
        poll: PollId,
    },
    /// It ended without one.
    PollGone {
        conn: ConnId,
        poll: PollId,
    },
    /// A connection that is listed as dirty and has no socket: what waits for it goes to its GET.
    Deliver {
        conn: ConnId,
    },
    /// What the limits of an entrant's user say.
    Entered {
        conn: ConnId,
        carrier: ConnId,
        refused: Option<WireError>,
    },
    /// A whole text message: unmasked, assembled, UTF-8.
    Text {
        conn: ConnId,
        message: &'a [u8],
    },
    /// A whole binary message.
    Binary {
        conn: ConnId,
        message: &'a [u8],
    },
    Ping {
        conn: ConnId,
        payload: &'a [u8],
    },
    Pong {
        conn: ConnId,
    },
    /// The peer's close frame.
    PeerClose {
        conn: ConnId,
        code: Option<u16>,
    },
    /// The peer broke the protocol below messages.
    Failed {
        conn: ConnId,
        code: CloseCode,
        reason: &'static str,
    },
    /// The socket is closed. The slot is free after this.
    Gone {
        conn: ConnId,
    },
    /// The socket took `bytes` of what [`Shard::gather`] named.
    Wrote {
        conn: ConnId,
        bytes: usize,
    },
    /// The socket takes no more for now.
    Blocked {
        conn: ConnId,
    },
    /// It takes more again.
    Writable {
        conn: ConnId,
    },
    Mail {
        from: ShardId,
        mail: Mail,
    },
    /// The lane to `peer` has `free` places.
    Credit {
        peer: ShardId,
        free: u32,
    },
    /// Tokens are checked with this from now on. What was let in before stays.
    Verifier(Arc<Verifier>),
    /// Who may do what from now on. Who is in a room stays.
    Policy(Arc<Policy>),
    /// What came of a question of this shard's.
    Answer {
        ticket: Ticket,
        outside: Outside,
    },
    /// What was let in by these is closed, and what comes by them refused.
    Revoke {
        revocations: &'a [Revocation],
    },
    /// Nothing but the time.
    Tick,
    /// Bounds that hold from now on, for timers as they are next set.
    Limits(Box<Limits>),
    /// Ask every client to come back, not faster than is said here.
    Drain(DrainPace),
}

pub struct Shard {
    kernel: Kernel,
    registry: Registry,
    /// Of an application, by their dialects.
    endpoints: Vec<Served>,
    /// Where Engine.IO is spoken, and all namespaces.
    served: mounts::Served,
    /// Bytes of replies while they are made.
    frame: Vec<u8>,
    /// The data of a reply, and requests on their way to their homes, likewise.
    receipt: Vec<u8>,
    /// A MessagePack message as JSON, likewise.
    unpacked: Vec<u8>,
    requests: Requests,
    /// Timers that fell due, and how many of them are done: see `CLOSES_PER_STEP`.
    due: Vec<crate::kernel::Timer>,
    due_done: usize,
    /// Set once the process goes away.
    drain: Option<Drain>,
    /// Calls of clients that have all their answers and no reply yet.
    answered: Vec<Answered>,
    /// The latest ping of each connection that has `PONGS_PENDING_MAX` pongs queued: at most 125 bytes each.
    pings_left: BTreeMap<ConnId, Vec<u8>>,
    /// What the present step is, or the last was.
    doing: &'static str,
}

impl Shard {
    pub fn new(config: ShardConfig, features: Vec<Box<dyn Feature>>, now: Now) -> Shard {
        Shard {
            kernel: Kernel::new(config, now),
            registry: Registry::new(features),
            endpoints: Vec::new(),
            served: mounts::Served::default(),
            frame: Vec::new(),
            receipt: Vec::new(),
            unpacked: Vec::new(),
            requests: Requests::new(),
            due: Vec::new(),
            due_done: 0,
            drain: None,
            answered: Vec::new(),
            pings_left: BTreeMap::new(),
            doing: "start",
        }
    }

    /// With what is served besides the native protocol.
    pub fn with_paths(mut self, paths: &Paths) -> Shard {
        self.kernel.encoder.set_forms(Arc::new(paths.mounts.forms()));
        Shard { endpoints: paths.endpoints.instances(), served: paths.mounts.instances(), ..self }
    }

    /// Takes in one thing that happened and names what is to be done. `now` never goes back.
    pub fn step(&mut self, now: Now, input: Input<'_>, effects: &mut Effects) {
        // Several writes are made before the first is reported; until all are, what was offered for
        // writing must not be let go of.
        let may_relieve = !matches!(input, Input::Wrote { .. } | Input::Blocked { .. });
        self.doing = self.name(&input);
        self.kernel.closes_left = CLOSES_PER_STEP;
        match input {
            Input::Open(opening) => self.open(now, *opening, effects),
            Input::OpenEngine(opening) => self.open_engine(now, *opening, effects),
            Input::OpenStream(opening) => self.open_stream(now, *opening, effects),
            Input::Emit { conn, poll, message } => self.on_emit(now, conn, poll, message, effects),
            Input::EmitGone { conn, poll } => self.kernel.forget_emit(conn, poll),
            Input::Poll { conn, poll } => self.on_poll(now, conn, poll, effects),
            Input::PollGone { conn, poll } => self.on_poll_gone(now, conn, poll, effects),
            Input::Deliver { conn } => self.deliver_polled(now, conn, effects),
            Input::Entered { conn, carrier, refused } => self.on_entered(now, conn, carrier, refused, effects),
            Input::Text { conn, message } => self.on_text(now, conn, message, effects),
            Input::Binary { conn, message } => self.on_binary(now, conn, message, effects),
            Input::Ping { conn, payload } => {
                self.heard(now, conn);
                self.answer_ping(now, conn, payload, effects);
            }
            Input::Pong { conn } => self.heard(now, conn),
            Input::PeerClose { conn, code } => self.kernel.answer_close(now, conn, code, effects),
            Input::Failed { conn, code, reason } => self.kernel.close(now, conn, code, reason, effects),
            Input::Gone { conn } => {
                self.pings_left.remove(&conn);
                self.on_socket_gone(now, conn, effects);
            }
            Input::Wrote { conn, bytes } => self.on_wrote(now, conn, bytes, effects),
            Input::Blocked { conn } => self.on_blocked(now, conn),
            Input::Writable { conn } => self.on_writable(conn, effects),
            Input::Mail { from, mail } => self.on_mail(now, from, mail, effects),
            Input::Credit { peer, free } => {
                self.kernel.lanes.set_credit(peer, free);
                self.catch_up(peer, effects);
            }
            Input::Verifier(verifier) => self.kernel.verifier = verifier,
            Input::Policy(policy) => self.kernel.policy = policy,
            Input::Answer { ticket, outside } => self.on_answer(now, ticket, outside, effects),
            Input::Revoke { revocations } => self.kernel.revoke(now, revocations, effects),
            Input::Tick => self.on_tick(now, effects),
            Input::Limits(limits) => self.kernel.set_limits(now, *limits),
            Input::Drain(pace) => self.on_drain(now, pace, effects),
        }
        self.settle(now, may_relieve, effects);
    }

    /// What the last step was: the event of a client's request where it was one, else a word. For
    /// whoever measures steps; nothing depends on it.
    pub fn doing(&self) -> &'static str {
        self.doing
    }

    fn name(&self, input: &Input<'_>) -> &'static str {
        match input {
            Input::Open(_) | Input::OpenEngine(_) | Input::OpenStream(_) | Input::Entered { .. } => "open",
            Input::Emit { .. } => "emit",
            Input::Poll { .. } | Input::PollGone { .. } | Input::EmitGone { .. } | Input::Deliver { .. } => "poll",
            // Until its event is known.
            Input::Text { .. } | Input::Binary { .. } => "text",
            Input::Failed { .. } => "refused",
            Input::Ping { .. } => "ping",
            Input::Pong { .. } => "pong",
            Input::PeerClose { .. } => "close",
            Input::Gone { .. } => "gone",
            Input::Wrote { .. } | Input::Blocked { .. } | Input::Writable { .. } => "written",
            Input::Mail { mail: Mail::Request(request), .. } => match request.ask {
                Ask::Event { declared, .. } => self.registry.declared(declared).event,
                Ask::Enter { .. } | Ask::Exit => "open",
                Ask::Say { .. } => "say",
                Ask::Page { .. } => "replay",
            },
            Input::Mail { mail: Mail::Reply(_), .. } => "reply",
            Input::Mail { mail: Mail::Entry { .. }, .. } => "deliver",
            Input::Mail { mail: Mail::Gone(_), .. } => "gone",
            Input::Mail { mail: Mail::Lost { .. }, .. } => "lost",
            Input::Credit { .. } => "credit",
            Input::Verifier(_) => "verifier",
            Input::Policy(_) => "policy",
            Input::Answer { .. } => "answer",
            Input::Revoke { .. } => "revoke",
            Input::Tick => "tick",
            Input::Drain(_) => "drain",
            Input::Limits(_) => "limits",
        }
    }

    /// Handles what this shard told itself and what features have not heard yet, until there is
    /// nothing more. No more than one of them comes between two looks at the memory.
    fn settle(&mut self, now: Now, may_relieve: bool, effects: &mut Effects) {
        loop {
            if may_relieve {
                self.kernel.relieve(now, effects);
            }
            if let Some(mail) = self.kernel.lanes.next_to_self() {
                let me = self.kernel.id;
                self.on_mail(now, me, mail, effects);
            } else if let Some((room, fact)) = self.kernel.facts.pop_front() {
                self.on_fact(now, room, &fact, effects);
            } else if let Some(conn) = self.kernel.streams.due.pop() {
                self.go_on_emitting(now, conn, effects);
            } else if let Some((nth, conn)) = self.kernel.farewells.pop() {
                self.on_left(nth, conn);
            } else {
                break;
            }
        }
    }

    /// A slot for a connection to come; `None` when this shard is full. Given back by
    /// [`Input::Gone`].
    pub fn reserve(&mut self) -> Option<ConnId> {
        (self.kernel.conns.len() < self.kernel.limits.conns_max).then(|| self.kernel.conns.reserve())
    }

    /// The identity that `token` proves here and now.
    pub fn verify(&self, now: Now, token: &str) -> Result<Identity, TokenRefused> {
        self.kernel.verify(now, token)
    }

    /// Who sends no token, where that is allowed: see [`Verifier::anonymous`].
    pub fn anonymous(&self, random: u128, label: Option<&str>) -> Option<Identity> {
        self.kernel.verifier.anonymous(random, label)
    }

    /// Whether offers of compression are taken.
    pub fn compresses(&self) -> bool {
        self.kernel.limits.deflate_bytes_min.is_some()
    }

    /// What the messages of who speaks `dialect` may be like that begin from now on.
    #[inline]
    pub fn message_limits(&self, dialect: DialectId) -> MessageLimits {
        let may_compress = dialect.window().is_some();
        match dialect.endpoint() {
            None => {
                let of_mount = dialect.mount().map(|nth| self.served.mounts[nth].settings.payload_bytes);
                let message_bytes = of_mount.unwrap_or(self.kernel.limits.message_bytes);
                MessageLimits { message_bytes, fragments: FRAGMENTS_MAX, may_compress }
            }
            Some(nth) => {
                let EndpointLimits { message_bytes, fragments, .. } = self.endpoints[nth].limits;
                MessageLimits { message_bytes, fragments, may_compress }
            }
        }
    }

    /// No timer fires before this.
    pub fn next_deadline(&self) -> Instant {
        if self.due.is_empty() { self.kernel.next_deadline() } else { Instant::ZERO }
    }

    /// False while what the connection sends must wait: keep what is read, read no more until
    /// [`Effects::resumed`] names it. False for good once it is closing.
    pub fn is_reading(&self, conn: ConnId) -> bool {
        self.kernel.conns.row(conn).is_some_and(|row| row.is_open() && !row.flags.has(Flags::UNREAD))
    }

    /// It is not being read, and will be again: see [`Shard::is_reading`].
    pub fn is_paused(&self, conn: ConnId) -> bool {
        self.kernel.conns.row(conn).is_some_and(|row| row.is_open() && row.flags.has(Flags::UNREAD))
    }

    /// What is to be written next, front first, at least one frame and then up to `bytes_max`.
    /// Takes the connection off the dirty list. Returns the bytes.
    pub fn gather<'a>(&'a mut self, conn: ConnId, into: &mut Vec<&'a [u8]>, bytes_max: usize) -> usize {
        let Some(row) = self.kernel.conns.row_mut(conn) else { return 0 };
        row.flags.clear(Flags::LISTED);
        row.outbox.gather(into, bytes_max)
    }

    /// The close frame and everything before it is written.
    pub fn is_finished(&self, conn: ConnId) -> bool {
        self.kernel.conns.row(conn).is_some_and(|row| row.flags.has(Flags::CLOSING) && row.outbox.is_empty())
    }

    /// Places that the core believes free in the lane to `peer`.
    pub fn credit(&self, peer: ShardId) -> u32 {
        self.kernel.lanes.credit(peer)
    }

    /// Something waits for credit to `peer`.
    pub fn is_starved(&self, peer: ShardId) -> bool {
        self.kernel.lanes.is_starved(peer)
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.kernel)
    }

    /// Counts rows: slower than [`Shard::snapshot`], and independent of its counters.
    pub fn census(&self) -> Census {
        Census::of(&self.kernel)
    }

    /// Bytes that are held for readers: see `kernel::budget`.
    pub fn memory_used(&self) -> usize {
        self.kernel.memory.account.used()
    }

    /// Bytes in a connection's outbox.
    pub fn queued(&self, conn: ConnId) -> usize {
        self.kernel.conns.row(conn).map_or(0, |row| row.outbox.bytes())
    }

    fn heard(&mut self, now: Now, conn: ConnId) {
        if let Some(row) = self.kernel.conns.row_mut(conn) {
            row.heard_s = seconds(now.at);
        }
    }

    fn answer_ping(&mut self, now: Now, conn: ConnId, payload: &[u8], effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        if u32::from(row.pongs) >= PONGS_PENDING_MAX {
            // RFC 6455 section 5.5.3: of pings that wait, the latest must have its answer, and others need none.
            let left = self.pings_left.entry(conn).or_default();
            left.clear();
            left.extend_from_slice(payload);
            return;
        }
        row.pongs += 1;
        self.frame.clear();
        frame::pong(&mut self.frame, payload);
        let pong = Frame::logged(&self.kernel.memory.account, &self.frame);
        self.kernel.push_to(now, conn, &pong, effects);
    }

    fn on_wrote(&mut self, now: Now, conn: ConnId, bytes: usize, effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn) else { return };
        row.outbox.wrote(bytes);
        let mut may_have_left = false;
        if row.outbox.is_empty() {
            may_have_left = u32::from(row.pongs) >= PONGS_PENDING_MAX;
            row.pongs = 0;
            if row.flags.has(Flags::OWED) {
                row.flags.clear(Flags::OWED);
                row.active_s = seconds(now.at);
            }
        }
        let flags = row.flags;
        if flags.has(Flags::FULL) {
            self.resume_sender(conn, effects);
        }
        if flags.has(Flags::BLOCKED)
            && bytes > 0
            && let Some(cold) = self.kernel.conns.cold_mut(conn)
        {
            cold.note_progress(now.at);
        }
        if may_have_left && let Some(payload) = self.pings_left.remove(&conn) {
            self.answer_ping(now, conn, &payload, effects);
        }
        self.kernel.pump_replay(conn, effects);
        // Nearly always nobody has anything to catch up on.
        if !self.kernel.replaying.is_empty() {
            let riders = self.carrier(conn).map(|carrier| carrier.riders.clone()).unwrap_or_default();
            riders.into_iter().for_each(|rider| self.kernel.pump_replay(rider, effects));
        }
    }

    fn on_blocked(&mut self, now: Now, conn: ConnId) {
        let Some(row) = self.kernel.conns.row_mut(conn) else { return };
        self.kernel.counters.blocked += u64::from(!row.flags.has(Flags::BLOCKED));
        row.flags.set(Flags::BLOCKED);
        // A write may have listed it again (a replay went on); the edge passes a blocked socket by,
        // so it must be listed anew once it takes bytes.
        row.flags.clear(Flags::LISTED);
        if let Some(cold) = self.kernel.conns.cold_mut(conn) {
            cold.note_progress(now.at);
        }
        self.watch_stall(now, conn);
    }

    fn on_writable(&mut self, conn: ConnId, effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn) else { return };
        self.kernel.counters.blocked -= u64::from(row.flags.has(Flags::BLOCKED));
        self.kernel.counters.slow -= u64::from(row.flags.has(Flags::SLOW));
        row.flags.clear(Flags::BLOCKED);
        row.flags.clear(Flags::SLOW);
        if !row.outbox.is_empty() {
            // A crowd that could not take a message at once comes back as a crowd.
            crate::kernel::fan_out::list(conn, row, &mut effects.dirty_by_crowd);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::CROWD_MIN;
    use crate::features;
    use crate::kernel::Limits;
    use crate::wire::dialect::NATIVE_JSON;

    const NOW: Now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };

    struct World {
        shard: Shard,
        effects: Effects,
    }

    impl World {
        fn new() -> World {
            let limits = Limits::default();
            let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits };
            World { shard: Shard::new(config, features::all(), NOW), effects: Effects::default() }
        }

        fn open(&mut self, user: usize) -> ConnId {
            let conn = self.shard.reserve().expect("room for all");
            let identity = Identity::of("default", &format!("user{user}"));
            self.step(Input::Open(Box::new(Opening {
                conn,
                identity,
                dialect: NATIVE_JSON,
                greeting: Box::default(),
            })));
            conn
        }

        fn step(&mut self, input: Input<'_>) {
            self.shard.step(NOW, input, &mut self.effects);
        }

        fn say(&mut self, conn: ConnId, event: &str, data: &str) {
            let message = format!(r#"{{"id":1,"event":"{event}","data":{data}}}"#);
            self.step(Input::Text { conn, message: message.as_bytes() });
        }

        /// Empties the lists as a flush does, with sockets that take everything: the rest and the crowd.
        fn flush(&mut self) -> (Vec<ConnId>, Vec<ConnId>) {
            let listed = (std::mem::take(&mut self.effects.dirty), std::mem::take(&mut self.effects.dirty_by_crowd));
            for conn in listed.0.iter().chain(&listed.1) {
                let bytes = self.shard.gather(*conn, &mut Vec::new(), usize::MAX);
                self.step(Input::Wrote { conn: *conn, bytes });
            }
            listed
        }
    }

    #[test]
    fn a_message_lists_its_receivers_by_the_size_of_their_room_and_each_once() {
        let mut world = World::new();
        let conns: Vec<_> = (0..CROWD_MIN).map(|user| world.open(user)).collect();
        let (speaker, friend) = (conns[0], conns[1]);
        for conn in &conns[1..] {
            world.say(*conn, "room:join", r#"{"room":"chat:large"}"#);
        }
        for conn in [speaker, friend] {
            world.say(conn, "room:join", r#"{"room":"chat:small"}"#);
        }
        world.flush();

        let to_large = r#"{"room":"chat:large","event":"chat","data":0}"#;
        let to_small = r#"{"room":"chat:small","event":"chat","data":0}"#;
        world.say(friend, "room:publish", to_large);
        let (rest, crowd) = world.flush();
        assert_eq!((rest.len(), crowd.len()), (CROWD_MIN - 1, 0), "one less than a crowd");

        world.say(speaker, "room:join", r#"{"room":"chat:large"}"#);
        world.flush();
        world.say(friend, "room:publish", to_large);
        world.say(friend, "room:publish", to_small);
        let (rest, crowd) = world.flush();
        let mut listed: Vec<_> = rest.iter().chain(&crowd).copied().collect();
        listed.sort_unstable();
        assert_eq!(listed, conns, "each once");
        // The sender may be listed for its reply first.
        assert!(crowd.len() >= CROWD_MIN - 1, "{} listed by the crowd", crowd.len());

        world.say(friend, "room:publish", to_small);
        let (mut rest, crowd) = world.flush();
        rest.sort_unstable();
        assert_eq!((rest, crowd), (vec![speaker, friend], Vec::new()));
    }

    #[test]
    fn a_step_is_named_by_the_event_that_it_answered() {
        let mut world = World::new();
        let conn = world.open(0);
        assert_eq!(world.shard.doing(), "open");
        world.say(conn, "room:join", r#"{"room":"chat:small"}"#);
        assert_eq!(world.shard.doing(), "room:join");
        world.say(conn, "room:dance", "{}");
        assert_eq!(world.shard.doing(), "text", "what clients invent is not repeated");
        world.step(Input::Tick);
        assert_eq!(world.shard.doing(), "tick");
    }

    #[test]
    fn who_was_held_up_by_its_socket_comes_back_with_the_crowd() {
        let mut world = World::new();
        let conn = world.open(0);
        assert_eq!(world.flush(), (vec![conn], Vec::new()));
        world.step(Input::Blocked { conn });
        world.say(conn, "room:join", r#"{"room":"chat:small"}"#);
        assert_eq!(world.flush(), (Vec::new(), Vec::new()));
        world.step(Input::Writable { conn });
        assert_eq!(world.flush(), (Vec::new(), vec![conn]));
    }
}
