//! What a policy lets whom do.

use crate::house::{House, numbers};
use ringroom::admission::pattern::RulePattern;
use ringroom::admission::policies::{RIGHTS, Rule, Rules, Who};
use ringroom::admission::policy::{Policy, Roles};
use ringroom::admission::rights::Right;
use ringroom::sim::identity;
use serde_json::json;

/// Name, rooms, and who has which right.
pub type Given<'a> = (&'a str, &'a str, &'a [(Right, &'a str)]);

pub fn policy(rules: &[Given<'_>]) -> Policy {
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
