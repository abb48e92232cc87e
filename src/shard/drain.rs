//! The drain: every client is asked to come back, one after the other, so that whoever takes them in
//! next - another server, or this one started again - sees no more of them a second than it was said
//! to bear. Who is not yet asked is served as ever.
//! Invariant: `next` is when the next client is to come back, and each that is asked moves it on by one
//! place: clients that are asked before their place has come are told to wait for it.

use crate::base::limits::{DRAIN_CATCH_UP, DRAIN_LOOKS_PER_STEP};
use crate::base::time::{Instant, Now};
use crate::base::wheel::TICK;
use crate::kernel::Timer;
use crate::kernel::conns::{Flags, Row};
use crate::kernel::effects::Effects;
use crate::kernel::entry::Frame;
use crate::kernel::ids::ConnId;
use crate::kernel::membership::ConnSlot;
use crate::shard::Shard;
use crate::wire::codes::CloseCode;
use crate::wire::sse;
use std::time::Duration;

/// How fast a drain is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainPace {
    /// Clients that are to come back a second, from all shards together; not zero.
    pub conns_per_s: u32,
    /// Who is left after this is asked as fast as can be.
    pub over: Duration,
    /// What each client is told to wait in any case, and up to as much again at random.
    pub retry: Duration,
}

pub(super) struct Drain {
    /// The next to look at.
    slot: ConnSlot,
    /// Between two clients of this shard.
    every: Duration,
    next: Instant,
    until: Instant,
    retry: Duration,
}

impl Shard {
    pub(super) fn on_drain(&mut self, now: Now, pace: DrainPace, effects: &mut Effects) {
        let shards = u32::from(self.kernel.placement.shards());
        let between = Duration::from_secs(1) / pace.conns_per_s.max(1);
        let every = between * shards;
        // Shards take turns.
        let next = now.at.after(between * u32::from(self.kernel.id.0));
        self.drain = Some(Drain { slot: 0, every, next, until: now.at.after(pace.over), retry: pace.retry });
        self.drain_some(now, effects);
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Asks those whose time has come.
    pub(super) fn drain_some(&mut self, now: Now, effects: &mut Effects) {
        let Some(drain) = &mut self.drain else { return };
        let is_late = now.at >= drain.until;
        // A shard that was held up must not send at once all whom it owes.
        drain.next = drain.next.max(now.at.before(DRAIN_CATCH_UP));
        let slots = self.kernel.conns.slots();
        for _ in 0..DRAIN_LOOKS_PER_STEP {
            let Some(drain) = &mut self.drain else { return };
            if drain.slot == slots || self.kernel.closes_left == 0 || drain.next > now.at && !is_late {
                break;
            }
            let conn = self.kernel.conns.id_at(drain.slot);
            drain.slot += 1;
            // Who is in a namespace goes with its session.
            let is_client = |row: &Row| row.is_open() && !row.flags.has(Flags::RIDER);
            if self.kernel.conns.row(conn).is_some_and(is_client) {
                self.send_back(now, conn, effects);
            }
        }
        let Some(drain) = &self.drain else { return };
        if drain.slot < slots {
            let at = drain.next.min(drain.until).max(now.at.after(TICK));
            self.kernel.wheel.set(at, Timer::Drain);
        }
    }

    /// Asks one client to come back when the next place is free.
    pub(super) fn send_back(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(drain) = &mut self.drain else { return };
        // Those of one moment do not come back in one moment, not even if all are asked at once.
        let later = Duration::from_millis(self.kernel.random.below(drain.retry.as_millis() as u64 + 1));
        let wait = drain.retry + later + drain.next.since(now.at);
        drain.next = drain.next.after(drain.every);
        let reason = format!(r#"{{"retry_ms":{}}}"#, wait.as_millis());
        if self.is_stream(conn) {
            let mut line = Vec::new();
            sse::retry(&mut line, wait);
            self.kernel.push_to(now, conn, &Frame::logged(&self.kernel.memory.account, &line), effects);
        }
        self.kernel.close(now, conn, CloseCode::Restart, &reason, effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::identity::Identity;
    use crate::features;
    use crate::kernel::Limits;
    use crate::kernel::ids::ShardId;
    use crate::shard::{Input, Opening, ShardConfig};
    use crate::wire::dialect::NATIVE_JSON;
    use proptest::prelude::*;

    const START: Now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };

    fn shard(id: u8, shards: u8, conns: usize) -> Shard {
        // Nobody is closed for saying nothing.
        let day = Duration::from_secs(24 * 3_600);
        let limits = Limits { heartbeat: day, heartbeat_time_out: day * 2, ..Limits::default() };
        let config = ShardConfig { id: ShardId(id), shards, origin: 1, seed: 1, map_key: [1, 2], limits };
        let mut shard = Shard::new(config, features::all(), START);
        for nth in 0..conns {
            let conn = shard.reserve().expect("room for all");
            let identity = Identity::of("default", &format!("user{nth}"));
            let opening = Opening { conn, identity, dialect: NATIVE_JSON, greeting: Box::default() };
            shard.step(START, Input::Open(Box::new(opening)), &mut Effects::default());
        }
        shard
    }

    proptest! {
        #[test]
        fn no_second_sees_more_clients_asked_than_the_pace_allows_however_ticks_come(
            conns in proptest::collection::vec(0usize..60, 1..4),
            conns_per_s in 1u32..200,
            pauses_ms in proptest::collection::vec(4u64..1_500, 1..300),
        ) {
            let mut shards: Vec<Shard> =
                conns.iter().enumerate().map(|(id, of)| shard(id as u8, conns.len() as u8, *of)).collect();
            let pace = DrainPace { conns_per_s, over: Duration::from_secs(1 << 20), retry: Duration::ZERO };
            let mut asked_at: Vec<u64> = Vec::new();
            let mut now = START;
            let mut step = |now: Now, mut input: Box<dyn FnMut() -> Input<'static>>| {
                for shard in &mut shards {
                    let mut effects = Effects::default();
                    shard.step(now, input(), &mut effects);
                    asked_at.extend(effects.closing.iter().map(|_| now.at.as_nanos() / 1_000_000));
                }
            };
            step(now, Box::new(move || Input::Drain(pace)));
            for pause_ms in pauses_ms {
                now.at = now.at.after(Duration::from_millis(pause_ms));
                step(now, Box::new(|| Input::Tick));
            }
            // Each shard may make up for a little lost time at the second's begin, and begin with one.
            let most = f64::from(conns_per_s) * (1.0 + DRAIN_CATCH_UP.as_secs_f64()) + conns.len() as f64;
            for (nth, from) in asked_at.iter().enumerate() {
                let within = asked_at[nth..].iter().take_while(|at| *at - from < 1_000).count();
                prop_assert!(within as f64 <= most, "{within} in a second at {conns_per_s}/s, {asked_at:?}");
            }
        }

        #[test]
        fn every_client_is_asked_once_whatever_the_pace(
            conns in 0usize..700, conns_per_s in 1u32..100_000, over_ms in 0u64..5_000,
        ) {
            let mut shard = shard(0, 1, conns);
            let over = Duration::from_millis(over_ms);
            let pace = DrainPace { conns_per_s, over, retry: Duration::from_secs(1) };
            let mut effects = Effects::default();
            let mut now = START;
            shard.step(now, Input::Drain(pace), &mut effects);
            // The slowest end, and a tick for each step's worth of those who are left then.
            while shard.next_deadline() <= START.at.after(over + TICK * 8) {
                now.at = now.at.after(TICK);
                shard.step(now, Input::Tick, &mut effects);
                if effects.closing.len() == conns {
                    break;
                }
            }
            let mut asked = effects.closing.clone();
            asked.sort_unstable();
            asked.dedup();
            prop_assert_eq!((asked.len(), effects.closing.len()), (conns, conns));
        }
    }
}
