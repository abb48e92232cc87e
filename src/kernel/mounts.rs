//! Paths at which Engine.IO is spoken, and what is served there.

use std::time::Duration;

/// How Engine.IO is spoken at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSettings {
    /// Between two pings of the server: told to clients, and never later.
    pub ping_interval: Duration,
    /// For the answer to a ping: told to clients.
    pub ping_timeout: Duration,
    /// From a WebSocket's probe to its taking over from polling.
    pub upgrade_timeout: Duration,
    /// How long somebody may stay without being in a namespace.
    pub connect_timeout: Duration,
    /// One packet, or one payload of several, bytes: told to clients as `maxPayload`.
    pub payload_bytes: usize,
    /// Binary attachments of one packet of a client.
    pub attachments_max: usize,
    /// Whether a WebSocket's offer of permessage-deflate is taken.
    pub compression: bool,
    /// The cookie in which a client is told its session; `None`: in none.
    pub cookie: Option<Box<str>>,
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        EngineSettings {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(45),
            payload_bytes: 1_000_000,
            attachments_max: crate::base::limits::ATTACHMENTS_MAX,
            compression: false,
            cookie: None,
        }
    }
}
