//! Slow and silent clients.

use crate::house::{House, numbers, snapshot};
use ringroom::base::limits::{
    HEARTBEAT, HEARTBEAT_TIME_OUT, IDLE_TIME_MAX, OUTBOX_BYTES_LEAST, PONGS_PENDING_MAX, STALL_TIME_MAX,
};
use ringroom::kernel::Limits;
use ringroom::kernel::outbox::OutboxBounds;
use ringroom::sim::{FromClient, WorldShape};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn a_slow_reader_is_closed_without_delaying_anybody_else() {
    let mut house = House::of(WorldShape { window: 50_000, lane_entries: 64, ..WorldShape::default() });
    let (slow, quick, bob) = (house.enter(0, "slow"), house.enter(0, "quick"), house.enter(1, "bob"));
    house.join(slow, "a");
    house.join(quick, "a");
    house.guests[slow].reads = false;
    let pad = "x".repeat(100_000);
    for nth in 1..=20 {
        house.publish(bob, "a", json!([nth, pad]));
        assert_eq!(house.heard(quick).len(), 1, "each arrives at once");
    }
    house.guests[slow].reads = true;
    house.settle();
    assert_eq!(house.closed(slow), Some(4410));
    let heard: Vec<Value> = house.heard(slow).iter().map(|data| data[0].clone()).collect();
    assert_eq!(heard, numbers(1..=heard.len() as u64), "what was begun is finished, the rest left out");
    assert!(heard.len() < 20);
    assert_eq!(house.closed(quick), None);
    assert_eq!(house.ok(quick, "room:info", json!({ "room": "a" }))["members"], 1);
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_is_closed() {
    let mut house = House::of(WorldShape { window: 1_000, ..WorldShape::default() });
    let (slow, bob) = (house.enter(0, "slow"), house.enter(1, "bob"));
    house.join(slow, "a");
    house.guests[slow].reads = false;
    for _ in 0..3 {
        house.publish(bob, "a", json!("x".repeat(900)));
    }
    house.pass(STALL_TIME_MAX / 2);
    assert_eq!(house.ok(bob, "room:info", json!({ "room": "a" }))["members"], 1);
    for _ in 0..STALL_TIME_MAX.as_secs() / 2 + 2 {
        house.pass(Duration::from_secs(1));
    }
    assert_eq!(house.ok(bob, "room:info", json!({ "room": "a" }))["members"], 0);
    house.guests[slow].reads = true;
    house.settle();
    assert_eq!(house.closed(slow), Some(4410));
}

#[test]
fn an_outbox_and_a_stall_are_bounded_as_they_are_configured() {
    let mut house = House::of(WorldShape { window: 1_000, ..WorldShape::default() });
    let (slow, late) = (house.enter(0, "slow"), house.enter(1, "late"));
    let bob = house.enter(1, "bob");
    let stall_time = 2 * STALL_TIME_MAX;
    let outbox = OutboxBounds::of(OUTBOX_BYTES_LEAST);
    house.world.set_limits(&Limits { outbox, stall_time, ..Limits::default() });
    for guest in [slow, late] {
        house.join(guest, "a");
        house.guests[guest].reads = false;
    }
    house.publish(bob, "a", json!("x".repeat(2_000)));
    house.live(STALL_TIME_MAX + Duration::from_secs(3));
    assert_eq!(house.ok(bob, "room:info", json!({ "room": "a" }))["members"], 2);
    for _ in 0..OUTBOX_BYTES_LEAST / 100_000 + 1 {
        house.publish(bob, "a", json!("x".repeat(100_000)));
    }
    assert_eq!(house.ok(bob, "room:info", json!({ "room": "a" }))["members"], 0, "half of the usual bound");
    assert_eq!(snapshot(&house).closed_for["outbox_bytes"], 1);
}

#[test]
fn a_few_messages_that_come_at_once_close_nobody_however_large_they_are() {
    let mut house = House::of(WorldShape { window: 1_000, ..WorldShape::default() });
    let (busy, bob) = (house.enter(0, "busy"), house.enter(1, "bob"));
    house.join(busy, "a");
    house.guests[busy].reads = false;
    let large = json!("x".repeat(1_000_000));
    for _ in 0..4 {
        house.publish(bob, "a", large.clone());
    }
    house.guests[busy].reads = true;
    house.settle();
    assert_eq!((house.pushes(busy, "said").len(), house.closed(busy)), (4, None));
    house.guests[busy].reads = false;
    for _ in 0..5 {
        house.publish(bob, "a", large.clone());
    }
    house.guests[busy].reads = true;
    house.settle();
    assert_eq!((house.pushes(busy, "said").len(), house.closed(busy)), (1, Some(4410)), "the one that was begun");
}

#[test]
fn heartbeats_come_as_a_ping_and_as_a_push_within_the_interval() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    let second = Duration::from_secs(1);
    let mut waited = 0;
    for beats in 1..=4 {
        let mut pause = 0;
        while house.guests[alice].pings < beats {
            house.pass(second);
            pause += 1;
        }
        let interval = HEARTBEAT.as_secs();
        assert!((interval * 4 / 5..=interval + 1).contains(&pause), "{pause} s");
        waited += pause;
        assert_eq!(house.pushes(alice, "heartbeat").len(), 1);
    }
    assert!(waited >= 80);
}

#[test]
fn of_pings_that_wait_for_an_answer_the_first_are_answered_and_the_last() {
    let window = 1_000;
    let mut house = House::of(WorldShape { window, ..WorldShape::default() });
    let alice = house.enter(0, "alice");
    let link = house.guests[alice].link;
    for round in 0..2 {
        house.guests[alice].reads = false;
        let pings: Vec<Vec<u8>> = (0..1_000).map(|n| format!("{round} {n:098}").into_bytes()).collect();
        for ping in &pings {
            house.world.send(link, FromClient::Ping(ping.clone()));
        }
        house.settle();
        house.guests[alice].reads = true;
        house.settle();
        let (last, first) = pings.split_last().expect("some");
        let mut ponged = std::mem::take(&mut house.guests[alice].ponged);
        assert_eq!(ponged.pop().as_ref(), Some(last));
        assert_eq!(ponged, first[..ponged.len()]);
        // Beside those that wait there are those that the transport took.
        let waiting = PONGS_PENDING_MAX as usize;
        assert!((waiting..=waiting + window / 100).contains(&ponged.len()), "{}", ponged.len());
    }
}

#[test]
fn a_peer_that_gives_no_sign_of_life_is_closed_and_one_that_does_is_not() {
    let mut house = House::new();
    let (silent, alive, pinging) = (house.enter(0, "silent"), house.enter(0, "alive"), house.enter(0, "pinging"));
    house.guests[silent].pongs = false;
    house.guests[pinging].pongs = false;
    let wait = HEARTBEAT_TIME_OUT + HEARTBEAT;
    for _ in 0..wait.as_secs() / 5 + 1 {
        let link = house.guests[pinging].link;
        house.world.send(link, FromClient::Ping(b"x".to_vec()));
        house.pass(Duration::from_secs(5));
    }
    assert_eq!(house.closed(silent), Some(4408));
    assert_eq!((house.closed(alive), house.closed(pinging)), (None, None));
}

#[test]
fn a_connection_without_requests_and_deliveries_is_closed_as_idle() {
    let mut house = House::new();
    let (idle, busy, listening) = (house.enter(0, "idle"), house.enter(0, "busy"), house.enter(1, "listening"));
    house.join(listening, "a");
    let minutes = (IDLE_TIME_MAX + HEARTBEAT * 2).as_secs() / 60 + 1;
    for _ in 0..minutes {
        house.live(Duration::from_secs(60));
        house.publish(busy, "a", json!(1));
    }
    assert_eq!(house.closed(idle), Some(4408));
    assert_eq!((house.closed(busy), house.closed(listening)), (None, None));
}
