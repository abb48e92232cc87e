//! Requests that wait for their answers, on the connection's shard.
//! Invariant: a call is taken off the table by its last answer, so it is replied to exactly once.

use crate::base::table::Table;
use crate::kernel::feature::{Answer, DeclaredId, RoomAnswer};
use crate::kernel::ids::{CallId, ConnId, RoomId, ShardId};
use crate::wire::codes::WireError;
use crate::wire::envelope::RequestId;

/// Who is to hear the answer.
pub enum Asker {
    Client { id: Option<RequestId>, declared: DeclaredId },
    /// The join of the user's own room, after which the client is told that it is connected.
    Inbox,
    /// A replay of this room (at that home) to the connection.
    Replay { home: ShardId, room: RoomId },
}

pub struct Call {
    pub conn: ConnId,
    pub asker: Asker,
    parts: Parts,
}

enum Parts {
    One,
    Many { answers: Vec<RoomAnswer>, missing: usize },
}

/// A call that has all its answers.
pub struct Answered {
    pub conn: ConnId,
    pub asker: Asker,
    pub answers: Answers,
}

pub enum Answers {
    One(Answer),
    Many(Vec<RoomAnswer>),
}

#[derive(Default)]
pub struct Calls {
    table: Table<Call>,
}

impl Calls {
    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// A call with one answer to come.
    pub fn open(&mut self, conn: ConnId, asker: Asker) -> CallId {
        CallId(self.table.insert(Call { conn, asker, parts: Parts::One }))
    }

    /// A call with an answer for each of `rooms`. Those that are refused at once have theirs.
    pub fn open_many(&mut self, conn: ConnId, asker: Asker, rooms: Vec<(Box<str>, Option<WireError>)>) -> CallId {
        let missing = rooms.iter().filter(|(_, refused)| refused.is_none()).count();
        let answer = |(room, refused): (Box<str>, Option<WireError>)| RoomAnswer {
            room,
            answer: refused.map_or_else(|| Ok(Vec::new()), Err),
        };
        let answers = rooms.into_iter().map(answer).collect();
        CallId(self.table.insert(Call { conn, asker, parts: Parts::Many { answers, missing } }))
    }

    /// The connection and asker of a call that waits.
    pub fn get(&self, call: CallId) -> Option<&Call> {
        self.table.get(call.0)
    }

    /// Notes an answer; gives the call back once it has them all.
    pub fn answer(&mut self, id: CallId, part: u16, answer: Answer) -> Option<Answered> {
        let call = self.table.get_mut(id.0)?;
        let Parts::Many { answers, missing } = &mut call.parts else {
            let call = self.table.remove(id.0)?;
            return Some(Answered { conn: call.conn, asker: call.asker, answers: Answers::One(answer) });
        };
        answers[part as usize].answer = answer;
        *missing -= 1;
        if *missing > 0 {
            return None;
        }
        self.close(id)
    }

    /// Takes a call off the table as it stands.
    pub fn close(&mut self, id: CallId) -> Option<Answered> {
        let call = self.table.remove(id.0)?;
        let answers = match call.parts {
            Parts::One => Answers::One(Ok(Vec::new())),
            Parts::Many { answers, .. } => Answers::Many(answers),
        };
        Some(Answered { conn: call.conn, asker: call.asker, answers })
    }
}
