//! The core through its one door, `Shard::step`, with small scenarios: what clients are promised,
//! request by request. Sockets, lanes and the clock are the simulation's.

use ringroom::admission::identity::Identity;
use ringroom::admission::pattern::RulePattern;
use ringroom::admission::policies::{RIGHTS, Rule, Rules, Who};
use ringroom::admission::policy::{Policy, Roles};
use ringroom::admission::rates::{Allowance, EventRate, Rates};
use ringroom::admission::revocations::{Revocation, Target};
use ringroom::admission::rights::Right;
use ringroom::admission::token::{Claims, Verifier, sign_hs256};
use ringroom::base::limits::{
    ANSWER_BYTES_MAX, ASK_TIME_OUT, ASKED_BEHIND_MAX, ASKED_BYTES_PER_CONN_MAX, ASKED_PER_CONN_MAX,
    ASKED_PER_SHARD_MAX, CLOSES_PER_STEP, HEARTBEAT, HEARTBEAT_TIME_OUT, HISTORY_AGE_MAX, HISTORY_ENTRIES_MAX,
    IDLE_TIME_MAX, OUTBOX_BYTES_LEAST, OUTBOX_BYTES_MAX, PAGE_ENTRIES_MAX, PONGS_PENDING_MAX, REFUSALS_MAX, ROOM_CHECK,
    ROOM_DETAILS_BYTES_MAX, ROOM_NAME_BYTES_MAX, ROOMS_PER_CONN_MAX, ROOMS_PER_REQUEST_MAX, STALL_TIME_MAX,
};
use ringroom::kernel::Limits;
use ringroom::kernel::asked::{Outside, Question};
use ringroom::kernel::ids::ShardId;
use ringroom::kernel::outbox::OutboxBounds;
use ringroom::kernel::placement::Placement;
use ringroom::shard::{DrainPace, Held, Snapshot};
use ringroom::sim::{FromClient, Link, Received, World, WorldShape, identity};
use serde_json::{Value, json};
use std::time::Duration;

/// A world with clients that read whenever they are asked to, unless they are told not to.
struct House {
    world: World,
    guests: Vec<Guest>,
}

struct Guest {
    link: Link,
    reads: bool,
    pongs: bool,
    /// What its own pings were answered with.
    ponged: Vec<Vec<u8>>,
    /// Texts that were read and not yet looked at.
    texts: Vec<Value>,
    pings: usize,
    closed: Option<(u16, String)>,
    next_id: u64,
}

type Name = usize;

impl House {
    fn of(shape: WorldShape) -> House {
        House { world: World::new(&shape), guests: Vec::new() }
    }

    fn new() -> House {
        House::of(WorldShape { shards: 2, lane_entries: 256, window: 1 << 20, ..WorldShape::default() })
    }

    fn enter_as(&mut self, shard: u8, identity: Identity) -> Name {
        let link = self.world.open(ShardId(shard), identity).expect("there is room");
        let (texts, closed) = (Vec::new(), None);
        self.guests.push(Guest { link, reads: true, pongs: true, texts, pings: 0, ponged: vec![], closed, next_id: 1 });
        self.settle();
        let guest = self.guests.len() - 1;
        let connected = self.pushes(guest, "connected");
        assert_eq!(connected.len(), 1, "a client is told that it is connected");
        guest
    }

    fn enter(&mut self, shard: u8, user: &str) -> Name {
        self.enter_as(shard, identity("acme", user, ""))
    }

    /// Lets everything flow until nothing does, time standing still.
    fn settle(&mut self) {
        loop {
            let mut did = self.world.settle();
            for guest in &mut self.guests {
                did |= guest.read(&mut self.world);
            }
            if let Some(failure) = self.world.failure() {
                panic!("{failure:?}");
            }
            if !did {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.world.pass(time);
        for shard in self.world.shards() {
            self.world.tick(shard);
        }
        self.settle();
    }

    /// Time goes by in steps in which peers can answer heartbeats.
    fn live(&mut self, time: Duration) {
        let step = Duration::from_secs(5);
        for _ in 0..time.as_secs().div_ceil(step.as_secs()) {
            self.pass(step);
        }
    }

    fn say(&mut self, guest: Name, text: impl Into<String>) {
        self.world.send(self.guests[guest].link, FromClient::Text(text.into()));
    }

    /// Sends a request without waiting for anything; gives its id.
    fn ask(&mut self, guest: Name, event: &str, data: Value) -> u64 {
        let id = self.guests[guest].next_id;
        self.guests[guest].next_id += 1;
        self.say(guest, json!({ "id": id, "event": event, "data": data }).to_string());
        id
    }

    fn reply_to(&mut self, guest: Name, id: u64) -> Value {
        let texts = &mut self.guests[guest].texts;
        let at =
            texts.iter().position(|text| text["id"] == id).unwrap_or_else(|| panic!("no reply to {id}: {texts:?}"));
        texts.remove(at)
    }

    /// Sends a request, lets everything flow and gives the reply.
    fn request(&mut self, guest: Name, event: &str, data: Value) -> Value {
        let id = self.ask(guest, event, data);
        self.settle();
        self.reply_to(guest, id)
    }

    fn ok(&mut self, guest: Name, event: &str, data: Value) -> Value {
        let mut reply = self.request(guest, event, data);
        assert_eq!(reply["ok"], true, "{event}: {reply}");
        reply["data"].take()
    }

    fn error(&mut self, guest: Name, event: &str, data: Value) -> String {
        let reply = self.request(guest, event, data);
        assert_eq!(reply["ok"], false, "{event}: {reply}");
        assert!(!reply["error"]["message"].as_str().unwrap_or_default().is_empty());
        reply["error"]["code"].as_str().unwrap_or_default().to_string()
    }

    fn join(&mut self, guest: Name, room: &str) -> Value {
        self.ok(guest, "room:join", json!({ "room": room }))
    }

    fn publish(&mut self, guest: Name, room: &str, data: Value) -> Value {
        self.ok(guest, "room:publish", json!({ "room": room, "event": "said", "data": data }))
    }

    /// Takes the pushes of this event that a guest has got.
    fn pushes(&mut self, guest: Name, event: &str) -> Vec<Value> {
        let (taken, rest) =
            self.guests[guest].texts.drain(..).partition(|text| text["event"] == event && text.get("id").is_none());
        self.guests[guest].texts = rest;
        taken
    }

    /// Takes the `data` of what was said to a guest.
    fn heard(&mut self, guest: Name) -> Vec<Value> {
        self.pushes(guest, "said").into_iter().map(|mut push| push["data"].take()).collect()
    }

    fn closed(&self, guest: Name) -> Option<u16> {
        self.guests[guest].closed.as_ref().map(|(code, _)| *code)
    }
}

impl Guest {
    fn read(&mut self, world: &mut World) -> bool {
        if !self.reads {
            return false;
        }
        let mut received = Vec::new();
        let did = world.read(self.link, usize::MAX, &mut received);
        for frame in received {
            match frame {
                Received::Text(text) => self.texts.push(serde_json::from_str(&text).expect("the server writes JSON")),
                Received::Ping(_) => {
                    self.pings += 1;
                    if self.pongs {
                        world.send(self.link, FromClient::Pong);
                    }
                }
                Received::Pong(payload) => self.ponged.push(payload),
                Received::Close { code, reason } => {
                    self.closed = Some((code, reason));
                    world.end(self.link);
                }
            }
        }
        did
    }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

// Coming and going.

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

// Publishing.

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

// Requests as such.

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
    for code in [1000, 1011, 1014, 3000, 4000, 4999] {
        let guest = house.enter(0, "carol");
        house.world.send(house.guests[guest].link, FromClient::Close(code));
        house.settle();
        assert_eq!(house.closed(guest), Some(code));
    }
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

// History.

#[test]
fn history_is_read_in_pages_from_either_end() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    let receipts: Vec<Value> = (1..=10).map(|nth| house.publish(alice, "a", json!(nth))).collect();
    let data_of = |page: &Value| -> Vec<Value> {
        page["messages"].as_array().unwrap().iter().map(|message| message["data"].clone()).collect()
    };
    let last = house.ok(alice, "room:history", json!({ "room": "a", "limit": 4 }));
    assert_eq!(data_of(&last), numbers(7..=10));
    assert_eq!((&last["more"], &last["gap"], &last["pos"]), (&json!(true), &json!(false), &receipts[9]["pos"]));
    assert_eq!(last["messages"][0]["mid"], receipts[6]["mid"]);
    let before = json!({ "room": "a", "limit": 4, "before": last["messages"][0]["mid"] });
    let before = house.ok(alice, "room:history", before);
    assert_eq!(data_of(&before), numbers(3..=6));
    let first = house.ok(alice, "room:history", json!({ "room": "a", "limit": 4, "before": receipts[2]["pos"] }));
    assert_eq!(data_of(&first), numbers(1..=2));
    assert_eq!((&first["more"], &first["gap"]), (&json!(false), &json!(false)));
    for since in [&receipts[3]["pos"], &receipts[3]["mid"]] {
        let page = house.ok(alice, "room:history", json!({ "room": "a", "limit": 4, "since": since }));
        assert_eq!(data_of(&page), numbers(5..=8));
        assert_eq!((&page["more"], &page["pos"]), (&json!(true), &receipts[7]["pos"]));
    }
    let end = house.ok(alice, "room:history", json!({ "room": "a", "since": receipts[9]["pos"] }));
    assert_eq!((&end["messages"], &end["more"], &end["gap"]), (&json!([]), &json!(false), &json!(false)));
    for bad in [
        json!({ "room": "a", "limit": PAGE_ENTRIES_MAX + 1 }),
        json!({ "room": "a", "since": "x" }),
        json!({ "room": "a", "since": receipts[0]["pos"], "before": receipts[1]["pos"] }),
    ] {
        assert_eq!(house.error(alice, "room:history", bad), "bad_request");
    }
}

#[test]
fn a_reader_of_history_learns_that_its_start_is_gone_whatever_the_page() {
    let mut house = House::new();
    let alice = house.enter(0, "alice");
    for nth in 0..HISTORY_ENTRIES_MAX + 1 {
        house.publish(alice, "a", json!(nth));
    }
    // The last page is full and ends where the history does.
    for limit in [64, 100] {
        let (mut before, mut seen) = (None, 0);
        let last = loop {
            let mut ask = json!({ "room": "a", "limit": limit });
            if let Some(before) = before {
                ask["before"] = before;
            }
            let page = house.ok(alice, "room:history", ask);
            seen += page["messages"].as_array().unwrap().len();
            if page["more"] == false {
                break page;
            }
            assert_eq!(page["gap"], false);
            before = Some(page["messages"][0]["mid"].clone());
        };
        assert_eq!(seen, HISTORY_ENTRIES_MAX);
        assert_eq!(last["gap"], true, "pages of {limit}");
    }
}

// Coming back.

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

// What the simulation found.

/// A room whose home is this shard, of two.
fn room_at(shard: u8) -> String {
    let placement = Placement::new(2);
    let is_there = |room: &String| placement.of_room("acme", room) == ShardId(shard);
    (0..).map(|nth| format!("room:{nth}")).find(is_there).expect("some name has its home there")
}

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

// Slow and silent clients.

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

// How much may be asked.

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
        let link = house.world.open(ShardId(0), identity("acme", "alice", role)).expect("there is room");
        house.guests.push(Guest {
            link,
            reads: true,
            pongs: true,
            texts: vec![],
            pings: 0,
            ponged: vec![],
            closed: None,
            next_id: 1,
        });
        house.settle();
        let guest = house.guests.len() - 1;
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

// Memory.

/// What shard 0 counts now.
fn snapshot(house: &House) -> Snapshot {
    house.world.shard(ShardId(0)).snapshot()
}

fn pad(bytes: usize) -> String {
    "x".repeat(bytes)
}

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
        let link = house.world.open(ShardId(0), identity("acme", "late", "")).expect("there is room");
        let guest =
            Guest { link, reads: true, pongs: true, texts: vec![], pings: 0, ponged: vec![], closed: None, next_id: 1 };
        house.guests.push(guest);
        house.settle();
        let turn = 700 + 2_000 * (nth as u64 + 1);
        assert!((turn..=turn + 700).contains(&house.retry_ms(nth + 1)));
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

// Tokens of connections that are open.

/// Name, rooms, and who has which right.
type Given<'a> = (&'a str, &'a str, &'a [(Right, &'a str)]);

fn policy(rules: &[Given<'_>]) -> Policy {
    let rule = |(name, rooms, who): &Given<'_>| {
        let of = |right| who.iter().find(|(own, _)| *own == right).map(|(_, words)| Who::parse(words).expect("words"));
        let rooms = RulePattern::parse(rooms).expect("a pattern");
        Rule { name: Box::from(*name), rooms, who: RIGHTS.map(of) }
    };
    Policy::new(Roles::default(), Rules::new(rules.iter().map(rule).collect()).expect("few rules"))
}

#[test]
fn a_policy_decides_each_right_and_the_room_says_which() {
    let mut house = House::new();
    house.world.set_policy(policy(&[
        ("news", "news:*", &[(Right::Publish, "role:editor"), (Right::Presence, "nobody")]),
        ("people", "user:*", &[(Right::Direct, "role:editor")]),
    ]));
    let (alice, editor) = (house.enter(0, "alice"), house.enter_as(1, identity("acme", "eve", "editor")));
    house.join(alice, "news:1");
    let publish = json!({ "room": "news:1", "event": "said", "data": 1 });
    let refused = house.request(alice, "room:publish", publish);
    assert_eq!(refused["error"]["code"], "forbidden");
    assert!(refused["error"]["message"].as_str().unwrap().contains("`news`"), "{refused}");
    house.publish(editor, "news:1", json!(2));
    assert_eq!(house.heard(alice), numbers(2..=2));
    assert_eq!(house.error(editor, "room:online", json!({ "room": "news:1" })), "forbidden");
    let direct = |user: &str| json!({ "user": user, "event": "said", "data": 3 });
    assert_eq!(house.error(alice, "room:publish", direct("eve")), "forbidden");
    house.ok(editor, "room:publish", direct("alice"));
    assert_eq!(house.heard(alice), numbers(3..=3));
    let several = json!({ "rooms": ["news:1", "chat:1"], "event": "said", "data": 4 });
    let results = house.ok(alice, "room:publish", several)["results"].take();
    assert_eq!((&results[0]["error"]["code"], &results[1]["seq"]), (&json!("forbidden"), &json!(1)));
    assert_eq!(house.ok(alice, "room:info", json!({ "room": "news:1" }))["policy"], "news");
    assert_eq!(house.ok(alice, "room:info", json!({ "room": "chat:1" }))["policy"], "default");
}

#[test]
fn members_stay_when_the_policy_changes_and_what_they_ask_is_decided_anew() {
    let mut house = House::new();
    let (alice, bob) = (house.enter(0, "alice"), house.enter(1, "bob"));
    house.join(alice, "chat:1");
    house.world.set_policy(policy(&[("shut", "chat:*", &[(Right::Join, "nobody")])]));
    house.publish(bob, "chat:1", json!(1));
    assert_eq!(house.heard(alice), numbers(1..=1), "a member stays");
    assert_eq!(house.error(alice, "room:history", json!({ "room": "chat:1" })), "forbidden");
    assert_eq!(house.error(alice, "room:join", json!({ "room": "chat:1" })), "forbidden");
    house.ok(alice, "room:leave", json!({ "room": "chat:1" }));
    assert_eq!(house.error(alice, "room:join", json!({ "room": "chat:1" })), "forbidden");
    house.world.set_policy(Policy::default());
    house.join(alice, "chat:1");
}

// Somebody outside is asked.

/// A house where whoever joins or publishes in `ask:*` is asked about, and its outside.
fn house_that_asks() -> House {
    let mut house = House::new();
    let ask = &[(Right::Join, "role:staff, ask"), (Right::Publish, "role:staff, ask")];
    house.world.set_policy(policy(&[("asked", "ask:*", ask)]));
    house
}

impl House {
    /// The only question that has come.
    fn question(&mut self) -> (ShardId, Question) {
        let mut questions = self.world.take_questions();
        assert_eq!(questions.len(), 1, "{questions:?}");
        questions.remove(0)
    }

    fn answer(&mut self, (shard, question): &(ShardId, Question), outside: Outside) {
        self.world.answer(*shard, question.ticket, outside);
        self.settle();
    }

    fn has_reply(&self, guest: Name, id: u64) -> bool {
        self.guests[guest].texts.iter().any(|text| text["id"] == id)
    }

    fn snapshot(&self) -> Snapshot {
        let mut total = Snapshot::default();
        self.world.shards().for_each(|shard| total.add(&self.world.shard(shard).snapshot()));
        total
    }

    fn say_in(&mut self, guest: Name, room: &str, data: u64) -> u64 {
        self.ask(guest, "room:publish", json!({ "room": room, "event": "said", "data": data }))
    }
}

#[test]
fn a_request_that_is_asked_about_waits_for_the_answer_and_goes_on() {
    let mut house = house_that_asks();
    let alice = house.enter_as(0, identity("acme", "alice", "guest"));
    let id = house.ask(alice, "room:join", json!({ "room": "ask:1" }));
    house.settle();
    let asked = house.question();
    assert!(!house.has_reply(alice, id));
    let Question { right, room, user, roles, .. } = &asked.1;
    assert_eq!((asked.0, *right, &*room.tenant, room.name.as_str()), (ShardId(0), Right::Join, "acme", "ask:1"));
    assert_eq!((&**user, &*roles[0]), ("alice", "guest"));
    house.answer(&asked, Outside::Allows);
    assert_eq!(house.reply_to(alice, id)["data"]["members"], 1);
    let snapshot = house.snapshot();
    assert_eq!((snapshot.asked, snapshot.asked_now, snapshot.asked_waiting), (1, 0, 0));
    house.answer(&asked, Outside::Denies { message: "too late".into() });
    assert_eq!(house.ok(alice, "room:list", json!({}))["rooms"], json!(["user:alice", "ask:1"]));
}

#[test]
fn a_denial_from_outside_says_why_and_a_failure_when_to_try_again() {
    let mut house = house_that_asks();
    let alice = house.enter(0, "alice");
    let mut outcome = |outside| {
        let id = house.ask(alice, "room:join", json!({ "room": "ask:1" }));
        house.settle();
        let asked = house.question();
        house.answer(&asked, outside);
        house.answer(&asked, Outside::Allows);
        house.reply_to(alice, id)["error"].take()
    };
    let denied = outcome(Outside::Denies { message: "not today".into() });
    assert_eq!(denied, json!({ "code": "forbidden", "message": "not today" }));
    let long = outcome(Outside::Denies { message: "é".repeat(1_000) });
    assert!(long["message"].as_str().unwrap().len() <= ANSWER_BYTES_MAX, "{long}");
    let failed = outcome(Outside::Fails);
    assert_eq!((&failed["code"], &failed["retry_after_ms"]), (&json!("unavailable"), &json!(1_000)));
    assert_eq!(house.ok(alice, "room:list", json!({}))["rooms"], json!(["user:alice"]));
}

#[test]
fn what_is_asked_of_a_room_waits_behind_the_question_and_other_rooms_do_not() {
    let mut house = house_that_asks();
    let (alice, staff) = (house.enter(0, "alice"), house.enter_as(1, identity("acme", "sam", "staff")));
    house.join(staff, "ask:1");
    house.join(staff, "chat:1");
    let ids: Vec<u64> = (1..=3).map(|nth| house.say_in(alice, "ask:1", nth)).collect();
    let left = house.ask(alice, "room:leave", json!({ "room": "ask:1" }));
    house.publish(alice, "chat:1", json!(10));
    house.ok(alice, "ping", json!({}));
    house.publish(staff, "ask:1", json!(20));
    assert_eq!(house.heard(staff), [json!(10), json!(20)]);
    assert_eq!(house.snapshot().asked_waiting, 4, "a leave needs no right, and keeps its place all the same");
    for (nth, id) in ids.iter().enumerate() {
        assert!(!house.has_reply(alice, *id) && !house.has_reply(alice, left));
        let asked = house.question();
        let outside = if nth == 1 { Outside::Denies { message: "no".into() } } else { Outside::Allows };
        house.answer(&asked, outside);
        assert_eq!(house.reply_to(alice, *id)["ok"], nth != 1);
    }
    assert_eq!(house.reply_to(alice, left)["error"]["code"], "not_member");
    assert_eq!(house.heard(staff), [json!(1), json!(3)]);
}

#[test]
fn silence_from_outside_is_unavailable_and_holds_up_no_longer_than_once() {
    let mut house = house_that_asks();
    let alice = house.enter(0, "alice");
    let join = house.ask(alice, "room:join", json!({ "room": "ask:1" }));
    let publish = house.say_in(alice, "ask:1", 1);
    let leave = house.ask(alice, "room:leave", json!({ "room": "ask:1" }));
    house.settle();
    let asked = house.question();
    house.pass(ASK_TIME_OUT - Duration::from_millis(500));
    assert!(!house.has_reply(alice, join));
    house.pass(Duration::from_secs(1));
    for id in [join, publish] {
        let error = house.reply_to(alice, id)["error"].take();
        assert_eq!((&error["code"], &error["retry_after_ms"]), (&json!("unavailable"), &json!(1_000)));
    }
    assert_eq!(house.reply_to(alice, leave)["error"]["code"], "not_member", "it was decided as ever");
    assert!(house.world.take_questions().is_empty());
    house.answer(&asked, Outside::Allows);
    assert_eq!(house.ok(alice, "room:list", json!({}))["rooms"], json!(["user:alice"]));
    let snapshot = house.snapshot();
    assert_eq!((snapshot.asked, snapshot.asked_timed_out, snapshot.asked_now), (1, 1, 0));
}

#[test]
fn a_request_over_several_rooms_answers_when_the_asked_ones_are_decided_too() {
    let mut house = house_that_asks();
    let alice = house.enter(0, "alice");
    let rooms = json!({ "rooms": ["chat:1", "ask:1", "user:bob", "ask:2"] });
    let join = house.ask(alice, "room:join-many", rooms);
    house.settle();
    let questions = house.world.take_questions();
    assert_eq!(questions.len(), 2);
    house.answer(&questions[1], Outside::Denies { message: "no".into() });
    assert!(!house.has_reply(alice, join));
    house.publish(alice, "chat:1", json!(1));
    assert_eq!(house.heard(alice), numbers(1..=1), "it is in that room by now");
    house.answer(&questions[0], Outside::Allows);
    let reply = house.reply_to(alice, join)["data"].take();
    assert_eq!(reply["joined"], json!(["chat:1", "ask:1"]));
    let failed: Vec<&Value> = reply["failed"].as_array().unwrap().iter().map(|failed| &failed["room"]).collect();
    assert_eq!(failed, [&json!("user:bob"), &json!("ask:2")]);
    let several = json!({ "rooms": ["ask:3", "chat:1"], "event": "said", "data": 2 });
    let publish = house.ask(alice, "room:publish", several);
    house.settle();
    assert_eq!(house.heard(alice), numbers(2..=2));
    let asked = house.question();
    house.answer(&asked, Outside::Allows);
    let results = house.reply_to(alice, publish)["data"]["results"].take();
    assert_eq!((&results[0]["room"], &results[0]["seq"], &results[1]["seq"]), (&json!("ask:3"), &json!(1), &json!(2)));
}

#[test]
fn a_connection_that_goes_takes_its_questions_along() {
    let mut house = house_that_asks();
    for (nth, goes) in [true, false].into_iter().enumerate() {
        let alice = house.enter(nth as u8, "alice");
        house.ask(alice, "room:join-many", json!({ "rooms": ["ask:1", "chat:1", "ask:2"] }));
        house.say_in(alice, "ask:1", 1);
        house.say_in(alice, "ask:1", 2);
        house.settle();
        let questions = house.world.take_questions();
        assert_eq!((questions.len(), house.snapshot().asked_waiting), (2, 4));
        if goes {
            let link = house.guests[alice].link;
            house.world.end(link);
        } else {
            let link = house.guests[alice].link;
            house.world.send(link, FromClient::Close(1_000));
        }
        house.settle();
        let snapshot = house.snapshot();
        assert_eq!((snapshot.asked_now, snapshot.asked_waiting, snapshot.calls), (0, 0, 0));
        for asked in &questions {
            house.answer(asked, Outside::Allows);
        }
        house.pass(ASK_TIME_OUT * 2);
        assert_eq!(house.snapshot().asked_timed_out, 0);
    }
    let bob = house.enter(0, "bob");
    assert_eq!(house.ok(bob, "room:info", json!({ "room": "chat:1" }))["members"], 0);
}

#[test]
fn what_one_connection_may_have_waiting_is_bounded_by_number_and_bytes() {
    let mut house = house_that_asks();
    let alice = house.enter(0, "alice");
    let ids: Vec<u64> = (0..ASKED_BEHIND_MAX + 2).map(|nth| house.say_in(alice, "ask:0", nth as u64)).collect();
    house.settle();
    let error = house.reply_to(alice, ids[ASKED_BEHIND_MAX + 1])["error"].take();
    assert_eq!((&error["code"], &error["limit"]), (&json!("too_many"), &json!("asked_behind")));
    assert!(!house.has_reply(alice, ids[ASKED_BEHIND_MAX]));
    let rooms: Vec<String> = (1..=ASKED_PER_CONN_MAX).map(|nth| format!("ask:{nth}")).collect();
    let join = house.ask(alice, "room:join-many", json!({ "rooms": rooms }));
    house.settle();
    assert_eq!(house.world.take_questions().len(), ASKED_PER_CONN_MAX, "the first room's was one of them");
    house.pass(ASK_TIME_OUT * 2);
    let failed = house.reply_to(alice, join)["data"]["failed"].take();
    assert_eq!((&failed[0]["error"]["code"], &failed[99]["error"]["limit"]), (&json!("unavailable"), &json!("asked")));
    assert_eq!((house.snapshot().asked_waiting, house.snapshot().asked_full), (0, 2));

    let large = "x".repeat(ASKED_BYTES_PER_CONN_MAX / 5);
    let large = |room: &str| json!({ "room": room, "event": "said", "data": large });
    let ids: Vec<u64> = (0..5).map(|nth| house.ask(alice, "room:publish", large(&format!("ask:{nth}")))).collect();
    house.settle();
    assert_eq!(house.reply_to(alice, ids[4])["error"]["limit"], "asked_bytes");
    house.world.take_questions().iter().for_each(|asked| house.answer(asked, Outside::Allows));
    assert!(ids[..4].iter().all(|id| house.has_reply(alice, *id)));
}

#[test]
fn what_a_shard_may_have_waiting_is_bounded_and_it_says_when_to_try_again() {
    let mut house = house_that_asks();
    let rooms: Vec<String> = (1..=ASKED_PER_CONN_MAX).map(|nth| format!("ask:{nth}")).collect();
    for nth in 0..ASKED_PER_SHARD_MAX / ASKED_PER_CONN_MAX {
        let guest = house.enter(0, &format!("u{nth}"));
        house.ask(guest, "room:join-many", json!({ "rooms": rooms }));
        house.settle();
    }
    let last = house.enter(0, "last");
    let join = house.ask(last, "room:join-many", json!({ "rooms": rooms }));
    let (elsewhere, other) = (house.enter(1, "elsewhere"), house.enter(1, "other"));
    house.ask(elsewhere, "room:join", json!({ "room": "ask:1" }));
    house.join(other, "chat:1");
    assert_eq!(house.world.take_questions().len(), ASKED_PER_SHARD_MAX + 1, "another shard counts by itself");
    house.pass(ASK_TIME_OUT * 2);
    let failed = house.reply_to(last, join)["data"]["failed"].take();
    let error = &failed[99]["error"];
    assert_eq!((&error["code"], &error["retry_after_ms"]), (&json!("unavailable"), &json!(1_000)));
    assert_eq!(house.snapshot().asked_waiting, 0);
}

const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";

impl House {
    /// A house whose shards check tokens.
    fn with_keys() -> House {
        let mut house = House::new();
        house.world.set_verifier(Verifier::hs256(SECRET, 0).expect("a long secret"));
        house
    }

    fn unix_s(&self) -> u64 {
        self.world.now.unix_ms / 1_000
    }

    /// A token of this moment that lasts `lasts_s`.
    fn token(&self, user: &str, lasts_s: u64) -> String {
        let (iat, exp) = (Some(self.unix_s()), Some(self.unix_s() + lasts_s));
        let tenant = Some("acme".into());
        sign_hs256(SECRET, &Claims { sub: user.into(), tenant, iat, exp, ..Claims::default() })
    }

    fn identity_by(&self, token: &str) -> Identity {
        self.world.shard(ShardId(0)).verify(self.world.now, token).expect("a good token")
    }

    fn enter_for(&mut self, shard: u8, user: &str, lasts_s: u64) -> Name {
        let identity = self.identity_by(&self.token(user, lasts_s));
        self.enter_as(shard, identity)
    }

    fn refresh(&mut self, guest: Name, token: &str) -> Value {
        self.request(guest, "auth:refresh", json!({ "token": token }))
    }

    fn revoke(&mut self, target: Target) {
        let now = self.unix_s();
        let revocation = Revocation { target, issued_upto_unix_s: now, until_unix_s: now + 900 };
        for shard in self.world.shards() {
            self.world.revoke(shard, std::slice::from_ref(&revocation));
        }
        self.settle();
    }
}

fn user(tenant: &str, user: &str) -> Target {
    Target::User { tenant: tenant.into(), user: user.into() }
}

#[test]
fn a_connection_is_told_a_minute_before_its_token_ends_and_closed_when_it_does() {
    let mut house = House::with_keys();
    let end_s = house.unix_s() + 300;
    let alice = house.enter_for(0, "alice", 300);
    house.live(Duration::from_secs(235));
    assert_eq!(house.pushes(alice, "auth:expiring"), Vec::<Value>::new());
    house.live(Duration::from_secs(10));
    let told = house.pushes(alice, "auth:expiring");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["data"], json!({ "expires_at": end_s * 1_000 }));
    house.live(Duration::from_secs(50));
    assert_eq!(house.closed(alice), None);
    house.live(Duration::from_secs(10));
    assert_eq!(house.closed(alice), Some(4401));
    assert!(house.pushes(alice, "auth:expiring").is_empty(), "it is told once");
}

#[test]
fn a_token_that_never_ends_never_ends_a_connection() {
    let mut house = House::with_keys();
    let token = sign_hs256(SECRET, &Claims { sub: "alice".into(), ..Claims::default() });
    let identity = house.identity_by(&token);
    let alice = house.enter_as(0, identity);
    house.live(Duration::from_secs(600));
    assert_eq!((house.closed(alice), house.pushes(alice, "auth:expiring").len()), (None, 0));
}

#[test]
fn who_comes_with_less_than_a_minute_left_is_told_at_once_but_after_the_welcome() {
    let mut house = House::with_keys();
    for shard in 0..2 {
        let identity = house.identity_by(&house.token("alice", 30));
        let link = house.world.open(ShardId(shard), identity).expect("there is room");
        house.guests.push(Guest {
            link,
            reads: true,
            pongs: true,
            texts: Vec::new(),
            pings: 0,
            ponged: vec![],
            closed: None,
            next_id: 1,
        });
        house.settle();
        house.pass(Duration::from_millis(100));
        let events: Vec<_> = house.guests.last().expect("just now").texts.iter().map(|text| &text["event"]).collect();
        assert_eq!(events, ["connected", "auth:expiring"]);
    }
}

#[test]
fn a_connection_that_refreshes_stays_and_is_told_again_before_the_new_end() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 90);
    house.join(alice, "chat:1");
    house.live(Duration::from_secs(35));
    assert_eq!(house.pushes(alice, "auth:expiring").len(), 1);
    let (token, end_s) = (house.token("alice", 200), house.unix_s() + 200);
    assert_eq!(house.refresh(alice, &token)["data"], json!({ "expires_at": end_s * 1_000 }));
    house.live(Duration::from_secs(130));
    assert_eq!((house.closed(alice), house.pushes(alice, "auth:expiring").len()), (None, 0));
    house.live(Duration::from_secs(20));
    assert_eq!(house.pushes(alice, "auth:expiring").len(), 1);
    house.publish(alice, "chat:1", json!("still here"));
    assert_eq!(house.heard(alice), [json!("still here")]);
    house.live(Duration::from_secs(60));
    assert_eq!(house.closed(alice), Some(4401));
}

#[test]
fn what_a_refreshed_token_says_counts_from_then_on() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 90);
    assert_eq!(house.error(alice, "room:update", json!({ "room": "a", "data": {} })), "forbidden");
    let claims = Claims { sub: "alice".into(), tenant: Some("acme".into()), ..Claims::default() };
    let admin = sign_hs256(SECRET, &Claims { roles: vec!["admin".into()], ..claims });
    assert_eq!(house.refresh(alice, &admin)["data"], json!({ "expires_at": null }));
    house.join(alice, "a");
    house.ok(alice, "room:update", json!({ "room": "a", "data": {} }));
    house.live(Duration::from_secs(200));
    assert_eq!(house.closed(alice), None, "that token never ends");
}

#[test]
fn a_refresh_that_is_refused_changes_nothing() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 90);
    let other_tenant = sign_hs256(SECRET, &Claims { sub: "alice".into(), ..Claims::default() });
    for (token, code) in [
        (house.token("bob", 900), "forbidden"),
        (other_tenant, "forbidden"),
        (house.token("alice", 0), "token_expired"),
        (house.token("alice", 900) + "x", "unauthorized"),
        (String::new(), "unauthorized"),
    ] {
        assert_eq!(house.refresh(alice, &token)["error"]["code"], code);
    }
    assert_eq!(house.error(alice, "auth:refresh", json!({})), "bad_request");
    assert_eq!(house.closed(alice), None);
    house.live(Duration::from_secs(95));
    assert_eq!(house.closed(alice), Some(4401));
}

#[test]
fn a_wall_clock_that_jumps_past_the_end_is_noticed_with_the_next_heartbeat() {
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 7_200);
    house.live(Duration::from_secs(60));
    house.world.now.unix_ms += 7_200_000;
    house.live(HEARTBEAT + Duration::from_secs(10));
    assert_eq!(house.closed(alice), Some(4401));
}

#[test]
fn a_revoked_user_is_closed_everywhere_and_comes_back_only_with_a_newer_token() {
    let mut house = House::with_keys();
    let (here, there) = (house.enter_for(0, "alice", 900), house.enter_for(1, "alice", 900));
    let bob = house.enter_for(0, "bob", 900);
    let of_another_tenant = house.enter_as(0, Identity::of("other", "alice"));
    let old = house.token("alice", 900);
    let on_its_way = house.identity_by(&old);
    house.revoke(user("acme", "alice"));
    assert_eq!((house.closed(here), house.closed(there)), (Some(4409), Some(4409)));
    assert_eq!((house.closed(bob), house.closed(of_another_tenant)), (None, None));
    for shard in house.world.shards() {
        let refused = house.world.shard(shard).verify(house.world.now, &old).expect_err("revoked");
        assert_eq!(refused.reason(), "token_revoked");
    }
    let link = house.world.open(ShardId(1), on_its_way).expect("there is room");
    house.guests.push(Guest {
        link,
        reads: true,
        pongs: true,
        texts: Vec::new(),
        pings: 0,
        ponged: vec![],
        closed: None,
        next_id: 1,
    });
    house.settle();
    let late = house.guests.len() - 1;
    assert_eq!((house.closed(late), house.guests[late].texts.len()), (Some(4401), 0), "it was let in elsewhere before");
    house.pass(Duration::from_secs(1));
    let again = house.enter_for(0, "alice", 900);
    house.revoke(user("acme", "carol"));
    assert_eq!(house.closed(again), None, "another's revocation is not hers");
}

#[test]
fn a_revoked_token_is_closed_and_refused_and_its_users_others_are_not() {
    let mut house = House::with_keys();
    let claims = |jti: &str| Claims { sub: "alice".into(), jti: Some(jti.into()), ..Claims::default() };
    let (lost, kept) = (sign_hs256(SECRET, &claims("lost")), sign_hs256(SECRET, &claims("kept")));
    let (on_lost, on_kept) = (house.identity_by(&lost), house.identity_by(&kept));
    let (on_lost, on_kept) = (house.enter_as(0, on_lost), house.enter_as(0, on_kept));
    house.revoke(Target::Token("lost".into()));
    assert_eq!((house.closed(on_lost), house.closed(on_kept)), (Some(4409), None));
    assert_eq!(house.refresh(on_kept, &lost)["error"]["code"], "unauthorized");
    assert_eq!(house.refresh(on_kept, &kept)["ok"], true);
    house.live(Duration::from_secs(905));
    assert_eq!(house.refresh(on_kept, &lost)["ok"], true, "no longer than was asked for");
}

#[test]
fn new_keys_count_from_then_on_and_leave_who_is_in() {
    const NEW: &[u8] = b"another secret of at least 32 bytes, for tests only";
    let mut house = House::with_keys();
    let alice = house.enter_for(0, "alice", 900);
    house.world.set_verifier(Verifier::hs256(NEW, 0).expect("a long secret"));
    let old = house.token("alice", 900);
    assert_eq!(house.refresh(alice, &old)["error"]["code"], "unauthorized");
    assert_eq!(house.closed(alice), None);
    let claims = Claims { sub: "alice".into(), tenant: Some("acme".into()), ..Claims::default() };
    assert_eq!(house.refresh(alice, &sign_hs256(NEW, &claims))["ok"], true);
}
