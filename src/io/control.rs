//! What the service thread and other shards ask of a shard. Invariant: a control that was taken is
//! followed by a ring, so a sleeping shard sees it at once.

use crate::admission::identity::Identity;
use crate::admission::policy::Policy;
use crate::admission::revocations::Revocation;
use crate::admission::token::Verifier;
use crate::base::limits::CONTROLS_MAX;
use crate::io::bell::Bell;
use crate::io::counters::Report;
use crate::io::crowd::Counted;
use crate::io::engine::regulars::Emit;
use crate::io::entrance::{Entrance, Peer};
use crate::io::stream::Stream;
use crate::io::tls::Served;
use crate::io::{callers, users};
use crate::kernel::Limits;
use crate::shard::DrainPace;
use crate::wire::dialect::DialectId;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a full queue is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

pub enum Control {
    /// A socket whose user has its home here, before its 101.
    HandOff(Box<Newcomer>),
    /// A socket whose request is for an Engine.IO session of this shard.
    Asks(Box<Asking>),
    /// A request for a stream of this shard.
    Emits(Box<Emitting>),
    /// No new connections; the old ones are sent back at this pace.
    Drain(DrainPace),
    /// Tokens are checked with this from now on.
    Verifier(Arc<Verifier>),
    /// Who may do what from now on.
    Policy(Arc<Policy>),
    Revoke(Arc<[Revocation]>),
    /// Bounds that hold from now on.
    Limits(Box<Limits>),
    /// Who may come in from now on.
    Entrance(Arc<Entrance>),
    /// What TLS is spoken with from now on.
    Tls(Served),
    Report(Box<dyn FnOnce(Report) + Send>),
    /// Ends the thread; what is open is cut.
    Stop,
}

/// A request that was admitted and is not yet answered.
pub struct Newcomer {
    pub socket: Stream,
    pub welcome: Welcome,
}

/// A request that another shard has read, and not answered.
pub struct Asking {
    pub socket: Stream,
    pub peer: Peer,
    /// From its first byte on.
    pub bytes: Vec<u8>,
}

/// A request that came whole and is for a stream of another shard.
pub struct Emitting {
    pub socket: Stream,
    pub peer: Peer,
    pub emit: Emit,
}

/// What a stream of server-sent events is to begin with.
pub struct Wanted {
    /// Random: who knows it may speak for the stream, if it is of the same user.
    pub secret: [u8; 12],
    /// It came without a token.
    pub is_anonymous: bool,
    pub rooms: Vec<Box<str>>,
    /// The id of the last event that the client has.
    pub last_event: Option<Box<str>>,
}

/// What becomes of an admitted socket.
pub struct Welcome {
    /// The 101.
    pub answer: Vec<u8>,
    /// What came behind the head.
    pub rest: Vec<u8>,
    pub identity: Identity,
    pub dialect: DialectId,
    /// Where the request comes from.
    pub client: IpAddr,
    /// The user's place among its connections, given back when the connection ends.
    pub counted: Option<Counted>,
    pub held: Held,
    /// It is a stream of server-sent events.
    pub stream: Option<Box<Wanted>>,
}

/// What is counted of a connection where that is limited; given back when it ends.
#[derive(Default)]
pub struct Held {
    pub address: Option<callers::Counted>,
    pub user: Option<users::Counted>,
}

impl Held {
    pub fn is_nothing(&self) -> bool {
        self.address.is_none() && self.user.is_none()
    }
}

/// Where other threads leave controls for one shard.
#[derive(Clone)]
pub struct Door {
    queue: flume::Sender<Control>,
    bell: Arc<Bell>,
}

/// The shard's side of its door.
pub struct Controls {
    queue: flume::Receiver<Control>,
}

/// A door of at most `CONTROLS_MAX` waiting controls.
pub fn door(bell: Arc<Bell>) -> (Door, Controls) {
    let (sender, receiver) = flume::bounded(CONTROLS_MAX);
    (Door { queue: sender, bell }, Controls { queue: receiver })
}

impl Door {
    /// Never waits: shards use it too. Gives the control back when the queue is full or the shard
    /// has ended.
    pub fn try_leave(&self, control: Control) -> Result<(), Control> {
        self.queue.try_send(control).map_err(flume::TrySendError::into_inner)?;
        self.bell.ring();
        Ok(())
    }

    /// Waits for room, but not for ever: for the service thread, which must not hang with a shard
    /// that does. Gives the control back when there was none or the shard has ended.
    pub fn leave(&self, control: Control) -> Result<(), Control> {
        self.queue.send_timeout(control, PATIENCE).map_err(flume::SendTimeoutError::into_inner)?;
        self.bell.ring();
        Ok(())
    }

    /// For mail: something lies in a lane to this shard.
    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}

impl Controls {
    pub fn take(&self) -> Option<Control> {
        self.queue.try_recv().ok()
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_door_gives_the_control_back() {
        let (door, controls) = door(Arc::new(Bell::new().unwrap()));
        for _ in 0..CONTROLS_MAX {
            assert!(door.try_leave(Control::Stop).is_ok());
        }
        let drain = Control::Verifier(Arc::default());
        assert!(matches!(door.try_leave(drain), Err(Control::Verifier(_))));
        assert!(matches!(controls.take(), Some(Control::Stop)));
        assert!(door.try_leave(Control::Stop).is_ok());
        drop(controls);
        assert!(door.leave(Control::Stop).is_err(), "a shard that has ended takes nothing");
    }
}
