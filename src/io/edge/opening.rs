//! How a socket becomes a connection of the core, and how it ends.
//! Invariant: the core, the rows and the readiness know a connection together or not at all.

use super::{Edge, State};
use crate::admission::identity::Identity;
use crate::admission::token::TokenRefused;
use crate::base::table::Key;
use crate::base::time::Now;
use crate::io::control::{Held, Wanted, Welcome};
use crate::io::crowd::Counted;
use crate::io::readiness::Who;
use crate::io::rows::Row;
use crate::io::socket;
use crate::io::stream::Stream;
use crate::kernel::ids::ConnId;
use crate::shard::{Input, Opening, StreamOpening};
use crate::wire::dialect::DialectId;
use std::io;
use std::net::IpAddr;

impl Edge {
    /// The identity that `token` proves here and now.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenRefused> {
        let verified = self.state.borrow().shard.verify(self.clock.now(), token);
        if matches!(verified, Err(TokenRefused::UnknownKey)) {
            (self.keys_wanted)();
        }
        verified
    }

    /// Who is served at `path` besides the gateway's own clients.
    pub fn endpoint_at(&self, path: &str) -> Option<DialectId> {
        self.state.borrow().shard.endpoint_at(path)
    }

    /// Whether offers of compression are taken.
    pub fn compresses(&self) -> bool {
        self.state.borrow().shard.compresses()
    }

    /// Who sends no token, where that is allowed.
    pub fn anonymous(&self, label: Option<&str>) -> Option<Identity> {
        let mut random = [0; 16];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        self.state.borrow().shard.anonymous(u128::from_ne_bytes(random), label)
    }

    /// Takes a socket into the core, or gives it back: the shard is full. `is_watched`: it was a guest.
    pub fn open(&self, socket: Stream, is_watched: bool, welcome: Welcome) -> Result<ConnId, Stream> {
        self.within(|state, now| {
            let Welcome { answer, rest, identity, dialect, client, counted, held, stream } = welcome;
            let Some(conn) = self.reserve(state, now, &socket, is_watched) else { return Err(socket) };
            self.audit.connected(now, conn, &identity, client);
            if stream.is_some() {
                // Its client says nothing, so that it has gone shows by what is not acknowledged.
                socket::abandon_after(&socket, state.shard.silence_max());
            }
            self.seat(state, conn, socket, (dialect, rest), (counted, held));
            let greeting = answer.into();
            let input = match stream.map(|wanted| *wanted) {
                None => Input::Open(Box::new(Opening { conn, identity, dialect, greeting })),
                Some(Wanted { secret, is_anonymous, rooms, last_event }) => {
                    Input::OpenStream(Box::new(StreamOpening {
                        conn,
                        identity,
                        is_anonymous,
                        secret,
                        rooms,
                        last_event,
                        greeting,
                    }))
                }
            };
            state.timing.step(&mut state.shard, now, input, &mut state.effects);
            Ok(conn)
        })
    }

    /// A slot for a connection, told of when `socket` has something; `None`: there is none.
    pub(super) fn reserve(&self, state: &mut State, now: Now, socket: &Stream, is_watched: bool) -> Option<ConnId> {
        let conn = state.shard.reserve()?;
        let watched = match is_watched {
            true => state.readiness.rename(socket, Who::Conn(conn)),
            false => state.readiness.watch(socket, Who::Conn(conn)),
        };
        if let Err(error) = watched {
            log::warn!("shard {}: a socket cannot be watched: {error}", self.id.0);
            state.shard.step(now, Input::Gone { conn }, &mut state.effects);
            return None;
        }
        Some(conn)
    }

    /// Gives a reserved connection its row. `rest`: what came behind its request.
    pub(super) fn seat(
        &self,
        state: &mut State,
        conn: ConnId,
        socket: Stream,
        (dialect, rest): (DialectId, Vec<u8>),
        (counted, held): (Option<Counted>, Held),
    ) {
        let limits = state.shard.message_limits(dialect);
        let is_secured = socket.is_secured();
        let mut row = Row::new(conn, socket, dialect, rest, limits);
        if row.has_more() {
            row.queue(&mut state.unread);
            self.reading.raise();
        }
        state.rows.insert(row, counted, held);
        let mut counters = self.counters.borrow_mut();
        counters.opened += 1;
        counters.connections_now += 1;
        counters.tls_connections_now += u64::from(is_secured);
        drop(counters);
        self.came_in();
    }

    /// Refuses who comes from `address`.
    pub fn refuse_from(&self, reason: &'static str, address: IpAddr) {
        self.refuse(reason);
        self.audit_refusal(address, None);
    }

    /// Tells the audit log of a request that was just refused, if it was: who refuses calls this too.
    pub fn audit_refusal(&self, address: IpAddr, origin: Option<&str>) {
        if let Some(reason) = self.refused_last.take() {
            self.audit.refused(self.clock.now(), reason, address, origin);
        }
    }

    /// Has a guest told of that becomes readable.
    pub fn watch_guest(&self, socket: &Stream, key: Key, is_watched: bool) -> io::Result<()> {
        let readiness = &self.state.borrow().readiness;
        match is_watched {
            true => readiness.rename(socket, Who::Guest(key)),
            false => readiness.watch(socket, Who::Guest(key)),
        }
    }

    /// Has a guest told of that takes bytes again, too.
    pub fn watch_guest_for_room(&self, socket: &Stream, key: Key) -> io::Result<()> {
        self.state.borrow().readiness.await_room(socket, Who::Guest(key))
    }

    /// No longer: it goes to another shard.
    pub fn forget_guest(&self, socket: &Stream) -> io::Result<()> {
        self.state.borrow().readiness.forget(socket)
    }

    /// The socket has ended: closes it.
    pub(super) fn gone(&self, conn: ConnId) {
        self.within(|state, now| {
            let Some(row) = state.rows.remove(conn) else { return };
            let is_secured = row.socket.is_secured();
            drop(row);
            state.sessions.forget(conn);
            let mut counters = self.counters.borrow_mut();
            counters.closed += 1;
            counters.connections_now -= 1;
            counters.tls_connections_now -= u64::from(is_secured);
            drop(counters);
            state.timing.step(&mut state.shard, now, Input::Gone { conn }, &mut state.effects);
        });
    }
}
