//! The gateway's own namespaces: who comes in and as whom, requests and acknowledgements, rooms that clients
//! of all dialects share, bytes, and who goes.

use super::hall::{Hall, Name};
use ringroom::admission::revocations::{Revocation, Target};
use ringroom::kernel::Limits;
use ringroom::kernel::carriers::Transport;
use ringroom::kernel::mounts::{EngineSettings, Mounts, SocketIo};
use ringroom::kernel::paths::Paths;
use ringroom::shard::{DrainPace, Input};
use ringroom::wire::codes::{ErrorCode, WireError};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const PATH: &str = "/socket.io/";

fn paths() -> Paths {
    let mut mounts = Mounts::default();
    let names = ["/", "/realtime"].map(Box::from);
    let settings = EngineSettings { ping_interval: Duration::from_secs(24), ..EngineSettings::default() };
    mounts.socket_io(PATH, settings, SocketIo::of_gateway(names, Arc::default()));
    Paths { mounts, ..Paths::default() }
}

fn hall(shards: u8) -> Hall {
    Hall::new(shards, &paths())
}

fn session(hall: &mut Hall, shard: usize) -> Name {
    let guest = hall.open(shard, PATH, Transport::WebSocket);
    hall.heard(guest);
    guest
}

/// A session whose user is in `namespace`.
fn enter(hall: &mut Hall, shard: usize, namespace: &str, user: &str) -> Name {
    let guest = session(hall, shard);
    connect(hall, guest, namespace, user);
    guest
}

fn connect(hall: &mut Hall, guest: Name, namespace: &str, user: &str) {
    let auth = json!({ "token": hall.token(user) });
    let prefix = prefix(namespace);
    hall.say(guest, format!("40{prefix}{auth}"));
    let heard = hall.heard(guest);
    assert!(heard[0].starts_with(&format!("40{prefix}{{\"sid\":\"")), "{heard:?}");
    assert!(heard[1].starts_with(&format!("42{prefix}[\"connected\",")), "{heard:?}");
    assert_eq!(heard.len(), 2);
}

fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}

/// What an acknowledgement with this number brought.
fn acknowledged(hall: &mut Hall, guest: Name, ack: u32) -> Value {
    let start = format!("43{ack}[");
    let heard = hall.heard_of(guest, &start);
    assert_eq!(heard.len(), 1, "{heard:?}");
    let list: Vec<Value> = serde_json::from_str(&heard[0][start.len() - 1..]).unwrap();
    assert_eq!(list.len(), 1);
    list[0].clone()
}

#[test]
fn whoever_has_a_good_token_comes_in_and_is_told_who_it_is() {
    let mut hall = hall(1);
    let guest = session(&mut hall, 0);
    hall.say(guest, format!("40{}", json!({ "token": hall.token("ada") })));
    let heard = hall.heard(guest);
    let told: Value = serde_json::from_str(&heard[1][2..]).unwrap();
    assert_eq!((&told[0], &told[1]["user"]), (&json!("connected"), &json!("ada")));
    assert_eq!(told[1]["heartbeat_ms"], 24_000, "the session's, not that of other connections");
    let bearer = session(&mut hall, 0);
    hall.say(bearer, format!("40/realtime,{}", json!({ "token": format!("Bearer {}", hall.token("ada")) })));
    assert!(hall.heard(bearer)[0].starts_with("40/realtime,{"));
    // The token of the first request counts where a namespace is told none.
    let token = hall.token("bob");
    let early = hall.open_with(0, PATH, Transport::WebSocket, Some(&token));
    hall.say(early, "40");
    assert!(hall.heard(early)[2].contains(r#""user":"bob""#));
    assert!(hall.failures.is_empty());
    hall.empty();
}

#[test]
fn who_does_not_come_in_is_told_why_and_may_try_again() {
    let mut hall = hall(1);
    let guest = session(&mut hall, 0);
    for (says, namespace, code) in [
        ("40".to_owned(), "", "unauthorized"),
        ("40{}".to_owned(), "", "unauthorized"),
        (r#"40/realtime,{"token":"x"}"#.to_owned(), "/realtime,", "unauthorized"),
        (r#"40{"token":7}"#.to_owned(), "", "unauthorized"),
    ] {
        hall.say(guest, says);
        let heard = hall.heard(guest);
        let refusal: Value = serde_json::from_str(heard[0].strip_prefix(&format!("44{namespace}")).unwrap()).unwrap();
        assert_eq!(refusal["data"]["code"], code);
        assert!(!refusal["message"].as_str().unwrap().is_empty());
    }
    assert_eq!(hall.failures.len(), 4);
    hall.say(guest, "40/nowhere,");
    assert_eq!(hall.heard(guest), [r#"44/nowhere,{"message":"Invalid namespace"}"#]);
    assert_eq!(hall.failures.len(), 4);
    hall.refusal = Some(WireError { retry_after_ms: Some(70), ..WireError::new(ErrorCode::RateLimited, "too many") });
    hall.say(guest, format!("40{}", json!({ "token": hall.token("ada") })));
    let heard = hall.heard(guest);
    let refusal: Value = serde_json::from_str(&heard[0][2..]).unwrap();
    assert_eq!(refusal["message"], "too many");
    assert_eq!((&refusal["data"]["code"], &refusal["data"]["retry_after_ms"]), (&json!("rate_limited"), &json!(70)));
    hall.refusal = None;
    connect(&mut hall, guest, "/", "ada");
    hall.empty();
}

#[test]
fn requests_are_acknowledged_with_what_replies_say() {
    let mut hall = hall(2);
    let guest = enter(&mut hall, 1, "/", "ada");
    hall.say(guest, r#"427["room:join",{"room":"chat:1"}]"#);
    let answer = acknowledged(&mut hall, guest, 7);
    assert_eq!((&answer["ok"], &answer["data"]["room"]), (&json!(true), &json!("chat:1")));
    hall.say(guest, r#"420["ping"]"#);
    assert_eq!(acknowledged(&mut hall, guest, 0)["ok"], true);
    hall.say(guest, r#"428["room:dance",{}]"#);
    let answer = acknowledged(&mut hall, guest, 8);
    assert_eq!((&answer["ok"], &answer["error"]["code"]), (&json!(false), &json!("unknown_event")));
    // Whoever waits for no acknowledgement is told of failures all the same.
    hall.say(guest, r#"42["room:dance",{}]"#);
    let heard = hall.heard(guest);
    assert!(heard[0].starts_with(r#"42["error",{"event":"room:dance","code":"unknown_event""#), "{heard:?}");
    hall.empty();
}

#[test]
fn a_message_reaches_each_namespace_in_its_own_form_and_each_client_once() {
    let mut hall = hall(2);
    let (ada, bob) = (enter(&mut hall, 0, "/", "ada"), enter(&mut hall, 1, "/realtime", "bob"));
    let polled = hall.open(0, PATH, Transport::Polling);
    hall.poll(polled);
    hall.say(polled, format!("40{}", json!({ "token": hall.token("cyd") })));
    hall.poll(polled);
    for (guest, prefix) in [(ada, ""), (bob, "/realtime,"), (polled, "")] {
        hall.say(guest, format!(r#"42{prefix}1["room:join",{{"room":"chat:1"}}]"#));
    }
    [ada, bob].into_iter().for_each(|guest| drop(hall.heard(guest)));
    hall.poll(polled);
    hall.say(ada, r#"422["room:publish",{"room":"chat:1","event":"said","data":{"a" : 1}}]"#);
    let (to_ada, to_bob, to_polled) = (hall.heard(ada), hall.heard(bob), hall.poll(polled));
    let start = r#"["said",{"a" : 1},{"room":"chat:1","seq":1,"mid":""#;
    let push = to_ada.iter().find(|packet| packet.starts_with("42")).expect("a push");
    assert!(push.starts_with(&format!("42{start}")), "{push}");
    assert!(push.ends_with(r#""from":"ada"}]"#), "{push}");
    assert_eq!(to_bob, [push.replacen("42", "42/realtime,", 1)]);
    assert_eq!(to_polled, *push);
    hall.empty();
}

#[test]
fn several_identities_may_use_one_session_and_one_that_goes_leaves_the_others() {
    let mut hall = hall(2);
    let guest = enter(&mut hall, 0, "/", "ada");
    connect(&mut hall, guest, "/realtime", "bob");
    assert_eq!(hall.shards[0].snapshot().namespaces, 2);
    for prefix in ["", "/realtime,"] {
        hall.say(guest, format!(r#"42{prefix}1["room:join",{{"room":"chat:1"}}]"#));
    }
    hall.heard(guest);
    hall.say(guest, r#"42/realtime,["room:publish",{"room":"chat:1","event":"said","data":1}]"#);
    let heard = hall.heard(guest);
    assert_eq!(heard.len(), 2, "in each namespace once: {heard:?}");
    assert!(heard.iter().all(|packet| packet.contains(r#""from":"bob""#)));
    // Out of one and in again, at once.
    hall.send(guest, super::hall::Sent::Text("41/realtime,".into()));
    hall.say(guest, format!("40/realtime,{}", json!({ "token": hall.token("cyd") })));
    let heard = hall.heard(guest);
    assert!(heard[0].starts_with(r#"42["room:member-left",{"room":"chat:1","user":"bob"}"#), "{heard:?}");
    assert!(heard[1].starts_with(r#"40/realtime,{"sid""#) && heard[2].contains(r#""user":"cyd""#), "{heard:?}");
    assert_eq!(hall.left.len(), 1);
    hall.say(guest, r#"42["room:publish",{"room":"chat:1","event":"said","data":1}]"#);
    assert_eq!(hall.heard(guest).len(), 1, "to ada");
    assert_eq!((hall.shards[0].snapshot().namespaces, hall.is_open(guest)), (2, true));
    hall.empty();
}

#[test]
fn bytes_become_attachments_again() {
    let mut hall = hall(1);
    let guest = enter(&mut hall, 0, "/", "ada");
    hall.say(guest, r#"421["room:join",{"room":"chat:1"}]"#);
    hall.heard(guest);
    hall.say(
        guest,
        r#"452-["room:publish",{"room":"chat:1","event":"said","data":[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]}]"#,
    );
    assert_eq!(hall.heard(guest), Vec::<String>::new(), "attachments are to come");
    hall.bytes(guest, b"zero");
    hall.bytes(guest, b"one");
    let heard = hall.heard(guest);
    let start = r#"452-["said",[{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}],{"room""#;
    assert!(heard[0].starts_with(start), "{heard:?}");
    assert_eq!(heard[1..], ["<one>", "<zero>"], "in the order in which they stand");
    hall.empty();
}

#[test]
fn packets_that_break_the_protocol_end_the_session_and_cost_what_they_are() {
    let deep = format!(r#"42["a",{}]"#, "[".repeat(100_000));
    let many = format!(r#"42["a"{}]"#, ",1".repeat(300_000));
    let long = format!("40/{},", "n".repeat(1 << 20));
    for says in [
        "4abc",
        "42",
        "42{}",
        "42abc[\"a\"]",
        "42 1[\"a\"]",
        "4",
        "42[]",
        "42[1]",
        "42[\"a\"",
        "43[1]",
        "45-[\"a\"]",
        "451000000000-[\"a\"]",
        "4511-[\"a\"]",
        "42/realtime,[\"a\"]",
        "451-/realtime,[\"a\",{\"_placeholder\":true,\"num\":0}]",
        "41/realtime",
        "47",
        "42[\"connect\"]",
        &deep,
        &many,
        &long,
    ] {
        let mut hall = hall(1);
        let guest = enter(&mut hall, 0, "/", "ada");
        let neighbour = enter(&mut hall, 0, "/", "bob");
        let before = hall.shards[0].memory_used();
        hall.say(guest, says);
        assert_eq!(hall.guests[guest].closed, Some(4400), "{}", &says[..says.len().min(40)]);
        assert!(hall.shards[0].memory_used() <= before + 1_000);
        assert!(hall.is_open(neighbour));
        assert_eq!(hall.shards[0].snapshot().namespaces, 1);
        hall.empty();
    }
}

#[test]
fn attachments_come_next_in_time_and_within_bounds() {
    let start = r#"452-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]"#;
    let mut hall = hall(1);
    for end in 0..4 {
        let guest = enter(&mut hall, 0, "/", "ada");
        hall.say(guest, start);
        hall.bytes(guest, b"one");
        match end {
            0 => hall.say(guest, r#"42["ping"]"#),
            1 => hall.bytes(guest, &vec![0; 1_000_000]),
            2 => hall.pass(Duration::from_secs(11)),
            _ => {
                // The engine's own packets may come in between.
                hall.say(guest, "3");
                hall.bytes(guest, b"two");
                hall.bytes(guest, b"three");
            }
        }
        let expected = if end == 1 { 1009 } else { 4400 };
        assert_eq!(hall.guests[guest].closed, Some(expected), "{end}");
    }
    hall.empty();
}

#[test]
fn whoever_is_in_no_namespace_for_too_long_is_closed() {
    let mut hall = hall(1);
    let (idle, leaver) = (session(&mut hall, 0), enter(&mut hall, 0, "/", "ada"));
    let live = |hall: &mut Hall, seconds: u64| {
        for _ in 0..seconds {
            hall.pass(Duration::from_secs(1));
            [idle, leaver].into_iter().for_each(|guest| hall.say(guest, "3"));
        }
    };
    live(&mut hall, 44);
    assert!(hall.is_open(idle));
    live(&mut hall, 2);
    assert_eq!((hall.guests[idle].closed, hall.is_open(leaver)), (Some(4408), true));
    hall.say(leaver, "41");
    live(&mut hall, 40);
    assert!(hall.is_open(leaver));
    live(&mut hall, 40);
    assert_eq!(hall.guests[leaver].closed, Some(4408));
    hall.empty();
}

#[test]
fn an_identity_that_ends_is_put_out_of_its_namespace_alone() {
    let mut hall = hall(1);
    let guest = enter(&mut hall, 0, "/", "ada");
    connect(&mut hall, guest, "/realtime", "bob");
    let target = Target::User { tenant: "default".into(), user: "ada".into() };
    let now_s = hall.now.unix_ms / 1_000;
    let order = Revocation { target, issued_upto_unix_s: now_s, until_unix_s: now_s + 3_600 };
    hall.step(0, Input::Revoke { revocations: &[order] });
    hall.settle();
    let heard = hall.heard(guest);
    assert!(heard[0].starts_with(r#"42["error",{"code":"unauthorized""#), "{heard:?}");
    assert_eq!(heard[1..], ["41"]);
    hall.say(guest, r#"42/realtime,1["ping"]"#);
    assert!(hall.heard(guest)[0].starts_with(r#"43/realtime,1[{"ok":true"#));
    // The other's token ends with the time.
    for second in 0..3_700 {
        hall.pass(Duration::from_secs(1));
        hall.say(guest, "3");
        if second % 600 == 0 {
            hall.say(guest, r#"42/realtime,["ping"]"#);
        }
        if hall.shards[0].snapshot().namespaces == 0 {
            break;
        }
    }
    let heard = hall.heard_of(guest, "4");
    assert!(heard[0].starts_with(r#"42/realtime,["auth:expiring",{"expires_at":"#), "{heard:?}");
    assert_eq!(heard.last().map(String::as_str), Some("41/realtime,"));
    assert!(hall.is_open(guest));
    hall.empty();
}

#[test]
fn a_drain_ends_transports_so_that_clients_come_back() {
    let mut hall = hall(1);
    let (guest, polled) = (enter(&mut hall, 0, "/", "ada"), hall.open(0, PATH, Transport::Polling));
    hall.poll(polled);
    let waiting = hall.get(polled);
    // Somebody whom something waits for.
    let busy = hall.open(0, PATH, Transport::Polling);
    hall.poll(busy);
    hall.say(busy, "40/nowhere");
    hall.say(busy, "40/nowhere");
    let pace = DrainPace { conns_per_s: 1_000, over: Duration::ZERO, retry: Duration::ZERO };
    hall.step(0, Input::Drain(pace));
    hall.settle();
    assert_eq!(hall.guests[guest].closed, Some(1012));
    assert_eq!(hall.heard(guest), Vec::<String>::new(), "no DISCONNECT, which would keep it away");
    assert_eq!(hall.answer(waiting), Some("refused"), "a goodbye would keep some away");
    let error = r#"44/nowhere,{"message":"Invalid namespace"}"#;
    assert_eq!(hall.poll(busy), format!("{error}\x1e{error}"));
    assert_eq!(hall.poll(busy), "refused");
    hall.empty();
}

#[test]
fn a_client_that_does_not_read_is_closed_as_one() {
    let limits = Limits { outbox: ringroom::kernel::outbox::OutboxBounds::of(1 << 19), ..Limits::default() };
    let mut hall = Hall::with(1, &paths(), limits);
    let (ada, slow) = (enter(&mut hall, 0, "/", "ada"), hall.open(0, PATH, Transport::Polling));
    hall.poll(slow);
    hall.say(slow, format!("40{}", json!({ "token": hall.token("bob") })));
    for guest in [ada, slow] {
        hall.say(guest, r#"421["room:join",{"room":"chat:1"}]"#);
    }
    let data = "x".repeat(100_000);
    let publish = format!(r#"42["room:publish",{{"room":"chat:1","event":"said","data":"{data}"}}]"#);
    for _ in 0..10 {
        hall.say(ada, publish.clone());
        hall.heard(ada);
    }
    assert!(!hall.is_open(slow) && hall.is_open(ada));
    assert_eq!(hall.shards[0].snapshot().closes["slow_consumer"], 1);
    hall.empty();
}

#[test]
fn the_audit_log_is_told_of_each_who_came_in_once_as_it_ends() {
    let mut hall = hall(1);
    let guest = enter(&mut hall, 0, "/", "ada");
    connect(&mut hall, guest, "/realtime", "bob");
    hall.say(guest, "41");
    assert_eq!(hall.ends, ["ada 1000 disconnected"]);
    let conn = hall.guests[guest].conn;
    hall.step(0, Input::PeerClose { conn, code: Some(1001) });
    assert_eq!(hall.ends[1..], ["bob 1001 closed by the client"], "and nobody for the session itself");
    let other = enter(&mut hall, 0, "/", "cyd");
    let conn = hall.guests[other].conn;
    hall.step(0, Input::Gone { conn });
    assert_eq!(hall.ends[2..], ["cyd 1006 the socket ended"]);
    hall.empty();
    assert_eq!(hall.ends.len(), 3);
}

#[test]
fn a_session_whose_first_token_is_taken_back_keeps_its_other_namespaces() {
    let mut hall = hall(1);
    let token = hall.token("ada");
    let guest = hall.open_with(0, PATH, Transport::WebSocket, Some(&token));
    hall.say(guest, "40");
    connect_past(&mut hall, guest, "/realtime", "bob");
    let target = Target::User { tenant: "default".into(), user: "ada".into() };
    let now_s = hall.now.unix_ms / 1_000;
    let order = Revocation { target, issued_upto_unix_s: now_s, until_unix_s: now_s + 3_600 };
    hall.step(0, Input::Revoke { revocations: &[order] });
    hall.settle();
    assert_eq!(hall.heard(guest).last().map(String::as_str), Some("41"));
    assert!(hall.is_open(guest));
    hall.say(guest, "40");
    assert!(hall.heard(guest)[0].starts_with("44{"), "it does not open the door a second time");
    hall.say(guest, r#"42/realtime,1["ping"]"#);
    assert!(hall.heard(guest)[0].starts_with(r#"43/realtime,1[{"ok":true"#));
    hall.empty();
}

/// Enters one more namespace, whatever was heard before.
fn connect_past(hall: &mut Hall, guest: Name, namespace: &str, user: &str) {
    hall.heard(guest);
    connect(hall, guest, namespace, user);
}
