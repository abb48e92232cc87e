//! Whole turns of one shard without sockets: four publishes into a room, then what the flusher
//! would do for each member. `benches/instructions` counts what a delivery costs with it.
//!
//!     cargo run --release --example turns -- MEMBERS TURNS [RULES|streams]
//!
//! RULES: rules of the policy, of which the last is the room's. `streams`: all but one member are streams of
//! server-sent events, and that one says everything.

use ringroom::admission::identity::Identity;
use ringroom::admission::pattern::RulePattern;
use ringroom::admission::policies::{RIGHTS, Rule, Rules, Who};
use ringroom::admission::policy::{Policy, Roles};
use ringroom::admission::rates::{Allowance, Rates};
use ringroom::base::limits::BURST_MAX;
use ringroom::base::time::{Instant, Now};
use ringroom::features;
use ringroom::kernel::Limits;
use ringroom::kernel::effects::Effects;
use ringroom::kernel::ids::{ConnId, ShardId};
use ringroom::shard::{Input, Opening, Shard, ShardConfig, StreamOpening};
use ringroom::wire::dialect::NATIVE_JSON;
use std::hint::black_box;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: Now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };
const JOINED: usize = 4;

fn main() {
    let number = |nth| std::env::args().nth(nth).and_then(|text| text.parse::<usize>().ok());
    let (Some(members), Some(turns)) = (number(1), number(2)) else {
        eprintln!("usage: turns MEMBERS TURNS [RULES|streams]");
        std::process::exit(2);
    };
    // As in production each request is paid for; the buckets are so large that all of them are.
    let conn = Some(Allowance { burst: BURST_MAX, tokens: BURST_MAX, period: Duration::from_secs(1) });
    let limits = Limits { rates: Rates { conn, ..Rates::default() }, ..Limits::default() };
    let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits };
    let mut shard = Shard::new(config, features::all(), NOW);
    let mut effects = Effects::default();
    if let Some(rules) = number(3) {
        shard.step(NOW, Input::Policy(Arc::new(policy_of(rules))), &mut effects);
    }
    let are_streams = std::env::args().nth(3).is_some_and(|what| what == "streams");
    let mut conns = Vec::new();
    for user in 0..members {
        let conn = shard.reserve().expect("a shard holds a million");
        let identity = Identity::of("default", &format!("user{user}"));
        if are_streams && user > 0 {
            shard.step(NOW, Input::OpenStream(Box::new(stream_of(conn, identity))), &mut effects);
        } else {
            let opening = Opening { conn, identity, dialect: NATIVE_JSON, greeting: Box::default() };
            shard.step(NOW, Input::Open(Box::new(opening)), &mut effects);
            let join = br#"{"id":1,"event":"room:join","data":{"room":"r0"}}"#;
            shard.step(NOW, Input::Text { conn, message: join }, &mut effects);
            conns.push(conn);
        }
        flush(&mut shard, &mut effects);
    }
    let payload = format!(r#"{{"@":"{}"}}"#, "x".repeat(248));
    let publish = format!(r#"{{"event":"room:publish","data":{{"room":"r0","event":"m","data":{payload}}}}}"#);
    let mut deliveries = 0;
    for turn in 0..turns {
        for nth in 0..JOINED {
            let conn = conns[(turn * JOINED + nth) % conns.len()];
            shard.step(NOW, Input::Text { conn, message: publish.as_bytes() }, &mut effects);
        }
        deliveries += JOINED * flush(&mut shard, &mut effects);
    }
    assert_eq!(deliveries, turns * JOINED * members, "everybody got everything");
    println!("{deliveries} deliveries");
}

fn stream_of(conn: ConnId, identity: Identity) -> StreamOpening {
    StreamOpening {
        conn,
        identity,
        is_anonymous: false,
        secret: [0; 12],
        rooms: [Box::from("r0")].into(),
        last_event: None,
        greeting: Box::default(),
    }
}

fn policy_of(rules: usize) -> Policy {
    let rule = |nth: usize| {
        let rooms = if nth + 1 == rules { "r0".into() } else { format!("kind{nth}:{{tenant}}:*") };
        let rooms = RulePattern::parse(&rooms).expect("a pattern");
        Rule { name: rooms.as_str().into(), rooms, who: RIGHTS.map(|_| Who::parse("anybody").ok()) }
    };
    Policy::new(Roles::default(), Rules::new((0..rules).map(rule).collect()).expect("few rules"))
}

/// Takes what every dirty connection has, as sockets that never block would. Returns how many.
fn flush(shard: &mut Shard, effects: &mut Effects) -> usize {
    let (mut dirty, mut crowd) = (take(&mut effects.dirty), take(&mut effects.dirty_by_crowd));
    let count = dirty.len() + crowd.len();
    let mut pieces: Vec<(*const u8, usize)> = Vec::with_capacity(8);
    for conn in dirty.drain(..).chain(crowd.drain(..)) {
        let mut named = Vec::with_capacity(8);
        let bytes = shard.gather(conn, &mut named, 64 * 1024);
        pieces.extend(named.iter().map(|piece| (piece.as_ptr(), piece.len())));
        black_box(&pieces);
        pieces.clear();
        drop(named);
        shard.step(NOW, Input::Wrote { conn, bytes }, effects);
    }
    (effects.dirty, effects.dirty_by_crowd) = (dirty, crowd);
    count
}
