//! Connections: one cache line each for the hot path, the rest apart.
//! Invariant: a [`ConnId`] finds its row from [`Conns::open`] until [`Conns::free`], and nothing
//! before or after.

use crate::admission::identity::Identity;
use crate::admission::rates::Bucket;
use crate::base::limits::{CALLS_PER_PEER_MAX, ROOMS_PER_REQUEST_MAX, SHARDS_MAX, STALL_TIME_LONGEST};
use crate::base::pages::Pages;
use crate::base::table::Key;
use crate::base::time::Instant;
use crate::kernel::ids::{CallId, ConnId, Epoch, RoomId, Seq, ShardId};
use crate::kernel::membership::ConnSlot;
use crate::kernel::outbox::Outbox;
use crate::wire::dialect::{DialectId, NATIVE_JSON};
use std::time::Duration;

/// What a connection is doing; several at once.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags(u16);

impl Flags {
    /// Open, or closing: the slot is not free nor only reserved.
    pub const LIVE: Flags = Flags(1);
    /// The close frame is queued; nothing more is taken or sent.
    pub const CLOSING: Flags = Flags(2);
    /// Named in the effects as dirty and not yet gathered.
    pub const LISTED: Flags = Flags(4);
    /// The socket took less than it was given.
    pub const BLOCKED: Flags = Flags(8);
    /// Blocked for so long that transient pushes are not worth queueing.
    pub const SLOW: Flags = Flags(16);
    /// A replay is under way.
    pub const REPLAYING: Flags = Flags(32);
    /// A request waits for credit, or somebody for being let into a namespace; reads pause.
    pub const PAUSED: Flags = Flags(64);
    /// A logged push was queued since the outbox was last empty.
    pub const OWED: Flags = Flags(128);
    /// A timer looks whether the socket still takes nothing.
    pub const WATCHED: Flags = Flags(256);
    /// Told that its token is near its end.
    pub const TOLD_EXPIRING: Flags = Flags(512);
    /// An endpoint or a namespace has heard of it, and is to hear of its end.
    pub const SERVED: Flags = Flags(1024);
    /// In a namespace; what is sent to it goes into its carrier's outbox.
    pub const RIDER: Flags = Flags(2048);
    /// Too much waits for it of what an application has answered; reads pause.
    pub const FULL: Flags = Flags(4096);
    /// A stream of server-sent events; messages of its rooms have ids.
    pub const STREAM: Flags = Flags(8192);
    /// What is sent to it is not just put into its outbox.
    pub const APART: Flags = Flags(Flags::RIDER.0 | Flags::STREAM.0);
    /// Either of the two.
    pub const UNREAD: Flags = Flags(Flags::PAUSED.0 | Flags::FULL.0);

    pub const fn has(self, flag: Flags) -> bool {
        self.0 & flag.0 != 0
    }
    pub const fn set(&mut self, flag: Flags) {
        self.0 |= flag.0;
    }
    pub const fn clear(&mut self, flag: Flags) {
        self.0 &= !flag.0;
    }
}

/// What a fan-out touches.
#[repr(C, align(64))]
pub struct Row {
    pub outbox: Outbox,
    generation: u32,
    /// Last sign of life, seconds of the core's clock.
    pub heard_s: u32,
    /// Last request, or logged push that the transport took, seconds of the core's clock.
    pub active_s: u32,
    pub flags: Flags,
    pub dialect: DialectId,
    /// Pongs in the outbox.
    pub pongs: u8,
}

const _: () = assert!(size_of::<Row>() == 64);

impl Row {
    pub fn is_open(&self) -> bool {
        self.flags.has(Flags::LIVE) && !self.flags.has(Flags::CLOSING)
    }
}

/// What one replay has still to fetch.
pub struct Replay {
    pub home: ShardId,
    pub room: RoomId,
    pub epoch: Epoch,
    pub after: Seq,
    /// The page that is on its way.
    pub asked: Option<CallId>,
}

/// What a fan-out does not touch.
pub struct Cold {
    pub identity: Identity,
    /// Boxed: few connections ever have one.
    #[allow(clippy::box_collection, reason = "a pointer where three would be paid for by every idle connection")]
    pub replays: Option<Box<Vec<Replay>>>,
    /// Parts of requests that wait for an answer.
    pub pending: u16,
    /// When the socket last took a byte while it was blocked: the lower bits of the core's clock in
    /// [`PROGRESS_STEP`]s, of which half tell the past from what is to come: eight minutes.
    progress: u16,
    /// What it may still ask for.
    pub bucket: Bucket,
}

/// Short beside any stall that is waited for.
const PROGRESS_STEP: Duration = Duration::from_millis(16);

/// How much less a stall may seem than it is.
pub const STALL_SLACK: Duration = PROGRESS_STEP.saturating_mul(2);

// Nobody asks how long ago it was later than one look after it was too long.
const _: () = assert!((STALL_TIME_LONGEST.as_secs() + 60) * 1_000 < PROGRESS_STEP.as_millis() as u64 * (1 << 15));
// All that all other shards owe an answer, one request to this shard itself, and one that is parked.
const _: () = assert!((SHARDS_MAX - 1) * CALLS_PER_PEER_MAX + 2 * ROOMS_PER_REQUEST_MAX < u16::MAX as usize);

const _: () = assert!(size_of::<Option<Cold>>() <= 40);

impl Cold {
    /// The socket took a byte, or is blocked from now on.
    pub fn note_progress(&mut self, now: Instant) {
        self.progress = progress(now.after(PROGRESS_STEP));
    }

    /// How long the socket has taken nothing; up to two steps less than it is, never more.
    pub fn stalled(&self, now: Instant) -> Duration {
        let steps = progress(now).wrapping_sub(self.progress) as i16;
        PROGRESS_STEP * u32::try_from(steps).unwrap_or(0)
    }

    pub fn replays(&mut self) -> &mut Vec<Replay> {
        self.replays.get_or_insert_default()
    }
}

#[derive(Default)]
pub struct Conns {
    rows: Pages<Row>,
    cold: Pages<Option<Cold>>,
    free: Pages<ConnSlot>,
}

impl Conns {
    /// Connections, reserved ones included.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn reserve(&mut self) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.rows.push(Row {
                outbox: Outbox::default(),
                generation: 0,
                heard_s: 0,
                active_s: 0,
                flags: Flags::default(),
                dialect: NATIVE_JSON,
                pongs: 0,
            });
            self.cold.push(None);
            (self.rows.len() - 1) as ConnSlot
        });
        self.id_at(slot)
    }

    pub fn open(&mut self, id: ConnId, dialect: DialectId, identity: Identity, bucket: Bucket, now: Instant) {
        let row = &mut self.rows[id.0.slot as usize];
        assert!(row.generation == id.0.generation && !row.flags.has(Flags::LIVE), "a reserved slot is opened once");
        row.dialect = dialect;
        row.flags.set(Flags::LIVE);
        row.heard_s = seconds(now);
        row.active_s = seconds(now);
        let cold = Cold { identity, replays: None, pending: 0, progress: progress(now), bucket };
        self.cold[id.0.slot as usize] = Some(cold);
    }

    /// Gives the slot back, opened or only reserved. What was queued is lost.
    pub fn free(&mut self, id: ConnId) {
        let row = &mut self.rows[id.0.slot as usize];
        if row.generation != id.0.generation {
            return;
        }
        row.outbox = Outbox::default();
        row.flags = Flags::default();
        row.pongs = 0;
        row.generation = row.generation.wrapping_add(1);
        self.cold[id.0.slot as usize] = None;
        self.free.push(id.0.slot);
    }

    pub fn id_at(&self, slot: ConnSlot) -> ConnId {
        ConnId(Key { slot, generation: self.rows[slot as usize].generation })
    }

    /// Rows ever used.
    pub fn slots(&self) -> ConnSlot {
        self.rows.len() as ConnSlot
    }

    /// The row of a connection that is open or closing.
    pub fn row(&self, id: ConnId) -> Option<&Row> {
        let row = self.rows.get(id.0.slot as usize)?;
        (row.generation == id.0.generation && row.flags.has(Flags::LIVE)).then_some(row)
    }

    pub fn row_mut(&mut self, id: ConnId) -> Option<&mut Row> {
        let row = self.rows.get_mut(id.0.slot as usize)?;
        (row.generation == id.0.generation && row.flags.has(Flags::LIVE)).then_some(row)
    }

    /// The row of a member: members are alive.
    pub fn member_mut(&mut self, slot: ConnSlot) -> (ConnId, &mut Row) {
        let row = &mut self.rows[slot as usize];
        debug_assert!(row.is_open(), "a member is open");
        (ConnId(Key { slot, generation: row.generation }), row)
    }

    pub fn cold(&self, id: ConnId) -> Option<&Cold> {
        self.row(id)?;
        self.cold[id.0.slot as usize].as_ref()
    }

    pub fn cold_mut(&mut self, id: ConnId) -> Option<&mut Cold> {
        self.row(id)?;
        self.cold[id.0.slot as usize].as_mut()
    }

    pub fn is_open(&self, id: ConnId) -> bool {
        self.row(id).is_some_and(Row::is_open)
    }
}

/// Whole seconds of the core's clock: what a row has room for.
pub fn seconds(at: Instant) -> u32 {
    (at.as_nanos() / 1_000_000_000) as u32
}

fn progress(at: Instant) -> u16 {
    (at.as_nanos() / PROGRESS_STEP.as_nanos() as u64) as u16
}
