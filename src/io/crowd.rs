//! How many connections each user has in this process, roughly: users share 65,535 counters by
//! hash. It decides only whether a connection is moved to its user's home, so a collision costs a
//! local shortcut and nothing else. Invariant: a counter falls exactly as often as it rose.

use crate::base::hash;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// So many that a counter's number, or none, takes two bytes.
const BUCKETS: usize = u16::MAX as usize;

#[derive(Clone)]
pub struct Crowd {
    counters: Arc<[AtomicU16; BUCKETS]>,
}

/// One counted connection. Dropping it takes it off.
pub struct Counted {
    /// `None`: somebody else takes it off.
    crowd: Option<Crowd>,
    bucket: Bucket,
}

/// Which counter counts a connection, for rows of which there are very many.
#[derive(Clone, Copy)]
pub struct Bucket(NonZeroU16);

impl Counted {
    /// From now on it is for the caller to take it off, with [`Crowd::leave`].
    pub fn into_bucket(mut self) -> Bucket {
        self.crowd = None;
        self.bucket
    }
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
        let place = (hash::stable(&[tenant.as_bytes(), user.as_bytes()]) % BUCKETS as u64) as u16;
        let bucket = Bucket(NonZeroU16::MIN.saturating_add(place));
        let counter = self.counter(bucket);
        // The numbers order nothing else, so they may be relaxed.
        match counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_add(1)) {
            Ok(before) => (Some(Counted { crowd: Some(self.clone()), bucket }), before),
            Err(full) => (None, full),
        }
    }

    /// Takes a connection off that was counted here.
    pub fn leave(&self, bucket: Bucket) {
        self.counter(bucket).fetch_sub(1, Ordering::Relaxed);
    }

    fn counter(&self, bucket: Bucket) -> &AtomicU16 {
        &self.counters[usize::from(bucket.0.get()) - 1]
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(crowd) = &self.crowd {
            crowd.leave(self.bucket);
        }
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
    fn whoever_keeps_the_bucket_takes_the_connection_off() {
        let crowd = Crowd::default();
        let bucket = crowd.enter("t", "alice").0.expect("counted").into_bucket();
        assert_eq!(crowd.enter("t", "alice").1, 1);
        crowd.leave(bucket);
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
