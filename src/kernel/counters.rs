//! What a shard counted since it started.

use crate::wire::codes::{CloseCode, ErrorCode};

#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub opened: u64,
    pub gone: u64,
    pub requests: u64,
    /// Messages sequenced.
    pub publishes: u64,
    /// Publishes answered from the client-id window.
    pub repeated: u64,
    /// Entries put into outboxes.
    pub deliveries: u64,
    /// Entries of replays put into outboxes.
    pub replayed: u64,
    /// Transient pushes not queued, by the reason.
    pub dropped_slow: u64,
    pub dropped_behind: u64,
    /// Times that a shard fell behind in a room, and that it could not be caught up.
    pub behind: u64,
    pub lost: u64,
    /// Requests that waited for credit.
    pub parked: u64,
    pub errors: [u64; ErrorCode::ALL.len()],
    pub closes: [u64; CloseCode::ALL.len()],
}

impl Counters {
    pub fn error(&mut self, code: ErrorCode) {
        self.errors[code.index()] += 1;
    }

    pub fn close(&mut self, code: CloseCode) {
        self.closes[code.index()] += 1;
    }
}
