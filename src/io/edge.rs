//! The edge of one shard: the core, its lanes, its sockets, and what all tasks of the thread share.
//! Invariant: the state is borrowed within one call and never across an `await`, so no task ever
//! finds it taken; and effects are carried out before the borrow ends.

use crate::admission::identity::Identity;
use crate::admission::token::Verifier;
use crate::base::limits::{MAILS_PER_RING, READ_BYTES_PER_TURN, WRITE_BYTES_MAX};
use crate::base::time::{Instant, Now};
use crate::io::clock::Clock;
use crate::io::control::{Controls, Door};
use crate::io::counters::{Counters, Report};
use crate::io::crowd::{Counted, Crowd};
use crate::io::dirty::Dirty;
use crate::io::egress::{Egress, Sent};
use crate::io::joined::Joined;
use crate::io::lanes::Lanes;
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
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
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
    pub lanes: Lanes<Mail>,
    pub shard: Shard,
}

struct State {
    shard: Shard,
    effects: Effects,
    lanes: Lanes<Mail>,
    /// By slot of the connection.
    rows: Vec<Option<Row>>,
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

/// The socket of one connection.
struct Row {
    conn: ConnId,
    stream: Rc<TcpStream>,
    fd: RawFd,
    standing: Standing,
    /// The sending side was shut, or a write failed: nothing more is offered.
    is_mute: bool,
    /// Bytes are with the egress, and the core has not heard what became of them.
    is_offered: bool,
    /// A task waits until the socket takes bytes again.
    is_blocked: bool,
    /// The pump, when it waits for anything but its socket.
    pump: Option<Waker>,
    _counted: Option<Counted>,
}

/// What the pump of a connection does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Open,
    /// The last frame is queued or written; what the peer still says is thrown away.
    Closing,
    /// To be closed at once.
    Reset,
}

/// How far a read brought its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fed {
    /// All bytes were taken.
    All,
    /// The core wants no more for now; the rest is kept.
    Paused,
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
                rows: Vec::new(),
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
        let State { shard, effects, lanes, rows, dirty, to_ring, starving, .. } = state;
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
        for conn in effects.resumed.drain(..) {
            if let Some(row) = row_mut(rows, conn) {
                row.wake_pump();
            }
        }
        for conn in effects.closing.drain(..) {
            if let Some(row) = row_mut(rows, conn) {
                row.standing = Standing::Closing;
                row.wake_pump();
            }
        }
        for conn in effects.reset.drain(..) {
            if let Some(row) = row_mut(rows, conn) {
                row.standing = Standing::Reset;
                self.counters.borrow_mut().resets += 1;
                socket::reset_on_close(&borrowed(&row.stream));
                row.mute(Shut::Both);
                row.wake_pump();
            }
        }
        let is_starved_anew = |peer: ShardId| *starving & 1 << peer.index() == 0 && shard.is_starved(peer);
        if !dirty.is_empty() || to_ring.iter().any(|mails| *mails > 0) || lanes.peers().any(is_starved_anew) {
            self.flush.raise();
        }
    }

    /// Takes a socket into the core, or gives it back: the shard is full.
    pub fn open(
        &self,
        stream: TcpStream,
        identity: Identity,
        dialect: DialectId,
        counted: Option<Counted>,
    ) -> Result<Opened, TcpStream> {
        self.within(|state, now| {
            let Some(conn) = state.shard.reserve() else { return Err(stream) };
            let stream = Rc::new(stream);
            let slot = conn.0.slot as usize;
            if state.rows.len() <= slot {
                state.rows.resize_with(slot + 1, || None);
            }
            state.rows[slot] = Some(Row {
                conn,
                fd: stream.as_raw_fd(),
                stream: Rc::clone(&stream),
                standing: Standing::Open,
                is_mute: false,
                is_offered: false,
                is_blocked: false,
                pump: None,
                _counted: counted,
            });
            let mut counters = self.counters.borrow_mut();
            counters.opened += 1;
            counters.connections_now += 1;
            drop(counters);
            state.shard.step(now, Input::Open(Box::new(Opening { conn, identity, dialect })), &mut state.effects);
            Ok(Opened { conn, stream })
        })
    }

    /// The socket has ended.
    pub fn gone(&self, conn: ConnId) {
        self.within(|state, now| {
            let Some(slot) = state.rows.get_mut(conn.0.slot as usize).filter(|slot| is_of(slot, conn)) else { return };
            if let Some(row) = slot.take() {
                // Wakes the task that waits for the socket to take bytes.
                socket::shut(row.fd, Shut::Both);
            }
            let mut counters = self.counters.borrow_mut();
            counters.closed += 1;
            counters.connections_now -= 1;
            drop(counters);
            state.shard.step(now, Input::Gone { conn }, &mut state.effects);
        });
    }

    /// Makes the pump find its socket ended.
    pub fn cut(&self, conn: ConnId) {
        let state = &mut *self.state.borrow_mut();
        if let Some(row) = row_mut(&mut state.rows, conn) {
            row.standing = Standing::Reset;
            row.mute(Shut::Both);
            row.wake_pump();
        }
    }

    pub fn standing(&self, conn: ConnId) -> Standing {
        let state = &mut *self.state.borrow_mut();
        row_mut(&mut state.rows, conn).map_or(Standing::Reset, |row| row.standing)
    }

    /// How the connection stands, once the core takes its bytes or will take no more; until then
    /// remembers whom to wake.
    pub fn poll_unpaused(&self, conn: ConnId, context: &mut Context<'_>) -> Poll<Standing> {
        let state = &mut *self.state.borrow_mut();
        let is_reading = state.shard.is_reading(conn);
        match row_mut(&mut state.rows, conn) {
            Some(row) if row.standing == Standing::Open && !is_reading => {
                row.pump = Some(context.waker().clone());
                Poll::Pending
            }
            row => Poll::Ready(row.map_or(Standing::Reset, |row| row.standing)),
        }
    }

    /// Gives the core the events of `input` from `at` on, until it wants no more.
    pub fn feed(&self, conn: ConnId, assembler: &mut Assembler, input: &mut [u8], at: &mut usize) -> Fed {
        self.within(|state, now| {
            let State { shard, effects, .. } = state;
            loop {
                if !shard.is_reading(conn) {
                    return if *at == input.len() { Fed::All } else { Fed::Paused };
                }
                let event = match assembler.next(input, at) {
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
    pub fn flush(self: &Rc<Self>, egress: &mut impl Egress) -> bool {
        self.within(|state, now| {
            let State { shard, effects, rows, dirty, again, sent, pieces, joined, .. } = state;
            for conn in dirty.next_flush() {
                // Listed twice at most: by the core, and for more than one write takes.
                let is_ready = |row: &&mut Row| !row.is_mute && !row.is_blocked && !row.is_offered;
                let Some(row) = row_mut(rows, conn).filter(is_ready) else { continue };
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
                    unsafe { egress.offer(conn, row.fd, pieces) };
                }
                *pieces = recycle(named);
            }
            egress.settle(sent);
            joined.clear();
            again.drain(..).for_each(|conn| dirty.list_again(conn));
            let mut counters = self.counters.borrow_mut();
            for Sent { conn, asked, result } in sent.drain(..) {
                let Some(row) = row_mut(rows, conn) else { continue };
                row.is_offered = false;
                counters.writes += 1;
                let took = match result {
                    Ok(took) => took,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
                    Err(_) => {
                        // The peer has gone; the pump reads it from its socket.
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
                    monoio::spawn(wait_until_writable(Rc::clone(self), conn, Rc::clone(&row.stream)));
                } else if row.standing == Standing::Closing && shard.is_finished(conn) {
                    row.mute(Shut::Sending);
                }
            }
            drop(counters);
            !dirty.is_empty()
        })
    }

    fn writable(&self, conn: ConnId) {
        self.within(|state, now| {
            let Some(row) = row_mut(&mut state.rows, conn) else { return };
            row.is_blocked = false;
            state.shard.step(now, Input::Writable { conn }, &mut state.effects);
        });
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

/// A connection that the core knows.
pub struct Opened {
    pub conn: ConnId,
    pub stream: Rc<TcpStream>,
}

impl Row {
    fn wake_pump(&mut self) {
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
    }

    fn mute(&mut self, what: Shut) {
        self.is_mute = true;
        socket::shut(self.fd, what);
    }
}

async fn wait_until_writable(edge: Rc<Edge>, conn: ConnId, stream: Rc<TcpStream>) {
    // An error is an end, and the pump sees it too.
    let _ = stream.writable(false).await;
    drop(stream);
    edge.writable(conn);
}

fn is_of(slot: &Option<Row>, conn: ConnId) -> bool {
    slot.as_ref().is_some_and(|row| row.conn == conn)
}

fn row_mut(rows: &mut [Option<Row>], conn: ConnId) -> Option<&mut Row> {
    rows.get_mut(conn.0.slot as usize)?.as_mut().filter(|row| row.conn == conn)
}

fn borrowed(stream: &TcpStream) -> std::os::fd::BorrowedFd<'_> {
    // SAFETY: the stream owns the descriptor and outlives the borrow.
    unsafe { std::os::fd::BorrowedFd::borrow_raw(stream.as_raw_fd()) }
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
    use crate::io::{runtime, turn};
    use crate::kernel::Limits;
    use crate::shard::ShardConfig;
    use crate::wire::dialect::NATIVE_JSON;
    use std::os::unix::net::UnixStream;

    const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";

    /// A shard of its own, as the gateway makes it.
    fn edge() -> Rc<Edge> {
        let clock = Clock::new(Origin::now());
        let (door, controls) = door(Arc::new(Bell::new().unwrap()));
        let limits = Limits::default();
        let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits };
        Edge::new(Parts {
            id: ShardId(0),
            driver: Driver::Epoll,
            shard: Shard::new(config, features::all(), clock.now()),
            clock,
            placement: Placement::new(1),
            doors: Arc::new([door]),
            crowd: Crowd::default(),
            verifier: Verifier::hs256(SECRET, 0),
            handshake_time: Duration::from_secs(1),
            controls,
            lanes: weave(1, 8).pop().expect("one shard"),
        })
    }

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
            let edge = edge();
            let (mine, _peer) = UnixStream::pair().unwrap();
            let claims = Claims { sub: "alice".into(), ..Claims::default() };
            let identity = edge.verifier.verify(&sign_hs256(SECRET, &claims), 0).unwrap();
            let opened = edge.open(turn::waitable(mine.into()).unwrap(), identity, NATIVE_JSON, None);
            let conn = opened.unwrap_or_else(|_| panic!("an empty shard has room")).conn;
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
    fn a_recycled_list_keeps_its_memory() {
        let mut pieces: Vec<&[u8]> = Vec::with_capacity(100);
        pieces.push(b"x");
        let before = (pieces.as_ptr() as usize, pieces.capacity());
        let pieces: Vec<&'static [u8]> = recycle(pieces);
        assert_eq!((pieces.as_ptr() as usize, pieces.capacity()), before);
        assert!(pieces.is_empty());
    }
}
