//! Lanes between shards that are full; the simulation found both.

use crate::house::{House, room_at};
use ringroom::kernel::ids::ShardId;
use ringroom::kernel::placement::Placement;
use ringroom::sim::WorldShape;
use serde_json::{Value, json};

#[test]
fn a_leaver_hears_what_was_said_before_it_left_though_its_lane_was_full() {
    let mut house = House::of(WorldShape { lane_entries: 4, ..WorldShape::default() });
    let (alice, room) = (house.enter(1, "alice"), room_at(0));
    house.join(alice, &room);
    for nth in 1..=3 {
        house.ask(alice, "room:publish", json!({ "room": room, "event": "said", "data": nth }));
    }
    house.ask(alice, "room:leave", json!({ "room": room }));
    let (link, here, home) = (house.guests[alice].link, ShardId(1), ShardId(0));
    // The home takes all four; its lane back has no place for three messages and four replies.
    while house.world.feed(link) || house.world.deliver(here, home) || house.world.credit(here, home) {}
    assert!(house.world.shard(home).census().waiting[0].1.runs > 0, "a message waits for credit");
    assert_eq!(house.world.unsent(link), 0);
    house.settle();
    let order: Vec<Value> = house.guests[alice].texts.drain(..).map(|text| text["data"]["seq"].clone()).collect();
    assert_eq!(order.len(), 7);
    assert_eq!(order[1], 1);
    let texts = [1, 3, 5].map(|nth| order[nth].clone());
    assert_eq!(texts, [json!(1), json!(2), json!(3)], "each reply follows its message: {order:?}");
}

#[test]
fn a_request_for_more_rooms_than_there_is_credit_for_goes_on_once_there_is() {
    let mut house = House::of(WorldShape { lane_entries: 4, ..WorldShape::default() });
    let (alice, bob, room) = (house.enter(1, "alice"), house.enter(1, "bob"), room_at(0));
    let placement = Placement::new(2);
    let rooms: Vec<String> = (0..)
        .map(|nth| format!("r{nth}"))
        .filter(|room| placement.of_room("acme", room) == ShardId(0))
        .take(3)
        .collect();
    let sent = [1, 2].map(|_| house.ask(bob, "room:info", json!({ "room": room })));
    let link = house.guests[bob].link;
    while house.world.feed(link) {}
    let credit = house.world.shard(ShardId(1)).credit(ShardId(0));
    assert!((1..3).contains(&credit), "some credit, and too little: {credit}");
    let joined = house.request(alice, "room:join-many", json!({ "rooms": rooms }));
    assert_eq!(joined["data"]["joined"], json!(rooms));
    assert!(sent.map(|id| house.reply_to(bob, id)["ok"] == true).iter().all(|ok| *ok));
}
