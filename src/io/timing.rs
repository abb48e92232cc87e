//! How long the shard takes: its turns (the work between two waits), its steps, and what waits to be
//! written. Invariant: recording allocates nothing, and what does the most work - a receiver's share
//! of a message - reads no clock: one reading a step, three a flush, one a turn.

use crate::base::time::{Instant, Now};
use crate::io::clock::Origin;
use crate::kernel::effects::Effects;
use crate::shard::{Input, Shard};
use hdrhistogram::Histogram;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};
use std::time::Duration;

/// What histograms tell apart: from about half a microsecond to a minute, to two digits.
const NANOS_MIN: u64 = 1_000;
const NANOS_MAX: u64 = 60_000_000_000;
const DIGITS: u8 = 2;
/// "Of late" is this long and what has passed since: one to two windows.
const WINDOW: Duration = Duration::from_secs(60);

/// What one shard records.
pub struct Timing {
    clock: Origin,
    /// Up to when the time is accounted for.
    mark: Instant,
    turn_began: Instant,
    turns: Durations,
    lags: Durations,
    step: Recent,
    turn: Recent,
}

/// Durations as they were recorded: how many of each length, about, and exactly how long together.
#[derive(Clone, Debug)]
pub struct Durations {
    /// Nanoseconds.
    lengths: Histogram<u64>,
    sum: Duration,
}

/// What it took, and what it was.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Longest {
    pub took: Duration,
    pub what: &'static str,
}

/// The longest of this window and of the one before.
#[derive(Default)]
struct Recent {
    began: Instant,
    this: Longest,
    before: Longest,
}

/// The times of one shard, or of several together.
#[derive(Clone, Default, Debug)]
pub struct Times {
    pub turns: Durations,
    /// From the receive that brought a message, or the moment when it was taken from another shard,
    /// to the first write of its delivery; one for each flush that found somebody new.
    pub lags: Durations,
    pub longest_step: Longest,
    pub longest_turn: Longest,
}

impl Default for Durations {
    fn default() -> Self {
        let lengths = Histogram::new_with_bounds(NANOS_MIN, NANOS_MAX, DIGITS).expect("the bounds are in order");
        Durations { lengths, sum: Duration::ZERO }
    }
}

impl Durations {
    fn record(&mut self, took: Duration) {
        self.lengths.saturating_record(took.as_nanos() as u64);
        self.sum += took;
    }

    fn merge(&mut self, other: &Durations) {
        self.lengths.add(&other.lengths).expect("all have the same bounds");
        self.sum += other.sum;
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.lengths.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// How many are as long as each of `bounds` or shorter, to a hundredth of the bound or half a
    /// microsecond. `bounds` rise.
    pub fn up_to(&self, bounds: &[Duration]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len()];
        for step in self.lengths.iter_recorded() {
            let length = Duration::from_nanos(self.lengths.lowest_equivalent(step.value_iterated_to()));
            if let Some(count) = counts.get_mut(bounds.partition_point(|bound| *bound < length)) {
                *count += step.count_at_value();
            }
        }
        let mut sum = 0;
        for count in &mut counts {
            sum += *count;
            *count = sum;
        }
        counts
    }
}

impl Timing {
    pub fn new(clock: Origin) -> Timing {
        let (step, turn) = (Recent::default(), Recent::default());
        let (mark, turn_began) = (Instant::ZERO, Instant::ZERO);
        Timing { clock, mark, turn_began, turns: Durations::default(), lags: Durations::default(), step, turn }
    }

    pub fn begin_turn(&mut self, now: Instant) {
        self.turn_began = now;
    }

    pub fn end_turn(&mut self) {
        let now = self.clock.at();
        let took = now.since(self.turn_began);
        self.turns.record(took);
        self.turn.note(now, took, "turn");
    }

    /// What comes next began at `now`.
    pub fn begin(&mut self, now: Instant) {
        self.mark = now;
    }

    /// What was done until now is accounted for.
    pub fn skip(&mut self) {
        self.mark = self.clock.at();
    }

    /// What was done since the last mark was `what`.
    pub fn end(&mut self, what: &'static str) {
        let now = self.clock.at();
        self.step.note(now, now.since(self.mark), what);
        self.mark = now;
    }

    /// One step of the core, with what led to it since the last: its reading and its assembling.
    pub fn step(&mut self, shard: &mut Shard, now: Now, input: Input<'_>, effects: &mut Effects) {
        shard.step(now, input, effects);
        self.end(shard.doing());
    }

    /// Something that came at `since` is handed to the kernel now.
    pub fn delivered(&mut self, since: Instant) {
        let lag = self.clock.at().since(since);
        self.lags.record(lag);
    }

    pub fn report(&mut self) -> Times {
        let now = self.clock.at();
        Times {
            turns: self.turns.clone(),
            lags: self.lags.clone(),
            longest_step: self.step.longest(now),
            longest_turn: self.turn.longest(now),
        }
    }
}

impl Recent {
    fn note(&mut self, now: Instant, took: Duration, what: &'static str) {
        if took > self.this.took || now.since(self.began) >= WINDOW {
            self.roll(now);
            if took > self.this.took {
                self.this = Longest { took, what };
            }
        }
    }

    fn longest(&mut self, now: Instant) -> Longest {
        self.roll(now);
        longer(self.this, self.before)
    }

    fn roll(&mut self, now: Instant) {
        let passed = now.since(self.began);
        if passed >= WINDOW {
            let this = std::mem::take(&mut self.this);
            self.before = if passed < WINDOW * 2 { this } else { Longest::default() };
            self.began = now;
        }
    }
}

fn longer(one: Longest, other: Longest) -> Longest {
    if other.took > one.took { other } else { one }
}

impl Times {
    /// Takes in those of another shard.
    pub fn merge(&mut self, other: &Times) {
        self.turns.merge(&other.turns);
        self.lags.merge(&other.lags);
        self.longest_step = longer(self.longest_step, other.longest_step);
        self.longest_turn = longer(self.longest_turn, other.longest_turn);
    }
}

impl Serialize for Times {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("turn_us", &quantiles(&self.turns))?;
        map.serialize_entry("delivery_lag_us", &quantiles(&self.lags))?;
        let Longest { took, what } = self.longest_step;
        map.serialize_entry("longest_step", &json!({"us": micros(took.as_nanos() as u64), "what": what}))?;
        map.serialize_entry("longest_turn_us", &micros(self.longest_turn.took.as_nanos() as u64))?;
        map.end()
    }
}

fn quantiles(of: &Durations) -> Value {
    let at = |quantile| micros(of.lengths.value_at_quantile(quantile));
    json!({"p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": micros(of.lengths.max())})
}

/// To a tenth.
fn micros(nanos: u64) -> f64 {
    (nanos as f64 / 100.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_longest_of_late_is_forgotten_in_time() {
        let mut recent = Recent::default();
        let ms = Duration::from_millis;
        recent.note(at(70), ms(5), "a");
        recent.note(at(80), ms(3), "b");
        assert_eq!(recent.longest(at(80)), Longest { took: ms(5), what: "a" });
        recent.note(at(131), ms(2), "c");
        assert_eq!(recent.longest(at(131)).what, "a", "of the window before");
        recent.note(at(192), ms(1), "d");
        assert_eq!(recent.longest(at(192)), Longest { took: ms(2), what: "c" });
        assert_eq!(recent.longest(at(400)), Longest::default(), "long ago");
    }

    #[test]
    fn times_of_several_shards_are_merged_and_not_added() {
        let mut all = Times::default();
        for (nanos, what) in [(1_000_000u64, "room:join"), (3_000_000, "room:publish"), (2_000_000, "tick")] {
            let mut times = Times::default();
            times.turns.record(Duration::from_nanos(nanos));
            times.longest_step = Longest { took: Duration::from_nanos(nanos), what };
            all.merge(&times);
        }
        let value = json!(all);
        assert_eq!(value["longest_step"], json!({"us": 3_000.0, "what": "room:publish"}));
        let turns = &value["turn_us"];
        assert!((turns["p50"].as_f64().unwrap() - 2_000.0).abs() < 20.0, "{turns}");
        assert!((turns["max"].as_f64().unwrap() - 3_000.0).abs() < 30.0, "{turns}");
        assert_eq!(value["delivery_lag_us"]["p99"], json!(0.0));
    }

    #[test]
    fn durations_are_counted_up_to_bounds_and_added_up_exactly() {
        let us = Duration::from_micros;
        let mut durations = Durations::default();
        let all = [us(1), us(10), us(11), us(200), us(2_000), Duration::from_secs(3_600)];
        all.iter().for_each(|took| durations.record(*took));
        assert_eq!(durations.up_to(&[us(10), us(100), us(1_000), us(2_000)]), [2, 3, 4, 5]);
        assert_eq!((durations.len(), durations.sum()), (6, all.iter().sum()));
    }
}
