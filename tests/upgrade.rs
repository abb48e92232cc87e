//! The change from polling to a WebSocket over many seeds, and over planted bugs, each of which must show.
//! `SIM_SEEDS` and `SIM_FIRST` ask for more seeds, or others.

use ringroom::sim::{UpgradeFault, UpgradeOutcome, race};

const SEEDS: u64 = 2_000;
const FAULT_SEEDS_MAX: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

#[test]
fn nothing_is_lost_doubled_or_reordered_however_the_ways_race() {
    let first = number("SIM_FIRST").unwrap_or(0);
    let mut all = UpgradeOutcome::default();
    let mut upgraded = 0;
    for seed in first..first + number("SIM_SEEDS").unwrap_or(SEEDS) {
        let outcome = race(seed, None);
        assert_eq!(outcome.failure, None, "seed {seed}");
        upgraded += u32::from(outcome.upgraded);
        all.broken += outcome.broken;
        all.polled += outcome.polled;
        all.pushed += outcome.pushed;
        all.noops += outcome.noops;
    }
    println!("{upgraded} upgraded, {all:?}");
    // A race in which nothing meets would prove little.
    for (what, count) in [
        ("upgrades", upgraded),
        ("probes that broke off", all.broken),
        ("messages by GETs", all.polled),
        ("messages by WebSockets", all.pushed),
        ("GETs that a probe ended", all.noops),
    ] {
        assert!(count > 0, "no {what} in all these runs");
    }
}

#[test]
fn every_planted_bug_shows() {
    for fault in UpgradeFault::ALL {
        let shows = (0..FAULT_SEEDS_MAX).any(|seed| race(seed, Some(fault)).failure.is_some());
        assert!(shows, "{fault:?} does not show in {FAULT_SEEDS_MAX} runs");
    }
}
