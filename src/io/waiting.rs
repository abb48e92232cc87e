//! Guests: sockets that have not shown what they are, or were answered and have not ended.
//! A guest costs its row and the bytes of its head that came, and no task.
//! Invariant: they stand in the order in which they came; `bytes_held` is what all their heads hold.

use crate::base::limits::{HALF_OPEN_LOOKED_THROUGH_MAX, HANDSHAKES_MAX, HEADS_BYTES_MAX};
use crate::base::table::{Key, Table};
use crate::base::time::Instant;
use crate::io::callers::{Caller, Counted};
use crate::io::entrance::Peer;
use crate::io::stream::Stream;
use crate::wire::http::HeadScan;
use std::collections::VecDeque;

pub struct Guest {
    pub socket: Stream,
    pub peer: Peer,
    pub stage: Stage,
    /// Among those of its address, where these are limited.
    pub half_open: Option<Counted>,
}

/// How far a guest has come.
pub enum Stage {
    /// A proxy says whose it is, before anything else.
    Header { bytes: Vec<u8> },
    /// It says what it wants.
    Head { bytes: Vec<u8>, scan: HeadScan },
    /// It was answered, and what it still says is thrown away.
    Answered { discarded: usize },
}

impl Stage {
    pub fn start() -> Stage {
        Stage::Head { bytes: Vec::new(), scan: HeadScan::default() }
    }
}

impl Guest {
    fn bytes_held(&self) -> usize {
        match &self.stage {
            Stage::Header { bytes } | Stage::Head { bytes, .. } => bytes.capacity() + self.socket.bytes_held(),
            Stage::Answered { .. } => self.socket.bytes_held(),
        }
    }
}

struct Row {
    guest: Guest,
    deadline: Instant,
    /// Among those that are to be heard.
    is_listed: bool,
    /// Slots of who came before and after.
    older: Option<u32>,
    newer: Option<u32>,
}

// Thousands wait where somebody means ill.
const _: () = assert!(size_of::<Row>() <= 144);

#[derive(Default)]
pub struct Waiting {
    rows: Table<Row>,
    oldest: Option<u32>,
    newest: Option<u32>,
    bytes_held: usize,
    /// Who has something to say.
    to_hear: VecDeque<Key>,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Somebody has to go before the next comes.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= HANDSHAKES_MAX || self.bytes_held > HEADS_BYTES_MAX
    }

    pub fn enter(&mut self, guest: Guest, deadline: Instant) -> Key {
        self.bytes_held += guest.bytes_held();
        let key = self.rows.insert(Row { guest, deadline, is_listed: false, older: self.newest, newer: None });
        match self.newest.and_then(|newest| self.rows.at_mut(newest)) {
            Some(newest) => newest.newer = Some(key.slot),
            None => self.oldest = Some(key.slot),
        }
        self.newest = Some(key.slot);
        key
    }

    pub fn take(&mut self, key: Key) -> Option<Guest> {
        let Row { guest, older, newer, .. } = self.rows.remove(key)?;
        self.bytes_held -= guest.bytes_held();
        match older.and_then(|older| self.rows.at_mut(older)) {
            Some(row) => row.newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|newer| self.rows.at_mut(newer)) {
            Some(row) => row.older = older,
            None => self.newest = older,
        }
        Some(guest)
    }

    /// Hears a guest; `None`: it has gone.
    pub fn with<T>(&mut self, key: Key, hear: impl FnOnce(&mut Guest) -> T) -> Option<T> {
        let guest = &mut self.rows.get_mut(key)?.guest;
        let before = guest.bytes_held();
        let heard = hear(guest);
        self.bytes_held = self.bytes_held - before + guest.bytes_held();
        Some(heard)
    }

    /// Whoever waits longest.
    pub fn oldest(&self) -> Option<Key> {
        self.rows.at(self.oldest?).map(|(key, _)| key)
    }

    /// Of those of one address whoever waits longest, if it is among those who wait longest of all.
    pub fn oldest_of(&self, caller: Caller) -> Option<Key> {
        let mut next = self.oldest;
        for _ in 0..HALF_OPEN_LOOKED_THROUGH_MAX {
            let (key, row) = self.rows.at(next?)?;
            if row.guest.half_open.as_ref().is_some_and(|counted| counted.caller() == caller) {
                return Some(key);
            }
            next = row.newer;
        }
        None
    }

    /// Notes that a guest has something to say.
    pub fn list(&mut self, key: Key) {
        let Some(row) = self.rows.get_mut(key) else { return };
        if !row.is_listed {
            row.is_listed = true;
            self.to_hear.push_back(key);
        }
    }

    pub fn to_hear(&self) -> usize {
        self.to_hear.len()
    }

    /// Whose turn it is to be heard.
    pub fn next_to_hear(&mut self) -> Option<Key> {
        loop {
            let key = self.to_hear.pop_front()?;
            if let Some(row) = self.rows.get_mut(key) {
                row.is_listed = false;
                return Some(key);
            }
        }
    }

    /// Lets those go whose time is over. Returns how many.
    pub fn sweep(&mut self, now: Instant) -> usize {
        let mut over = 0;
        while let Some((key, row)) = self.oldest.and_then(|oldest| self.rows.at(oldest)) {
            if row.deadline > now {
                break;
            }
            self.take(key);
            over += 1;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::callers::{Callers, Kind};
    use crate::io::socket;
    use std::io::Read;
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn guest(socket: impl Into<Stream>) -> Guest {
        Guest {
            socket: socket.into(),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
            stage: Stage::start(),
            half_open: None,
        }
    }

    fn some() -> Guest {
        guest(socket::event().unwrap())
    }

    #[test]
    fn only_those_that_stayed_too_long_go() {
        let mut waiting = Waiting::default();
        let (keys, mut peers): (Vec<_>, Vec<_>) = [10, 20, 30]
            .into_iter()
            .map(|deadline| {
                let (ours, peer) = UnixStream::pair().unwrap();
                (waiting.enter(guest(ours), at(deadline)), peer)
            })
            .unzip();
        assert!(waiting.take(keys[0]).is_some());
        assert_eq!(waiting.sweep(at(19)), 0);
        assert_eq!(waiting.sweep(at(20)), 1);
        assert_eq!(waiting.sweep(at(29)), 0);
        assert_eq!(peers[1].read(&mut [0; 1]).unwrap(), 0, "the peer sees the end");
        peers[2].set_nonblocking(true).unwrap();
        assert!(peers[2].read(&mut [0; 1]).is_err());
        assert!(waiting.take(keys[1]).is_none() && waiting.take(keys[2]).is_some());
        assert!(waiting.is_empty() && waiting.oldest().is_none());
    }

    #[test]
    fn the_longest_waiting_is_known_whoever_leaves() {
        let mut waiting = Waiting::default();
        let keys: Vec<_> = (0..5).map(|_| waiting.enter(some(), at(1))).collect();
        for (leaves, oldest) in [(2, Some(0)), (0, Some(1)), (4, Some(1)), (1, Some(3)), (3, None)] {
            waiting.take(keys[leaves]).unwrap();
            assert_eq!(waiting.oldest(), oldest.map(|oldest: usize| keys[oldest]));
        }
        let next = waiting.enter(some(), at(1));
        assert_eq!(waiting.oldest(), Some(next));
    }

    #[test]
    fn the_longest_waiting_of_an_address_is_found() {
        let callers = Arc::new(Callers::new([1, 2]));
        let mut waiting = Waiting::default();
        let mut enter = |address: u32| {
            let caller = callers.address(Ipv4Addr::from_bits(address).into(), at(0));
            let (counted, _) = callers.count(caller, Kind::HalfOpen);
            (waiting.enter(Guest { half_open: Some(counted), ..some() }, at(1)), caller)
        };
        let ((_, _), (second, of_second), (_, _), (fourth, _)) = (enter(1), enter(2), enter(1), enter(2));
        assert_eq!(waiting.oldest_of(of_second), Some(second));
        waiting.take(second);
        assert_eq!(waiting.oldest_of(of_second), Some(fourth));
        waiting.take(fourth);
        assert_eq!(waiting.oldest_of(of_second), None);
    }

    #[test]
    fn bytes_of_heads_are_counted_while_they_are_held() {
        let mut waiting = Waiting::default();
        let keys: Vec<_> = (0..2).map(|_| waiting.enter(some(), at(1))).collect();
        let say = |guest: &mut Guest, bytes: usize| match &mut guest.stage {
            Stage::Head { bytes: head, .. } => *head = Vec::with_capacity(bytes),
            Stage::Header { .. } | Stage::Answered { .. } => unreachable!("all say what they want"),
        };
        waiting.with(keys[0], |guest| say(guest, HEADS_BYTES_MAX)).unwrap();
        assert!(!waiting.is_full());
        waiting.with(keys[1], |guest| say(guest, 1)).unwrap();
        assert!(waiting.is_full());
        waiting.take(keys[0]);
        assert!(!waiting.is_full());
        waiting.with(keys[1], |guest| guest.stage = Stage::Answered { discarded: 0 });
        assert_eq!(waiting.bytes_held, 0);
    }

    #[test]
    fn a_guest_is_heard_once_for_all_that_it_said_meanwhile_and_not_when_it_has_gone() {
        let mut waiting = Waiting::default();
        let keys: Vec<_> = (0..3).map(|_| waiting.enter(some(), at(1))).collect();
        [2, 0, 2, 1].into_iter().for_each(|at: usize| waiting.list(keys[at]));
        waiting.take(keys[0]);
        let order: Vec<_> = std::iter::from_fn(|| waiting.next_to_hear()).collect();
        assert_eq!(order, [keys[2], keys[1]]);
        waiting.list(keys[2]);
        assert_eq!((waiting.to_hear(), waiting.next_to_hear()), (1, Some(keys[2])));
    }
}
