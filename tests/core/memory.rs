//! Memory: what is held, who goes when there is too much, and that nothing is left.

use crate::house::{House, numbers, pad, room_at, snapshot};
use ringroom::base::limits::{HISTORY_AGE_MAX, OUTBOX_BYTES_MAX, ROOM_CHECK};
use ringroom::kernel::ids::ShardId;
use ringroom::kernel::placement::Placement;
use ringroom::shard::{Held, Snapshot};
use ringroom::sim::WorldShape;
use serde_json::{Value, json};

/// What the account says is what there is, and no more than `bound`.
fn assert_held(house: &House, bound: usize) {
    for shard in house.world.shards() {
        let census = house.world.shard(shard).census();
        assert_eq!(census.memory, census.account, "shard {}", shard.0);
        assert!(census.account.used <= bound, "shard {} holds {census:?}", shard.0);
    }
}

#[test]
fn a_message_is_held_once_by_its_history_and_all_readers_of_a_shard() {
    let mut house = House::of(WorldShape { window: 2_000, ..WorldShape::default() });
    let (bob, room) = (house.enter(0, "bob"), room_at(0));
    for nth in 0..20 {
        let guest = house.enter(nth % 2, &format!("u{nth}"));
        house.join(guest, &room);
        house.guests[guest].reads = false;
    }
    let frames = |house: &House, shard| house.world.shard(ShardId(shard)).census().account.frames;
    // The first one fills the sockets.
    house.publish(bob, &room, json!(pad(5_000)));
    let before = [frames(&house, 0), frames(&house, 1)];
    for _ in 0..10 {
        house.publish(bob, &room, json!(pad(5_000)));
    }
    let more = [frames(&house, 0) - before[0], frames(&house, 1) - before[1]];
    assert_eq!(more, [10, 10], "one for a history and ten readers, one for ten readers");
    assert_held(&house, 20 * 6_000);
}

#[test]
fn readers_of_the_same_replay_hold_its_messages_once() {
    for home in [0, 1] {
        let mut house = House::of(WorldShape { window: 2_000, lane_entries: 64, ..WorldShape::default() });
        let (bob, room) = (house.enter(0, "bob"), room_at(home));
        let mark = house.publish(bob, &room, json!(0));
        for _ in 0..20 {
            house.publish(bob, &room, json!(pad(5_000)));
        }
        for nth in 0..10 {
            let guest = house.enter(1, &format!("u{nth}"));
            house.guests[guest].reads = false;
            house.ask(guest, "room:join", json!({ "room": room, "since": mark["pos"] }));
            house.settle();
        }
        let here = house.world.shard(ShardId(1)).census().account;
        assert!((20..32).contains(&here.frames), "{here:?}");
        assert!(here.used < 20 * 6_000, "{here:?}");
        assert_held(&house, 20 * 6_000);
    }
}

#[test]
fn the_stalled_reader_that_pins_the_oldest_message_goes_first_and_comes_back_for_all_it_missed() {
    let shape = WorldShape { window: 5_000, memory_bytes: 400_000, lane_entries: 64, ..WorldShape::default() };
    let mut house = House::of(shape);
    let (old, young, quick) = (house.enter(0, "old"), house.enter(0, "young"), house.enter(0, "quick"));
    let (bob, room) = (house.enter(0, "bob"), room_at(0));
    // Whatever is forgotten is older than what the stalled ones wait for.
    let filler =
        (0..).map(|nth| format!("filler:{nth}")).find(|name| Placement::new(2).of_room("acme", name) == ShardId(0));
    let filler = filler.expect("some name has its home there");
    for _ in 0..25 {
        house.publish(bob, &filler, json!(pad(10_000)));
    }
    for guest in [old, quick] {
        house.join(guest, &room);
    }
    house.guests[old].reads = false;
    let mut said = 0;
    let mut say = |house: &mut House| {
        said += 1;
        house.publish(bob, &room, json!([said, pad(2_000)]));
        assert_eq!(house.heard(quick).len(), 1, "each arrives at once");
        assert_held(house, 400_000 + 20_000);
    };
    (0..5).for_each(|_| say(&mut house));
    house.join(young, &room);
    house.guests[young].reads = false;
    // What nobody else holds: more than the readers' share.
    let history = json!({ "room": filler, "limit": 6 });
    house.ask(old, "room:history", history.clone());
    house.ask(young, "room:history", history);
    house.settle();
    (0..10).for_each(|_| say(&mut house));
    assert_eq!(snapshot(&house).closed_for["memory"], 1, "{:?}", snapshot(&house));
    assert_eq!(house.ok(quick, "room:info", json!({ "room": room }))["members"], 2);

    house.guests[old].reads = true;
    house.settle();
    assert_eq!(house.closed(old), Some(4410));
    let reason = house.guests[old].closed.clone().expect("closed").1;
    assert!(reason.contains("memory") && reason.contains("resume"), "{reason}");
    let pushes = house.pushes(old, "said");
    let last = pushes.last().expect("some came before")["mid"].clone();
    let mut heard: Vec<Value> = pushes.iter().map(|push| push["data"][0].clone()).collect();
    assert!(heard.len() < 15);
    let back = house.enter(0, "old");
    let joined = house.ok(back, "room:join", json!({ "room": room, "since": last }));
    assert_eq!(joined["resumed"]["gap"], false);
    house.publish(bob, &room, json!([16, ""]));
    heard.extend(house.heard(back).iter().map(|data| data[0].clone()));
    assert_eq!(heard, numbers(1..=16), "all, once and in order");
    house.guests[young].reads = true;
    house.settle();
    assert_eq!((house.closed(back), house.closed(quick), house.closed(young)), (None, None, None));
}

#[test]
fn a_reader_closed_as_slow_comes_back_through_more_than_an_outbox_holds_and_is_not_closed_again() {
    let mut house = House::of(WorldShape { window: 50_000, lane_entries: 64, ..WorldShape::default() });
    let (slow, bob) = (house.enter(0, "slow"), house.enter(1, "bob"));
    house.join(slow, "a");
    house.guests[slow].reads = false;
    let count = 3 * OUTBOX_BYTES_MAX as u64 / 100_000;
    for nth in 1..=count {
        house.publish(bob, "a", json!([nth, pad(100_000)]));
    }
    house.guests[slow].reads = true;
    house.settle();
    assert_eq!(house.closed(slow), Some(4410));
    let pushes = house.pushes(slow, "said");
    let mut heard: Vec<Value> = pushes.iter().map(|push| push["data"][0].clone()).collect();
    let back = house.enter(0, "slow");
    house.ok(back, "room:join", json!({ "room": "a", "since": pushes.last().expect("some")["mid"] }));
    heard.extend(house.heard(back).iter().map(|data| data[0].clone()));
    assert_eq!((heard, house.closed(back)), (numbers(1..=count), None));
    let snapshots: Vec<Snapshot> = house.world.shards().map(|shard| house.world.shard(shard).snapshot()).collect();
    assert_eq!(snapshots.iter().map(|shard| shard.closed_for["outbox_bytes"]).sum::<u64>(), 1);
    assert!(snapshots.iter().map(|shard| shard.dropped["logged_cut"]).sum::<u64>() > 5);
}

#[test]
fn nobody_is_closed_for_what_histories_hold() {
    let mut house = House::of(WorldShape { window: 5_000, memory_bytes: 400_000, ..WorldShape::default() });
    let (stalled, bob, room) = (house.enter(0, "stalled"), house.enter(0, "bob"), room_at(0));
    house.join(stalled, &room);
    house.guests[stalled].reads = false;
    for _ in 0..10 {
        house.publish(bob, &room, json!(pad(5_000)));
    }
    let other = (0..).map(|nth| format!("other:{nth}"));
    let other: Vec<_> = other.filter(|name| Placement::new(2).of_room("acme", name) == ShardId(0)).take(10).collect();
    for nth in 0..100 {
        house.publish(bob, &other[nth % 10], json!(pad(5_000)));
    }
    let counted = snapshot(&house);
    assert!(counted.forgotten > 20, "{counted:?}");
    assert_eq!((counted.closed_for["memory"], counted.closed_for["stall_time"]), (0, 0));
    house.guests[stalled].reads = true;
    house.settle();
    assert_eq!(house.heard(stalled).len(), 10);
}

#[test]
fn many_stalled_readers_of_small_messages_stay_within_the_budget() {
    let budget = 400_000;
    let mut house = House::of(WorldShape { window: 1_000, memory_bytes: budget, ..WorldShape::default() });
    let (bob, room) = (house.enter(0, "bob"), room_at(0));
    for nth in 0..200 {
        let guest = house.enter(0, &format!("u{nth}"));
        house.join(guest, &room);
        house.guests[guest].reads = false;
    }
    // Nothing but references: 200 readers of 400 messages would be 640,000 bytes.
    let mut most = 0;
    for nth in 0..400 {
        house.publish(bob, &room, json!(nth));
        most = most.max(house.world.shard(ShardId(0)).census().account.places);
        assert_held(&house, budget);
    }
    assert!(most > budget / 4, "queues took {most} bytes");
    assert!(snapshot(&house).closed_for["memory"] > 0);
    assert_eq!(house.closed(bob), None);
}

#[test]
fn when_nobody_is_to_blame_the_oldest_messages_go_and_whoever_wants_them_is_told() {
    let mut house = House::of(WorldShape { memory_bytes: 200_000, ..WorldShape::default() });
    let (bob, alice) = (house.enter(0, "bob"), house.enter(1, "alice"));
    let room = room_at(0);
    let receipts: Vec<Value> = (0..50).map(|nth| house.publish(bob, &room, json!([nth, pad(10_000)]))).collect();
    assert_held(&house, 200_000);
    let joined = house.ok(alice, "room:join", json!({ "room": room, "since": receipts[0]["pos"] }));
    assert_eq!(joined["resumed"], json!({ "recovered": false, "replayed": 0, "gap": true }));
    house.ok(alice, "room:leave", json!({ "room": room }));
    let joined = house.ok(alice, "room:join", json!({ "room": room, "since": receipts[40]["pos"] }));
    assert_eq!(joined["resumed"], json!({ "recovered": true, "replayed": 9, "gap": false }));
    assert_eq!(house.heard(alice).len(), 9);
    let counted = snapshot(&house);
    assert!(counted.forgotten >= 30 && counted.reliefs < counted.forgotten, "{counted:?}");
    assert_eq!((house.closed(alice), house.closed(bob)), (None, None));
}

#[test]
fn publishes_are_refused_while_memory_is_full_of_what_is_about_to_be_read_and_taken_again_after() {
    let mut house = House::of(WorldShape { memory_bytes: 200_000, ..WorldShape::default() });
    let (alice, room) = (house.enter(0, "alice"), room_at(0));
    for _ in 0..16 {
        house.publish(alice, &room, json!(pad(10_000)));
    }
    let link = house.guests[alice].link;
    let history = house.ask(alice, "room:history", json!({ "room": room }));
    let said = json!({ "room": room, "event": "said", "data": 1 });
    let refused = house.ask(alice, "room:publish", said.clone());
    // The answer waits to be written; nothing is.
    while house.world.feed(link) {}
    assert_eq!(snapshot(&house).refused_full, 1);
    house.settle();
    assert_eq!(house.reply_to(alice, history)["data"]["messages"].as_array().map(Vec::len), Some(16));
    let refused = house.reply_to(alice, refused);
    assert_eq!(refused["error"]["code"], "unavailable");
    assert_eq!(refused["error"]["retry_after_ms"], 1_000);
    assert_eq!(house.ok(alice, "room:publish", said)["seq"], 17, "and no number was left out");
    assert_eq!(house.closed(alice), None);
    assert_held(&house, 200_000);
}

#[test]
fn nothing_is_left_once_all_have_gone() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    for room in ["a", "b", "c"] {
        house.join(alice, room);
        let data = json!({ "room": room, "event": "said", "data": 1, "cid": "x" });
        house.ok(bob, "room:publish", data);
    }
    house.world.end(house.guests[alice].link);
    house.world.end(house.guests[bob].link);
    house.settle();
    house.live(HISTORY_AGE_MAX + ROOM_CHECK * 3);
    for shard in house.world.shards() {
        let census = house.world.shard(shard).census();
        let left = (census.conns, census.calls, census.rooms, census.rooms_joined, census.replays, census.timers);
        assert_eq!(left, (0, 0, 0, 0, 0, 0), "{census:?}");
        assert_eq!((census.account, census.memory), (Held::default(), Held::default()));
    }
}
