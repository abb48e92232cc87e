//! Many clients to close: drains, and how much of that is one step's.

use crate::house::{House, Name, numbers, pad, snapshot};
use ringroom::base::limits::{CLOSES_PER_STEP, STALL_TIME_MAX};
use ringroom::kernel::ids::ShardId;
use ringroom::shard::DrainPace;
use ringroom::sim::{FromClient, Link, WorldShape, identity};
use serde_json::{Value, json};
use std::time::Duration;

impl House {
    fn drain(&mut self, conns_per_s: u32, over: Duration) {
        for shard in self.world.shards() {
            self.world.drain(shard, DrainPace { conns_per_s, over, retry: Duration::from_millis(700) });
        }
        self.settle();
    }

    /// What a guest that was sent back is told to wait, milliseconds.
    fn retry_ms(&self, guest: Name) -> u64 {
        let (code, reason) = self.guests[guest].closed.clone().expect("closed");
        assert_eq!(code, 1012);
        let reason: Value = serde_json::from_str(&reason).expect("the reason is JSON");
        reason["retry_ms"].as_u64().expect("a number")
    }

    fn open_guests(&self) -> usize {
        self.guests.iter().filter(|guest| guest.closed.is_none()).count()
    }
}

#[test]
fn a_drain_sends_clients_back_one_after_the_other() {
    let mut house = House::new();
    let guests: Vec<Name> = (0..20).map(|nth| house.enter(nth % 2, &format!("u{nth}"))).collect();
    house.drain(10, Duration::from_secs(30));
    assert_eq!(house.open_guests(), 19, "shards take turns");
    for tenth in 1..=20 {
        house.pass(Duration::from_millis(100));
        assert_eq!(house.open_guests(), 19_usize.saturating_sub(tenth), "ten a second from both shards together");
    }
    let waits: Vec<u64> = guests.iter().map(|guest| house.retry_ms(*guest)).collect();
    assert!(waits.iter().all(|wait| (695..=1_400).contains(wait)), "their time had come: {waits:?}");
}

#[test]
fn who_is_left_when_a_drain_ends_is_told_when_its_turn_is() {
    let mut house = House::new();
    let guests: Vec<Name> = (0..20).map(|nth| house.enter(nth % 2, &format!("u{nth}"))).collect();
    house.drain(1, Duration::from_secs(2));
    house.pass(Duration::from_secs(1));
    assert_eq!(house.open_guests(), 18);
    house.pass(Duration::from_secs(1));
    assert_eq!(house.open_guests(), 0);
    // By shard, which asks its guests in their order: each has its turn, two seconds after the last.
    for shard in 0..2 {
        let waits: Vec<u64> = guests.iter().skip(shard).step_by(2).map(|guest| house.retry_ms(*guest)).collect();
        for (nth, wait) in waits[2..].iter().enumerate() {
            let turn = (shard as u64 + 2 * nth as u64 + 2) * 1_000 + 700;
            assert!((turn - 50..=turn + 750).contains(wait), "{waits:?} of shard {shard}, {nth}");
        }
    }
}

#[test]
fn who_is_not_yet_sent_back_is_served_as_ever() {
    let mut house = House::new();
    let (first, alice, bob) = (house.enter(0, "first"), house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "a");
    house.drain(1, Duration::from_secs(30));
    assert_eq!((house.closed(first), house.closed(alice), house.closed(bob)), (Some(1012), None, None));
    house.join(bob, "a");
    house.publish(bob, "a", json!(1));
    assert_eq!(house.heard(alice), numbers(1..=1));
    // What is queued for a client arrives before its close.
    house.guests[alice].reads = false;
    house.publish(bob, "a", json!(2));
    house.pass(Duration::from_secs(3));
    house.guests[alice].reads = true;
    house.settle();
    assert_eq!(house.heard(alice), numbers(2..=2));
    assert_eq!((house.closed(alice), house.closed(bob)), (Some(1012), Some(1012)));
}

#[test]
fn who_comes_during_a_drain_is_sent_back_at_once_with_a_turn_of_its_own() {
    let mut house = House::new();
    let _first = house.enter(0, "first");
    house.drain(1, Duration::from_secs(30));
    for nth in 0..2 {
        let late = house.knock(0, identity("acme", "late", ""));
        let turn = 700 + 2_000 * (nth as u64 + 1);
        assert!((turn..=turn + 700).contains(&house.retry_ms(late)));
    }
}

#[test]
fn thousands_that_are_to_be_closed_at_once_are_no_long_step() {
    let mut house = House::of(WorldShape { window: 600, ..WorldShape::default() });
    let guests: Vec<Name> = (0..CLOSES_PER_STEP * 3).map(|nth| house.enter(0, &format!("u{nth}"))).collect();
    let speaker = house.enter(1, "speaker");
    for guest in &guests {
        house.join(*guest, "a");
        house.guests[*guest].reads = false;
    }
    house.publish(speaker, "a", json!(pad(900)));
    let stalled = |house: &House| snapshot(house).closed_for["stall_time"];
    for _ in 0..STALL_TIME_MAX.as_secs() {
        house.pass(Duration::from_secs(1));
    }
    while stalled(&house) == 0 {
        house.pass(Duration::from_millis(4));
    }
    let mut before = stalled(&house);
    assert!(before < guests.len() as u64);
    while before < guests.len() as u64 {
        house.pass(Duration::from_millis(4));
        let closed = stalled(&house);
        assert!(closed > before, "each tick goes on");
        before = closed;
    }
    for _ in 0..10 {
        house.pass(Duration::from_secs(2));
    }
    assert_eq!(snapshot(&house).resets_for["linger"], guests.len() as u64, "they took no close frame either");
    assert!((1..=CLOSES_PER_STEP).contains(&house.world.closes_max()), "{}", house.world.closes_max());
}

#[test]
fn a_relief_that_closes_many_goes_on_at_the_next_tick() {
    const MEMORY: usize = 11 << 20;
    let shape = WorldShape { shards: 1, window: 600, memory_bytes: MEMORY, ..WorldShape::default() };
    let mut house = House::of(shape);
    let speaker = house.enter(0, "speaker");
    house.publish(speaker, "a", json!(pad(5_000)));
    // They ask for more than their sockets take, and read nothing.
    let joining = json!({ "id": 1, "event": "room:join", "data": { "room": "a" } }).to_string();
    let asking = json!({ "id": 2, "event": "room:history", "data": { "room": "a" } }).to_string();
    let links: Vec<Link> = (0..MEMORY / 5_000)
        .map(|nth| house.world.open(ShardId(0), identity("acme", &format!("u{nth}"), "")).expect("there is room"))
        .collect();
    house.settle();
    for link in &links {
        house.world.send(*link, FromClient::Text(joining.clone()));
        house.world.send(*link, FromClient::Text(asking.clone()));
    }
    house.settle();
    // By now it is known that their sockets take nothing: the next tick finds them to blame.
    let closed = |house: &House| snapshot(house).closed_for["memory"];
    let before = closed(&house);
    house.pass(Duration::from_millis(4));
    assert_eq!(closed(&house) - before, CLOSES_PER_STEP as u64, "as many as one step may");
    // Each keeps the frame that its socket has in part, so it takes more of them than that.
    for _ in 0..20 {
        house.pass(Duration::from_millis(4));
    }
    assert!(snapshot(&house).memory_used <= MEMORY as u64 / 4 * 3, "it went on");
    assert!(closed(&house) - before > CLOSES_PER_STEP as u64);
    assert_eq!(house.world.closes_max(), CLOSES_PER_STEP);
    house.publish(speaker, "a", json!("still here"));
}

#[test]
fn a_drain_that_runs_out_of_time_is_no_long_step() {
    let mut house = House::new();
    for nth in 0..CLOSES_PER_STEP * 2 + 10 {
        house.enter(0, &format!("u{nth}"));
    }
    house.drain(1, Duration::ZERO);
    assert_eq!(house.open_guests(), CLOSES_PER_STEP + 10);
    house.pass(Duration::from_millis(4));
    assert_eq!(house.open_guests(), 10);
    house.pass(Duration::from_millis(4));
    assert_eq!((house.open_guests(), house.world.closes_max()), (0, CLOSES_PER_STEP));
}
