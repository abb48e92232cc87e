//! An entry gets into the outboxes of a room's members on this shard, in one walk that is never
//! sliced. Nothing is allocated, copied or formatted per receiver.

use crate::base::limits::CROWD_MIN;
use crate::base::time::Now;
use crate::kernel::Kernel;
use crate::kernel::conns::{Flags, Row};
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Class, Entry, Frame, Shared};
use crate::kernel::ids::{ConnId, RoomId, ShardId};
use crate::kernel::outbox::Pushed;
use crate::wire::codes::CloseCode;
use crate::wire::dialect::DialectId;
use std::rc::Rc;

/// An entry's forms, wrapped for this shard as they are needed: few, so a list.
struct Forms<'a> {
    entry: &'a Entry,
    wrapped: Vec<(DialectId, Shared)>,
}

impl Forms<'_> {
    fn of(&mut self, dialect: DialectId) -> Option<&Shared> {
        // Nearly every member speaks the dialect of the one before.
        let known = self.wrapped.iter().position(|(spoken, _)| *spoken == dialect);
        let nth = match known {
            Some(nth) => nth,
            None => {
                let bytes = self.entry.form(dialect)?.clone();
                self.wrapped.push((dialect, Rc::new(Frame { bytes, class: self.entry.class })));
                self.wrapped.len() - 1
            }
        };
        Some(&self.wrapped[nth].1)
    }
}

impl Kernel {
    /// An entry came from the room's home.
    pub fn deliver(&mut self, now: Now, from: ShardId, room: RoomId, entry: &Entry, effects: &mut Effects) {
        let Some(local) = self.membership.find(from, room) else { return };
        let excluded = entry.excluded.filter(|at| at.shard == self.id).map(|at| at.conn);
        let mut forms = Forms { entry, wrapped: Vec::with_capacity(1) };
        let mut overflowed: Vec<ConnId> = Vec::new();
        let mut dropped: Vec<ConnId> = Vec::new();
        let row = self.membership.room_mut(local).expect("an indexed room is there");
        if entry.place.is_some() {
            row.delivered += 1;
        }
        let row = self.membership.room(local).expect("an indexed room is there");
        let is_crowd = row.members().len() >= CROWD_MIN;
        let dirty = if is_crowd { &mut effects.dirty_by_crowd } else { &mut effects.dirty };
        let mut queued = 0;
        for member in row.members() {
            let (conn, row) = self.conns.member_mut(member.slot);
            if excluded == Some(conn) {
                continue;
            }
            let Some(frame) = forms.of(row.dialect) else {
                debug_assert!(false, "the home knows every dialect of its members");
                continue;
            };
            match queue(conn, row, frame, dirty) {
                Pushed::Queued => queued += 1,
                Pushed::Dropped => dropped.push(conn),
                Pushed::Overflow => overflowed.push(conn),
            }
        }
        self.counters.deliveries += queued;
        self.counters.dropped_slow += dropped.len() as u64;
        for conn in dropped {
            self.membership.note_dropped(conn.0.slot, local);
        }
        if let Some(conn) = excluded.filter(|_| entry.place.is_some()) {
            self.membership.correct_delivered(conn.0.slot, local, -1);
        }
        for conn in overflowed {
            self.close(now, conn, CloseCode::SlowConsumer, "read too slowly; resume by position", effects);
        }
    }

    /// Queues a frame for one connection; one that has no place for it is closed.
    pub fn push_to(&mut self, now: Now, conn: ConnId, frame: &Shared, effects: &mut Effects) {
        let Some(row) = self.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        match queue(conn, row, frame, &mut effects.dirty) {
            Pushed::Queued => {}
            Pushed::Dropped => self.counters.dropped_slow += 1,
            Pushed::Overflow => {
                self.close(now, conn, CloseCode::SlowConsumer, "read too slowly; resume by position", effects);
            }
        }
    }
}

/// Puts a frame into an outbox and lists the connection in `dirty` for the flusher.
#[inline]
fn queue(conn: ConnId, row: &mut Row, frame: &Shared, dirty: &mut Vec<ConnId>) -> Pushed {
    let pushed = row.outbox.push(frame, row.flags.has(Flags::SLOW));
    if pushed == Pushed::Queued {
        if frame.class == Class::Logged {
            row.flags.set(Flags::OWED);
        }
        list(conn, row, dirty);
    }
    pushed
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
