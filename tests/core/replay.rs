//! Coming back.

use crate::house::{House, numbers, room_at};
use ringroom::base::limits::{HISTORY_AGE_MAX, HISTORY_ENTRIES_MAX, OUTBOX_BYTES_MAX, ROOM_CHECK};
use ringroom::sim::WorldShape;
use serde_json::{Value, json};

#[test]
fn what_was_missed_is_replayed_from_a_pos_or_a_mid() {
    let mut house = House::new();
    let bob = house.enter(1, "bob");
    let receipts: Vec<Value> = (1..=5).map(|nth| house.publish(bob, "a", json!(nth))).collect();
    for (nth, since) in [&receipts[1]["pos"], &receipts[1]["mid"]].into_iter().enumerate() {
        let alice = house.enter(nth as u8, "alice");
        let joined = house.ok(alice, "room:join", json!({ "room": "a", "since": since }));
        let missed = 3 + nth as u64;
        assert_eq!(joined["resumed"], json!({ "recovered": true, "replayed": missed, "gap": false }));
        house.publish(bob, "a", json!(6 + nth));
        assert_eq!(house.heard(alice), numbers(3..=6 + nth as u64));
    }
}

#[test]
fn who_missed_nothing_is_told_so() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    let receipt = house.publish(bob, "a", json!(1));
    let joined = house.ok(alice, "room:join", json!({ "room": "a", "since": receipt["mid"] }));
    assert_eq!(joined["resumed"], json!({ "recovered": true, "replayed": 0, "gap": false }));
    house.publish(bob, "a", json!(2));
    assert_eq!(house.heard(alice), numbers(2..=2));
}

#[test]
fn a_position_that_is_too_old_or_unknown_is_answered_with_a_gap() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    let first = house.publish(bob, "a", json!(0));
    let elsewhere = house.publish(bob, "b", json!(0));
    let gap = json!({ "recovered": false, "replayed": 0, "gap": true });
    let epoch = |pos: &Value| pos.as_str().unwrap().split_once('-').unwrap().0.to_string();
    let foreign_epoch = json!(format!("{}-0", epoch(&elsewhere["pos"])));
    let ahead = json!(format!("{}-99", epoch(&first["pos"])));
    for since in [&elsewhere["mid"], &foreign_epoch, &ahead] {
        let joined = house.ok(alice, "room:join", json!({ "room": "a", "since": since }));
        assert_eq!(joined["resumed"], gap, "{since}");
        house.ok(alice, "room:leave", json!({ "room": "a" }));
    }
    for nth in 0..=HISTORY_ENTRIES_MAX {
        house.publish(bob, "a", json!(nth));
    }
    for since in [&first["mid"], &first["pos"]] {
        let joined = house.ok(alice, "room:join", json!({ "room": "a", "since": since }));
        assert_eq!(joined["resumed"], gap, "{since}");
        house.publish(bob, "a", json!("live"));
        assert_eq!(house.heard(alice), [json!("live")], "live from there on");
        house.ok(alice, "room:leave", json!({ "room": "a" }));
    }
    assert_eq!(house.error(alice, "room:join", json!({ "room": "a", "since": "never" })), "bad_request");
}

#[test]
fn a_room_that_was_freed_comes_back_with_another_epoch() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    let before = house.publish(bob, "a", json!(1));
    house.live(HISTORY_AGE_MAX + ROOM_CHECK * 2);
    let joined = house.ok(alice, "room:join", json!({ "room": "a", "since": before["pos"] }));
    assert_eq!(joined["resumed"]["gap"], true);
    assert_eq!(joined["seq"], 0);
}

#[test]
fn a_replay_longer_than_the_outbox_is_complete_and_closes_nobody() {
    // A socket that takes little at a time, so that the outbox is what holds the rest.
    let mut house = House::of(WorldShape { window: 20_000, lane_entries: 64, ..WorldShape::default() });
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    for room in ["a", "b"] {
        let mark = house.publish(bob, room, json!(0));
        let pad = "x".repeat(10_000);
        let count = 3 * OUTBOX_BYTES_MAX as u64 / 10_000;
        for nth in 1..=count {
            house.publish(bob, room, json!({ "nth": nth, "pad": pad }));
        }
        let joined = house.ok(alice, "room:join", json!({ "room": room, "since": mark["pos"] }));
        assert_eq!(joined["resumed"]["replayed"], count);
        house.publish(bob, room, json!({ "nth": count + 1 }));
        let heard: Vec<Value> = house.heard(alice).iter().map(|data| data["nth"].clone()).collect();
        assert_eq!(heard, numbers(1..=count + 1));
        assert_eq!(house.closed(alice), None);
    }
}

#[test]
fn a_replay_of_the_largest_messages_closes_nobody() {
    let mut house = House::of(WorldShape { window: 20_000, lane_entries: 64, ..WorldShape::default() });
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    let mark = house.publish(bob, "a", json!(0));
    let pad = "x".repeat(OUTBOX_BYTES_MAX - 400);
    for nth in 1..=3 {
        house.publish(bob, "a", json!([nth, pad]));
    }
    house.ok(alice, "room:join", json!({ "room": "a", "since": mark["pos"] }));
    let heard: Vec<Value> = house.heard(alice).iter().map(|data| data[0].clone()).collect();
    assert_eq!((heard, house.closed(alice)), (numbers(1..=3), None));
}

#[test]
fn a_member_may_leave_in_the_middle_of_its_replay() {
    let mut house = House::of(WorldShape { window: 2_000, lane_entries: 16, ..WorldShape::default() });
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    for room in ["a", "b"] {
        let mark = house.publish(bob, room, json!(0));
        for nth in 1..=400 {
            house.publish(bob, room, json!({ "nth": nth, "pad": "x".repeat(2_000) }));
        }
        house.guests[alice].reads = false;
        let join = house.ask(alice, "room:join", json!({ "room": room, "since": mark["pos"] }));
        house.settle();
        let leave = house.ask(alice, "room:leave", json!({ "room": room }));
        let list = house.ask(alice, "room:list", json!({}));
        house.settle();
        house.publish(bob, room, json!("later"));
        house.guests[alice].reads = true;
        house.settle();
        assert_eq!(house.reply_to(alice, join)["ok"], true);
        assert_eq!(house.reply_to(alice, leave)["ok"], true);
        assert_eq!(house.reply_to(alice, list)["data"]["rooms"], json!(["user:alice"]));
        let heard: Vec<Value> = house.heard(alice).iter().map(|data| data["nth"].clone()).collect();
        let count = heard.len() as u64;
        assert!((1..400).contains(&count), "{count} of 400 came before the leave");
        assert_eq!(heard, numbers(1..=count), "what came is in order");
        assert_eq!(house.world.shards().map(|shard| house.world.shard(shard).census().calls).sum::<usize>(), 0);
    }
}

#[test]
fn a_client_that_disappears_while_it_joins_is_no_member() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    for room in ["a", "b", "c", "d"] {
        let mark = house.publish(bob, room, json!(1));
        house.publish(bob, room, json!(2));
        let guest = house.enter(0, "carol");
        let link = house.guests[guest].link;
        house.ask(guest, "room:join", json!({ "room": room, "since": mark["pos"] }));
        house.world.feed(link);
        house.world.end(link);
        house.settle();
        assert_eq!(house.ok(alice, "room:info", json!({ "room": room }))["members"], 0);
    }
}

#[test]
fn asking_about_rooms_that_nobody_is_in_makes_none() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    let rooms = |house: &House| house.world.shards().map(|s| house.world.shard(s).census().rooms).sum::<usize>();
    let before = rooms(&house);
    for n in 0..20 {
        let room = format!("nobody:{n}");
        assert_eq!(house.ok(alice, "room:info", json!({ "room": room }))["members"], 0);
        house.ok(alice, "room:online", json!({ "room": room }));
        house.ok(alice, "room:history", json!({ "room": room }));
        house.ask(alice, "room:leave", json!({ "room": room }));
    }
    house.settle();
    assert_eq!(rooms(&house), before);
    house.join(alice, "somebody");
    assert_eq!(rooms(&house), before + 1);
}

#[test]
fn a_replay_goes_on_after_a_write_that_filled_the_socket() {
    // The home is the reader's own shard, so that a page follows in the very step of the write.
    let mut house = House::of(WorldShape { window: 3_000, ..WorldShape::default() });
    let (alice, bob, room) = (house.enter(0, "alice"), house.enter(1, "bob"), room_at(0));
    let mark = house.publish(bob, &room, json!(0));
    for nth in 1..=400 {
        house.publish(bob, &room, json!({ "nth": nth, "pad": "x".repeat(1_000) }));
    }
    house.ok(alice, "room:join", json!({ "room": room, "since": mark["pos"] }));
    assert_eq!(house.heard(alice).len(), 400);
}
