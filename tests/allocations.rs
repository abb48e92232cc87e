//! What the core takes from the allocator, counted: nothing per receiver of a message, a bounded
//! number of bytes per idle connection, and never much at once, however many there are. One test,
//! because the counts are the process'.

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
use ringroom::shard::{Input, Opening, Shard, ShardConfig};
use ringroom::wire::dialect::NATIVE_JSON;
use std::alloc::{GlobalAlloc, Layout, System};
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

struct Counting;

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicI64 = AtomicI64::new(0);
/// All that was ever taken.
static TAKEN: AtomicU64 = AtomicU64::new(0);
/// Allocations alive, by their size in steps of 8 bytes; the last stands for all larger ones.
static ALIVE: [AtomicI64; 8_192] = [const { AtomicI64::new(0) }; 8_192];

fn alive(layout: Layout) -> &'static AtomicI64 {
    &ALIVE[(layout.size().div_ceil(8)).min(ALIVE.len() - 1)]
}

// SAFETY: everything is handed to the system's allocator as it came; counting touches no memory
// of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size() as i64, Relaxed);
        TAKEN.fetch_add(layout.size() as u64, Relaxed);
        alive(layout).fetch_add(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size() as i64, Relaxed);
        alive(layout).fetch_sub(1, Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: Now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };

/// As in production, requests are counted; here all of them pass.
fn limits() -> Limits {
    let conn = Some(Allowance { burst: BURST_MAX, tokens: 1, period: Duration::from_secs(1) });
    Limits { rates: Rates { conn, ..Rates::default() }, ..Limits::default() }
}

struct World {
    shard: Shard,
    effects: Effects,
    conns: Vec<ConnId>,
    /// What the greediest step took.
    most_taken: u64,
}

impl World {
    fn with(users: usize) -> World {
        let config = ShardConfig { id: ShardId(0), shards: 1, origin: 1, seed: 1, map_key: [1, 2], limits: limits() };
        let shard = Shard::new(config, features::all(), NOW);
        let conns = Vec::with_capacity(users);
        let mut world = World { shard, effects: Effects::default(), conns, most_taken: 0 };
        for user in 0..users {
            world.open(user);
        }
        world
    }

    fn open(&mut self, user: usize) {
        let conn = self.shard.reserve().expect("room for all");
        let identity = Identity::of("default", &format!("user{user}"));
        self.step(Input::Open(Box::new(Opening { conn, identity, dialect: NATIVE_JSON, greeting: Box::default() })));
        self.step(Input::Text { conn, message: br#"{"id":1,"event":"room:join","data":{"room":"r0"}}"# });
        self.conns.push(conn);
        self.flush();
    }

    fn step(&mut self, input: Input<'_>) {
        let before = TAKEN.load(Relaxed);
        self.shard.step(NOW, input, &mut self.effects);
        self.most_taken = self.most_taken.max(TAKEN.load(Relaxed) - before);
    }

    fn flush(&mut self) {
        let (mut dirty, mut crowd) = (take(&mut self.effects.dirty), take(&mut self.effects.dirty_by_crowd));
        for conn in dirty.drain(..).chain(crowd.drain(..)) {
            let mut pieces = Vec::with_capacity(8);
            let bytes = self.shard.gather(conn, &mut pieces, usize::MAX);
            self.step(Input::Wrote { conn, bytes });
        }
        (self.effects.dirty, self.effects.dirty_by_crowd) = (dirty, crowd);
    }

    /// Calls of the allocator for one publish.
    fn calls_of_a_publish(&mut self) -> u64 {
        let before = CALLS.load(Relaxed);
        let message = br#"{"event":"room:publish","data":{"room":"r0","event":"m","data":{"text":"hello"}}}"#;
        self.step(Input::Text { conn: self.conns[0], message });
        let calls = CALLS.load(Relaxed) - before;
        let listed = self.effects.dirty.len() + self.effects.dirty_by_crowd.len();
        assert_eq!(listed, self.conns.len(), "everybody gets it");
        self.flush();
        calls
    }
}

/// Rules that all have to be looked at, for a room that the last of them allows.
fn policy_of_twenty() -> Policy {
    let rule = |nth| {
        let rooms = if nth < 19 { "*:{sub}:**" } else { "**" };
        let who = Who::parse(if nth < 19 { "role:editor, claim:plan=pro" } else { "anybody" }).expect("words");
        let rooms = RulePattern::parse(rooms).expect("a pattern");
        Rule { name: "rule".into(), rooms, who: RIGHTS.map(|_| Some(who.clone())) }
    };
    Policy::new(Roles::default(), Rules::new((0..20).map(rule).collect()).expect("few rules"))
}

#[test]
fn a_delivery_allocates_nothing_and_an_idle_connection_is_small() {
    let mut calls = Vec::new();
    for members in [10, 100, 1_000, 5_000] {
        let mut world = World::with(members);
        // The first ones make room for the rest.
        (0..20).for_each(|_| _ = world.calls_of_a_publish());
        let counted: u64 = (0..100).map(|_| world.calls_of_a_publish()).sum();
        println!("{members} members: {} calls of the allocator for 100 publishes", counted);
        calls.push(counted);
    }
    // Whoever decides about a publish takes nothing from the allocator, however many rules are tried.
    let mut world = World::with(10);
    let policy = Arc::new(policy_of_twenty());
    world.step(Input::Policy(policy));
    (0..20).for_each(|_| _ = world.calls_of_a_publish());
    calls.push((0..100).map(|_| world.calls_of_a_publish()).sum());

    let (least, most) = (calls.iter().min().expect("four"), calls.iter().max().expect("four"));
    // A queue that grows now and then may tell apart two rooms, a receiver may not.
    assert!(most - least < 10, "the same whatever the members and the rules: {calls:?}");
    assert!(*most <= 8 * 100 + 10, "eight for a publish: {calls:?}");

    // Of an idle connection in its inbox and one shared room, bytes: hot row 64, cold part 40; inbox at
    // its home 104 and here 56; the connection's list of rooms 56; the user with its inbox's name 56, the
    // tenant 24 (which a verifier shares); in the shared room's directory 16 as connection and 16 as
    // user, 8 among its members here; its timer 20; four places in indexes, 6 to 11 each.
    // Neither number is a power of two, so that nothing that doubles looks better than it is.
    for users in [19_000, 100_000] {
        let before = BYTES.load(Relaxed);
        let alive_before: Vec<i64> = ALIVE.iter().map(|alive| alive.load(Relaxed)).collect();
        let world = World::with(users);
        let of_test = users * size_of::<ConnId>();
        let each = (BYTES.load(Relaxed) - before - of_test as i64) as f64 / users as f64;
        println!("{users} users: {each:.0} bytes of the core per joined connection");
        println!("{users} users: {} bytes taken by the greediest step", world.most_taken);
        for (nth, alive) in ALIVE.iter().enumerate() {
            let (size, more) = (nth * 8, alive.load(Relaxed) - alive_before[nth]);
            if size as i64 * more > 2 * users as i64 {
                println!(
                    "{more:>8} of {size:>6} bytes, {:>6.1} per connection",
                    size as f64 * more as f64 / users as f64
                );
            }
        }
        assert!(each <= 520.0, "{each} bytes per joined connection");
        // Whatever grows by moving has to take as much as it moves.
        assert!(world.most_taken <= 128 * 1_024, "{} bytes taken by one step of {users}", world.most_taken);
    }
}
