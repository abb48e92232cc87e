//! What an operator may see of a shard.

use crate::kernel::Kernel;
use crate::kernel::counters::Counters;
use crate::kernel::reasons::{CloseReason, Dropped};
use crate::wire::codes::{CloseCode, ErrorCode, Limit};
use serde::Serialize;
use std::collections::BTreeMap;

/// Counts since the start, and gauges of now.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    pub connections: u64,
    /// How many there may be.
    pub connections_max: u64,
    pub rooms: u64,
    pub opened: u64,
    pub gone: u64,
    /// Clients in namespaces of Socket.IO now, since the start, and WebSockets that took over from polling.
    pub namespaces: u64,
    pub namespaces_opened: u64,
    pub upgrades: u64,
    /// Streams of server-sent events now, since the start, and requests of their clients.
    pub streams: u64,
    pub streams_opened: u64,
    pub emits: u64,
    pub requests: u64,
    pub publishes: u64,
    pub repeated: u64,
    pub deliveries: u64,
    pub replayed: u64,
    /// Pushes that reached no outbox or left it unwritten, by class and reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Times that another shard fell behind in a room, and that it could not be caught up.
    pub behind: u64,
    pub lost: u64,
    pub parked: u64,
    /// Questions to somebody outside: now, with the requests that wait for them, since the start,
    /// without an answer in time; and requests refused because too much waited.
    pub asked_now: u64,
    pub asked_waiting: u64,
    pub asked: u64,
    pub asked_timed_out: u64,
    pub asked_full: u64,
    /// Requests that wait for an answer, mails that wait for credit, replays under way.
    pub calls: u64,
    pub held: u64,
    pub replays: u64,
    /// Rooms that are behind on another shard, once for each such shard.
    pub rooms_behind: u64,
    /// Connections whose sockets take nothing, and those of them that are slow.
    pub blocked: u64,
    pub slow: u64,
    /// Bytes: the budget, what is used of it, and of that what histories keep and what queues'
    /// places take. Frames are counted.
    pub memory_budget: u64,
    pub memory_used: u64,
    pub memory_history: u64,
    pub memory_places: u64,
    pub frames: u64,
    /// 1 while publishes are refused because nothing is left to let go of.
    pub memory_full: u64,
    /// Times that memory was let go of, messages that histories lost by it, and publishes refused
    /// because it did not help.
    pub reliefs: u64,
    pub forgotten: u64,
    pub refused_full: u64,
    pub errors: BTreeMap<&'static str, u64>,
    /// Those of `errors` that name a limit.
    pub limited: BTreeMap<&'static str, u64>,
    /// Buckets of users, and of connections that were refused, that are not known to be full.
    pub buckets: u64,
    pub closes: BTreeMap<&'static str, u64>,
    /// Those of `closes` that have a reason beside the code.
    pub closed_for: BTreeMap<&'static str, u64>,
    /// Connections cut by the core, by reason.
    pub resets_for: BTreeMap<&'static str, u64>,
    /// Places that the core believes free in the lane to each other shard.
    pub credit: BTreeMap<u8, u64>,
}

impl Snapshot {
    pub(super) fn of(kernel: &Kernel) -> Snapshot {
        let Counters {
            opened,
            gone,
            riders_opened,
            riders_gone,
            upgrades,
            streams_opened,
            streams_gone,
            emits,
            requests,
            publishes,
            repeated,
            deliveries,
            replayed,
            behind,
            lost,
            parked,
            asked,
            asked_timed_out,
            asked_full,
            reliefs,
            forgotten,
            refused_full,
            resets_linger,
            resets_memory,
            blocked,
            slow,
            dropped,
            errors,
            limited,
            closes,
            closed_for,
        } = kernel.counters.clone();
        Snapshot {
            connections: opened - gone,
            connections_max: kernel.limits.conns_max as u64,
            rooms: kernel.rooms.len() as u64,
            opened,
            gone,
            namespaces: riders_opened - riders_gone,
            namespaces_opened: riders_opened,
            upgrades,
            streams: streams_opened - streams_gone,
            streams_opened,
            emits,
            requests,
            publishes,
            repeated,
            deliveries,
            replayed,
            dropped: Dropped::ALL.into_iter().map(|what| (what.name(), dropped[what.index()])).collect(),
            behind,
            lost,
            parked,
            asked_now: kernel.asking.questions() as u64,
            asked_waiting: kernel.asking.requests() as u64,
            asked,
            asked_timed_out,
            asked_full,
            calls: kernel.calls.len() as u64,
            held: kernel.lanes.held() as u64,
            replays: kernel.replaying.len() as u64,
            rooms_behind: kernel.lanes.runs() as u64,
            blocked,
            slow,
            memory_budget: kernel.memory.budget() as u64,
            memory_used: kernel.memory.account.used() as u64,
            memory_history: kernel.memory.account.history() as u64,
            memory_places: kernel.memory.account.places() as u64,
            frames: kernel.memory.account.frames() as u64,
            memory_full: kernel.memory.refuses().into(),
            reliefs,
            forgotten,
            refused_full,
            errors: ErrorCode::ALL.into_iter().map(|code| (code.as_str(), errors[code.index()])).collect(),
            limited: Limit::KINDS.into_iter().zip(limited).collect(),
            buckets: kernel.meters.len() as u64,
            closes: CloseCode::ALL.into_iter().map(|code| (code.as_str(), closes[code.index()])).collect(),
            closed_for: CloseReason::ALL.into_iter().map(|why| (why.name(), closed_for[why.index()])).collect(),
            resets_for: BTreeMap::from([("linger", resets_linger), ("memory", resets_memory)]),
            credit: kernel.lanes.peers().map(|peer| (peer.0, kernel.lanes.credit(peer).into())).collect(),
        }
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: &Snapshot) {
        fn each<K: Ord + Copy>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
            for (name, count) in from {
                *into.entry(*name).or_default() += count;
            }
        }
        let Snapshot {
            connections,
            connections_max,
            rooms,
            opened,
            gone,
            namespaces,
            namespaces_opened,
            upgrades,
            streams,
            streams_opened,
            emits,
            requests,
            publishes,
            repeated,
            deliveries,
            replayed,
            dropped,
            behind,
            lost,
            parked,
            asked_now,
            asked_waiting,
            asked,
            asked_timed_out,
            asked_full,
            calls,
            held,
            replays,
            rooms_behind,
            blocked,
            slow,
            memory_budget,
            memory_used,
            memory_history,
            memory_places,
            frames,
            memory_full,
            reliefs,
            forgotten,
            refused_full,
            errors,
            limited,
            buckets,
            closes,
            closed_for,
            resets_for,
            credit,
        } = self;
        for (into, from) in [
            (connections, other.connections),
            (connections_max, other.connections_max),
            (rooms, other.rooms),
            (opened, other.opened),
            (gone, other.gone),
            (namespaces, other.namespaces),
            (namespaces_opened, other.namespaces_opened),
            (upgrades, other.upgrades),
            (streams, other.streams),
            (streams_opened, other.streams_opened),
            (emits, other.emits),
            (requests, other.requests),
            (publishes, other.publishes),
            (repeated, other.repeated),
            (deliveries, other.deliveries),
            (replayed, other.replayed),
            (behind, other.behind),
            (lost, other.lost),
            (parked, other.parked),
            (asked_now, other.asked_now),
            (asked_waiting, other.asked_waiting),
            (asked, other.asked),
            (asked_timed_out, other.asked_timed_out),
            (asked_full, other.asked_full),
            (calls, other.calls),
            (held, other.held),
            (replays, other.replays),
            (rooms_behind, other.rooms_behind),
            (blocked, other.blocked),
            (slow, other.slow),
            (memory_budget, other.memory_budget),
            (memory_used, other.memory_used),
            (memory_history, other.memory_history),
            (memory_places, other.memory_places),
            (frames, other.frames),
            (memory_full, other.memory_full),
            (reliefs, other.reliefs),
            (forgotten, other.forgotten),
            (refused_full, other.refused_full),
            (buckets, other.buckets),
        ] {
            *into += from;
        }
        each(dropped, &other.dropped);
        each(errors, &other.errors);
        each(limited, &other.limited);
        each(closes, &other.closes);
        each(closed_for, &other.closed_for);
        each(resets_for, &other.resets_for);
        each(credit, &other.credit);
    }
}
