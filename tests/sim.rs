//! The simulation over many seeds, and over planted bugs, each of which it must notice.
//! `SIM_SEEDS` and `SIM_FIRST` ask for more seeds, or others.

use ringroom::sim::{Check, Failure, Fault, Outcome, Simulation};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const SEEDS: u64 = 1_000;
const FAULT_SEEDS_MAX: u64 = 300;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

/// A panic of the core is a broken promise like any other.
fn run(seed: u64, fault: Option<Fault>) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| Simulation::new(seed, fault).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let saw = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default();
        Outcome { failure: Some(Failure { check: Check::NoPanic, saw }), ..Outcome::default() }
    })
}

#[test]
fn every_promise_is_kept_whatever_clients_lanes_and_sockets_do() {
    let first = number("SIM_FIRST").unwrap_or(0);
    let end = first + number("SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let (broken, total) = (Mutex::new(Vec::new()), Mutex::new(ringroom::shard::Snapshot::default()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let outcome = run(seed, None);
            total.lock().unwrap().add(&outcome.snapshot);
            if let Some(Failure { check, saw }) = outcome.failure {
                eprintln!("seed {seed} breaks {check:?}: {saw}\n  cargo sim -- --seed {seed} --trace");
                broken.lock().unwrap().push(seed);
            }
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "seeds that break a promise: {broken:?}");

    // A simulation in which nothing goes wrong would prove little.
    let total = total.into_inner().unwrap();
    println!("{total:?}");
    if end - first >= SEEDS {
        let slow = total.closes["slow_consumer"];
        let names = ["outbox_bytes", "stall_time", "memory", "lost_between_shards", "lost_replay"];
        assert_eq!(slow, names.map(|name| total.closed_for[name]).iter().sum::<u64>(), "each for one reason");
        let happened = [
            ("publishes", total.publishes),
            ("retries", total.repeated),
            ("replayed entries", total.replayed),
            ("lanes that fell behind", total.behind),
            ("members told that entries are lost", total.lost),
            ("parked requests", total.parked),
            ("slow consumers", slow),
            ("transient pushes dropped for slow members", total.dropped["transient_slow"]),
            ("transient pushes dropped for slow lanes", total.dropped["transient_behind"]),
            ("logged pushes cut with slow consumers", total.dropped["logged_cut"]),
            ("consumers closed for the bytes they had queued", total.closed_for["outbox_bytes"]),
            ("consumers closed for the time they took nothing", total.closed_for["stall_time"]),
            ("consumers closed for what was lost between shards", total.closed_for["lost_between_shards"]),
            ("consumers closed for memory", total.closed_for["memory"]),
            ("closing connections cut for memory", total.resets_for["memory"]),
            ("closing connections cut for their time", total.resets_for["linger"]),
            ("messages forgotten for memory", total.forgotten),
            ("publishes refused for memory", total.refused_full),
            ("questions to the outside", total.asked),
            ("questions that it did not answer in time", total.asked_timed_out),
            ("requests refused because too much waited for it", total.asked_full),
            ("requests refused to a greedy connection", total.limited["conn"]),
            ("requests refused to a greedy user by their event", total.limited["event"]),
        ];
        for (what, count) in happened {
            assert!(count > 0, "no {what} in all these runs");
        }
    }
}

#[test]
fn the_same_seed_brings_the_same_run() {
    let trace = |seed| {
        let mut lines = Vec::new();
        let mut note = |line: &str| lines.push(line.to_string());
        Simulation::new(seed, None).with_trace(&mut note).run();
        lines
    };
    for seed in [3, 4, 5] {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.len() > 100);
        assert_eq!(first, second);
    }
}

/// The first seed that notices `fault` must do so by a check that is named for it.
fn assert_is_caught(fault: Fault) {
    for seed in 0..FAULT_SEEDS_MAX {
        if let Some(Failure { check, saw }) = run(seed, Some(fault)).failure {
            assert!(fault.caught_by().contains(&check), "seed {seed}: {fault:?} shows as {check:?}: {saw}");
            return;
        }
    }
    panic!("{fault:?} stays unnoticed for {FAULT_SEEDS_MAX} seeds");
}

macro_rules! caught {
    ($($name:ident: $fault:ident,)*) => {
        $(#[test]
        fn $name() {
            assert_is_caught(Fault::$fault);
        })*

        #[test]
        fn every_planted_bug_has_its_test() {
            assert_eq!(Fault::ALL, [$(Fault::$fault),*]);
        }
    };
}

caught! {
    a_sequencer_that_leaves_out_a_number_is_caught: SkippedSeq,
    two_messages_that_change_places_are_caught: SwappedEntries,
    a_lost_lane_entry_is_caught: LostEntry,
    a_doubled_lane_entry_is_caught: DoubledEntry,
    a_member_who_is_never_let_go_is_caught: LostGone,
    a_reply_that_overtakes_its_message_is_caught: OvertakingReply,
    a_second_reply_is_caught: DoubledReply,
    a_lost_reply_is_caught: LostReply,
    a_replay_with_a_hole_is_caught: HoledReplay,
    a_gap_that_is_not_told_is_caught: SilentGap,
    an_outbox_without_a_bound_is_caught: UnboundedOutbox,
    a_lane_that_is_overrun_is_caught: LaneOverrun,
    a_relief_that_lets_go_of_nothing_is_caught: IdleRelief,
}
