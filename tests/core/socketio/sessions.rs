//! Engine.IO: packets over polling and WebSockets, heartbeats, the upgrade, the end.

use super::hall::{Hall, Name};
use ringroom::kernel::carriers::Transport;
use ringroom::kernel::endpoint::{Client, Endpoint, Message};
use ringroom::kernel::ids::ConnId;
use ringroom::kernel::mounts::{EngineSettings, Mounts};
use ringroom::kernel::paths::Paths;
use ringroom::shard::{DrainPace, Input, Spoken};
use ringroom::wire::engine::Sid;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(300);
const TIMEOUT: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(4);
const PATH: &str = "/engine/";

type Log = Arc<Mutex<Vec<&'static str>>>;

/// Sends back what it is sent, `many 40` as so many.
struct Echo(Log);

impl Endpoint for Echo {
    fn on_open(&mut self, _: &mut Client<'_>) {
        self.0.lock().unwrap().push("open");
    }

    fn on_message(&mut self, client: &mut Client<'_>, message: Message<'_>) {
        match message {
            Message::Text(text) if text.starts_with("many ") => {
                (0..text[5..].parse().unwrap()).for_each(|nth: u32| client.send(Message::Text(&nth.to_string())));
            }
            message => client.send(message),
        }
    }

    fn on_close(&mut self, _: ConnId) {
        self.0.lock().unwrap().push("close");
    }
}

fn hall() -> (Hall, Log) {
    let log = Log::default();
    let mut mounts = Mounts::default();
    let settings = EngineSettings {
        ping_interval: INTERVAL,
        ping_timeout: TIMEOUT,
        payload_bytes: 100_000,
        rate: None,
        ..EngineSettings::default()
    };
    let to = Arc::clone(&log);
    mounts.engine("/other/", settings.clone(), Arc::new(|| Box::new(Echo(Log::default()))));
    mounts.engine(PATH, settings, Arc::new(move || Box::new(Echo(Arc::clone(&to)))));
    (Hall::new(1, &Paths { mounts, ..Paths::default() }), log)
}

/// A session by polling that has had its open packet.
fn polling(hall: &mut Hall) -> Name {
    let guest = hall.open(0, PATH, Transport::Polling);
    assert!(hall.poll(guest).starts_with("0{"));
    guest
}

fn websocket(hall: &mut Hall) -> Name {
    let guest = hall.open(0, PATH, Transport::WebSocket);
    assert!(hall.heard(guest)[0].starts_with("0{"));
    guest
}

/// Where the session of that name is, and how it may be spoken to.
fn session(hall: &Hall, sid: &Sid) -> Option<(ConnId, Spoken)> {
    let shard = &hall.shards[0];
    shard.session(shard.mount_at(PATH)?, sid)
}

fn probe(hall: &mut Hall, of: Name) -> Name {
    let of = hall.guests[of].conn;
    hall.open(0, PATH, Transport::Probe { of })
}

#[test]
fn a_session_is_opened_with_what_its_client_must_know() {
    for (transport, upgrades) in [(Transport::Polling, r#"["websocket"]"#), (Transport::WebSocket, "[]")] {
        let (mut hall, log) = hall();
        let guest = hall.open(0, PATH, transport);
        let packet = match transport {
            Transport::Polling => hall.poll(guest),
            _ => hall.heard(guest).remove(0),
        };
        let said: Value = serde_json::from_str(&packet[1..]).unwrap();
        let sid = hall.shards[0].sid(hall.guests[guest].conn).expect("it is open");
        assert_eq!(packet.as_bytes()[0], b'0');
        assert_eq!(said.as_object().unwrap().len(), 5);
        assert_eq!((said["sid"].as_str(), said["upgrades"].to_string().as_str()), (Some(&*sid.text()), upgrades));
        assert_eq!(
            (&said["pingInterval"], &said["pingTimeout"], &said["maxPayload"]),
            (&300.into(), &200.into(), &100_000.into())
        );
        assert_eq!(*log.lock().unwrap(), ["open"]);
        let spoken = if transport == Transport::Polling { Spoken::Polling } else { Spoken::WebSocket };
        assert_eq!(session(&hall, &sid), Some((hall.guests[guest].conn, spoken)));
        let mut wrong = sid;
        wrong.secret[3] ^= 1;
        assert_eq!(session(&hall, &wrong), None);
        let elsewhere = hall.shards[0].mount_at("/other/").expect("it is served");
        assert_eq!(hall.shards[0].session(elsewhere, &sid), None, "a session is of its path");
        hall.empty();
        assert_eq!(session(&hall, &sid), None);
        assert_eq!(*log.lock().unwrap(), ["open", "close"]);
    }
}

#[test]
fn a_path_is_found_with_its_last_slash_and_without() {
    let (hall, _) = hall();
    let at = |path| hall.shards[0].mount_at(path);
    assert!(at("/engine/").is_some() && at("/engine/") == at("/engine"));
    assert!(at("/engine/x").is_none() && at("/engin").is_none() && at("/").is_none());
}

#[test]
fn messages_come_and_go_by_polling() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    let waiting = hall.get(guest);
    assert_eq!(hall.answer(waiting), None, "there is nothing to say");
    hall.say(guest, "4hello");
    assert_eq!(hall.answer(waiting), Some("4hello"));
    hall.say(guest, "4one");
    hall.bytes(guest, &[1, 2, 3, 4]);
    hall.say(guest, "4two");
    assert_eq!(hall.poll(guest), "4one\x1ebAQIDBA==\x1e4two");
    hall.empty();
}

#[test]
fn a_payload_has_sixteen_packets_at_most_and_the_rest_comes_next() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    hall.say(guest, "4many 40");
    let payloads: Vec<String> = (0..3).map(|_| hall.poll(guest)).collect();
    let sizes: Vec<usize> = payloads.iter().map(|payload| payload.split('\x1e').count()).collect();
    assert_eq!(sizes, [16, 16, 8]);
    let all: Vec<String> = payloads.iter().flat_map(|payload| payload.split('\x1e')).map(str::to_owned).collect();
    assert_eq!(all, (0..40).map(|nth| format!("4{nth}")).collect::<Vec<_>>());
    hall.empty();
}

#[test]
fn a_payload_is_not_larger_than_was_agreed_unless_one_packet_is() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    let large = format!("4{}", "x".repeat(60_000));
    hall.say(guest, large.clone());
    hall.say(guest, large.clone());
    assert_eq!(hall.poll(guest), large);
    assert_eq!(hall.poll(guest), large);
    hall.empty();
}

#[test]
fn messages_come_and_go_by_websocket() {
    let (mut hall, _) = hall();
    let guest = websocket(&mut hall);
    hall.say(guest, "4hello");
    hall.bytes(guest, b"raw");
    assert_eq!(hall.heard(guest), ["4hello", "<raw>"]);
    hall.empty();
}

#[test]
fn heartbeats_go_on_for_as_long_as_they_are_answered_and_are_never_late() {
    for is_websocket in [false, true] {
        let (mut hall, log) = hall();
        let guest = if is_websocket { websocket(&mut hall) } else { polling(&mut hall) };
        let mut since = Duration::ZERO;
        for _ in 0..5 {
            let waiting = (!is_websocket).then(|| hall.get(guest));
            loop {
                hall.pass(TICK);
                since += TICK;
                let heard = match waiting {
                    Some(poll) => hall.answer(poll).map(str::to_owned),
                    None => hall.heard(guest).pop(),
                };
                if let Some(heard) = heard {
                    assert_eq!(heard, "2");
                    break;
                }
                assert!(since <= INTERVAL, "a ping is late");
            }
            assert!(since >= INTERVAL * 3 / 4, "a ping after {since:?}");
            since = Duration::ZERO;
            // Some answer slowly.
            hall.pass(TICK * 10);
            since += TICK * 10;
            hall.say(guest, "3");
        }
        // And now not any more.
        let mut since = Duration::ZERO;
        while hall.is_open(guest) {
            hall.pass(TICK);
            since += TICK;
            assert!(since <= INTERVAL + TIMEOUT, "it is open after {since:?}");
        }
        assert!(since > TIMEOUT);
        hall.empty();
        assert_eq!(*log.lock().unwrap(), ["open", "close"]);
    }
}

#[test]
fn a_get_after_the_time_out_is_refused_even_where_no_timer_has_fired() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    hall.pass(INTERVAL);
    assert_eq!(hall.poll(guest), "2");
    // Time goes by, and nothing else.
    hall.now.at = hall.now.at.after(TIMEOUT);
    assert_eq!(hall.poll(guest), "refused");
    assert!(!hall.is_open(guest));
}

#[test]
fn a_client_that_says_goodbye_is_gone_at_once() {
    let (mut hall, log) = hall();
    let guest = polling(&mut hall);
    let waiting = hall.get(guest);
    hall.say(guest, "1");
    assert_eq!(hall.answer(waiting), Some("6"));
    assert_eq!(hall.poll(guest), "refused");
    assert_eq!(*log.lock().unwrap(), ["open", "close"]);
    let other = websocket(&mut hall);
    hall.say(other, "1");
    assert_eq!(hall.guests[other].closed, Some(1000));
    hall.empty();
}

#[test]
fn a_get_that_left_together_with_the_goodbye_is_answered_behind_it() {
    let (mut hall, log) = hall();
    let (one, other) = (polling(&mut hall), polling(&mut hall));
    for guest in [one, other] {
        let (conn, message) = (hall.guests[guest].conn, b"1");
        hall.step(0, Input::Text { conn, message });
        assert!(hall.shards[0].is_leaving(conn), "the POST waits with its answer");
        hall.step(0, Input::Text { conn, message: b"4too late" });
        hall.step(0, Input::Binary { conn, message: b"too late" });
    }
    assert_eq!(hall.poll(one), "6");
    assert_eq!(hall.poll(one), "refused");
    // Nobody asks: it is over in no time all the same.
    hall.pass(TICK * 4);
    assert!(!hall.is_open(other));
    assert_eq!(hall.poll(other), "refused");
    hall.empty();
    assert_eq!(log.lock().unwrap().len(), 4);
}

#[test]
fn two_gets_at_a_time_end_the_session() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    let first = hall.get(guest);
    let second = hall.get(guest);
    assert_eq!((hall.answer(first), hall.answer(second)), (Some("1"), Some("refused")));
    assert_eq!(hall.poll(guest), "refused");
    hall.empty();
}

#[test]
fn a_get_that_is_given_up_ends_the_session() {
    let (mut hall, log) = hall();
    let guest = polling(&mut hall);
    let poll = hall.get(guest);
    let conn = hall.guests[guest].conn;
    hall.step(0, Input::PollGone { conn, poll });
    assert_eq!(hall.poll(guest), "refused");
    assert_eq!(*log.lock().unwrap(), ["open", "close"]);
    hall.empty();
}

#[test]
fn what_is_no_packet_ends_the_session() {
    for packet in ["", "abc", "7", "0{}", "2", "2probe", "5", "x4"] {
        let (mut hall, _) = hall();
        let guest = websocket(&mut hall);
        hall.say(guest, packet);
        assert_eq!(hall.guests[guest].closed, Some(4400), "{packet:?}");
        let polled = polling(&mut hall);
        hall.say(polled, packet);
        assert!(!hall.is_open(polled), "{packet:?}");
        hall.empty();
    }
}

#[test]
fn a_websocket_takes_over_and_nothing_is_lost_or_doubled() {
    let (mut hall, log) = hall();
    let guest = polling(&mut hall);
    let waiting = hall.get(guest);
    let socket = probe(&mut hall, guest);
    assert_eq!(hall.answer(waiting), None, "nobody has asked yet");
    hall.say(socket, "2probe");
    assert_eq!(hall.heard(socket), ["3probe"]);
    assert_eq!(hall.answer(waiting), Some("6"));
    // What is said meanwhile waits for the WebSocket.
    hall.say(guest, "4posted");
    assert_eq!(hall.poll(guest), "6");
    // Behind the upgrade, in the same segment.
    hall.send(socket, super::hall::Sent::Text("5".into()));
    hall.say(socket, "4behind");
    assert_eq!(hall.heard(guest), ["4posted", "4behind"]);
    assert_eq!(hall.poll(guest), "refused");
    let sid = hall.shards[0].sid(hall.guests[guest].conn).expect("it is open");
    assert_eq!(session(&hall, &sid).map(|(_, spoken)| spoken), Some(Spoken::WebSocket));
    let second = probe(&mut hall, guest);
    assert_eq!(hall.guests[second].closed, Some(4400));
    hall.say(guest, "4still here");
    assert_eq!(hall.heard(guest), ["4still here"]);
    assert_eq!(hall.shards[0].snapshot().upgrades, 1);
    let conn = hall.guests[second].conn;
    hall.step(0, Input::Gone { conn });
    hall.empty();
    assert_eq!(*log.lock().unwrap(), ["open", "close"]);
}

#[test]
fn a_probe_that_fails_leaves_the_session_as_it_was() {
    for (says, closed) in [
        (&["4hello"][..], Some(4400)),
        (&["5"], Some(4400)),
        (&["2"], Some(4400)),
        (&["2probe", "4hello"], Some(4400)),
        (&["2probe", "2probe", "x"], Some(4400)),
        (&["2probe"], None),
        (&[], None),
    ] {
        let (mut hall, _) = hall();
        let guest = polling(&mut hall);
        let socket = probe(&mut hall, guest);
        says.iter().for_each(|says| hall.say(socket, *says));
        assert_eq!(hall.guests[socket].closed, closed, "{says:?}");
        let conn = hall.guests[socket].conn;
        if closed.is_none() {
            let busy = probe(&mut hall, guest);
            assert_eq!(hall.guests[busy].closed, Some(4400), "one is under way");
            let conn = hall.guests[busy].conn;
            hall.step(0, Input::Gone { conn });
        }
        hall.step(0, Input::Gone { conn });
        hall.say(guest, "4hello");
        assert_eq!(hall.poll(guest), "4hello", "{says:?}");
        hall.empty();
    }
}

#[test]
fn a_probe_that_takes_too_long_is_closed_and_polling_goes_on() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    let socket = probe(&mut hall, guest);
    hall.say(socket, "2probe");
    let over = hall.settings(PATH).upgrade_timeout;
    let mut passed = Duration::ZERO;
    while hall.is_open(socket) {
        // Heartbeats go on, though they can be heard by nobody yet.
        hall.pass(TICK);
        passed += TICK;
        hall.say(guest, "3");
        assert!(passed <= over + 2 * TICK);
    }
    // Though the peer of the probe has not answered its close.
    hall.say(guest, "4hello");
    assert!(hall.poll(guest).ends_with("4hello"));
    let another = probe(&mut hall, guest);
    hall.say(another, "2probe");
    let conn = hall.guests[socket].conn;
    hall.step(0, Input::Gone { conn });
    hall.say(another, "5");
    hall.say(guest, "4upgraded");
    assert_eq!(hall.heard_of(guest, "4"), ["4upgraded"]);
    hall.empty();
}

#[test]
fn a_session_that_ends_takes_its_probe_along() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    let socket = probe(&mut hall, guest);
    hall.say(socket, "2probe");
    hall.say(guest, "1");
    hall.pass(TICK * 4);
    assert_eq!(hall.guests[socket].closed, Some(4400));
    hall.empty();
}

#[test]
fn a_client_that_does_not_poll_is_not_read_on_and_loses_nothing() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    let message = format!("4{}", "x".repeat(50_000));
    let (shard, conn) = (0, hall.guests[guest].conn);
    let mut sent = 0;
    while hall.shards[shard].is_reading(conn) {
        hall.say(guest, message.clone());
        sent += 1;
        assert!(sent < 1_000);
    }
    let mut heard = 0;
    while hall.shards[shard].queued(conn) > 0 {
        let payload = hall.poll(guest);
        assert!(payload.split('\x1e').all(|packet| packet == message));
        heard += payload.split('\x1e').count();
    }
    assert_eq!(heard, sent);
    assert!(hall.shards[shard].is_reading(conn));
    hall.empty();
}

#[test]
fn a_client_that_waits_for_its_post_before_it_upgrades_is_read_to_its_end() {
    let (mut hall, _) = hall();
    let guest = polling(&mut hall);
    let message = format!("4{}", "x".repeat(50_000));
    let conn = hall.guests[guest].conn;
    // A payload that is read to its middle.
    (0..8).for_each(|_| hall.send(guest, super::hall::Sent::Text(message.clone())));
    hall.settle();
    assert!(!hall.shards[0].is_reading(conn));
    let socket = probe(&mut hall, guest);
    assert!(!hall.shards[0].is_reading(conn), "a GET may come yet");
    hall.say(socket, "2probe");
    assert!(hall.shards[0].is_reading(conn));
    hall.say(socket, "5");
    assert_eq!(hall.heard(guest).into_iter().filter(|heard| *heard == message).count(), 8);
    hall.empty();
}

#[test]
fn who_is_sent_away_at_once_is_nobody_that_the_application_hears_of() {
    let (mut hall, log) = hall();
    let pace = DrainPace { conns_per_s: 1_000, over: Duration::ZERO, retry: Duration::ZERO };
    hall.step(0, Input::Drain(pace));
    for transport in [Transport::WebSocket, Transport::Polling] {
        let late = hall.open(0, PATH, transport);
        assert!(!hall.is_open(late));
    }
    hall.empty();
    assert!(log.lock().unwrap().is_empty(), "{:?}", log.lock().unwrap());
}
