//! Streams of server-sent events: how far each client is in its rooms, which it is told with every message and
//! brings back, and what it asks by requests of their own, whose replies go back the same way.
//! Invariants: the position in an event's id is behind that very event, so a client that comes back with it
//! misses nothing and gets nothing twice; a request is answered once, by its reply or by the stream's end.

use crate::base::hash;
use crate::base::limits::{EMITS_HELD_BYTES_MAX, EMITS_MAX, FULL_RETRY};
use crate::base::pages::Pages;
use crate::kernel::Kernel;
use crate::kernel::budget::Account;
use crate::kernel::carriers::{PollAnswer, PollId};
use crate::kernel::conns::Flags;
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Class, Entry, Frame, Shared};
use crate::kernel::ids::{ConnId, Cursor, Epoch, Pos, RoomId, Seq, ShardId};
use crate::wire::codes::{ErrorCode, WireError};
use crate::wire::{encode, sse};
use std::collections::VecDeque;
use std::rc::Rc;

/// In no room's order: what is asked for from there is answered with a gap.
const NOWHERE: Pos = Pos { epoch: Epoch(0), seq: Seq(0) };

pub struct Stream {
    pub secret: [u8; 12],
    /// Whoever knows the secret may speak for it: its user has no token.
    pub is_anonymous: bool,
    /// A hash of the rooms' names: positions are told in the order of a query, and hold for no other.
    list: u64,
    /// The user's own, and then those of the query.
    followed: Box<[Followed]>,
    /// Requests whose replies are to come.
    emits: Vec<PollId>,
    /// Requests that came while others waited for credit.
    held: VecDeque<(PollId, Box<[u8]>)>,
}

struct Followed {
    name: Box<str>,
    at: Option<(ShardId, RoomId)>,
    pos: Option<Pos>,
}

impl Stream {
    /// `own`: the user's own room; `last`: the id of the last event that its client has.
    pub fn new(secret: [u8; 12], own: Option<&str>, rooms: &[Box<str>], last: Option<&str>) -> Stream {
        let parts: Vec<&[u8]> = rooms.iter().map(|room| room.as_bytes()).collect();
        let list = hash::stable(&parts);
        let known = last.map(|last| sse::positions(last, list, rooms.len() + 1));
        let pos = |nth: usize| match &known {
            None => None,
            Some(None) => Some(NOWHERE),
            Some(Some(positions)) => positions[nth].map(|text| match Cursor::parse(text) {
                Some(Cursor::Pos(pos)) => pos,
                _ => NOWHERE,
            }),
        };
        let names = std::iter::once(own.unwrap_or_default()).chain(rooms.iter().map(|room| &**room));
        let followed = names.enumerate().map(|(nth, name)| {
            let pos = pos(nth).filter(|_| !name.is_empty());
            Followed { name: name.into(), at: None, pos }
        });
        Stream {
            secret,
            is_anonymous: own.is_none(),
            list,
            followed: followed.collect(),
            emits: Vec::new(),
            held: VecDeque::new(),
        }
    }

    /// From where the client is to be told what it missed in its user's own room.
    pub fn own_since(&self) -> Option<Cursor> {
        self.followed[0].pos.map(Cursor::Pos)
    }

    /// The rooms of its query, and from where it is to be told what it missed.
    pub fn rooms(&self) -> impl Iterator<Item = (&str, Option<Pos>)> {
        self.followed[1..].iter().map(|followed| (&*followed.name, followed.pos))
    }

    fn pass(&mut self, at: (ShardId, RoomId), seq: Seq) -> bool {
        let followed = self.followed.iter_mut().find(|followed| followed.at == Some(at));
        let pos = followed.and_then(|followed| followed.pos.as_mut());
        pos.map(|pos| pos.seq = seq).is_some()
    }
}

/// By the slots of their connections; no memory where nobody has one.
#[derive(Default)]
pub struct Streams {
    streams: Pages<Option<Box<Stream>>>,
    line: Vec<u8>,
    /// Of all requests that are held.
    held_bytes: usize,
    /// Whose held requests may go on.
    pub due: Vec<ConnId>,
}

impl Streams {
    pub fn insert(&mut self, conn: ConnId, stream: Stream) {
        let slot = conn.0.slot as usize;
        while self.streams.len() <= slot {
            self.streams.push(None);
        }
        self.streams[slot] = Some(Box::new(stream));
    }

    /// The stream of an open connection.
    pub fn get(&self, conn: ConnId) -> Option<&Stream> {
        self.streams.get(conn.0.slot as usize)?.as_deref()
    }

    fn get_mut(&mut self, conn: ConnId) -> Option<&mut Stream> {
        self.streams.get_mut(conn.0.slot as usize)?.as_deref_mut()
    }

    fn remove(&mut self, conn: ConnId) -> Option<Box<Stream>> {
        self.streams.get_mut(conn.0.slot as usize)?.take()
    }

    /// The line that goes before `entry`, a message of the room `at`, for who has a position there.
    pub fn pass(
        &mut self,
        conn: ConnId,
        at: (ShardId, RoomId),
        entry: &Entry,
        account: &Rc<Account>,
    ) -> Option<Shared> {
        let place = entry.place.filter(|_| entry.class == Class::Logged)?;
        if !self.get_mut(conn)?.pass(at, place.seq) {
            return None;
        }
        self.id(conn, account)
    }

    /// The line that says how far a client is.
    pub fn id(&mut self, conn: ConnId, account: &Rc<Account>) -> Option<Shared> {
        let stream = self.streams.get(conn.0.slot as usize)?.as_deref()?;
        self.line.clear();
        let positions =
            stream.followed.iter().map(|followed| followed.pos.map(|pos| move |out: &mut Vec<u8>| pos.put(out)));
        sse::id(&mut self.line, stream.list, positions);
        Some(Frame::logged(account, &self.line))
    }

    /// A client is in the room `name`, from `pos` on.
    pub fn attached(&mut self, conn: ConnId, name: &str, at: (ShardId, RoomId), pos: Pos) {
        let Some(stream) = self.get_mut(conn) else { return };
        for followed in stream.followed.iter_mut().filter(|followed| &*followed.name == name) {
            (followed.at, followed.pos) = (Some(at), Some(pos));
        }
    }
}

impl Kernel {
    /// Takes in a request of a stream's client, and gives it back where it can go on at once.
    pub fn take_emit<'a>(
        &mut self,
        conn: ConnId,
        poll: PollId,
        message: &'a [u8],
        effects: &mut Effects,
    ) -> Option<&'a [u8]> {
        let is_paused = self.conns.row(conn).is_some_and(|row| row.flags.has(Flags::PAUSED));
        let is_open = self.conns.is_open(conn);
        let held_bytes = self.streams.held_bytes;
        let Some(stream) = self.streams.get_mut(conn).filter(|_| is_open) else {
            refuse(poll, &sse::unknown(), effects);
            return None;
        };
        let waits = is_paused || !stream.held.is_empty();
        // No more than would be left to the others: however much one sends, who comes next finds room.
        let own: usize = stream.held.iter().map(|(_, held)| held.len()).sum();
        let left = EMITS_HELD_BYTES_MAX.saturating_sub(held_bytes + message.len());
        if stream.emits.len() >= EMITS_MAX || waits && own + message.len() > left {
            let message = "too many requests wait; send on when those of this connection are answered";
            let retry_after_ms = Some(FULL_RETRY.as_millis() as u64);
            let error = WireError { retry_after_ms, ..WireError::new(ErrorCode::RateLimited, message) };
            self.counters.error(&error);
            refuse(poll, &error, effects);
            return None;
        }
        stream.emits.push(poll);
        self.counters.emits += 1;
        if waits {
            stream.held.push_back((poll, message.into()));
            self.streams.held_bytes += message.len();
            return None;
        }
        Some(message)
    }

    /// The next request that was held, once the connection is no longer paused.
    pub fn next_held(&mut self, conn: ConnId) -> Option<(PollId, Box<[u8]>)> {
        let is_going = self.conns.row(conn).is_some_and(|row| row.is_open() && !row.flags.has(Flags::PAUSED));
        let held = self.streams.get_mut(conn).filter(|_| is_going)?.held.pop_front()?;
        self.streams.held_bytes -= held.1.len();
        Some(held)
    }

    /// Answers a request of a stream's client, unless that was done.
    pub fn answer_emit(
        &mut self,
        conn: ConnId,
        poll: PollId,
        error: Option<&WireError>,
        body: &[u8],
        effects: &mut Effects,
    ) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        let Some(nth) = stream.emits.iter().position(|emit| *emit == poll) else { return };
        stream.emits.swap_remove(nth);
        let refused = error.map(|error| (error.code, error.retry_after_ms));
        effects.polls.push((poll, PollAnswer::Reply { refused, body: body.to_vec() }));
    }

    /// Who asked is no longer there.
    pub fn forget_emit(&mut self, conn: ConnId, poll: PollId) {
        let Some(stream) = self.streams.get_mut(conn) else { return };
        stream.emits.retain(|emit| *emit != poll);
        let nth = stream.held.iter().position(|(emit, _)| *emit == poll);
        if let Some((_, message)) = nth.and_then(|nth| stream.held.remove(nth)) {
            self.streams.held_bytes -= message.len();
        }
    }

    /// The stream has ended: nothing that its client asked has a reply any more.
    pub(super) fn end_stream(&mut self, conn: ConnId, effects: &mut Effects) {
        let Some(stream) = self.streams.remove(conn) else { return };
        self.counters.streams_gone += 1;
        self.streams.held_bytes -= stream.held.iter().map(|(_, message)| message.len()).sum::<usize>();
        stream.emits.into_iter().for_each(|poll| refuse(poll, &sse::unknown(), effects));
    }
}

/// Answers a request that became nothing.
fn refuse(poll: PollId, error: &WireError, effects: &mut Effects) {
    let mut body = br#"{"id":null,"ok":false,"error":"#.to_vec();
    encode::error_object(&mut body, error);
    body.push(b'}');
    effects.polls.push((poll, PollAnswer::Reply { refused: Some((error.code, error.retry_after_ms)), body }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::table::Key;

    fn stream(last: Option<&str>) -> Stream {
        Stream::new([0; 12], Some("user:alice"), &["a".into(), "b".into()], last)
    }

    fn since(stream: &Stream) -> Vec<Option<Pos>> {
        stream.followed.iter().map(|followed| followed.pos).collect()
    }

    #[test]
    fn a_client_comes_back_to_where_it_was_in_each_room() {
        let (conn, account) = (ConnId(Key { slot: 3, generation: 1 }), Rc::default());
        let mut streams = Streams::default();
        assert!(streams.id(conn, &account).is_none());
        streams.insert(conn, stream(None));
        let pos = |seq| Pos { epoch: Epoch(7), seq: Seq(seq) };
        let at = |slot| (ShardId(0), RoomId(Key { slot, generation: 0 }));
        streams.attached(conn, "b", at(2), pos(40));
        streams.attached(conn, "user:alice", at(1), pos(0));
        streams.attached(conn, "elsewhere", at(9), pos(1));
        assert!(streams.get_mut(conn).unwrap().pass(at(2), Seq(41)));
        assert!(!streams.get_mut(conn).unwrap().pass(at(9), Seq(2)), "no room of its query");
        let line = String::from_utf8(streams.id(conn, &account).unwrap().bytes().to_vec()).unwrap();
        let id = line.strip_prefix("id: ").unwrap().trim_end();
        assert_eq!(since(&stream(Some(id))), [Some(pos(0)), None, Some(pos(41))]);
        let other = Stream::new([0; 12], Some("user:alice"), &["b".into(), "a".into()], Some(id));
        assert_eq!(since(&other), [Some(NOWHERE); 3], "positions of another list are none");
        assert_eq!(since(&stream(Some("rubbish"))), [Some(NOWHERE); 3]);
        let nobody = Stream::new([0; 12], None, &["a".into(), "b".into()], Some(id));
        assert_eq!(since(&nobody), [None, None, Some(pos(41))], "whoever has no token has another name each time");
    }
}
