//! Requests that wait for an answer from outside, on the connection's shard.
//! Invariants: of one connection and room one question is open at a time, and what that connection
//! asks of the room later waits behind it, in order; what waits is bounded by number and bytes, for
//! each connection and for the shard; each request leaves exactly once: by its answer, by the end of
//! its time, or with its connection. A connection without a question has no row here.

use crate::admission::gate::Asked;
use crate::admission::names::User;
use crate::admission::rates::Paid;
use crate::admission::rights::Right;
use crate::base::limits::{
    ANSWER_BYTES_MAX, ASKED_BEHIND_MAX, ASKED_BYTES_PER_CONN_MAX, ASKED_BYTES_PER_SHARD_MAX, ASKED_PER_CONN_MAX,
    ASKED_PER_SHARD_MAX, FULL_RETRY,
};
use crate::base::table::{Key, Table};
use crate::base::time::Now;
use crate::kernel::effects::Effects;
use crate::kernel::ids::{ConnId, RoomRef, ShardId};
use crate::kernel::mail::{Ask, Request};
use crate::kernel::{Kernel, Timer};
use crate::wire::codes::{ErrorCode, Limit, WireError};
use std::collections::{BTreeMap, VecDeque};

/// Names a question on the shard that asked it, once and never again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(Key);

/// What somebody outside is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// To be given back with the answer, to the shard that asked.
    pub ticket: Ticket,
    pub right: Right,
    pub room: RoomRef,
    /// Who asks; its tenant is the room's.
    pub user: User,
    pub roles: Box<[Box<str>]>,
}

/// What came of asking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outside {
    Allows,
    /// `message` is for the client; what is too long of it is cut.
    Denies {
        message: String,
    },
    /// Nobody could be asked, or the answer was none.
    Fails,
}

impl Outside {
    pub fn into_answer(self) -> Result<(), WireError> {
        match self {
            Outside::Allows => Ok(()),
            Outside::Denies { mut message } => {
                let end = (0..=ANSWER_BYTES_MAX).rfind(|end| message.is_char_boundary(*end)).unwrap_or(0);
                message.truncate(end);
                let message = if message.is_empty() { "this was denied".into() } else { message };
                Err(WireError::new(ErrorCode::Forbidden, message))
            }
            Outside::Fails => Err(unavailable("whoever decides about this cannot be asked now; try again")),
        }
    }
}

/// Nobody has answered in time.
pub fn silent() -> WireError {
    unavailable("whoever decides about this has not answered in time; try again")
}

fn unavailable(message: &'static str) -> WireError {
    let retry_after_ms = Some(FULL_RETRY.as_millis() as u64);
    WireError { retry_after_ms, ..WireError::new(ErrorCode::Unavailable, message) }
}

/// An open question, and what waits for it.
pub struct Wait {
    pub conn: ConnId,
    pub first: Waiting<Asked<Request>>,
    pub behind: VecDeque<Waiting<Request>>,
}

/// A request on its way to `home`.
pub struct Waiting<T> {
    pub home: ShardId,
    /// It was counted when it came.
    pub paid: Paid,
    pub request: Box<T>,
}

#[derive(Default)]
pub struct Asking {
    waits: Table<Wait>,
    by_conn: BTreeMap<ConnId, OfConn>,
    requests: usize,
    bytes: usize,
}

/// What one connection has waiting.
#[derive(Default)]
struct OfConn {
    tickets: Vec<Ticket>,
    behind: usize,
    bytes: usize,
}

impl Asking {
    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty()
    }

    /// Open questions.
    pub fn questions(&self) -> usize {
        self.waits.len()
    }

    /// Requests that wait, those behind others included.
    pub fn requests(&self) -> usize {
        self.requests
    }

    /// The open question that a request of `conn` about `room` has to wait behind.
    pub fn ahead(&self, conn: ConnId, room: &RoomRef) -> Option<Ticket> {
        if self.is_empty() {
            return None;
        }
        let of_room = |ticket: &&Ticket| self.waits.get(ticket.0).is_some_and(|wait| wait.first.request.room == *room);
        self.by_conn.get(&conn)?.tickets.iter().find(of_room).copied()
    }

    fn follow(&mut self, ticket: Ticket, request: Waiting<Request>) -> Result<(), WireError> {
        let wait = self.waits.get(ticket.0).expect("an open question");
        let of_conn = &self.by_conn[&wait.conn];
        if of_conn.behind >= ASKED_BEHIND_MAX {
            let message = format!("{ASKED_BEHIND_MAX} requests wait for a decision already; wait for their answers");
            return Err(WireError::too_many(Limit::AskedBehind, message));
        }
        let bytes = weight(&request.request);
        self.check(of_conn, bytes)?;
        let wait = self.waits.get_mut(ticket.0).expect("looked at above");
        let of_conn = self.by_conn.get_mut(&wait.conn).expect("looked at above");
        wait.behind.push_back(request);
        of_conn.behind += 1;
        of_conn.bytes += bytes;
        self.requests += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Opens a question about a request that nothing of its connection and room is ahead of.
    fn open(&mut self, conn: ConnId, request: Waiting<Asked<Request>>) -> Result<Ticket, WireError> {
        let nothing = OfConn::default();
        let of_conn = self.by_conn.get(&conn).unwrap_or(&nothing);
        if of_conn.tickets.len() >= ASKED_PER_CONN_MAX {
            let message = format!("{ASKED_PER_CONN_MAX} rooms wait for a decision already; wait for their answers");
            return Err(WireError::too_many(Limit::Asked, message));
        }
        let bytes = weight(&request.request);
        self.check(of_conn, bytes)?;
        self.requests += 1;
        self.bytes += bytes;
        self.by_conn.entry(conn).or_default().bytes += bytes;
        Ok(self.insert(Wait { conn, first: request, behind: VecDeque::new() }))
    }

    fn check(&self, of_conn: &OfConn, bytes: usize) -> Result<(), WireError> {
        if of_conn.bytes + bytes > ASKED_BYTES_PER_CONN_MAX {
            let message = format!("{ASKED_BYTES_PER_CONN_MAX} bytes may wait for decisions; wait for their answers");
            return Err(WireError::too_many(Limit::AskedBytes, message));
        }
        if self.requests >= ASKED_PER_SHARD_MAX || self.bytes + bytes > ASKED_BYTES_PER_SHARD_MAX {
            return Err(unavailable("too much waits for decisions; try again"));
        }
        Ok(())
    }

    fn insert(&mut self, wait: Wait) -> Ticket {
        let conn = wait.conn;
        let ticket = Ticket(self.waits.insert(wait));
        self.by_conn.entry(conn).or_default().tickets.push(ticket);
        ticket
    }

    /// Closes a question: it and what waits behind it are the caller's. `None`: it is closed already.
    pub fn take(&mut self, ticket: Ticket) -> Option<Wait> {
        let wait = self.waits.remove(ticket.0)?;
        let of_conn = self.by_conn.get_mut(&wait.conn).expect("a connection knows its questions");
        of_conn.tickets.retain(|own| *own != ticket);
        of_conn.behind -= wait.behind.len();
        of_conn.bytes -= wait.bytes();
        self.requests -= 1 + wait.behind.len();
        self.bytes -= wait.bytes();
        if of_conn.tickets.is_empty() {
            self.by_conn.remove(&wait.conn);
        }
        Some(wait)
    }

    /// Opens the next question about a room, with what waited behind the last one. It was counted
    /// before, so there is place for it.
    fn reopen(&mut self, wait: Wait) -> Ticket {
        let of_conn = self.by_conn.entry(wait.conn).or_default();
        of_conn.behind += wait.behind.len();
        of_conn.bytes += wait.bytes();
        self.requests += 1 + wait.behind.len();
        self.bytes += wait.bytes();
        self.insert(wait)
    }

    /// Closes all questions of a connection.
    pub fn take_all(&mut self, conn: ConnId) -> Vec<Wait> {
        let tickets = self.by_conn.get(&conn).map(|of_conn| of_conn.tickets.clone()).unwrap_or_default();
        tickets.into_iter().filter_map(|ticket| self.take(ticket)).collect()
    }
}

impl Wait {
    fn bytes(&self) -> usize {
        weight(&self.first.request) + self.behind.iter().map(|waiting| weight(&waiting.request)).sum::<usize>()
    }
}

/// What a request holds of memory, about.
fn weight(request: &Request) -> usize {
    let data = match &request.ask {
        Ask::Event { data, .. } => data.len(),
        Ask::Say { arguments, .. } => arguments.len(),
        Ask::Enter { .. } | Ask::Exit | Ask::Page { .. } => 0,
    };
    size_of::<Request>() + data
}

impl Kernel {
    /// Asks outside about a request that nothing is ahead of.
    pub fn ask(
        &mut self,
        now: Now,
        conn: ConnId,
        request: Waiting<Asked<Request>>,
        effects: &mut Effects,
    ) -> Result<(), WireError> {
        let ticket = self.asking.open(conn, request).inspect_err(|_| self.counters.asked_full += 1)?;
        self.put(now, ticket, effects);
        Ok(())
    }

    /// Puts a request behind an open question of its connection and room.
    pub fn follow(&mut self, ahead: Ticket, request: Waiting<Request>) -> Result<(), WireError> {
        self.asking.follow(ahead, request).inspect_err(|_| self.counters.asked_full += 1)
    }

    /// Asks about the next request of a connection in a room, once what was ahead of it is decided.
    pub fn ask_next(&mut self, now: Now, wait: Wait, effects: &mut Effects) {
        let ticket = self.asking.reopen(wait);
        self.put(now, ticket, effects);
    }

    fn put(&mut self, now: Now, ticket: Ticket, effects: &mut Effects) {
        let Wait { conn, first, .. } = self.asking.waits.get(ticket.0).expect("just opened");
        let request = &first.request;
        let roles = self.conns.cold(*conn).map(|cold| cold.identity.roles().into()).unwrap_or_default();
        effects.questions.push(Question {
            ticket,
            right: request.needs,
            room: request.room.clone(),
            user: request.user.clone(),
            roles,
        });
        self.counters.asked += 1;
        self.wheel.set(now.at.after(self.limits.ask_time_out), Timer::Asked(ticket));
    }

    /// The connection has gone: nobody hears the answers. Parts of its requests that are under way
    /// elsewhere still bring theirs.
    pub fn drop_asked(&mut self, conn: ConnId) {
        if self.asking.is_empty() {
            return;
        }
        for Wait { first, behind, .. } in self.asking.take_all(conn) {
            let behind = behind.iter().map(|waiting| (waiting.request.call, waiting.request.part));
            for (call, part) in std::iter::once((first.request.call, first.request.part)).chain(behind) {
                let error = WireError::new(ErrorCode::Unavailable, "the connection has gone");
                drop(self.calls.answer(call, part, Err(error)));
                if let Some(cold) = self.conns.cold_mut(conn) {
                    cold.pending -= 1;
                }
            }
        }
    }
}
