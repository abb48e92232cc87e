//! How many connections each user has in this process, roughly: users share 65,536 counters by
//! hash. It decides only whether a connection is moved to its user's home, so a collision costs a
//! local shortcut and nothing else. Invariant: a counter falls exactly as often as it rose.

use crate::base::hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

const BUCKETS: usize = 1 << 16;

#[derive(Clone)]
pub struct Crowd {
    counters: Arc<[AtomicU16; BUCKETS]>,
}

/// One counted connection. Dropping it takes it off.
pub struct Counted {
    crowd: Crowd,
    bucket: u16,
}

impl Default for Crowd {
    fn default() -> Self {
        let counters: Arc<[AtomicU16]> = (0..BUCKETS).map(|_| AtomicU16::new(0)).collect();
        Crowd { counters: counters.try_into().expect("as many as were made") }
    }
}

impl Crowd {
    /// Counts a connection of the user and says how many were counted before it. `None` with
    /// `u16::MAX` when the counter is full: that connection is not counted.
    pub fn enter(&self, tenant: &str, user: &str) -> (Option<Counted>, u16) {
        let bucket = (hash::stable(&[tenant.as_bytes(), user.as_bytes()]) % BUCKETS as u64) as u16;
        let counter = &self.counters[usize::from(bucket)];
        // The numbers order nothing else, so they may be relaxed.
        match counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1)) {
            Ok(before) => (Some(Counted { crowd: self.clone(), bucket }), before),
            Err(full) => (None, full),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.crowd.counters[usize::from(self.bucket)].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_counted_while_its_connections_live() {
        let crowd = Crowd::default();
        let (first, before) = crowd.enter("t", "alice");
        assert_eq!(before, 0);
        let (second, before) = crowd.enter("t", "alice");
        assert_eq!(before, 1);
        assert_eq!(crowd.enter("t", "bob").1, 0);
        drop((first, second));
        assert_eq!(crowd.enter("t", "alice").1, 0);
    }

    #[test]
    fn a_full_counter_stays_full_until_a_counted_one_goes() {
        let crowd = Crowd::default();
        let mut all: Vec<_> = (0..u16::MAX).map(|_| crowd.enter("t", "alice").0.expect("counted")).collect();
        let (none, before) = crowd.enter("t", "alice");
        assert!(none.is_none());
        assert_eq!(before, u16::MAX);
        all.pop();
        assert_eq!(crowd.enter("t", "alice").1, u16::MAX - 1);
        drop(all);
        assert_eq!(crowd.enter("t", "alice").1, 0);
    }
}
