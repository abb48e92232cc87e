//! What a member missed: a cursor per (connection, room), fetched from the room's home page by
//! page as the outbox drains.
//! Invariant: while a replay is under way, the room's live entries wait in its history; the page
//! that reaches the head makes the connection live at that very place of the lane, so nothing is
//! lost, doubled or out of order, however long the replay, and the outbox stays in its bounds.
//! Readers of one message share its frame, as those do to whom it came live: many who come back at
//! once cost one copy.

use crate::admission::gate;
use crate::admission::rights::Right;
use crate::base::time::Now;
use crate::kernel::Kernel;
use crate::kernel::calls::Asker;
use crate::kernel::conns::{Flags, Replay};
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Entry, Frame, Shared};
use crate::kernel::ids::{CallId, ConnAt, ConnId, Mid, RoomId, ShardId};
use crate::kernel::mail::{Ask, Page, Request};
use crate::kernel::reasons::CloseReason;
use crate::wire::dialect::DialectId;
use std::collections::BTreeMap;
use std::rc::Weak;
use std::sync::Arc;

/// Frames that some reader of a replay has still to take, by message and dialect.
#[derive(Default)]
pub struct Replayed {
    frames: BTreeMap<(Mid, DialectId), Weak<Frame>>,
    /// The next look for those that are gone is due at this length.
    sweep_at: usize,
}

/// Frames of replays before any is looked at.
const SWEEP_MIN: usize = 64;

impl Replayed {
    fn frame(&mut self, mid: Mid, dialect: DialectId, make: impl FnOnce() -> Shared) -> Shared {
        if let Some(frame) = self.frames.get(&(mid, dialect)).and_then(Weak::upgrade) {
            return frame;
        }
        if self.frames.len() >= self.sweep_at {
            self.sweep();
            self.sweep_at = SWEEP_MIN.max(self.frames.len() * 2);
        }
        let frame = make();
        self.frames.insert((mid, dialect), Shared::downgrade(&frame));
        frame
    }

    fn sweep(&mut self) {
        self.frames.retain(|_, frame| frame.strong_count() > 0);
    }
}

impl Kernel {
    pub fn start_replay(&mut self, conn: ConnId, replay: Replay) {
        let Some(row) = self.conns.row_mut(conn) else { return };
        if !row.flags.has(Flags::REPLAYING) {
            row.flags.set(Flags::REPLAYING);
            self.replaying.push(conn);
        }
        if let Some(cold) = self.conns.cold_mut(conn) {
            cold.replays().push(replay);
        }
    }

    /// Asks for the next page of every replay that may go on: there is credit again.
    pub fn pump_replays(&mut self, effects: &mut Effects) {
        let listed = std::mem::take(&mut self.replaying);
        for conn in &listed {
            self.pump_replay(*conn, effects);
        }
        self.replaying = listed;
        self.sweep_replays();
    }

    /// Takes connections that have nothing left to replay off the list.
    pub fn sweep_replays(&mut self) {
        let conns = &self.conns;
        self.replaying.retain(|conn| conns.row(*conn).is_some_and(|row| row.flags.has(Flags::REPLAYING)));
        self.replaying.sort_unstable();
        self.replaying.dedup();
        if self.replaying.is_empty() {
            // The last pages may wait in outboxes still, for others to share.
            self.replayed.sweep();
        }
    }

    /// Asks for the next page of a connection's replay, if it has one that may go on.
    pub fn pump_replay(&mut self, conn: ConnId, effects: &mut Effects) {
        let Some(row) = self.conns.row(conn).filter(|row| row.flags.has(Flags::REPLAYING)) else { return };
        let (is_open, dialect) = (row.is_open(), row.dialect);
        let written = self.conns.row(self.carriers.transport_of(conn));
        let has_room = written.is_some_and(|row| row.outbox.bytes() <= self.limits.outbox.resume);
        let Some(cold) = self.conns.cold_mut(conn) else { return };
        if !is_open || cold.replays().is_empty() {
            cold.replays = None;
            if let Some(row) = self.conns.row_mut(conn) {
                row.flags.clear(Flags::REPLAYING);
            }
            return;
        }
        // One page at a time for a connection: what is asked for has its place in the outbox.
        if !has_room || cold.replays().iter().any(|replay| replay.asked.is_some()) {
            return;
        }
        let replay = &cold.replays()[0];
        let (home, room) = (replay.home, replay.room);
        let (epoch, after) = (replay.epoch, replay.after);
        let user = cold.identity.user.clone();
        let local = self.membership.find(home, room).and_then(|local| self.membership.room(local));
        let Some(name) = local.map(|local| local.name.clone()) else { return };
        if !self.lanes.may_request(home) {
            return;
        }
        let call = self.calls.open(conn, Asker::Replay);
        let request = Request {
            call,
            part: 0,
            room: name,
            known: Some(room),
            needs: Right::None,
            from: ConnAt { shard: self.id, conn },
            user,
            dialect,
            rooms: 0,
            ask: Ask::Page { epoch, after },
        };
        let mut requests = vec![(home, Box::new(gate::admit_own(request)))];
        let sent = self.lanes.request(conn, &mut requests, effects);
        assert!(sent, "asked with credit");
        if let Some(cold) = self.conns.cold_mut(conn) {
            cold.replays()[0].asked = Some(call);
        }
    }

    /// The page that `call` asked for came.
    pub fn take_page(&mut self, now: Now, conn: ConnId, call: CallId, page: &Page, effects: &mut Effects) {
        let Some(cold) = self.conns.cold_mut(conn) else { return };
        let replays = cold.replays();
        // Left, or closed, while the page was on its way.
        let Some(nth) = replays.iter().position(|replay| replay.asked == Some(call)) else { return };
        let (home, room) = (replays[nth].home, replays[nth].room);
        if page.is_head {
            replays.remove(nth);
        } else {
            replays[nth].asked = None;
            replays[nth].after = page.upto;
        }
        let Some(local) = self.membership.find(home, room) else { return };
        let Some(dialect) = self.conns.row(conn).map(|row| row.dialect) else { return };
        let me = ConnAt { shard: self.id, conn };
        for entry in page.entries.iter().filter(|entry| entry.excluded != Some(me)) {
            let frame = self.replayed_frame(home, room, entry, dialect);
            self.push_entry(now, conn, (home, room), (entry, &frame), effects);
            self.counters.replayed += 1;
            self.membership.correct_delivered(conn.0.slot, local, 1);
        }
        if page.is_head && self.conns.is_open(conn) {
            self.membership.make_live(conn.0.slot, local);
        }
    }

    /// A message as this reader reads it. Nobody may have read this dialect when it was sent.
    fn replayed_frame(&mut self, home: ShardId, room: RoomId, entry: &Arc<Entry>, dialect: DialectId) -> Shared {
        if home == self.id
            && let Some(frames) = self.rooms.get(room).and_then(|row| row.history().frames_of(entry))
            && let Some(frame) = frames.form(dialect)
        {
            return frame.clone();
        }
        let (encoder, account) = (&mut self.encoder, &self.memory.account);
        let mut make = || {
            let bytes = match entry.form(dialect) {
                Some(bytes) => bytes.clone(),
                None => Arc::from(encoder.one(dialect, entry.json_frame())),
            };
            Frame::new(account, bytes, entry.class)
        };
        match entry.place {
            Some(place) => self.replayed.frame(place.mid, dialect, make),
            None => make(),
        }
    }

    /// A replay cannot go on: the reader was slower than the history is long.
    pub fn lose_page(&mut self, now: Now, conn: ConnId, call: CallId, effects: &mut Effects) {
        let is_this = |replay: &Replay| replay.asked == Some(call);
        if !self.conns.cold_mut(conn).is_some_and(|cold| cold.replays().iter().any(is_this)) {
            return;
        }
        self.counters.lost += 1;
        self.close_for(now, conn, CloseReason::LostReplay, effects);
    }
}
