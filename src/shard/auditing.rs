//! Requests of clients for the audit log, where their events are wanted.

use super::Shard;
use super::intake::{Targets, targets};
use crate::kernel::audited::{Audited, Rooms};
use crate::kernel::effects::Effects;
use crate::kernel::feature::{Answer, Declared};
use crate::kernel::ids::ConnId;
use crate::wire::codes::WireError;
use crate::wire::envelope::Data;

impl Shard {
    /// What to tell of a request once it has its answer.
    pub(super) fn audited(&self, event: &str, targets: &Targets<'_>) -> Option<Box<Rooms>> {
        self.kernel.limits.audit.wants(event).then(|| Box::new(targets.audited()))
    }

    /// A request that was refused before it became one.
    pub(super) fn audit_refused(
        &self,
        conn: ConnId,
        declared: &'static Declared,
        data: Data<'_>,
        error: &WireError,
        effects: &mut Effects,
    ) {
        if self.kernel.limits.audit.wants(declared.event) {
            let targets = targets(declared, data, self.kernel.limits.rooms_per_request);
            let rooms = targets.map(|targets| targets.audited()).unwrap_or_default();
            self.tell_request(conn, declared.event, rooms, Some(error), effects);
        }
    }

    /// A request of a connection, about no room, has its answer.
    pub(super) fn audit_answer(&self, conn: ConnId, event: &'static str, answer: &Answer, effects: &mut Effects) {
        if self.kernel.limits.audit.wants(event) {
            self.tell_request(conn, event, Rooms::default(), answer.as_ref().err(), effects);
        }
    }

    pub(super) fn tell_request(
        &self,
        conn: ConnId,
        event: &'static str,
        rooms: Rooms,
        error: Option<&WireError>,
        effects: &mut Effects,
    ) {
        // Nobody is named for an answer that came after its connection had gone.
        let Some(cold) = self.kernel.conns.cold(conn) else { return };
        let (user, refused) = (cold.identity.user.clone(), error.map(|error| error.code.as_str()));
        effects.audit.push(Audited::Request { conn, user, event, rooms, refused });
    }
}

impl Targets<'_> {
    fn audited(&self) -> Rooms {
        match self {
            Targets::Room(room) => Rooms::of([&**room].into_iter()),
            Targets::User(user) => Rooms::of([&*format!("user:{user}")].into_iter()),
            Targets::Rooms(rooms) => Rooms::of(rooms.iter().map(|room| &**room)),
        }
    }
}
