//! A timer wheel: timers are set and fired in constant time, cancelled by letting them fire and
//! asking whether they still matter (a generation in `T` answers).
//! Invariant: a timer fires in the first [`Wheel::expire`] at or after its time, never before, up
//! to one [`TICK`] late; timers of different ticks fire in order of time.

use crate::base::time::Instant;
use std::time::Duration;

/// Resolution.
pub const TICK: Duration = Duration::from_millis(4);
const TICK_NANOS: u64 = TICK.as_nanos() as u64;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 64^4 ticks of 4 ms are 18 hours; later timers wait in the last slot and are set again.
const LEVELS: usize = 4;

pub struct Wheel<T> {
    /// Ticks up to and including this one have fired.
    now: u64,
    levels: [[Vec<(u64, T)>; SLOTS]; LEVELS],
    len: usize,
}

impl<T> Wheel<T> {
    pub fn new(start: Instant) -> Self {
        Wheel {
            now: start.as_nanos() / TICK_NANOS,
            levels: std::array::from_fn(|_| std::array::from_fn(|_| Vec::new())),
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn set(&mut self, at: Instant, timer: T) {
        // Rounded up: never early. A time that has passed fires at the next tick.
        let tick = at.as_nanos().div_ceil(TICK_NANOS).max(self.now + 1);
        self.len += 1;
        self.place(tick, timer);
    }

    fn place(&mut self, tick: u64, timer: T) {
        let distance = tick - self.now;
        let mut level = 0;
        while level + 1 < LEVELS && distance >> (SLOT_BITS * (level as u32 + 1)) != 0 {
            level += 1;
        }
        let shift = SLOT_BITS * level as u32;
        let furthest = (self.now >> shift) + SLOTS as u64 - 1;
        let slot = (tick >> shift).min(furthest) as usize % SLOTS;
        self.levels[level][slot].push((tick, timer));
    }

    /// Moves time on to `now` and appends what is due to `due`, in order of ticks.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<T>) {
        let target = now.as_nanos() / TICK_NANOS;
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= target) {
            self.now = tick;
            // Higher levels first: what they hold for this tick falls down to level 0.
            for level in (1..LEVELS).rev() {
                let shift = SLOT_BITS * level as u32;
                if tick & ((1 << shift) - 1) == 0 {
                    let slot = (tick >> shift) as usize % SLOTS;
                    for (tick, timer) in std::mem::take(&mut self.levels[level][slot]) {
                        self.place_or_fire(tick, timer, due);
                    }
                }
            }
            let fired = &mut self.levels[0][tick as usize % SLOTS];
            self.len -= fired.len();
            due.extend(fired.drain(..).map(|(_, timer)| timer));
        }
        self.now = self.now.max(target);
    }

    fn place_or_fire(&mut self, tick: u64, timer: T, due: &mut Vec<T>) {
        if tick <= self.now {
            self.len -= 1;
            due.push(timer);
        } else {
            self.place(tick, timer);
        }
    }

    /// No timer fires before this time. `Instant::NEVER` when none is set. For a timer beyond the
    /// first level this is when its slot falls, not its own time.
    pub fn next(&self) -> Instant {
        self.next_tick().map_or(Instant::NEVER, |tick| Instant::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    /// The first tick at which a slot fires or falls. Looks at 256 slots at most.
    fn next_tick(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let of_level = |level: usize| {
            let shift = SLOT_BITS * level as u32;
            let base = self.now >> shift;
            let is_taken = |slot: &u64| !self.levels[level][*slot as usize % SLOTS].is_empty();
            (base + 1..base + SLOTS as u64).find(is_taken).map(|slot| slot << shift)
        };
        (0..LEVELS).filter_map(of_level).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    #[test]
    fn a_timer_never_fires_early() {
        let mut wheel = Wheel::new(at(0));
        wheel.set(at(1_001), 'x');
        let mut due = Vec::new();
        wheel.expire(at(1_000), &mut due);
        assert!(due.is_empty());
        wheel.expire(at(1_004), &mut due);
        assert_eq!(due, ['x']);
        assert_eq!(wheel.next(), Instant::NEVER);
    }

    proptest! {
        #[test]
        fn the_wheel_agrees_with_a_sorted_list(
            start in 0u64..10_000_000,
            moves in proptest::collection::vec((0u64..200_000_000, 1u64..5_000_000, any::<bool>()), 1..60),
        ) {
            let tick_ms = TICK.as_millis() as u64;
            let mut now = start;
            let mut wheel = Wheel::new(at(now));
            let mut model: Vec<(u64, usize)> = Vec::new();
            for (id, (delay, pause, short)) in moves.into_iter().enumerate() {
                let delay = if short { delay % 2_000 } else { delay };
                wheel.set(at(now + delay), id);
                model.push((now + delay, id));
                prop_assert!(wheel.next() <= at(now + delay + tick_ms), "the next look is not after the first timer");
                now += if short { pause % 3_000 } else { pause };
                let mut due = Vec::new();
                wheel.expire(at(now), &mut due);
                for id in &due {
                    let place = model.iter().position(|(_, m)| m == id);
                    let (when, _) = model.remove(place.expect("fires once"));
                    prop_assert!(when <= now, "never early");
                }
                for (when, _) in &model {
                    prop_assert!(*when + tick_ms > now, "at most one tick late: {when} at {now}");
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
