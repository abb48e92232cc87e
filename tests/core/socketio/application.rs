//! An application's namespaces: who is admitted, events, acknowledgements both ways, rooms over all shards,
//! bytes, and who goes.

use super::hall::{Hall, Name};
use ringroom::kernel::carriers::Transport;
use ringroom::kernel::ids::ConnId;
use ringroom::kernel::mounts::{EngineSettings, Mounts, SocketIo};
use ringroom::kernel::namespace::{Ack, Arguments, ConnectRefused, Namespace, Socket};
use ringroom::kernel::paths::Paths;
use ringroom::shard::Input;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PATH: &str = "/app/";

type Log = Arc<Mutex<Vec<String>>>;

struct App(Log);

impl Namespace for App {
    fn admit(&mut self, auth: &str) -> Result<(), ConnectRefused> {
        match auth.contains("refuse") {
            true => Err(ConnectRefused { message: "no".into(), data: Some(serde_json::json!({ "why": 1 })) }),
            false => Ok(()),
        }
    }

    fn on_connect(&mut self, socket: &mut Socket<'_>, auth: &str) {
        self.0.lock().unwrap().push("connect".into());
        socket.emit("auth", &Arguments::one(auth));
    }

    fn on_event(&mut self, socket: &mut Socket<'_>, event: &str, arguments: &Arguments<'_>, ack: Option<Ack>) {
        let room = arguments.after_string();
        let room = || room.as_ref().expect("a room").0.as_str();
        match event {
            "echo" => socket.emit("back", arguments),
            "volatile" => socket.emit_volatile("back", arguments),
            "ack" => socket.acknowledge(ack.expect("an ack"), arguments),
            "ask" => socket.ask("question", arguments, Duration::from_secs(1), 5),
            "join" => socket.join(room(), ack).expect("a name"),
            "leave" => socket.leave(room(), ack).expect("a name"),
            "to" => {
                let (room, rest) = arguments.after_string().expect("a room");
                socket.to_room(&room, "message", &rest).expect("a name");
            }
            "all" => socket.broadcast("all", arguments),
            "out" => socket.disconnect(),
            "close" => socket.close(),
            "wrong" => {
                let is_refused = socket.join("no room!", None).is_err();
                socket.emit("wrong", &Arguments::of(&(is_refused,)));
            }
            other => self.0.lock().unwrap().push(other.into()),
        }
    }

    fn on_answer(&mut self, _: &mut Socket<'_>, question: u64, answer: Option<&Arguments<'_>>) {
        let answer = answer.map(Arguments::items);
        self.0.lock().unwrap().push(format!("{question}: {answer:?}"));
    }

    fn on_disconnect(&mut self, _: ConnId) {
        self.0.lock().unwrap().push("gone".into());
    }
}

fn hall(shards: u8) -> (Hall, Log) {
    let log = Log::default();
    let (first, second) = (Arc::clone(&log), Arc::clone(&log));
    let namespaces = SocketIo::new()
        .namespace("/", move || App(Arc::clone(&first)))
        .namespace("/custom", move || App(Arc::clone(&second)));
    let mut mounts = Mounts::default();
    mounts.socket_io(PATH, EngineSettings { rate: None, ..EngineSettings::default() }, namespaces);
    (Hall::new(shards, &Paths { mounts, ..Paths::default() }), log)
}

fn enter(hall: &mut Hall, shard: usize) -> Name {
    let guest = hall.open(shard, PATH, Transport::WebSocket);
    hall.say(guest, "40");
    assert_eq!(hall.heard(guest).len(), 3);
    guest
}

#[test]
fn an_application_admits_and_greets() {
    let (mut hall, log) = hall(1);
    let guest = hall.open(0, PATH, Transport::WebSocket);
    hall.heard(guest);
    hall.say(guest, r#"40{"refuse":true}"#);
    assert_eq!(hall.heard(guest), [r#"44{"message":"no","data":{"why":1}}"#]);
    hall.say(guest, r#"40/custom,{"a":"b"}"#);
    let heard = hall.heard(guest);
    assert!(heard[0].starts_with(r#"40/custom,{"sid":""#) && !heard[0].contains("pid"), "{heard:?}");
    assert_eq!(heard[1..], [r#"42/custom,["auth",{"a":"b"}]"#]);
    hall.say(guest, "40");
    assert_eq!(hall.heard(guest)[1], r#"42["auth",{}]"#);
    hall.say(guest, "40/other");
    assert_eq!(hall.heard(guest), [r#"44/other,{"message":"Invalid namespace"}"#]);
    assert_eq!(*log.lock().unwrap(), ["connect", "connect"]);
    hall.empty();
    assert_eq!(*log.lock().unwrap(), ["connect", "connect", "gone", "gone"]);
}

#[test]
fn events_come_back_as_they_were_bytes_included() {
    let (mut hall, _) = hall(1);
    let guest = enter(&mut hall, 0);
    hall.say(guest, r#"42["echo",1,"2",{"a":[3]}]"#);
    hall.say(guest, r#"42["volatile"]"#);
    hall.say(guest, r#"452-["echo",{"_placeholder":true,"num":0},"x",{"a":{"_placeholder":true,"num":1}}]"#);
    hall.bytes(guest, b"one");
    hall.bytes(guest, b"two");
    hall.say(guest, r#"42456["ack",1,"2"]"#);
    hall.say(guest, r#"451-7["ack",{"_placeholder":true,"num":0}]"#);
    hall.bytes(guest, b"three");
    assert_eq!(
        hall.heard(guest),
        [
            r#"42["back",1,"2",{"a":[3]}]"#,
            r#"42["back"]"#,
            r#"452-["back",{"_placeholder":true,"num":0},"x",{"a":{"_placeholder":true,"num":1}}]"#,
            "<one>",
            "<two>",
            r#"43456[1,"2"]"#,
            r#"461-7[{"_placeholder":true,"num":0}]"#,
            "<three>",
        ]
    );
    hall.empty();
}

#[test]
fn an_application_hears_answers_and_their_absence_each_once() {
    let (mut hall, log) = hall(1);
    let guest = enter(&mut hall, 0);
    (0..3).for_each(|nth| hall.say(guest, format!(r#"42["ask",{nth}]"#)));
    assert_eq!(hall.heard(guest), [r#"420["question",0]"#, r#"421["question",1]"#, r#"422["question",2]"#]);
    hall.say(guest, r#"431["yes",1]"#);
    hall.say(guest, r#"431["again"]"#);
    hall.say(guest, r#"439["never asked"]"#);
    assert_eq!(*log.lock().unwrap(), ["connect", r#"5: Some(["\"yes\"", "1"])"#]);
    hall.pass(Duration::from_millis(999));
    hall.say(guest, "432[]");
    hall.pass(Duration::from_millis(10));
    assert_eq!(log.lock().unwrap()[2..], ["5: Some([])", "5: None"]);
    hall.empty();
}

#[test]
fn rooms_are_one_over_all_shards_and_leave_their_sender_out() {
    let (mut hall, _) = hall(3);
    let guests: Vec<Name> = (0..6).map(|nth| enter(&mut hall, nth % 3)).collect();
    for guest in &guests[..4] {
        hall.say(*guest, r#"421["join","chat"]"#);
        assert_eq!(hall.heard(*guest), ["431[]"]);
    }
    hall.say(guests[0], r#"42["to","chat",1,"a"]"#);
    hall.say(guests[5], r#"451-["to","chat",{"_placeholder":true,"num":0}]"#);
    hall.bytes(guests[5], b"raw");
    let bytes = [r#"451-["message",{"_placeholder":true,"num":0}]"#, "<raw>"].map(str::to_owned);
    for (nth, guest) in guests.iter().enumerate() {
        let mut expected = Vec::new();
        expected.extend((1..4).contains(&nth).then(|| r#"42["message",1,"a"]"#.to_owned()));
        expected.extend((0..4).contains(&nth).then(|| bytes.to_vec()).into_iter().flatten());
        assert_eq!(hall.heard(*guest), expected, "{nth}");
    }
    hall.say(guests[1], r#"429["leave","chat"]"#);
    assert_eq!(hall.heard(guests[1]), ["439[]"]);
    hall.say(guests[0], r#"42["to","chat"]"#);
    assert_eq!((hall.heard(guests[1]).len(), hall.heard(guests[2]).len()), (0, 1));
    hall.say(guests[4], r#"42["all",{"x":1}]"#);
    for guest in &guests {
        assert_eq!(hall.heard_of(*guest, r#"42["all","#), [r#"42["all",{"x":1}]"#], "each once, the sender included");
    }
    hall.say(guests[0], r#"42["wrong"]"#);
    assert_eq!(hall.heard_of(guests[0], r#"42["wrong""#), [r#"42["wrong",true]"#]);
    hall.empty();
}

#[test]
fn rooms_of_one_namespace_are_not_those_of_another() {
    let (mut hall, _) = hall(1);
    let (main, custom) = (enter(&mut hall, 0), hall.open(0, PATH, Transport::WebSocket));
    hall.say(custom, "40/custom");
    hall.say(main, r#"42["join","chat"]"#);
    hall.say(custom, r#"42/custom,["join","chat"]"#);
    hall.heard(custom);
    hall.say(main, r#"42["to","chat"]"#);
    hall.say(main, r#"42["all"]"#);
    assert_eq!(hall.heard(custom), Vec::<String>::new());
    hall.empty();
}

#[test]
fn an_application_puts_out_or_closes() {
    let (mut hall, log) = hall(1);
    let guest = enter(&mut hall, 0);
    hall.say(guest, "40/custom");
    hall.heard(guest);
    hall.say(guest, r#"42["out"]"#);
    assert_eq!(hall.heard(guest), ["41"]);
    assert!(hall.is_open(guest));
    hall.say(guest, r#"42/custom,["echo"]"#);
    assert_eq!(hall.heard(guest), [r#"42/custom,["back"]"#]);
    hall.say(guest, "40");
    assert_eq!(hall.heard(guest).len(), 2);
    hall.say(guest, r#"42/custom,["close"]"#);
    let mut heard = hall.heard(guest);
    heard.sort();
    assert_eq!(heard, ["41", "41/custom,"]);
    assert_eq!(hall.guests[guest].closed, Some(1000));
    assert_eq!(log.lock().unwrap().iter().filter(|line| *line == "gone").count(), 3);
    let conn = hall.guests[guest].conn;
    hall.step(0, Input::Gone { conn });
    assert_eq!(log.lock().unwrap().iter().filter(|line| *line == "gone").count(), 3, "each once");
    hall.empty();
}

#[test]
fn the_first_words_of_an_application_come_apart_from_the_answer_and_before_all_events() {
    let (mut hall, log) = hall(1);
    let guest = hall.open(0, PATH, Transport::WebSocket);
    let conn = hall.guests[guest].conn;
    hall.heard(guest);
    hall.step(0, Input::Text { conn, message: b"40" });
    assert_eq!(hall.heard_of(guest, "40").len(), 1);
    assert!(log.lock().unwrap().is_empty());
    hall.settle();
    assert_eq!(hall.heard(guest), [r#"42["auth",{}]"#]);
    // Who goes on does not wait for them.
    let hurried = hall.open(0, PATH, Transport::WebSocket);
    let conn = hall.guests[hurried].conn;
    hall.heard(hurried);
    let before = hall.now.at;
    for message in ["40", r#"42["echo",1]"#, "41", "40", "41", "40/custom,", r#"42/custom,["echo",2]"#] {
        hall.step(0, Input::Text { conn, message: message.as_bytes() });
    }
    let heard: Vec<String> = hall.heard(hurried).into_iter().filter(|packet| !packet.starts_with("40")).collect();
    let greeted = [r#"42["auth",{}]"#, r#"42["back",1]"#, r#"42["auth",{}]"#];
    let greeted_there = [r#"42/custom,["auth",{}]"#, r#"42/custom,["back",2]"#];
    assert_eq!(heard, [&greeted[..], &greeted_there].concat());
    assert_eq!(hall.now.at, before);
    // Somebody who goes before that is nobody.
    let hasty = hall.open(0, PATH, Transport::WebSocket);
    let conn = hall.guests[hasty].conn;
    hall.step(0, Input::Text { conn, message: b"40" });
    hall.step(0, Input::Gone { conn });
    hall.settle();
    let heard = ["connect", "connect", "gone", "connect", "gone", "connect"];
    assert_eq!(*log.lock().unwrap(), heard);
    hall.empty();
}
