//! A connection ends: by a close frame of ours or the peer's, or by its socket.
//! Invariant: from the close on, the connection is in no room and nothing more is queued for it; what
//! it still pins is let go of after [`LINGER`], or with its reset.

use crate::admission::identity::Identity;
use crate::base::limits::LINGER;
use crate::base::time::Now;
use crate::kernel::audited::{self, Audited};
use crate::kernel::carriers::State;
use crate::kernel::conns::Flags;
use crate::kernel::effects::Effects;
use crate::kernel::entry::Frame;
use crate::kernel::fan_out::list;
use crate::kernel::ids::{ConnId, RoomId, ShardId};
use crate::kernel::mail::Gone;
use crate::kernel::mounts;
use crate::kernel::outbox::Outbox;
use crate::kernel::reasons::{CloseReason, Dropped};
use crate::kernel::{Kernel, Timer};
use crate::wire::codes::CloseCode;
use crate::wire::{dialect, frame, sse};

/// What is told of a socket that ended without a close frame (`RFC 6455` section 7.4.1).
const CLOSED_WITHOUT_A_WORD: u16 = 1006;

impl Kernel {
    /// Says goodbye with `code`. What is queued goes first, but not to a slow consumer: it gets
    /// the frame that it is in the middle of, then the close.
    pub fn close(&mut self, now: Now, conn: ConnId, code: CloseCode, reason: &str, effects: &mut Effects) {
        self.close_with(now, conn, (code, code.as_u16()), reason, effects);
    }

    /// Answers the peer's close with its own code (`RFC 6455` section 5.5.1), which is what a page is told of
    /// its socket's end; 1000 where it named none. It counts as an ordinary end whatever it says: what clients
    /// choose must not look like what the server decides.
    pub fn answer_close(&mut self, now: Now, conn: ConnId, code: Option<u16>, effects: &mut Effects) {
        let number = code.unwrap_or(CloseCode::Normal.as_u16());
        let is_leaving = number == CloseCode::GoingAway.as_u16();
        let counted = if is_leaving { CloseCode::GoingAway } else { CloseCode::Normal };
        self.close_with(now, conn, (counted, number), "", effects);
    }

    /// Closes: counted as the one, sent as the other.
    pub(super) fn close_with(
        &mut self,
        now: Now,
        conn: ConnId,
        (counted, number): (CloseCode, u16),
        reason: &str,
        effects: &mut Effects,
    ) {
        let Some(row) = self.conns.row_mut(conn).filter(|row| row.is_open()) else { return };
        if row.flags.has(Flags::RIDER) {
            return self.close_rider(now, conn, (counted, number), reason, effects);
        }
        let is_carrier = row.dialect.mount().is_some();
        if counted == CloseCode::SlowConsumer {
            row.outbox.cut(|frame| self.counters.drop(Dropped::cut(frame.class()), 1));
        }
        let mut bytes = Vec::new();
        match row.dialect {
            // An event whose end was cut off must stay without one.
            dialect::SSE if counted == CloseCode::SlowConsumer => bytes.extend_from_slice(sse::SILENCE),
            dialect::SSE => sse::close(&mut bytes, number, reason),
            _ => frame::close(&mut bytes, number, reason),
        }
        row.outbox.push_last(&Frame::logged(&self.memory.account, &bytes));
        row.flags.set(Flags::CLOSING);
        list(conn, row, &mut effects.dirty);
        self.counters.close(counted);
        self.closes_left = self.closes_left.saturating_sub(1);
        self.audit_close(conn, number, reason, effects);
        self.wheel.set(now.at.after(LINGER), Timer::Linger(conn));
        effects.closing.push(conn);
        if !is_carrier {
            return self.leave_all(conn, effects);
        }
        self.end_riders(now, conn, (number, reason), effects);
        if let Some(carrier) = self.carriers.get_mut(conn) {
            carrier.closing = Some(counted);
        }
        self.give_up_probe(conn);
    }

    /// Closes for a reason of the core's own, and counts it.
    pub fn close_for(&mut self, now: Now, conn: ConnId, reason: CloseReason, effects: &mut Effects) {
        if self.conns.is_open(conn) {
            self.counters.close_for(reason);
            self.close(now, conn, reason.code(), reason.text(), effects);
        }
    }

    /// Cuts a closing connection that pins memory: not even what its socket has in part is sent.
    pub fn reset(&mut self, conn: ConnId, effects: &mut Effects) {
        let Some(row) = self.conns.row_mut(conn) else { return };
        row.outbox = Outbox::default();
        self.counters.resets_memory += 1;
        self.closes_left = self.closes_left.saturating_sub(1);
        self.cut_off(conn, effects);
    }

    /// Has the world let go of a connection at once.
    pub fn cut_off(&mut self, conn: ConnId, effects: &mut Effects) {
        let has_socket = self.carriers.get(conn).is_none_or(|carrier| !matches!(carrier.state, State::Polling { .. }));
        if has_socket { effects.reset.push(conn) } else { effects.ended.push(conn) }
    }

    /// The socket is closed: the slot is free.
    pub fn gone(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        if self.conns.row(conn).is_some_and(|row| row.dialect.mount().is_some()) {
            self.end_riders(now, conn, (CLOSED_WITHOUT_A_WORD, "the socket ended"), effects);
            self.carriers.remove(conn);
        }
        if let Some(row) = self.conns.row(conn) {
            self.counters.blocked -= u64::from(row.flags.has(Flags::BLOCKED));
            self.counters.slow -= u64::from(row.flags.has(Flags::SLOW));
            if row.is_open() {
                self.audit_close(conn, CLOSED_WITHOUT_A_WORD, "the socket ended", effects);
            }
            self.leave_all(conn, effects);
            self.counters.gone += 1;
        }
        self.conns.free(conn);
    }

    pub(super) fn audit_close(&self, conn: ConnId, code: u16, reason: &str, effects: &mut Effects) {
        // Sessions are nobody's, and of whom an application let in it did not tell.
        let is_told = |identity: &Identity| !mounts::is_of_application(identity.tenant());
        if self.limits.audit.is_on
            && self.conns.row(conn).is_some_and(|row| row.dialect.mount().is_none())
            && let Some(cold) = self.conns.cold(conn).filter(|cold| is_told(&cold.identity))
        {
            let (user, reason) = (cold.identity.user.clone(), audited::reason(reason));
            effects.audit.push(Audited::Closed { conn, user, code, reason });
        }
    }

    pub(super) fn leave_all(&mut self, conn: ConnId, effects: &mut Effects) {
        if let Some(cold) = self.conns.cold_mut(conn) {
            cold.replays = None;
        }
        self.drop_asked(conn);
        self.end_stream(conn, effects);
        let mut left = self.membership.detach_all(conn.0.slot);
        // By home alone: places in a home's table come of all tenants' rooms, and must not show in an order.
        left.sort_by_key(|(home, _)| *home);
        for of_home in left.chunk_by(|a, b| a.0 == b.0) {
            let rooms = of_home.iter().map(|(_, room)| *room).collect();
            self.tell_gone(of_home[0].0, conn, rooms, effects);
        }
    }

    /// Tells a home that the connection is not in these rooms any more.
    pub fn tell_gone(&mut self, home: ShardId, conn: ConnId, rooms: Vec<RoomId>, effects: &mut Effects) {
        self.lanes.send_gone(home, Box::new(Gone { conn, rooms }), effects);
    }
}
