//! Flushing: from outboxes to sockets, one gathered write for each connection that has something.
//! Invariant: what a flush offers is written or given back to the core before it returns; whatever
//! could not be written whole waits until its socket says that it takes more.

use super::{Edge, State};
use crate::base::limits::{BULKY_BYTES, WRITE_BYTES_MAX};
use crate::base::time::Instant;
use crate::io::dirty::Dirty;
use crate::io::egress::{Egress, Sent};
use crate::io::joined::Joined;
use crate::io::rows::{Row, Standing};
use crate::io::socket::{PIECES_MAX, Shut};
use crate::io::tuning::Tuning;
use crate::kernel::effects::Effects;
use crate::kernel::ids::ConnId;
use crate::shard::Input;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// What waits to be written, and what one flush after the other needs.
pub(super) struct Flushing {
    /// Connections to write to.
    dirty: Dirty,
    /// How long a crowd is held, and until when the present one is.
    coalesce: Duration,
    held_until: Option<Instant>,
    /// Since when the first that is listed waits, of the crowd and of the rest.
    crowd_since: Option<Instant>,
    rest_since: Option<Instant>,
    /// Connections of the present flush that have more than one write names, or than the rest wait for.
    again: Vec<ConnId>,
    sent: Vec<Sent>,
    /// Keeps the memory of the list of pieces between writes.
    pieces: Vec<&'static [u8]>,
    joined: Joined,
    /// Connections that have had their last frame.
    left: Vec<ConnId>,
    /// Those of the present flush that have no socket.
    polled: Vec<ConnId>,
}

impl Flushing {
    /// `sharers` shards have one processor: together they write to as many of a crowd, before one of
    /// them looks at who else has something, as one alone would.
    pub fn new(tuning: &Tuning, sharers: usize) -> Flushing {
        let crowd_writes = (tuning.crowd_writes_per_turn / sharers).max(1);
        Flushing {
            dirty: Dirty::new(tuning.writes_per_turn, crowd_writes),
            coalesce: tuning.coalesce,
            held_until: None,
            crowd_since: None,
            rest_since: None,
            again: Vec::new(),
            sent: Vec::new(),
            pieces: Vec::new(),
            joined: Joined::default(),
            left: Vec::new(),
            polled: Vec::new(),
        }
    }

    /// Takes in whom the core has something for. Says whether a crowd is held from now on.
    pub fn list(&mut self, effects: &mut Effects, now: Instant) -> bool {
        let had_crowd = self.dirty.has_crowd();
        if !effects.dirty_by_crowd.is_empty() {
            self.crowd_since.get_or_insert(now);
        }
        if !effects.dirty.is_empty() {
            self.rest_since.get_or_insert(now);
        }
        self.dirty.list(effects);
        let is_held = !self.coalesce.is_zero() && !had_crowd && self.dirty.has_crowd();
        if is_held {
            self.dirty.hold_crowd();
            self.held_until = Some(now.after(self.coalesce));
        }
        is_held
    }

    /// Takes in somebody who has something that the core has no part in any more.
    pub fn list_again(&mut self, conn: ConnId) {
        self.dirty.list_again(conn);
    }

    pub fn is_due(&self) -> bool {
        self.dirty.is_due()
    }

    /// Since when those wait who came since the last flush and have a part in this one, told once.
    fn waited_since(&mut self) -> [Option<Instant>; 2] {
        let of_crowd = if self.dirty.is_crowd_due() { self.crowd_since.take() } else { None };
        [of_crowd, self.rest_since.take()]
    }

    /// Lets the crowd go if its time has come.
    fn let_go(&mut self, now: Instant) {
        if self.held_until.is_some_and(|until| now >= until) {
            self.held_until = None;
            self.dirty.let_crowd_go();
        }
    }
}

impl Edge {
    /// How long the crowd is still held; `None`: none is.
    pub fn until_let_go(&self) -> Option<Duration> {
        let until = self.state.borrow().flushing.held_until?;
        Some(until.since(self.clock.now().at))
    }

    /// Whether the next flush writes to a crowd.
    pub fn is_crowd_due(&self) -> bool {
        self.state.borrow().flushing.dirty.is_crowd_due()
    }

    /// Lets the crowd go if its time has come.
    pub fn let_go(&self) {
        self.within(|state, now| state.flushing.let_go(now.at));
    }

    /// Writes to the connections whose turn it is, a bounded number. Says whether more wait.
    pub fn flush(&self, egress: &mut impl Egress) -> bool {
        let (left, is_due) = self.within(|state, now| {
            let State { shard, effects, rows, flushing, timing, .. } = state;
            // A busy shard comes by more often than its timer.
            flushing.let_go(now.at);
            let lags = flushing.waited_since();
            let Flushing { dirty, again, sent, pieces, joined, left, polled, .. } = flushing;
            for (conn, is_of_crowd) in dirty.next_flush() {
                // Listed twice at most: by the core, and for more than one write takes.
                let is_ready = |row: &&mut Row| !row.is_mute && !row.is_blocked && !row.is_offered;
                let Some(row) = rows.get_mut(conn) else {
                    polled.push(conn);
                    continue;
                };
                let Some(row) = Some(row).filter(is_ready) else { continue };
                if row.socket.owes() {
                    // Nothing is encrypted before it has gone.
                    row.is_offered = true;
                    // SAFETY: what is unsent stays with the stream, as it is, until the stream is told what
                    // was sent: after `settle`, below.
                    unsafe { egress.offer(conn, row.socket.as_raw_fd(), &[row.socket.unsent()]) };
                    continue;
                }
                if !is_of_crowd && shard.queued(conn) > BULKY_BYTES {
                    // Thousands of readers that fall behind at once are a crowd too.
                    again.push(conn);
                    continue;
                }
                let mut named = recycle(std::mem::take(pieces));
                let bytes = shard.gather(conn, &mut named, WRITE_BYTES_MAX);
                if bytes > 0 && row.socket.is_secured() {
                    // A session that does not go on has ended: the reader finds that out.
                    match row.socket.seal(&named) {
                        Ok(sealed) => {
                            again.extend((sealed < bytes || bytes >= WRITE_BYTES_MAX).then_some(conn));
                            row.is_offered = true;
                            // SAFETY: as above.
                            unsafe { egress.offer(conn, row.socket.as_raw_fd(), &[row.socket.unsent()]) };
                        }
                        Err(_) => row.mute(Shut::Both),
                    }
                } else if bytes > 0 {
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
            lags.into_iter().flatten().for_each(|since| timing.delivered(since));
            egress.settle(sent);
            timing.skip();
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
                // What was encrypted the core need not keep, though some of it wait for the socket.
                let told = if row.socket.is_secured() { row.socket.sent(took) } else { took };
                counters.bytes_out += told as u64;
                if told > 0 {
                    shard.step(now, Input::Wrote { conn, bytes: told }, effects);
                }
                if took < asked {
                    counters.writes_short += 1;
                    row.is_blocked = true;
                    shard.step(now, Input::Blocked { conn }, effects);
                } else if row.standing != Standing::Open && shard.is_finished(conn) {
                    row.socket.part();
                    match row.standing {
                        // Its goodbye found no room; all comes back here once it has.
                        _ if row.socket.owes() => row.is_blocked = true,
                        Standing::Leaving => left.push(conn),
                        Standing::Closing => row.mute(Shut::Sending),
                        Standing::Open | Standing::Reset => {}
                    }
                } else if told == 0 {
                    // It was left over from before: the core waits to hear that there is room, or listed the
                    // connection meanwhile.
                    shard.step(now, Input::Writable { conn }, effects);
                    dirty.list_again(conn);
                }
            }
            drop(counters);
            // Not before: a step may let go of what was offered and not reported.
            polled.drain(..).for_each(|conn| shard.step(now, Input::Deliver { conn }, effects));
            timing.end("written");
            (std::mem::take(left), dirty.is_due())
        });
        left.into_iter().for_each(|conn| self.gone(conn));
        is_due
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
    use crate::base::limits::CROWD_MIN;
    use crate::io::edge::sample::{counters, edge, edge_tuned, join, on_each_driver, open, publish, turning};
    use crate::io::egress::Direct;
    use crate::io::ring::Ring;
    use crate::io::runtime::{self, Driver};
    use std::os::fd::RawFd;
    use std::os::unix::net::UnixStream;

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

    /// As many members of one large room as make a crowd, and behind them two of a small one.
    fn crowd(edge: &Edge) -> Vec<(ConnId, UnixStream)> {
        let opened: Vec<_> = (0..CROWD_MIN + 2).map(|user| open(edge, &format!("user{user}"))).collect();
        opened[..CROWD_MIN].iter().for_each(|(conn, _)| join(edge, *conn, "chat:large"));
        opened[CROWD_MIN..].iter().for_each(|(conn, _)| join(edge, *conn, "chat:small"));
        while edge.flush(&mut Recorder::default()) {}
        edge.let_go();
        opened
    }

    /// Writes of one flush through each egress that can be had.
    fn writes_of_one_flush(tuning: &Tuning, prepare: impl Fn(&Edge, &[(ConnId, UnixStream)])) -> Vec<u64> {
        let one_flush = |egress: &mut dyn FnMut(&Edge) -> bool| {
            let edge = edge_tuned(Driver::Epoll, tuning.clone());
            let opened = crowd(&edge);
            let before = counters(&edge).writes;
            prepare(&edge, &opened);
            egress(&edge);
            counters(&edge).writes - before
        };
        let (mut direct, ring) = (Direct::default(), Ring::new(tuning.writes_per_turn).ok());
        let by_direct = one_flush(&mut |edge| edge.flush(&mut direct));
        let by_ring = ring.map(|mut ring| one_flush(&mut |edge| edge.flush(&mut ring)));
        [Some(by_direct), by_ring].into_iter().flatten().collect()
    }

    #[test]
    fn a_flush_writes_as_often_as_the_tuning_says() {
        let tuning = Tuning { writes_per_turn: 20, crowd_writes_per_turn: 7, ..Tuning::default() };
        let to_all = |edge: &Edge, opened: &[(ConnId, UnixStream)]| publish(edge, opened[9].0, "chat:large");
        for writes in writes_of_one_flush(&tuning, to_all) {
            assert_eq!(writes, 7);
        }
        let to_each = |edge: &Edge, opened: &[(ConnId, UnixStream)]| {
            opened.iter().for_each(|(conn, _)| edge.step(Input::Ping { conn: *conn, payload: b"" }));
        };
        for writes in writes_of_one_flush(&tuning, to_each) {
            assert_eq!(writes, 20);
        }
    }

    #[test]
    fn shards_of_one_processor_write_to_as_many_of_a_crowd_as_one_alone() {
        let tuning = Tuning { crowd_writes_per_turn: 7, ..Tuning::default() };
        let of_one_flush = |sharers| {
            let mut flushing = Flushing::new(&tuning, sharers);
            let dirty_by_crowd = crowd(&edge(Driver::Epoll)).into_iter().map(|(conn, _)| conn).collect();
            flushing.list(&mut Effects { dirty_by_crowd, ..Effects::default() }, Instant::ZERO);
            flushing.dirty.next_flush().count()
        };
        assert_eq!([1, 2, 3, 100].map(of_one_flush), [7, 3, 2, 1]);
    }

    #[test]
    fn who_has_much_to_read_waits_with_the_crowd() {
        let tuning = Tuning { writes_per_turn: 40, crowd_writes_per_turn: 3, ..Tuning::default() };
        let edge = edge_tuned(Driver::Epoll, tuning);
        let opened: Vec<_> = (0..12).map(|user| open(&edge, &format!("user{user}"))).collect();
        opened[..10].iter().for_each(|(conn, _)| join(&edge, *conn, "chat:bulky"));
        opened[10..].iter().for_each(|(conn, _)| join(&edge, *conn, "chat:small"));
        while edge.flush(&mut Recorder::default()) {}
        let mut egress = Direct::default();
        let mut writes = || {
            let before = counters(&edge).writes;
            edge.flush(&mut egress);
            counters(&edge).writes - before
        };
        (0..BULKY_BYTES / 64).for_each(|_| publish(&edge, opened[0].0, "chat:bulky"));
        publish(&edge, opened[10].0, "chat:small");
        assert_eq!(writes(), 2, "the small room, though it was listed last");
        assert_eq!([writes(), writes(), writes(), writes(), writes()], [3, 3, 3, 1, 0]);
    }

    #[test]
    fn a_crowd_waits_for_more_to_join_its_writes_and_a_small_room_does_not() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let edge = edge_tuned(Driver::Epoll, Tuning { coalesce: HOUR, ..Tuning::default() });
        let opened = crowd(&edge);
        let before = counters(&edge).writes;
        let mut egress = Direct::default();
        publish(&edge, opened[9].0, "chat:large");
        publish(&edge, opened[8].0, "chat:large");
        while edge.flush(&mut egress) {}
        assert_eq!(counters(&edge).writes, before, "nobody yet");
        assert!(edge.until_let_go().is_some_and(|left| left <= HOUR));
        publish(&edge, opened[CROWD_MIN].0, "chat:small");
        while edge.flush(&mut egress) {}
        assert_eq!(counters(&edge).writes - before, 2, "the small room");
        edge.state.borrow_mut().flushing.held_until = Some(Instant::ZERO);
        edge.let_go();
        while edge.flush(&mut egress) {}
        let to_crowd = counters(&edge).writes - before - 2;
        assert_eq!(to_crowd as usize, CROWD_MIN, "both messages in one write each");
    }

    #[test]
    fn a_crowd_that_waits_is_let_go_in_time() {
        on_each_driver(async |driver| {
            let edge = edge_tuned(driver, Tuning { coalesce: Duration::from_millis(1), ..Tuning::default() });
            let opened = crowd(&edge);
            let edge = turning(edge);
            let before = counters(&edge).writes;
            publish(&edge, opened[9].0, "chat:large");
            while counters(&edge).writes - before < CROWD_MIN as u64 {
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(edge.until_let_go(), None, "{driver:?}");
        });
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
