//! What a shard holds, counted row by row: for the simulation and tests, which check that it is
//! bounded and that all of it is given back.

use crate::kernel::Kernel;
use crate::kernel::ids::ShardId;
use crate::kernel::lanes::Waiting;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Census {
    /// Slots taken, reserved ones included.
    pub conns: usize,
    pub calls: usize,
    /// Rooms that have their home here.
    pub rooms: usize,
    /// Rooms, wherever their home, that connections here are in.
    pub rooms_joined: usize,
    pub replays: usize,
    pub timers: usize,
    /// The longest and the heaviest history, not necessarily of one room.
    pub history_entries: usize,
    pub history_bytes: usize,
    /// What waits for credit, for each other shard.
    pub waiting: Vec<(ShardId, Waiting)>,
}

impl Census {
    pub(super) fn of(kernel: &Kernel) -> Census {
        let of_histories = |size: fn(&crate::kernel::history::History) -> usize| {
            kernel.rooms.iter().map(|room| size(&room.history)).max().unwrap_or(0)
        };
        Census {
            conns: kernel.conns.len(),
            calls: kernel.calls.len(),
            rooms: kernel.rooms.len(),
            rooms_joined: kernel.membership.len(),
            replays: kernel.replaying.len(),
            timers: kernel.wheel.len(),
            history_entries: of_histories(|history| history.len()),
            history_bytes: of_histories(|history| history.bytes()),
            waiting: kernel.lanes.peers().map(|peer| (peer, kernel.lanes.waiting(peer))).collect(),
        }
    }
}
