//! Who calls, how often and how many at once, for all shards together: one table of fixed size,
//! without a lock, in which a caller is an address or a user.
//!
//! A caller has one of [`CALLER_PLACES`] places that its keyed hash chooses. A place that is idle
//! (no allowance used up, nothing counted) goes to whoever needs one. Where all places are busy a
//! newcomer shares the least busy one, so a flood from many addresses never makes the table grow,
//! let nobody in or let everybody in. The price: such a newcomer, which finds another least busy
//! place each time, may call up to [`CALLER_PLACES`] times as often as it should; and it is held to
//! less only while every one of those places is used up, which takes [`CALLERS_MAX`] times the
//! allowed rate. An IPv6 caller is its /64: a customer has at least that many.
//!
//! Invariant: a count falls in the place where it rose, exactly as often.

use crate::base::hash::Keyed;
use crate::base::limits::{CALLER_PLACES, CALLERS_MAX};
use crate::base::time::Instant;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// So many at once, then as many again in each such time, evenly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    pub number: u32,
    pub per: Duration,
}

impl Rate {
    fn step(self) -> u64 {
        self.span() / u64::from(self.number.max(1))
    }

    fn span(self) -> u64 {
        u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What is counted while it lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    HalfOpen,
    Open,
}

impl Kind {
    /// Both counts share a word.
    fn shift(self) -> u32 {
        match self {
            Kind::HalfOpen => 0,
            Kind::Open => 32,
        }
    }
}

/// Each allowance is one word: the time at which all of it will be there again (GCRA).
#[derive(Default)]
#[repr(align(32))]
struct Place {
    who: AtomicU64,
    attempts: AtomicU64,
    failures: AtomicU64,
    counts: AtomicU64,
}

const _: () = assert!(size_of::<Place>() == 32);

impl Place {
    /// Nothing would be lost if somebody else had it.
    fn is_idle(&self, now: Instant) -> bool {
        let is_whole = |allowance: &AtomicU64| allowance.load(Ordering::Relaxed) <= now.as_nanos();
        self.counts.load(Ordering::Relaxed) == 0 && is_whole(&self.attempts) && is_whole(&self.failures)
    }
}

pub struct Callers {
    places: Box<[Place]>,
    keyed: Keyed,
}

/// A caller's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Caller(u32);

/// Something that is counted until this is dropped.
pub struct Counted {
    callers: Arc<Callers>,
    caller: Caller,
    kind: Kind,
}

impl Counted {
    pub fn caller(&self) -> Caller {
        self.caller
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.callers.place(self.caller).counts.fetch_sub(1 << self.kind.shift(), Ordering::Relaxed);
    }
}

impl Callers {
    /// `key` keeps strangers from choosing whom they share a place with.
    pub fn new(key: [u64; 2]) -> Callers {
        Callers::with_places(key, CALLERS_MAX)
    }

    fn with_places(key: [u64; 2], places: usize) -> Callers {
        Callers { places: (0..places).map(|_| Place::default()).collect(), keyed: Keyed::new(key) }
    }

    pub fn address(&self, address: IpAddr, now: Instant) -> Caller {
        let who = match address.to_canonical() {
            IpAddr::V4(address) => self.keyed.hash_one((4, u64::from(address.to_bits()))),
            IpAddr::V6(address) => self.keyed.hash_one((6, (address.to_bits() >> 64) as u64)),
        };
        self.find(who, now)
    }

    pub fn user(&self, tenant: &str, user: &str, now: Instant) -> Caller {
        self.find(self.keyed.hash_one((tenant, user)), now)
    }

    fn find(&self, who: u64, now: Instant) -> Caller {
        // Zero is nobody.
        let who = who.max(1);
        let first = who as usize % (self.places.len() / CALLER_PLACES) * CALLER_PLACES;
        let places = &self.places[first..first + CALLER_PLACES];
        let caller = |at: usize| Caller((first + at) as u32);
        // The words order nothing else, so they may be relaxed.
        if let Some(at) = places.iter().position(|place| place.who.load(Ordering::Relaxed) == who) {
            return caller(at);
        }
        for (at, place) in places.iter().enumerate() {
            let before = place.who.load(Ordering::Relaxed);
            if !place.is_idle(now) {
                continue;
            }
            match place.who.compare_exchange(before, who, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return caller(at),
                // Another shard was faster, for the same caller.
                Err(winner) if winner == who => return caller(at),
                Err(_) => {}
            }
        }
        let least = (0..CALLER_PLACES).min_by_key(|at| places[*at].attempts.load(Ordering::Relaxed));
        caller(least.unwrap_or(0))
    }

    fn place(&self, caller: Caller) -> &Place {
        &self.places[caller.0 as usize]
    }

    /// Takes one attempt of what the caller is allowed, or says after how long there is one.
    pub fn attempt(&self, caller: Caller, rate: Rate, now: Instant) -> Result<(), Duration> {
        take(&self.place(caller).attempts, rate, now)
    }

    /// Notes a failure.
    pub fn fail(&self, caller: Caller, rate: Rate, now: Instant) {
        // One too many changes nothing: there is no allowance left to take it from.
        let _ = take(&self.place(caller).failures, rate, now);
    }

    /// Whether the caller may fail once more, or after how long.
    pub fn may_fail(&self, caller: Caller, rate: Rate, now: Instant) -> Result<(), Duration> {
        next(self.place(caller).failures.load(Ordering::Relaxed), rate, now).map(|_| ())
    }

    /// Counts one, and says how many were counted before.
    pub fn count(self: &Arc<Self>, caller: Caller, kind: Kind) -> (Counted, u32) {
        let before = self.place(caller).counts.fetch_add(1 << kind.shift(), Ordering::Relaxed);
        let counted = Counted { callers: Arc::clone(self), caller, kind };
        (counted, (before >> kind.shift()) as u32)
    }
}

/// What an allowance becomes when one is taken, or after how long one can be.
fn next(whole_at: u64, rate: Rate, now: Instant) -> Result<u64, Duration> {
    let after = whole_at.max(now.as_nanos()).saturating_add(rate.step());
    let latest = now.as_nanos().saturating_add(rate.span());
    if after <= latest { Ok(after) } else { Err(Duration::from_nanos(after - latest)) }
}

fn take(allowance: &AtomicU64, rate: Rate, now: Instant) -> Result<(), Duration> {
    let taken = allowance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |whole_at| next(whole_at, rate, now).ok());
    match taken {
        Ok(_) => Ok(()),
        Err(whole_at) => next(whole_at, rate, now).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    const RATE: Rate = Rate { number: 5, per: Duration::from_secs(10) };
    const KEY: [u64; 2] = [1, 2];

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(number).into()
    }

    #[test]
    fn a_caller_has_its_allowance_at_once_and_then_one_by_one() {
        let callers = Callers::new(KEY);
        let caller = callers.address(v4(1), at(0));
        (0..5).for_each(|_| assert_eq!(callers.attempt(caller, RATE, at(0)), Ok(())));
        assert_eq!(callers.attempt(caller, RATE, at(0)), Err(Duration::from_secs(2)));
        assert_eq!(callers.attempt(caller, RATE, at(500)), Err(Duration::from_millis(1_500)), "asking costs nothing");
        assert_eq!(callers.attempt(caller, RATE, at(2_000)), Ok(()));
        assert!(callers.attempt(caller, RATE, at(2_000)).is_err());
        let other = callers.address(v4(2), at(2_000));
        assert_eq!(callers.attempt(other, RATE, at(2_000)), Ok(()), "strangers do not pay");
    }

    #[test]
    fn failures_are_another_allowance() {
        let callers = Callers::new(KEY);
        let caller = callers.address(v4(1), at(0));
        for _ in 0..5 {
            assert_eq!(callers.may_fail(caller, RATE, at(0)), Ok(()));
            callers.fail(caller, RATE, at(0));
        }
        (0..9).for_each(|_| callers.fail(caller, RATE, at(0)));
        assert_eq!(callers.may_fail(caller, RATE, at(0)), Err(Duration::from_secs(2)), "not longer for more");
        assert_eq!(callers.attempt(caller, RATE, at(0)), Ok(()));
        assert_eq!(callers.may_fail(caller, RATE, at(2_000)), Ok(()));
    }

    #[test]
    fn addresses_of_one_customer_are_one_caller() {
        let callers = Callers::new(KEY);
        let place = |text: &str| callers.address(text.parse().unwrap(), at(0));
        let busy = |caller| callers.attempt(caller, RATE, at(0)).unwrap();
        let home = place("2001:db8:1:2::1");
        busy(home);
        assert_eq!(place("2001:db8:1:2:ffff::9"), home);
        let other = place("2001:db8:1:3::1");
        busy(other);
        assert_ne!(other, home);
        let old = place("192.0.2.1");
        busy(old);
        assert_eq!(place("::ffff:192.0.2.1"), old);
        assert_ne!(place("192.0.2.2"), old);
        busy(callers.user("t", "alice", at(0)));
        assert_ne!(callers.user("t", "alice", at(0)), callers.user("talice", "", at(0)));
    }

    #[test]
    fn counts_rise_and_fall_apart_and_keep_the_place() {
        let callers = Arc::new(Callers::with_places(KEY, CALLER_PLACES));
        let caller = callers.address(v4(1), at(0));
        let (half, before) = callers.count(caller, Kind::HalfOpen);
        assert_eq!(before, 0);
        let (open, before) = callers.count(caller, Kind::Open);
        assert_eq!(before, 0);
        assert_eq!(callers.count(caller, Kind::Open).1, 1, "and dropped at once");
        assert_eq!(callers.count(caller, Kind::Open).1, 1);
        // Far more callers than places come and go.
        (2..200).for_each(|number| assert_ne!(callers.address(v4(number), at(0)), caller));
        drop((half, open));
        assert_eq!(callers.count(caller, Kind::HalfOpen).1, 0);
        let reused = (200..400).any(|number| callers.address(v4(number), at(0)) == caller);
        assert!(reused, "an idle place goes to somebody else");
    }

    #[test]
    fn a_flood_of_callers_is_neither_let_in_without_bound_nor_shuts_others_out() {
        let callers = Callers::with_places(KEY, CALLER_PLACES);
        let rate = RATE;
        // As many as there are places use some, but not all, of what they may.
        for number in 0..CALLER_PLACES as u32 {
            let caller = callers.address(v4(number), at(0));
            (0..3).for_each(|_| callers.attempt(caller, rate, at(0)).unwrap());
        }
        let stranger = callers.address(v4(1_000), at(0));
        assert_eq!(callers.attempt(stranger, rate, at(0)), Ok(()), "it shares a place");
        // However many more come, together they get what the places allow.
        let taken = (2_000..3_000).filter(|number| {
            let caller = callers.address(v4(*number), at(0));
            callers.attempt(caller, rate, at(0)).is_ok()
        });
        assert_eq!(taken.count(), CALLER_PLACES * 5 - CALLER_PLACES * 3 - 1);
        // And once the places are idle again, a stranger has a whole allowance.
        let later = callers.address(v4(9_000), at(10_000));
        (0..5).for_each(|_| callers.attempt(later, rate, at(10_000)).unwrap());
    }

    #[test]
    fn shards_that_ask_at_once_give_away_no_more_than_is_allowed() {
        let callers = Arc::new(Callers::new(KEY));
        let rate = Rate { number: 1_000, per: Duration::from_secs(1_000_000) };
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let callers = Arc::clone(&callers);
                std::thread::spawn(move || {
                    let ask = |_: &u32| callers.attempt(callers.address(v4(7), at(0)), rate, at(0)).is_ok();
                    (0..2_000).filter(ask).count()
                })
            })
            .collect();
        assert_eq!(threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>(), 1_000);
    }

    #[test]
    fn the_hash_spreads_callers_over_the_table() {
        let callers = Callers::new(KEY);
        let busy = |number: u32| {
            let caller = callers.address(v4(number), at(0));
            callers.attempt(caller, RATE, at(0)).unwrap();
            caller.0
        };
        let places: HashSet<u32> = (0..10_000).map(busy).collect();
        assert!(places.len() >= 9_995, "{} places for 10,000 callers", places.len());
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_twice_the_allowance(times in prop::collection::vec(0u64..30_000, 1..200)) {
            let mut times = times;
            times.sort_unstable();
            let callers = Callers::new(KEY);
            let taken: Vec<u64> = times.into_iter().filter(|ms| {
                let caller = callers.address(v4(1), at(*ms));
                callers.attempt(caller, RATE, at(*ms)).is_ok()
            }).collect();
            for (nth, first) in taken.iter().enumerate() {
                let within = taken[nth..].iter().filter(|ms| **ms < first + 10_000).count();
                prop_assert!(within <= 2 * RATE.number as usize, "{within} within one window of {taken:?}");
            }
        }
    }
}
