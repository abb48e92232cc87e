//! A shard that is nearly at its budget lets go of memory, by blame: first of connections whose
//! sockets take nothing, the one that pins the oldest frame before the others; then of what closing
//! ones still pin; then of those that are far behind; then of the oldest messages of all histories,
//! which whoever comes back for them is told as a gap. When none of it helps, publishes are refused;
//! and if even then replies use up all of the budget, those go who hold anything at all.
//! Invariant: a relief lets go of an eighth of the budget or of all there is, and what could not
//! help is not tried again for nothing ([`Memory::note_relief`]).

use crate::base::limits::{CONTROL_FRAME_BYTES_MAX, OUTBOX_BYTES_BEHIND};
use crate::base::time::Now;
use crate::kernel::Kernel;
#[cfg(doc)]
use crate::kernel::budget::Memory;
use crate::kernel::conns::{Flags, Row};
use crate::kernel::effects::Effects;
use crate::kernel::ids::ConnId;
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

impl Blame {
    fn of(row: &Row) -> Option<Blame> {
        let front = row.outbox.front()?;
        if row.flags.has(Flags::CLOSING) {
            // The close frame alone is no memory to speak of.
            return (front.len() > CONTROL_FRAME_BYTES_MAX).then_some(Blame::Closing);
        }
        match row.outbox.bytes() {
            // Its close frame would take as much.
            0..=CONTROL_FRAME_BYTES_MAX => None,
            _ if row.flags.has(Flags::BLOCKED) => Some(Blame::Blocked),
            bytes if bytes > OUTBOX_BYTES_BEHIND => Some(Blame::Behind),
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

    /// Tries again what did not help before: the time may have made somebody to blame.
    pub fn relieve_if_full(&mut self, now: Now, effects: &mut Effects) {
        if self.memory.is_full() {
            self.relieve_now(now, effects);
        }
    }

    #[cold]
    fn relieve_now(&mut self, now: Now, effects: &mut Effects) {
        self.counters.reliefs += 1;
        let blamed = self.to_blame();
        let low = self.memory.low();
        let (to_blame, waiting) = blamed.split_at(blamed.partition_point(|(blame, ..)| *blame != Blame::Waiting));
        self.let_go(now, to_blame, low, effects);
        self.forget_history(low);
        if self.memory.account.used() > self.memory.budget() {
            self.let_go(now, waiting, low, effects);
        }
        self.memory.note_relief();
    }

    /// Connections that hold memory: most to blame first, then by the age of their front frames.
    fn to_blame(&self) -> Vec<(Blame, u64, ConnId)> {
        let rows = (0..self.conns.slots()).filter_map(|slot| {
            let conn = self.conns.id_at(slot);
            let row = self.conns.row(conn)?;
            Some((Blame::of(row)?, row.outbox.front()?.birth(), conn))
        });
        let mut blamed: Vec<_> = rows.collect();
        blamed.sort_unstable();
        blamed
    }

    fn let_go(&mut self, now: Now, blamed: &[(Blame, u64, ConnId)], until: usize, effects: &mut Effects) {
        for (blame, _, conn) in blamed {
            if self.memory.account.used() <= until {
                return;
            }
            match blame {
                Blame::Closing => self.reset(*conn, effects),
                _ => self.close_for(now, *conn, CloseReason::Memory, effects),
            }
        }
    }

    /// Lets go of the oldest messages of all rooms, in the order of their age.
    fn forget_history(&mut self, until: usize) {
        if self.memory.account.used() <= until {
            return;
        }
        let oldest =
            self.rooms.iter_with_ids().filter_map(|(id, room)| Some(Reverse((room.history.oldest_birth()?, id))));
        let mut oldest: BinaryHeap<_> = oldest.collect();
        while let Some(Reverse((_, id))) = oldest.pop()
            && self.memory.account.used() > until
        {
            let history = &mut self.rooms.get_mut(id).expect("a listed room is there").history;
            history.forget_oldest();
            self.counters.forgotten += 1;
            oldest.extend(history.oldest_birth().map(|birth| Reverse((birth, id))));
        }
    }
}
