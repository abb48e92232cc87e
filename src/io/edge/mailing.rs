//! Mail between this shard and its peers: what the core sends into lanes, what it takes out of them,
//! and the bells. Invariant: a peer that has mail, or that waited for room and has it, is rung before
//! this shard sleeps, once for all that a turn left; and the core's credit is never more than there is.

use super::{Edge, State};
use crate::base::limits::MAILS_PER_RING;
use crate::base::time::Now;
use crate::io::control::Door;
use crate::io::lanes::Lanes;
use crate::kernel::ids::ShardId;
use crate::kernel::mail::Mail;
use crate::shard::{Input, Shard};
use std::sync::Arc;

pub(super) struct Mailing {
    lanes: Lanes<Mail>,
    doors: Arc<[Door]>,
    /// By peer: mails since its bell was last rung.
    to_ring: Vec<u32>,
    /// Peers whose lanes were said to starve, a bit each: saying it again would wake for nothing.
    starving: u64,
}

impl Mailing {
    pub fn new(lanes: Lanes<Mail>, doors: Arc<[Door]>) -> Mailing {
        Mailing { lanes, to_ring: vec![0; doors.len()], doors, starving: 0 }
    }

    /// Puts all mail into the lanes. Returns how many bells needed a system call.
    pub fn send(&mut self, mails: &mut Vec<(ShardId, Mail)>) -> u64 {
        let mut rung = 0;
        for (peer, mail) in mails.drain(..) {
            self.lanes.send(peer, mail);
            self.to_ring[peer.index()] += 1;
            if self.to_ring[peer.index()] == MAILS_PER_RING {
                // A long turn does not keep its peers asleep.
                rung += u64::from(self.ring(peer));
            }
        }
        rung
    }

    /// Whether [`Edge::exchange`] has something to do.
    pub fn is_due(&self, shard: &Shard) -> bool {
        let is_starved_anew = |peer: ShardId| self.starving & 1 << peer.index() == 0 && shard.is_starved(peer);
        self.to_ring.iter().any(|mails| *mails > 0) || self.lanes.peers().any(is_starved_anew)
    }

    fn ring(&mut self, peer: ShardId) -> bool {
        self.to_ring[peer.index()] = 0;
        self.doors[peer.index()].bell().ring()
    }

    /// The room in the lane to `peer`, where the core should hear of it before it runs out.
    fn room_to_tell(&mut self, shard: &Shard, peer: ShardId) -> Option<u32> {
        let believed = shard.credit(peer) as usize;
        if believed >= self.lanes.entries() / 2 {
            return None;
        }
        let free = self.lanes.free(peer);
        if free <= believed {
            return None;
        }
        self.starving &= !(1 << peer.index());
        Some(free as u32)
    }

    /// Says that something waits for room in the lane to `peer`, or yields the room that there is.
    fn starve(&mut self, shard: &Shard, peer: ShardId) -> Option<u32> {
        self.starving |= 1 << peer.index();
        let free = self.lanes.starve(peer);
        if free <= shard.credit(peer) as usize {
            return None;
        }
        self.starving &= !(1 << peer.index());
        Some(free as u32)
    }

    fn has_arrivals(&self, shard: &Shard) -> bool {
        let is_relieved = |peer: ShardId| shard.is_starved(peer) && self.lanes.free(peer) > shard.credit(peer) as usize;
        self.lanes.has_mail() || self.lanes.peers().any(is_relieved)
    }
}

impl Edge {
    /// Tells the core of room in the lanes before it runs out, so that a long turn is not stopped
    /// by what its peers have long taken.
    pub(super) fn top_up(&self, state: &mut State, now: Now) {
        for peer in state.mailing.lanes.peers() {
            if let Some(free) = state.mailing.room_to_tell(&state.shard, peer) {
                let State { shard, effects, timing, .. } = &mut *state;
                timing.step(shard, now, Input::Credit { peer, free }, effects);
                self.carry_out(state, now);
            }
        }
    }

    /// Rings the bells of peers that got mail, and says so where something waits for room in a
    /// lane. At the end of each turn.
    pub fn exchange(&self) {
        self.within(|state, now| {
            let State { shard, effects, mailing, timing, .. } = state;
            for peer in mailing.lanes.peers() {
                if mailing.to_ring[peer.index()] > 0 && mailing.ring(peer) {
                    self.counters.borrow_mut().bells += 1;
                }
                if shard.is_starved(peer)
                    && let Some(free) = mailing.starve(shard, peer)
                {
                    timing.step(shard, now, Input::Credit { peer, free }, effects);
                }
            }
        });
    }

    /// Takes mail of each lane, at most `mails_max` each. Says whether there may be more.
    pub fn take_mail(&self, mails_max: usize) -> bool {
        if !self.state.borrow().mailing.lanes.has_mail() {
            return false;
        }
        self.within(|state, now| {
            let State { shard, effects, mailing, timing, .. } = state;
            let mut is_more = false;
            for peer in mailing.lanes.peers() {
                let mut taken = 0;
                while taken < mails_max
                    && let Some(mail) = mailing.lanes.take(peer)
                {
                    timing.step(shard, now, Input::Mail { from: peer, mail }, effects);
                    taken += 1;
                }
                if taken == 0 {
                    continue;
                }
                self.worked.raise();
                is_more |= taken == mails_max;
                let rang = mailing.lanes.relieve(peer) && mailing.doors[peer.index()].bell().ring();
                let mut counters = self.counters.borrow_mut();
                counters.mails_in += taken as u64;
                counters.bells += u64::from(rang);
            }
            is_more
        })
    }

    /// Whether something came from another thread that nobody has looked at.
    pub fn has_arrivals(&self) -> bool {
        let State { shard, mailing, .. } = &*self.state.borrow();
        mailing.has_arrivals(shard) || !self.controls.is_empty()
    }
}
