//! Carriers: Engine.IO sessions, which carry the packets of one client, over polling or a WebSocket.

use crate::admission::identity::Identity;
use crate::kernel::ids::ConnId;

/// A GET that waits for packets, as the edge calls it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PollId(pub u64);

/// How a client of Engine.IO is heard and told things at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// By one HTTP request after the other. It has no socket that the core knows.
    Polling,
    WebSocket,
    /// A WebSocket that is to take over from the polling of this session, and is a connection of its own until
    /// then.
    Probe {
        of: ConnId,
    },
}

/// What becomes of a GET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PollAnswer {
    /// 200 with this payload.
    Packets(Vec<u8>),
    /// 400: the session is not to be asked so, or has ended.
    Refused,
}

/// Somebody named itself, and may come in if its user's limits allow it: answered by `Input::Entered`.
#[derive(Clone, PartialEq, Debug)]
pub struct Entrant {
    /// In this namespace.
    pub conn: ConnId,
    /// By this session, which is not read until the answer.
    pub carrier: ConnId,
    pub identity: Identity,
}
