//! What a feature may do, and to which room or connection. A scope is made for one request or one
//! fact and lives no longer.

use crate::admission::names::User;
use crate::base::limits::PAGE_BYTES_MAX;
use crate::base::time::Now;
use crate::kernel::Kernel;
use crate::kernel::directory::{self, Directory};
use crate::kernel::effects::Effects;
use crate::kernel::entry::Entry;
use crate::kernel::facts::Fact;
use crate::kernel::history::Gap;
use crate::kernel::ids::{ConnAt, ConnId, Cursor, Epoch, Place, Pos, RoomId, Seq};
use crate::kernel::mail::{Change, Page, Request};
use crate::kernel::membership::Joined;
use crate::kernel::rooms::Room;
use crate::kernel::sequencer::Draft;
use crate::wire::codes::{Limit, WireError};
use std::sync::Arc;

/// One room, at its home.
pub struct RoomScope<'a> {
    kernel: &'a mut Kernel,
    effects: &'a mut Effects,
    pub now: Now,
    room: RoomId,
    change: Change,
}

/// What a join with a position came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumed {
    /// Messages that follow before anything newer.
    pub replayed: u64,
    /// Some of what was missed is no longer there: the client must load anew.
    pub gap: bool,
}

/// A page of a room's history.
pub struct Messages {
    /// Oldest first.
    pub entries: Vec<Arc<Entry>>,
    /// The place of the page's last message (of the room's last one when the page is empty).
    pub pos: Pos,
    pub gap: bool,
    pub more: bool,
}

impl<'a> RoomScope<'a> {
    pub fn new(kernel: &'a mut Kernel, effects: &'a mut Effects, now: Now, room: RoomId) -> Self {
        RoomScope { kernel, effects, now, room, change: Change::Nothing }
    }

    /// What is to change at the connection's shard along with the reply.
    pub fn into_change(self) -> Change {
        self.change
    }

    pub fn room(&self) -> &Room {
        self.kernel.rooms.get(self.room).expect("a scope's room exists")
    }

    fn room_mut(&mut self) -> &mut Room {
        self.kernel.rooms.get_mut(self.room).expect("a scope's room exists")
    }

    /// What the policy for the room is called, as far as it concerns `user`.
    pub fn policy(&self, user: &User) -> &str {
        self.kernel.policy.name(user, &self.room().name.name)
    }

    pub fn directory(&self) -> &Directory {
        self.room().directory()
    }

    /// Sequences a message of `sender`. `unavailable`: the shard's memory is full.
    pub fn publish(&mut self, draft: Draft<'_>) -> Result<Place, WireError> {
        self.kernel.publish(self.now, self.room, draft, self.effects)
    }

    /// Tells the members something transient that has no place in the order.
    pub fn announce(&mut self, event: &str, data: &[u8], excluded: Option<ConnAt>) {
        self.kernel.announce(self.now, self.room, event, data, excluded, self.effects);
    }

    /// Makes the request's connection a member, from `since` on where that is given.
    pub fn join(&mut self, request: &Request, since: Option<Cursor>) -> Result<Option<Resumed>, WireError> {
        let most = self.kernel.limits.rooms_per_conn;
        if request.rooms as usize >= most {
            let message = format!("this connection is in {most} rooms, the most that is allowed; leave one");
            return Err(WireError::too_many(Limit::RoomsPerConn, message));
        }
        let at = request.from;
        let resumed = since.map(|since| self.missed(since, at));
        let keyed = self.kernel.keyed;
        let row = self.room_mut();
        let changed = row.add(at, &request.user, request.dialect, keyed);
        if changed == directory::Change::Nothing {
            // In the room already, and so nothing was missed.
            return Ok(None);
        }
        let replay_after = match resumed {
            Some(Ok((after, replayed))) if replayed > 0 => Some(after),
            _ => None,
        };
        let from = Pos { epoch: row.epoch, seq: replay_after.unwrap_or(row.head) };
        let (is_behind, has_gap) = (replay_after.is_some(), matches!(resumed, Some(Err(Gap))));
        let name = row.name.clone();
        self.change = Change::Attach { room: self.room, name, from, is_behind, has_gap };
        if changed == directory::Change::User {
            let fact = Fact::Joined { user: request.user.clone(), by: at };
            self.kernel.facts.push_back((self.room, fact));
        }
        Ok(resumed.map(|missed| match missed {
            Ok((_, replayed)) => Resumed { replayed, gap: false },
            Err(Gap) => Resumed { replayed: 0, gap: true },
        }))
    }

    /// What `reader` missed since a position: where that is, and how many messages.
    fn missed(&self, since: Cursor, reader: ConnAt) -> Result<(Seq, u64), Gap> {
        let row = self.room();
        let after = self.seq_of(since)?;
        let missed = row.history().after(after, row.head)?;
        Ok((after, missed.filter(|entry| entry.excluded != Some(reader)).count() as u64))
    }

    fn seq_of(&self, cursor: Cursor) -> Result<Seq, Gap> {
        let row = self.room();
        match cursor {
            Cursor::Pos(pos) if pos.epoch == row.epoch => Ok(pos.seq),
            Cursor::Pos(_) => Err(Gap),
            Cursor::Mid(mid) => row.history().find(mid).ok_or(Gap),
        }
    }

    /// Ends the membership of the request's connection; false when it was no member.
    pub fn leave(&mut self, request: &Request) -> bool {
        let is_member = self.kernel.end_membership(self.room, request.from);
        if is_member {
            self.change = Change::Detach { room: self.room };
        }
        is_member
    }

    /// Sets what `room:info` tells besides.
    pub fn set_details(&mut self, details: &[u8]) {
        self.room_mut().set_details(details);
    }

    /// The page after `since`, or before `before`, or the last one; at most `limit` messages.
    pub fn messages(&self, since: Option<Cursor>, before: Option<Cursor>, limit: usize) -> Messages {
        let row = self.room();
        let empty = |gap| Messages { entries: Vec::new(), pos: row.pos(), gap, more: false };
        if let Some(since) = since {
            let Ok(after) = self.seq_of(since) else { return empty(true) };
            let Ok(entries) = row.history().after(after, row.head) else { return empty(true) };
            let entries = page(entries, limit);
            let upto = Seq(after.0 + entries.len() as u64);
            let pos = Pos { epoch: row.epoch, seq: upto };
            return Messages { entries, pos, gap: false, more: upto < row.head };
        }
        let end = match before.map(|before| self.seq_of(before)) {
            None => row.head.next(),
            Some(Ok(seq)) => seq,
            Some(Err(Gap)) => return empty(true),
        };
        // What is kept starts somewhere; a page that reaches past it is cut there.
        let kept = row.history().kept_before(end);
        let mut entries = page(kept.rev(), limit);
        entries.reverse();
        let first = end.0.saturating_sub(entries.len() as u64);
        let more = first > 1 && row.history().get(Seq(first - 1)).is_some();
        // Messages were here once and are no longer: the reader learns that this is not the start.
        let gap = first > 1 && !more;
        let pos = Pos { epoch: row.epoch, seq: Seq(end.0.saturating_sub(1).min(row.head.0)) };
        Messages { entries, pos, gap, more }
    }
}

/// The first of `entries`, within the bounds of a page; one at least, whatever it weighs.
fn page<'e>(entries: impl Iterator<Item = &'e Arc<Entry>>, limit: usize) -> Vec<Arc<Entry>> {
    let mut bytes = 0;
    let fits = |entry: &&Arc<Entry>| {
        let is_first = bytes == 0;
        bytes += entry.bytes();
        is_first || bytes <= PAGE_BYTES_MAX
    };
    entries.take(limit).take_while(fits).cloned().collect()
}

impl Kernel {
    /// The next page of a replay.
    pub fn replay_page(&mut self, room: RoomId, epoch: Epoch, after: Seq) -> Change {
        let Some(row) = self.rooms.get(room).filter(|row| row.epoch == epoch) else { return Change::PageLost };
        let Ok(entries) = row.history().after(after, row.head) else { return Change::PageLost };
        let entries = page(entries, crate::base::limits::PAGE_ENTRIES_MAX);
        let upto = Seq(after.0 + entries.len() as u64);
        assert!(upto > after || upto == row.head, "a page brings its replay on");
        Change::Page(Page { entries, upto, is_head: upto == row.head })
    }

    /// Ends a membership at the room's home; false when there was none.
    pub fn end_membership(&mut self, room: RoomId, at: ConnAt) -> bool {
        let Some(row) = self.rooms.get_mut(room) else { return false };
        let Some((member, change)) = row.remove(at) else { return false };
        if change == directory::Change::User {
            self.facts.push_back((room, Fact::Left { user: member.user, by: at }));
        }
        true
    }
}

/// One connection, on its own shard.
pub struct ConnScope<'a> {
    kernel: &'a mut Kernel,
    effects: &'a mut Effects,
    pub now: Now,
    conn: ConnId,
}

/// A room that the connection is in.
pub struct MyRoom<'a> {
    pub name: &'a str,
    pub joined: &'a Joined,
    /// Logged pushes that the connection got there.
    pub delivered: u64,
}

impl<'a> ConnScope<'a> {
    pub fn new(kernel: &'a mut Kernel, effects: &'a mut Effects, now: Now, conn: ConnId) -> Self {
        ConnScope { kernel, effects, now, conn }
    }

    /// Goes on with what `token` says. Says when that ends, seconds since 1970.
    pub fn refresh(&mut self, token: &str) -> Result<Option<u64>, WireError> {
        self.kernel.refresh(self.now, self.conn, token, self.effects)
    }

    /// Rooms that one request may name.
    pub fn rooms_per_request(&self) -> usize {
        self.kernel.limits.rooms_per_request
    }

    /// The rooms that the connection is in, its user's own room included.
    pub fn rooms(&self) -> impl Iterator<Item = MyRoom<'_>> {
        let membership = &self.kernel.membership;
        membership.rooms_of(self.conn.0.slot).iter().filter_map(move |joined| {
            let name = membership.room_of(joined)?.name.name.as_str();
            Some(MyRoom { name, joined, delivered: membership.delivered(joined) })
        })
    }
}
