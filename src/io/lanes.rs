//! Lanes: one bounded single-producer, single-consumer ring for each ordered pair of shards. All
//! mail from one shard to another goes through its one lane, so it arrives in the order it was sent.
//! Invariant: a mail is pushed only with the core's credit, so a push never fails, and a producer
//! that waits for room is rung once there is some.
//!
//! Why no relief is lost: the producer says `starving` (store), fences, looks at the room. The
//! consumer makes room (store), fences, takes `starving` (swap). As with bells, one fence is first:
//! either the consumer sees the word and rings, or the producer sees the room.

use crate::kernel::ids::ShardId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The ends of one shard. `M` is the kernel's mail.
pub struct Lanes<M> {
    own: usize,
    /// Mails that each holds.
    entries: usize,
    /// By peer; none to itself.
    to: Vec<Option<Sender<M>>>,
    from: Vec<Option<Receiver<M>>>,
}

struct Sender<M> {
    ring: rtrb::Producer<M>,
    starving: Arc<AtomicBool>,
}

struct Receiver<M> {
    ring: rtrb::Consumer<M>,
    starving: Arc<AtomicBool>,
}

/// The lanes between `shards` shards, the ends of each in its place; each holds `entries` mails.
pub fn weave<M>(shards: usize, entries: usize) -> Vec<Lanes<M>> {
    let mut ends: Vec<Lanes<M>> =
        (0..shards).map(|own| Lanes { own, entries, to: none_of(shards), from: none_of(shards) }).collect();
    for from in 0..shards {
        for to in (0..shards).filter(|to| *to != from) {
            let (producer, consumer) = rtrb::RingBuffer::new(entries);
            let starving = Arc::new(AtomicBool::new(false));
            ends[from].to[to] = Some(Sender { ring: producer, starving: Arc::clone(&starving) });
            ends[to].from[from] = Some(Receiver { ring: consumer, starving });
        }
    }
    ends
}

fn none_of<T>(count: usize) -> Vec<Option<T>> {
    (0..count).map(|_| None).collect()
}

impl<M> Lanes<M> {
    /// All other shards.
    pub fn peers(&self) -> impl Iterator<Item = ShardId> + use<M> {
        let own = self.own;
        (0..self.to.len()).filter(move |peer| *peer != own).map(|peer| ShardId(peer as u8))
    }

    pub fn entries(&self) -> usize {
        self.entries
    }

    pub fn send(&mut self, peer: ShardId, mail: M) {
        let lane = self.to[peer.index()].as_mut().expect("a shard does not mail itself");
        assert!(lane.ring.push(mail).is_ok(), "the core sends within its credit");
    }

    /// Mails that the lane to `peer` takes now, at least.
    pub fn free(&self, peer: ShardId) -> usize {
        self.to[peer.index()].as_ref().map_or(0, |lane| lane.ring.slots())
    }

    /// Says that something waits for room in the lane to `peer`; its consumer rings once it has
    /// made some. Returns the room there is already.
    pub fn starve(&self, peer: ShardId) -> usize {
        let Some(lane) = &self.to[peer.index()] else { return 0 };
        lane.starving.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        lane.ring.slots()
    }

    pub fn take(&mut self, peer: ShardId) -> Option<M> {
        self.from[peer.index()].as_mut()?.ring.pop().ok()
    }

    /// After taking: whether `peer` waits for room and has to be rung.
    pub fn relieve(&self, peer: ShardId) -> bool {
        let Some(lane) = &self.from[peer.index()] else { return false };
        fence(Ordering::SeqCst);
        lane.starving.load(Ordering::Relaxed) && lane.starving.swap(false, Ordering::Relaxed)
    }

    /// Whether any lane to this shard holds mail.
    pub fn has_mail(&self) -> bool {
        self.from.iter().flatten().any(|lane| !lane.ring.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::bell::Bell;
    use crate::io::socket;
    use std::os::fd::{AsFd, AsRawFd};

    const ENTRIES: usize = 1_024;
    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    #[test]
    fn each_pair_of_shards_has_a_lane_of_its_own() {
        let mut ends = weave::<(u8, u8)>(3, ENTRIES);
        for (from, end) in ends.iter_mut().enumerate() {
            for to in end.peers().collect::<Vec<_>>() {
                end.send(to, (from as u8, to.0));
            }
        }
        for (to, end) in ends.iter_mut().enumerate() {
            let peers: Vec<_> = end.peers().collect();
            assert_eq!(peers.len(), 2);
            assert!(end.has_mail());
            for from in peers {
                assert_eq!(end.take(from), Some((from.0, to as u8)));
                assert_eq!(end.take(from), None);
            }
            assert!(!end.has_mail());
        }
    }

    #[test]
    fn a_lane_has_room_for_its_bound_and_no_more() {
        let mut ends = weave::<u32>(2, ENTRIES);
        for mail in 0..ENTRIES as u32 {
            ends[0].send(B, mail);
        }
        assert_eq!(ends[0].free(B), 0);
        assert_eq!(ends[0].starve(B), 0);
        assert_eq!(ends[1].take(A), Some(0));
        assert!(ends[1].relieve(A), "the producer waits");
        assert!(!ends[1].relieve(A), "and is told once");
        assert_eq!(ends[0].free(B), 1);
    }

    fn sleep(bell: &Bell) {
        let mut event = libc::pollfd { fd: bell.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, on the stack. The time-out is so long that only a lost ring reaches it.
        let ready = unsafe { libc::poll(&mut event, 1, 30_000) };
        assert_eq!(ready, 1, "a ring was lost");
        socket::event_clear(bell.as_fd().as_raw_fd());
    }

    /// Many times the lane's size, so both ends sleep often: one for mail, one for room.
    #[test]
    fn neither_mail_nor_relief_is_lost_between_two_threads() {
        const MAILS: u32 = 40 * ENTRIES as u32;
        let bells: Arc<[Bell; 2]> = Arc::new([Bell::new().unwrap(), Bell::new().unwrap()]);
        let mut ends = weave::<u32>(2, ENTRIES);
        let (mut taking, mut sending) = (ends.pop().unwrap(), ends.pop().unwrap());
        let sender = std::thread::spawn({
            let bells = Arc::clone(&bells);
            move || {
                let mut next = 0;
                while next < MAILS {
                    for _ in 0..sending.free(B) {
                        if next < MAILS {
                            sending.send(B, next);
                            next += 1;
                        }
                    }
                    bells[1].ring();
                    if sending.starve(B) > 0 {
                        continue;
                    }
                    bells[0].arm();
                    match sending.free(B) {
                        0 if next < MAILS => sleep(&bells[0]),
                        _ => bells[0].disarm(),
                    }
                }
            }
        });
        let mut next = 0;
        while next < MAILS {
            // A bounded batch, as the shard does it.
            for _ in 0..100 {
                let Some(mail) = taking.take(A) else { break };
                assert_eq!(mail, next);
                next += 1;
            }
            if taking.relieve(A) {
                bells[0].ring();
            }
            bells[1].arm();
            if !taking.has_mail() && next < MAILS {
                sleep(&bells[1]);
            } else {
                bells[1].disarm();
            }
        }
        sender.join().unwrap();
    }
}
