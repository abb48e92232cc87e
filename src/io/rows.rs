//! The sockets of a shard's connections, by the slot of the connection.
//! Invariant: between two reads a connection owns no buffer, unless a message is under way or the
//! core has asked it to wait in the middle of a read; and it is counted in the crowd from the
//! insertion of its row to its removal.

use crate::base::limits::DISCARD_BYTES_MAX;
use crate::base::pages::Pages;
use crate::io::control::Held;
use crate::io::crowd::{Bucket, Counted, Crowd};
use crate::io::socket::Shut;
use crate::io::stream::{Got, Stream};
use crate::kernel::ids::ConnId;
use crate::wire::assembler::{Assembler, MessageLimits};
use crate::wire::dialect::DialectId;
use std::collections::{HashMap, VecDeque};
use std::io;

pub struct Row {
    pub conn: ConnId,
    pub socket: Stream,
    /// Thrown away since it is closing, KiB; each read counts as one at least.
    discarded_kib: u16,
    pub standing: Standing,
    /// The sending side was shut, or a write failed: nothing more is offered.
    pub is_mute: bool,
    /// Bytes are with the egress, and the core has not heard what became of them.
    pub is_offered: bool,
    /// The socket took less than it was offered, and has not said that it takes more.
    pub is_blocked: bool,
    /// The socket said that it has something, once, and it was not all read.
    pub is_readable: bool,
    /// Behind what it has is its end, so a short read does not mean that there is no more.
    pub is_ended: bool,
    pub dialect: DialectId,
    /// Among those whose turn to be read comes.
    is_queued: bool,
    /// What a read began and did not end.
    under_way: Option<Box<UnderWay>>,
    counted: Option<Bucket>,
}

// One per connection, and tens of thousands of them idle.
const _: () = assert!(size_of::<Option<Row>>() <= 48);
const _: () = assert!(DISCARD_BYTES_MAX / 1_024 <= u16::MAX as usize);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Open,
    /// The last frame is queued or written; what the peer still says is thrown away.
    Closing,
    /// Closing, and the peer said goodbye first, with nothing behind it: closed once it has its answer
    /// (`RFC 6455` section 7.1.1: the server is the first to).
    Leaving,
    /// To be closed at once.
    Reset,
}

pub struct UnderWay {
    pub assembler: Assembler,
    /// Read, and not yet wanted by the core.
    pub held: Vec<u8>,
}

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    Bytes(usize),
    /// For now.
    Nothing,
    End,
}

impl Row {
    /// `rest` came before; messages that begin in it are within `limits`.
    pub fn new(conn: ConnId, socket: Stream, dialect: DialectId, rest: Vec<u8>, limits: MessageLimits) -> Row {
        let mut row = Row {
            conn,
            // What was taken from the socket already nobody tells of.
            is_readable: socket.has_over(),
            socket,
            discarded_kib: 0,
            standing: Standing::Open,
            is_mute: false,
            is_offered: false,
            is_blocked: false,
            is_ended: false,
            dialect,
            is_queued: false,
            under_way: None,
            counted: None,
        };
        row.keep(UnderWay { held: rest, ..UnderWay::new(limits) });
        row
    }

    pub fn mute(&mut self, what: Shut) {
        self.is_mute = true;
        self.socket.shut(what);
    }

    /// Reads what the socket has, as much as fits.
    pub fn receive(&mut self, into: &mut [u8]) -> Received {
        if !self.is_readable {
            return Received::Nothing;
        }
        match self.socket.receive(into) {
            Ok(Got { bytes: 0, .. }) => Received::End,
            Ok(Got { bytes, has_more }) => {
                self.is_readable = has_more || self.is_ended;
                Received::Bytes(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Received::Nothing
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Received::Nothing,
            Err(_) => Received::End,
        }
    }

    /// Notes that a read was thrown away. False when it is enough.
    pub fn discard(&mut self, bytes: usize) -> bool {
        let kib = u16::try_from(bytes.div_ceil(1_024)).unwrap_or(u16::MAX);
        self.discarded_kib = self.discarded_kib.saturating_add(kib);
        usize::from(self.discarded_kib) < DISCARD_BYTES_MAX / 1_024
    }

    /// Takes what an earlier read began; else begins, with messages within `limits`.
    pub fn resume(&mut self, limits: MessageLimits) -> UnderWay {
        self.under_way.take().map_or_else(|| UnderWay::new(limits), |under_way| *under_way)
    }

    /// Drops what an earlier read began.
    pub fn forget(&mut self) {
        self.under_way = None;
    }

    /// Remembers what a read did not end, if it left anything.
    pub fn keep(&mut self, under_way: UnderWay) {
        if !under_way.held.is_empty() || under_way.assembler.bytes_held() > 0 {
            self.under_way = Some(Box::new(under_way));
        }
    }

    /// Another turn would find something, in the socket or held.
    pub fn has_more(&self) -> bool {
        self.is_readable || self.under_way.as_ref().is_some_and(|under_way| !under_way.held.is_empty())
    }

    /// Puts the connection into the queue of those to be read, once.
    pub fn queue(&mut self, queue: &mut VecDeque<ConnId>) {
        if !self.is_queued {
            self.is_queued = true;
            queue.push_back(self.conn);
        }
    }

    pub fn leave_queue(&mut self) {
        self.is_queued = false;
    }
}

impl UnderWay {
    fn new(limits: MessageLimits) -> UnderWay {
        UnderWay { assembler: Assembler::new(limits), held: Vec::new() }
    }
}

pub struct Rows {
    rows: Pages<Option<Row>>,
    crowd: Crowd,
    /// By slot: what is counted of connections where that is limited, and of no others; they may have no row.
    held: HashMap<u32, Held>,
}

impl Rows {
    /// `crowd`: where the connections are counted.
    pub fn new(crowd: Crowd) -> Rows {
        Rows { rows: Pages::default(), crowd, held: HashMap::new() }
    }

    /// Keeps what is counted of a connection until it goes.
    pub fn hold(&mut self, conn: ConnId, held: Held) {
        if !held.is_nothing() {
            self.held.insert(conn.0.slot, held);
        }
    }

    /// Gives back what is counted of a connection that has no row.
    pub fn let_go(&mut self, conn: ConnId) {
        if !self.held.is_empty() {
            self.held.remove(&conn.0.slot);
        }
    }

    /// A connection's socket is another's from now on, which has none.
    pub fn rename(&mut self, old: ConnId, new: ConnId) -> Option<&mut Row> {
        self.get_mut(old)?;
        let mut row = self.rows[old.0.slot as usize].take()?;
        self.let_go(old);
        row.conn = new;
        self.place(row)
    }

    pub fn insert(&mut self, mut row: Row, counted: Option<Counted>, held: Held) {
        self.hold(row.conn, held);
        row.counted = counted.map(Counted::into_bucket);
        self.place(row);
    }

    fn place(&mut self, row: Row) -> Option<&mut Row> {
        let slot = row.conn.0.slot as usize;
        while self.rows.len() <= slot {
            self.rows.push(None);
        }
        self.rows[slot] = Some(row);
        self.rows[slot].as_mut()
    }

    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Row> {
        self.rows.get_mut(conn.0.slot as usize)?.as_mut().filter(|row| row.conn == conn)
    }

    /// `None`: it has gone already.
    pub fn remove(&mut self, conn: ConnId) -> Option<Row> {
        self.get_mut(conn)?;
        let row = self.rows[conn.0.slot as usize].take()?;
        self.let_go(conn);
        self.take_off(&row);
        Some(row)
    }

    fn take_off(&self, row: &Row) {
        if let Some(bucket) = row.counted {
            self.crowd.leave(bucket);
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.rows.iter().flatten().for_each(|row| self.take_off(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::table::Key;
    use crate::io::socket;
    use crate::wire::deflate::Inflater;
    use crate::wire::dialect::NATIVE_JSON;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn conn(slot: u32, generation: u32) -> ConnId {
        ConnId(Key { slot, generation })
    }

    fn row(conn: ConnId) -> (Row, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Row::new(conn, ours.into(), NATIVE_JSON, Vec::new(), MessageLimits::default()), theirs)
    }

    #[test]
    fn a_row_is_found_by_its_own_connection_only() {
        let mut rows = Rows::new(Crowd::default());
        rows.insert(row(conn(3, 1)).0, None, Held::default());
        assert!(rows.get_mut(conn(3, 1)).is_some());
        assert!(rows.get_mut(conn(3, 0)).is_none());
        assert!(rows.get_mut(conn(2, 1)).is_none());
        assert!(rows.get_mut(conn(4, 1)).is_none());
        assert!(rows.remove(conn(3, 0)).is_none());
        assert!(rows.remove(conn(3, 1)).is_some());
        assert!(rows.remove(conn(3, 1)).is_none());
    }

    #[test]
    fn a_connection_is_counted_while_it_has_a_row() {
        let crowd = Crowd::default();
        let mut rows = Rows::new(crowd.clone());
        for slot in 0..2 {
            rows.insert(row(conn(slot, 0)).0, crowd.enter("t", "alice").0, Held::default());
        }
        assert_eq!(crowd.enter("t", "alice").1, 2);
        rows.remove(conn(0, 0));
        assert_eq!(crowd.enter("t", "alice").1, 1);
        drop(rows);
        assert_eq!(crowd.enter("t", "alice").1, 0);
    }

    #[test]
    fn what_is_counted_of_a_connection_is_given_back_with_its_row() {
        let users = std::sync::Arc::new(crate::io::users::Users::new([1, 2]));
        let mut rows = Rows::new(Crowd::default());
        let held = Held { user: users.enter("t", "alice", 1), ..Held::default() };
        rows.insert(row(conn(7, 0)).0, None, held);
        rows.insert(row(conn(8, 0)).0, None, Held::default());
        rows.remove(conn(8, 0));
        assert!(users.enter("t", "alice", 1).is_none());
        rows.remove(conn(7, 0));
        assert!(users.enter("t", "alice", 1).is_some() && rows.held.is_empty());
    }

    #[test]
    fn a_row_that_is_renamed_keeps_its_socket_and_what_was_counted_of_each() {
        let users = std::sync::Arc::new(crate::io::users::Users::new([1, 2]));
        let hold = |user| Held { user: users.enter("t", user, 1), ..Held::default() };
        let mut rows = Rows::new(Crowd::default());
        rows.hold(conn(1, 4), hold("session"));
        rows.insert(row(conn(2, 5)).0, None, hold("probe"));
        assert_eq!(rows.rename(conn(2, 5), conn(1, 4)).map(|row| row.conn), Some(conn(1, 4)));
        assert!(rows.get_mut(conn(2, 5)).is_none() && rows.rename(conn(2, 5), conn(1, 4)).is_none());
        assert!(users.enter("t", "probe", 1).is_some() && users.enter("t", "session", 1).is_none());
        assert!(rows.remove(conn(1, 4)).is_some());
        assert!(users.enter("t", "session", 1).is_some() && rows.held.is_empty());
    }

    #[test]
    fn a_peer_that_is_not_listened_to_any_more_may_say_a_bounded_lot() {
        let (mut row, _theirs) = row(conn(0, 0));
        assert!(row.discard(1), "a little");
        assert!(row.discard(DISCARD_BYTES_MAX / 2));
        assert!(!row.discard(DISCARD_BYTES_MAX / 2));
        assert!(!row.discard(usize::MAX), "and stays so");
    }

    #[test]
    fn a_socket_is_read_until_it_has_no_more_or_ends() {
        let (mut row, theirs) = row(conn(0, 0));
        let mut buffer = [0; 4];
        socket::send(theirs.as_raw_fd(), b"abcdef").unwrap();
        assert_eq!(row.receive(&mut buffer), Received::Nothing, "it said nothing yet");
        row.is_readable = true;
        assert_eq!(row.receive(&mut buffer), Received::Bytes(4));
        assert!(row.has_more(), "the buffer was full");
        assert_eq!(row.receive(&mut buffer), Received::Bytes(2));
        assert!(!row.has_more());
        row.is_readable = true;
        assert_eq!(row.receive(&mut buffer), Received::Nothing);
        assert!(!row.has_more());
        socket::send(theirs.as_raw_fd(), b"g").unwrap();
        drop(theirs);
        (row.is_readable, row.is_ended) = (true, true);
        assert_eq!(row.receive(&mut buffer), Received::Bytes(1));
        assert!(row.has_more(), "the end is behind it");
        assert_eq!(row.receive(&mut buffer), Received::End);
    }

    #[test]
    fn only_what_is_under_way_owns_memory() {
        let (mut row, _theirs) = row(conn(0, 0));
        row.keep(UnderWay::new(MessageLimits::default()));
        assert!(row.under_way.is_none());
        row.keep(UnderWay { held: vec![1], ..UnderWay::new(MessageLimits::default()) });
        assert!(row.has_more());
        assert_eq!(row.resume(MessageLimits::default()).held, [1]);
        assert!(!row.has_more());
        let mut under_way = row.resume(MessageLimits::default());
        assert_eq!(under_way.assembler.next(&mut [0x81], &mut 0, &mut Inflater::default()), Ok(None));
        row.keep(under_way);
        assert!(row.under_way.is_some() && !row.has_more(), "half a header is kept and waits for the rest");
    }
}
