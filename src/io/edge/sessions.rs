//! Engine.IO sessions as the edge has them: where they come from, who asks for them over HTTP, and what the
//! core wants done for them.
//! Invariant: whoever polls has an entry here from its opening until the core has heard that it is gone, or
//! a WebSocket took it over; and each of its GETs is answered once, or reported gone.

use super::{Edge, State};
use crate::admission::identity::Identity;
use crate::admission::names::User;
use crate::base::limits::POSTED_PER_TURN;
use crate::base::table::Key;
use crate::base::time::Now;
use crate::io::control::Held;
use crate::io::engine::answers::{self, Refusal};
use crate::io::engine::regulars::{self, Answer, Parked, Post, Posted, Stage, Written};
use crate::io::engine::requests::{Candidate, Of, WebSocket};
use crate::io::entrance::Peer;
use crate::io::readiness::Who;
use crate::io::socket;
use crate::io::stream::Stream;
use crate::kernel::carriers::{Entrant, PollAnswer, PollId, Transport};
use crate::kernel::ids::ConnId;
use crate::kernel::mounts::EngineSettings;
use crate::shard::{EngineOpening, Input, Spoken};
use crate::wire::codes::{CloseCode, ErrorCode, WireError};
use crate::wire::dialect::{DialectId, NATIVE_JSON};
use crate::wire::engine::Sid;
use crate::wire::engine::payload::{self, Part};
use crate::wire::http;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

/// A session that is polled, or whose address its socket does not tell.
struct Session {
    client: IpAddr,
    is_polled: bool,
    /// Who brings packets for it now.
    post: Option<Key>,
    /// Who is still being told an answer of it.
    told: Option<Key>,
}

#[derive(Default)]
pub(super) struct Sessions(HashMap<ConnId, Session>);

impl Sessions {
    /// Who waits for the core to take more of what it brought.
    pub fn post_of(&self, conn: ConnId) -> Option<Key> {
        if self.0.is_empty() { None } else { self.0.get(&conn)?.post }
    }

    /// Its socket has gone.
    pub fn forget(&mut self, conn: ConnId) {
        if !self.0.is_empty() {
            self.0.remove(&conn);
        }
    }
}

/// How far the core took in what a POST brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    Whole,
    Malformed,
    /// The session was over before any of it was heard.
    Ended,
    /// The core wants no more for now, and says when it does.
    Paused,
    /// There is more: others first.
    Again,
}

impl Edge {
    /// At which path Engine.IO is spoken, if it is at this one.
    pub fn mount_at(&self, path: &str) -> Option<DialectId> {
        self.state.borrow().shard.mount_at(path)
    }

    /// How it is spoken there.
    pub fn engine(&self, mount: DialectId) -> Arc<EngineSettings> {
        Arc::clone(self.state.borrow().shard.engine(mount))
    }

    /// The session of that name at a path, if it is open.
    pub fn session(&self, mount: DialectId, sid: &Sid) -> Option<(ConnId, Spoken)> {
        self.state.borrow().shard.session(mount, sid)
    }

    /// The stream of that name, if it is open.
    pub fn stream(&self, sid: &Sid) -> Option<ConnId> {
        self.state.borrow().shard.stream(sid)
    }

    /// Whether a user may speak for an open stream; `None`: it has no token.
    pub fn may_emit(&self, conn: ConnId, user: Option<&User>) -> Result<(), WireError> {
        self.state.borrow().shard.may_emit(conn, user)
    }

    /// What one message may have, bytes.
    pub fn message_bytes(&self) -> usize {
        self.state.borrow().shard.message_limits(NATIVE_JSON).message_bytes
    }

    /// Rooms that one request may name.
    pub fn rooms_per_request(&self) -> usize {
        self.state.borrow().shard.rooms_per_request()
    }

    /// What its client names a session by.
    pub fn sid_of(&self, conn: ConnId) -> Option<Sid> {
        self.state.borrow().shard.sid(conn)
    }

    /// Has a regular told of that has something or takes more.
    pub fn watch_regular(&self, socket: &Stream, key: Key, is_watched: bool) -> io::Result<()> {
        let readiness = &self.state.borrow().readiness;
        match is_watched {
            true => readiness.rename(socket, Who::Regular(key)),
            false => readiness.watch(socket, Who::Regular(key)),
        }
    }

    /// Opens a session that polls; `None`: the shard is full.
    pub fn open_polled(&self, candidate: Candidate) -> Option<ConnId> {
        self.within(|state, now| {
            let Candidate { mount, identity, refused, client, held } = candidate;
            let secret = secret()?;
            let conn = state.shard.reserve()?;
            let session = Session { client, is_polled: true, post: None, told: None };
            state.sessions.0.insert(conn, session);
            state.rows.hold(conn, held);
            self.counters.borrow_mut().sessions_polling_now += 1;
            self.came_in();
            let opening = EngineOpening {
                conn,
                dialect: mount,
                transport: Transport::Polling,
                secret,
                identity,
                refused,
                greeting: Box::default(),
            };
            state.timing.step(&mut state.shard, now, Input::OpenEngine(Box::new(opening)), &mut state.effects);
            Some(conn)
        })
    }

    /// Takes a WebSocket into the core, or gives it back: the shard is full. `peer`: whose socket it is;
    /// `is_watched`: somebody else had it.
    pub fn open_websocket(
        &self,
        socket: Stream,
        peer: Peer,
        is_watched: bool,
        websocket: WebSocket,
        rest: Vec<u8>,
    ) -> Result<(), Stream> {
        self.within(|state, now| {
            let WebSocket { mut answer, dialect, of } = websocket;
            let Some(secret) = secret() else { return Err(socket) };
            let Some(conn) = self.reserve(state, now, &socket, is_watched) else { return Err(socket) };
            let (transport, identity, refused, held) = match of {
                Of::Session(Candidate { identity, refused, client, held, .. }) => {
                    if client != peer.address || peer.is_named {
                        let session = Session { client, is_polled: false, post: None, told: None };
                        state.sessions.0.insert(conn, session);
                    }
                    (Transport::WebSocket, identity, refused, held)
                }
                Of::Probe(of) => (Transport::Probe { of }, Identity::guest(), None, Held::default()),
            };
            if let Some(name) =
                state.shard.engine(dialect).cookie.as_ref().filter(|_| transport == Transport::WebSocket)
            {
                let sid = Sid { shard: self.id.0, slot: conn.0.slot, generation: conn.0.generation, secret };
                // Before the blank line.
                answer.truncate(answer.len() - 2);
                http::put_header(&mut answer, "Set-Cookie", &answers::cookie(name, &sid));
                answer.extend_from_slice(b"\r\n");
            }
            self.seat(state, conn, socket, (dialect, rest), (None, held));
            let greeting = answer.into();
            let opening = EngineOpening { conn, dialect, transport, secret, identity, refused, greeting };
            state.timing.step(&mut state.shard, now, Input::OpenEngine(Box::new(opening)), &mut state.effects);
            Ok(())
        })
    }

    /// Gives the core a GET that has a place among the regulars. False: an answer of the session is still
    /// being written to somebody else, so nobody who keeps to the protocol asks.
    pub fn poll(&self, conn: ConnId, key: Key) -> bool {
        self.within(|state, now| {
            let session = state.sessions.0.get(&conn);
            let is_alone = session.is_none_or(|session| session.told.is_none());
            let input = match is_alone {
                true => Input::Poll { conn, poll: regulars::poll_of(key) },
                false => two_at_a_time(conn),
            };
            self.counters.borrow_mut().engine_polls += 1;
            state.timing.step(&mut state.shard, now, input, &mut state.effects);
            is_alone
        })
    }

    /// Notes who brings packets for a session. False: somebody does already, and the session ends.
    pub fn begin_post(&self, conn: ConnId, key: Key) -> bool {
        self.within(|state, now| {
            let is_alone = match state.sessions.0.get_mut(&conn) {
                Some(session) if session.post.is_none() => {
                    session.post = Some(key);
                    true
                }
                _ => false,
            };
            if !is_alone {
                state.timing.step(&mut state.shard, now, two_at_a_time(conn), &mut state.effects);
            }
            is_alone
        })
    }

    /// What was under way for a session is done, or will never be.
    pub fn end_request(&self, conn: ConnId, key: Key) {
        if let Some(session) = self.state.borrow_mut().sessions.0.get_mut(&conn) {
            session.post = session.post.filter(|post| *post != key);
            session.told = session.told.filter(|told| *told != key);
        }
    }

    /// The session is in doubt: something of it was lost on the way.
    pub fn lose(&self, conn: ConnId, reason: &'static str) {
        self.step(Input::Failed { conn, code: CloseCode::GoingAway, reason });
    }

    /// Gives the core what a POST brought, packet by packet, a bounded number.
    pub fn hear_posted(&self, key: Key) -> Option<Heard> {
        self.within(|state, now| {
            // Until here, so that what the core says of it finds the regular as it is.
            let mut regulars = self.regulars.borrow_mut();
            let posted = |regular: &mut regulars::Regular| match &mut regular.stage {
                Stage::IsHeard(posted) => {
                    Some(std::mem::take(&mut posted.body)).map(|body| (posted.conn, posted.at, body))
                }
                _ => None,
            };
            let (conn, mut at, body) = regulars.with(key, now.at, posted)??;
            let heard = self.feed(state, now, conn, &body, &mut at);
            let _ = regulars.with(key, now.at, |regular| {
                if let Stage::IsHeard(posted) = &mut regular.stage {
                    (posted.body, posted.at) = (body, at);
                }
            });
            Some(heard)
        })
    }

    fn feed(&self, state: &mut State, now: Now, conn: ConnId, body: &[u8], at: &mut usize) -> Heard {
        let State { shard, effects, timing, .. } = state;
        let mut parts = payload::parts(&body[*at..]);
        for taken in 0.. {
            if taken > 0 && parts.rest().is_empty() {
                break;
            }
            if !shard.is_reading(conn) {
                return match shard.is_paused(conn) {
                    true => Heard::Paused,
                    // Once it has ended nobody wants the rest; that some of it came is true.
                    false if *at > 0 => Heard::Whole,
                    false => Heard::Ended,
                };
            }
            if taken == POSTED_PER_TURN {
                return Heard::Again;
            }
            let part = parts.next();
            let input = match &part {
                None => break,
                Some(Ok(Part::Text(text))) => Input::Text { conn, message: text.as_bytes() },
                Some(Ok(Part::Binary(message))) => Input::Binary { conn, message },
                Some(Err(malformed)) => {
                    let failed = Input::Failed { conn, code: CloseCode::BadRequest, reason: malformed.reason };
                    timing.step(shard, now, failed, effects);
                    return Heard::Malformed;
                }
            };
            timing.step(shard, now, input, effects);
            *at = body.len() - parts.rest().len();
        }
        // Who says goodbye hears of it once its GET has: it is under way as often as not.
        if shard.is_leaving(conn) {
            return Heard::Paused;
        }
        Heard::Whole
    }

    /// Counts what was written to a regular.
    pub fn count_write(&self, bytes: usize) {
        self.count(|counters| {
            counters.writes += 1;
            counters.bytes_out += bytes as u64;
        });
    }

    /// Carries out what the core wants done for sessions, and whatever that brings.
    pub(super) fn serve_sessions(&self, state: &mut State, now: Now) {
        loop {
            let State { shard, effects, rows, sessions, .. } = &mut *state;
            if let Some((probe, conn)) = effects.merged.pop() {
                self.merge(state, probe, conn);
            } else if let Some((poll, answer)) = effects.polls.pop() {
                self.answer_poll(state, now, poll, answer);
            } else if let Some(conn) = effects.failures.pop() {
                self.count_failure(state, now, conn);
            } else if let Some(conn) = effects.left.pop() {
                // Before those who come in: one of them may have its slot.
                rows.let_go(conn);
            } else if let Some(entrant) = effects.entrants.pop() {
                let (conn, carrier) = (entrant.conn, entrant.carrier);
                let refused = self.admit(state, now, entrant);
                state.shard.step(now, Input::Entered { conn, carrier, refused }, &mut state.effects);
            } else if let Some(conn) = effects.ended.pop() {
                if let Some(session) = sessions.0.remove(&conn) {
                    self.counters.borrow_mut().sessions_polling_now -= u64::from(session.is_polled);
                    rows.let_go(conn);
                    if let Some(post) = session.post {
                        self.regulars.borrow_mut().list(post);
                        self.reading.raise();
                    }
                    shard.step(now, Input::Gone { conn }, effects);
                }
            } else {
                break;
            }
        }
    }

    /// The socket of `probe` is the session's from now on.
    fn merge(&self, state: &mut State, probe: ConnId, conn: ConnId) {
        let State { rows, sessions, readiness, unread, .. } = state;
        let Some(row) = rows.rename(probe, conn) else { return };
        // What the socket has already is told once more.
        if let Err(error) = readiness.rename(&row.socket, Who::Conn(conn)) {
            log::warn!("shard {}: a socket cannot be watched: {error}", self.id.0);
        }
        row.leave_queue();
        row.queue(unread);
        self.reading.raise();
        if let Some(session) = sessions.0.get_mut(&conn) {
            self.counters.borrow_mut().sessions_polling_now -= u64::from(std::mem::take(&mut session.is_polled));
            let is_known = socket::peer(row.socket.as_raw_fd()).is_ok_and(|peer| peer == session.client);
            if is_known && session.post.is_none() && session.told.is_none() {
                sessions.0.remove(&conn);
            }
        }
    }

    fn answer_poll(&self, state: &mut State, now: Now, poll: PollId, answer: PollAnswer) {
        let key = regulars::key_of(poll);
        let mut regulars = self.regulars.borrow_mut();
        let told = regulars.with(key, now.at, |regular| {
            let Stage::Waits(parked) = &regular.stage else { return None };
            let Parked { conn, manner, .. } = &**parked;
            let conn = *conn;
            let (head, body, keeps) = match &answer {
                PollAnswer::Packets(packets) => (manner.payload(packets.len()), &packets[..], manner.keeps),
                PollAnswer::Refused => (manner.refused(Refusal::Request), &b""[..], false),
                PollAnswer::Reply { refused, body } => (manner.reply(*refused, body.len()), &body[..], manner.keeps),
            };
            // A stream lives on without its requests.
            let conn = (!parked.is_emit).then_some(conn);
            let (written, took) = regular.tell(Answer { head, body, keeps, conn });
            self.count_write(took);
            Some((conn, written, regular.has_more()))
        });
        let Some(Some((conn, written, has_more))) = told else { return };
        if written == Written::Partly {
            self.count(|counters| counters.writes_short += 1);
            if let Some(session) = conn.and_then(|conn| state.sessions.0.get_mut(&conn)) {
                session.told = Some(key);
            }
        }
        if has_more {
            regulars.list(key);
            self.reading.raise();
        }
    }

    fn address_of(&self, state: &mut State, conn: ConnId) -> Option<IpAddr> {
        if let Some(session) = state.sessions.0.get(&conn) {
            return Some(session.client);
        }
        socket::peer(state.rows.get_mut(conn)?.socket.as_raw_fd()).ok()
    }

    fn count_failure(&self, state: &mut State, now: Now, conn: ConnId) {
        let entrance = self.entrance.borrow();
        let Some(rate) = entrance.failures else { return };
        if let Some(address) = self.address_of(state, conn).filter(|address| entrance.is_limited(*address)) {
            self.callers.fail(self.callers.address(address, now.at), rate, now.at);
        }
    }

    /// Looks at the limits of somebody's user, and counts it where they allow it.
    fn admit(&self, state: &mut State, now: Now, entrant: Entrant) -> Option<WireError> {
        let Entrant { conn, carrier, identity } = entrant;
        let entrance = self.entrance.borrow();
        let refuse = |reason, message: &'static str, retry: Duration| {
            self.count(|counters| *counters.refused.entry(reason).or_default() += 1);
            // Rounded up, so that whoever keeps to it is not too early.
            let retry_after_ms = Some(retry.as_millis() as u64 + 1);
            Some(WireError { code: ErrorCode::RateLimited, message: message.into(), retry_after_ms, limit: None })
        };
        if !identity.is_guest() {
            if let Some(rate) = entrance.attempts_per_user {
                let caller = self.callers.user(identity.tenant(), &identity.user, now.at);
                if let Err(retry) = self.callers.attempt(caller, rate, now.at) {
                    let message = "this user connects too often (limits.attempts_per_user)";
                    return refuse("attempts_per_user", message, retry);
                }
            }
            if let Some(most) = entrance.conns_per_user {
                let user = self.users.enter(identity.tenant(), &identity.user, most);
                if user.is_none() {
                    let message =
                        "this user has as many connections as it may (limits.conns_per_user); close one first";
                    return refuse("conns_per_user", message, crate::io::routes::CONNS_RETRY);
                }
                state.rows.hold(conn, Held { user, ..Held::default() });
            }
        }
        if self.audit.is_on()
            && let Some(address) = self.address_of(state, carrier)
        {
            self.audit.connected(now, conn, &identity, address);
        }
        None
    }
}

impl Posted {
    /// A body that has come whole.
    pub fn of(post: Post, ahead: Vec<u8>) -> Posted {
        let Post { conn, manner, body } = post;
        Posted { conn, manner, body: body.into_bytes(), at: 0, ahead }
    }
}

fn two_at_a_time(conn: ConnId) -> Input<'static> {
    Input::Failed { conn, code: CloseCode::BadRequest, reason: "two requests of one kind at a time" }
}

/// What nobody can guess; `None`: the system has none.
pub fn secret() -> Option<[u8; 12]> {
    let mut random = [0; 12];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    Some(random)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::callers::Rate;
    use crate::io::edge::sample::{ENGINE, counters, edge};
    use crate::io::egress::Direct;
    use crate::io::entrance::Entrance;
    use crate::io::runtime::Driver;
    use crate::io::{engine, handshake};
    use std::io::Read;
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixStream;

    const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn ask(edge: &Edge, target: &str, lines: &str) -> (UnixStream, String) {
        ask_behind(edge, "", target, lines)
    }

    fn ask_behind(edge: &Edge, header: &str, target: &str, lines: &str) -> (UnixStream, String) {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let request = format!("{header}GET {ENGINE}?EIO=4&{target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
        socket::send(peer.as_raw_fd(), request.as_bytes()).unwrap();
        handshake::begin(edge, ours.into(), Ipv4Addr::LOCALHOST.into());
        turn(edge);
        let mut answer = Vec::new();
        let _ = peer.read_to_end(&mut answer);
        (peer, String::from_utf8_lossy(&answer).into_owned())
    }

    fn say(edge: &Edge, peer: &UnixStream, text: &str) {
        let frame = [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat();
        socket::send(peer.as_raw_fd(), &frame).unwrap();
        turn(edge);
    }

    fn turn(edge: &Edge) {
        let mut egress = Direct::default();
        edge.look();
        for _ in 0..2 {
            while edge.read() | handshake::hear_some(edge) | engine::hear_some(edge) | edge.flush(&mut egress) {}
        }
    }

    #[test]
    fn a_session_that_a_websocket_took_over_keeps_nothing_but_its_row() {
        let edge = edge(Driver::Epoll);
        let (_peer, open) = ask(&edge, "transport=polling", "");
        let sid = &open.split_once(r#"0{"sid":""#).unwrap_or_else(|| panic!("{open}")).1[..28];
        assert_eq!(edge.state.borrow().sessions.0.len(), 1);
        let (probe, switched) = ask(&edge, &format!("transport=websocket&sid={sid}"), UPGRADE);
        assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
        say(&edge, &probe, "2probe");
        say(&edge, &probe, "5");
        assert!(edge.state.borrow().sessions.0.is_empty());
        assert_eq!((counters(&edge).sessions_polling_now, counters(&edge).connections_now), (0, 1));
        let (_native, _) = ask(&edge, "transport=websocket", UPGRADE);
        assert!(edge.state.borrow().sessions.0.is_empty());
        drop(probe);
        turn(&edge);
        assert_eq!((counters(&edge).connections_now, edge.report().core.connections), (1, 1));
    }

    #[test]
    fn failures_count_to_the_address_that_the_proxy_named() {
        let edge = edge(Driver::Epoll);
        let proxies = ["127.0.0.1/32"].iter().map(|text| crate::admission::networks::Network::parse(text).unwrap());
        let rate = Rate { number: 1, per: Duration::from_secs(3_600) };
        let entrance = Entrance { proxies: proxies.collect(), failures: Some(rate), ..Entrance::default() };
        *edge.entrance.borrow_mut() = Arc::new(entrance.clone());
        let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
        let lines = from("192.0.2.7") + UPGRADE;
        let (_peer, switched) = ask(&edge, "transport=websocket", &lines);
        assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
        let conn = *edge.state.borrow().sessions.0.keys().next().expect("its socket does not tell whose it is");
        edge.within(|state, _| state.effects.failures.push(conn));
        let again = |address: &str| ask(&edge, "transport=polling", &from(address)).1;
        assert!(again("192.0.2.7").starts_with("HTTP/1.1 429 "));
        assert!(again("192.0.2.8").starts_with("HTTP/1.1 200 "));
        *edge.entrance.borrow_mut() = Arc::new(Entrance { proxy_protocol: true, ..entrance });
        edge.state.borrow_mut().sessions.0.clear();
        let named = |address: &str| format!("PROXY TCP4 {address} 127.0.0.1 4711 443\r\n");
        let (_peer, switched) = ask_behind(&edge, &named("192.0.2.9"), "transport=websocket", UPGRADE);
        assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
        let conn = *edge.state.borrow().sessions.0.keys().next().expect("its socket does not tell whose it is");
        edge.within(|state, _| state.effects.failures.push(conn));
        let again = |address: &str| ask_behind(&edge, &named(address), "transport=polling", "").1;
        assert!(again("192.0.2.9").starts_with("HTTP/1.1 429 "));
        assert!(again("192.0.2.10").starts_with("HTTP/1.1 200 "));
    }
}
