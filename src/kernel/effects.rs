//! What a step asks of the world. The edge empties it after each step; the simulation does too.

use crate::kernel::asked::Question;
use crate::kernel::audited::Audited;
use crate::kernel::carriers::{Entrant, PollAnswer, PollId};
use crate::kernel::ids::{ConnId, ShardId};
use crate::kernel::mail::Mail;

#[derive(Default)]
pub struct Effects {
    /// To be put into the lanes, in this order. The core counts credit: there is always room.
    pub mail: Vec<(ShardId, Mail)>,
    /// Outboxes that have something to write and are not waiting for their sockets. Each
    /// connection is listed once until it is gathered, here or below.
    pub dirty: Vec<ConnId>,
    /// Those that a message to a crowd made so, or that their sockets held up: possibly very many,
    /// so they must not go before the others.
    pub dirty_by_crowd: Vec<ConnId>,
    /// Reading may go on.
    pub resumed: Vec<ConnId>,
    /// The last frame is in the outbox: once written, shut the sending side down and read on
    /// until the peer closes too.
    pub closing: Vec<ConnId>,
    /// Close the socket at once (the peer did not answer the close in time), then report it gone.
    pub reset: Vec<ConnId>,
    /// Somebody outside is to be asked; the answer comes back as an input.
    pub questions: Vec<Question>,
    /// A token was signed with a key that is not here: look for newer keys.
    pub keys_wanted: bool,
    /// For the audit log, if one is kept.
    pub audit: Vec<Audited>,
    /// Answers to GETs, each once.
    pub polls: Vec<(PollId, PollAnswer)>,
    /// The socket of the first is the second's from now on, with all that was read of it and not taken; the
    /// first is nobody's any more and not to be reported gone.
    pub merged: Vec<(ConnId, ConnId)>,
    /// Sessions without a socket that are over: to be reported gone.
    pub ended: Vec<ConnId>,
    /// Whose users' limits are to be looked at.
    pub entrants: Vec<Entrant>,
    /// Those of [`Effects::entrants`] who came in and are gone.
    pub left: Vec<ConnId>,
    /// Sessions by which a token came that is not good.
    pub failures: Vec<ConnId>,
    /// Something is due at the wheel's next turn, which is to be no later than that.
    pub is_soon: bool,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.mail.is_empty()
            && self.dirty.is_empty()
            && self.dirty_by_crowd.is_empty()
            && self.resumed.is_empty()
            && self.closing.is_empty()
            && self.reset.is_empty()
            && self.questions.is_empty()
            && !self.keys_wanted
            && self.audit.is_empty()
            && self.polls.is_empty()
            && self.merged.is_empty()
            && self.ended.is_empty()
            && self.entrants.is_empty()
            && self.left.is_empty()
            && self.failures.is_empty()
            && !self.is_soon
    }
}
