//! Engine.IO sessions: packets come in by WebSocket messages and POSTs and go out by WebSocket frames and
//! GETs; heartbeats, the change from polling to a WebSocket, and the end. What messages mean is decided
//! elsewhere (`namespaces`, `endpoints`).
//! Invariant: what no GET took stands in the outbox, so whoever comes next takes it, be it the next GET or
//! the WebSocket that took over: nothing is lost or doubled by the change.

use crate::base::limits::POLL_PACKETS_MAX;
use crate::base::table::Key;
use crate::base::time::Now;
use crate::base::wheel::TICK;
use crate::kernel::Timer;
use crate::kernel::carriers::{Carrier, PollAnswer, PollId, State, Transport};
use crate::kernel::conns::{Flags, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::endpoint::{Client, Message};
use crate::kernel::entry::{Class, Frame};
use crate::kernel::fan_out::list;
use crate::kernel::ids::ConnId;
use crate::kernel::mounts::{By, EngineSettings, ServedMount};
use crate::kernel::rates::Price;
use crate::kernel::reasons::CloseReason;
use crate::shard::{EngineOpening, Shard};
use crate::wire::codes::CloseCode;
use crate::wire::dialect::DialectId;
use crate::wire::engine::{self, Packet, Sid, payload};
use std::sync::Arc;
use std::time::Duration;

/// The packets of Engine.IO that a server makes by itself.
const PING: u8 = b'2';
const PONG: u8 = b'3';
/// A GET's answers that no outbox holds: nothing more, and the end.
const NOOP_PAYLOAD: &[u8] = b"6";
const CLOSE_PAYLOAD: &[u8] = b"1";
/// What a WebSocket says before it takes over, and is answered with.
const PROBE: &str = "probe";
/// What makes a queued ping give way to the next.
const PING_KEY: u64 = 1;

/// How long a GET is waited for that left together with a goodbye.
const LEAVING_TIME: Duration = TICK.saturating_mul(4);

/// How a session may be spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spoken {
    /// By polling, and by a probe.
    Polling,
    /// By polling; a probe is under way.
    Upgrading,
    /// By its WebSocket alone.
    WebSocket,
}

impl Shard {
    /// Which path this is, of those where Engine.IO is spoken, with its last slash or without: its plain dialect.
    pub fn mount_at(&self, path: &str) -> Option<DialectId> {
        let is_at = |mount: &ServedMount| mount.path == path || mount.path.strip_suffix('/') == Some(path);
        self.served.mounts.iter().position(is_at).map(DialectId::of_mount)
    }

    /// How it is spoken there. Panics where `dialect` is no path's.
    pub fn engine(&self, dialect: DialectId) -> &Arc<EngineSettings> {
        &self.served.mounts[dialect.mount().expect("a path's dialect")].settings
    }

    /// The session of that name at a path, if it is open or has its last words for a GET, and how it may be
    /// spoken to.
    pub fn session(&self, mount: DialectId, sid: &Sid) -> Option<(ConnId, Spoken)> {
        let conn = ConnId(Key { slot: sid.slot, generation: sid.generation });
        let carrier = self.carrier(conn)?;
        // All of it is looked at, so the time that it takes tells nothing.
        let differs =
            carrier.secret.iter().zip(sid.secret).fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs));
        let is_here = sid.shard == self.kernel.id.0 && self.mount_of(conn) == mount.mount();
        let is_heard = self.kernel.conns.is_open(conn) || carrier.is_lingering();
        if differs != 0 || !is_here || !is_heard {
            return None;
        }
        let spoken = match carrier.state {
            State::Polling { probe: None, .. } => Spoken::Polling,
            State::Polling { probe: Some(_), .. } => Spoken::Upgrading,
            State::WebSocket => Spoken::WebSocket,
            State::Probe { .. } => return None,
        };
        Some((conn, spoken))
    }

    /// What its client may name a session by.
    pub fn sid(&self, conn: ConnId) -> Option<Sid> {
        let secret = self.carrier(conn)?.secret;
        Some(Sid { shard: self.kernel.id.0, slot: conn.0.slot, generation: conn.0.generation, secret })
    }

    pub(super) fn carrier(&self, conn: ConnId) -> Option<&Carrier> {
        self.kernel.conns.row(conn)?.dialect.mount()?;
        self.kernel.carriers.get(conn)
    }

    pub(super) fn carrier_mut(&mut self, conn: ConnId) -> Option<&mut Carrier> {
        self.kernel.conns.row(conn)?.dialect.mount()?;
        self.kernel.carriers.get_mut(conn)
    }

    pub(super) fn mount_of(&self, conn: ConnId) -> Option<usize> {
        self.kernel.conns.row(conn)?.dialect.mount()
    }

    fn has_namespaces(&self, conn: ConnId) -> bool {
        self.mount_of(conn).is_some_and(|nth| matches!(self.served.mounts[nth].by, By::Namespaces { .. }))
    }

    pub(super) fn open_engine(&mut self, now: Now, opening: EngineOpening, effects: &mut Effects) {
        let EngineOpening { conn, dialect, transport, secret, identity, refused, greeting } = opening;
        let settings = self.engine(dialect).clone();
        let bucket = self.kernel.meters.full(now.at);
        self.kernel.conns.open(conn, dialect, identity, bucket, now.at);
        self.kernel.counters.opened += 1;
        if !greeting.is_empty() {
            let greeting = Frame::logged(&self.kernel.memory.account, &greeting);
            self.kernel.push_to(now, conn, &greeting, effects);
        }
        let state = match transport {
            Transport::Polling => State::Polling { parked: None, probe: None },
            Transport::WebSocket => State::WebSocket,
            Transport::Probe { of } => State::Probe { of },
        };
        let wait = self.ping_wait(&settings);
        let carrier = Carrier {
            secret,
            state,
            riders: Default::default(),
            ping_at: now.at.after(wait),
            pong_by: None,
            alone_since: Some(now.at),
            refused,
            assembling: None,
            entering: None,
            ungreeted: None,
            is_leaving: false,
            is_deaf: false,
            closing: None,
        };
        self.kernel.carriers.insert(conn, carrier);
        if self.is_draining() {
            return self.send_back(now, conn, effects);
        }
        if let Transport::Probe { of } = transport {
            match self.carrier_mut(of).map(|carrier| &mut carrier.state) {
                Some(State::Polling { probe: probe @ None, .. }) => *probe = Some((conn, false)),
                _ => return self.kernel.close(now, conn, CloseCode::BadRequest, "nothing to take over", effects),
            }
            let over = now.at.after(settings.upgrade_timeout);
            return self.kernel.wheel.set(over, Timer::Session(conn));
        }
        let sid = self.sid(conn).expect("it has just been opened").text();
        let EngineSettings { ping_interval, ping_timeout, payload_bytes, connect_timeout, .. } = *settings;
        let may_upgrade = transport == Transport::Polling;
        let open = self.kernel.encoder.frames(dialect.plain(), |out| {
            engine::open_frame(out, &sid, may_upgrade, ping_interval, ping_timeout, payload_bytes);
        });
        let open = Frame::logged(&self.kernel.memory.account, open);
        self.kernel.push_to(now, conn, &open, effects);
        self.kernel.wheel.set(now.at.after(wait), Timer::Session(conn));
        if self.has_namespaces(conn) {
            self.kernel.wheel.set(now.at.after(connect_timeout), Timer::Session(conn));
        }
        self.greet(now, conn, effects);
    }

    /// Up to a fifth early, so that sessions of one moment do not ping together, and never late: a client
    /// reckons with interval and time-out exactly, and timers fire up to a tick after their time.
    fn ping_wait(&mut self, settings: &EngineSettings) -> Duration {
        let interval = settings.ping_interval;
        let early = self.kernel.random.below(interval.as_nanos() as u64 / 5 + 1);
        interval.saturating_sub(Duration::from_nanos(early) + 2 * TICK)
    }

    /// Messages as they are have an endpoint, which hears of the session.
    fn greet(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(nth) = self.mount_of(conn) else { return };
        if let By::Messages(endpoint) = &mut self.served.mounts[nth].by {
            if let Some(row) = self.kernel.conns.row_mut(conn) {
                row.flags.set(Flags::SERVED);
            }
            endpoint.on_open(&mut Client::new(&mut self.kernel, effects, now, conn));
        }
        self.pause_sender(conn);
    }

    /// The packet of a text message, or of a payload.
    pub(super) fn on_packet(&mut self, now: Now, conn: ConnId, text: &str, effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        row.heard_s = seconds(now.at);
        if self.is_leaving(conn) {
            return;
        }
        let Some(state) = self.carrier(conn).map(|carrier| carrier.state) else { return };
        let packet = match engine::parse(text) {
            Ok(packet) => packet,
            Err(malformed) => return self.fail(now, conn, malformed.reason, effects),
        };
        if let State::Probe { of } = state {
            return match packet {
                Packet::Ping(PROBE) => self.answer_probe(now, conn, of, effects),
                Packet::Upgrade => self.take_over(now, conn, of, effects),
                // Who probes says nothing else.
                _ => self.fail(now, conn, "a probe and then an upgrade were expected", effects),
            };
        }
        match packet {
            Packet::Pong(_) => self.on_engine_pong(now, conn),
            Packet::Message(message) => self.on_engine_message(now, conn, message, effects),
            Packet::Close => self.on_engine_close(now, conn, effects),
            Packet::Noop => {}
            Packet::Ping(_) | Packet::Upgrade => self.fail(now, conn, "an unexpected packet", effects),
        }
    }

    fn on_engine_message(&mut self, now: Now, conn: ConnId, text: &str, effects: &mut Effects) {
        let Some(nth) = self.mount_of(conn) else { return };
        match self.served.mounts[nth].by {
            By::Messages(_) => self.on_endpoint_message(now, conn, nth, Message::Text(text), effects),
            By::Namespaces { .. } => self.on_socketio(now, conn, text, effects),
        }
    }

    /// A binary message, or the binary packet of a payload.
    pub(super) fn on_engine_binary(&mut self, now: Now, conn: ConnId, bytes: &[u8], effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        row.heard_s = seconds(now.at);
        let Some(nth) = self.mount_of(conn) else { return };
        match self.served.mounts[nth].by {
            _ if self.is_leaving(conn) => {}
            _ if self.carrier(conn).is_some_and(|carrier| matches!(carrier.state, State::Probe { .. })) => {
                self.fail(now, conn, "a probe and then an upgrade were expected", effects);
            }
            By::Messages(_) => self.on_endpoint_message(now, conn, nth, Message::Binary(bytes), effects),
            By::Namespaces { .. } => self.on_attachment(now, conn, bytes, effects),
        }
    }

    fn on_endpoint_message(&mut self, now: Now, conn: ConnId, nth: usize, message: Message<'_>, effects: &mut Effects) {
        if !self.pay_for_message(now, conn, conn, effects) {
            return;
        }
        let mount = &mut self.served.mounts[nth];
        self.doing = mount.path;
        if let By::Messages(endpoint) = &mut mount.by {
            endpoint.on_message(&mut Client::new(&mut self.kernel, effects, now, conn), message);
        }
        self.pause_sender(conn);
    }

    /// Takes the price of what an application is sent from `payer`, which is `conn` or rides on it; false: it
    /// had none left, and is closed.
    pub(super) fn pay_for_message(&mut self, now: Now, conn: ConnId, payer: ConnId, effects: &mut Effects) -> bool {
        let Some(row) = self.kernel.conns.row_mut(conn) else { return false };
        row.active_s = seconds(now.at);
        let dialect = row.dialect;
        let rate = self.engine(dialect).rate;
        self.kernel.counters.requests += 1;
        if let Some(rate) = rate
            && self.kernel.pay(now, payer, Price { event: None, rate, rooms: 1 }).is_err()
        {
            // There is no reply that could say how long to wait.
            self.kernel.close_for(now, conn, CloseReason::AskedOn, effects);
            return false;
        }
        true
    }

    /// A client that breaks the protocol: its session ends.
    pub(super) fn fail(&mut self, now: Now, conn: ConnId, reason: &str, effects: &mut Effects) {
        self.kernel.close(now, conn, CloseCode::BadRequest, reason, effects);
    }

    /// The client says that it goes: at once, unlike with a WebSocket's close there is nothing to answer, but
    /// the GET that waits, or that left together with the POST and comes behind it.
    fn on_engine_close(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(carrier) = self.carrier_mut(conn) else { return };
        if let State::Polling { parked, .. } = &mut carrier.state {
            let Some(poll) = parked.take() else {
                carrier.is_leaving = true;
                effects.is_soon = true;
                return self.kernel.wheel.set(now.at.after(LEAVING_TIME), Timer::Session(conn));
            };
            effects.polls.push((poll, PollAnswer::Packets(NOOP_PAYLOAD.to_vec())));
        }
        self.abandon(now, conn, CloseCode::Normal, "", effects);
    }

    /// Whether a session's client has said goodbye, and may still have a GET under way.
    pub fn is_leaving(&self, conn: ConnId) -> bool {
        self.carrier(conn).is_some_and(|carrier| carrier.is_leaving) && self.kernel.conns.is_open(conn)
    }

    /// Ends a session whose client hears no more.
    fn abandon(&mut self, now: Now, conn: ConnId, code: CloseCode, reason: &str, effects: &mut Effects) {
        if let Some(carrier) = self.carrier_mut(conn) {
            carrier.is_deaf = true;
        }
        self.kernel.close(now, conn, code, reason, effects);
    }

    pub(super) fn on_poll(&mut self, now: Now, conn: ConnId, poll: PollId, effects: &mut Effects) {
        let refuse = |effects: &mut Effects| effects.polls.push((poll, PollAnswer::Refused));
        let is_lingering = self.carrier(conn).is_some_and(Carrier::is_lingering);
        if !self.kernel.conns.is_open(conn) && !is_lingering || self.is_overdue(now, conn) {
            refuse(effects);
            return self.kernel.close_for(now, conn, CloseReason::Silent, effects);
        }
        if self.is_leaving(conn) {
            effects.polls.push((poll, PollAnswer::Packets(NOOP_PAYLOAD.to_vec())));
            return self.abandon(now, conn, CloseCode::Normal, "", effects);
        }
        match self.carrier_mut(conn).map(|carrier| &mut carrier.state) {
            Some(State::Polling { parked: Some(_), .. }) => {
                // Nobody asks twice at a time: the first learns of the end as the session does.
                refuse(effects);
                self.fail(now, conn, "two GETs at a time", effects);
            }
            Some(State::Polling { probe: Some((_, true)), .. }) => {
                effects.polls.push((poll, PollAnswer::Packets(NOOP_PAYLOAD.to_vec())));
            }
            Some(State::Polling { parked, .. }) => {
                *parked = Some(poll);
                self.deliver_polled(now, conn, effects);
            }
            _ => refuse(effects),
        }
    }

    /// Whether the answer to a ping is late, though no timer has said so yet.
    fn is_overdue(&self, now: Now, conn: ConnId) -> bool {
        self.carrier(conn).and_then(|carrier| carrier.pong_by).is_some_and(|by| now.at >= by)
    }

    pub(super) fn on_poll_gone(&mut self, now: Now, conn: ConnId, poll: PollId, effects: &mut Effects) {
        if let Some(State::Polling { parked, .. }) = self.carrier_mut(conn).map(|carrier| &mut carrier.state)
            && *parked == Some(poll)
        {
            *parked = None;
            self.abandon(now, conn, CloseCode::GoingAway, "the GET was given up", effects);
        }
    }

    /// Gives what waits for a session to its GET, if one waits; and lets go of a session that has ended.
    pub(super) fn deliver_polled(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(State::Polling { parked, .. }) = self.carrier(conn).map(|carrier| carrier.state) else { return };
        let payload_bytes = self.mount_of(conn).map_or(0, |nth| self.served.mounts[nth].settings.payload_bytes);
        let is_closing = !self.kernel.conns.is_open(conn);
        if let Some(poll) = parked {
            let mut pieces = Vec::new();
            self.gather(conn, &mut pieces, payload_bytes);
            if pieces.is_empty() {
                return;
            }
            let mut packets = Vec::new();
            let rendered = payload::render(&pieces, POLL_PACKETS_MAX, payload_bytes, &mut packets);
            let is_all = rendered.bytes == self.queued(conn);
            let mut is_to_come_back = false;
            if let Some(carrier) = self.carrier_mut(conn) {
                is_to_come_back = carrier.is_to_come_back();
                if let State::Polling { parked, .. } = &mut carrier.state {
                    *parked = None;
                }
            }
            let answer = match is_closing {
                // Some clients come back where a transport breaks off, and not where a server says goodbye.
                true if is_to_come_back => without_close(packets, is_all),
                true if !is_all => {
                    // The rest has nobody to go to; the end is what must be said.
                    packets.extend_from_slice(b"\x1e");
                    packets.extend_from_slice(CLOSE_PAYLOAD);
                    PollAnswer::Packets(packets)
                }
                _ => PollAnswer::Packets(packets),
            };
            effects.polls.push((poll, answer));
            self.on_wrote(now, conn, rendered.bytes, effects);
        } else if let Some(row) = self.kernel.conns.row_mut(conn) {
            row.flags.clear(Flags::LISTED);
            // To be told that it is to come back, nobody needs to ask.
            let has_words = row.outbox.frames().count() > 1;
            let is_worth = |carrier: &Carrier| carrier.is_lingering() && (has_words || !carrier.is_to_come_back());
            if is_closing && self.carrier(conn).is_some_and(is_worth) {
                return;
            }
        }
        if is_closing {
            effects.ended.push(conn);
        }
    }

    fn answer_probe(&mut self, now: Now, conn: ConnId, of: ConnId, effects: &mut Effects) {
        let Some(State::Polling { parked, probe: Some((probe, has_asked)) }) =
            self.carrier_mut(of).map(|carrier| &mut carrier.state)
        else {
            return self.fail(now, conn, "nothing to take over", effects);
        };
        if *probe != conn {
            return self.fail(now, conn, "another probe is under way", effects);
        }
        *has_asked = true;
        // It would wait for what is to come by the WebSocket.
        if let Some(poll) = parked.take() {
            effects.polls.push((poll, PollAnswer::Packets(NOOP_PAYLOAD.to_vec())));
        }
        // The client waits for the end of its POST before it goes on, and takes nothing until then.
        if let Some(row) = self.kernel.conns.row_mut(of).filter(|row| row.flags.has(Flags::FULL)) {
            row.flags.clear(Flags::FULL);
            effects.resumed.push(of);
        }
        self.push_packet(now, conn, PONG, PROBE, Class::Logged, effects);
    }

    /// The socket of the probe `conn` is the session's from now on.
    fn take_over(&mut self, now: Now, conn: ConnId, of: ConnId, effects: &mut Effects) {
        let is_session_open = self.kernel.conns.is_open(of);
        match self.carrier_mut(of).map(|carrier| &mut carrier.state) {
            Some(state @ State::Polling { .. }) if is_session_open && state.is_asked_by(conn) => {
                *state = State::WebSocket;
            }
            _ => return self.fail(now, conn, "an upgrade without its probe", effects),
        }
        self.kernel.counters.upgrades += 1;
        self.kernel.counters.gone += 1;
        let Some(row) = self.kernel.conns.row_mut(conn) else { return };
        // Some do not wait for the answer to their probe: it is still to leave, and goes first.
        let (answer, is_blocked) = (std::mem::take(&mut row.outbox), row.flags.has(Flags::BLOCKED));
        self.kernel.carriers.remove(conn);
        self.kernel.conns.free(conn);
        effects.merged.push((conn, of));
        let Some(row) = self.kernel.conns.row_mut(of) else { return };
        let mut waiting = std::mem::replace(&mut row.outbox, answer);
        waiting.cut_written();
        row.outbox.go_before(waiting);
        if is_blocked {
            row.flags.set(Flags::BLOCKED);
            return self.watch_stall(now, of);
        }
        if !row.outbox.is_empty() {
            list(of, row, &mut effects.dirty);
        }
    }

    /// Whether a session's client takes nothing because its WebSocket is about to.
    pub(super) fn is_upgrading(&self, conn: ConnId) -> bool {
        let state = self.carrier(conn).map(|carrier| carrier.state);
        matches!(state, Some(State::Polling { probe: Some((_, true)), .. }))
    }

    fn push_packet(&mut self, now: Now, conn: ConnId, kind: u8, text: &str, class: Class, effects: &mut Effects) {
        let Some(dialect) = self.kernel.conns.row(conn).map(|row| row.dialect) else { return };
        let packet = self.kernel.encoder.frames(dialect.plain(), |out| engine::packet_frame(out, kind, text));
        let packet = Frame::new(&self.kernel.memory.account, Arc::from(packet), class);
        self.kernel.push_to(now, conn, &packet, effects);
    }

    fn on_engine_pong(&mut self, now: Now, conn: ConnId) {
        let Some(nth) = self.mount_of(conn) else { return };
        let settings = self.served.mounts[nth].settings.clone();
        let wait = self.ping_wait(&settings);
        let Some(carrier) = self.carrier_mut(conn) else { return };
        let Some(pong_by) = carrier.pong_by.take() else { return };
        // From the last ping on, not from its answer: a slow network must not make heartbeats rarer.
        let pinged = pong_by.before(settings.ping_timeout);
        let at = pinged.after(wait).max(now.at);
        carrier.ping_at = at;
        self.kernel.wheel.set(at, Timer::Session(conn));
    }

    /// Something that a session was given time for is due, or was.
    pub(super) fn on_session_timer(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row(conn).filter(|row| row.is_open()) else { return };
        let inactive = seconds(now.at).saturating_sub(row.active_s);
        self.greet_entrant(now, conn, effects);
        let Some(nth) = self.mount_of(conn) else { return };
        let settings = self.served.mounts[nth].settings.clone();
        let Some(carrier) = self.carrier(conn) else { return };
        if let State::Probe { .. } = carrier.state {
            return self.fail(now, conn, "the probe took too long", effects);
        }
        if carrier.is_leaving {
            return self.abandon(now, conn, CloseCode::Normal, "", effects);
        }
        let is_alone = carrier.alone_since.is_some_and(|since| now.at.since(since) >= settings.connect_timeout);
        if carrier.pong_by.is_some_and(|by| now.at >= by) {
            return self.kernel.close_for(now, conn, CloseReason::Silent, effects);
        }
        if is_alone && self.has_namespaces(conn) {
            return self.kernel.close_for(now, conn, CloseReason::NoNamespace, effects);
        }
        if carrier.assembling.as_ref().is_some_and(|assembling| now.at >= assembling.until) {
            return self.fail(now, conn, "attachments did not come in time", effects);
        }
        if Duration::from_secs(inactive.into()) > self.kernel.limits.idle_time_max {
            return self.kernel.close_for(now, conn, CloseReason::Inactive, effects);
        }
        if carrier.pong_by.is_some() || now.at < carrier.ping_at {
            return;
        }
        let riders = carrier.riders.clone();
        let pong_by = now.at.after(settings.ping_timeout);
        if let Some(carrier) = self.carrier_mut(conn) {
            carrier.pong_by = Some(pong_by);
        }
        self.kernel.wheel.set(pong_by, Timer::Session(conn));
        // Not logged: what the server says unasked must not make a connection look busy.
        self.push_packet(now, conn, PING, "", Class::Latest { key: PING_KEY }, effects);
        riders.into_iter().for_each(|rider| self.kernel.watch_expiry(now, rider));
    }

    /// Its socket has gone, or it never had one and has ended.
    pub(super) fn end_session(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(state) = self.carrier(conn).map(|carrier| carrier.state) else { return };
        match state {
            State::Probe { .. } => return self.kernel.give_up_probe(conn),
            State::Polling { parked, probe } => {
                if let Some(poll) = parked {
                    effects.polls.push((poll, PollAnswer::Packets(CLOSE_PAYLOAD.to_vec())));
                }
                if let Some((probe, _)) = probe {
                    self.fail(now, probe, "the session has ended", effects);
                }
            }
            State::WebSocket => {}
        }
        // Who was sent away at once never was its client.
        if let Some(row) = self.kernel.conns.row(conn).filter(|row| row.flags.has(Flags::SERVED))
            && let Some(nth) = row.dialect.mount()
            && let By::Messages(endpoint) = &mut self.served.mounts[nth].by
        {
            endpoint.on_close(conn);
        }
    }
}

/// The packets of a session that ends without the last, which says so; what has none is refused, as every GET
/// after it will be. `is_all`: the last is among them.
fn without_close(mut packets: Vec<u8>, is_all: bool) -> PollAnswer {
    if is_all {
        packets.truncate(packets.len() - CLOSE_PAYLOAD.len());
    }
    match packets.pop() {
        None => PollAnswer::Refused,
        Some(last) => {
            // A separator where the last packet was taken.
            packets.extend((!is_all).then_some(last));
            PollAnswer::Packets(packets)
        }
    }
}
