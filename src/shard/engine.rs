//! Engine.IO sessions: what brings packets in and takes them out.

use crate::base::time::Now;
use crate::kernel::carriers::{PollAnswer, PollId};
use crate::kernel::effects::Effects;
use crate::kernel::ids::ConnId;
use crate::kernel::mounts::EngineSettings;
use crate::shard::{EngineOpening, Shard};
use crate::wire::codes::WireError;
use crate::wire::dialect::DialectId;
use crate::wire::engine::Sid;

/// How a session may be spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spoken {
    /// By polling, and by a probe.
    Polling,
    /// By polling; a probe is under way.
    Upgrading,
    /// By its WebSocket alone.
    WebSocket,
}

impl Shard {
    /// Which path this is, of those where Engine.IO is spoken: its plain dialect.
    pub fn mount_at(&self, _path: &str) -> Option<DialectId> {
        None
    }

    /// How it is spoken there. Panics where `dialect` is no path's.
    pub fn engine(&self, _dialect: DialectId) -> &EngineSettings {
        unimplemented!()
    }

    /// The session of that name, if it is open, and how it may be spoken to.
    pub fn session(&self, _sid: &Sid) -> Option<(ConnId, Spoken)> {
        None
    }

    /// What a client may name a session by.
    pub fn sid(&self, _conn: ConnId) -> Option<Sid> {
        None
    }

    pub(super) fn open_engine(&mut self, _now: Now, _opening: EngineOpening, _effects: &mut Effects) {}

    pub(super) fn on_poll(&mut self, _now: Now, _conn: ConnId, poll: PollId, effects: &mut Effects) {
        effects.polls.push((poll, PollAnswer::Refused));
    }

    pub(super) fn on_poll_gone(&mut self, _now: Now, _conn: ConnId, _poll: PollId, _effects: &mut Effects) {}

    pub(super) fn deliver_polled(&mut self, _now: Now, _conn: ConnId, _effects: &mut Effects) {}

    pub(super) fn on_entered(&mut self, _now: Now, _conn: ConnId, _refused: Option<WireError>, _effects: &mut Effects) {
    }
}
