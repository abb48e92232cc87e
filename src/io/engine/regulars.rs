//! Regulars: sockets of clients that poll, which ask over HTTP again and again. A regular costs its row,
//! what it has under way, and no task.
//! Invariant: whoever does the same stands in one line, in the order in which it began, and `bytes_held`
//! is what all of them hold of requests and answers. A socket whose answer waits to be written is read
//! no further.

use crate::admission::names::User;
use crate::base::limits::{KEEP_ALIVE_TIME, REGULARS_BYTES_MAX, REGULARS_MAX, STALL_TIME_MAX};
use crate::base::table::{Key, Table};
use crate::base::time::Instant;
use crate::io::engine::answers::Manner;
use crate::io::entrance::Peer;
use crate::io::stream::{Got, Stream};
use crate::kernel::carriers::PollId;
use crate::kernel::ids::ConnId;
use crate::wire::body::Body;
use crate::wire::http::HeadScan;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

pub struct Regular {
    pub socket: Stream,
    pub peer: Peer,
    pub stage: Stage,
    /// The socket said that it has something, once, and it was not all read.
    pub is_readable: bool,
    /// Behind what it has is its end.
    pub is_ended: bool,
}

/// What a regular does.
pub enum Stage {
    /// It says what it wants, or nothing for now.
    Asks { bytes: Vec<u8>, scan: HeadScan },
    /// It brings packets.
    Posts(Box<Post>),
    /// It brings a request for a stream.
    Emits(Box<Emit>),
    /// It brought them, and the core takes one after the other.
    IsHeard(Box<Posted>),
    /// It waits for packets, or for a reply.
    Waits(Box<Parked>),
    /// It is given an answer that its socket did not take at once.
    IsTold(Box<Told>),
}

pub struct Post {
    pub conn: ConnId,
    pub manner: Manner,
    pub body: Body,
}

/// For which stream, its body says.
pub struct Emit {
    /// Who asks; `None`: somebody without a token.
    pub user: Option<User>,
    pub manner: Manner,
    pub body: Body,
    /// What came behind the request.
    pub ahead: Vec<u8>,
}

pub struct Posted {
    pub conn: ConnId,
    pub manner: Manner,
    pub body: Vec<u8>,
    /// Where what the core has not had begins.
    pub at: usize,
    /// What came behind the request.
    pub ahead: Vec<u8>,
}

pub struct Parked {
    pub conn: ConnId,
    pub manner: Manner,
    pub ahead: Vec<u8>,
    /// It is a reply that it waits for.
    pub is_emit: bool,
}

pub struct Told {
    /// Whose packets they are.
    pub conn: Option<ConnId>,
    rest: Vec<u8>,
    at: usize,
    keeps: bool,
    /// The socket takes no more for good.
    is_broken: bool,
    ahead: Vec<u8>,
}

/// An answer.
pub struct Answer<'a> {
    pub head: Vec<u8>,
    pub body: &'a [u8],
    /// Whether the next request is waited for.
    pub keeps: bool,
    /// Whose packets these are, where it is a payload.
    pub conn: Option<ConnId>,
}

/// How far writing came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// All was written, and the next request may come.
    Whole,
    /// All was written, and it was the last.
    Last,
    Partly,
    /// The peer has gone.
    Broken,
}

impl Stage {
    pub fn asks(bytes: Vec<u8>) -> Stage {
        Stage::Asks { bytes, scan: HeadScan::default() }
    }
}

impl Regular {
    pub fn new(socket: Stream, peer: Peer, bytes: Vec<u8>) -> Regular {
        // What was taken from the socket already nobody tells of.
        let is_readable = socket.has_over();
        Regular { socket, peer, stage: Stage::asks(bytes), is_readable, is_ended: false }
    }

    /// Reads what the socket has, as much as fits; `None`: nothing for now. Zero bytes: it has ended.
    pub fn receive(&mut self, into: &mut [u8]) -> Option<usize> {
        if !self.is_readable {
            return None;
        }
        match self.socket.receive(into) {
            Ok(Got { bytes, has_more }) => {
                self.is_readable = has_more || self.is_ended;
                Some(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_) => Some(0),
        }
    }

    /// Writes an answer, as much as the socket takes, and has what is left of it written later. What came
    /// behind the request that it answers is heard then. Says how many bytes were written, too.
    pub fn tell(&mut self, answer: Answer<'_>) -> (Written, usize) {
        let Answer { head, body, keeps, conn } = answer;
        let ahead = match std::mem::replace(&mut self.stage, Stage::asks(Vec::new())) {
            Stage::Asks { bytes, .. } => bytes,
            Stage::Posts(_) => Vec::new(),
            Stage::Emits(emit) => emit.ahead,
            Stage::IsHeard(posted) => posted.ahead,
            Stage::Waits(parked) => parked.ahead,
            Stage::IsTold(_) => unreachable!("nothing was heard since"),
        };
        let bytes = head.len() + body.len();
        let sent = match body {
            [] => self.socket.send(&head),
            body => self.socket.send_gathered(&[&head, body]),
        };
        let (took, is_broken) = match sent {
            Ok(took) => (took, false),
            Err(error) => (0, error.kind() != io::ErrorKind::WouldBlock),
        };
        if took == bytes && keeps && !self.socket.owes() {
            self.stage = Stage::asks(ahead);
            return (Written::Whole, took);
        }
        let rest = match is_broken {
            true => Vec::new(),
            false => {
                let of_head = &head[took.min(head.len())..];
                [of_head, &body[took.saturating_sub(head.len())..]].concat()
            }
        };
        let told = Told { conn, rest, at: 0, keeps, is_broken, ahead };
        let written = told.written(&self.socket);
        self.stage = Stage::IsTold(Box::new(told));
        (written, took)
    }

    /// Writes on, and says whose packets these are and how many bytes were written. Whoever has the whole answer
    /// asks again.
    pub fn tell_on(&mut self) -> (Written, Option<ConnId>, usize) {
        let Stage::IsTold(told) = &mut self.stage else { return (Written::Whole, None, 0) };
        let before = told.at;
        while !told.is_broken && told.at < told.rest.len() {
            match self.socket.send(&told.rest[told.at..]) {
                Ok(took) => told.at += took,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => told.is_broken = true,
            }
        }
        if !told.is_broken
            && let Err(error) = self.socket.flush()
        {
            told.is_broken = error.kind() != io::ErrorKind::WouldBlock;
        }
        let (written, conn, took) = (told.written(&self.socket), told.conn, told.at - before);
        if written == Written::Whole {
            let ahead = std::mem::take(&mut told.ahead);
            self.stage = Stage::asks(ahead);
        }
        (written, conn, took)
    }

    /// Another turn would find something.
    pub fn has_more(&self) -> bool {
        match &self.stage {
            Stage::Asks { bytes, .. } => self.is_readable || !bytes.is_empty(),
            Stage::Posts(_) | Stage::Emits(_) => self.is_readable,
            Stage::Waits(_) => self.is_ended,
            Stage::IsHeard(_) => false,
            Stage::IsTold(told) => told.written(&self.socket) != Written::Partly,
        }
    }

    fn bytes_held(&self) -> usize {
        self.socket.bytes_held() + self.bytes_of_stage()
    }

    fn bytes_of_stage(&self) -> usize {
        match &self.stage {
            Stage::Asks { bytes, .. } => bytes.capacity(),
            Stage::Posts(post) => post.body.bytes_held(),
            Stage::Emits(emit) => emit.body.bytes_held() + emit.ahead.capacity(),
            Stage::IsHeard(posted) => posted.body.capacity() + posted.ahead.capacity(),
            Stage::Waits(parked) => parked.ahead.capacity(),
            Stage::IsTold(told) => told.rest.capacity() + told.ahead.capacity(),
        }
    }
}

impl Told {
    /// `socket`: what was encrypted for it may still be with it.
    fn written(&self, socket: &Stream) -> Written {
        match self.keeps {
            _ if self.is_broken => Written::Broken,
            _ if self.at < self.rest.len() || socket.owes() => Written::Partly,
            true => Written::Whole,
            false => Written::Last,
        }
    }
}

/// Who does the same. Those of one line have the same time for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    Idle,
    /// Head or body of a request is under way: one time for both.
    Talking,
    Told,
    Heard,
    Waiting,
}

const LINES: usize = 5;
const NOBODY: u32 = u32::MAX;

struct Row {
    regular: Regular,
    deadline: Instant,
    line: Line,
    /// Among those that are to be heard.
    is_listed: bool,
    /// Slots of who came before and after in the line.
    older: u32,
    newer: u32,
}

// One for each client that polls.
const _: () = assert!(size_of::<Row>() <= 112);

#[derive(Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
    len: usize,
}

pub struct Regulars {
    rows: Table<Row>,
    lines: [Ends; LINES],
    talking_time: Duration,
    bytes_held: usize,
    /// Who has something to say or to be told.
    to_hear: VecDeque<Key>,
}

impl Regulars {
    /// `talking_time`: from the first byte of a request to its last.
    pub fn new(talking_time: Duration) -> Regulars {
        let lines = [Ends { oldest: NOBODY, newest: NOBODY, len: 0 }; LINES];
        Regulars { rows: Table::default(), lines, talking_time, bytes_held: 0, to_hear: VecDeque::new() }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn enter(&mut self, regular: Regular, now: Instant) -> Key {
        self.bytes_held += regular.bytes_held();
        let line = line_of(&regular.stage);
        let row = Row { regular, deadline: now, line, is_listed: false, older: NOBODY, newer: NOBODY };
        let key = self.rows.insert(row);
        self.stand_in_line(key.slot, line, now);
        key
    }

    pub fn take(&mut self, key: Key) -> Option<Regular> {
        self.rows.get(key)?;
        self.leave_line(key.slot);
        let Row { regular, .. } = self.rows.remove(key)?;
        self.bytes_held -= regular.bytes_held();
        Some(regular)
    }

    /// Changes a regular; `None`: it has gone.
    pub fn with<T>(&mut self, key: Key, now: Instant, change: impl FnOnce(&mut Regular) -> T) -> Option<T> {
        let row = self.rows.get_mut(key)?;
        let before = (row.line, told(&row.regular), row.regular.bytes_held());
        let changed = change(&mut row.regular);
        let line = line_of(&row.regular.stage);
        let after = (line, told(&row.regular), row.regular.bytes_held());
        self.bytes_held = self.bytes_held - before.2 + after.2;
        if (before.0, before.1) != (after.0, after.1) {
            self.leave_line(key.slot);
            self.stand_in_line(key.slot, line, now);
        }
        Some(changed)
    }

    fn leave_line(&mut self, slot: u32) {
        let Some(row) = self.rows.at_mut(slot) else { return };
        let (older, newer, line) = (row.older, row.newer, row.line as usize);
        match self.rows.at_mut(older) {
            Some(row) => row.newer = newer,
            None => self.lines[line].oldest = newer,
        }
        match self.rows.at_mut(newer) {
            Some(row) => row.older = older,
            None => self.lines[line].newest = older,
        }
        self.lines[line].len -= 1;
    }

    fn stand_in_line(&mut self, slot: u32, line: Line, now: Instant) {
        let time = match line {
            Line::Idle => Some(KEEP_ALIVE_TIME),
            Line::Talking => Some(self.talking_time),
            Line::Told => Some(STALL_TIME_MAX),
            // The core bounds it.
            Line::Heard | Line::Waiting => None,
        };
        let ends = &mut self.lines[line as usize];
        let older = std::mem::replace(&mut ends.newest, slot);
        ends.len += 1;
        if older == NOBODY {
            ends.oldest = slot;
        }
        if let Some(row) = self.rows.at_mut(older) {
            row.newer = slot;
        }
        if let Some(row) = self.rows.at_mut(slot) {
            (row.line, row.older, row.newer) = (line, older, NOBODY);
            row.deadline = time.map_or(Instant::NEVER, |time| now.after(time));
        }
    }

    fn oldest(&self, line: Line) -> Option<(Key, &Row)> {
        self.rows.at(self.lines[line as usize].oldest)
    }

    /// Who is idle longest.
    pub fn idlest(&self) -> Option<Key> {
        self.oldest(Line::Idle).map(|(key, _)| key)
    }

    /// Who takes longest to bring a request, to take an answer, or to be heard.
    pub fn slowest(&self) -> Option<Key> {
        let lines = [Line::Talking, Line::Told, Line::Heard];
        lines.into_iter().find_map(|line| self.oldest(line)).map(|(key, _)| key)
    }

    /// Who has to go because there are too many, or hold too much.
    pub fn surplus(&self) -> Option<Key> {
        let bounded = [Line::Idle, Line::Talking, Line::Told, Line::Heard].map(|line| self.lines[line as usize].len);
        if bounded.iter().sum::<usize>() > REGULARS_MAX {
            return self.idlest().or_else(|| self.slowest());
        }
        if self.bytes_held > REGULARS_BYTES_MAX { self.slowest() } else { None }
    }

    /// Whether somebody who waits for packets may have something kept that it said too early.
    pub fn has_room_ahead(&self) -> bool {
        self.bytes_held <= REGULARS_BYTES_MAX / 2
    }

    /// Who has had its time.
    pub fn overdue(&self, now: Instant) -> Option<Key> {
        let lines = [Line::Idle, Line::Talking, Line::Told];
        lines.into_iter().filter_map(|line| self.oldest(line)).find(|(_, row)| row.deadline <= now).map(|(key, _)| key)
    }

    /// Notes what became of a socket. Says whether it is to be heard for it.
    pub fn note(&mut self, key: Key, is_readable: bool, is_ended: bool, is_writable: bool) -> bool {
        let Some(row) = self.rows.get_mut(key) else { return false };
        row.regular.is_readable |= is_readable;
        row.regular.is_ended |= is_ended;
        let is_told = matches!(row.regular.stage, Stage::IsTold(_));
        if is_writable && !is_told && row.regular.socket.owes() {
            // Messages of TLS itself. Whether the peer is there yet a read finds out.
            let before = row.regular.bytes_held();
            let _ = row.regular.socket.flush();
            self.bytes_held = self.bytes_held - before + row.regular.bytes_held();
        }
        let is_due = row.regular.has_more() || is_told && is_writable;
        if is_due {
            self.list(key);
        }
        is_due
    }

    /// Notes that a regular is to be heard.
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
}

fn line_of(stage: &Stage) -> Line {
    match stage {
        Stage::Asks { bytes, .. } if bytes.is_empty() => Line::Idle,
        Stage::Asks { .. } | Stage::Posts(_) | Stage::Emits(_) => Line::Talking,
        Stage::IsHeard(_) => Line::Heard,
        Stage::Waits(_) => Line::Waiting,
        Stage::IsTold(_) => Line::Told,
    }
}

/// Whoever takes some of its answer has time for the rest anew.
fn told(regular: &Regular) -> usize {
    if let Stage::IsTold(told) = &regular.stage { told.at } else { 0 }
}

/// What the core calls the GET of this regular.
pub fn poll_of(key: Key) -> PollId {
    PollId(u64::from(key.generation) << 32 | u64::from(key.slot))
}

pub fn key_of(poll: PollId) -> Key {
    Key { slot: poll.0 as u32, generation: (poll.0 >> 32) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::socket;
    use std::net::{IpAddr, Ipv4Addr};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    const TALKING: Duration = Duration::from_secs(10);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
    }

    fn regular(bytes: Vec<u8>) -> (Regular, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        (Regular::new(ours.into(), IpAddr::V4(Ipv4Addr::LOCALHOST).into(), bytes), peer)
    }

    fn answer(body: &[u8], keeps: bool) -> Answer<'_> {
        Answer { head: b"head ".to_vec(), body, keeps, conn: None }
    }

    fn body() -> Body {
        let text = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
        Body::of(&crate::wire::http::parse_head(text).unwrap().unwrap(), 100).unwrap()
    }

    fn posts() -> Stage {
        let text = b"POST / HTTP/1.1\r\n\r\n";
        let head = crate::wire::http::parse_head(text).unwrap().unwrap();
        let manner = Manner::of(&head, crate::admission::origins::Allowed::NoPage, true);
        Stage::Posts(Box::new(Post { conn: ConnId(Key { slot: 0, generation: 0 }), manner, body: body() }))
    }

    #[test]
    fn each_has_its_time_for_what_it_does() {
        let mut regulars = Regulars::new(TALKING);
        let keep_alive = KEEP_ALIVE_TIME.as_millis() as u64;
        let (idle, _idle) = regular(Vec::new());
        let idle = regulars.enter(idle, at(0));
        let (talks, _talks) = regular(b"GET".to_vec());
        let talks = regulars.enter(talks, at(0));
        // From the head to the body it has one time, however often something comes.
        regulars.with(talks, at(9_000), |regular| regular.stage = posts());
        assert_eq!(regulars.overdue(at(9_999)), None);
        assert_eq!(regulars.overdue(at(10_000)), Some(talks));
        regulars.with(talks, at(10_000), |regular| regular.stage = Stage::asks(Vec::new()));
        assert_eq!(regulars.overdue(at(keep_alive - 1)), None);
        assert_eq!(regulars.overdue(at(keep_alive)), Some(idle));
        assert_eq!(regulars.idlest(), Some(idle));
        assert!(regulars.take(idle).is_some() && regulars.take(idle).is_none());
        assert_eq!((regulars.idlest(), regulars.overdue(at(keep_alive))), (Some(talks), None));
        assert!(regulars.take(talks).is_some() && regulars.is_empty() && regulars.bytes_held == 0);
    }

    #[test]
    fn whoever_takes_some_of_its_answer_has_time_for_the_rest() {
        let mut regulars = Regulars::new(TALKING);
        let stall = STALL_TIME_MAX.as_millis() as u64;
        let payload = vec![b'x'; 1 << 20];
        let (regular, peer) = regular(Vec::new());
        let key = regulars.enter(regular, at(0));
        let told = regulars.with(key, at(0), |regular| regular.tell(answer(&payload, true)));
        assert!(matches!(told, Some((Written::Partly, 1..))));
        assert!(regulars.bytes_held > 0 && regulars.overdue(at(stall - 1)).is_none());
        assert_eq!(regulars.overdue(at(stall)), Some(key));
        let (mut heard, mut chunk) = (0, vec![0; 1 << 16]);
        let mut now = 0;
        while heard < payload.len() + 5 {
            let mut some = 0;
            while let Ok(got) = socket::receive(peer.as_raw_fd(), &mut chunk) {
                some += got;
            }
            assert!(some > 0, "{heard} bytes, and then nothing");
            heard += some;
            now += stall - 1;
            regulars.with(key, at(now), |regular| regular.tell_on());
            assert_eq!(regulars.overdue(at(now)), None);
        }
        assert_eq!((regulars.bytes_held, regulars.idlest()), (0, Some(key)));
    }

    #[test]
    fn an_answer_to_who_has_gone_is_broken_and_holds_nothing() {
        for keeps in [true, false] {
            let (mut regular, peer) = regular(Vec::new());
            drop(peer);
            assert_eq!(regular.tell(answer(b"body", keeps)), (Written::Broken, 0));
            assert_eq!((regular.has_more(), regular.bytes_held()), (true, 0));
        }
        let (mut regular, _peer) = regular(b"GET /".to_vec());
        assert_eq!(regular.tell(answer(b"body", false)), (Written::Last, 9));
        let (mut regular, _peer) = self::regular(b"GET /".to_vec());
        assert_eq!(regular.tell(answer(b"body", true)), (Written::Whole, 9));
        assert!(matches!(&regular.stage, Stage::Asks { bytes, .. } if bytes == b"GET /"), "what came behind is next");
    }

    #[test]
    fn who_holds_too_much_goes_the_slowest_first() {
        let mut regulars = Regulars::new(TALKING);
        let mut peers = Vec::new();
        let mut enter = |regulars: &mut Regulars, bytes| {
            let (regular, peer) = regular(Vec::with_capacity(bytes));
            peers.push(peer);
            let key = regulars.enter(regular, at(0));
            regulars.with(key, at(0), |regular| match &mut regular.stage {
                Stage::Asks { bytes, .. } => bytes.push(b'G'),
                _ => unreachable!("it has said nothing yet"),
            });
            key
        };
        let keys: Vec<_> = (0..4).map(|_| enter(&mut regulars, REGULARS_BYTES_MAX / 3)).collect();
        assert_eq!(regulars.surplus(), Some(keys[0]));
        regulars.take(keys[0]);
        assert_eq!(regulars.surplus(), None);
        assert!(!regulars.has_room_ahead());
        keys[1..].iter().for_each(|key| drop(regulars.take(*key)));
        assert_eq!(regulars.bytes_held, 0);
    }

    #[test]
    fn a_poll_is_named_after_its_regular() {
        let key = Key { slot: 0x89AB_CDEF, generation: 0xFEDC_BA98 };
        assert_eq!(key_of(poll_of(key)), key);
    }

    #[test]
    fn whoever_waits_for_packets_is_heard_only_when_it_ends() {
        let mut regulars = Regulars::new(TALKING);
        let (regular, _peer) = regular(Vec::new());
        let key = regulars.enter(regular, at(0));
        let head = crate::wire::http::parse_head(b"GET / HTTP/1.1\r\n\r\n").unwrap().unwrap();
        let manner = Manner::of(&head, crate::admission::origins::Allowed::NoPage, true);
        let conn = ConnId(Key { slot: 0, generation: 0 });
        let parked = Stage::Waits(Box::new(Parked { conn, manner, ahead: Vec::new(), is_emit: false }));
        regulars.with(key, at(0), |regular| regular.stage = parked);
        assert!(!regulars.note(key, true, false, true) && regulars.next_to_hear().is_none());
        assert_eq!((regulars.idlest(), regulars.slowest(), regulars.overdue(Instant::NEVER)), (None, None, None));
        assert!(regulars.note(key, true, true, false) && regulars.note(key, true, true, false));
        assert_eq!((regulars.next_to_hear(), regulars.next_to_hear()), (Some(key), None), "once");
    }
}
