//! Publishing.

use crate::house::{House, numbers};
use ringroom::sim::Received;
use serde_json::json;

#[test]
fn a_message_goes_to_several_rooms_with_an_answer_for_each() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "a");
    house.join(alice, "b");
    let data = json!({ "rooms": ["a", "b", "platform.x"], "event": "said", "data": 5 });
    let answer = house.ok(bob, "room:publish", data);
    let rooms: Vec<_> = answer["results"].as_array().unwrap().iter().map(|result| &result["room"]).collect();
    assert_eq!(rooms, ["a", "b", "platform.x"]);
    assert_eq!(answer["results"][0]["seq"], 1);
    assert_eq!(answer["results"][2]["error"]["code"], "forbidden");
    assert_eq!(house.heard(alice), [json!(5), json!(5)]);
}

#[test]
fn a_message_to_a_user_reaches_all_its_connections_and_nobody_else() {
    let mut house = House::new();
    let guests = [house.enter(0, "alice"), house.enter(1, "alice"), house.enter(1, "bob")];
    let carol = house.enter(0, "carol");
    house.ok(carol, "room:publish", json!({ "user": "alice", "event": "said", "data": 1 }));
    assert_eq!(guests.map(|guest| house.heard(guest).len()), [1, 1, 0]);
    let foreign = json!({ "room": "user:alice", "event": "said", "data": 1 });
    assert_eq!(house.error(carol, "room:publish", foreign), "forbidden");
    assert_eq!(house.error(carol, "room:join", json!({ "room": "user:alice" })), "forbidden");
}

#[test]
fn a_sender_can_keep_a_message_from_its_own_connection_only() {
    let mut house = House::new();
    let (alice, other, bob) = (house.enter(0, "alice"), house.enter(0, "alice"), house.enter(1, "bob"));
    for guest in [alice, other, bob] {
        house.join(guest, "a");
    }
    house.ok(alice, "room:publish", json!({ "room": "a", "event": "said", "data": 1, "exclude_self": true }));
    house.publish(alice, "a", json!(2));
    assert_eq!(house.heard(alice), numbers(2..=2));
    assert_eq!(house.heard(other), numbers(1..=2));
    assert_eq!(house.heard(bob), numbers(1..=2));
}

#[test]
fn a_repeated_client_id_gets_its_first_answer_and_is_delivered_once() {
    let mut house = House::new();
    let (alice, bob, again) = (house.enter(0, "alice"), house.enter(1, "bob"), house.enter(1, "alice"));
    house.join(bob, "a");
    let data = json!({ "room": "a", "event": "said", "data": 1, "cid": "x" });
    let first = house.ok(alice, "room:publish", data.clone());
    house.publish(alice, "a", json!(2));
    assert_eq!(house.ok(alice, "room:publish", data.clone()), first);
    assert_eq!(house.ok(again, "room:publish", data.clone()), first, "a user's other connection");
    let of_bob = house.ok(bob, "room:publish", data);
    assert_ne!(of_bob["mid"], first["mid"], "the id is the user's own");
    assert_eq!(house.heard(bob), [json!(1), json!(2), json!(1)]);
}

#[test]
fn data_arrives_byte_for_byte() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    house.join(alice, "a");
    house.guests[alice].reads = false;
    let data = r#"{ "b" : 1.50, "a":[ 1e3,"A\/é" ] , "b":2 }"#;
    house.say(alice, format!(r#"{{"event":"room:publish","data":{{"room":"a","event":"said","data":{data}}}}}"#));
    house.settle();
    let mut frames = Vec::new();
    house.world.read(house.guests[alice].link, usize::MAX, &mut frames);
    let Some(Received::Text(text)) = frames.first() else { panic!("{frames:?}") };
    assert!(text.ends_with(&format!(r#""data":{data}}}"#)), "{text}");
}

#[test]
fn clients_cannot_speak_as_the_server() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    for event in ["connected", "error", "heartbeat", "room:updated", "message:new", "presence:update", "platform.x"] {
        let data = json!({ "room": "a", "event": event, "data": 1 });
        assert_eq!(house.error(alice, "room:publish", data), "forbidden", "{event}");
    }
    assert_eq!(house.ok(alice, "room:info", json!({ "room": "a" }))["seq"], 0);
}

#[test]
fn a_message_that_names_no_one_receiver_is_refused() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    for data in [
        json!({ "event": "said" }),
        json!({ "room": "a", "user": "bob", "event": "said" }),
        json!({ "rooms": [], "event": "said" }),
        json!({ "rooms": "a", "event": "said" }),
        json!({ "room": "a" }),
        json!({ "room": "a", "event": "said", "cid": "" }),
        json!({ "room": "a", "event": "said", "exclude_self": 1 }),
        json!([]),
    ] {
        assert_eq!(house.error(alice, "room:publish", data.clone()), "bad_request", "{data}");
    }
}
