//! Tenants never meet: what one tenant's clients get is, byte for byte, the same whatever another
//! tenant's do under the same names of users and rooms, and holds nothing that the other wrote.
//!
//! A run is drawn from a seed and happens three times: with both tenants, and with each alone, time
//! passing in the same way. What a tenant's clients got is then compared. Three kinds of values count
//! for the whole process and are named by the order in which they first appear instead: message ids
//! (they hold a count of the shard), epochs (random, from one stream of the shard) and ids of
//! connections (slots of the shard). Heartbeats are left out: their moments are drawn from that stream.
//! `TENANT_SEEDS` and `TENANT_FIRST` ask for more seeds, or others.

use ringroom::admission::pattern::RulePattern;
use ringroom::admission::policies::{RIGHTS, Rule, Rules, Who};
use ringroom::admission::policy::{Policy, Roles};
use ringroom::admission::rights::Right;
use ringroom::admission::token::{Claims, Verifier, sign_hs256};
use ringroom::base::random::Random;
use ringroom::kernel::ids::ShardId;
use ringroom::sim::{FromClient, Link, Received, World, WorldShape, identity};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

const SEEDS: u64 = 40;
const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";
const TENANTS: [&str; 2] = ["north", "south"];
/// What everything that a tenant's clients write holds, and nothing else that there is.
const MARKERS: [&str; 2] = ["NORTHERN", "SOUTHERN"];
const USERS: u64 = 3;
/// The same names for both, those that speak of a tenant included.
const ROOMS: [&str; 13] = [
    "chat:1",
    "chat:2",
    "chat.1",
    "global.general",
    "user:u0",
    "user:u1",
    "user.u0.notes",
    "tenant.north.news",
    "tenant.south.news",
    "desk:north:1",
    "desk:south:1",
    "platform.x",
    "nobody.comes.here",
];

/// Where a request starts reading.
#[derive(Clone, Copy, Debug)]
enum Cursor {
    None,
    /// One of what the client's own tenant has seen.
    Own(u64),
    /// One of what the other tenant has seen.
    Foreign(u64),
}

#[derive(Clone, Debug)]
enum What {
    Connect {
        shard: u64,
    },
    Leave,
    Say {
        event: &'static str,
        data: Value,
        cursor: (&'static str, Cursor),
    },
    /// A new token, of this tenant.
    Refresh {
        tenant: usize,
    },
}

/// Something that a client does, or time that passes.
#[derive(Clone, Debug)]
struct Step {
    tenant: usize,
    client: usize,
    what: What,
    wait: Duration,
}

fn some_step(random: &mut Random, shards: u64, clients: usize) -> Step {
    let tenant = random.below(2) as usize;
    let client = random.below(clients as u64) as usize;
    let marker = MARKERS[tenant];
    let room = |random: &mut Random| ROOMS[random.below(ROOMS.len() as u64) as usize];
    let rooms = |random: &mut Random| -> Vec<&str> { (0..1 + random.below(5)).map(|_| room(random)).collect() };
    let cursor = |random: &mut Random| match random.below(3) {
        0 => Cursor::None,
        1 => Cursor::Own(random.next()),
        _ => Cursor::Foreign(random.next()),
    };
    let say = |event, data| What::Say { event, data, cursor: ("since", Cursor::None) };
    let what = match random.below(100) {
        0..6 => What::Connect { shard: random.below(shards) },
        6..8 => What::Leave,
        8..22 => {
            let cursor = ("since", cursor(random));
            What::Say { event: "room:join", data: json!({ "room": room(random) }), cursor }
        }
        22..26 => say("room:join-many", json!({ "rooms": rooms(random) })),
        26..30 => say("room:leave", json!({ "room": room(random) })),
        30..32 => say("room:leave-many", json!({ "rooms": rooms(random) })),
        32..62 => {
            let mut data = json!({
                "event": format!("{marker}.said"),
                "data": { "text": marker, "number": random.below(1_000) },
                "exclude_self": random.one_in(5),
            });
            if random.one_in(2) {
                // The same for both: whoever used it first must not answer for the other.
                data["cid"] = json!(format!("cid-{}", random.below(8)));
            }
            match random.below(4) {
                0 => data["rooms"] = json!(rooms(random)),
                1 => data["user"] = json!(format!("u{}", random.below(USERS + 1))),
                _ => data["room"] = json!(room(random)),
            }
            say("room:publish", data)
        }
        62..68 => say("room:info", json!({ "room": room(random) })),
        68..73 => say("room:online", json!({ "room": room(random), "limit": 1 + random.below(3) })),
        73..83 => {
            let cursor = (if random.one_in(2) { "since" } else { "before" }, cursor(random));
            let data = json!({ "room": room(random), "limit": 1 + random.below(20) });
            What::Say { event: "room:history", data, cursor }
        }
        83..86 => say("room:list", json!({})),
        86..89 => say("room:subscription-status", json!({ "rooms": rooms(random) })),
        89..92 => say("room:subscription-details", json!({})),
        92..97 => say("room:update", json!({ "room": room(random), "data": { "title": marker } })),
        _ => What::Refresh { tenant: if random.one_in(3) { 1 - tenant } else { tenant } },
    };
    // Now and then so long that rooms are forgotten.
    let wait = if random.one_in(60) { Duration::from_secs(700) } else { Duration::from_millis(1 + random.below(40)) };
    Step { tenant, client, what, wait }
}

/// `desk:{tenant}` is for that tenant; guests may not write to others by name.
fn policy() -> Policy {
    let rule = |rooms: &str, rights: &[(Right, &str)]| {
        let of = |right| rights.iter().find(|(own, _)| *own == right).map(|(_, who)| Who::parse(who).expect("words"));
        let rooms = RulePattern::parse(rooms).expect("a pattern");
        Rule { name: rooms.as_str().into(), rooms, who: RIGHTS.map(of) }
    };
    let rules = vec![
        rule("desk:{tenant}:*", &[(Right::Join, "anybody"), (Right::Publish, "anybody")]),
        rule("desk:**", &[(Right::Join, "nobody"), (Right::Publish, "nobody")]),
        rule("user:*", &[(Right::Direct, "role:moderator")]),
    ];
    Policy::new(Roles::default(), Rules::new(rules).expect("few rules"))
}

/// What happened in one run, as one tenant's clients saw it: a line for each frame.
#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    /// Message ids and positions that were told.
    cursors: Vec<String>,
    /// Names for what counts for the whole process.
    names: BTreeMap<String, String>,
}

impl Heard {
    fn note(&mut self, client: usize, text: &str) {
        let value: Value = serde_json::from_str(text).expect("the server writes JSON");
        let mut found = Vec::new();
        collect(&value, &mut found);
        let mut line = text.to_string();
        for (kind, told) in found {
            let number = self.names.len();
            let name = self.names.entry(told.clone()).or_insert_with(|| {
                if kind != "conn" && kind != "epoch" {
                    self.cursors.push(told.clone());
                }
                format!("<{kind} {number}>")
            });
            // Told values are long and random, and ids of connections stand in quotes.
            line = line.replace(&format!("\"{told}"), &format!("\"{name}"));
        }
        self.lines.push(format!("{client}: {line}"));
    }
}

/// What in a frame counts for the whole process: longer values, that others begin with, first.
fn collect(value: &Value, into: &mut Vec<(&'static str, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
        Value::Object(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value.as_str()) {
                    ("mid", Some(told)) => into.push(("mid", told.into())),
                    ("pos", Some(told)) => {
                        let epoch = told.split('-').next().unwrap_or_default();
                        into.push(("pos", told.into()));
                        into.push(("epoch", epoch.into()));
                    }
                    ("epoch", Some(told)) => into.push(("epoch", told.into())),
                    ("conn", Some(told)) => into.push(("conn", told.into())),
                    _ => collect(value, into),
                }
            }
        }
        _ => {}
    }
}

/// The world with the clients of some tenants.
struct Run<'s> {
    world: World,
    steps: &'s [Step],
    /// By tenant and client.
    links: BTreeMap<(usize, usize), Link>,
    heard: [Heard; 2],
    /// Cursors of the other tenant that steps used, by step: drawn in the run with both tenants.
    foreign: BTreeMap<usize, String>,
}

impl<'s> Run<'s> {
    fn new(seed: u64, shards: u64, steps: &'s [Step], foreign: BTreeMap<usize, String>) -> Run<'s> {
        let shape = WorldShape { shards: shards as u8, lane_entries: 256, seed, ..WorldShape::default() };
        let mut world = World::new(&shape);
        world.set_verifier(Verifier::hs256(SECRET, 0).expect("a long secret"));
        world.set_policy(policy());
        Run { world, steps, links: BTreeMap::new(), heard: Default::default(), foreign }
    }

    /// Lets the clients of `tenants` do their steps, and time pass for all.
    fn act(mut self, tenants: &[usize]) -> (Self, u64) {
        let mut did = 0;
        for (nth, step) in self.steps.iter().enumerate() {
            let until = self.world.now.at.after(step.wait);
            while self.world.now.at < until {
                let left = until.since(self.world.now.at);
                self.world.pass(left.min(Duration::from_secs(5)));
                self.world.shards().for_each(|shard| self.world.tick(shard));
                // Nobody is closed for being idle: the moment of that is a heartbeat's.
                for link in self.links.values() {
                    self.world.send(*link, FromClient::Text(r#"{"event":"ping"}"#.into()));
                }
                self.flow();
            }
            if tenants.contains(&step.tenant) {
                did += u64::from(self.take(nth, step));
                self.flow();
            }
        }
        (self, did)
    }

    fn take(&mut self, nth: usize, step: &Step) -> bool {
        let who = (step.tenant, step.client);
        let user = format!("u{}", step.client as u64 % USERS);
        match &step.what {
            What::Connect { shard } => {
                let role = if step.client == 0 { "moderator" } else { "" };
                let identity = identity(TENANTS[step.tenant], &user, role);
                let link = self.world.open(ShardId(*shard as u8), identity).expect("there is room");
                if let Some(old) = self.links.insert(who, link) {
                    self.world.end(old);
                }
                true
            }
            What::Leave => self.links.remove(&who).is_some_and(|link| self.world.end(link)),
            What::Say { event, data, cursor: (key, cursor) } => {
                let mut data = data.clone();
                if let Some(cursor) = self.cursor(nth, step.tenant, *cursor) {
                    data[key] = json!(cursor);
                }
                self.say(who, nth, event, &data)
            }
            What::Refresh { tenant } => {
                let exp = Some(self.world.now.unix_ms / 1_000 + 100_000);
                let tenant = Some(TENANTS[*tenant].into());
                let token = sign_hs256(SECRET, &Claims { sub: user, tenant, exp, ..Claims::default() });
                self.say(who, nth, "auth:refresh", &json!({ "token": token }))
            }
        }
    }

    fn cursor(&mut self, nth: usize, tenant: usize, cursor: Cursor) -> Option<String> {
        let pick = |heard: &Heard, random: u64| {
            let cursors = &heard.cursors;
            (!cursors.is_empty()).then(|| cursors[random as usize % cursors.len()].clone())
        };
        match cursor {
            Cursor::None => None,
            Cursor::Own(random) => pick(&self.heard[tenant], random),
            Cursor::Foreign(random) => {
                if let Some(found) = pick(&self.heard[1 - tenant], random) {
                    self.foreign.insert(nth, found);
                }
                self.foreign.get(&nth).cloned()
            }
        }
    }

    fn say(&mut self, who: (usize, usize), nth: usize, event: &str, data: &Value) -> bool {
        let Some(link) = self.links.get(&who) else { return false };
        self.world.send(*link, FromClient::Text(json!({ "id": nth, "event": event, "data": data }).to_string()));
        true
    }

    fn flow(&mut self) {
        loop {
            let mut did = self.world.settle();
            for ((tenant, client), link) in &self.links {
                let mut received = Vec::new();
                did |= self.world.read(*link, usize::MAX, &mut received);
                for frame in received {
                    match frame {
                        Received::Text(text) if text.starts_with("{\"event\":\"heartbeat\"") => {}
                        Received::Text(text) => self.heard[*tenant].note(*client, &text),
                        Received::Ping(_) => self.world.send(*link, FromClient::Pong),
                        Received::Pong(_) => {}
                        Received::Close { code, reason } => {
                            self.heard[*tenant].lines.push(format!("{client}: closed with {code} {reason}"));
                        }
                    }
                }
            }
            if let Some(failure) = self.world.failure() {
                panic!("{failure:?}");
            }
            if !did {
                return;
            }
        }
    }
}

/// Where two accounts of the same differ first.
fn difference(with: &[String], alone: &[String]) -> Option<String> {
    let at = (0..with.len().max(alone.len())).find(|at| with.get(*at) != alone.get(*at))?;
    let mut said = format!("line {at} of {} and {}:", with.len(), alone.len());
    let _ = write!(said, "\n  with the other: {:?}\n  alone:          {:?}", with.get(at), alone.get(at));
    Some(said)
}

#[derive(Default)]
struct Total {
    steps: u64,
    lines: usize,
    foreign: usize,
}

fn check(seed: u64, total: &mut Total) -> Result<(), String> {
    let mut random = Random::new(seed);
    let (shards, clients) = (1 + random.below(3), 2 + random.below(4) as usize);
    // All come first, so that most steps find their client.
    let arrivals = (0..2).flat_map(|tenant| (0..clients).map(move |client| (tenant, client)));
    let mut steps: Vec<Step> = arrivals
        .map(|(tenant, client)| Step {
            tenant,
            client,
            what: What::Connect { shard: random.below(shards) },
            wait: Duration::from_millis(1),
        })
        .collect();
    steps.extend((0..200 + random.below(200)).map(|_| some_step(&mut random, shards, clients)));
    let (both, did) = Run::new(seed, shards, &steps, BTreeMap::new()).act(&[0, 1]);
    total.steps += did;
    total.foreign += both.foreign.len();
    for tenant in [0, 1] {
        let (name, heard) = (TENANTS[tenant], &both.heard[tenant]);
        if let Some(line) = heard.lines.iter().find(|line| line.contains(MARKERS[1 - tenant])) {
            return Err(format!("{name} got what the other wrote: {line}"));
        }
        total.lines += heard.lines.len();
        // From another stream: an epoch that was the other's is not drawn again for a room of this one.
        let (alone, _) = Run::new(!seed, shards, &steps, both.foreign.clone()).act(&[tenant]);
        if let Some(difference) = difference(&heard.lines, &alone.heard[tenant].lines) {
            return Err(format!("{name} sees what the other does, {difference}"));
        }
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")))
}

#[test]
fn what_a_tenant_sees_does_not_depend_on_what_another_does() {
    let first = number("TENANT_FIRST").unwrap_or(0);
    let mut total = Total::default();
    for seed in first..first + number("TENANT_SEEDS").unwrap_or(SEEDS) {
        if let Err(saw) = check(seed, &mut total) {
            panic!("seed {seed} (TENANT_FIRST={seed} TENANT_SEEDS=1): {saw}");
        }
    }
    // Runs in which nothing happens would prove nothing.
    println!("{} steps, {} frames, {} foreign cursors", total.steps, total.lines, total.foreign);
    assert!(total.steps > 0 && total.lines > total.steps as usize && total.foreign > 0);
}
