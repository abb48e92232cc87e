//! An edge to test with: one shard without a thread, whose tests are its peers.

use super::{Edge, Parts};
use crate::admission::identity::Identity;
use crate::admission::token::{Claims, Verifier, sign_hs256};
use crate::features;
use crate::io::audit::Teller;
use crate::io::bell::Bell;
use crate::io::callers::Callers;
use crate::io::clock::{Clock, Origin};
use crate::io::control::{Held, Welcome, door};
use crate::io::counters::Counters;
use crate::io::crowd::Crowd;
use crate::io::entrance::Entrance;
use crate::io::lanes::weave;
use crate::io::process::Descriptors;
use crate::io::pulse::Pulses;
use crate::io::readiness::Readiness;
use crate::io::runtime::{self, Driver};
use crate::io::tuning::Tuning;
use crate::io::users::Users;
use crate::io::{flusher, reader};
use crate::kernel::Limits;
use crate::kernel::endpoint::{Client, Endpoint, Message};
use crate::kernel::ids::{ConnId, ShardId};
use crate::kernel::mounts::EngineSettings;
use crate::kernel::paths::Paths;
use crate::kernel::placement::Placement;
use crate::shard::{Input, Shard, ShardConfig};
use crate::wire::codes::CloseCode;
use crate::wire::dialect::NATIVE_JSON;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";

/// A pong that nobody asked for, masked with zeros: a frame that costs the core nothing.
pub const PONG: [u8; 6] = [0x8A, 0x80, 0, 0, 0, 0];
pub const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

/// Where [`Echo`] is served.
pub const ENGINE: &str = "/engine/";

/// Sends back what it is sent; a text that is a number, so many bytes; after `bye`, nothing.
struct Echo;

impl Endpoint for Echo {
    fn on_message(&mut self, client: &mut Client<'_>, message: Message<'_>) {
        match message {
            Message::Text("bye") => client.close(CloseCode::Normal, "as you wish"),
            Message::Text(text) => match text.parse() {
                Ok(bytes) => client.send(Message::Text(&"x".repeat(bytes))),
                Err(_) => client.send(message),
            },
            message => client.send(message),
        }
    }
}

fn paths() -> Paths {
    let mut paths = Paths::default();
    let cookie = Some("io".into());
    let settings = EngineSettings { rate: None, cookie, payload_bytes: 100_000, ..EngineSettings::default() };
    paths.mounts.engine(ENGINE, settings, Arc::new(|| Box::new(Echo)));
    paths
}

/// Another shard sends its connections back already; this one is still to be told.
pub fn begin_to_drain(edge: &Edge) {
    edge.draining.store(true, Ordering::Release);
}

/// A shard of its own, as the gateway makes it.
pub fn edge(driver: Driver) -> Rc<Edge> {
    edge_tuned(driver, Tuning::default())
}

pub fn edge_tuned(driver: Driver, tuning: Tuning) -> Rc<Edge> {
    let clock = Clock::new(Origin::now());
    let (door, controls) = door(Arc::new(Bell::new().unwrap()));
    let limits = Limits::default();
    let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits };
    Edge::new(Parts {
        id: ShardId(0),
        driver,
        shard: Shard::new(config, features::all(), clock.now()).with_paths(&paths()),
        clock,
        placement: Placement::new(1),
        doors: Arc::new([door]),
        draining: Arc::default(),
        crowd: Crowd::default(),
        callers: Arc::new(Callers::new([1, 2])),
        users: Arc::new(Users::new([1, 2])),
        entrance: Arc::new(Entrance::default()),
        tls: None,
        descriptors: Descriptors::of(u64::MAX, 1),
        verifier: Arc::new(Verifier::hs256(SECRET, 0).unwrap()),
        policy: Arc::default(),
        keys_wanted: Arc::new(|| {}),
        handshake_time: Duration::from_secs(1),
        controls,
        pulses: Arc::new(Pulses::new(Origin::now(), 1)),
        readiness: Readiness::new(tuning.reads_per_turn).unwrap(),
        tuning,
        sharers: 1,
        audit: Teller::default(),
        lanes: weave(1, 8).pop().expect("one shard"),
    })
}

/// Runs a test on every driver that this machine allows.
pub fn on_each_driver(test: impl AsyncFn(Driver)) {
    for driver in runtime::usable() {
        runtime::block_on(driver, test(driver)).unwrap();
    }
}

/// Has the edge turn, read and write by itself, as on a thread of its own.
pub fn turning(edge: Rc<Edge>) -> Rc<Edge> {
    let keeper = Rc::clone(&edge);
    monoio::spawn(async move { keeper.turn.keep(keeper.driver).await });
    monoio::spawn(reader::watch(Rc::clone(&edge)));
    monoio::spawn(reader::run(Rc::clone(&edge)));
    monoio::spawn(flusher::run(Rc::clone(&edge)));
    monoio::spawn(flusher::release(Rc::clone(&edge)));
    edge
}

pub fn open(edge: &Edge, user: &str) -> (ConnId, UnixStream) {
    let (mine, peer) = UnixStream::pair().unwrap();
    let claims = Claims { sub: user.into(), ..Claims::default() };
    let identity = edge.verify(&sign_hs256(SECRET, &claims)).unwrap();
    let opened = edge.open(mine.into(), false, welcome(identity, b""));
    (opened.unwrap_or_else(|_| panic!("an empty shard has room")), peer)
}

/// What a handshake leads to that brought `rest` along.
pub fn welcome(identity: Identity, rest: &[u8]) -> Welcome {
    Welcome {
        answer: Vec::new(),
        rest: rest.to_vec(),
        identity,
        dialect: NATIVE_JSON,
        client: Ipv4Addr::LOCALHOST.into(),
        counted: None,
        held: Held::default(),
        stream: None,
    }
}

pub fn counters(edge: &Edge) -> Counters {
    edge.counters.borrow().clone()
}

pub fn join(edge: &Edge, conn: ConnId, room: &str) {
    say(edge, conn, &format!(r#"{{"id":1,"event":"room:join","data":{{"room":"{room}"}}}}"#));
}

pub fn publish(edge: &Edge, conn: ConnId, room: &str) {
    say(
        edge,
        conn,
        &format!(r#"{{"id":1,"event":"room:publish","data":{{"room":"{room}","event":"chat","data":0}}}}"#),
    );
}

fn say(edge: &Edge, conn: ConnId, message: &str) {
    edge.step(Input::Text { conn, message: message.as_bytes() });
}
