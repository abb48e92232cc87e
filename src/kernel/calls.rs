//! Requests that wait for their answers, on the connection's shard.
//! Invariant: a call is taken off the table by its last answer, so it is replied to exactly once.

use crate::base::table::Table;
use crate::kernel::audited::Rooms;
use crate::kernel::feature::{Answer, DeclaredId, RoomAnswer, Told};
use crate::kernel::ids::{CallId, ConnId};
use crate::wire::envelope::RequestId;

/// Who is to hear the answer.
pub enum Asker {
    Client {
        id: Option<RequestId>,
        declared: DeclaredId,
        /// What the request named, where its answer is told to the audit log.
        audit: Option<Box<Rooms>>,
    },
    /// The join of the user's own room, after which the client is told that it is connected.
    Inbox,
    /// A replay to the connection.
    Replay,
    /// An application, whose client may wait for an acknowledgement.
    Application { ack: Option<u64> },
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

    /// A call with an answer to come for each of `rooms`, of which there is one at least.
    pub fn open_many(&mut self, conn: ConnId, asker: Asker, rooms: impl Iterator<Item = Box<str>>) -> CallId {
        let answers: Vec<RoomAnswer> =
            rooms.map(|room| RoomAnswer { room, answer: Ok(Told::Json(Vec::new())) }).collect();
        let missing = answers.len();
        assert!(missing > 0, "a call is about a room");
        CallId(self.table.insert(Call { conn, asker, parts: Parts::Many { answers, missing } }))
    }

    /// The connection that a call belongs to, and whether it is a replay's.
    pub fn asked_by(&self, call: CallId) -> Option<(ConnId, bool)> {
        let call = self.table.get(call.0)?;
        Some((call.conn, matches!(call.asker, Asker::Replay)))
    }

    /// Whether a call is about several rooms.
    pub fn is_many(&self, call: CallId) -> bool {
        self.table.get(call.0).is_some_and(|call| matches!(call.parts, Parts::Many { .. }))
    }

    /// Notes an answer; gives the call back once it has them all.
    pub fn answer(&mut self, id: CallId, part: u16, answer: Answer) -> Option<Answered> {
        let call = self.table.get_mut(id.0)?;
        if let Parts::Many { answers, missing } = &mut call.parts {
            answers[part as usize].answer = answer;
            *missing -= 1;
            if *missing > 0 {
                return None;
            }
            let call = self.table.remove(id.0)?;
            let Parts::Many { answers, .. } = call.parts else { unreachable!("looked at above") };
            return Some(Answered { conn: call.conn, asker: call.asker, answers: Answers::Many(answers) });
        }
        let call = self.table.remove(id.0)?;
        Some(Answered { conn: call.conn, asker: call.asker, answers: Answers::One(answer) })
    }

    /// Takes a call off the table before it was asked; says who wanted to know.
    pub fn forget(&mut self, id: CallId) -> Option<Asker> {
        Some(self.table.remove(id.0)?.asker)
    }
}
