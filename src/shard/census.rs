//! What a shard holds, counted row by row: for the simulation and tests, which check that it is
//! bounded and that all of it is given back.

use crate::kernel::Kernel;
use crate::kernel::budget::Account;
use crate::kernel::entry::Frame;
use crate::kernel::ids::ShardId;
use crate::kernel::lanes::Waiting;
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Census {
    /// Slots taken, reserved ones included.
    pub conns: usize,
    pub calls: usize,
    /// Rooms that have their home here.
    pub rooms: usize,
    /// Rooms, wherever their home, that connections here are in.
    pub rooms_joined: usize,
    /// Requests that wait for answers from outside.
    pub asked: usize,
    pub replays: usize,
    pub timers: usize,
    /// The longest and the heaviest history, not necessarily of one room.
    pub history_entries: usize,
    pub history_bytes: usize,
    /// What is held for readers, found by looking at every history and outbox, and what the account
    /// says of it.
    pub memory: Held,
    pub account: Held,
    /// Of users, and of connections that were refused, that are not known to be full.
    pub buckets: usize,
    /// What waits for credit, for each other shard.
    pub waiting: Vec<(ShardId, Waiting)>,
}

/// Bytes, and frames, each counted once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Held {
    pub used: usize,
    pub frames: usize,
    pub places: usize,
    pub history: usize,
}

impl Held {
    fn recount(kernel: &Kernel) -> Held {
        let mut frames: BTreeMap<*const Frame, usize> = BTreeMap::new();
        let mut held = Held::default();
        let mut entries = 0;
        for room in kernel.rooms.iter() {
            held.places += room.history().places_bytes();
            for kept in room.history().iter() {
                entries += kept.entry().overhead_bytes();
                for frame in kept.frames().iter() {
                    held.history += frame.charge();
                    frames.insert(Rc::as_ptr(frame), frame.charge());
                }
            }
        }
        held.history += entries;
        for slot in 0..kernel.conns.slots() {
            let Some(row) = kernel.conns.row(kernel.conns.id_at(slot)) else { continue };
            held.places += row.outbox.places_bytes();
            frames.extend(row.outbox.frames().map(|frame| (Rc::as_ptr(frame), frame.charge())));
        }
        held.frames = frames.len();
        held.used = frames.values().sum::<usize>() + entries + held.places;
        held
    }

    fn by_account(account: &Account) -> Held {
        Held { used: account.used(), frames: account.frames(), places: account.places(), history: account.history() }
    }
}

impl Census {
    pub(super) fn of(kernel: &Kernel) -> Census {
        let of_histories = |size: fn(&crate::kernel::history::History) -> usize| {
            kernel.rooms.iter().map(|room| size(room.history())).max().unwrap_or(0)
        };
        Census {
            conns: kernel.conns.len(),
            calls: kernel.calls.len(),
            rooms: kernel.rooms.len(),
            rooms_joined: kernel.membership.len(),
            asked: kernel.asking.requests(),
            replays: kernel.replaying.len(),
            timers: kernel.wheel.len(),
            history_entries: of_histories(|history| history.len()),
            history_bytes: of_histories(|history| history.bytes()),
            memory: Held::recount(kernel),
            account: Held::by_account(&kernel.memory.account),
            buckets: kernel.meters.len(),
            waiting: kernel.lanes.peers().map(|peer| (peer, kernel.lanes.waiting(peer))).collect(),
        }
    }
}
