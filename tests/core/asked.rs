//! Somebody outside is asked.

use crate::house::{House, Name, numbers};
use crate::policy::policy;
use ringroom::admission::rights::Right;
use ringroom::base::limits::{
    ANSWER_BYTES_MAX, ASK_TIME_OUT, ASKED_BEHIND_MAX, ASKED_BYTES_PER_CONN_MAX, ASKED_PER_CONN_MAX, ASKED_PER_SHARD_MAX,
};
use ringroom::kernel::asked::{Outside, Question};
use ringroom::kernel::ids::ShardId;
use ringroom::shard::Snapshot;
use ringroom::sim::{FromClient, identity};
use serde_json::{Value, json};
use std::time::Duration;

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
