//! Bugs that are planted at the border of the world, so that the core needs no hook for them: what
//! the oracle sees is what a core with that bug would show. Each must be caught by the check that
//! is named for it, else the simulation checks nothing.

use crate::sim::oracle::Check;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A sequencer that leaves out a number.
    SkippedSeq,
    /// Two messages of a room change places in a lane.
    SwappedEntries,
    /// A lane loses an entry.
    LostEntry,
    /// A lane brings an entry twice.
    DoubledEntry,
    /// A lane loses word of a connection that has gone.
    LostGone,
    /// The reply to a publish overtakes the message.
    OvertakingReply,
    /// A request is answered twice.
    DoubledReply,
    /// A reply never reaches its client.
    LostReply,
    /// A page of a replay lacks a message.
    HoledReplay,
    /// A join with a position that is too old says nothing of it.
    SilentGap,
    /// An outbox goes on taking bytes that its socket does not take.
    UnboundedOutbox,
    /// The core mails without credit.
    LaneOverrun,
    /// A shard over its memory's mark lets go of nothing.
    IdleRelief,
}

impl Fault {
    pub const ALL: [Fault; 13] = [
        Fault::SkippedSeq,
        Fault::SwappedEntries,
        Fault::LostEntry,
        Fault::DoubledEntry,
        Fault::LostGone,
        Fault::OvertakingReply,
        Fault::DoubledReply,
        Fault::LostReply,
        Fault::HoledReplay,
        Fault::SilentGap,
        Fault::UnboundedOutbox,
        Fault::LaneOverrun,
        Fault::IdleRelief,
    ];

    /// The checks of which one must fail.
    pub fn caught_by(self) -> &'static [Check] {
        match self {
            Fault::SkippedSeq => &[Check::OneOrder, Check::ReplayComplete, Check::NothingOvertakes],
            Fault::SwappedEntries => &[Check::OneOrder, Check::NoLoss, Check::NothingOvertakes],
            Fault::LostEntry => &[Check::NoLoss, Check::OneOrder, Check::NothingOvertakes],
            Fault::DoubledEntry => &[Check::NoDuplicate],
            Fault::LostGone => &[Check::MembersConverge, Check::AllIsFreed],
            Fault::OvertakingReply => &[Check::NothingOvertakes],
            Fault::DoubledReply | Fault::LostReply => &[Check::RepliesOnce],
            Fault::HoledReplay => &[Check::ReplayComplete, Check::NoLoss, Check::OneOrder],
            Fault::SilentGap => &[Check::NoSilentGap, Check::ReplayComplete],
            Fault::UnboundedOutbox => &[Check::OutboxBound],
            Fault::LaneOverrun => &[Check::LaneBound],
            Fault::IdleRelief => &[Check::MemoryBound],
        }
    }
}
