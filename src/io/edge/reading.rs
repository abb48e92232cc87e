//! Reading: from sockets that said they have something, through the assembler, into the core.
//! Invariant: a connection waits in the queue once, for as long as another read would find
//! something and the core wants it.

use super::{Edge, State};
use crate::base::limits::MAILS_PER_READ;
use crate::base::time::Now;
use crate::io::readiness::Who;
use crate::io::rows::{Received, Standing};
use crate::io::timing::Timing;
use crate::kernel::effects::Effects;
use crate::kernel::ids::ConnId;
use crate::shard::{Input, Shard};
use crate::wire::assembler::{Assembler, Event};
use crate::wire::deflate::Inflater;
use crate::wire::dialect::SSE;
use std::io;
use std::os::fd::OwnedFd;

/// How far a read brought its connection.
enum Fed {
    /// All bytes were taken.
    All,
    /// The core wants no more for now: it has them up to this.
    Paused(usize),
    /// The connection is closing: what is left counts no more.
    Ending,
    /// So it is, by the peer's last word.
    Parted,
}

impl Edge {
    /// The buffer that all sockets of this shard are read into, for as long as `work` runs.
    pub fn with_input<T>(&self, work: impl FnOnce(&mut [u8]) -> T) -> T {
        work(&mut self.input.borrow_mut())
    }

    /// A descriptor that is readable while [`Edge::look`] would find something.
    pub fn readiness(&self) -> io::Result<OwnedFd> {
        self.state.borrow().readiness.handle()
    }

    /// Notes which sockets have something to read or take bytes again.
    pub fn look(&self) {
        self.count(|counters| counters.looks += 1);
        self.within(|state, now| {
            let State { shard, effects, readiness, rows, unread, flushing, .. } = state;
            readiness.look(|ready| {
                self.worked.raise();
                let conn = match ready.who {
                    Who::Conn(conn) => conn,
                    Who::Guest(guest) => {
                        self.waiting.borrow_mut().list(guest);
                        return self.reading.raise();
                    }
                    Who::Regular(key) => {
                        let mut regulars = self.regulars.borrow_mut();
                        if regulars.note(key, ready.is_readable, ready.is_ended, ready.is_writable) {
                            self.reading.raise();
                        }
                        return;
                    }
                };
                let Some(row) = rows.get_mut(conn) else { return };
                if ready.is_readable {
                    row.is_readable = true;
                    row.is_ended |= ready.is_ended;
                    row.queue(unread);
                }
                if ready.is_writable && row.socket.owes() {
                    // What is encrypted goes first; the core is told when it has gone.
                    row.is_blocked = false;
                    flushing.list_again(conn);
                    self.flush.raise();
                } else if ready.is_writable && row.is_blocked {
                    row.is_blocked = false;
                    shard.step(now, Input::Writable { conn }, effects);
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
        let due = self.state.borrow().unread.len().min(self.tuning.reads_per_turn);
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
            let State { shard, effects, rows, unread, timing, inflater, .. } = state;
            let Some(row) = rows.get_mut(conn) else { return Standing::Closing };
            row.leave_queue();
            match row.standing {
                Standing::Open if !shard.is_reading(conn) => {
                    // The core will say that it goes on.
                    return Standing::Open;
                }
                Standing::Open if row.dialect == SSE => match row.receive(input) {
                    // It has said all that it may say.
                    Received::Bytes(got) if row.discard(got) => {}
                    Received::Nothing => {}
                    Received::Bytes(_) | Received::End => return Standing::Reset,
                },
                Standing::Open => {
                    let mut under_way = row.resume(shard.message_limits(row.dialect));
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
                    let mut mouth = Mouth { timing, shard, effects, inflater };
                    match mouth.feed(now, conn, &mut under_way.assembler, bytes) {
                        Fed::All => {}
                        Fed::Paused(at) => under_way.held = bytes[at..].to_vec(),
                        Fed::Parted if !row.is_readable => row.standing = Standing::Leaving,
                        Fed::Ending | Fed::Parted => row.standing = Standing::Closing,
                    }
                    if row.standing == Standing::Open {
                        row.keep(under_way);
                    }
                }
                Standing::Closing | Standing::Leaving => {
                    // The core bounds the time, with a reset; a peer that sends on and on is not
                    // waited for.
                    row.forget();
                    match row.receive(input) {
                        // A socket with unread bytes is not closed but reset, and may take our last with it.
                        Received::Bytes(got) if row.discard(got) => row.standing = Standing::Closing,
                        Received::Nothing => {}
                        Received::Bytes(_) | Received::End => return Standing::Reset,
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
}

/// Where what was read goes.
struct Mouth<'a> {
    timing: &'a mut Timing,
    shard: &'a mut Shard,
    effects: &'a mut Effects,
    inflater: &'a mut Inflater,
}

impl Mouth<'_> {
    /// Gives the core the events of `bytes`, until it wants no more.
    fn feed(&mut self, now: Now, conn: ConnId, assembler: &mut Assembler, bytes: &mut [u8]) -> Fed {
        let Mouth { timing, shard, effects, inflater } = self;
        let mut at = 0;
        loop {
            if !shard.is_reading(conn) {
                return if at == bytes.len() { Fed::All } else { Fed::Paused(at) };
            }
            let event = match assembler.next(bytes, &mut at, inflater) {
                Ok(Some(event)) => event,
                Ok(None) => return Fed::All,
                Err(error) => {
                    let failed = Input::Failed { conn, code: error.code, reason: error.reason };
                    timing.step(shard, now, failed, effects);
                    return Fed::Ending;
                }
            };
            let step = match event {
                Event::Text(message) => Input::Text { conn, message },
                Event::Binary(message) => Input::Binary { conn, message },
                Event::Ping(payload) => Input::Ping { conn, payload },
                Event::Pong(_) => Input::Pong { conn },
                Event::Close { code, .. } => {
                    timing.step(shard, now, Input::PeerClose { conn, code }, effects);
                    return if at == bytes.len() { Fed::Parted } else { Fed::Ending };
                }
            };
            timing.step(shard, now, step, effects);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::admission::token::{Claims, sign_hs256};
    use crate::base::limits::{DISCARD_BYTES_MAX, READ_BYTES_PER_TURN};
    use crate::io::edge::sample::{
        CLOSE, PONG, SECRET, counters, edge, edge_tuned, on_each_driver, open, turning, welcome,
    };
    use crate::io::egress::Direct;
    use crate::io::runtime::Driver;
    use crate::io::socket::{self, Shut};
    use crate::io::tuning::Tuning;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn an_idle_shard_is_not_looked_at_again_and_again() {
        on_each_driver(async |driver| {
            let edge = turning(edge(driver));
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
        });
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
    fn a_turn_reads_as_often_and_as_much_as_the_tuning_says() {
        let tuning = Tuning { reads_per_turn: 3, read_bytes_per_turn: 4 * PONG.len(), ..Tuning::default() };
        let edge = edge_tuned(Driver::Epoll, tuning);
        let opened: Vec<_> = (0..5).map(|user| open(&edge, &format!("user{user}"))).collect();
        let pongs = PONG.repeat(6);
        for (_, peer) in &opened {
            assert_eq!(socket::send(peer.as_raw_fd(), &pongs).unwrap(), pongs.len());
        }
        edge.look();
        edge.look();
        assert!(edge.read());
        let first = counters(&edge);
        assert_eq!((first.reads, first.bytes_in as usize), (3, 3 * 4 * PONG.len()));
        while edge.read() {}
        let all = counters(&edge);
        assert_eq!((all.reads, all.bytes_in as usize), (5 * 2, 5 * pongs.len()));
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
    fn a_peer_that_says_goodbye_is_answered_and_closed_and_one_with_more_to_say_heard_out() {
        let edge = edge(Driver::Epoll);
        let ((_, mut polite), (_, mut hasty)) = (open(&edge, "alice"), open(&edge, "bob"));
        let mut egress = Direct::default();
        let mut turn = || {
            edge.look();
            edge.read();
            while edge.flush(&mut egress) {}
        };
        turn();
        socket::send(polite.as_raw_fd(), &CLOSE).unwrap();
        socket::send(hasty.as_raw_fd(), &[&CLOSE[..], &PONG].concat()).unwrap();
        turn();
        assert_eq!(counters(&edge).connections_now, 1, "who has more to say must not be cut off by a reset");
        for peer in [&mut polite, &mut hasty] {
            let mut heard = Vec::new();
            peer.read_to_end(&mut heard).unwrap();
            assert_eq!(&heard[heard.len() - 4..], [0x88, 2, 3, 232]);
        }
        drop(hasty);
        turn();
        assert_eq!(counters(&edge).connections_now, 0);
        assert_eq!(edge.report().core.connections, 0);
    }

    #[test]
    fn bytes_that_came_with_the_request_are_heard_first() {
        let edge = edge(Driver::Epoll);
        let (mine, peer) = UnixStream::pair().unwrap();
        let claims = Claims { sub: "alice".into(), ..Claims::default() };
        let identity = edge.verify(&sign_hs256(SECRET, &claims)).unwrap();
        let message = br#"{"event":"room:join","data":{"room":"chat:1"}}"#;
        let frame = [&[0x81, 0x80 | message.len() as u8, 0, 0, 0, 0], &message[..]].concat();
        let (before, behind) = frame.split_at(9);
        socket::send(peer.as_raw_fd(), behind).unwrap();
        assert!(edge.open(mine.into(), false, welcome(identity, before)).is_ok());
        edge.look();
        while edge.read() {}
        assert_eq!(edge.report().core.requests, 1);
    }
}
