//! What the edge of one shard counts. Plain numbers: only the shard's own thread touches them, and
//! they leave it as a copy in a [`Report`].

use crate::io::timing::Times;
use crate::shard::Snapshot;
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Default, Debug, Serialize)]
pub struct Counters {
    /// Sockets taken from the listener.
    pub accepted: u64,
    /// Times the listener could not take one for want of descriptors or memory.
    pub accept_failures: u64,
    /// Connections that became WebSockets here.
    pub opened: u64,
    pub closed: u64,
    /// Connections cut by us because their peers did not end them in time.
    pub resets: u64,
    /// Requests that became nothing, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Handshakes of TLS that were ended, by version: with keys newly signed for, and with a ticket.
    pub tls_full: BTreeMap<&'static str, u64>,
    pub tls_resumed: BTreeMap<&'static str, u64>,
    /// Those that came to nothing, by reason.
    pub tls_failed: BTreeMap<&'static str, u64>,
    /// Requests whose proxy said something else than addresses of where they come from.
    pub forwarded_malformed: u64,
    /// Connections handed to their user's home, and taken over as one.
    pub moved_out: u64,
    pub moved_in: u64,
    /// Of Engine.IO: GETs that were given to the core, and POSTs that came whole.
    pub engine_polls: u64,
    pub engine_posts: u64,
    /// Of Engine.IO: requests handed to the shard of their session, and taken over as one.
    pub requests_out: u64,
    pub requests_in: u64,
    /// Times that the shard asked which sockets have something, and reads that followed.
    pub looks: u64,
    /// Turns that only looked for work, without sleeping.
    pub polls: u64,
    pub reads: u64,
    pub bytes_in: u64,
    pub writes: u64,
    pub bytes_out: u64,
    /// Writes of which the socket took only a part.
    pub writes_short: u64,
    pub mails_out: u64,
    pub mails_in: u64,
    /// Bells that needed a system call.
    pub bells: u64,
    /// Now: sockets whose head has not ended, and open connections.
    pub handshakes_now: u64,
    pub connections_now: u64,
    /// Now: open connections over TLS.
    pub tls_connections_now: u64,
    /// Now: Engine.IO sessions without a WebSocket, and sockets that are kept for their requests.
    pub sessions_polling_now: u64,
    pub requesters_now: u64,
    /// Now: 1 while the shard takes new sockets.
    pub listening: u64,
}

impl Counters {
    /// Clients that are connected now, by a WebSocket or by polling.
    pub fn clients_now(&self) -> u64 {
        self.connections_now + self.sessions_polling_now
    }

    /// Rises with whatever keeps a shard busy but the passing of time.
    pub fn work(&self) -> u64 {
        let of_engine = self.engine_polls + self.engine_posts + self.requests_in;
        self.accepted + self.moved_in + self.reads + self.writes + self.mails_in + of_engine
    }
}

/// One shard at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub shard: u8,
    pub edge: Counters,
    pub core: Snapshot,
    #[serde(flatten)]
    pub times: Times,
}
