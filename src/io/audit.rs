//! The way of audited events out of a shard: one bounded ring each, which a thread of its own empties.
//! Invariant: telling never waits, and neither locks nor wakes anybody; what finds the ring full is
//! counted and gone. Without an audit there is no ring, and telling is one branch.

use crate::admission::identity::Identity;
use crate::admission::revocations::Revocation;
use crate::base::limits::{AUDIT_ENTRIES_MAX, ORIGIN_BYTES_AUDITED};
use crate::base::time::Now;
use crate::kernel::audited::{Audited, cut};
use crate::kernel::ids::ConnId;
use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that happened on a shard.
pub struct Entry {
    pub unix_ms: u64,
    pub shard: u8,
    pub told: Told,
}

pub enum Told {
    Connected {
        conn: ConnId,
        /// Boxed: it would make every place of the ring larger.
        identity: Box<Identity>,
        address: IpAddr,
    },
    /// A request to connect became nothing.
    Refused {
        address: IpAddr,
        reason: &'static str,
        /// What it said that its page is from, cut where it is long.
        origin: Option<Box<str>>,
    },
    Revoked(Arc<[Revocation]>),
    OfCore(Audited),
}

/// A shard's end; without a ring where nothing is to be told.
#[derive(Default)]
pub struct Teller {
    shard: u8,
    ring: Option<RefCell<rtrb::Producer<Entry>>>,
    lost: Arc<AtomicU64>,
}

/// The other end.
pub struct Listener {
    ring: rtrb::Consumer<Entry>,
    lost: Arc<AtomicU64>,
}

/// The ends for each shard.
pub fn lines(shards: usize) -> (Vec<Teller>, Vec<Listener>) {
    let line = |shard| {
        let (producer, ring) = rtrb::RingBuffer::new(AUDIT_ENTRIES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let teller = Teller { shard, ring: Some(RefCell::new(producer)), lost: Arc::clone(&lost) };
        (teller, Listener { ring, lost })
    };
    (0..shards as u8).map(line).unzip()
}

impl Teller {
    pub fn is_on(&self) -> bool {
        self.ring.is_some()
    }

    pub fn tell(&self, now: Now, told: impl FnOnce() -> Told) {
        let Some(ring) = &self.ring else { return };
        let entry = Entry { unix_ms: now.unix_ms, shard: self.shard, told: told() };
        if ring.borrow_mut().push(entry).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub fn connected(&self, now: Now, conn: ConnId, identity: &Identity, address: IpAddr) {
        self.tell(now, || Told::Connected { conn, identity: Box::new(identity.clone()), address });
    }

    pub fn refused(&self, now: Now, reason: &'static str, address: IpAddr, origin: Option<&str>) {
        let cut = |origin| cut(origin, ORIGIN_BYTES_AUDITED).into();
        self.tell(now, || Told::Refused { address, reason, origin: origin.map(cut) });
    }
}

impl Listener {
    pub fn hear(&mut self) -> Option<Entry> {
        self.ring.pop().ok()
    }

    /// How many entries were lost since this was last asked.
    pub fn take_lost(&mut self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const NOW: Now = Now { at: crate::base::time::Instant::ZERO, unix_ms: 5 };

    #[test]
    fn what_finds_no_place_is_counted_and_the_shard_goes_on() {
        let (tellers, mut listeners) = lines(2);
        for _ in 0..AUDIT_ENTRIES_MAX + 3 {
            tellers[1].refused(NOW, "head", ADDRESS, None);
        }
        assert_eq!((listeners[1].take_lost(), listeners[1].take_lost(), listeners[0].take_lost()), (3, 0, 0));
        let mut taken = 0;
        while let Some(entry) = listeners[1].hear() {
            assert_eq!((entry.shard, entry.unix_ms), (1, 5));
            taken += 1;
        }
        assert_eq!(taken, AUDIT_ENTRIES_MAX);
        tellers[1].refused(NOW, "head", ADDRESS, Some(&"é".repeat(1_000)));
        let Some(Entry { told: Told::Refused { origin: Some(origin), .. }, .. }) = listeners[1].hear() else {
            panic!("there is room again")
        };
        assert!(origin.len() <= ORIGIN_BYTES_AUDITED);
    }

    #[test]
    fn without_an_audit_nothing_is_even_made() {
        let teller = Teller::default();
        assert!(!teller.is_on());
        teller.tell(NOW, || panic!("nobody listens"));
        teller.refused(NOW, "head", ADDRESS, Some("o"));
    }
}
