//! Streams of server-sent events through the core: what their clients are told, where they come back to, and
//! what they ask.

use ringroom::admission::identity::Identity;
use ringroom::admission::revocations::{Revocation, Target};
use ringroom::base::limits::EMITS_HELD_BYTES_MAX;
use ringroom::base::time::{Instant, Now};
use ringroom::features;
use ringroom::kernel::Limits;
use ringroom::kernel::carriers::{PollAnswer, PollId};
use ringroom::kernel::effects::Effects;
use ringroom::kernel::ids::{ConnId, ShardId};
use ringroom::kernel::mail::Mail;
use ringroom::kernel::outbox::OutboxBounds;
use ringroom::shard::{DrainPace, Input, Opening, Shard, ShardConfig, StreamOpening};
use ringroom::wire::codes::ErrorCode;
use ringroom::wire::dialect::NATIVE_JSON;
use ringroom::wire::engine::Sid;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Shards whose lanes hold little, so that requests have to wait.
struct Street {
    shards: Vec<Shard>,
    now: Now,
    /// By their shards: what came of each connection.
    bytes: BTreeMap<(usize, ConnId), Vec<u8>>,
    /// Those whose sockets take nothing.
    blocked: BTreeSet<(usize, ConnId)>,
    gone: BTreeSet<(usize, ConnId)>,
    answers: BTreeMap<PollId, PollAnswer>,
    mail: VecDeque<(ShardId, ShardId, Mail)>,
    lane_entries: u32,
    polls: u64,
}

/// One event as a browser has it: its id is that of the last that had one.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

/// What a browser makes of a stream that was cut somewhere.
fn read(bytes: &[u8], last: &str) -> Vec<Event> {
    let text = String::from_utf8_lossy(bytes);
    let (mut events, mut id, mut name, mut data) = (Vec::new(), last.to_owned(), String::new(), Vec::new());
    for line in text.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else { break };
        if let Some(value) = line.strip_prefix("id: ") {
            id = value.into();
        } else if let Some(value) = line.strip_prefix("event: ") {
            name = value.into();
        } else if let Some(value) = line.strip_prefix("data: ") {
            data.push(value.to_owned());
        } else if line.is_empty() {
            if !data.is_empty() {
                let data = serde_json::from_str(&data.join("\n")).expect("JSON");
                events.push(Event { id: id.clone(), name: name.clone(), data });
            }
            (name, data) = (String::new(), Vec::new());
        } else {
            assert!(line.starts_with(':') || line.starts_with("retry: "), "{line:?}");
        }
    }
    events
}

impl Street {
    fn new(shards: u8, lane_entries: u32, limits: Limits) -> Street {
        let now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };
        let shard = |id| {
            let limits = Limits { lane_entries, ..limits.clone() };
            let config =
                ShardConfig { id: ShardId(id), shards, origin: 1, seed: 7 + u64::from(id), map_key: [1, 2], limits };
            Shard::new(config, features::all(), now)
        };
        Street {
            shards: (0..shards).map(shard).collect(),
            now,
            bytes: BTreeMap::new(),
            blocked: BTreeSet::new(),
            gone: BTreeSet::new(),
            answers: BTreeMap::new(),
            mail: VecDeque::new(),
            lane_entries,
            polls: 0,
        }
    }

    fn step(&mut self, shard: usize, input: Input<'_>) {
        let mut effects = Effects::default();
        self.shards[shard].step(self.now, input, &mut effects);
        let me = ShardId(shard as u8);
        self.mail.extend(effects.mail.drain(..).map(|(to, mail)| (me, to, mail)));
        for (poll, answer) in effects.polls.drain(..) {
            assert!(self.answers.insert(poll, answer).is_none(), "answered once");
        }
        let dirty: Vec<ConnId> = effects.dirty.drain(..).chain(effects.dirty_by_crowd.drain(..)).collect();
        for conn in dirty {
            self.flush(shard, conn);
        }
        for conn in effects.reset.drain(..) {
            self.cut(shard, conn);
        }
    }

    fn flush(&mut self, shard: usize, conn: ConnId) {
        if self.blocked.contains(&(shard, conn)) {
            return self.step(shard, Input::Blocked { conn });
        }
        let mut pieces = Vec::new();
        let bytes = self.shards[shard].gather(conn, &mut pieces, 1 << 16);
        let taken = pieces.concat();
        if bytes > 0 {
            self.bytes.entry((shard, conn)).or_default().extend_from_slice(&taken);
            self.step(shard, Input::Wrote { conn, bytes });
            self.flush(shard, conn);
        }
    }

    fn cut(&mut self, shard: usize, conn: ConnId) {
        if self.gone.insert((shard, conn)) {
            self.step(shard, Input::Gone { conn });
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, mail)) = self.mail.pop_front() {
            self.step(to.index(), Input::Mail { from, mail });
            let under_way = self.mail.iter().filter(|(sender, receiver, _)| (*sender, *receiver) == (from, to)).count();
            let free = self.lane_entries - under_way as u32;
            self.step(from.index(), Input::Credit { peer: to, free });
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now.at = self.now.at.after(time);
        self.now.unix_ms += time.as_millis() as u64;
        for shard in 0..self.shards.len() {
            self.step(shard, Input::Tick);
        }
        self.settle();
    }

    fn open(&mut self, shard: usize, user: &str, rooms: &[&str], last_event: &str) -> ConnId {
        let conn = self.shards[shard].reserve().expect("room");
        let opening = StreamOpening {
            conn,
            identity: Identity::of("default", user),
            is_anonymous: false,
            secret: [9; 12],
            rooms: rooms.iter().map(|room| Box::from(*room)).collect(),
            last_event: Some(last_event).filter(|last| !last.is_empty()).map(Box::from),
            greeting: Box::default(),
        };
        self.step(shard, Input::OpenStream(Box::new(opening)));
        conn
    }

    fn native(&mut self, shard: usize, user: &str) -> ConnId {
        let conn = self.shards[shard].reserve().expect("room");
        let identity = Identity::of("default", user);
        let opening = Opening { conn, identity, dialect: NATIVE_JSON, greeting: Box::default() };
        self.step(shard, Input::Open(Box::new(opening)));
        self.settle();
        conn
    }

    fn emit(&mut self, shard: usize, conn: ConnId, message: &str) -> PollId {
        self.polls += 1;
        let poll = PollId(self.polls);
        self.step(shard, Input::Emit { conn, poll, message: message.as_bytes() });
        poll
    }

    fn events(&self, shard: usize, conn: ConnId) -> Vec<Event> {
        read(self.bytes.get(&(shard, conn)).map_or(&[][..], Vec::as_slice), "")
    }

    fn say(&mut self, shard: usize, conn: ConnId, room: &str, number: usize) {
        let message = format!(
            r#"{{"event":"room:publish","data":{{"room":"{room}","event":"n","data":{{
"n":{number}}}}}}}"#
        );
        self.step(shard, Input::Text { conn, message: message.as_bytes() });
    }
}

fn body(answer: &PollAnswer) -> (Option<ErrorCode>, Value) {
    let PollAnswer::Reply { refused, body } = answer else { panic!("{answer:?}") };
    (refused.map(|(code, _)| code), serde_json::from_slice(body).expect("JSON"))
}

#[test]
fn a_stream_is_told_that_it_is_connected_then_of_its_rooms_and_then_what_is_said_there() {
    let mut street = Street::new(2, 256, Limits::default());
    let conn = street.open(0, "alice", &["chat:1", "chat 2", "user:bob", "chat:3"], "");
    street.settle();
    let speaker = street.native(1, "bob");
    street.say(1, speaker, "chat:1", 1);
    street.say(1, speaker, "chat:3", 2);
    street.settle();
    let events = street.events(0, conn);
    let names: Vec<&str> = events.iter().map(|event| &*event.name).collect();
    assert_eq!(names, ["connected", "room:join", "room:join", "room:join", "room:join", "n", "n"]);
    let replies: BTreeMap<&str, &Value> =
        events[1..5].iter().map(|event| (event.data["id"].as_str().unwrap(), &event.data)).collect();
    assert_eq!(replies["chat:1"]["ok"], true);
    assert_eq!(replies["chat:3"]["data"]["room"], "chat:3");
    assert_eq!(replies["chat 2"]["error"]["code"], "bad_request");
    assert_eq!(replies["user:bob"]["error"]["code"], "forbidden");
    assert_eq!(events[5].data["data"]["n"], 1);
    assert!(events[0].id.is_empty() && !events[5].id.is_empty());
    let sid = events[0].data["data"]["conn"].as_str().and_then(Sid::parse).expect("a name");
    assert_eq!(street.shards[0].stream(&sid), Some(conn));
    assert_eq!(street.shards[1].stream(&sid), None);
    assert_eq!(street.shards[0].stream(&Sid { secret: [8; 12], ..sid }), None);
    street.cut(0, conn);
    assert_eq!(street.shards[0].stream(&sid), None);
    assert_eq!((street.shards[0].snapshot().streams, street.shards[0].snapshot().streams_opened), (0, 1));
}

#[test]
fn whoever_was_cut_anywhere_comes_back_and_has_everything_once() {
    for seed in 0..200u64 {
        let mut random = fastrand(seed);
        let mut below = move |most: usize| (random() % most as u64) as usize;
        let mut street = Street::new(2, 4 + below(30) as u32, Limits::default());
        let rooms = ["chat:1", "chat:2", "user:alice", "chat:3"];
        let speakers = [street.native(0, "bob"), street.native(1, "carol")];
        // Into alice's own room as well, which is her own to publish into.
        let herself = street.native(1, "alice");
        let mut last = String::new();
        let mut had: Vec<Event> = Vec::new();
        let mut said: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        let mut number = 0;
        for life in 0..6 {
            let shard = below(2);
            let conn = street.open(shard, "alice", &["chat:1", "chat:2", "chat:3"], &last);
            if life == 0 || below(2) == 0 {
                street.settle();
            }
            let some = below(12);
            for _ in 0..some {
                number += 1;
                let room = rooms[below(rooms.len())];
                let speaker = below(2);
                // Who has not joined yet is told from then on.
                said.entry(room).or_default().push(number);
                match room {
                    "user:alice" => street.say(1, herself, room, number as usize),
                    _ => street.say(speaker, speakers[speaker], room, number as usize),
                }
                if below(3) == 0 {
                    street.settle();
                }
            }
            if below(2) == 0 {
                street.settle();
            }
            // What came is cut somewhere, and so is what is under way.
            let bytes = street.bytes.remove(&(shard, conn)).unwrap_or_default();
            let at = if life == 0 { bytes.len() } else { below(bytes.len() + 1) };
            street.cut(shard, conn);
            let events = read(&bytes[..at], &last);
            last = events.last().map_or(last, |event| event.id.clone());
            had.extend(events);
            let while_away = below(5);
            for _ in 0..while_away {
                number += 1;
                said.entry("chat:1").or_default().push(number);
                street.say(0, speakers[0], "chat:1", number as usize);
            }
            street.settle();
        }
        let conn = street.open(0, "alice", &["chat:1", "chat:2", "chat:3"], &last);
        street.settle();
        had.extend(read(&street.bytes[&(0, conn)], &last));
        assert!(had.iter().all(|event| event.data["data"]["resumed"]["gap"] != true), "seed {seed}: {had:?}");
        for (room, said) in said {
            let is_of = |event: &&Event| event.name == "n" && event.data["room"] == room;
            let got: Vec<u64> =
                had.iter().filter(is_of).map(|event| event.data["data"]["n"].as_u64().unwrap()).collect();
            assert_eq!(got.len(), got.iter().collect::<BTreeSet<_>>().len(), "seed {seed}: {room} doubled: {got:?}");
            let got: BTreeSet<u64> = got.into_iter().collect();
            assert_eq!(got, said.into_iter().collect(), "seed {seed}: {room} lost");
            let seqs: Vec<u64> = had.iter().filter(is_of).map(|event| event.data["seq"].as_u64().unwrap()).collect();
            assert!(seqs.is_sorted(), "seed {seed}: {room} out of order");
        }
    }
}

/// Numbers of a seed (SplitMix64).
fn fastrand(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[test]
fn a_place_that_is_not_there_any_more_is_said_to_be_missing() {
    let mut street = Street::new(1, 256, Limits::default());
    for last in ["nonsense", "0000000.1-1.2-2", &"x".repeat(5_000)] {
        let conn = street.open(0, "alice", &["chat:1"], last);
        street.settle();
        let events = street.events(0, conn);
        let names: Vec<&str> = events.iter().map(|event| &*event.name).collect();
        assert_eq!(names, ["connected", "error", "room:join"]);
        assert_eq!(events[1].data["data"]["code"], "gap");
        assert_eq!(events[2].data["data"]["resumed"]["gap"], true);
        street.cut(0, conn);
    }
}

#[test]
fn what_a_client_asks_is_answered_once_and_apart() {
    let mut street = Street::new(2, 256, Limits::default());
    let conn = street.open(1, "alice", &["chat:1"], "");
    street.settle();
    let before = street.bytes[&(1, conn)].len();
    let asked = [
        street.emit(1, conn, r#"{"id":7,"event":"room:list"}"#),
        street.emit(1, conn, r#"{"event":"room:join","data":{"room":"chat:2"}}"#),
        street.emit(1, conn, r#"{"id":"x","event":"dance"}"#),
        street.emit(1, conn, "{"),
        street.emit(1, conn, r#"{"id":1,"event":"room:join","data":{}}"#),
    ];
    street.settle();
    let answers: Vec<_> = asked.iter().map(|poll| body(&street.answers[poll])).collect();
    assert_eq!((answers[0].0, &answers[0].1["id"]), (None, &7.into()));
    assert_eq!((&answers[1].1["id"], &answers[1].1["ok"]), (&Value::Null, &true.into()));
    assert_eq!((answers[2].0, &answers[2].1["id"]), (Some(ErrorCode::UnknownEvent), &"x".into()));
    assert_eq!(answers[3].0, Some(ErrorCode::BadRequest));
    assert_eq!((answers[4].0, &answers[4].1["ok"]), (Some(ErrorCode::BadRequest), &false.into()));
    assert_eq!(street.bytes[&(1, conn)].len(), before, "nothing of it comes by the stream");
    let speaker = street.native(0, "bob");
    street.say(0, speaker, "chat:2", 1);
    street.settle();
    let told = street.events(1, conn).pop().unwrap();
    assert_eq!((&told.data["room"], &*told.name), (&"chat:2".into(), "n"));
}

#[test]
fn requests_wait_their_turn_where_lanes_are_full_and_none_is_left_without_an_answer() {
    // A lane holds two mails: requests to the other shard wait.
    let mut street = Street::new(2, 2, Limits::default());
    let conn = street.open(0, "alice", &[], "");
    street.settle();
    let rooms: Vec<String> = (0..20).map(|n| format!("chat:{n}")).collect();
    let asked: Vec<PollId> = rooms
        .iter()
        .map(|room| street.emit(0, conn, &format!(r#"{{"event":"room:join","data":{{"room":"{room}"}}}}"#)))
        .collect();
    assert!(street.answers.len() < asked.len(), "some of them wait");
    street.settle();
    assert!(asked.iter().all(|poll| body(&street.answers[poll]).0.is_none()));
    // Who leaves is answered too.
    let asked: Vec<PollId> = rooms
        .iter()
        .map(|room| street.emit(0, conn, &format!(r#"{{"event":"room:leave","data":{{"room":"{room}"}}}}"#)))
        .collect();
    street.cut(0, conn);
    street.settle();
    let codes: BTreeSet<_> = asked.iter().map(|poll| body(&street.answers[poll]).0.map(ErrorCode::as_str)).collect();
    assert!(codes.contains(&Some("not_found")), "{codes:?}");
    let late = street.emit(0, conn, r#"{"event":"room:list"}"#);
    assert_eq!(body(&street.answers[&late]).0, Some(ErrorCode::NotFound));
}

#[test]
fn one_client_has_only_so_many_requests_waiting() {
    let mut street = Street::new(2, 2, Limits::default());
    let conn = street.open(0, "alice", &[], "");
    street.settle();
    let ask = |street: &mut Street, n: usize| {
        street.emit(0, conn, &format!(r#"{{"event":"room:join","data":{{"room":"chat:{n}"}}}}"#))
    };
    let asked: Vec<PollId> = (0..200).map(|n| ask(&mut street, n)).collect();
    let refused = asked.iter().filter_map(|poll| street.answers.get(poll)).filter_map(|answer| body(answer).0);
    assert!(refused.clone().count() >= 100);
    assert!(refused.clone().all(|code| code == ErrorCode::RateLimited));
    // Nobody waits any longer for some that were held.
    let held = asked.iter().rfind(|poll| !street.answers.contains_key(poll)).copied().expect("one waits");
    street.step(0, Input::EmitGone { conn, poll: held });
    street.settle();
    assert!(asked.iter().all(|poll| *poll == held || street.answers.contains_key(poll)));
    assert!(!street.answers.contains_key(&held));
}

#[test]
fn a_stream_that_says_nothing_is_kept_and_shown_to_be_alive() {
    let limits = Limits { idle_time_max: Duration::from_secs(60), ..Limits::default() };
    let mut street = Street::new(1, 256, limits);
    let conn = street.open(0, "alice", &[], "");
    street.settle();
    for _ in 0..100 {
        street.pass(Duration::from_secs(25));
    }
    let text = String::from_utf8(street.bytes[&(0, conn)].clone()).unwrap();
    assert!(text.matches(":\n\n").count() >= 100, "{text}");
    assert!(!text.contains("heartbeat\n") && !text.contains("event: connection:closed"));
    assert_eq!(street.shards[0].snapshot().streams, 1);
}

#[test]
fn a_reader_that_is_too_slow_loses_nothing_that_it_was_not_told() {
    let limits = Limits { outbox: OutboxBounds::of(0), ..Limits::default() };
    let mut street = Street::new(1, 256, limits);
    let conn = street.open(0, "alice", &["chat:1"], "");
    street.settle();
    let speaker = street.native(0, "bob");
    street.say(0, speaker, "chat:1", 0);
    street.settle();
    let before = street.events(0, conn).len();
    street.blocked.insert((0, conn));
    let large = "x".repeat(100_000);
    for n in 1..40 {
        let message = format!(
            r#"{{"event":"room:publish","data":{{"room":"chat:1","event":"n","data":{{"n":{n},"x":"{large}"}}}}}}"#
        );
        street.step(0, Input::Text { conn: speaker, message: message.as_bytes() });
        street.settle();
    }
    street.blocked.clear();
    street.step(0, Input::Writable { conn });
    street.settle();
    let events = street.events(0, conn);
    assert_eq!(events.len(), before, "what was queued is cut, without an event that has its id: {events:?}");
    let last = events.last().unwrap().id.clone();
    street.cut(0, conn);
    let again = street.open(0, "alice", &["chat:1"], &last);
    street.settle();
    let events = read(&street.bytes[&(0, again)], &last);
    let numbers: Vec<u64> = events.iter().filter_map(|event| event.data["data"]["n"].as_u64()).collect();
    assert_eq!(numbers, (1..40).collect::<Vec<_>>());
}

#[test]
fn whoever_is_sent_back_is_told_when_to_come() {
    let mut street = Street::new(1, 256, Limits::default());
    let conn = street.open(0, "alice", &["chat:1"], "");
    street.settle();
    let pace = DrainPace { conns_per_s: 1_000, over: Duration::from_secs(10), retry: Duration::from_secs(1) };
    street.step(0, Input::Drain(pace));
    street.pass(Duration::from_secs(1));
    let text = String::from_utf8(street.bytes[&(0, conn)].clone()).unwrap();
    let (before, close) = text.rsplit_once("event: connection:closed\ndata: ").expect("it is told why");
    assert!(close.contains(r#""code":1012"#) && close.ends_with("\n\n"));
    assert!(
        before.rsplit_once("retry: ").is_some_and(|(_, wait)| wait.trim().parse::<u64>().is_ok_and(|ms| ms >= 1_000))
    );
}

#[test]
fn whoever_has_no_right_any_more_is_told_so_and_gone() {
    let mut street = Street::new(1, 256, Limits::default());
    let [alice, bob] = ["alice", "bob"].map(|user| street.open(0, user, &["chat:1"], ""));
    street.settle();
    let target = Target::User { tenant: "default".into(), user: "alice".into() };
    let unix_s = street.now.unix_ms / 1_000;
    let order = Revocation { target, issued_upto_unix_s: unix_s, until_unix_s: unix_s + 60 };
    street.step(0, Input::Revoke { revocations: &[order] });
    street.settle();
    let told = street.events(0, alice).pop().unwrap();
    assert_eq!((&*told.name, &told.data["code"]), ("connection:closed", &4409.into()));
    street.pass(Duration::from_secs(10));
    assert!(street.gone.contains(&(0, alice)) && !street.gone.contains(&(0, bob)));
    let late = street.emit(0, alice, r#"{"event":"room:list"}"#);
    assert_eq!(body(&street.answers[&late]).0, Some(ErrorCode::NotFound));
}

#[test]
fn what_waits_is_bounded_for_all_streams_of_a_shard_together() {
    let mut street = Street::new(2, 2, Limits::default());
    let mut streams: Vec<ConnId> = ["alice", "bob", "carol"].map(|user| street.open(0, user, &[], "")).into();
    street.settle();
    let large = format!(r#"{{"event":"dance","data":"{}"}}"#, "x".repeat(1_000_000));
    for round in 0..3 {
        // The lanes are full with the rooms of the first: all of them wait.
        for conn in &streams {
            for n in 0..8 {
                street.emit(0, *conn, &format!(r#"{{"event":"room:join","data":{{"room":"chat:{round}-{n}"}}}}"#));
            }
        }
        let asked: Vec<PollId> =
            (0..10).flat_map(|_| streams.clone()).map(|conn| street.emit(0, conn, &large)).collect();
        let (refused, held): (Vec<&PollId>, Vec<&PollId>) =
            asked.iter().partition(|poll| street.answers.contains_key(poll));
        // Each has one share, and one is left for whoever comes next.
        let share = EMITS_HELD_BYTES_MAX / (streams.len() + 1) / large.len();
        assert_eq!(held, asked[..share * streams.len()].iter().collect::<Vec<_>>(), "round {round}");
        assert!(refused.iter().all(|poll| body(&street.answers[poll]).0 == Some(ErrorCode::RateLimited)));
        // What is let go of is counted no longer: answered, not waited for, or of a stream that has ended.
        street.step(0, Input::EmitGone { conn: streams[0], poll: asked[0] });
        if round == 1 {
            street.cut(0, streams.pop().expect("one of three"));
        }
        street.pass(Duration::from_secs(60));
        assert!(asked[1..].iter().all(|poll| street.answers.contains_key(poll)));
    }
}

#[test]
fn a_stream_that_sends_without_end_leaves_room_for_others() {
    let mut street = Street::new(2, 2, Limits::default());
    let [greedy, next, last] = ["greedy", "next", "last"].map(|user| street.open(0, user, &[], ""));
    street.settle();
    let large = format!(r#"{{"event":"dance","data":"{}"}}"#, "x".repeat(1_000_000));
    let mut held = Vec::new();
    for conn in [greedy, next, last] {
        for n in 0..8 {
            street.emit(0, conn, &format!(r#"{{"event":"room:join","data":{{"room":"chat:{n}"}}}}"#));
        }
        let asked: Vec<PollId> = (0..30).map(|_| street.emit(0, conn, &large)).collect();
        held.push(asked.iter().filter(|poll| !street.answers.contains_key(poll)).count());
    }
    // Half of what there is, then half of what that leaves.
    assert_eq!(held, [8, 4, 2]);
    let small = street.emit(0, last, r#"{"event":"room:list"}"#);
    assert!(!street.answers.contains_key(&small), "there is no room for a small one");
}
