//! What an operator may see of a shard.

use crate::kernel::Kernel;
use crate::kernel::counters::Counters;
use crate::wire::codes::{CloseCode, ErrorCode};
use serde::Serialize;
use std::collections::BTreeMap;

/// Counts since the start, and gauges of now.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Snapshot {
    pub connections: u64,
    pub rooms: u64,
    pub opened: u64,
    pub gone: u64,
    pub requests: u64,
    pub publishes: u64,
    pub repeated: u64,
    pub deliveries: u64,
    pub replayed: u64,
    pub dropped: BTreeMap<&'static str, u64>,
    /// Times that another shard fell behind in a room, and that it could not be caught up.
    pub behind: u64,
    pub lost: u64,
    pub parked: u64,
    /// Requests that wait for an answer, mails that wait for credit, replays under way.
    pub calls: u64,
    pub held: u64,
    pub replays: u64,
    pub errors: BTreeMap<&'static str, u64>,
    pub closes: BTreeMap<&'static str, u64>,
}

impl Snapshot {
    pub(super) fn of(kernel: &Kernel) -> Snapshot {
        let Counters {
            opened,
            gone,
            requests,
            publishes,
            repeated,
            deliveries,
            replayed,
            dropped_slow,
            dropped_behind,
            behind,
            lost,
            parked,
            errors,
            closes,
        } = kernel.counters.clone();
        Snapshot {
            connections: opened - gone,
            rooms: kernel.rooms.len() as u64,
            opened,
            gone,
            requests,
            publishes,
            repeated,
            deliveries,
            replayed,
            dropped: BTreeMap::from([("slow", dropped_slow), ("behind", dropped_behind)]),
            behind,
            lost,
            parked,
            calls: kernel.calls.len() as u64,
            held: kernel.lanes.held() as u64,
            replays: kernel.replaying.len() as u64,
            errors: ErrorCode::ALL.into_iter().map(|code| (code.as_str(), errors[code.index()])).collect(),
            closes: CloseCode::ALL.into_iter().map(|code| (code.as_str(), closes[code.index()])).collect(),
        }
    }

    /// Adds another shard's.
    pub fn add(&mut self, other: &Snapshot) {
        fn each(into: &mut BTreeMap<&'static str, u64>, from: &BTreeMap<&'static str, u64>) {
            for (name, count) in from {
                *into.entry(name).or_default() += count;
            }
        }
        let Snapshot {
            connections,
            rooms,
            opened,
            gone,
            requests,
            publishes,
            repeated,
            deliveries,
            replayed,
            dropped,
            behind,
            lost,
            parked,
            calls,
            held,
            replays,
            errors,
            closes,
        } = self;
        for (into, from) in [
            (connections, other.connections),
            (rooms, other.rooms),
            (opened, other.opened),
            (gone, other.gone),
            (requests, other.requests),
            (publishes, other.publishes),
            (repeated, other.repeated),
            (deliveries, other.deliveries),
            (replayed, other.replayed),
            (behind, other.behind),
            (lost, other.lost),
            (parked, other.parked),
            (calls, other.calls),
            (held, other.held),
            (replays, other.replays),
        ] {
            *into += from;
        }
        each(dropped, &other.dropped);
        each(errors, &other.errors);
        each(closes, &other.closes);
    }
}
