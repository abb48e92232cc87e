//! What shards tell each other. Everything about a room - entries, join and leave results,
//! replies - goes through one lane per pair of shards, in order.

use crate::admission::gate::{Admitted, Asks};
use crate::admission::names::{RoomName, User};
use crate::admission::rights::Right;
use crate::kernel::entry::Entry;
use crate::kernel::feature::{Answer, DeclaredId};
use crate::kernel::ids::{CallId, ConnAt, ConnId, Cursor, Epoch, Pos, RoomId, RoomRef, Seq};
use crate::wire::dialect::DialectId;
use crate::wire::json::Spans;
use std::sync::Arc;

#[derive(Debug)]
pub enum Mail {
    /// To a room's home. Answered by exactly one [`Mail::Reply`].
    Request(Box<Admitted<Request>>),
    /// To a room's home: a connection has gone, its memberships end.
    Gone(Box<Gone>),
    /// From a room's home to the connection's shard.
    Reply(Box<Reply>),
    /// From a room's home to each shard with members.
    Entry { room: RoomId, entry: Arc<Entry> },
    /// From a room's home: what the members of that shard missed is no longer in the history.
    Lost { room: RoomId },
}

#[derive(Debug)]
pub struct Request {
    pub call: CallId,
    /// Which of the call's rooms this is about.
    pub part: u16,
    pub room: RoomRef,
    /// Where the asker knows the room to be in its home's table, as a member.
    pub known: Option<RoomId>,
    pub needs: Right,
    pub from: ConnAt,
    pub user: User,
    pub dialect: DialectId,
    /// Rooms that the connection is in, or may be in once its other requests are answered.
    pub rooms: u32,
    pub ask: Ask,
}

impl Asks for Request {
    fn right(&self) -> Right {
        self.needs
    }
    fn room(&self) -> Option<&RoomName> {
        Some(&self.room.name)
    }
}

#[derive(Debug)]
pub enum Ask {
    /// A client's event, for the feature that declared it. `data`: the sender's JSON, and where its
    /// first fields lie.
    Event { declared: DeclaredId, data: Arc<str>, spans: Spans },
    /// Joins quietly: the user's own room, or one of an application's.
    /// From `since` on where that is given.
    Enter { since: Option<Cursor> },
    /// Leaves a room of an application's.
    Exit,
    /// An application's event for a room: the JSON list of its arguments. `is_for_others`: all but its sender.
    Say { event: Box<str>, arguments: Arc<str>, is_for_others: bool },
    /// What came after `after`, for a replay.
    Page { epoch: Epoch, after: Seq },
}

#[derive(Debug)]
pub struct Gone {
    pub conn: ConnId,
    pub rooms: Vec<RoomId>,
}

#[derive(Debug)]
pub struct Reply {
    pub call: CallId,
    pub part: u16,
    pub answer: Answer,
    pub change: Change,
}

/// What a reply changes at the connection's shard, at this place in the room's order.
#[derive(Debug)]
pub enum Change {
    Nothing,
    /// The connection is a member from `from` on: the next entries are for it too, and where it `is_behind`, what
    /// came before them comes first.
    Attach {
        room: RoomId,
        name: RoomRef,
        from: Pos,
        is_behind: bool,
        /// It wanted to know more than is kept.
        has_gap: bool,
    },
    Detach {
        room: RoomId,
    },
    Page(Page),
    /// A replay cannot go on: what it needs is no longer in the history.
    PageLost,
}

/// Some entries of a replay.
#[derive(Debug)]
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    /// The last place that the page covers.
    pub upto: Seq,
    /// That is the room's last message: what the lane brings after this page is live.
    pub is_head: bool,
}
