//! The pulse of each shard: when it last did something and what that was, for whoever watches over
//! them. Invariant: a beat is two plain stores of the shard's own thread, and reading one never waits:
//! a shard that hangs is found without its help.

use crate::base::time::Instant;
use crate::io::clock::Origin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// On cache lines of its own: shards beat all the time and are looked at now and then.
#[repr(align(128))]
pub struct Pulse {
    at: AtomicU64,
    did: AtomicU64,
}

/// Those of all shards.
pub struct Pulses {
    clock: Origin,
    shards: Box<[Pulse]>,
}

/// A shard that does nothing any more, not even see the time pass.
#[derive(PartialEq, Eq, Debug)]
pub struct Silent {
    pub shard: usize,
    pub since: Duration,
    pub did: &'static str,
}

impl Pulses {
    /// Whoever has not begun is given the time from now on.
    pub fn new(clock: Origin, shards: usize) -> Pulses {
        let at = clock.at().as_nanos();
        let pulse = |_| Pulse { at: AtomicU64::new(at), did: AtomicU64::new(pack("start")) };
        Pulses { clock, shards: (0..shards).map(pulse).collect() }
    }

    pub fn of(&self, shard: usize) -> &Pulse {
        &self.shards[shard]
    }

    /// The shards whose last beat is older than `bound`.
    pub fn silent(&self, bound: Duration) -> Vec<Silent> {
        self.silent_at(self.clock.at(), bound)
    }

    fn silent_at(&self, now: Instant, bound: Duration) -> Vec<Silent> {
        let judged = self.shards.iter().enumerate().map(|(shard, pulse)| {
            let since = now.since(Instant::from_nanos(pulse.at.load(Ordering::Relaxed)));
            Silent { shard, since, did: unpack(pulse.did.load(Ordering::Relaxed)) }
        });
        judged.filter(|silent| silent.since > bound).collect()
    }
}

impl Pulse {
    /// Something is about to be done.
    pub fn beat(&self, now: Instant) {
        self.at.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// It is done, and was `what`.
    pub fn did(&self, what: &'static str) {
        self.did.store(pack(what), Ordering::Relaxed);
    }
}

const ADDRESS_BITS: u32 = 48;
const ADDRESS: u64 = (1 << ADDRESS_BITS) - 1;

/// A word in one store, so that nobody ever reads half of one and half of another: its length above
/// its address. Zero for what does not fit.
fn pack(word: &'static str) -> u64 {
    let address = word.as_ptr().expose_provenance() as u64;
    match u16::try_from(word.len()) {
        Ok(len) if address <= ADDRESS => u64::from(len) << ADDRESS_BITS | address,
        _ => 0,
    }
}

fn unpack(packed: u64) -> &'static str {
    if packed == 0 {
        return "something that has no short name";
    }
    let start = std::ptr::with_exposed_provenance::<u8>((packed & ADDRESS) as usize);
    let len = (packed >> ADDRESS_BITS) as usize;
    // SAFETY: only `pack` makes such numbers and only `Pulse` keeps them, whole: start and length are
    // those of one text that lives for ever, and whose address was exposed.
    unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(start, len)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(of: u64) -> Instant {
        Instant::from_nanos(of * 1_000_000_000)
    }

    #[test]
    fn only_a_shard_that_is_silent_for_longer_than_the_bound_is_named_with_what_it_last_did() {
        let pulses = Pulses::new(Origin::now(), 3);
        for (shard, at) in [(0, 40), (1, 24), (2, 25)] {
            pulses.of(shard).beat(seconds(at));
            pulses.of(shard).did("room:join");
        }
        pulses.of(1).did("tick");
        let silent = pulses.silent_at(seconds(40), Duration::from_secs(15));
        assert_eq!(silent, [Silent { shard: 1, since: Duration::from_secs(16), did: "tick" }]);
        pulses.of(1).beat(seconds(40));
        assert_eq!(pulses.silent_at(seconds(40), Duration::from_secs(15)), []);
    }

    #[test]
    fn a_shard_that_has_not_begun_is_given_the_time_from_its_making_on() {
        let pulses = Pulses::new(Origin::now(), 1);
        assert_eq!(pulses.silent(Duration::from_secs(3_600)), []);
        let late = pulses.clock.at().after(Duration::from_secs(3_600));
        let silent = pulses.silent_at(late, Duration::from_secs(3_000));
        assert_eq!((silent.len(), silent[0].did), (1, "start"));
    }

    #[test]
    fn words_come_back_whole_from_another_thread() {
        const WORDS: [&str; 4] = ["tick", "", "room:subscription-details", "größer"];
        let pulses = std::sync::Arc::new(Pulses::new(Origin::now(), 1));
        let beating = std::sync::Arc::clone(&pulses);
        let shard = std::thread::spawn(move || {
            for nth in 0..20_000 {
                beating.of(0).did(WORDS[nth % WORDS.len()]);
            }
        });
        for _ in 0..20_000 {
            let seen = pulses.silent_at(seconds(u64::MAX >> 30), Duration::ZERO)[0].did;
            assert!(seen == "start" || WORDS.contains(&seen), "{seen}");
        }
        shard.join().unwrap();
    }

    #[test]
    fn a_word_that_is_too_long_is_no_word() {
        let long: &'static str = "x".repeat(1 << 16).leak();
        assert_eq!(unpack(pack(long)), unpack(0));
        assert_eq!(unpack(pack("gone")), "gone");
    }
}
