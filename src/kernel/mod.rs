//! Floor 3: connections, rooms, order, delivery. Knows no feature by name.
//!
//! [`Kernel`] owns the tables of one shard. What is done with them stands by subject:
//! `sequencer` (a publish gets its place), `fan_out` (an entry gets into outboxes), `replay`
//! (what was missed), `asked` (an answer comes from outside), `closing` (a connection ends), `relief`
//! (there is too much to hold), `scope` (what features may do), `endpoint` and `namespace` (what applications
//! may), `carriers` (sessions of Engine.IO and who is in which namespace), `streams` (of server-sent events).

pub mod asked;
pub mod audience;
pub mod audited;
pub mod budget;
pub mod calls;
pub mod carriers;
pub mod cids;
pub mod closing;
pub mod conns;
pub mod counters;
pub mod directory;
pub mod effects;
pub mod endpoint;
pub mod entry;
pub mod facts;
pub mod fan_out;
pub mod feature;
pub mod history;
pub mod ids;
pub mod lanes;
pub mod mail;
pub mod membership;
pub mod mids;
pub mod mounts;
pub mod namespace;
pub mod outbox;
pub mod paths;
pub mod placement;
pub mod rates;
pub mod reasons;
pub mod relief;
pub mod replay;
pub mod rooms;
pub mod scope;
pub mod sequencer;
pub mod streams;
pub mod tokens;

use crate::admission::policy::Policy;
use crate::admission::rates::Rates;
use crate::admission::revocations::Revocations;
use crate::admission::token::Verifier;
use crate::base::hash::Keyed;
use crate::base::limits;
use crate::base::random::Random;
use crate::base::time::{Instant, Now};
use crate::base::wheel::Wheel;
use asked::{Asking, Ticket};
use audited::Auditing;
use budget::Memory;
use calls::Calls;
use carriers::Carriers;
use conns::Conns;
use counters::Counters;
use entry::Encoder;
use facts::Fact;
use ids::{ConnId, RoomId, ShardId};
use lanes::Lanes;
use membership::Membership;
use mids::Mids;
use outbox::OutboxBounds;
use placement::Placement;
use rates::Meters;
use replay::Replayed;
use rooms::Rooms;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use streams::Streams;

/// What an operator may set of the core's bounds. By default each is at its most or, where there is
/// none, as configurations have it; how much may be asked is not limited.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of one shard.
    pub conns_max: usize,
    pub heartbeat: Duration,
    pub heartbeat_time_out: Duration,
    pub idle_time_max: Duration,
    /// Mails that a lane to another shard holds.
    pub lane_entries: u32,
    /// What one shard holds for readers at most, bytes (see `budget`).
    pub memory_bytes: usize,
    /// Messages of as many bytes are compressed for clients that can; `None`: for nobody new.
    pub deflate_bytes_min: Option<usize>,
    /// How long an answer from outside is waited for.
    pub ask_time_out: Duration,
    /// How much may be asked.
    pub rates: Rates,
    /// One message of a client, bytes.
    pub message_bytes: usize,
    /// Rooms that one connection may be in, its user's own included.
    pub rooms_per_conn: usize,
    pub rooms_per_request: usize,
    /// Rooms that have their home on one shard.
    pub rooms_max: usize,
    pub outbox: OutboxBounds,
    /// A connection that took no byte for this long is slow, and for that long is closed.
    pub slow_time: Duration,
    pub stall_time: Duration,
    /// What is told for the audit log.
    pub audit: Auditing,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            conns_max: limits::CONNS_PER_SHARD_MAX,
            heartbeat: limits::HEARTBEAT,
            heartbeat_time_out: limits::HEARTBEAT_TIME_OUT,
            idle_time_max: limits::IDLE_TIME_MAX,
            lane_entries: limits::LANE_ENTRIES_MAX as u32,
            memory_bytes: limits::MEMORY_BYTES,
            deflate_bytes_min: Some(limits::DEFLATE_BYTES_MIN),
            ask_time_out: limits::ASK_TIME_OUT,
            rates: Rates::default(),
            message_bytes: limits::MESSAGE_BYTES_MAX,
            rooms_per_conn: limits::ROOMS_PER_CONN_MAX,
            rooms_per_request: limits::ROOMS_PER_REQUEST_MAX,
            rooms_max: limits::ROOMS_PER_SHARD_MAX,
            outbox: OutboxBounds::of(limits::OUTBOX_BYTES_MAX),
            slow_time: limits::STALL_TIME_SLOW,
            stall_time: limits::STALL_TIME_MAX,
            audit: Auditing::default(),
        }
    }
}

/// What fires later.
#[derive(Clone, Copy, Debug)]
pub enum Timer {
    Heartbeat(ConnId),
    /// Does the socket still take nothing?
    Stall(ConnId),
    /// Did the peer answer the close?
    Linger(ConnId),
    /// Is its token near its end, or at it?
    Expiry(ConnId),
    /// Is anything left to keep an empty room for?
    Room(RoomId),
    /// Has nobody outside answered?
    Asked(Ticket),
    /// Whose turn is it to come back?
    Drain,
    /// Is a ping of Engine.IO due, or the answer to one, or anything else that its session is given time for?
    Session(ConnId),
    /// Has a client acknowledged in time what an application asked?
    Answer(ConnId),
}

pub struct Kernel {
    pub id: ShardId,
    pub placement: Placement,
    pub limits: Limits,
    pub conns: Conns,
    pub carriers: Carriers,
    pub streams: Streams,
    /// Riders that are gone, with their namespaces, of whom applications have not heard.
    pub farewells: Vec<(usize, ConnId)>,
    pub membership: Membership,
    pub rooms: Rooms,
    pub calls: Calls,
    pub asking: Asking,
    pub lanes: Lanes,
    pub wheel: Wheel<Timer>,
    pub mids: Mids,
    pub random: Random,
    pub counters: Counters,
    pub memory: Memory,
    /// How many connections this step may still close of its own accord: see `CLOSES_PER_STEP`.
    pub closes_left: usize,
    /// What happened in rooms that have their home here, not yet told to the features.
    pub facts: VecDeque<(RoomId, Fact)>,
    /// Connections with a replay under way.
    pub replaying: Vec<ConnId>,
    replayed: Replayed,
    /// What tokens are checked with; replaced as a whole. Until the first one nobody is let in.
    pub verifier: Arc<Verifier>,
    /// Who may do what; replaced as a whole.
    pub policy: Arc<Policy>,
    pub revocations: Revocations,
    pub meters: Meters,
    keyed: Keyed,
    pub encoder: Encoder,
}

/// How a shard is made.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    pub id: ShardId,
    pub shards: u8,
    /// 24 random bits, the same for all shards of the process.
    pub origin: u32,
    /// For what may be guessed: timers, epochs.
    pub seed: u64,
    /// For what must not be guessed: the hashes of names.
    pub map_key: [u64; 2],
    pub limits: Limits,
}

impl Kernel {
    pub fn new(config: ShardConfig, now: Now) -> Self {
        let keyed = Keyed::new(config.map_key);
        Kernel {
            id: config.id,
            placement: Placement::new(config.shards),
            conns: Conns::default(),
            carriers: Carriers::default(),
            streams: Streams::default(),
            farewells: Vec::new(),
            membership: Membership::new(keyed),
            rooms: Rooms::new(keyed),
            calls: Calls::default(),
            asking: Asking::default(),
            lanes: Lanes::new(config.id, config.shards, config.limits.lane_entries),
            wheel: Wheel::new(now.at),
            mids: Mids::new(config.origin, config.id),
            random: Random::new(config.seed),
            counters: Counters::default(),
            memory: Memory::new(config.limits.memory_bytes),
            closes_left: limits::CLOSES_PER_STEP,
            facts: VecDeque::new(),
            replaying: Vec::new(),
            replayed: Replayed::default(),
            verifier: Arc::default(),
            policy: Arc::default(),
            revocations: Revocations::default(),
            meters: Meters::new(config.limits.rates.clone(), keyed, now.at),
            keyed,
            encoder: Encoder::new(&config.limits),
            limits: config.limits,
        }
    }

    /// Keeps to `limits` from now on; timers do as they are next set.
    pub fn set_limits(&mut self, now: Now, limits: Limits) {
        self.encoder.set_limits(&limits);
        self.meters.change(limits.rates.clone(), now.at);
        self.limits = limits;
    }

    /// No timer fires before this.
    pub fn next_deadline(&self) -> Instant {
        if self.memory.is_unfinished() { Instant::ZERO } else { self.wheel.next() }
    }
}
