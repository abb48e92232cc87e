//! Connections to write to, in two queues: those that one message to a crowd made so, or that have as
//! much to write as a crowd has, and the rest.
//! Invariant: in every flush the crowd has its few places and the rest all others, so a room of
//! thousands does not hold up who writes to a small one, nor is it held up for good. A crowd that is
//! held, for more to join its writes, has no places until it is let go.

use crate::kernel::effects::Effects;
use crate::kernel::ids::ConnId;
use std::collections::VecDeque;

/// In each queue the longest waiting is first.
pub struct Dirty {
    rest: VecDeque<ConnId>,
    crowd: VecDeque<ConnId>,
    is_crowd_held: bool,
    writes_max: usize,
    crowd_writes_max: usize,
}

impl Dirty {
    /// A flush writes to at most `writes_max`, at most `crowd_writes_max` of them a crowd's.
    pub fn new(writes_max: usize, crowd_writes_max: usize) -> Dirty {
        Dirty { rest: VecDeque::new(), crowd: VecDeque::new(), is_crowd_held: false, writes_max, crowd_writes_max }
    }

    /// Whether the next flush has something to write.
    pub fn is_due(&self) -> bool {
        !self.rest.is_empty() || self.is_crowd_due()
    }

    pub fn is_crowd_due(&self) -> bool {
        self.has_crowd() && !self.is_crowd_held
    }

    pub fn has_crowd(&self) -> bool {
        !self.crowd.is_empty()
    }

    pub fn list(&mut self, effects: &mut Effects) {
        self.rest.extend(effects.dirty.drain(..));
        self.crowd.extend(effects.dirty_by_crowd.drain(..));
    }

    /// Lists one that had its turn and has as many bytes as a crowd: more than a write names, or more
    /// than the rest wait for.
    pub fn list_again(&mut self, conn: ConnId) {
        self.crowd.push_back(conn);
    }

    /// Those of the crowd wait until they are let go.
    pub fn hold_crowd(&mut self) {
        self.is_crowd_held = true;
    }

    pub fn let_crowd_go(&mut self) {
        self.is_crowd_held = false;
    }

    /// Takes those of one flush off, the rest before the crowd, each with whether it is of the crowd.
    pub fn next_flush(&mut self) -> impl Iterator<Item = (ConnId, bool)> {
        let of_crowd = if self.is_crowd_held { 0 } else { self.crowd.len().min(self.crowd_writes_max) };
        let of_rest = self.rest.len().min(self.writes_max - of_crowd);
        let rest = self.rest.drain(..of_rest).map(|conn| (conn, false));
        rest.chain(self.crowd.drain(..of_crowd).map(|conn| (conn, true)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::{CROWD_WRITES_PER_TURN, WRITES_PER_TURN};
    use crate::base::table::Key;
    use proptest::prelude::*;

    fn conns(slots: std::ops::Range<u32>) -> Vec<ConnId> {
        slots.map(|slot| ConnId(Key { slot, generation: 0 })).collect()
    }

    fn is_of_crowd(conn: &ConnId) -> bool {
        conn.0.slot >= 1_000_000
    }

    fn dirty(rest: u32, crowd: u32) -> Dirty {
        let (dirty, dirty_by_crowd) = (conns(0..rest), conns(1_000_000..1_000_000 + crowd));
        let mut listed = Dirty::new(WRITES_PER_TURN, CROWD_WRITES_PER_TURN);
        listed.list(&mut Effects { dirty, dirty_by_crowd, ..Effects::default() });
        listed
    }

    #[test]
    fn a_small_room_is_written_before_the_rest_of_a_crowd() {
        let mut dirty = dirty(0, 18_000);
        assert_eq!(dirty.next_flush().count(), CROWD_WRITES_PER_TURN);
        dirty.list(&mut Effects { dirty: conns(0..2), ..Effects::default() });
        let flush: Vec<_> = dirty.next_flush().map(|(conn, _)| conn).collect();
        assert_eq!(flush[..2], conns(0..2));
        assert_eq!(flush.len(), 2 + CROWD_WRITES_PER_TURN);
    }

    #[test]
    fn a_crowd_that_is_held_waits_and_the_rest_does_not() {
        let mut dirty = dirty(2, 3);
        dirty.hold_crowd();
        assert!(dirty.is_due());
        assert_eq!(dirty.next_flush().map(|(conn, _)| conn).collect::<Vec<_>>(), conns(0..2));
        assert!(!dirty.is_due() && dirty.has_crowd());
        dirty.let_crowd_go();
        assert_eq!(dirty.next_flush().count(), 3);
    }

    proptest! {
        #[test]
        fn every_flush_has_places_for_both(rest in 0u32..2_000, crowd in 0u32..2_000) {
            let mut dirty = dirty(rest, crowd);
            let (mut had_rest, mut had_crowd) = (Vec::new(), Vec::new());
            while dirty.is_due() {
                let left = (rest as usize - had_rest.len(), crowd as usize - had_crowd.len());
                let (of_crowd, of_rest): (Vec<_>, Vec<_>) = dirty.next_flush().partition(|(_, is_of_crowd)| *is_of_crowd);
                prop_assert!(of_crowd.iter().all(|(conn, _)| is_of_crowd(conn)));
                prop_assert_eq!(of_crowd.len(), left.1.min(CROWD_WRITES_PER_TURN));
                prop_assert_eq!(of_rest.len(), left.0.min(WRITES_PER_TURN - of_crowd.len()));
                had_rest.extend(of_rest.into_iter().map(|(conn, _)| conn));
                had_crowd.extend(of_crowd.into_iter().map(|(conn, _)| conn));
            }
            prop_assert_eq!(had_rest, conns(0..rest));
            prop_assert_eq!(had_crowd, conns(1_000_000..1_000_000 + crowd));
        }
    }
}
