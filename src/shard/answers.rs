//! Answers from outside, and what they set free: the request that was asked about, and those of its
//! connection and room that waited behind it.

use crate::admission::gate::{self, Admitted, Verdict};
use crate::base::time::Now;
use crate::kernel::asked::{Outside, Ticket, Wait, Waiting, silent};
use crate::kernel::effects::Effects;
use crate::kernel::ids::{CallId, ConnId, ShardId};
use crate::kernel::mail::Request;
use crate::shard::Shard;
use crate::wire::codes::WireError;

impl Shard {
    /// An answer that comes a second time, too late, or for a connection that has gone is nobody's.
    pub(super) fn on_answer(&mut self, now: Now, ticket: Ticket, outside: Outside, effects: &mut Effects) {
        if let Some(wait) = self.kernel.asking.take(ticket) {
            self.conclude(now, wait, outside.into_answer(), false, effects);
        }
    }

    /// Nobody has answered in time.
    pub(super) fn on_silence(&mut self, now: Now, ticket: Ticket, effects: &mut Effects) {
        if let Some(wait) = self.kernel.asking.take(ticket) {
            self.kernel.counters.asked_timed_out += 1;
            self.conclude(now, wait, Err(silent()), true, effects);
        }
    }

    /// `is_silent`: what would have to be asked next is refused too, instead of waiting as long again.
    fn conclude(
        &mut self,
        now: Now,
        wait: Wait,
        answer: Result<(), WireError>,
        is_silent: bool,
        effects: &mut Effects,
    ) {
        let Wait { conn, first, mut behind } = wait;
        let (call, part) = (first.request.call, first.request.part);
        let Waiting { home, paid, request } = first;
        match request.answered(answer, &self.standing(conn, paid)) {
            Ok(admitted) => self.set_free(conn, home, admitted),
            Err(error) => self.deny(conn, call, part, error),
        }
        while let Some(Waiting { home, paid, request }) = behind.pop_front() {
            let (call, part) = (request.call, request.part);
            match gate::admit(*request, &self.standing(conn, paid)) {
                Verdict::Admitted(admitted) => self.set_free(conn, home, admitted),
                Verdict::Refused(error) => self.deny(conn, call, part, error),
                Verdict::Asked(_) if is_silent => self.deny(conn, call, part, silent()),
                Verdict::Asked(asked) => {
                    let first = Waiting { home, paid, request: Box::new(asked) };
                    self.kernel.ask_next(now, Wait { conn, first, behind }, effects);
                    break;
                }
            }
        }
        self.send(conn, effects);
        self.flush_answered(now, effects);
    }

    /// What waited is on its way with the next [`Shard::send`], which counts it as pending again.
    fn set_free(&mut self, conn: ConnId, home: ShardId, admitted: Admitted<Request>) {
        self.no_longer_pending(conn);
        self.requests.push((home, Box::new(admitted)));
    }

    fn deny(&mut self, conn: ConnId, call: CallId, part: u16, error: WireError) {
        self.no_longer_pending(conn);
        if self.kernel.calls.is_many(call) {
            // The reply as a whole is none, and so counts none.
            self.kernel.counters.error(&error);
        }
        self.answered.extend(self.kernel.calls.answer(call, part, Err(error)));
    }

    fn no_longer_pending(&mut self, conn: ConnId) {
        if let Some(cold) = self.kernel.conns.cold_mut(conn) {
            cold.pending -= 1;
        }
    }
}
