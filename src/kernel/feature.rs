//! What a feature is to the kernel: a declaration, and handlers that are called with a scope.

use crate::admission::gate::{Admitted, Asks};
use crate::admission::names::RoomName;
use crate::admission::rights::{Rate, Right};
use crate::kernel::facts::Fact;
use crate::kernel::ids::{Epoch, Place};
use crate::kernel::mail::Request;
use crate::kernel::scope::{ConnScope, RoomScope};
use crate::wire::codes::WireError;
use crate::wire::envelope::Data;

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

/// What a request that succeeded is answered with.
#[derive(PartialEq, Debug)]
pub enum Told {
    /// The data of the reply.
    Json(Vec<u8>),
    /// Where a message was placed: becomes JSON where somebody reads it, if anybody does.
    Receipt { place: Place, epoch: Epoch },
}

impl Told {
    /// The data of the reply, made in `scratch` where it has to be.
    pub fn json<'a>(&'a self, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Told::Json(json) => json,
            Told::Receipt { place, epoch } => {
                scratch.clear();
                write_receipt(scratch, *place, *epoch);
                scratch
            }
        }
    }
}

/// `{mid, seq, pos}`; `pos` is where the message stands.
fn write_receipt(out: &mut Vec<u8>, place: Place, epoch: Epoch) {
    // By hand: each publish that wants an answer comes by here.
    let mut seq = itoa::Buffer::new();
    let seq = seq.format(place.seq.0).as_bytes();
    let (mid, epoch) = (place.mid.text(), epoch.text());
    for piece in [br#"{"mid":""#, &mid[..], br#"","seq":"#, seq, br#","pos":""#, &epoch[..], b"-", seq, br#""}"#] {
        out.extend_from_slice(piece);
    }
}

pub type Answer = Result<Told, WireError>;

/// The answer of one of several rooms.
pub struct RoomAnswer {
    pub room: Box<str>,
    pub answer: Answer,
}

/// A request that the connection's own shard answers.
pub struct ConnRequest<'a> {
    pub event: &'static str,
    pub needs: Right,
    pub data: Data<'a>,
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
    fn on_room_request(&mut self, _scope: &mut RoomScope<'_>, request: &Admitted<Request>, _data: Data<'_>) -> Answer {
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
    /// Short names first: nearly every name is told from the others by its length.
    events: Vec<(DeclaredId, &'static Declared)>,
}

impl Registry {
    /// Panics when two features declare the same event: that is a mistake in the program.
    pub fn new(features: Vec<Box<dyn Feature>>) -> Self {
        let mut events: Vec<(DeclaredId, &'static Declared)> = Vec::new();
        for (feature, declaration) in features.iter().map(|feature| feature.declaration()).enumerate() {
            for (nth, declared) in declaration.requests.iter().enumerate() {
                let id = DeclaredId { feature: feature as u16, nth: nth as u16 };
                let is_new = events.iter().all(|(_, other)| other.event != declared.event);
                assert!(is_new, "{} is declared once", declared.event);
                events.push((id, declared));
            }
        }
        events.sort_by_key(|(_, declared)| declared.event.len());
        Registry { features, events }
    }

    pub fn find(&self, event: &str) -> Option<(DeclaredId, &'static Declared)> {
        let first = self.events.partition_point(|(_, declared)| declared.event.len() < event.len());
        let as_long = self.events[first..].iter().take_while(|(_, declared)| declared.event.len() == event.len());
        as_long.copied().find(|(_, declared)| declared.event == event)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::ids::{Cursor, Mid, Pos, Seq};

    #[test]
    fn a_receipt_is_json_whose_cursors_are_read_back() {
        let place = Place { mid: Mid(0x0123_4567_89ab_cdef << 32), seq: Seq(1_234_567) };
        let epoch = Epoch(u64::MAX);
        let mut scratch = b"what was here before".to_vec();
        let told = Told::Receipt { place, epoch };
        let receipt: serde_json::Value = serde_json::from_slice(told.json(&mut scratch)).expect("JSON");
        assert_eq!(receipt["seq"], 1_234_567);
        assert_eq!(Cursor::parse(receipt["mid"].as_str().expect("text")), Some(Cursor::Mid(place.mid)));
        let pos = Pos { epoch, seq: place.seq };
        assert_eq!(Cursor::parse(receipt["pos"].as_str().expect("text")), Some(Cursor::Pos(pos)));
    }
}
