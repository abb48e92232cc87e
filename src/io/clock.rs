//! The clock that the core is told. Invariant: `at` never goes back, on any thread, and starts above
//! zero; `unix_ms` follows the wall clock at each [`Clock::anchor`], jumps included.

use crate::base::time::{Instant, Now};
use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where [`Instant`] counts from: the same for all shards of a process.
#[derive(Clone)]
pub struct Origin {
    clock: quanta::Clock,
    start: quanta::Instant,
}

impl Origin {
    pub fn now() -> Origin {
        let clock = quanta::Clock::new();
        let start = clock.now();
        Origin { clock, start }
    }

    /// Now, as [`Now::at`].
    pub fn at(&self) -> Instant {
        let nanos = self.clock.now().saturating_duration_since(self.start).as_nanos() as u64;
        Instant::from_nanos(nanos + 1)
    }
}

pub struct Clock {
    origin: Origin,
    /// Both clocks at one moment: reading the wall clock each time would cost as much again.
    anchor: Cell<Now>,
}

impl Clock {
    pub fn new(origin: Origin) -> Clock {
        let clock = Clock { origin, anchor: Cell::new(Now::default()) };
        clock.anchor();
        clock
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Reads the wall clock. The tick does it, at least once a second.
    pub fn anchor(&self) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.anchor.set(Now { at: self.at(), unix_ms: unix.as_millis() as u64 });
    }

    pub fn now(&self) -> Now {
        let anchor = self.anchor.get();
        let at = self.at();
        Now { at, unix_ms: anchor.unix_ms + at.since(anchor.at).as_millis() as u64 }
    }

    fn at(&self) -> Instant {
        self.origin.at()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_agrees_with_the_wall() {
        let clock = Clock::new(Origin::now());
        let first = clock.now();
        assert!(first.at > Instant::ZERO);
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        while clock.now().at.since(first.at) < Duration::from_millis(3) {}
        let later = clock.now();
        assert!(later.at > first.at);
        assert!(later.unix_ms >= first.unix_ms + 2);
        assert!(later.unix_ms >= before, "the wall clock is followed without another reading");
    }
}
