//! What a shard counted since it started.

use crate::kernel::reasons::{CloseReason, Dropped};
use crate::wire::codes::{CloseCode, ErrorCode, Limit, WireError};

#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub opened: u64,
    pub gone: u64,
    /// Clients in namespaces of Socket.IO.
    pub riders_opened: u64,
    pub riders_gone: u64,
    /// WebSockets that took over from polling.
    pub upgrades: u64,
    /// Streams of server-sent events, and requests of their clients.
    pub streams_opened: u64,
    pub streams_gone: u64,
    pub emits: u64,
    pub requests: u64,
    /// Messages sequenced.
    pub publishes: u64,
    /// Publishes answered from the client-id window.
    pub repeated: u64,
    /// Entries put into outboxes.
    pub deliveries: u64,
    /// Entries of replays put into outboxes.
    pub replayed: u64,
    /// Times that a shard fell behind in a room, and that it could not be caught up.
    pub behind: u64,
    pub lost: u64,
    /// Requests that waited for credit.
    pub parked: u64,
    /// Questions to somebody outside, those that nobody answered in time, and requests that were
    /// refused because too much waited for answers.
    pub asked: u64,
    pub asked_timed_out: u64,
    pub asked_full: u64,
    /// Times that the shard let go of memory, messages that histories lost by it, and publishes that
    /// were refused because it did not help.
    pub reliefs: u64,
    pub forgotten: u64,
    pub refused_full: u64,
    /// Connections cut because they did not go: in time, and soon enough for the memory they held.
    pub resets_linger: u64,
    pub resets_memory: u64,
    /// Now: connections whose sockets take nothing, and those of them that are slow.
    pub blocked: u64,
    pub slow: u64,
    pub dropped: [u64; Dropped::ALL.len()],
    pub errors: [u64; ErrorCode::ALL.len()],
    /// Those of `errors` that name a limit.
    pub limited: [u64; Limit::KINDS.len()],
    pub closes: [u64; CloseCode::ALL.len()],
    /// Those of `closes` that have a reason beside the code.
    pub closed_for: [u64; CloseReason::ALL.len()],
}

impl Counters {
    pub fn error(&mut self, error: &WireError) {
        self.errors[error.code.index()] += 1;
        if let Some(limit) = &error.limit {
            self.limited[limit.index()] += 1;
        }
    }

    pub fn close(&mut self, code: CloseCode) {
        self.closes[code.index()] += 1;
    }

    pub fn close_for(&mut self, reason: CloseReason) {
        self.closed_for[reason.index()] += 1;
    }

    pub fn drop(&mut self, what: Dropped, count: u64) {
        self.dropped[what.index()] += count;
    }
}
