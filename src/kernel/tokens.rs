//! The life of an identity: its end comes near and comes, it goes on with a new token, it is taken
//! back.
//! Invariant: a connection is open no longer than its token is good, but for one tick, or one
//! heartbeat where the wall clock jumps. What looks is a timer that is set only where the moment comes
//! before the next heartbeat, which looks again: so hours of idling cost nothing.

use crate::admission::identity::Identity;
use crate::admission::revocations::Revocation;
use crate::admission::token::TokenRefused;
use crate::base::time::Now;
use crate::kernel::conns::{Cold, Flags};
use crate::kernel::effects::Effects;
use crate::kernel::entry::Class;
use crate::kernel::ids::ConnId;
use crate::kernel::reasons::CloseReason;
use crate::kernel::{Kernel, Timer};
use crate::wire::codes::{ErrorCode, WireError};
use crate::wire::encode::{self, Push};
use std::time::Duration;

const EXPIRING: &str = "auth:expiring";
/// What makes a queued warning give way to the next.
const EXPIRING_KEY: u64 = 2;

impl Kernel {
    /// The identity that `token` proves, unless it was taken back.
    pub fn verify(&self, now: Now, token: &str) -> Result<Identity, TokenRefused> {
        let unix_s = now.unix_ms / 1_000;
        let identity = self.verifier.verify(token, unix_s)?;
        if self.revocations.void(&identity, unix_s) { Err(TokenRefused::Revoked) } else { Ok(identity) }
    }

    /// Whether the identity of a connection that opens was taken back on the way here.
    pub fn is_void(&self, now: Now, identity: &Identity) -> bool {
        self.revocations.void(identity, now.unix_ms / 1_000)
    }

    /// Has the connection looked at when its token comes near its end, or to it, if that is before
    /// the next heartbeat.
    pub fn watch_expiry(&mut self, now: Now, conn: ConnId) {
        let Some(row) = self.conns.row(conn).filter(|row| row.is_open()) else { return };
        let was_told = row.flags.has(Flags::TOLD_EXPIRING);
        let Some(left) = self.token_time_left(now, conn) else { return };
        let wait = if was_told { left } else { left.saturating_sub(self.verifier.settings().expiring) };
        if wait <= self.limits.heartbeat {
            self.wheel.set(now.at.after(wait), Timer::Expiry(conn));
        }
    }

    /// `None`: its token never ends.
    fn token_time_left(&self, now: Now, conn: ConnId) -> Option<Duration> {
        let end_unix_s = self.conns.cold(conn)?.identity.expires_unix_s()?;
        Some(Duration::from_millis((end_unix_s * 1_000).saturating_sub(now.unix_ms)))
    }

    /// Does nothing where the token was replaced meanwhile, or the wall clock went back.
    pub fn on_expiry(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(row) = self.conns.row(conn).filter(|row| row.is_open()) else { return };
        let was_told = row.flags.has(Flags::TOLD_EXPIRING);
        let Some(left) = self.token_time_left(now, conn) else { return };
        if left.is_zero() {
            return self.close_for(now, conn, CloseReason::TokenEnded, effects);
        }
        if was_told || left > self.verifier.settings().expiring {
            return;
        }
        if let Some(row) = self.conns.row_mut(conn) {
            row.flags.set(Flags::TOLD_EXPIRING);
        }
        let data = format!(r#"{{"expires_at":{}}}"#, now.unix_ms + left.as_millis() as u64);
        let data = data.as_bytes();
        let push = Push { event: EXPIRING, room: None, seq: None, mid: None, ts: None, from: None, data };
        let mut bytes = Vec::new();
        encode::push(&mut bytes, &push);
        // Not logged: what the server says unasked must not make a connection look busy.
        self.tell(now, conn, &bytes, Class::Latest { key: EXPIRING_KEY }, effects);
        self.wheel.set(now.at.after(left), Timer::Expiry(conn));
    }

    /// The connection goes on with what `token` says of the same user. Says when it ends, seconds
    /// since 1970. Rooms that it is in stay; what is asked from now on is decided by the new token.
    pub fn refresh(
        &mut self,
        now: Now,
        conn: ConnId,
        token: &str,
        effects: &mut Effects,
    ) -> Result<Option<u64>, WireError> {
        let mut fresh = self.verify(now, token).map_err(|refused| {
            effects.keys_wanted |= refused == TokenRefused::UnknownKey;
            WireError::new(refused.code(), refused.to_string())
        })?;
        let cold = self.conns.cold_mut(conn).expect("a request comes from an open connection");
        if fresh.user != cold.identity.user {
            let message = "the token is another user's; open a connection of its own with it";
            return Err(WireError::new(ErrorCode::Forbidden, message));
        }
        let end = fresh.expires_unix_s();
        // The same name, which rooms and requests of the connection share.
        fresh.user = cold.identity.user.clone();
        cold.identity = fresh;
        if let Some(row) = self.conns.row_mut(conn) {
            row.flags.clear(Flags::TOLD_EXPIRING);
        }
        self.watch_expiry(now, conn);
        Ok(end)
    }

    /// Closes the connections that live on what is taken back, and remembers it for tokens to come.
    /// Walks all connections once, so an order had better name all that it means.
    pub fn revoke(&mut self, now: Now, revocations: &[Revocation], effects: &mut Effects) {
        let unix_s = now.unix_ms / 1_000;
        for revocation in revocations {
            self.revocations.add(revocation.clone(), unix_s);
        }
        for slot in 0..self.conns.slots() {
            let conn = self.conns.id_at(slot);
            // A session of Engine.IO may have others in its namespaces; who wants to come in later is asked then.
            let is_session = self.conns.row(conn).is_some_and(|row| row.dialect.mount().is_some());
            let is_void = |cold: &Cold| self.revocations.void(&cold.identity, unix_s);
            if !is_session && self.conns.cold(conn).is_some_and(is_void) {
                self.close_for(now, conn, CloseReason::TokenRevoked, effects);
            }
        }
    }
}
