//! The codes that clients see: errors of requests, and reasons of a closed WebSocket.
//! Invariant: `ALL[code.index()] == code`, so a table of counters has one row for each code.

use std::borrow::Cow;
use std::sync::Arc;

/// Why a request failed. Names are the protocol's; a code is never reused for something else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum ErrorCode {
    BadRequest,
    UnknownEvent,
    Unauthorized,
    TokenExpired,
    Forbidden,
    NotFound,
    NotMember,
    RateLimited,
    TooLarge,
    TooMany,
    Conflict,
    Gap,
    Unavailable,
    Internal,
}

impl ErrorCode {
    pub const ALL: [ErrorCode; 14] = [
        ErrorCode::BadRequest,
        ErrorCode::UnknownEvent,
        ErrorCode::Unauthorized,
        ErrorCode::TokenExpired,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::NotMember,
        ErrorCode::RateLimited,
        ErrorCode::TooLarge,
        ErrorCode::TooMany,
        ErrorCode::Conflict,
        ErrorCode::Gap,
        ErrorCode::Unavailable,
        ErrorCode::Internal,
    ];

    /// The code as clients read it.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "bad_request",
            ErrorCode::UnknownEvent => "unknown_event",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::TokenExpired => "token_expired",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::NotFound => "not_found",
            ErrorCode::NotMember => "not_member",
            ErrorCode::RateLimited => "rate_limited",
            ErrorCode::TooLarge => "too_large",
            ErrorCode::TooMany => "too_many",
            ErrorCode::Conflict => "conflict",
            ErrorCode::Gap => "gap",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Internal => "internal",
        }
    }

    /// The place in [`ErrorCode::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Why a WebSocket is closed: `RFC 6455` section 7.4.1 and IANA below 4000, the protocol's own above.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u16)]
pub enum CloseCode {
    Normal = 1000,
    GoingAway = 1001,
    Protocol = 1002,
    Unsupported = 1003,
    BadPayload = 1007,
    Policy = 1008,
    TooLarge = 1009,
    /// Drain or restart; the reason carries `retry_ms`.
    Restart = 1012,
    Overloaded = 1013,
    BadRequest = 4400,
    Unauthorized = 4401,
    Forbidden = 4403,
    Idle = 4408,
    SessionRevoked = 4409,
    SlowConsumer = 4410,
    /// A resumed session took over.
    Replaced = 4411,
    RateLimited = 4429,
}

impl CloseCode {
    pub const ALL: [CloseCode; 17] = [
        CloseCode::Normal,
        CloseCode::GoingAway,
        CloseCode::Protocol,
        CloseCode::Unsupported,
        CloseCode::BadPayload,
        CloseCode::Policy,
        CloseCode::TooLarge,
        CloseCode::Restart,
        CloseCode::Overloaded,
        CloseCode::BadRequest,
        CloseCode::Unauthorized,
        CloseCode::Forbidden,
        CloseCode::Idle,
        CloseCode::SessionRevoked,
        CloseCode::SlowConsumer,
        CloseCode::Replaced,
        CloseCode::RateLimited,
    ];

    /// The number on the wire.
    pub fn as_u16(self) -> u16 {
        self as u16
    }

    /// A short name for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseCode::Normal => "normal",
            CloseCode::GoingAway => "going_away",
            CloseCode::Protocol => "protocol",
            CloseCode::Unsupported => "unsupported",
            CloseCode::BadPayload => "bad_payload",
            CloseCode::Policy => "policy",
            CloseCode::TooLarge => "too_large",
            CloseCode::Restart => "restart",
            CloseCode::Overloaded => "overloaded",
            CloseCode::BadRequest => "bad_request",
            CloseCode::Unauthorized => "unauthorized",
            CloseCode::Forbidden => "forbidden",
            CloseCode::Idle => "idle",
            CloseCode::SessionRevoked => "session_revoked",
            CloseCode::SlowConsumer => "slow_consumer",
            CloseCode::Replaced => "replaced",
            CloseCode::RateLimited => "rate_limited",
        }
    }

    /// The place in [`CloseCode::ALL`].
    pub fn index(self) -> usize {
        match self {
            CloseCode::Normal => 0,
            CloseCode::GoingAway => 1,
            CloseCode::Protocol => 2,
            CloseCode::Unsupported => 3,
            CloseCode::BadPayload => 4,
            CloseCode::Policy => 5,
            CloseCode::TooLarge => 6,
            CloseCode::Restart => 7,
            CloseCode::Overloaded => 8,
            CloseCode::BadRequest => 9,
            CloseCode::Unauthorized => 10,
            CloseCode::Forbidden => 11,
            CloseCode::Idle => 12,
            CloseCode::SessionRevoked => 13,
            CloseCode::SlowConsumer => 14,
            CloseCode::Replaced => 15,
            CloseCode::RateLimited => 16,
        }
    }
}

/// A failed request as its sender is told. Carries no secret, no stack and no file path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WireError {
    pub code: ErrorCode,
    /// What went wrong and what is allowed, for the developer of the client.
    pub message: Cow<'static, str>,
    /// Where waiting helps: not before this many milliseconds.
    pub retry_after_ms: Option<u64>,
    /// With `rate_limited`, `too_many` and `too_large`: which limit.
    pub limit: Option<Limit>,
}

/// What there was too much of. Operators set most of these under `limits`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Requests of the connection.
    Conn,
    /// Requests of the user, over its connections.
    User,
    /// One event of the user; with the pattern of events that the limit is for.
    Event(Arc<str>),
    RoomsPerConn,
    RoomsPerRequest,
    RoomsPerShard,
    /// `room:update` data, bytes.
    RoomData,
    /// One message, as the JSON that it stands for.
    MessageBytes,
    /// Rooms of the connection that wait for a decision from outside, requests behind them, bytes of all.
    Asked,
    AskedBehind,
    AskedBytes,
}

impl Limit {
    /// For counters: one row each.
    pub const KINDS: [&'static str; 11] = [
        "conn",
        "user",
        "event",
        "rooms_per_conn",
        "rooms_per_request",
        "rooms_per_shard",
        "room_data_bytes",
        "message_bytes",
        "asked",
        "asked_behind",
        "asked_bytes",
    ];

    /// The place in [`Limit::KINDS`].
    pub fn index(&self) -> usize {
        match self {
            Limit::Conn => 0,
            Limit::User => 1,
            Limit::Event(_) => 2,
            Limit::RoomsPerConn => 3,
            Limit::RoomsPerRequest => 4,
            Limit::RoomsPerShard => 5,
            Limit::RoomData => 6,
            Limit::MessageBytes => 7,
            Limit::Asked => 8,
            Limit::AskedBehind => 9,
            Limit::AskedBytes => 10,
        }
    }

    /// As clients read it.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Limit::Event(pattern) => format!("event:{pattern}").into(),
            other => Limit::KINDS[other.index()].into(),
        }
    }
}

impl WireError {
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> WireError {
        WireError { code, message: message.into(), retry_after_ms: None, limit: None }
    }

    /// `too_many` of what `limit` names.
    pub fn too_many(limit: Limit, message: impl Into<Cow<'static, str>>) -> WireError {
        WireError { limit: Some(limit), ..WireError::new(ErrorCode::TooMany, message) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_error_code_has_its_own_row_and_name() {
        for (row, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(code.index(), row);
        }
        let names: HashSet<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), ErrorCode::ALL.len());
    }

    #[test]
    fn every_limit_has_its_own_row_and_name() {
        let all = [
            Limit::Conn,
            Limit::User,
            Limit::Event("room:*".into()),
            Limit::RoomsPerConn,
            Limit::RoomsPerRequest,
            Limit::RoomsPerShard,
            Limit::RoomData,
            Limit::MessageBytes,
            Limit::Asked,
            Limit::AskedBehind,
            Limit::AskedBytes,
        ];
        for (row, limit) in all.iter().enumerate() {
            assert_eq!(limit.index(), row);
            assert!(limit.name().starts_with(Limit::KINDS[row]));
        }
        let names: HashSet<_> = all.iter().map(Limit::name).collect();
        assert_eq!(names.len(), Limit::KINDS.len());
        assert_eq!(all[2].name(), "event:room:*");
    }

    #[test]
    fn every_close_code_has_its_own_row_name_and_number() {
        for (row, code) in CloseCode::ALL.iter().enumerate() {
            assert_eq!(code.index(), row);
        }
        let names: HashSet<_> = CloseCode::ALL.iter().map(|code| code.as_str()).collect();
        let numbers: HashSet<_> = CloseCode::ALL.iter().map(|code| code.as_u16()).collect();
        assert_eq!(names.len(), CloseCode::ALL.len());
        assert_eq!(numbers.len(), CloseCode::ALL.len());
    }
}
