//! A house full of guests, for whom time and the network are what a test says.

use ringroom::admission::identity::Identity;
use ringroom::kernel::ids::ShardId;
use ringroom::kernel::placement::Placement;
use ringroom::shard::Snapshot;
use ringroom::sim::{FromClient, Link, Received, World, WorldShape, identity};
use serde_json::{Value, json};
use std::time::Duration;

/// A world with clients that read whenever they are asked to, unless they are told not to.
pub struct House {
    pub world: World,
    pub guests: Vec<Guest>,
}

pub struct Guest {
    pub link: Link,
    pub reads: bool,
    pub pongs: bool,
    /// What its own pings were answered with.
    pub ponged: Vec<Vec<u8>>,
    /// Texts that were read and not yet looked at.
    pub texts: Vec<Value>,
    pub pings: usize,
    pub closed: Option<(u16, String)>,
    next_id: u64,
}

pub type Name = usize;

impl House {
    pub fn of(shape: WorldShape) -> House {
        House { world: World::new(&shape), guests: Vec::new() }
    }

    pub fn new() -> House {
        House::of(WorldShape { shards: 2, lane_entries: 256, window: 1 << 20, ..WorldShape::default() })
    }

    /// Opens a connection, whatever it is told.
    pub fn knock(&mut self, shard: u8, identity: Identity) -> Name {
        let link = self.world.open(ShardId(shard), identity).expect("there is room");
        let (texts, closed) = (Vec::new(), None);
        self.guests.push(Guest { link, reads: true, pongs: true, texts, pings: 0, ponged: vec![], closed, next_id: 1 });
        self.settle();
        self.guests.len() - 1
    }

    pub fn enter_as(&mut self, shard: u8, identity: Identity) -> Name {
        let guest = self.knock(shard, identity);
        let connected = self.pushes(guest, "connected");
        assert_eq!(connected.len(), 1, "a client is told that it is connected");
        guest
    }

    pub fn enter(&mut self, shard: u8, user: &str) -> Name {
        self.enter_as(shard, identity("acme", user, ""))
    }

    /// Lets everything flow until nothing does, time standing still.
    pub fn settle(&mut self) {
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

    pub fn pass(&mut self, time: Duration) {
        self.world.pass(time);
        for shard in self.world.shards() {
            self.world.tick(shard);
        }
        self.settle();
    }

    /// Time goes by in steps in which peers can answer heartbeats.
    pub fn live(&mut self, time: Duration) {
        let step = Duration::from_secs(5);
        for _ in 0..time.as_secs().div_ceil(step.as_secs()) {
            self.pass(step);
        }
    }

    pub fn say(&mut self, guest: Name, text: impl Into<String>) {
        self.world.send(self.guests[guest].link, FromClient::Text(text.into()));
    }

    /// Sends a request without waiting for anything; gives its id.
    pub fn ask(&mut self, guest: Name, event: &str, data: Value) -> u64 {
        let id = self.guests[guest].next_id;
        self.guests[guest].next_id += 1;
        self.say(guest, json!({ "id": id, "event": event, "data": data }).to_string());
        id
    }

    pub fn reply_to(&mut self, guest: Name, id: u64) -> Value {
        let texts = &mut self.guests[guest].texts;
        let at =
            texts.iter().position(|text| text["id"] == id).unwrap_or_else(|| panic!("no reply to {id}: {texts:?}"));
        texts.remove(at)
    }

    /// Sends a request, lets everything flow and gives the reply.
    pub fn request(&mut self, guest: Name, event: &str, data: Value) -> Value {
        let id = self.ask(guest, event, data);
        self.settle();
        self.reply_to(guest, id)
    }

    pub fn ok(&mut self, guest: Name, event: &str, data: Value) -> Value {
        let mut reply = self.request(guest, event, data);
        assert_eq!(reply["ok"], true, "{event}: {reply}");
        reply["data"].take()
    }

    pub fn error(&mut self, guest: Name, event: &str, data: Value) -> String {
        let reply = self.request(guest, event, data);
        assert_eq!(reply["ok"], false, "{event}: {reply}");
        assert!(!reply["error"]["message"].as_str().unwrap_or_default().is_empty());
        reply["error"]["code"].as_str().unwrap_or_default().to_string()
    }

    pub fn join(&mut self, guest: Name, room: &str) -> Value {
        self.ok(guest, "room:join", json!({ "room": room }))
    }

    pub fn publish(&mut self, guest: Name, room: &str, data: Value) -> Value {
        self.ok(guest, "room:publish", json!({ "room": room, "event": "said", "data": data }))
    }

    /// Takes the pushes of this event that a guest has got.
    pub fn pushes(&mut self, guest: Name, event: &str) -> Vec<Value> {
        let (taken, rest) =
            self.guests[guest].texts.drain(..).partition(|text| text["event"] == event && text.get("id").is_none());
        self.guests[guest].texts = rest;
        taken
    }

    /// Takes the `data` of what was said to a guest.
    pub fn heard(&mut self, guest: Name) -> Vec<Value> {
        self.pushes(guest, "said").into_iter().map(|mut push| push["data"].take()).collect()
    }

    pub fn closed(&self, guest: Name) -> Option<u16> {
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

pub fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<Value> {
    range.map(Value::from).collect()
}

/// A room whose home is this shard, of two.
pub fn room_at(shard: u8) -> String {
    let placement = Placement::new(2);
    let is_there = |room: &String| placement.of_room("acme", room) == ShardId(shard);
    (0..).map(|nth| format!("room:{nth}")).find(is_there).expect("some name has its home there")
}

/// What shard 0 counts now.
pub fn snapshot(house: &House) -> Snapshot {
    house.world.shard(ShardId(0)).snapshot()
}

pub fn pad(bytes: usize) -> String {
    "x".repeat(bytes)
}
