//! What the core costs, without sockets: placing a name, a look at a sender's rates, a publish into the outboxes of a room's
//! members, a lane, and a whole turn from the sender's bytes to what each member's socket is given.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringroom::admission::identity::Identity;
use ringroom::admission::names::RoomName;
use ringroom::admission::pattern::RulePattern;
use ringroom::admission::policies::{RIGHTS, Rule, Rules, Who};
use ringroom::admission::policy::{Policy, Roles};
use ringroom::admission::rates::{Allowance, EventRate, Rates};
use ringroom::admission::rights::{Rate, Right};
use ringroom::base::limits::LANE_ENTRIES_MAX;
use ringroom::base::table::Key;
use ringroom::base::time::{Instant, Now};
use ringroom::features;
use ringroom::io::clock::Origin;
use ringroom::io::lanes::weave;
use ringroom::io::timing::Timing;
use ringroom::kernel::effects::Effects;
use ringroom::kernel::ids::{ConnId, RoomId, ShardId};
use ringroom::kernel::mail::Mail;
use ringroom::kernel::placement::Placement;
use ringroom::kernel::rates::Price;
use ringroom::kernel::{Kernel, Limits};
use ringroom::shard::{Input, Opening, Shard, ShardConfig};
use ringroom::wire::dialect::NATIVE_JSON;
use std::hint::black_box;
use std::mem::take;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };

/// One shard with one room, everybody in it and every outbox empty.
struct Room {
    shard: Shard,
    effects: Effects,
    members: Vec<ConnId>,
    publish: Vec<u8>,
}

impl Room {
    fn of(members: usize) -> Room {
        let config =
            ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits: Limits::default() };
        let mut room = Room {
            shard: Shard::new(config, features::all(), NOW),
            effects: Effects::default(),
            members: Vec::new(),
            publish: publish(256),
        };
        for user in 0..members {
            let conn = room.shard.reserve().expect("room for all");
            let identity = Identity::of("default", &format!("user{user}"));
            room.step(Input::Open(Box::new(Opening {
                conn,
                identity,
                dialect: NATIVE_JSON,
                greeting: Box::default(),
            })));
            room.step(Input::Text { conn, message: br#"{"id":1,"event":"room:join","data":{"room":"r0"}}"# });
            room.members.push(conn);
            room.flush();
        }
        room
    }

    fn step(&mut self, input: Input<'_>) {
        self.shard.step(NOW, input, &mut self.effects);
    }

    fn publish(&mut self) {
        let input = Input::Text { conn: self.members[0], message: &self.publish };
        self.shard.step(NOW, input, &mut self.effects);
    }

    /// Takes what every dirty connection has, as sockets that never block would.
    fn flush(&mut self) {
        let (mut dirty, mut crowd) = (take(&mut self.effects.dirty), take(&mut self.effects.dirty_by_crowd));
        for conn in dirty.drain(..).chain(crowd.drain(..)) {
            let mut pieces = Vec::with_capacity(8);
            let bytes = self.shard.gather(conn, &mut pieces, 64 * 1024);
            black_box(&pieces);
            self.step(Input::Wrote { conn, bytes });
        }
        (self.effects.dirty, self.effects.dirty_by_crowd) = (dirty, crowd);
    }
}

fn publish(size: usize) -> Vec<u8> {
    let payload = format!(r#"{{"@":"{}"}}"#, "x".repeat(size - 8));
    format!(r#"{{"event":"room:publish","data":{{"room":"r0","event":"m","data":{payload}}}}}"#).into_bytes()
}

fn placement(criterion: &mut Criterion) {
    let placement = Placement::new(16);
    criterion.bench_function("placement of a room", |bencher| {
        bencher.iter(|| placement.of_room(black_box("default"), black_box("chat:12345")));
    });
}

/// `rules`: that many, each for another kind of rooms, the last for that of `room`.
fn policy_of(rules: usize, who: &str) -> Policy {
    let rule = |nth: usize| {
        let kind = if nth + 1 == rules { "chat".into() } else { format!("kind{nth}") };
        let rooms = RulePattern::parse(&format!("{kind}:{{tenant}}:*")).expect("a pattern");
        let who = RIGHTS.map(|_| Some(Who::parse(who).expect("words")));
        Rule { name: kind.into(), rooms, who }
    };
    Policy::new(Roles::default(), Rules::new((0..rules).map(rule).collect()).expect("few rules"))
}

fn policy(criterion: &mut Criterion) {
    let identity = Identity::of("default", "alice");
    let room = RoomName::parse("chat:default:12345").expect("a name");
    let mut group = criterion.benchmark_group("policy check");
    let mut measure = |name: &str, policy: Policy, room: &RoomName| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| policy.decide(black_box(&identity), Right::Publish, black_box(room)).is_ok());
        });
    };
    measure("default", Policy::default(), &room);
    for rules in [1, 20, 100, 1_000] {
        measure(&format!("{rules} rules"), policy_of(rules, "anybody"), &room);
    }
    let other = RoomName::parse("other:default:12345").expect("a name");
    measure("20 rules, none for the room", policy_of(20, "anybody"), &other);
    measure("20 rules, denied by roles", policy_of(20, "role:editor, claim:plan=pro"), &room);
    group.finish();
}

/// Sending an entry to another shard and taking it there, on one thread: what the lane itself costs.
fn lane(criterion: &mut Criterion) {
    let mut shards = weave::<Mail>(2, LANE_ENTRIES_MAX);
    let (mut there, mut here) = (shards.pop().expect("two"), shards.pop().expect("two"));
    let (from, to) = (ShardId(0), ShardId(1));
    let room = RoomId(Key { slot: 1, generation: 0 });
    let mut group = criterion.benchmark_group("lane");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64 mails", |bencher| {
        bencher.iter(|| {
            (0..64).for_each(|_| here.send(to, Mail::Lost { room }));
            while let Some(mail) = there.take(from) {
                black_box(mail);
            }
        });
    });
    group.finish();
}

/// Asking whether a request may be made: what each one pays before it is routed.
fn rate_check(criterion: &mut Criterion) {
    let wide = Some(Allowance { burst: 1_000_000, tokens: 1_000_000, period: Duration::from_secs(1) });
    let conn = Rates { conn: wide, ..Rates::default() };
    let user = Rates { user: wide, ..conn.clone() };
    // Those before it are looked at in vain.
    let events = ["call:* 9/1s", "message:* 9/1s", "presence:* 9/1s", "room:publish 1000000/1s"];
    let events = events.iter().filter_map(|text| EventRate::parse(text)).collect();
    let event = Rates { events, ..user.clone() };
    let mut group = criterion.benchmark_group("rate check");
    for (name, rates, step_ns) in [
        ("no limit", Rates::default(), 2_000),
        ("connection, many at one moment", conn.clone(), 0),
        ("connection", conn, 2_000),
        ("connection and user", user, 2_000),
        ("connection, user and event", event, 2_000),
    ] {
        let limits = Limits { rates, ..Limits::default() };
        let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits };
        let mut kernel = Kernel::new(config, NOW);
        let id = kernel.conns.reserve();
        let bucket = kernel.meters.full(NOW.at);
        kernel.conns.open(id, NATIVE_JSON, Identity::of("default", "alice"), bucket, NOW.at);
        let mut at = NOW.at;
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                // A bucket holds a million, and here none comes back where the time stands still.
                for chunk in (0..rounds).step_by(100_000) {
                    at = at.after(Duration::from_secs(2));
                    let start = std::time::Instant::now();
                    for _ in chunk..rounds.min(chunk + 100_000) {
                        at = at.after(Duration::from_nanos(step_ns));
                        let now = Now { at, ..NOW };
                        let event = Some(black_box("room:publish"));
                        assert!(kernel.pay(now, id, Price { event, rate: Rate::Heavy, rooms: 1 }).is_ok());
                    }
                    spent += start.elapsed();
                }
                spent
            });
        });
    }
    group.finish();
}

fn fan_out(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish into outboxes");
    for members in [4usize, 100, 1_000, 5_000, 18_000] {
        let mut room = Room::of(members);
        group.throughput(Throughput::Elements(members as u64));
        group.bench_function(format!("{members} members"), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let start = std::time::Instant::now();
                    room.publish();
                    spent += start.elapsed();
                    room.flush();
                }
                spent
            });
        });
    }
    group.finish();
}

fn turn(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("whole turn, four publishes joined");
    for members in [4usize, 1_000] {
        let mut room = Room::of(members);
        group.throughput(Throughput::Elements(4 * members as u64));
        group.bench_function(format!("{members} members"), |bencher| {
            bencher.iter(|| {
                (0..4).for_each(|_| room.publish());
                room.flush();
            });
        });
    }
    group.finish();
}

fn open_and_close(criterion: &mut Criterion) {
    let mut room = Room::of(1_000);
    criterion.bench_function("a connection opens, joins and goes", |bencher| {
        bencher.iter_batched(
            || Identity::of("default", "guest"),
            |identity| {
                let conn = room.shard.reserve().expect("room for one more");
                room.step(Input::Open(Box::new(Opening {
                    conn,
                    identity,
                    dialect: NATIVE_JSON,
                    greeting: Box::default(),
                })));
                room.step(Input::Text { conn, message: br#"{"id":1,"event":"room:join","data":{"room":"r0"}}"# });
                room.flush();
                room.step(Input::Gone { conn });
                room.effects.dirty.clear();
                room.effects.dirty_by_crowd.clear();
            },
            BatchSize::SmallInput,
        );
    });
}

/// What `/metrics` costs a shard each time it is read.
fn report(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("report for operators");
    for members in [4usize, 20_000] {
        let room = Room::of(members);
        let mut timing = Timing::new(Origin::now());
        timing.begin_turn(Instant::ZERO);
        timing.end_turn();
        group.bench_function(format!("{members} connections"), |bencher| {
            bencher.iter(|| (room.shard.snapshot(), timing.report()));
        });
    }
    group.finish();
}

criterion_group!(benches, placement, policy, lane, rate_check, fan_out, turn, open_and_close, report);
criterion_main!(benches);
