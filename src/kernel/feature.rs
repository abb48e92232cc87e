//! What a feature is to the kernel: a declaration, and handlers that are called with a scope.

use crate::admission::gate::{Admitted, Asks};
use crate::admission::names::RoomName;
use crate::admission::rights::{Rate, Right};
use crate::kernel::facts::Fact;
use crate::kernel::mail::Request;
use crate::kernel::scope::{ConnScope, RoomScope};
use crate::wire::codes::WireError;
use std::collections::BTreeMap;

/// A feature says what it answers; gate, routing, metrics and docs are read from it.
#[derive(Debug)]
pub struct Declaration {
    pub name: &'static str,
    pub requests: &'static [Declared],
}

/// One request of clients.
#[derive(Debug)]
pub struct Declared {
    pub event: &'static str,
    pub home: Home,
    pub needs: Right,
    pub rate: Rate,
}

/// Where a request is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// At the connection's shard, at once.
    Conn,
    /// At the home of the room that `data.room` names.
    Room,
    /// At the home of each room in `data.rooms`; the feature joins the answers.
    Rooms,
    /// At the home of what `data.room`, `data.rooms` or `data.user` names; exactly one of them.
    Target,
}

/// The data of a reply, JSON.
pub type Answer = Result<Vec<u8>, WireError>;

/// The answer of one of several rooms.
pub struct RoomAnswer {
    pub room: Box<str>,
    pub answer: Answer,
}

/// A request that the connection's own shard answers.
pub struct ConnRequest<'a> {
    pub event: &'static str,
    pub needs: Right,
    pub data: &'a [u8],
}

impl Asks for ConnRequest<'_> {
    fn right(&self) -> Right {
        self.needs
    }
    fn room(&self) -> Option<&RoomName> {
        None
    }
}

/// One promise to clients. One instance a shard; what it keeps is that shard's part.
pub trait Feature {
    fn declaration(&self) -> &'static Declaration;

    /// A request declared with [`Home::Conn`].
    fn on_conn_request(&mut self, _scope: &mut ConnScope<'_>, request: &Admitted<ConnRequest<'_>>) -> Answer {
        unreachable!("{} is not declared with Home::Conn", request.event)
    }

    /// A request for one room, at that room's home.
    fn on_room_request(&mut self, _scope: &mut RoomScope<'_>, request: &Admitted<Request>, _data: &[u8]) -> Answer {
        unreachable!("{} is not declared with a room's home", request.room.name.as_str())
    }

    /// Joins the answers of several rooms to one, in the order in which they were named.
    fn on_answers(&mut self, event: &'static str, _answers: Vec<RoomAnswer>) -> Answer {
        unreachable!("{event} is not declared for several rooms")
    }

    /// Something happened in a room, at its home.
    fn on_fact(&mut self, _scope: &mut RoomScope<'_>, _fact: &Fact) {}
}

/// A request of a feature of this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeclaredId {
    /// Which feature.
    pub feature: u16,
    /// Which of its declared requests.
    pub nth: u16,
}

/// All features of a process and who answers what.
pub struct Registry {
    features: Vec<Box<dyn Feature>>,
    events: BTreeMap<&'static str, DeclaredId>,
}

impl Registry {
    /// Panics when two features declare the same event: that is a mistake in the program.
    pub fn new(features: Vec<Box<dyn Feature>>) -> Self {
        let mut events = BTreeMap::new();
        for (feature, declaration) in features.iter().map(|feature| feature.declaration()).enumerate() {
            for (nth, declared) in declaration.requests.iter().enumerate() {
                let id = DeclaredId { feature: feature as u16, nth: nth as u16 };
                let before = events.insert(declared.event, id);
                assert!(before.is_none(), "{} is declared once", declared.event);
            }
        }
        Registry { features, events }
    }

    pub fn find(&self, event: &str) -> Option<(DeclaredId, &'static Declared)> {
        let id = *self.events.get(event)?;
        Some((id, self.declared(id)))
    }

    pub fn declared(&self, id: DeclaredId) -> &'static Declared {
        &self.features[id.feature as usize].declaration().requests[id.nth as usize]
    }

    pub fn feature(&mut self, id: DeclaredId) -> &mut dyn Feature {
        &mut *self.features[id.feature as usize]
    }

    pub fn all(&mut self) -> &mut [Box<dyn Feature>] {
        &mut self.features
    }
}
