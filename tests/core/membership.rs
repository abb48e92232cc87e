//! Coming and going, and what a room and a connection tell about themselves.

use crate::house::{House, numbers};
use ringroom::base::limits::ROOM_DETAILS_BYTES_MAX;
use ringroom::sim::identity;
use serde_json::{Value, json};

#[test]
fn a_member_hears_what_is_said_from_its_join_on() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.publish(bob, "chat:1", json!(1));
    let joined = house.join(alice, "chat:1");
    assert_eq!((&joined["room"], &joined["seq"], &joined["members"]), (&json!("chat:1"), &json!(1), &json!(1)));
    assert!(joined.get("resumed").is_none());
    let receipt = house.publish(bob, "chat:1", json!({ "text": "hi" }));
    let pushes = house.pushes(alice, "said");
    assert_eq!(pushes.len(), 1);
    let push = &pushes[0];
    assert_eq!((&push["room"], &push["from"]), (&json!("chat:1"), &json!("bob")));
    assert_eq!(
        (&push["seq"], &push["mid"], &push["data"]),
        (&receipt["seq"], &receipt["mid"], &json!({ "text": "hi" }))
    );
    assert_eq!(house.heard(bob), Vec::<Value>::new(), "a sender who is no member hears nothing");
}

#[test]
fn a_member_that_left_hears_no_more_and_cannot_leave_twice() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "chat:1");
    assert_eq!(house.ok(alice, "room:leave", json!({ "room": "chat:1" })), json!({}));
    house.publish(bob, "chat:1", json!(1));
    assert!(house.heard(alice).is_empty());
    assert_eq!(house.error(alice, "room:leave", json!({ "room": "chat:1" })), "not_member");
}

#[test]
fn members_are_told_of_others_that_come_and_go() {
    let mut house = House::new();
    let (alice, bob, again) = (house.enter(0, "alice"), house.enter(1, "bob"), house.enter(0, "bob"));
    house.join(alice, "chat:1");
    house.join(bob, "chat:1");
    house.join(again, "chat:1");
    let joined = house.pushes(alice, "room:member-joined");
    assert_eq!(joined.len(), 1, "a user comes once, whatever its connections: {joined:?}");
    assert_eq!(joined[0]["data"], json!({ "room": "chat:1", "user": "bob" }));
    assert!(joined[0].get("seq").is_none(), "it has no place in the order");
    house.ok(bob, "room:leave", json!({ "room": "chat:1" }));
    assert!(house.pushes(alice, "room:member-left").is_empty(), "bob is still there");
    house.world.end(house.guests[again].link);
    house.settle();
    assert_eq!(house.pushes(alice, "room:member-left")[0]["data"], json!({ "room": "chat:1", "user": "bob" }));
}

#[test]
fn joining_twice_changes_nothing() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "chat:1");
    assert_eq!(house.join(alice, "chat:1")["members"], 1);
    house.publish(bob, "chat:1", json!(1));
    assert_eq!(house.heard(alice), numbers(1..=1));
}

#[test]
fn many_rooms_are_joined_and_left_at_once_each_with_its_own_answer() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    let rooms = json!({ "rooms": ["a", "b", "user:bob", "c", "a", "bad name"] });
    let answer = house.ok(alice, "room:join-many", rooms);
    assert_eq!(answer["joined"], json!(["a", "b", "c"]));
    assert_eq!(answer["failed"][0]["room"], "user:bob");
    assert_eq!(answer["failed"][0]["error"]["code"], "forbidden");
    assert_eq!(answer["failed"][1]["error"]["code"], "bad_request");
    for (nth, room) in ["a", "b", "c"].into_iter().enumerate() {
        house.publish(bob, room, json!(nth));
    }
    assert_eq!(house.heard(alice), numbers(0..=2));
    let answer = house.ok(alice, "room:leave-many", json!({ "rooms": ["a", "c", "d"] }));
    assert_eq!(answer["left"], json!(["a", "c"]));
    assert_eq!(answer["failed"][0]["error"]["code"], "not_member");
    house.publish(bob, "b", json!(7));
    house.publish(bob, "a", json!(8));
    assert_eq!(house.heard(alice), numbers(7..=7));
}

#[test]
fn a_connection_knows_its_rooms() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "a");
    house.join(alice, "b");
    house.publish(bob, "b", json!(1));
    let list = house.ok(alice, "room:list", json!({}));
    assert_eq!(list, json!({ "rooms": ["user:alice", "a", "b"] }));
    let status = house.ok(alice, "room:subscription-status", json!({ "rooms": ["a", "c"] }));
    assert_eq!(status, json!({ "a": true, "c": false }));
    let details = house.ok(alice, "room:subscription-details", json!({}));
    let delivered: Vec<_> =
        details.as_array().unwrap().iter().map(|room| (&room["room"], &room["delivered"])).collect();
    assert_eq!(delivered, [(&json!("user:alice"), &json!(0)), (&json!("a"), &json!(0)), (&json!("b"), &json!(1)),]);
}

#[test]
fn a_room_tells_about_itself() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "a");
    house.join(bob, "a");
    let receipt = house.publish(bob, "a", json!(1));
    let info = house.ok(bob, "room:info", json!({ "room": "a" }));
    assert_eq!((&info["members"], &info["seq"], &info["pos"]), (&json!(2), &json!(1), &receipt["pos"]));
    assert_eq!(info["created"], 1_763_690_000_000u64);
    assert!(info.get("data").is_none());
}

#[test]
fn the_users_of_a_room_are_listed_page_by_page() {
    let mut house = House::new();
    let names: Vec<String> = (0..7).map(|nth| format!("u{nth}")).collect();
    for (nth, name) in names.iter().enumerate() {
        let guest = house.enter((nth % 2) as u8, name);
        house.join(guest, "a");
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let mut ask = json!({ "room": "a", "limit": 3 });
        if let Some(after) = after {
            ask["after"] = after;
        }
        let page = house.ok(0, "room:online", ask);
        assert_eq!(page["total"], 7);
        assert!(page["users"].as_array().unwrap().len() <= 3);
        seen.extend(page["users"].as_array().unwrap().iter().map(|user| user.as_str().unwrap().to_string()));
        match page.get("next") {
            Some(next) => after = Some(next.clone()),
            None => break,
        }
    }
    seen.sort();
    assert_eq!(seen, names);
    for bad in [json!({ "room": "a", "limit": 0 }), json!({ "room": "a", "after": "x" })] {
        assert_eq!(house.error(0, "room:online", bad), "bad_request");
    }
}

#[test]
fn only_who_may_manage_a_room_sets_its_details_and_all_are_told() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    let mod_ = house.enter_as(1, identity("acme", "mo", "moderator"));
    house.join(alice, "a");
    let update = json!({ "room": "a", "data": { "title": "T" } });
    assert_eq!(house.error(alice, "room:update", update.clone()), "forbidden");
    assert_eq!(house.ok(mod_, "room:update", update), json!({}));
    let told = house.pushes(alice, "room:updated");
    assert_eq!((&told[0]["data"], &told[0]["seq"]), (&json!({ "title": "T" }), &json!(1)));
    assert_eq!(house.ok(alice, "room:info", json!({ "room": "a" }))["data"], json!({ "title": "T" }));
    let long = json!({ "room": "a", "data": "x".repeat(ROOM_DETAILS_BYTES_MAX) });
    assert_eq!(house.error(mod_, "room:update", long), "too_large");
}
