//! What the time brings: heartbeats, silent and idle peers, stalled readers, lingering closes,
//! rooms that nobody needs any more, and the drain's next.
//! Invariant: a tick closes no more than `CLOSES_PER_STEP`; what fell due and is not done comes first
//! at the next.

use crate::base::time::Now;
use crate::kernel::Timer;
use crate::kernel::budget::Account;
use crate::kernel::conns::{Flags, STALL_SLACK, seconds};
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Class, Frame, Shared};
use crate::kernel::ids::ConnId;
use crate::kernel::reasons::CloseReason;
use crate::shard::Shard;
use crate::wire::dialect::{self, DialectId};
use crate::wire::encode::{self, Push};
use crate::wire::frame;
use crate::wire::socketio::Forms;
use crate::wire::sse;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What makes a queued heartbeat, and a queued ping, give way to the next.
const HEARTBEAT_KEY: u64 = 0;
const PING_KEY: u64 = 1;

/// What a heartbeat sends, made once for all that are due: the push in each form that somebody reads,
/// and the ping.
#[derive(Default)]
struct Heartbeat {
    pushes: Vec<(DialectId, Shared)>,
    ping: Option<Shared>,
    comment: Option<Shared>,
}

impl Shard {
    pub(super) fn on_tick(&mut self, now: Now, effects: &mut Effects) {
        let mut due = std::mem::take(&mut self.due);
        self.kernel.wheel.expire(now.at, &mut due);
        let mut heartbeat = Heartbeat::default();
        while let Some(timer) = due.get(self.due_done).filter(|_| self.kernel.closes_left > 0) {
            self.due_done += 1;
            match *timer {
                Timer::Heartbeat(conn) => self.on_heartbeat(now, conn, &mut heartbeat, effects),
                Timer::Stall(conn) => self.on_stall(now, conn, effects),
                Timer::Linger(conn) => self.on_linger(conn, effects),
                Timer::Expiry(conn) => self.kernel.on_expiry(now, conn, effects),
                Timer::Room(room) => self.kernel.check_room(now, room),
                Timer::Asked(ticket) => self.on_silence(now, ticket, effects),
                Timer::Drain => self.drain_some(now, effects),
                Timer::Session(conn) => self.on_session_timer(now, conn, effects),
                Timer::Answer(conn) => self.on_unanswered(now, conn, effects),
            }
        }
        if self.due_done == due.len() {
            due.clear();
            self.due_done = 0;
        }
        self.due = due;
        self.kernel.sweep_replays();
        self.kernel.sweep_buckets(now);
        self.kernel.relieve_again(now, effects);
    }

    pub(super) fn start_heartbeat(&mut self, now: Now, conn: ConnId) {
        let wait = self.heartbeat_wait();
        self.kernel.wheel.set(now.at.after(wait), Timer::Heartbeat(conn));
    }

    /// Up to a fifth early, never late, so that connections of one moment do not beat together.
    fn heartbeat_wait(&mut self) -> Duration {
        let interval = self.kernel.limits.heartbeat;
        let early = self.kernel.random.below(interval.as_nanos() as u64 / 5 + 1);
        interval - Duration::from_nanos(early)
    }

    fn on_heartbeat(&mut self, now: Now, conn: ConnId, made: &mut Heartbeat, effects: &mut Effects) {
        let Some(row) = self.kernel.conns.row(conn).filter(|row| row.is_open()) else { return };
        let silent = seconds(now.at).saturating_sub(row.heard_s);
        let inactive = seconds(now.at).saturating_sub(row.active_s);
        let (dialect, account) = (row.dialect, &self.kernel.memory.account);
        if dialect == dialect::SSE {
            // It cannot answer; that it has gone is the system's to find.
            let comment = made.comment(account);
            self.kernel.push_to(now, conn, &comment, effects);
            self.start_heartbeat(now, conn);
            return self.kernel.watch_expiry(now, conn);
        }
        let limits = &self.kernel.limits;
        if Duration::from_secs(silent.into()) > limits.heartbeat_time_out {
            return self.kernel.close_for(now, conn, CloseReason::Silent, effects);
        }
        if Duration::from_secs(inactive.into()) > limits.idle_time_max {
            return self.kernel.close_for(now, conn, CloseReason::Inactive, effects);
        }
        // Browsers cannot see the ping, other clients need nothing but it. Both share a write.
        let ping = made.ping(account);
        let push =
            dialect.has_envelopes().then(|| made.push(now, dialect.plain(), self.kernel.encoder.forms(), account));
        self.kernel.push_to(now, conn, &ping, effects);
        if let Some(push) = push {
            self.kernel.push_to(now, conn, &push, effects);
        }
        self.start_heartbeat(now, conn);
        self.kernel.watch_expiry(now, conn);
    }

    /// Looks later whether a blocked socket has taken anything.
    pub(super) fn watch_stall(&mut self, now: Now, conn: ConnId) {
        let Some(row) = self.kernel.conns.row_mut(conn) else { return };
        if !row.flags.has(Flags::WATCHED) {
            row.flags.set(Flags::WATCHED);
            // By then the connection's own reckoning, which is coarse, says so too.
            let wait = self.kernel.limits.slow_time + STALL_SLACK;
            self.kernel.wheel.set(now.at.after(wait), Timer::Stall(conn));
        }
    }

    fn on_stall(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        let Some(cold) = self.kernel.conns.cold(conn) else { return };
        let stalled = cold.stalled(now.at);
        let Some(row) = self.kernel.conns.row_mut(conn) else { return };
        row.flags.clear(Flags::WATCHED);
        if !row.flags.has(Flags::BLOCKED) || !row.is_open() {
            return;
        }
        if stalled >= self.kernel.limits.stall_time {
            return self.kernel.close_for(now, conn, CloseReason::StallTime, effects);
        }
        if stalled >= self.kernel.limits.slow_time {
            self.kernel.counters.slow += u64::from(!row.flags.has(Flags::SLOW));
            row.flags.set(Flags::SLOW);
        }
        self.watch_stall(now, conn);
    }

    fn on_linger(&mut self, conn: ConnId, effects: &mut Effects) {
        // The timer is set once, by the close.
        if self.kernel.conns.row(conn).is_some() {
            self.kernel.counters.resets_linger += 1;
            self.kernel.closes_left = self.kernel.closes_left.saturating_sub(1);
            self.kernel.cut_off(conn, effects);
        }
    }
}

// Not logged: what the server says unasked must not make a connection look busy.
impl Heartbeat {
    fn ping(&mut self, account: &Rc<Account>) -> Shared {
        let ping = self.ping.get_or_insert_with(|| {
            let mut bytes = Vec::new();
            frame::ping(&mut bytes, b"");
            Frame::new(account, Arc::from(bytes), Class::Latest { key: PING_KEY })
        });
        ping.clone()
    }

    fn comment(&mut self, account: &Rc<Account>) -> Shared {
        let comment = self
            .comment
            .get_or_insert_with(|| Frame::new(account, Arc::from(sse::COMMENT), Class::Latest { key: PING_KEY }));
        comment.clone()
    }

    fn push(&mut self, now: Now, dialect: DialectId, forms: &Forms, account: &Rc<Account>) -> Shared {
        if let Some((_, push)) = self.pushes.iter().find(|(made, _)| *made == dialect) {
            return push.clone();
        }
        let data = format!(r#"{{"ts":{}}}"#, now.unix_ms);
        let data = data.as_bytes();
        let push = Push { event: "heartbeat", room: None, seq: None, mid: None, ts: None, from: None, data };
        let (mut json, mut bytes) = (Vec::new(), Vec::new());
        encode::push(&mut json, &push);
        dialect::translate(dialect, forms, &mut bytes, &json);
        let push = Frame::new(account, Arc::from(bytes), Class::Latest { key: HEARTBEAT_KEY });
        self.pushes.push((dialect, push.clone()));
        push
    }
}
