//! Which of many sockets have something to read or take bytes again: one epoll instance, told of
//! each socket once and never asked to wait. Invariant: a socket is named once for each time it
//! becomes ready (edge-triggered), so whoever is told must remember it until the socket has no more.
//! A socket may be watched as a guest, whose handshake is under way, and later as a connection.

use crate::base::limits::{CONNS_PER_SHARD_MAX, HANDSHAKES_MAX, REGULARS_MAX};
use crate::base::table::Key;
use crate::kernel::ids::ConnId;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub struct Readiness {
    epoll: OwnedFd,
    events: Box<[libc::epoll_event]>,
}

/// Whose socket it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Conn(ConnId),
    /// A place in `waiting`.
    Guest(Key),
    /// A place in `engine::regulars`.
    Regular(Key),
}

/// What became of one socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    pub who: Who,
    /// Bytes, the end or an error.
    pub is_readable: bool,
    /// It has ended; there may be bytes before.
    pub is_ended: bool,
    pub is_writable: bool,
}

const ENDED: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const READABLE: u32 = libc::EPOLLIN as u32 | ENDED;
const WRITABLE: u32 = libc::EPOLLOUT as u32;
const EDGES: u32 = libc::EPOLLET as u32;

impl Readiness {
    /// A look tells of `ready_max` sockets at most.
    pub fn new(ready_max: usize) -> io::Result<Readiness> {
        // SAFETY: takes one integer.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made `fd` and nobody else knows it.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Readiness { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; ready_max].into() })
    }

    /// A descriptor that is readable while [`Readiness::look`] has something to tell.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.epoll.try_clone()
    }

    /// Watches `socket` until it is closed. What it has already is told too.
    pub fn watch(&self, socket: &impl AsRawFd, who: Who) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, who)
    }

    /// Names a socket otherwise that is watched; what it has already is told once more.
    pub fn rename(&self, socket: &impl AsRawFd, who: Who) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, who)
    }

    /// Has a socket that is watched told of when it takes bytes, too, until it is named otherwise.
    pub fn await_room(&self, socket: &impl AsRawFd, who: Who) -> io::Result<()> {
        self.control_for(libc::EPOLL_CTL_MOD, socket, who, READABLE | WRITABLE)
    }

    /// Forgets a socket that lives on elsewhere.
    pub fn forget(&self, socket: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket, Who::Guest(Key { slot: 0, generation: 0 }))
    }

    fn control(&self, what: libc::c_int, socket: &impl AsRawFd, who: Who) -> io::Result<()> {
        // What guests are sent fits into an empty socket, nearly always.
        let wanted = if matches!(who, Who::Guest(_)) { READABLE } else { READABLE | WRITABLE };
        self.control_for(what, socket, who, wanted)
    }

    fn control_for(&self, what: libc::c_int, socket: &impl AsRawFd, who: Who, wanted: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: wanted | EDGES, u64: number(who) };
        // SAFETY: two open descriptors, and an event on the stack that the kernel copies.
        let done = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), what, socket.as_raw_fd(), &mut event) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Tells what became ready, a bounded number; the rest keeps the handle readable.
    pub fn look(&mut self, mut tell: impl FnMut(Ready)) {
        let events = &mut *self.events;
        // SAFETY: pointer and length are those of one exclusive slice; a time of zero never waits.
        let found = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), events.len() as i32, 0) };
        // It fails only when a signal comes first, and then the handle stays readable.
        for event in &events[..usize::try_from(found).unwrap_or(0)] {
            let (bits, number) = (event.events, event.u64);
            tell(Ready {
                who: who(number),
                is_readable: bits & READABLE != 0,
                is_ended: bits & ENDED != 0,
                is_writable: bits & WRITABLE != 0,
            });
        }
    }
}

/// No table has so many places that these bits of a slot were used.
const GUEST: u32 = 1 << 31;
const REGULAR: u32 = 1 << 30;
const _: () = assert!(CONNS_PER_SHARD_MAX + REGULARS_MAX < REGULAR as usize);
const _: () = assert!(HANDSHAKES_MAX < REGULAR as usize);

fn number(who: Who) -> u64 {
    let (key, kind) = match who {
        Who::Conn(conn) => (conn.0, 0),
        Who::Guest(key) => (key, GUEST),
        Who::Regular(key) => (key, REGULAR),
    };
    u64::from(key.generation) << 32 | u64::from(key.slot | kind)
}

fn who(number: u64) -> Who {
    let (slot, generation) = (number as u32, (number >> 32) as u32);
    let key = Key { slot: slot & !(GUEST | REGULAR), generation };
    match slot & (GUEST | REGULAR) {
        0 => Who::Conn(ConnId(key)),
        REGULAR => Who::Regular(key),
        _ => Who::Guest(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::socket::{self, Shut};
    use std::os::unix::net::UnixStream;

    const READY_MAX: usize = 256;

    fn pair() -> (OwnedFd, OwnedFd) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours.into(), theirs.into())
    }

    fn look(readiness: &mut Readiness) -> Vec<Ready> {
        let mut found = Vec::new();
        readiness.look(|ready| found.push(ready));
        found
    }

    #[test]
    fn a_socket_is_named_once_for_each_time_it_becomes_ready() {
        let mut readiness = Readiness::new(READY_MAX).unwrap();
        let (ours, theirs) = pair();
        let me = Who::Conn(ConnId(Key { slot: 0x0BCD_EF01, generation: 0xFEDC_BA98 }));
        readiness.watch(&ours, me).unwrap();
        let named = |is_readable, is_ended| Ready { who: me, is_readable, is_ended, is_writable: true };
        assert_eq!(look(&mut readiness), [named(false, false)], "a new socket takes bytes");
        assert_eq!(look(&mut readiness), []);
        socket::send(theirs.as_raw_fd(), b"x").unwrap();
        assert_eq!(look(&mut readiness), [named(true, false)]);
        assert_eq!(look(&mut readiness), [], "told, though nothing was read");
        socket::send(theirs.as_raw_fd(), b"x").unwrap();
        assert_eq!(look(&mut readiness), [named(true, false)]);
        socket::shut(theirs.as_raw_fd(), Shut::Sending);
        assert_eq!(look(&mut readiness), [named(true, true)], "the end, behind bytes");
        drop(ours);
        drop(theirs);
        assert_eq!(look(&mut readiness), [], "a closed socket is not named");
    }

    #[test]
    fn a_guest_becomes_a_connection_and_what_it_said_meanwhile_is_told() {
        let mut readiness = Readiness::new(READY_MAX).unwrap();
        let (ours, theirs) = pair();
        let key = Key { slot: 0x0BCD_EF01, generation: 0xFEDC_BA98 };
        readiness.watch(&ours, Who::Guest(key)).unwrap();
        assert_eq!(look(&mut readiness), [], "it takes bytes, which nobody asked");
        socket::send(theirs.as_raw_fd(), b"x").unwrap();
        let found = look(&mut readiness);
        assert!(matches!(found[..], [Ready { who: Who::Guest(guest), is_readable: true, .. }] if guest == key));
        readiness.rename(&ours, Who::Conn(ConnId(key))).unwrap();
        let found = look(&mut readiness);
        assert!(
            matches!(found[..], [Ready { who: Who::Conn(conn), is_readable: true, is_writable: true, .. }] if conn.0 == key)
        );
        readiness.forget(&ours).unwrap();
        socket::send(theirs.as_raw_fd(), b"x").unwrap();
        assert_eq!(look(&mut readiness), []);
        assert!(readiness.rename(&ours, Who::Guest(key)).is_err(), "who is not watched has no name");
    }

    #[test]
    fn a_socket_that_was_full_is_named_once_it_takes_bytes_again() {
        let mut readiness = Readiness::new(READY_MAX).unwrap();
        let (ours, theirs) = pair();
        let chunk = vec![0u8; 1 << 16];
        readiness.watch(&ours, who(7)).unwrap();
        while socket::send(ours.as_raw_fd(), &chunk).is_ok() {}
        look(&mut readiness);
        assert_eq!(look(&mut readiness), []);
        let mut buffer = vec![0u8; 1 << 16];
        while socket::receive(theirs.as_raw_fd(), &mut buffer).is_ok() {}
        let found = look(&mut readiness);
        assert!(matches!(found[..], [Ready { is_writable: true, is_readable: false, .. }]), "{found:?}");
    }

    #[test]
    fn what_came_before_the_watch_is_told_and_more_than_one_look_holds_is_kept() {
        let mut readiness = Readiness::new(READY_MAX).unwrap();
        let pairs: Vec<_> = (0..READY_MAX as u64 + 1).map(|_| pair()).collect();
        for (number, (ours, theirs)) in (0..).zip(&pairs) {
            socket::send(theirs.as_raw_fd(), b"x").unwrap();
            readiness.watch(ours, who(number)).unwrap();
        }
        let mut named: Vec<_> = look(&mut readiness);
        assert_eq!(named.len(), READY_MAX);
        named.extend(look(&mut readiness));
        assert!(named.iter().all(|ready| ready.is_readable));
        let mut numbers: Vec<_> = named.iter().map(|ready| number(ready.who)).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..READY_MAX as u64 + 1).collect::<Vec<_>>());
    }
}
