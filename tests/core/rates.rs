//! How much may be asked.

use crate::house::{House, Name, snapshot};
use ringroom::admission::rates::{Allowance, EventRate, Rates};
use ringroom::base::limits::{REFUSALS_MAX, ROOM_CHECK};
use ringroom::kernel::Limits;
use ringroom::sim::{WorldShape, identity};
use serde_json::{Value, json};
use std::time::Duration;

/// `burst` at once and `per_s` more each second, of each connection; and what is said besides.
fn rates(burst: u32, per_s: u32) -> Rates {
    let conn = Some(Allowance { burst, tokens: per_s, period: Duration::from_secs(1) });
    Rates { conn, unlimited_roles: vec!["service".into()], ..Rates::default() }
}

fn limited(rates: Rates) -> House {
    House::of(WorldShape { lane_entries: 256, rates, ..WorldShape::default() })
}

fn events(house: House, texts: &[&str]) -> House {
    let events = texts.iter().map(|text| EventRate::parse(text).expect("a rate")).collect();
    set_rates(house, Rates { events, ..Rates::default() })
}

fn set_rates(mut house: House, rates: Rates) -> House {
    house.world.set_limits(&Limits { rates, ..Limits::default() });
    house
}

fn say_so() -> Value {
    json!({ "room": "a", "event": "said", "data": 1 })
}

/// Publishes until one is refused; how many went through, and the refusal.
fn publish_all(house: &mut House, guest: Name) -> (usize, Value) {
    for nth in 0..10_000 {
        let mut reply = house.request(guest, "room:publish", say_so());
        if reply["ok"] == false {
            return (nth, reply["error"].take());
        }
    }
    panic!("nothing was refused");
}

#[test]
fn who_asks_too_much_is_refused_by_name_and_passes_after_the_wait_and_not_a_millisecond_before() {
    let mut house = limited(rates(10, 4));
    let (greedy, calm) = (house.enter(0, "greedy"), house.enter(0, "calm"));
    house.join(calm, "a");
    let (passed, refused) = publish_all(&mut house, greedy);
    assert_eq!(passed, 10);
    assert_eq!((&refused["code"], &refused["limit"]), (&json!("rate_limited"), &json!("conn")));
    assert_eq!(refused["retry_after_ms"], 250);
    assert!(refused["message"].as_str().unwrap_or_default().contains("send it again"), "{refused}");
    assert_eq!(house.heard(calm).len(), 10, "what was refused reached nobody");
    house.publish(calm, "a", json!(2));

    house.world.pass(Duration::from_millis(249));
    assert_eq!(house.error(greedy, "room:publish", say_so()), "rate_limited");
    house.world.pass(Duration::from_millis(1));
    house.ok(greedy, "room:publish", say_so());
    assert_eq!(house.error(greedy, "room:publish", say_so()), "rate_limited");
    let counted = snapshot(&house);
    assert_eq!((counted.limited["conn"], counted.errors["rate_limited"]), (3, 3));
    assert_eq!((counted.limited["user"], counted.limited["event"]), (0, 0));
}

#[test]
fn each_connection_has_a_bucket_of_its_own_and_a_new_one_is_full() {
    let mut house = limited(rates(5, 1));
    let alice = house.enter(0, "alice");
    assert_eq!(publish_all(&mut house, alice).0, 5);
    let again = house.enter(0, "alice");
    assert_eq!(publish_all(&mut house, again).0, 5);
    house.world.end(house.guests[alice].link);
    house.settle();
    let third = house.enter(0, "bob");
    assert_eq!(publish_all(&mut house, third).0, 5);
}

#[test]
fn light_requests_cost_a_quarter_those_about_a_room_half_and_many_rooms_as_many() {
    let mut house = limited(rates(10, 1));
    let mut spend = |event: &str, data: Value| {
        let guest = house.enter(0, "alice");
        let passed = (0..100).take_while(|_| house.request(guest, event, data.clone())["ok"] == true).count();
        assert_eq!(house.closed(guest), None);
        passed
    };
    assert_eq!(spend("ping", json!({})), 40);
    assert_eq!(spend("room:list", json!({})), 40);
    assert_eq!(spend("room:info", json!({ "room": "a" })), 20);
    assert_eq!(spend("room:publish", say_so()), 10);
    assert_eq!(spend("room:publish", json!({ "rooms": ["a", "b", "c"], "event": "said" })), 3);
    assert_eq!(spend("room:publish", json!({ "rooms": ["a", "a", "a"], "event": "said" })), 10);
    assert_eq!(spend("room:join-many", json!({ "rooms": ["a", "b", "c", "d", "e"] })), 4);
    let many: Vec<String> = (0..100).map(|nth| format!("r{nth}")).collect();
    assert_eq!(spend("room:join-many", json!({ "rooms": many })), 1, "more than a bucket holds takes a full one");
}

#[test]
fn nothing_of_a_request_for_several_rooms_is_done_when_it_is_refused() {
    let mut house = limited(rates(4, 1));
    let (greedy, bob) = (house.enter(0, "greedy"), house.enter(1, "bob"));
    for room in ["a", "b", "c"] {
        house.join(bob, room);
    }
    let publish = json!({ "rooms": ["a", "b", "c"], "event": "said", "data": 1 });
    house.ok(greedy, "room:publish", publish.clone());
    let refused = house.request(greedy, "room:publish", publish.clone())["error"].take();
    assert_eq!((&refused["limit"], &refused["retry_after_ms"]), (&json!("conn"), &json!(2_000)));
    assert_eq!(house.heard(bob).len(), 3);
    house.pass(Duration::from_secs(2));
    house.ok(greedy, "room:publish", publish);
}

#[test]
fn rubbish_costs_as_much_as_a_publish() {
    for rubbish in ["{", "[]", r#"{"id":1}"#, r#"{"id":1,"event":"room:dance"}"#] {
        let mut house = limited(rates(10, 1));
        let alice = house.enter(0, "alice");
        (0..10).for_each(|_| house.say(alice, rubbish));
        house.settle();
        house.guests[alice].texts.clear();
        let refused = house.request(alice, "room:publish", say_so())["error"].take();
        assert_eq!(refused["code"], "rate_limited", "{rubbish}");
        house.say(alice, rubbish);
        house.settle();
        let answered = house.guests[alice].texts.remove(0);
        let error = if answered["event"] == "error" { &answered["data"] } else { &answered["error"] };
        assert_eq!((&error["code"], &error["limit"]), (&json!("rate_limited"), &json!("conn")), "{rubbish}");
        assert!(house.guests[alice].texts.is_empty(), "one answer: {rubbish}");
    }
    // What is wrong only inside costs like what it wanted to be.
    let mut house = limited(rates(10, 1));
    let alice = house.enter(0, "alice");
    let codes: Vec<String> = (0..11).map(|_| house.error(alice, "room:publish", json!({ "event": "said" }))).collect();
    assert_eq!(codes.iter().filter(|code| *code == "bad_request").count(), 10, "{codes:?}");
}

#[test]
fn who_goes_on_after_many_refusals_is_closed_and_its_neighbours_notice_nothing() {
    let mut house = limited(rates(10, 1));
    let (flood, calm) = (house.enter(0, "flood"), house.enter(0, "calm"));
    house.join(calm, "a");
    let allowed = 10 + REFUSALS_MAX;
    let ids: Vec<u64> = (0..allowed).map(|_| house.ask(flood, "room:publish", say_so())).collect();
    house.settle();
    assert_eq!(house.closed(flood), None);
    let refused = ids.iter().filter(|id| house.reply_to(flood, **id)["ok"] == false).count();
    assert_eq!(refused as u32, REFUSALS_MAX, "each is answered once");
    let last = house.ask(flood, "room:publish", say_so());
    (0..1_000).for_each(|_| _ = house.ask(flood, "room:publish", say_so()));
    house.settle();
    assert_eq!(house.reply_to(flood, last)["error"]["code"], "rate_limited");
    assert_eq!(house.closed(flood), Some(4429));
    assert_eq!(house.guests[flood].texts.iter().filter(|text| text["ok"] == false).count(), 0);
    assert_eq!(snapshot(&house).closed_for["asked_on"], 1);
    assert_eq!(house.heard(calm).len(), 10);
    house.publish(calm, "a", json!(1));
}

#[test]
fn who_is_refused_now_and_then_stays_for_ever() {
    let mut house = limited(rates(1, 1));
    let alice = house.enter(0, "alice");
    for _ in 0..4 * REFUSALS_MAX / 45 {
        for _ in 0..45 {
            house.ask(alice, "room:publish", say_so());
        }
        house.pass(Duration::from_secs(1));
        house.guests[alice].texts.clear();
    }
    assert_eq!(house.closed(alice), None);
}

#[test]
fn a_user_has_one_bucket_for_all_its_connections_and_others_have_theirs() {
    let user = Some(Allowance { burst: 6, tokens: 6, period: Duration::from_secs(60) });
    let mut house = limited(Rates { user, ..rates(100, 10) });
    let (one, two, bob) = (house.enter(0, "alice"), house.enter(0, "alice"), house.enter(0, "bob"));
    (0..3).for_each(|_| _ = house.publish(one, "a", json!(1)));
    let (passed, refused) = publish_all(&mut house, two);
    assert_eq!((passed, &refused["limit"], &refused["retry_after_ms"]), (3, &json!("user"), &json!(10_000)));
    assert_eq!(house.error(one, "room:publish", say_so()), "rate_limited");
    assert_eq!(publish_all(&mut house, bob).0, 6);
    assert_eq!(snapshot(&house).buckets, 5, "two users, and three connections that were refused");
    house.live(Duration::from_secs(65));
    assert_eq!(snapshot(&house).buckets, 0, "full buckets are not kept");
    house.publish(one, "a", json!(1));
}

#[test]
fn an_event_may_have_a_rate_of_its_own() {
    let mut house = events(House::new(), &["room:publish 2/1s", "room:join* 3/10s", "p* 4/1m"]);
    let (alice, again) = (house.enter(0, "alice"), house.enter(0, "alice"));
    let (passed, refused) = publish_all(&mut house, alice);
    assert_eq!((passed, &refused["limit"], &refused["retry_after_ms"]), (2, &json!("event:room:publish"), &json!(500)));
    assert_eq!(house.error(again, "room:publish", say_so()), "rate_limited", "it is the user's");
    house.join(alice, "b");
    house.ok(alice, "room:join-many", json!({ "rooms": ["c", "d"] }));
    let refused = house.request(alice, "room:join", json!({ "room": "h" }))["error"].take();
    assert_eq!((&refused["limit"], &refused["retry_after_ms"]), (&json!("event:room:join*"), &json!(3_334)));
    house.ok(alice, "room:list", json!({}));
    assert_eq!((0..100).take_while(|_| house.request(alice, "ping", json!({}))["ok"] == true).count(), 4);
    assert_eq!(snapshot(&house).limited["event"], 4);
}

#[test]
fn some_roles_may_ask_as_much_as_they_like() {
    let mut house = limited(Rates { events: vec![EventRate::parse("* 1/1h").expect("a rate")], ..rates(1, 1) });
    let robot = house.enter_as(0, identity("acme", "robot", "service"));
    let alice = house.enter_as(0, identity("acme", "alice", "admin"));
    (0..1_000).for_each(|nth| _ = house.publish(robot, "a", json!(nth)));
    assert_eq!(publish_all(&mut house, alice).0, 1);
}

#[test]
fn limits_that_change_hold_at_once_for_connections_that_are_open() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    (0..300).for_each(|nth| _ = house.publish(alice, "a", json!(nth)));
    let mut house = set_rates(house, rates(5, 1));
    assert_eq!(publish_all(&mut house, alice).0, 5);
    let mut house = set_rates(house, rates(7, 1));
    assert_eq!(publish_all(&mut house, alice).0, 7, "another limit begins with a full bucket");
    let mut house = set_rates(house, rates(7, 1));
    assert_eq!(publish_all(&mut house, alice).0, 0, "and the same one does not");
    let mut house = set_rates(house, Rates::default());
    (0..300).for_each(|nth| _ = house.publish(alice, "a", json!(nth)));
    let limits = Limits { rooms_per_conn: 3, rooms_per_request: 2, ..Limits::default() };
    house.world.set_limits(&limits);
    house.join(alice, "a");
    house.join(alice, "b");
    let refused = house.request(alice, "room:join", json!({ "room": "c" }))["error"].take();
    assert_eq!((&refused["code"], &refused["limit"]), (&json!("too_many"), &json!("rooms_per_conn")));
    let three = json!({ "rooms": ["x", "y", "z"], "event": "said" });
    let refused = house.request(alice, "room:publish", three)["error"].take();
    assert_eq!((&refused["code"], &refused["limit"]), (&json!("too_many"), &json!("rooms_per_request")));
}

#[test]
fn a_shard_has_no_more_rooms_than_it_is_allowed_and_says_when_to_try_again() {
    let mut house = House::of(WorldShape { shards: 1, ..WorldShape::default() });
    let alice = house.enter(0, "alice");
    house.world.set_limits(&Limits { rooms_max: 2, ..Limits::default() });
    house.join(alice, "a");
    let refused = house.request(alice, "room:join", json!({ "room": "b" }))["error"].take();
    assert_eq!((&refused["code"], &refused["limit"]), (&json!("too_many"), &json!("rooms_per_shard")));
    assert_eq!(refused["retry_after_ms"], ROOM_CHECK.as_millis() as u64);
    house.ok(alice, "room:leave", json!({ "room": "a" }));
    house.live(ROOM_CHECK + Duration::from_secs(5));
    house.join(alice, "b");
}

#[test]
fn a_client_is_told_the_limits_in_force() {
    let told = |house: &mut House, role: &str| {
        let guest = house.knock(0, identity("acme", "alice", role));
        house.pushes(guest, "connected")[0]["data"]["limits"].take()
    };
    let mut house = House::new();
    let wide = json!({ "message_bytes": 1 << 20, "rooms": 1_000, "rooms_per_request": 100 });
    assert_eq!(told(&mut house, ""), wide);
    let rates = rates(100, 10);
    let limits = Limits { message_bytes: 65_536, rooms_per_conn: 50, rooms_per_request: 5, rates, ..Limits::default() };
    house.world.set_limits(&limits);
    let requests = json!({ "burst": 100, "count": 10, "per_ms": 1_000 });
    let narrow = json!({ "message_bytes": 65_536, "rooms": 50, "rooms_per_request": 5, "requests": requests });
    assert_eq!(told(&mut house, ""), narrow);
    assert!(told(&mut house, "service").get("requests").is_none());
}
