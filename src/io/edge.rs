//! The edge of one shard: the core, its lanes, its sockets, and what all tasks of the thread share.
//! Invariant: the state is borrowed within one call and never across an `await`, so no task ever
//! finds it taken; and effects are carried out before the borrow ends.

use crate::admission::identity::Identity;
use crate::admission::token::Verifier;
use crate::base::limits::{
    DISCARD_BYTES_MAX, MAILS_PER_READ, MAILS_PER_RING, READ_BYTES_PER_TURN, READS_PER_TURN, WRITE_BYTES_MAX,
};
use crate::base::time::{Instant, Now};
use crate::io::clock::Clock;
use crate::io::control::{Controls, Door};
use crate::io::counters::{Counters, Report};
use crate::io::crowd::{Counted, Crowd};
use crate::io::dirty::Dirty;
use crate::io::egress::{Egress, Sent};
use crate::io::joined::Joined;
use crate::io::lanes::Lanes;
use crate::io::readiness::Readiness;
use crate::io::rows::{Received, Row, Rows, Standing};
use crate::io::runtime::Driver;
use crate::io::signal::Signal;
use crate::io::socket::{self, PIECES_MAX, Shut};
use crate::io::turn::Turn;
use crate::io::waiting::Waiting;
use crate::kernel::effects::Effects;
use crate::kernel::ids::{ConnId, ShardId};
use crate::kernel::mail::Mail;
use crate::kernel::placement::Placement;
use crate::shard::{Input, Opening, Shard};
use crate::wire::assembler::{Assembler, Event};
use crate::wire::dialect::DialectId;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// The tick comes at least this often: deadlines set meanwhile are late by no more.
const TICK_BUSY: Duration = Duration::from_millis(100);
const TICK_IDLE: Duration = Duration::from_secs(1);
/// And not more often than the core's wheel turns.
const TICK_MIN: Duration = crate::base::wheel::TICK;

pub struct Edge {
    pub id: ShardId,
    pub driver: Driver,
    pub clock: Clock,
    pub placement: Placement,
    pub doors: Arc<[Door]>,
    pub crowd: Crowd,
    pub verifier: Verifier,
    pub handshake_time: Duration,
    pub controls: Controls,
    /// Something waits to be read.
    pub reading: Signal,
    /// Something waits to be written or rung.
    pub flush: Signal,
    pub turn: Turn,
    pub stop: Signal,
    pub draining: Cell<bool>,
    /// The listener's descriptor while it listens.
    pub listener: Cell<Option<RawFd>>,
    pub waiting: RefCell<Waiting>,
    pub counters: RefCell<Counters>,
    /// What a socket is read into: nobody keeps it across an `await`.
    input: RefCell<Box<[u8]>>,
    state: RefCell<State>,
}

/// What goes into an [`Edge`].
pub struct Parts {
    pub id: ShardId,
    pub driver: Driver,
    pub clock: Clock,
    pub placement: Placement,
    pub doors: Arc<[Door]>,
    pub crowd: Crowd,
    pub verifier: Verifier,
    pub handshake_time: Duration,
    pub controls: Controls,
    pub readiness: Readiness,
    pub lanes: Lanes<Mail>,
    pub shard: Shard,
}

struct State {
    shard: Shard,
    effects: Effects,
    lanes: Lanes<Mail>,
    readiness: Readiness,
    rows: Rows,
    /// Connections that may have something to read, the longest waiting first.
    unread: VecDeque<ConnId>,
    /// Connections to write to.
    dirty: Dirty,
    /// Connections of the present flush that have more than one write names.
    again: Vec<ConnId>,
    /// By peer: mails since its bell was last rung.
    to_ring: Vec<u32>,
    /// Peers whose lanes were said to starve, a bit each: saying it again would wake for nothing.
    starving: u64,
    sent: Vec<Sent>,
    /// Keeps the memory of the list of pieces between writes.
    pieces: Vec<&'static [u8]>,
    joined: Joined,
}

/// How far a read brought its connection.
enum Fed {
    /// All bytes were taken.
    All,
    /// The core wants no more for now: it has them up to this.
    Paused(usize),
    /// The connection is closing: what is left counts no more.
    Ending,
}

impl Edge {
    pub fn new(parts: Parts) -> Rc<Edge> {
        Rc::new(Edge {
            id: parts.id,
            driver: parts.driver,
            clock: parts.clock,
            placement: parts.placement,
            doors: parts.doors,
            crowd: parts.crowd,
            verifier: parts.verifier,
            handshake_time: parts.handshake_time,
            controls: parts.controls,
            reading: Signal::default(),
            flush: Signal::default(),
            turn: Turn::default(),
            stop: Signal::default(),
            draining: Cell::new(false),
            listener: Cell::new(None),
            waiting: RefCell::default(),
            counters: RefCell::default(),
            input: RefCell::new(vec![0; READ_BYTES_PER_TURN].into()),
            state: RefCell::new(State {
                shard: parts.shard,
                effects: Effects::default(),
                lanes: parts.lanes,
                readiness: parts.readiness,
                rows: Rows::default(),
                unread: VecDeque::new(),
                dirty: Dirty::default(),
                again: Vec::new(),
                to_ring: vec![0; parts.placement.shards().into()],
                starving: 0,
                sent: Vec::new(),
                pieces: Vec::new(),
                joined: Joined::default(),
            }),
        })
    }

    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.borrow_mut());
    }

    pub fn refuse(&self, reason: &'static str) {
        self.count(|counters| *counters.refused.entry(reason).or_default() += 1);
    }

    /// The buffer that all sockets of this shard are read into, for as long as `work` runs.
    pub fn with_input<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        work(&mut self.input.borrow_mut())
    }

    pub fn step(&self, input: Input<'_>) {
        self.within(|state, now| state.shard.step(now, input, &mut state.effects));
    }

    /// Runs steps and carries out what they ask for.
    fn within<T>(&self, work: impl FnOnce(&mut State, Now) -> T) -> T {
        let state = &mut *self.state.borrow_mut();
        let now = self.clock.now();
        let done = work(state, now);
        self.carry_out(state);
        self.top_up(state, now);
        done
    }

    /// Tells the core of room in the lanes before it runs out, so that a long turn is not stopped
    /// by what its peers have long taken.
    fn top_up(&self, state: &mut State, now: Now) {
        for peer in state.lanes.peers() {
            let believed = state.shard.credit(peer) as usize;
            if believed >= state.lanes.entries() / 2 {
                continue;
            }
            let free = state.lanes.free(peer);
            if free > believed {
                state.starving &= !(1 << peer.index());
                state.shard.step(now, Input::Credit { peer, free: free as u32 }, &mut state.effects);
                self.carry_out(state);
            }
        }
    }

    fn carry_out(&self, state: &mut State) {
        let State { shard, effects, lanes, rows, unread, dirty, to_ring, starving, .. } = state;
        if !effects.mail.is_empty() {
            self.counters.borrow_mut().mails_out += effects.mail.len() as u64;
            for (peer, mail) in effects.mail.drain(..) {
                lanes.send(peer, mail);
                to_ring[peer.index()] += 1;
                if to_ring[peer.index()] == MAILS_PER_RING {
                    // A long turn does not keep its peers asleep.
                    self.ring(peer, &mut to_ring[peer.index()]);
                }
            }
        }
        dirty.list(effects);
        let queued_before = unread.len();
        for conn in effects.resumed.drain(..) {
            if let Some(row) = rows.get_mut(conn) {
                row.queue(unread);
            }
        }
        for conn in effects.closing.drain(..) {
            if let Some(row) = rows.get_mut(conn) {
                row.standing = Standing::Closing;
                row.queue(unread);
            }
        }
        for conn in effects.reset.drain(..) {
            if let Some(row) = rows.get_mut(conn) {
                row.standing = Standing::Reset;
                self.counters.borrow_mut().resets += 1;
                socket::reset_on_close(&row.socket);
                row.mute(Shut::Both);
                row.queue(unread);
            }
        }
        if unread.len() > queued_before {
            self.reading.raise();
        }
        let is_starved_anew = |peer: ShardId| *starving & 1 << peer.index() == 0 && shard.is_starved(peer);
        if !dirty.is_empty() || to_ring.iter().any(|mails| *mails > 0) || lanes.peers().any(is_starved_anew) {
            self.flush.raise();
        }
    }

    /// Takes a socket into the core, or gives it back: the shard is full. `answer` is to be sent first,
    /// `rest` was read from it.
    pub fn open(
        &self,
        socket: OwnedFd,
        identity: Identity,
        dialect: DialectId,
        counted: Option<Counted>,
        answer: &[u8],
        rest: Vec<u8>,
    ) -> Result<ConnId, OwnedFd> {
        self.within(|state, now| {
            let Some(conn) = state.shard.reserve() else { return Err(socket) };
            if let Err(error) = state.readiness.watch(&socket, conn) {
                log::warn!("shard {}: a socket cannot be watched: {error}", self.id.0);
                state.shard.step(now, Input::Gone { conn }, &mut state.effects);
                return Err(socket);
            }
            let mut row = Row::new(conn, socket, counted, rest);
            if row.has_more() {
                row.queue(&mut state.unread);
                self.reading.raise();
            }
            state.rows.insert(row);
            let mut counters = self.counters.borrow_mut();
            counters.opened += 1;
            counters.connections_now += 1;
            drop(counters);
            let opening = Opening { conn, identity, dialect, greeting: answer.into() };
            state.shard.step(now, Input::Open(Box::new(opening)), &mut state.effects);
            Ok(conn)
        })
    }

    /// The socket has ended: closes it.
    fn gone(&self, conn: ConnId) {
        self.within(|state, now| {
            if state.rows.remove(conn).is_none() {
                return;
            }
            let mut counters = self.counters.borrow_mut();
            counters.closed += 1;
            counters.connections_now -= 1;
            drop(counters);
            state.shard.step(now, Input::Gone { conn }, &mut state.effects);
        });
    }

    /// A descriptor that is readable while [`Edge::look`] would find something.
    pub fn readiness(&self) -> io::Result<OwnedFd> {
        self.state.borrow().readiness.handle()
    }

    /// Notes which sockets have something to read or take bytes again.
    pub fn look(&self) {
        self.count(|counters| counters.looks += 1);
        self.within(|state, now| {
            let State { shard, effects, readiness, rows, unread, .. } = state;
            readiness.look(|ready| {
                let Some(row) = rows.get_mut(ready.conn) else { return };
                if ready.is_readable {
                    row.is_readable = true;
                    row.is_ended |= ready.is_ended;
                    row.queue(unread);
                }
                if ready.is_writable && row.is_blocked {
                    row.is_blocked = false;
                    shard.step(now, Input::Writable { conn: ready.conn }, effects);
                }
            });
            if !unread.is_empty() {
                self.reading.raise();
            }
        });
    }

    /// Reads the connections whose turn it is, each once and a bounded number. Says whether more wait.
    pub fn read(&self) -> bool {
        // One that has more waits behind the others, and for the flush of what it made to write.
        let due = self.state.borrow().unread.len().min(READS_PER_TURN);
        for _ in 0..due {
            let Some(conn) = self.state.borrow_mut().unread.pop_front() else { break };
            // Work that other shards have begun goes before work that clients begin: else a turn of
            // many reads fills the lanes faster than it empties them.
            self.take_mail(MAILS_PER_READ);
            if self.read_from(conn) == Standing::Reset {
                self.gone(conn);
            }
        }
        !self.state.borrow().unread.is_empty()
    }

    /// One read and what it brings. Says how the connection stands then.
    fn read_from(&self, conn: ConnId) -> Standing {
        let input = &mut **self.input.borrow_mut();
        self.within(|state, now| {
            let State { shard, effects, rows, unread, .. } = state;
            let Some(row) = rows.get_mut(conn) else { return Standing::Closing };
            row.leave_queue();
            match row.standing {
                Standing::Open if !shard.is_reading(conn) => {
                    // The core will say that it goes on.
                    return Standing::Open;
                }
                Standing::Open => {
                    let mut under_way = row.resume();
                    let mut held = std::mem::take(&mut under_way.held);
                    let bytes = match held.is_empty() {
                        false => &mut held[..],
                        true => match row.receive(input) {
                            Received::Bytes(got) => {
                                let mut counters = self.counters.borrow_mut();
                                counters.reads += 1;
                                counters.bytes_in += got as u64;
                                &mut input[..got]
                            }
                            Received::Nothing => &mut [],
                            Received::End => return Standing::Reset,
                        },
                    };
                    match feed(shard, now, conn, &mut under_way.assembler, bytes, effects) {
                        Fed::All => {}
                        Fed::Paused(at) => under_way.held = bytes[at..].to_vec(),
                        Fed::Ending => row.standing = Standing::Closing,
                    }
                    if row.standing == Standing::Open {
                        row.keep(under_way);
                    }
                }
                Standing::Closing => {
                    // The core bounds the time, with a reset; a peer that sends on and on is not
                    // waited for.
                    drop(row.resume());
                    match row.receive(input) {
                        Received::Bytes(got) => row.discarded += got as u32,
                        Received::Nothing => {}
                        Received::End => return Standing::Reset,
                    }
                    if row.discarded as usize >= DISCARD_BYTES_MAX {
                        return Standing::Reset;
                    }
                }
                Standing::Reset => return Standing::Reset,
            }
            // One that waits for the core is queued when it goes on.
            if row.has_more() && (row.standing == Standing::Closing || shard.is_reading(conn)) {
                row.queue(unread);
            }
            row.standing
        })
    }

    /// Rings the bells of peers that got mail, and says so where something waits for room in a
    /// lane. At the end of each turn.
    pub fn exchange(&self) {
        self.within(|state, now| {
            let State { shard, effects, lanes, to_ring, starving, .. } = state;
            for peer in lanes.peers() {
                if to_ring[peer.index()] > 0 {
                    self.ring(peer, &mut to_ring[peer.index()]);
                }
                if !shard.is_starved(peer) {
                    continue;
                }
                *starving |= 1 << peer.index();
                let free = lanes.starve(peer);
                if free > shard.credit(peer) as usize {
                    *starving &= !(1 << peer.index());
                    shard.step(now, Input::Credit { peer, free: free as u32 }, effects);
                }
            }
        });
    }

    fn ring(&self, peer: ShardId, mails: &mut u32) {
        *mails = 0;
        if self.doors[peer.index()].bell().ring() {
            self.counters.borrow_mut().bells += 1;
        }
    }

    /// Takes mail of each lane, at most `mails_max` each. Says whether there may be more.
    pub fn take_mail(&self, mails_max: usize) -> bool {
        if !self.state.borrow().lanes.has_mail() {
            return false;
        }
        self.within(|state, now| {
            let State { shard, effects, lanes, .. } = state;
            let mut is_more = false;
            for peer in lanes.peers() {
                let mut taken = 0;
                while taken < mails_max
                    && let Some(mail) = lanes.take(peer)
                {
                    shard.step(now, Input::Mail { from: peer, mail }, effects);
                    taken += 1;
                }
                if taken == 0 {
                    continue;
                }
                is_more |= taken == mails_max;
                let rang = lanes.relieve(peer) && self.doors[peer.index()].bell().ring();
                let mut counters = self.counters.borrow_mut();
                counters.mails_in += taken as u64;
                counters.bells += u64::from(rang);
            }
            is_more
        })
    }

    /// Whether something came from another thread that nobody has looked at.
    pub fn has_arrivals(&self) -> bool {
        let State { shard, lanes, .. } = &*self.state.borrow();
        let is_relieved = |peer: ShardId| shard.is_starved(peer) && lanes.free(peer) > shard.credit(peer) as usize;
        lanes.has_mail() || !self.controls.is_empty() || lanes.peers().any(is_relieved)
    }

    /// Writes to the connections whose turn it is, a bounded number. Says whether more wait.
    pub fn flush(&self, egress: &mut impl Egress) -> bool {
        self.within(|state, now| {
            let State { shard, effects, rows, dirty, again, sent, pieces, joined, .. } = state;
            for conn in dirty.next_flush() {
                // Listed twice at most: by the core, and for more than one write takes.
                let is_ready = |row: &&mut Row| !row.is_mute && !row.is_blocked && !row.is_offered;
                let Some(row) = rows.get_mut(conn).filter(is_ready) else { continue };
                let mut named = recycle(std::mem::take(pieces));
                let bytes = shard.gather(conn, &mut named, WRITE_BYTES_MAX);
                if bytes > 0 {
                    row.is_offered = true;
                    again.extend((bytes >= WRITE_BYTES_MAX || named.len() > PIECES_MAX).then_some(conn));
                    let joined = joined.join(&named);
                    let pieces = joined.as_ref().map_or(&named[..], std::slice::from_ref);
                    // SAFETY: the pieces are parts of frames in the connection's outbox, which keeps
                    // them, where they are and as they are, until it is told that they were written:
                    // after `settle`, below. What was joined stays until `clear`, there too.
                    unsafe { egress.offer(conn, row.socket.as_raw_fd(), pieces) };
                }
                *pieces = recycle(named);
            }
            egress.settle(sent);
            joined.clear();
            again.drain(..).for_each(|conn| dirty.list_again(conn));
            let mut counters = self.counters.borrow_mut();
            for Sent { conn, asked, result } in sent.drain(..) {
                let Some(row) = rows.get_mut(conn) else { continue };
                row.is_offered = false;
                counters.writes += 1;
                let took = match result {
                    Ok(took) => took,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                    Err(_) => {
                        // The peer has gone; the reader finds the end in its socket.
                        row.mute(Shut::Both);
                        continue;
                    }
                };
                counters.bytes_out += took as u64;
                if took > 0 {
                    shard.step(now, Input::Wrote { conn, bytes: took }, effects);
                }
                if took < asked {
                    counters.writes_short += 1;
                    row.is_blocked = true;
                    shard.step(now, Input::Blocked { conn }, effects);
                } else if row.standing == Standing::Closing && shard.is_finished(conn) {
                    row.mute(Shut::Sending);
                }
            }
            drop(counters);
            !dirty.is_empty()
        })
    }

    /// How long the tick may sleep.
    pub fn until_tick(&self) -> Duration {
        let next = self.state.borrow().shard.next_deadline();
        let longest = match self.counters.borrow().connections_now {
            0 if self.waiting.borrow().is_empty() => TICK_IDLE,
            _ => TICK_BUSY,
        };
        let until = match next {
            Instant::NEVER => longest,
            at => at.since(self.clock.now().at),
        };
        until.clamp(TICK_MIN, longest)
    }

    /// No new connections; the core closes the old ones, spread over `over`.
    pub fn drain(&self, over: Duration) {
        self.draining.set(true);
        if let Some(listener) = self.listener.take() {
            // Wakes the task that waits for it, which closes it.
            socket::shut(listener, Shut::Both);
        }
        self.step(Input::Drain { over });
    }

    pub fn report(&self) -> Report {
        let mut edge = self.counters.borrow().clone();
        edge.handshakes_now = self.waiting.borrow().len() as u64;
        Report { shard: self.id.0, edge, core: self.state.borrow().shard.snapshot() }
    }
}

/// Gives the core the events of `bytes`, until it wants no more.
fn feed(
    shard: &mut Shard,
    now: Now,
    conn: ConnId,
    assembler: &mut Assembler,
    bytes: &mut [u8],
    effects: &mut Effects,
) -> Fed {
    let mut at = 0;
    loop {
        if !shard.is_reading(conn) {
            return if at == bytes.len() { Fed::All } else { Fed::Paused(at) };
        }
        let event = match assembler.next(bytes, &mut at) {
            Ok(Some(event)) => event,
            Ok(None) => return Fed::All,
            Err(error) => {
                let failed = Input::Failed { conn, code: error.code, reason: error.reason };
                shard.step(now, failed, effects);
                return Fed::Ending;
            }
        };
        let step = match event {
            Event::Text(message) => Input::Text { conn, message },
            Event::Binary(_) => Input::Binary { conn },
            Event::Ping(payload) => Input::Ping { conn, payload },
            Event::Pong(_) => Input::Pong { conn },
            Event::Close { code, .. } => {
                shard.step(now, Input::PeerClose { conn, code }, effects);
                return Fed::Ending;
            }
        };
        shard.step(now, step, effects);
    }
}

/// The same memory for pieces of another lifetime: the list is emptied, and the standard library
/// collects a mapped vector in place.
fn recycle<'a>(mut pieces: Vec<&[u8]>) -> Vec<&'a [u8]> {
    pieces.clear();
    pieces.into_iter().map(|_| -> &'a [u8] { unreachable!("the list is empty") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::token::{Claims, sign_hs256};
    use crate::features;
    use crate::io::bell::Bell;
    use crate::io::clock::Origin;
    use crate::io::control::door;
    use crate::io::lanes::weave;
    use crate::io::{reader, runtime};
    use crate::kernel::Limits;
    use crate::shard::ShardConfig;
    use crate::wire::dialect::NATIVE_JSON;
    use std::os::unix::net::UnixStream;

    const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";

    /// A shard of its own, as the gateway makes it.
    fn edge(driver: Driver) -> Rc<Edge> {
        let clock = Clock::new(Origin::now());
        let (door, controls) = door(Arc::new(Bell::new().unwrap()));
        let limits = Limits::default();
        let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits };
        Edge::new(Parts {
            id: ShardId(0),
            driver,
            shard: Shard::new(config, features::all(), clock.now()),
            clock,
            placement: Placement::new(1),
            doors: Arc::new([door]),
            crowd: Crowd::default(),
            verifier: Verifier::hs256(SECRET, 0),
            handshake_time: Duration::from_secs(1),
            controls,
            readiness: Readiness::new().unwrap(),
            lanes: weave(1, 8).pop().expect("one shard"),
        })
    }

    fn open(edge: &Edge, user: &str) -> (ConnId, UnixStream) {
        let (mine, peer) = UnixStream::pair().unwrap();
        let claims = Claims { sub: user.into(), ..Claims::default() };
        let identity = edge.verifier.verify(&sign_hs256(SECRET, &claims), 0).unwrap();
        let opened = edge.open(mine.into(), identity, NATIVE_JSON, None, b"", Vec::new());
        (opened.unwrap_or_else(|_| panic!("an empty shard has room")), peer)
    }

    fn counters(edge: &Edge) -> Counters {
        edge.counters.borrow().clone()
    }

    /// A pong that nobody asked for, masked with zeros: a frame that costs the core nothing.
    const PONG: [u8; 6] = [0x8A, 0x80, 0, 0, 0, 0];
    const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

    /// Takes all that it is offered, and remembers it.
    #[derive(Default)]
    struct Recorder {
        bytes: Vec<u8>,
        sent: Vec<Sent>,
    }

    impl Egress for Recorder {
        unsafe fn offer(&mut self, conn: ConnId, _: RawFd, pieces: &[&[u8]]) {
            let before = self.bytes.len();
            pieces.iter().take(PIECES_MAX).for_each(|piece| self.bytes.extend_from_slice(piece));
            let asked = self.bytes.len() - before;
            self.sent.push(Sent { conn, asked, result: Ok(asked) });
        }

        fn settle(&mut self, sent: &mut Vec<Sent>) {
            sent.append(&mut self.sent);
        }
    }

    #[test]
    fn more_than_one_write_names_leaves_once_and_in_order() {
        const FIRST: usize = 3 * PIECES_MAX;
        let recorded = runtime::block_on(Driver::Epoll, async {
            let edge = edge(Driver::Epoll);
            let (conn, _peer) = open(&edge, "alice");
            let say = |message: &str| edge.step(Input::Text { conn, message: message.as_bytes() });
            say(r#"{"event":"room:join","data":{"room":"chat:1"}}"#);
            let publish = r#"{"event":"room:publish","data":{"room":"chat:1","event":"chat","data":0}}"#;
            (0..FIRST).for_each(|_| say(publish));
            let mut egress = Recorder::default();
            while edge.flush(&mut egress) {
                // The core lists the connection anew while the edge still has it listed.
                say(publish);
            }
            String::from_utf8_lossy(&egress.bytes).into_owned()
        });
        let recorded = recorded.unwrap();
        let seqs: Vec<usize> = recorded
            .split("\"seq\":")
            .skip(1)
            .map(|rest| rest.split(|char: char| !char.is_ascii_digit()).next().unwrap().parse().unwrap())
            .collect();
        assert!(seqs.len() > FIRST);
        assert_eq!(seqs, (1..=seqs.len()).collect::<Vec<_>>());
    }

    #[test]
    fn an_idle_shard_is_not_looked_at_again_and_again() {
        for driver in runtime::usable() {
            runtime::block_on(driver, async move {
                let edge = edge(driver);
                let keeper = Rc::clone(&edge);
                monoio::spawn(async move { keeper.turn.keep(driver).await });
                monoio::spawn(reader::watch(Rc::clone(&edge)));
                monoio::spawn(reader::run(Rc::clone(&edge)));
                let opened: Vec<_> = (0..50).map(|user| open(&edge, &format!("user{user}"))).collect();
                let turns = async |number: usize| {
                    for _ in 0..number {
                        edge.turn.next().await;
                    }
                };
                turns(20).await;
                let fresh = counters(&edge);
                turns(200).await;
                assert_eq!(counters(&edge).looks, fresh.looks, "{driver:?}: nobody said anything");
                let (_, peer) = &opened[7];
                socket::send(peer.as_raw_fd(), &PONG).unwrap();
                turns(20).await;
                let heard = counters(&edge);
                assert_eq!((heard.reads, heard.bytes_in), (1, PONG.len() as u64), "{driver:?}");
                assert!(heard.looks - fresh.looks <= 2, "{driver:?}: {} looks for one read", heard.looks - fresh.looks);
                turns(200).await;
                assert_eq!(counters(&edge).looks, heard.looks, "{driver:?}");
            })
            .unwrap();
        }
    }

    #[test]
    fn what_one_read_leaves_is_read_later_though_the_socket_says_nothing_more() {
        const BYTES: usize = 2 * READ_BYTES_PER_TURN + PONG.len();
        let edge = edge(Driver::Epoll);
        let ((_, much), (_, little)) = (open(&edge, "alice"), open(&edge, "bob"));
        let pongs: Vec<u8> = PONG.iter().copied().cycle().take(BYTES / PONG.len() * PONG.len()).collect();
        assert_eq!(socket::send(much.as_raw_fd(), &pongs).unwrap(), pongs.len());
        socket::send(little.as_raw_fd(), &PONG).unwrap();
        edge.look();
        assert!(edge.read());
        assert_eq!(counters(&edge).bytes_in as usize, READ_BYTES_PER_TURN + PONG.len(), "one read of each");
        while edge.read() {}
        let counters = counters(&edge);
        assert_eq!(counters.bytes_in as usize, pongs.len() + PONG.len());
        assert_eq!((counters.looks, counters.connections_now), (1, 2));
    }

    #[test]
    fn a_peer_that_ends_is_gone_and_what_it_said_before_is_heard() {
        let edge = edge(Driver::Epoll);
        let (_, peer) = open(&edge, "alice");
        socket::send(peer.as_raw_fd(), &PONG).unwrap();
        drop(peer);
        edge.look();
        while edge.read() {}
        let counters = counters(&edge);
        assert_eq!((counters.bytes_in, counters.closed, counters.connections_now), (PONG.len() as u64, 1, 0));
        edge.look();
        edge.read();
        assert_eq!(edge.counters.borrow().closed, 1, "once");
    }

    #[test]
    fn a_closing_peer_is_heard_out_within_bounds() {
        let edge = edge(Driver::Epoll);
        let ((_, polite), (_, talker)) = (open(&edge, "alice"), open(&edge, "bob"));
        let turn = |peer: &UnixStream, bytes: &[u8]| {
            let sent = socket::send(peer.as_raw_fd(), bytes).unwrap_or(0);
            edge.look();
            edge.read();
            sent
        };
        turn(&polite, &CLOSE);
        turn(&talker, &CLOSE);
        assert_eq!(edge.counters.borrow().connections_now, 2, "they have not ended yet");
        turn(&polite, &PONG);
        assert_eq!(edge.counters.borrow().connections_now, 2);
        socket::shut(polite.as_raw_fd(), Shut::Sending);
        turn(&talker, &PONG);
        assert_eq!(edge.counters.borrow().connections_now, 1);
        let chunk = vec![0u8; DISCARD_BYTES_MAX / 8];
        let mut sent = PONG.len();
        while edge.counters.borrow().connections_now == 1 {
            sent += turn(&talker, &chunk);
            assert!(sent <= DISCARD_BYTES_MAX + chunk.len(), "it is heard for {sent} bytes");
        }
        assert!(sent >= DISCARD_BYTES_MAX);
    }

    #[test]
    fn bytes_that_came_with_the_request_are_heard_first() {
        let edge = edge(Driver::Epoll);
        let (mine, peer) = UnixStream::pair().unwrap();
        let claims = Claims { sub: "alice".into(), ..Claims::default() };
        let identity = edge.verifier.verify(&sign_hs256(SECRET, &claims), 0).unwrap();
        let message = br#"{"event":"room:join","data":{"room":"chat:1"}}"#;
        let frame = [&[0x81, 0x80 | message.len() as u8, 0, 0, 0, 0], &message[..]].concat();
        let (before, behind) = frame.split_at(9);
        socket::send(peer.as_raw_fd(), behind).unwrap();
        assert!(edge.open(mine.into(), identity, NATIVE_JSON, None, b"", before.to_vec()).is_ok());
        edge.look();
        while edge.read() {}
        assert_eq!(edge.report().core.requests, 1);
    }

    #[test]
    fn a_recycled_list_keeps_its_memory() {
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(100);
        pieces.push(b"x");
        let before = (pieces.as_ptr() as usize, pieces.capacity());
        let pieces: Vec<&'static [u8]> = recycle(pieces);
        assert_eq!((pieces.as_ptr() as usize, pieces.capacity()), before);
        assert!(pieces.is_empty());
    }
}
