//! What a run draws from its seed: how large, how tight, how hostile.

use crate::admission::pattern::RulePattern;
use crate::admission::policies::{RIGHTS, Rule, Rules, Who};
use crate::admission::policy::{Policy, Roles};
use crate::admission::rates::{Allowance, EventRate, Rates};
use crate::admission::rights::Right;
use crate::base::limits::MEMORY_BYTES;
use crate::base::random::Random;
use crate::sim::client::Habits;
use crate::sim::fault::Fault;
use crate::sim::world::WorldShape;
use std::time::Duration;

/// What a run draws from its seed before anything happens.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) world: WorldShape,
    pub(super) habits: Habits,
    pub(super) clients: u64,
    pub(super) turns: u64,
    /// Messages of many kilobytes: outboxes and histories reach their bounds.
    pub(super) is_heavy: bool,
    /// One room and more messages than its history keeps, while lanes stall for long.
    pub(super) is_flood: bool,
    /// Shards have so little memory that they let go of some now and then.
    pub(super) is_scarce: bool,
    /// One client is refused when it asks too much.
    pub(super) is_greedy: bool,
    /// Half way, all histories grow too old.
    pub(super) has_lull: bool,
    /// Lanes stop for a while now and then.
    pub(super) stalls: bool,
    /// Some requests are asked about outside.
    pub(super) asks: bool,
    /// One shard sends its clients back in the middle of it all; they go on with another.
    pub(super) has_drain: bool,
}

impl Shape {
    pub(super) fn draw(random: &mut Random, fault: Option<Fault>, is_greedy: bool) -> Shape {
        let is_heavy = random.one_in(16) || matches!(fault, Some(Fault::UnboundedOutbox | Fault::IdleRelief));
        let is_flood = !is_heavy && random.one_in(16);
        let stalls = is_flood || random.one_in(2);
        let clients = 2 + random.below(8);
        // Most planted bugs are in lanes, and a lane needs two ends.
        let shards = if fault.is_some() { 2 + random.below(3) } else { 1 + random.below(4) };
        let lane_entries = 1 + random.below(if is_flood { 60 } else { 8 });
        let small = 40 + random.below(2_000);
        // A planted bug must not show as something else.
        let is_scarce = if fault.is_none() { random.one_in(4) } else { fault == Some(Fault::IdleRelief) };
        let memory_bytes = match is_scarce {
            true if is_heavy => 700_000 + random.below(2_000_000),
            true => 4_000 + random.below(60_000),
            false => MEMORY_BYTES as u64,
        };
        Shape {
            world: WorldShape {
                shards: shards as u8,
                lane_entries: lane_entries as u32,
                window: if is_heavy { 100_000 } else { small as usize },
                memory_bytes: memory_bytes as usize,
                babel: random.below(2) == 0,
                rates: if is_greedy { tight() } else { Rates::default() },
                seed: random.next(),
                fault,
            },
            habits: Habits {
                rooms: if is_flood { 1 } else { 1 + random.below(5) },
                users: 1 + clients * 2 / 3,
                rooms_per_request: 4,
                pad_bytes_max: if is_heavy { 150_000 } else { 300 },
                pipeline: match random.below(3) {
                    _ if is_flood => 800,
                    0 => 40,
                    _ => 5,
                },
            },
            clients,
            turns: match () {
                () if is_flood => 1_500,
                () if is_heavy => 600,
                () => 200 + random.below(1_000),
            },
            is_heavy,
            is_flood,
            is_scarce,
            is_greedy,
            has_lull: random.one_in(8) || fault == Some(Fault::SilentGap),
            stalls,
            asks: fault.is_none() && !is_flood && random.one_in(3),
            has_drain: fault.is_none() && shards > 1 && random.one_in(4),
        }
    }
}

/// The client that asks too much, where one does, and the roles of others, which may.
pub(super) const GREEDY: usize = 0;
pub(super) const MODERATOR: &str = "moderator";
pub(super) const CALM: &str = "calm";

fn tight() -> Rates {
    Rates {
        conn: Some(Allowance { burst: 8, tokens: 4, period: Duration::from_secs(1) }),
        user: None,
        events: EventRate::parse("room:publish 5/2s").into_iter().collect(),
        unlimited_roles: [MODERATOR, CALM].map(Box::from).into(),
    }
}

/// Of the first rooms one asks about joins, one about publishes, and one about both.
pub(super) fn policy_that_asks() -> Policy {
    let ask = |right: Right, rights: &[Right]| rights.contains(&right).then(|| Who::parse("ask").expect("a word"));
    let rule = |rooms: &str, rights: &[Right]| {
        let rooms = RulePattern::parse(rooms).expect("a pattern");
        Rule { name: rooms.as_str().into(), rooms, who: RIGHTS.map(|right| ask(right, rights)) }
    };
    let both = [Right::Join, Right::Publish];
    let rules = vec![rule("room:0", &both[..1]), rule("room:1", &both[1..]), rule("room:2", &both)];
    Policy::new(Roles::default(), Rules::new(rules).expect("few rules"))
}
