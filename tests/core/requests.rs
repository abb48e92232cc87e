//! Requests as such: names, ids, what is no request, and walls between tenants.

use crate::house::{House, numbers, snapshot};
use ringroom::base::limits::{ROOM_NAME_BYTES_MAX, ROOMS_PER_CONN_MAX, ROOMS_PER_REQUEST_MAX};
use ringroom::sim::{FromClient, identity};
use serde_json::{Value, json};

#[test]
fn names_out_of_bounds_are_refused() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    house.join(alice, &"x".repeat(ROOM_NAME_BYTES_MAX));
    for name in ["", "a b", "é", "a/b", &"x".repeat(ROOM_NAME_BYTES_MAX + 1)] {
        assert_eq!(house.error(alice, "room:join", json!({ "room": name })), "bad_request", "{name}");
    }
    let many: Vec<String> = (0..=ROOMS_PER_REQUEST_MAX).map(|nth| format!("r{nth}")).collect();
    for event in ["room:join-many", "room:leave-many", "room:subscription-status"] {
        let refused = house.request(alice, event, json!({ "rooms": many }))["error"].take();
        assert_eq!((&refused["code"], &refused["limit"]), (&json!("too_many"), &json!("rooms_per_request")), "{event}");
    }
    for user in ["", "a\u{7}"] {
        assert_eq!(house.error(alice, "room:publish", json!({ "user": user, "event": "said" })), "bad_request");
    }
}

#[test]
fn an_inbox_that_clients_cannot_name_is_not_named_by_its_owner_either() {
    let mut house = House::new();
    let odd = house.enter(0, "a b");
    let message = json!({ "room": "user:a b", "event": "said", "data": 1 });
    assert_eq!(house.error(odd, "room:publish", message), "bad_request");
    let by_user = json!({ "user": "a b", "event": "said", "data": 1 });
    assert_eq!(house.ok(odd, "room:publish", by_user)["seq"], 1);
}

#[test]
fn unknown_events_are_refused_by_name() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    assert_eq!(house.error(alice, "room:dance", json!({})), "unknown_event");
    assert_eq!(house.error(alice, "said", json!({})), "unknown_event");
}

#[test]
fn failures_of_requests_without_an_id_come_as_an_error_push() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    for (text, event, code) in [
        (r#"{"event":"room:dance"}"#, json!("room:dance"), "unknown_event"),
        (r#"{"event":"room:leave","data":{"room":"a"}}"#, json!("room:leave"), "not_member"),
        (r#"{"event":"room:join","data":{}}"#, json!("room:join"), "bad_request"),
        (r#"{"event":}"#, Value::Null, "bad_request"),
    ] {
        house.say(alice, text);
        house.settle();
        let pushes = house.pushes(alice, "error");
        assert_eq!(pushes.len(), 1, "{text}");
        assert_eq!((&pushes[0]["data"]["event"], &pushes[0]["data"]["code"]), (&event, &json!(code)));
    }
    house.say(alice, r#"{"event":"room:join","data":{"room":"a"}}"#);
    house.settle();
    assert!(house.guests[alice].texts.is_empty(), "success without an id is silent");
}

#[test]
fn ids_come_back_as_they_were() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    for id in [json!("c1"), json!(-7), json!("é\"")] {
        house.say(alice, json!({ "id": id, "event": "ping" }).to_string());
        house.settle();
        let reply = house.guests[alice].texts.pop().expect("a reply");
        assert_eq!((&reply["id"], &reply["ok"]), (&id, &json!(true)));
    }
}

#[test]
fn binary_messages_and_broken_frames_close() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(0, "bob"));
    house.world.send(house.guests[alice].link, FromClient::Binary);
    house.world.send(house.guests[bob].link, FromClient::Garbage);
    house.settle();
    assert_eq!((house.closed(alice), house.closed(bob)), (Some(1003), Some(1002)));
}

#[test]
fn a_peers_close_is_answered_with_its_code_and_its_memberships_end() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "a");
    house.join(bob, "a");
    house.world.send(house.guests[alice].link, FromClient::Close(1001));
    house.settle();
    assert_eq!(house.closed(alice), Some(1001));
    assert_eq!(house.pushes(bob, "room:member-left").len(), 1);
    assert_eq!(house.ok(bob, "room:info", json!({ "room": "a" }))["members"], 1);
    // Codes that mean nothing to us too, which applications choose for themselves.
    let before = snapshot(&house).closes;
    let codes = [1000, 1011, 1014, 3000, 4000, 4410, 4999];
    for code in codes {
        let guest = house.enter(0, "carol");
        house.world.send(house.guests[guest].link, FromClient::Close(code));
        house.settle();
        assert_eq!(house.closed(guest), Some(code));
    }
    // Nor do those that do: it is not the server that says so.
    let mut expected = before;
    *expected.get_mut("normal").expect("a code") += codes.len() as u64;
    assert_eq!(snapshot(&house).closes, expected);
}

#[test]
fn tenants_never_meet() {
    let mut house = House::new();
    let (ours, theirs) = (house.enter(0, "alice"), house.enter_as(0, identity("other", "alice", "")));
    house.join(ours, "a");
    house.join(theirs, "a");
    house.publish(ours, "a", json!(1));
    house.ok(ours, "room:publish", json!({ "user": "alice", "event": "said", "data": 2 }));
    assert_eq!(house.heard(ours), numbers(1..=2));
    assert!(house.heard(theirs).is_empty());
    assert_eq!(house.ok(theirs, "room:info", json!({ "room": "a" }))["seq"], 0);
    assert_eq!(house.ok(theirs, "room:online", json!({ "room": "a" }))["total"], 1);
}

#[test]
fn a_connection_is_in_no_more_rooms_than_allowed() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    // Its own inbox is one of them.
    let mut joined = 1;
    while joined + ROOMS_PER_REQUEST_MAX < ROOMS_PER_CONN_MAX {
        let rooms: Vec<String> = (joined..joined + ROOMS_PER_REQUEST_MAX).map(|nth| format!("r{nth}")).collect();
        let answer = house.ok(alice, "room:join-many", json!({ "rooms": rooms }));
        assert_eq!(answer["failed"], json!([]));
        joined += ROOMS_PER_REQUEST_MAX;
    }
    let rooms: Vec<String> = (joined..joined + ROOMS_PER_REQUEST_MAX).map(|nth| format!("r{nth}")).collect();
    let answer = house.ok(alice, "room:join-many", json!({ "rooms": rooms }));
    assert_eq!(answer["joined"].as_array().unwrap().len(), ROOMS_PER_CONN_MAX - joined);
    assert_eq!(answer["failed"][0]["error"]["code"], "too_many");
    assert_eq!(answer["failed"][0]["error"]["limit"], "rooms_per_conn");
    assert_eq!(house.error(alice, "room:join", json!({ "room": "one-more" })), "too_many");
    house.ok(alice, "room:leave", json!({ "room": "r1" }));
    house.join(alice, "one-more");
}
