//! Sockets that were accepted and have not shown what they are. Invariant: each is here from its
//! accept until its task lets go of it, so a sweep never touches a descriptor that has another owner.

use crate::base::limits::HANDSHAKES_MAX;
use crate::base::table::{Key, Table};
use crate::base::time::Instant;
use crate::io::socket::{self, Shut};
use std::collections::VecDeque;
use std::os::fd::RawFd;

#[derive(Default)]
pub struct Waiting {
    sockets: Table<RawFd>,
    /// In order of time, since all wait equally long. Those that have left are skipped.
    deadlines: VecDeque<(Instant, Key)>,
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.sockets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// `None`: too many wait already.
    pub fn enter(&mut self, fd: RawFd, deadline: Instant) -> Option<Key> {
        if self.sockets.len() == HANDSHAKES_MAX {
            return None;
        }
        let key = self.sockets.insert(fd);
        self.deadlines.push_back((deadline, key));
        Some(key)
    }

    pub fn leave(&mut self, key: Key) {
        self.sockets.remove(key);
    }

    /// Shuts the sockets whose time is over, so that their tasks wake and end. Returns how many.
    pub fn sweep(&mut self, now: Instant) -> usize {
        let mut over = 0;
        while let Some((deadline, key)) = self.deadlines.front() {
            match self.sockets.get(*key) {
                Some(_) if *deadline > now => break,
                Some(fd) => {
                    socket::shut(*fd, Shut::Both);
                    over += 1;
                }
                None => {}
            }
            self.deadlines.pop_front();
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn only_those_that_stayed_too_long_are_shut() {
        let pairs: Vec<_> = (0..3).map(|_| UnixStream::pair().unwrap()).collect();
        let mut waiting = Waiting::default();
        let keys: Vec<_> = pairs
            .iter()
            .zip([10, 20, 30])
            .map(|((server, _), deadline)| waiting.enter(server.as_raw_fd(), at(deadline)).unwrap())
            .collect();
        waiting.leave(keys[0]);
        assert_eq!(waiting.sweep(at(19)), 0);
        assert_eq!(waiting.sweep(at(20)), 1);
        assert_eq!(waiting.sweep(at(29)), 0, "each is told once");
        assert_eq!((&pairs[1].1).read(&mut [0; 1]).unwrap(), 0, "the peer sees the end");
        pairs[2].1.set_nonblocking(true).unwrap();
        assert!((&pairs[2].1).read(&mut [0; 1]).is_err());
        assert_eq!(waiting.len(), 2, "tasks let go themselves");
    }

    #[test]
    fn a_crowd_at_the_door_is_bounded() {
        let mut waiting = Waiting::default();
        let keys: Vec<_> = (0..HANDSHAKES_MAX).map(|_| waiting.enter(-1, at(1)).unwrap()).collect();
        assert!(waiting.enter(-1, at(1)).is_none());
        waiting.leave(keys[7]);
        assert!(waiting.enter(-1, at(1)).is_some());
    }
}
