//! Why something was dropped or ended, where the class of a push or the code of a close tells only
//! half. Each has a row in the counters, a name and a help text for those who read them.
//! Invariant: `ALL[reason.index()] == reason`.

use crate::kernel::entry::Class;
use crate::wire::codes::CloseCode;

/// A push that did not reach an outbox, or that was taken out of it: its class and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dropped {
    TransientSlow,
    TransientFull,
    TransientGaveWay,
    TransientCut,
    TransientBehind,
    TransientMemory,
    LatestReplaced,
    LatestFull,
    LatestCut,
    LoggedCut,
}

impl Dropped {
    pub const ALL: [Dropped; 10] = [
        Dropped::TransientSlow,
        Dropped::TransientFull,
        Dropped::TransientGaveWay,
        Dropped::TransientCut,
        Dropped::TransientBehind,
        Dropped::TransientMemory,
        Dropped::LatestReplaced,
        Dropped::LatestFull,
        Dropped::LatestCut,
        Dropped::LoggedCut,
    ];

    pub fn index(self) -> usize {
        self as usize
    }

    /// What was queued for a slow consumer when it was closed.
    pub fn cut(class: Class) -> Dropped {
        match class {
            Class::Logged => Dropped::LoggedCut,
            Class::Transient => Dropped::TransientCut,
            Class::Latest { .. } => Dropped::LatestCut,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Dropped::TransientSlow => "transient_slow",
            Dropped::TransientFull => "transient_full",
            Dropped::TransientGaveWay => "transient_gave_way",
            Dropped::TransientCut => "transient_cut",
            Dropped::TransientBehind => "transient_behind",
            Dropped::TransientMemory => "transient_memory",
            Dropped::LatestReplaced => "latest_replaced",
            Dropped::LatestFull => "latest_full",
            Dropped::LatestCut => "latest_cut",
            Dropped::LoggedCut => "logged_cut",
        }
    }

    pub fn help(self) -> &'static str {
        match self {
            Dropped::TransientSlow => "transient pushes to a connection that took no byte for limits.slow_ms",
            Dropped::TransientFull => {
                "transient pushes to a connection with more than a quarter of limits.outbox_bytes queued"
            }
            Dropped::TransientGaveWay => "queued transient pushes that made room for a logged one",
            Dropped::TransientCut => "transient pushes queued for a slow consumer when it was closed",
            Dropped::TransientBehind => "transient pushes to another shard without credit in its lane",
            Dropped::TransientMemory => "transient pushes of rooms while their shard's memory was full",
            Dropped::LatestReplaced => "queued values that a newer one of the same key took the place of",
            Dropped::LatestFull => "values for a connection with limits.outbox_bytes queued",
            Dropped::LatestCut => "values queued for a slow consumer when it was closed",
            Dropped::LoggedCut => "logged pushes and replies queued for a slow consumer when it was closed",
        }
    }
}

/// Why the core closed a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseReason {
    OutboxBytes,
    StallTime,
    Memory,
    LostBetweenShards,
    LostReplay,
    Silent,
    Inactive,
    TokenEnded,
    TokenRevoked,
    TokenRevokedBefore,
    AskedOn,
    NoNamespace,
}

impl CloseReason {
    pub const ALL: [CloseReason; 12] = [
        CloseReason::OutboxBytes,
        CloseReason::StallTime,
        CloseReason::Memory,
        CloseReason::LostBetweenShards,
        CloseReason::LostReplay,
        CloseReason::Silent,
        CloseReason::Inactive,
        CloseReason::TokenEnded,
        CloseReason::TokenRevoked,
        CloseReason::TokenRevokedBefore,
        CloseReason::AskedOn,
        CloseReason::NoNamespace,
    ];

    pub fn index(self) -> usize {
        self as usize
    }

    pub fn code(self) -> CloseCode {
        match self {
            CloseReason::OutboxBytes
            | CloseReason::StallTime
            | CloseReason::Memory
            | CloseReason::LostBetweenShards
            | CloseReason::LostReplay => CloseCode::SlowConsumer,
            CloseReason::Silent | CloseReason::Inactive | CloseReason::NoNamespace => CloseCode::Idle,
            CloseReason::TokenEnded | CloseReason::TokenRevokedBefore => CloseCode::Unauthorized,
            CloseReason::TokenRevoked => CloseCode::SessionRevoked,
            CloseReason::AskedOn => CloseCode::RateLimited,
        }
    }

    /// What the client reads.
    pub fn text(self) -> &'static str {
        match self {
            CloseReason::OutboxBytes => "read too slowly; resume by position",
            CloseReason::StallTime => "took nothing for too long; resume by position",
            CloseReason::Memory => "read too slowly for the server's memory; resume by position",
            CloseReason::LostBetweenShards => "messages were lost between shards; resume by position",
            CloseReason::LostReplay => "the replay fell out of the history; join again",
            CloseReason::Silent => "no sign of life",
            CloseReason::Inactive => "idle for too long",
            CloseReason::TokenEnded => "the token has expired; connect again with a new one",
            CloseReason::TokenRevoked => "the token was revoked; log in again",
            CloseReason::TokenRevokedBefore => "the token was revoked meanwhile; log in again",
            CloseReason::NoNamespace => "in no namespace for too long",
            CloseReason::AskedOn => "rate limited: sent on after many refusals; wait as long as they say",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            CloseReason::OutboxBytes => "outbox_bytes",
            CloseReason::StallTime => "stall_time",
            CloseReason::Memory => "memory",
            CloseReason::LostBetweenShards => "lost_between_shards",
            CloseReason::LostReplay => "lost_replay",
            CloseReason::Silent => "silent",
            CloseReason::Inactive => "inactive",
            CloseReason::TokenEnded => "token_ended",
            CloseReason::TokenRevoked => "token_revoked",
            CloseReason::TokenRevokedBefore => "token_revoked_before",
            CloseReason::AskedOn => "asked_on",
            CloseReason::NoNamespace => "no_namespace",
        }
    }

    pub fn help(self) -> &'static str {
        match self {
            CloseReason::OutboxBytes => "closed with 4410: a logged push would have passed limits.outbox_bytes",
            CloseReason::StallTime => "closed with 4410: the socket took no byte for limits.stall_ms",
            CloseReason::Memory => {
                "closed with 4410: held the oldest frames while readers held more than their share of the memory"
            }
            CloseReason::LostBetweenShards => {
                "closed with 4410: the room's history no longer had what a full lane held up"
            }
            CloseReason::LostReplay => "closed with 4410: the history no longer had what a replay came to",
            CloseReason::Silent => "closed with 4408: no sign of life for the heartbeat's time-out",
            CloseReason::TokenEnded => "closed with 4401: the token came to its end without a refresh",
            CloseReason::TokenRevoked => "closed with 4409: the token was revoked",
            CloseReason::TokenRevokedBefore => {
                "closed with 4401: the token was revoked between its check and the opening"
            }
            CloseReason::AskedOn => "closed with 4429: went on asking after REFUSALS_MAX refusals within REFUSALS_TIME",
            CloseReason::NoNamespace => {
                "closed with 4408: a Socket.IO session was in no namespace for socketio.connect_timeout_ms"
            }
            CloseReason::Inactive => "closed with 4408: neither a request nor a delivery for the idle time",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_row_name_and_words() {
        let mut names = HashSet::new();
        for (row, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), row);
            assert!(names.insert(reason.name()) && names.insert(reason.help()));
        }
        for (row, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), row);
            assert!(names.insert(reason.name()) && names.insert(reason.help()) && names.insert(reason.text()));
            // The reason of a close frame, RFC 6455 section 5.5: what does not fit is cut off.
            assert!(reason.text().len() <= 123);
        }
    }
}
