//! An entry gets into the outboxes of a room's members on this shard, in one walk that is never
//! sliced. Nothing is allocated, copied or formatted per receiver, but the ids of streams.

use crate::base::limits::CROWD_MIN;
use crate::base::time::Now;
use crate::kernel::Kernel;
use crate::kernel::conns::{Flags, Row};
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Class, Entry, Frame, Frames, Shared};
use crate::kernel::ids::{ConnId, RoomId, ShardId};
use crate::kernel::outbox::{OutboxBounds, Pushed};
use crate::kernel::reasons::{CloseReason, Dropped};
use crate::wire::{engine, frame};
use std::sync::Arc;

impl Kernel {
    /// An entry came from the room's home.
    pub fn deliver(&mut self, now: Now, from: ShardId, room: RoomId, entry: &Arc<Entry>, effects: &mut Effects) {
        let Some(local) = self.membership.find(from, room) else { return };
        let excluded = entry.excluded.filter(|at| at.shard == self.id).map(|at| at.conn);
        // What this shard's own history keeps is in outboxes as the same frames.
        let kept =
            if from == self.id { self.rooms.get(room).and_then(|row| row.history().frames_of(entry)) } else { None };
        let fresh;
        let frames = match kept {
            Some(frames) if frames.are_all_of(entry) => frames,
            kept => {
                let account = &self.memory.account;
                fresh = kept.map_or_else(|| Frames::of(account, entry), |kept| kept.completed(account, entry));
                &fresh
            }
        };
        let mut overflowed: Vec<ConnId> = Vec::new();
        let mut dropped: Vec<ConnId> = Vec::new();
        let row = self.membership.room_mut(local).expect("an indexed room is there");
        if entry.place.is_some() {
            row.delivered += 1;
        }
        let row = self.membership.room(local).expect("an indexed room is there");
        let is_crowd = row.members().len() >= CROWD_MIN;
        let dirty = if is_crowd { &mut effects.dirty_by_crowd } else { &mut effects.dirty };
        let bounds = self.limits.outbox;
        let mut queued = 0;
        // Members of a room mostly speak alike.
        let mut last = None;
        for member in row.members() {
            let (conn, row) = self.conns.member_mut(member.slot);
            if excluded == Some(conn) {
                continue;
            }
            let frame = match last {
                Some((dialect, frame)) if dialect == row.dialect => frame,
                _ => {
                    let Some(frame) = frames.form(row.dialect) else {
                        debug_assert!(false, "the home knows every dialect of its members");
                        continue;
                    };
                    last = Some((row.dialect, frame));
                    frame
                }
            };
            let pushed = if !row.flags.has(Flags::APART) {
                queue(conn, row, frame, &bounds, dirty)
            } else if row.flags.has(Flags::STREAM) {
                // What one client is in is its own: here there is something for each receiver.
                let id = self.streams.pass(conn, (from, room), entry, &self.memory.account);
                queue_event(conn, row, id.as_ref(), frame, &bounds, dirty)
            } else {
                let carrier = self.carriers.transport_of(conn);
                let Some(row) = self.conns.row_mut(carrier) else { continue };
                queue(carrier, row, frame, &bounds, dirty)
            };
            match pushed {
                Pushed::Queued => queued += 1,
                Pushed::Replaced => {
                    queued += 1;
                    self.counters.drop(Dropped::LatestReplaced, 1);
                }
                Pushed::Shed(shed) => {
                    queued += 1;
                    self.counters.drop(Dropped::TransientGaveWay, shed.into());
                }
                Pushed::Dropped(what) => {
                    self.counters.drop(what, 1);
                    dropped.push(conn);
                }
                Pushed::Overflow(shed) => {
                    self.counters.drop(Dropped::TransientGaveWay, shed.into());
                    overflowed.push(conn);
                }
            }
        }
        self.counters.deliveries += queued;
        for conn in dropped {
            self.membership.note_dropped(conn.0.slot, local);
        }
        if let Some(conn) = excluded.filter(|_| entry.place.is_some()) {
            self.membership.correct_delivered(conn.0.slot, local, -1);
        }
        for conn in overflowed {
            self.close_for(now, conn, CloseReason::OutboxBytes, effects);
        }
    }

    /// Queues a native JSON frame for one connection, in the form that it reads. Clients of an endpoint
    /// read none: they are told by closes alone.
    pub fn tell(&mut self, now: Now, conn: ConnId, json_frame: &[u8], class: Class, effects: &mut Effects) {
        let Some(row) = self.conns.row(conn).filter(|row| row.dialect.has_envelopes()) else { return };
        let frame = self.encoder.one(row.dialect, json_frame);
        let frame = Frame::new(&self.memory.account, Arc::from(frame), class);
        self.push_to(now, conn, &frame, effects);
    }

    /// Queues a message as it is for one client of an endpoint.
    pub fn send_message(&mut self, now: Now, conn: ConnId, opcode: u8, payload: &[u8], effects: &mut Effects) {
        let Some(row) = self.conns.row(conn).filter(|row| row.is_open()) else { return };
        let frame = match row.dialect.mount() {
            Some(_) if opcode == frame::TEXT => {
                let text = std::str::from_utf8(payload).expect("a text message is UTF-8 throughout");
                self.encoder.frames(row.dialect, |out| engine::packet_frame(out, b'4', text))
            }
            _ => self.encoder.message(row.dialect, opcode, payload),
        };
        let frame = Frame::logged(&self.memory.account, frame);
        self.push_to(now, conn, &frame, effects);
    }

    /// Queues a room's message for one member, behind its id where that is a stream's.
    pub fn push_entry(
        &mut self,
        now: Now,
        conn: ConnId,
        at: (ShardId, RoomId),
        (entry, frame): (&Entry, &Shared),
        effects: &mut Effects,
    ) {
        if self.conns.row(conn).is_some_and(|row| row.flags.has(Flags::STREAM))
            && let Some(id) = self.streams.pass(conn, at, entry, &self.memory.account)
        {
            // Where there is no place for it, the connection closes, and takes no event either.
            self.push_to(now, conn, &id, effects);
        }
        self.push_to(now, conn, frame, effects);
    }

    /// Queues a frame for one connection; one that has no place for it is closed.
    pub fn push_to(&mut self, now: Now, conn: ConnId, frame: &Shared, effects: &mut Effects) {
        let Some(mut row) = self.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        let mut conn = conn;
        if row.flags.has(Flags::RIDER) {
            conn = self.carriers.transport_of(conn);
            let Some(carrier) = self.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
            row = carrier;
        }
        match queue(conn, row, frame, &self.limits.outbox, &mut effects.dirty) {
            Pushed::Queued => {}
            Pushed::Replaced => self.counters.drop(Dropped::LatestReplaced, 1),
            Pushed::Shed(shed) => self.counters.drop(Dropped::TransientGaveWay, shed.into()),
            Pushed::Dropped(what) => self.counters.drop(what, 1),
            Pushed::Overflow(shed) => {
                self.counters.drop(Dropped::TransientGaveWay, shed.into());
                self.close_for(now, conn, CloseReason::OutboxBytes, effects);
            }
        }
    }
}

/// Puts a frame into an outbox and lists the connection in `dirty` for the flusher.
#[inline]
fn queue(conn: ConnId, row: &mut Row, frame: &Shared, bounds: &OutboxBounds, dirty: &mut Vec<ConnId>) -> Pushed {
    let pushed = row.outbox.push(frame, row.flags.has(Flags::SLOW), bounds);
    if matches!(pushed, Pushed::Queued | Pushed::Replaced | Pushed::Shed(_)) {
        if frame.class() == Class::Logged {
            row.flags.set(Flags::OWED);
        }
        list(conn, row, dirty);
    }
    pushed
}

/// Puts an event of a stream behind its id: both or none.
fn queue_event(
    conn: ConnId,
    row: &mut Row,
    id: Option<&Shared>,
    frame: &Shared,
    bounds: &OutboxBounds,
    dirty: &mut Vec<ConnId>,
) -> Pushed {
    match id.map(|id| queue(conn, row, id, bounds, dirty)) {
        Some(overflow @ Pushed::Overflow(_)) => overflow,
        _ => queue(conn, row, frame, bounds, dirty),
    }
}

/// Lists a connection with something to write in `dirty`, one of the lists of the effects, unless
/// it is listed or its socket takes nothing.
#[inline]
pub fn list(conn: ConnId, row: &mut Row, dirty: &mut Vec<ConnId>) {
    if !row.flags.has(Flags::LISTED) && !row.flags.has(Flags::BLOCKED) {
        row.flags.set(Flags::LISTED);
        dirty.push(conn);
    }
}
