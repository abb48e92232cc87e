//! Carriers: Engine.IO sessions, which carry the packets of one client, over polling or a WebSocket; and
//! riders: what a client is in each Socket.IO namespace, a connection of its own with an identity and rooms,
//! whose packets its carrier brings.
//! Invariants: a rider's outbox is empty, for what it is sent lies in its carrier's, so all that one client
//! gets has one order and one bound; a carrier is open while it has riders.

use crate::admission::identity::Identity;
use crate::admission::token::TokenRefused;
use crate::base::pages::Pages;
use crate::base::time::{Instant, Now};
use crate::kernel::conns::Flags;
use crate::kernel::effects::Effects;
use crate::kernel::entry::{Class, Frame};
use crate::kernel::ids::ConnId;
use crate::kernel::membership::ConnSlot;
use crate::kernel::{Kernel, Timer};
use crate::wire::codes::{CloseCode, ErrorCode, WireError};
use crate::wire::encode;
use crate::wire::socketio::{self, Forms};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::Duration;

/// A GET that waits for packets, as the edge calls it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PollId(pub u64);

/// How a client of Engine.IO is heard and told things at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// By one HTTP request after the other. It has no socket that the core knows.
    Polling,
    WebSocket,
    /// A WebSocket that is to take over from the polling of this session, and is a connection of its own until
    /// then.
    Probe {
        of: ConnId,
    },
}

/// What becomes of a GET.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PollAnswer {
    /// 200 with this payload.
    Packets(Vec<u8>),
    /// 400: the session is not to be asked so, or has ended.
    Refused,
    /// To a request of a stream's client: the native reply, and where it is a refusal, why and when to try again
    /// (ms).
    Reply { refused: Option<(ErrorCode, Option<u64>)>, body: Vec<u8> },
}

/// Somebody named itself, and may come in if its user's limits allow it: answered by `Input::Entered`.
#[derive(Clone, PartialEq, Debug)]
pub struct Entrant {
    /// In this namespace.
    pub conn: ConnId,
    /// By this session, which is not read until the answer.
    pub carrier: ConnId,
    pub identity: Identity,
}

/// How a session is heard now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Polling {
        /// The GET that waits.
        parked: Option<PollId>,
        /// The WebSocket that is to take over, and whether it asked to (`2probe`): from then on nothing is
        /// given to GETs.
        probe: Option<(ConnId, bool)>,
    },
    WebSocket,
    Probe {
        of: ConnId,
    },
}

impl State {
    /// Whether the WebSocket `conn` has asked to take over.
    pub fn is_asked_by(self, conn: ConnId) -> bool {
        matches!(self, State::Polling { probe: Some((probe, true)), .. } if probe == conn)
    }
}

/// A packet whose attachments are on their way.
pub struct Assembling {
    /// The text behind the packet's type.
    pub packet: Box<str>,
    pub missing: usize,
    pub attachments: Vec<Vec<u8>>,
    pub bytes: usize,
    pub until: Instant,
}

/// Somebody who may come in if the limits of its user allow it.
pub struct Entering {
    /// The rider's, which is reserved.
    pub conn: ConnId,
    pub namespace: usize,
    pub identity: Identity,
}

pub struct Carrier {
    pub secret: [u8; 12],
    pub state: State,
    pub riders: SmallVec<[ConnId; 1]>,
    /// When the next ping is to leave.
    pub ping_at: Instant,
    /// By when the last has its answer.
    pub pong_by: Option<Instant>,
    /// Since when it is without a rider.
    pub alone_since: Option<Instant>,
    /// Why the token that came with the first request is not good.
    pub refused: Option<TokenRefused>,
    pub assembling: Option<Box<Assembling>>,
    pub entering: Option<Box<Entering>>,
    /// Of whom an application has not heard, and what it came in with.
    pub ungreeted: Option<Box<(ConnId, Box<str>)>>,
    /// Its client says goodbye, and may have a GET under way.
    pub is_leaving: bool,
    /// Its client hears no more.
    pub is_deaf: bool,
    /// What it is closing with.
    pub closing: Option<CloseCode>,
}

impl Carrier {
    /// It is closing by the server's wish, and what it is told goes to the next GET, if one comes.
    pub fn is_lingering(&self) -> bool {
        let is_by_wish = matches!(self.closing, Some(CloseCode::Normal)) || self.is_to_come_back();
        is_by_wish && !self.is_deaf && matches!(self.state, State::Polling { .. })
    }

    /// Its client is to open another session.
    pub fn is_to_come_back(&self) -> bool {
        matches!(self.closing, Some(CloseCode::GoingAway | CloseCode::Restart))
    }
}

struct Rider {
    carrier: ConnId,
    /// What an application asked it. Nearly nobody is asked anything.
    asked: Option<Box<Asked>>,
}

#[derive(Default)]
struct Asked {
    next: u64,
    open: Vec<Question>,
}

struct Question {
    ack: u64,
    question: u64,
    until: Instant,
}

/// By the slots of their connections; no memory where nobody speaks Engine.IO.
#[derive(Default)]
pub struct Carriers {
    carriers: Pages<Option<Box<Carrier>>>,
    riders: Pages<Option<Rider>>,
}

impl Carriers {
    pub fn insert(&mut self, conn: ConnId, carrier: Carrier) {
        put(&mut self.carriers, conn.0.slot, Box::new(carrier));
    }

    /// The carrier of an open or closing connection.
    pub fn get(&self, conn: ConnId) -> Option<&Carrier> {
        self.carriers.get(conn.0.slot as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, conn: ConnId) -> Option<&mut Carrier> {
        self.carriers.get_mut(conn.0.slot as usize)?.as_deref_mut()
    }

    pub fn remove(&mut self, conn: ConnId) -> Option<Box<Carrier>> {
        self.carriers.get_mut(conn.0.slot as usize)?.take()
    }

    /// Whose packets bring what is sent to a rider; `None`: it is none.
    #[inline]
    pub fn carrier_of(&self, conn: ConnId) -> Option<ConnId> {
        self.riders.get(conn.0.slot as usize)?.as_ref().map(|rider| rider.carrier)
    }

    /// Where a connection is heard: itself, or its carrier.
    pub fn transport_of(&self, conn: ConnId) -> ConnId {
        self.carrier_of(conn).unwrap_or(conn)
    }

    fn rider_mut(&mut self, conn: ConnId) -> Option<&mut Rider> {
        self.riders.get_mut(conn.0.slot as usize)?.as_mut()
    }
}

fn put<T>(pages: &mut Pages<Option<T>>, slot: ConnSlot, value: T) {
    while pages.len() <= slot as usize {
        pages.push(None);
    }
    pages[slot as usize] = Some(value);
}

impl Kernel {
    /// Counts the slot, which the connection was opened in, among the riders of `carrier`.
    pub fn ride(&mut self, carrier: ConnId, conn: ConnId) {
        put(&mut self.carriers.riders, conn.0.slot, Rider { carrier, asked: None });
        if let Some(row) = self.conns.row_mut(conn) {
            row.flags.set(Flags::RIDER);
        }
        let carrier = self.carriers.get_mut(carrier).expect("a rider has an open carrier");
        carrier.riders.push(conn);
        carrier.alone_since = None;
        self.counters.riders_opened += 1;
    }

    /// The name of the namespace that a rider is in.
    fn namespace_of(&self, conn: ConnId) -> Option<(Arc<Forms>, usize)> {
        let nth = self.conns.row(conn)?.dialect.namespace()?;
        Some((self.encoder.forms().clone(), nth))
    }

    /// Queues packets of a rider's namespace, which `write` appends as frames.
    pub fn send_packet(
        &mut self,
        now: Now,
        conn: ConnId,
        class: Class,
        write: impl FnOnce(&mut Vec<u8>, &str),
        effects: &mut Effects,
    ) {
        let Some(row) = self.conns.row(conn).filter(|row| row.is_open()) else { return };
        let dialect = row.dialect;
        let Some((forms, nth)) = self.namespace_of(conn) else { return };
        let Some(name) = forms.get(nth).map(|form| &*form.namespace) else { return };
        let bytes = self.encoder.frames(dialect, |out| write(out, name));
        let frame = Frame::new(&self.memory.account, Arc::from(bytes), class);
        self.push_to(now, conn, &frame, effects);
    }

    /// The number under which a rider is to answer; `None`: it has gone.
    pub fn expect_answer(&mut self, now: Now, conn: ConnId, within: Duration, question: u64) -> Option<u64> {
        if !self.conns.is_open(conn) {
            return None;
        }
        let asked = self.carriers.rider_mut(conn)?.asked.get_or_insert_default();
        let ack = asked.next;
        asked.next += 1;
        let until = now.at.after(within);
        asked.open.push(Question { ack, question, until });
        self.wheel.set(until, Timer::Answer(conn));
        Some(ack)
    }

    /// The question that a rider's acknowledgement answers.
    pub fn answered(&mut self, conn: ConnId, ack: u64) -> Option<u64> {
        let open = &mut self.carriers.rider_mut(conn)?.asked.as_mut()?.open;
        let nth = open.iter().position(|question| question.ack == ack)?;
        Some(open.remove(nth).question)
    }

    /// Questions of a rider that have had no answer in time.
    pub fn unanswered(&mut self, now: Now, conn: ConnId) -> Vec<u64> {
        let mut late = Vec::new();
        if self.conns.is_open(conn)
            && let Some(asked) = self.carriers.rider_mut(conn).and_then(|rider| rider.asked.as_mut())
        {
            asked.open.retain(|question| {
                let is_late = question.until <= now.at;
                if is_late {
                    late.push(question.question);
                }
                !is_late
            });
        }
        late
    }

    /// Puts a rider out of its namespace, and tells its client.
    pub fn put_out(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        self.send_packet(now, conn, Class::Logged, socketio::disconnect, effects);
        self.end_rider(now, conn, (CloseCode::Normal.as_u16(), "put out"), effects);
    }

    pub fn put_out_all(&mut self, now: Now, carrier: ConnId, effects: &mut Effects) {
        let riders = self.carriers.get(carrier).map(|carrier| carrier.riders.clone()).unwrap_or_default();
        riders.into_iter().for_each(|rider| self.put_out(now, rider, effects));
    }

    /// A rider is in no room and no namespace any more. What was queued for it still goes. `why`: for the audit
    /// log, as a close code and words.
    pub fn end_rider(&mut self, now: Now, conn: ConnId, why: (u16, &str), effects: &mut Effects) {
        let Some(carrier) = self.carriers.carrier_of(conn) else { return };
        self.audit_close(conn, why.0, why.1, effects);
        self.leave_all(conn, effects);
        if let Some(row) = self.conns.row(conn).filter(|row| row.flags.has(Flags::SERVED))
            && let Some(nth) = row.dialect.namespace()
        {
            self.farewells.push((nth, conn));
        }
        self.carriers.riders[conn.0.slot as usize] = None;
        self.conns.free(conn);
        self.counters.riders_gone += 1;
        effects.left.push(conn);
        let Some(row) = self.carriers.get_mut(carrier) else { return };
        row.riders.retain(|rider| *rider != conn);
        if row.riders.is_empty() {
            row.alone_since = Some(now.at);
        }
    }

    pub(super) fn end_riders(&mut self, now: Now, carrier: ConnId, why: (u16, &str), effects: &mut Effects) {
        let riders = self.carriers.get(carrier).map(|carrier| carrier.riders.clone()).unwrap_or_default();
        riders.into_iter().for_each(|rider| self.end_rider(now, rider, why, effects));
        if let Some(entering) = self.carriers.get_mut(carrier).and_then(|carrier| carrier.entering.take()) {
            self.conns.free(entering.conn);
        }
    }

    /// Where this was the probe of a session, polling goes on as if it had never been.
    pub fn give_up_probe(&mut self, conn: ConnId) {
        let Some(State::Probe { of }) = self.carriers.get(conn).map(|carrier| carrier.state) else { return };
        if self.conns.row(of).is_some()
            && let Some(Carrier { state: State::Polling { probe, .. }, .. }) = self.carriers.get_mut(of)
            && probe.is_some_and(|(probe, _)| probe == conn)
        {
            *probe = None;
        }
    }

    /// Closes a rider: where its identity is no longer good it is put out of its namespace, and other
    /// namespaces of its client stay; else its client is to come back, for which the transport has to end.
    pub(super) fn close_rider(
        &mut self,
        now: Now,
        conn: ConnId,
        (counted, number): (CloseCode, u16),
        reason: &str,
        effects: &mut Effects,
    ) {
        let is_about_identity = matches!(
            counted,
            CloseCode::Unauthorized | CloseCode::Forbidden | CloseCode::SessionRevoked | CloseCode::Replaced
        );
        if is_about_identity {
            self.counters.close(counted);
            self.closes_left = self.closes_left.saturating_sub(1);
            self.tell_end(now, conn, counted, reason, effects);
            self.send_packet(now, conn, Class::Logged, socketio::disconnect, effects);
            self.end_rider(now, conn, (number, reason), effects);
        } else if let Some(carrier) = self.carriers.carrier_of(conn) {
            self.close_with(now, carrier, (counted, number), reason, effects);
        }
    }

    /// What a close frame would say, to one whose transport stays.
    fn tell_end(&mut self, now: Now, conn: ConnId, code: CloseCode, reason: &str, effects: &mut Effects) {
        let code = match code {
            CloseCode::Forbidden => ErrorCode::Forbidden,
            CloseCode::Replaced => ErrorCode::Conflict,
            _ => ErrorCode::Unauthorized,
        };
        let mut bytes = Vec::new();
        encode::error_push(&mut bytes, None, &WireError::new(code, reason.to_owned()));
        self.tell(now, conn, &bytes, Class::Logged, effects);
    }
}
