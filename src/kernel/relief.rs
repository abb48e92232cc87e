//! A shard that is nearly at its budget lets go of memory. What its readers hold beyond the histories
//! may be a share of the budget. Above that, readers are to blame: first those whose sockets take
//! nothing, the one that pins the oldest frame before the others; then what closing ones still pin;
//! then those that are far behind. Otherwise histories are: the oldest messages of all rooms go, and
//! whoever comes back for them is told of a gap. When neither is left, publishes are refused; and if
//! even so replies use up all of the budget, those go who hold anything at all.
//! Invariant: a relief lets go of an eighth of the budget or of all there is, if not in one step (see
//! `CLOSES_PER_STEP`) then with the next ticks; and what could not help is not tried again for nothing
//! ([`Memory::note_relief`]).

use crate::base::limits::CONTROL_FRAME_BYTES_MAX;
use crate::base::time::Now;
use crate::kernel::Kernel;
#[cfg(doc)]
use crate::kernel::budget::Memory;
use crate::kernel::conns::{Flags, Row};
use crate::kernel::effects::Effects;
use crate::kernel::ids::{ConnId, RoomId};
use crate::kernel::outbox::OutboxBounds;
use crate::kernel::reasons::CloseReason;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How a connection that holds memory stands, the most to blame first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Blame {
    /// Its socket takes nothing.
    Blocked,
    /// It was told to go and has not.
    Closing,
    /// Its socket takes something, and that is not enough.
    Behind,
    /// It is about to be written to.
    Waiting,
}

/// A connection that holds memory: in the order of these fields.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Holder {
    blame: Blame,
    /// Of its front frame.
    birth: u64,
    conn: ConnId,
}

/// The oldest frame of each history.
type Oldest = BinaryHeap<Reverse<(u64, RoomId)>>;

impl Blame {
    fn of(row: &Row, bounds: &OutboxBounds) -> Option<Blame> {
        let front = row.outbox.front()?;
        if row.flags.has(Flags::CLOSING) {
            // The close frame alone is no memory to speak of.
            return (front.len() > CONTROL_FRAME_BYTES_MAX).then_some(Blame::Closing);
        }
        match row.outbox.bytes() {
            // Its close frame would take as much.
            0..=CONTROL_FRAME_BYTES_MAX => None,
            _ if row.flags.has(Flags::BLOCKED) => Some(Blame::Blocked),
            bytes if bytes > bounds.behind => Some(Blame::Behind),
            _ => Some(Blame::Waiting),
        }
    }
}

impl Kernel {
    /// Lets go of memory if there is too much. Not to be called while writes are being reported:
    /// what they wrote must still be there.
    #[inline]
    pub fn relieve(&mut self, now: Now, effects: &mut Effects) {
        if self.memory.is_over() {
            self.relieve_now(now, effects);
        }
    }

    /// Goes on with what was too much for one step, and tries again what did not help before: the
    /// time may have made somebody to blame.
    pub fn relieve_again(&mut self, now: Now, effects: &mut Effects) {
        if self.memory.is_unfinished() || self.memory.is_full() {
            self.relieve_now(now, effects);
        }
    }

    #[cold]
    fn relieve_now(&mut self, now: Now, effects: &mut Effects) {
        self.counters.reliefs += 1;
        let holders = self.holders();
        let (to_blame, waiting) = holders.split_at(holders.partition_point(|holder| holder.blame != Blame::Waiting));
        let mut to_blame = to_blame.iter();
        let mut oldest = None;
        while self.memory.is_above_low() {
            // Histories are there to be used: nobody is closed for what only they hold.
            let readers_first = self.memory.is_above_share();
            if self.closes_left == 0 && readers_first {
                return self.memory.note_unfinished();
            }
            let holder = if readers_first { to_blame.next() } else { None };
            if let Some(holder) = holder {
                self.let_go(now, holder, effects);
            } else if !self.forget_oldest(&mut oldest) {
                let Some(holder) = to_blame.next() else { break };
                if self.closes_left == 0 {
                    return self.memory.note_unfinished();
                }
                self.let_go(now, holder, effects);
            }
        }
        if self.memory.account.used() > self.memory.budget() {
            for holder in waiting {
                if self.closes_left == 0 {
                    return self.memory.note_unfinished();
                }
                if self.memory.is_above_low() {
                    self.let_go(now, holder, effects);
                }
            }
        }
        self.memory.note_relief();
    }

    /// Connections that hold memory, in the order in which they are to let go of it.
    fn holders(&self) -> Vec<Holder> {
        let rows = (0..self.conns.slots()).filter_map(|slot| {
            let conn = self.conns.id_at(slot);
            let row = self.conns.row(conn)?;
            Some(Holder { blame: Blame::of(row, &self.limits.outbox)?, birth: row.outbox.front()?.birth(), conn })
        });
        let mut holders: Vec<_> = rows.collect();
        holders.sort_unstable();
        holders
    }

    fn let_go(&mut self, now: Now, holder: &Holder, effects: &mut Effects) {
        match holder.blame {
            Blame::Closing => self.reset(holder.conn, effects),
            _ => self.close_for(now, holder.conn, CloseReason::Memory, effects),
        }
    }

    /// Lets go of the oldest message of all rooms; false when there is none. `oldest` is made with
    /// the first call.
    fn forget_oldest(&mut self, oldest: &mut Option<Oldest>) -> bool {
        let rooms = &mut self.rooms;
        let oldest = oldest.get_or_insert_with(|| {
            let kept = rooms.iter_with_ids();
            kept.filter_map(|(id, room)| Some(Reverse((room.history().oldest_birth()?, id)))).collect()
        });
        let Some(Reverse((_, id))) = oldest.pop() else { return false };
        let history = rooms.get_mut(id).expect("a listed room is there").history_mut();
        history.forget_oldest();
        self.counters.forgotten += 1;
        oldest.extend(history.oldest_birth().map(|birth| Reverse((birth, id))));
        true
    }
}
