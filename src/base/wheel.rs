//! A timer wheel: timers are set and fired in constant time, cancelled by letting them fire and
//! asking whether they still matter (a generation in `T` answers).
//! Invariant: a timer fires in the first [`Wheel::expire`] at or after its time, never before, up
//! to one [`TICK`] late; timers of different ticks fire in order of time.

use crate::base::pages::Pages;
use crate::base::time::Instant;
use crate::base::u48::U48;
use std::time::Duration;

/// Resolution.
pub const TICK: Duration = Duration::from_millis(4);
const TICK_NANOS: u64 = TICK.as_nanos() as u64;
/// Ticks in one slot of each level, as powers of two: 4 ms, 128 ms, 131 s. What a slot of a higher
/// level holds falls at once when its time comes, so the slots that nearly all timers wait in are
/// narrow.
const SHIFTS: [u32; LEVELS] = [0, 5, 15];
const LEVELS: usize = 3;
/// Slots of the last level: 18 hours in all; later timers wait in its last slot and are set again.
const LAST_SLOTS: usize = 512;

pub struct Wheel<T> {
    /// Ticks up to and including this one have fired.
    now: u64,
    /// As many slots a level as one slot of the next is long.
    levels: [Box<[Slot<T>]>; LEVELS],
    len: usize,
}

type Slot<T> = Pages<Waiting<T>>;

struct Waiting<T> {
    tick: U48,
    timer: T,
}

// One per connection.
const _: () = assert!(size_of::<Waiting<(u32, u32, u8)>>() == 20);

impl<T> Wheel<T> {
    pub fn new(start: Instant) -> Self {
        let slots = |level: usize| match SHIFTS.get(level + 1) {
            Some(next) => 1 << (next - SHIFTS[level]),
            None => LAST_SLOTS,
        };
        Wheel {
            now: start.as_nanos() / TICK_NANOS,
            levels: std::array::from_fn(|level| (0..slots(level)).map(|_| Slot::default()).collect()),
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
        let slots_ahead = |level: usize| (tick >> SHIFTS[level]) - (self.now >> SHIFTS[level]);
        let fits = |level: &usize| slots_ahead(*level) < self.levels[*level].len() as u64;
        let level = (0..LEVELS).find(fits).unwrap_or(LEVELS - 1);
        let slots = self.levels[level].len() as u64;
        let ahead = slots_ahead(level).min(slots - 1);
        let slot = ((self.now >> SHIFTS[level]) + ahead) % slots;
        self.levels[level][slot as usize].push(Waiting { tick: U48::new(tick), timer });
    }

    fn slot_mut(&mut self, level: usize, tick: u64) -> &mut Slot<T> {
        let slots = &mut self.levels[level];
        let slot = (tick >> SHIFTS[level]) % slots.len() as u64;
        &mut slots[slot as usize]
    }

    /// Moves time on to `now` and appends what is due to `due`, in order of ticks.
    pub fn expire(&mut self, now: Instant, due: &mut Vec<T>) {
        let target = now.as_nanos() / TICK_NANOS;
        while let Some(tick) = self.next_tick().filter(|tick| *tick <= target) {
            self.now = tick;
            // Higher levels first: what they hold for this tick falls down to level 0.
            for level in (0..LEVELS).rev() {
                if tick & ((1 << SHIFTS[level]) - 1) == 0 {
                    let fallen = std::mem::take(self.slot_mut(level, tick));
                    for Waiting { tick, timer } in fallen.into_pages().flatten() {
                        self.place_or_fire(tick.get(), timer, due);
                    }
                }
            }
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

    /// The first tick at which a slot fires or falls. Looks at each slot once at most.
    fn next_tick(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let of_level = |level: usize| {
            let base = self.now >> SHIFTS[level];
            let slots = self.levels[level].len() as u64;
            let is_taken = |slot: &u64| !self.levels[level][(*slot % slots) as usize].is_empty();
            (base + 1..base + slots).find(is_taken).map(|slot| slot << SHIFTS[level])
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

    #[test]
    fn no_tick_brings_more_than_the_timers_of_an_eighth_of_a_second_down() {
        let mut wheel = Wheel::new(at(0));
        // The heartbeats of connections that all came at once: 20 to 25 seconds from now.
        (0..100_000).for_each(|n| wheel.set(at(20_000 + n / 20), n));
        let longest = wheel.levels[1].iter().map(Pages::len).max().unwrap_or(0);
        assert!(longest <= 20 * 128, "{longest} timers fall at once");
        assert_eq!(wheel.levels[1].iter().map(Pages::len).sum::<usize>(), 100_000);
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
