//! The edge of one shard: the core, its lanes, its sockets, and what all tasks of the thread share.
//! Invariant: the state is borrowed within one call and never across an `await`, so no task ever
//! finds it taken; and effects are carried out before the borrow ends.
//!
//! Here stands what all share; by subject: `opening` (a socket becomes a connection, and ends),
//! `reading` (sockets to core), `flushing` (core to sockets), `sessions` (of Engine.IO, which may have no
//! socket), `mailing` (between shards).

mod flushing;
mod mailing;
mod opening;
mod reading;
#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod secured;
mod sessions;

pub use sessions::{Heard, secret};

use crate::admission::policy::Policy;
use crate::admission::token::Verifier;
use crate::base::time::{Instant, Now};
use crate::io::audit::{Teller, Told};
use crate::io::callers::Callers;
use crate::io::clock::Clock;
use crate::io::control::{Controls, Door};
use crate::io::counters::{Counters, Report};
use crate::io::crowd::Crowd;
use crate::io::engine::regulars::Regulars;
use crate::io::entrance::Entrance;
use crate::io::lanes::Lanes;
use crate::io::process::Descriptors;
use crate::io::pulse::Pulses;
use crate::io::readiness::Readiness;
use crate::io::rows::{Rows, Standing};
use crate::io::runtime::Driver;
use crate::io::signal::Signal;
use crate::io::socket::{self, Shut};
use crate::io::timing::Timing;
use crate::io::tls::{News, Served};
use crate::io::tuning::Tuning;
use crate::io::turn::Turn;
use crate::io::users::Users;
use crate::io::waiting::Waiting;
use crate::kernel::asked::Outside;
use crate::kernel::effects::Effects;
use crate::kernel::ids::{ConnId, ShardId};
use crate::kernel::mail::Mail;
use crate::kernel::placement::Placement;
use crate::shard::{DrainPace, Input, Shard};
use crate::wire::deflate::Inflater;
use flushing::Flushing;
use mailing::Mailing;
use sessions::Sessions;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::task::Poll;
use std::time::Duration;

/// The tick comes at least this often: deadlines set meanwhile are late by no more.
const TICK_BUSY: Duration = Duration::from_millis(100);
const TICK_IDLE: Duration = Duration::from_secs(1);
/// And not more often than the core's wheel turns.
const TICK_MIN: Duration = crate::base::wheel::TICK;

/// Says that newer keys are wanted; from any shard, as often as it likes.
pub type KeysWanted = Arc<dyn Fn() + Send + Sync>;

pub struct Edge {
    pub id: ShardId,
    pub driver: Driver,
    pub clock: Clock,
    pub placement: Placement,
    pub doors: Arc<[Door]>,
    pub crowd: Crowd,
    pub callers: Arc<Callers>,
    pub users: Arc<Users>,
    /// Who may come in.
    pub entrance: RefCell<Arc<Entrance>>,
    /// What TLS is spoken with, to those that come from now on.
    pub tls: RefCell<Option<Served>>,
    pub descriptors: Descriptors,
    /// Called when a token names a key that is not here.
    keys_wanted: KeysWanted,
    pub handshake_time: Duration,
    pub tuning: Tuning,
    /// Shards that run on the processor of this one, itself included.
    pub sharers: usize,
    pub controls: Controls,
    pulses: Arc<Pulses>,
    /// Something waits to be read.
    pub reading: Signal,
    /// Something waits to be written or rung.
    pub flush: Signal,
    /// A crowd's writes wait for more to join.
    pub held: Signal,
    /// A turn has begun.
    pub began: Signal,
    /// There was work.
    pub worked: Signal,
    pub turn: Turn,
    pub stop: Signal,
    /// The tick is to come sooner than it was to.
    pub sooner: Signal,
    draining: Arc<AtomicBool>,
    /// One for each listener: it is to listen no more.
    pub leaving: RefCell<Vec<Rc<Signal>>>,
    pub waiting: RefCell<Waiting>,
    /// Never borrowed while a step runs: what it brings may be an answer to one of them.
    pub regulars: RefCell<Regulars>,
    pub counters: RefCell<Counters>,
    pub audit: Teller,
    /// Why the last request to connect was refused, until the audit log is told.
    refused_last: Cell<Option<&'static str>>,
    /// What a socket is read into: nobody keeps it across an `await`.
    input: RefCell<Box<[u8]>>,
    state: RefCell<State>,
}

/// Said once.
static NOBODY_TO_ASK: Once = Once::new();

/// What goes into an [`Edge`].
pub struct Parts {
    pub id: ShardId,
    pub driver: Driver,
    pub clock: Clock,
    pub placement: Placement,
    pub doors: Arc<[Door]>,
    /// Whether nobody is to be taken in any more: one for all shards.
    pub draining: Arc<AtomicBool>,
    pub crowd: Crowd,
    pub callers: Arc<Callers>,
    pub users: Arc<Users>,
    /// Who may come in.
    pub entrance: Arc<Entrance>,
    pub tls: Option<Served>,
    pub descriptors: Descriptors,
    pub verifier: Arc<Verifier>,
    pub policy: Arc<Policy>,
    pub keys_wanted: KeysWanted,
    pub handshake_time: Duration,
    pub tuning: Tuning,
    /// Shards that run on the processor of this one, itself included.
    pub sharers: usize,
    pub controls: Controls,
    pub pulses: Arc<Pulses>,
    pub readiness: Readiness,
    pub lanes: Lanes<Mail>,
    pub audit: Teller,
    pub shard: Shard,
}

struct State {
    shard: Shard,
    effects: Effects,
    readiness: Readiness,
    rows: Rows,
    sessions: Sessions,
    /// Connections that may have something to read, the longest waiting first.
    unread: VecDeque<ConnId>,
    flushing: Flushing,
    mailing: Mailing,
    timing: Timing,
    inflater: Inflater,
    /// Where the thread stands in its turn.
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It waits, or nothing has happened since it waited.
    Idle,
    Busy,
    /// The runtime took a break with tasks left to run.
    Interrupted,
}

impl Edge {
    pub fn new(parts: Parts) -> Rc<Edge> {
        let input = vec![0; parts.tuning.read_bytes_per_turn];
        let state = State {
            shard: parts.shard,
            effects: Effects::default(),
            readiness: parts.readiness,
            rows: Rows::new(parts.crowd.clone()),
            sessions: Sessions::default(),
            unread: VecDeque::new(),
            flushing: Flushing::new(&parts.tuning, parts.sharers),
            mailing: Mailing::new(parts.lanes, Arc::clone(&parts.doors)),
            timing: Timing::new(parts.clock.origin().clone()),
            inflater: Inflater::default(),
            phase: Phase::Idle,
        };
        let edge = Rc::new(Edge {
            id: parts.id,
            driver: parts.driver,
            clock: parts.clock,
            placement: parts.placement,
            doors: parts.doors,
            crowd: parts.crowd,
            callers: parts.callers,
            users: parts.users,
            entrance: RefCell::new(parts.entrance),
            tls: RefCell::new(parts.tls),
            descriptors: parts.descriptors,
            keys_wanted: parts.keys_wanted,
            handshake_time: parts.handshake_time,
            tuning: parts.tuning,
            sharers: parts.sharers,
            controls: parts.controls,
            pulses: parts.pulses,
            reading: Signal::default(),
            flush: Signal::default(),
            held: Signal::default(),
            began: Signal::default(),
            worked: Signal::default(),
            turn: Turn::default(),
            stop: Signal::default(),
            sooner: Signal::default(),
            draining: parts.draining,
            leaving: RefCell::default(),
            waiting: RefCell::default(),
            regulars: RefCell::new(Regulars::new(parts.handshake_time)),
            counters: RefCell::default(),
            audit: parts.audit,
            refused_last: Cell::default(),
            input: RefCell::new(input.into()),
            state: RefCell::new(state),
        });
        edge.step(Input::Verifier(parts.verifier));
        edge.step(Input::Policy(parts.policy));
        edge
    }

    pub fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.borrow_mut());
    }

    pub fn refuse(&self, reason: &'static str) {
        self.count(|counters| *counters.refused.entry(reason).or_default() += 1);
        self.refused_last.set(Some(reason));
    }

    /// Counts what became of a handshake of TLS, if anything did.
    pub fn note_tls(&self, news: Option<News>) {
        match news {
            None | Some(News::Answered) => {}
            Some(News::Done { version, is_resumed }) => self.count(|counters| {
                let done = if is_resumed { &mut counters.tls_resumed } else { &mut counters.tls_full };
                *done.entry(version).or_default() += 1;
            }),
            Some(News::Failed(reason)) => self.count(|counters| {
                *counters.tls_failed.entry(reason).or_default() += 1;
            }),
        }
    }

    /// Rises with whatever keeps the shard busy.
    pub fn work(&self) -> u64 {
        self.counters.borrow().work()
    }

    pub fn step(&self, input: Input<'_>) {
        self.within(|state, now| {
            let State { shard, effects, timing, .. } = state;
            timing.step(shard, now, input, effects);
        });
    }

    /// Runs steps and carries out what they ask for.
    fn within<T>(&self, work: impl FnOnce(&mut State, Now) -> T) -> T {
        let state = &mut *self.state.borrow_mut();
        let now = self.clock.now();
        let pulse = self.pulses.of(self.id.index());
        pulse.beat(now.at);
        self.enter(state, now.at);
        state.timing.begin(now.at);
        let done = work(state, now);
        self.carry_out(state, now);
        self.top_up(state, now);
        pulse.did(state.shard.doing());
        done
    }

    /// Something is done: a turn begins, if none has.
    fn enter(&self, state: &mut State, now: Instant) {
        if state.phase == Phase::Busy {
            return;
        }
        if state.phase == Phase::Idle {
            state.timing.begin_turn(now);
        }
        state.phase = Phase::Busy;
        self.began.raise();
    }

    /// Runs until the shard is told to stop. The runtime polls the future that it was started with
    /// when no task is left that could run, just before it waits: that is where a turn ends.
    pub async fn run(&self) {
        poll_fn(|context| {
            if self.stop.poll_wait(context).is_ready() {
                return Poll::Ready(());
            }
            if self.began.poll_wait(context).is_ready() {
                self.end_turn();
                // For the next; it was lowered, so this does not find it raised.
                let _ = self.began.poll_wait(context);
            }
            Poll::Pending
        })
        .await
    }

    fn end_turn(&self) {
        let state = &mut *self.state.borrow_mut();
        // Where many tasks ran in a row the runtime comes here in between.
        if self.reading.is_woken() || self.flush.is_woken() {
            state.phase = Phase::Interrupted;
        } else {
            state.phase = Phase::Idle;
            state.timing.end_turn();
        }
    }

    fn carry_out(&self, state: &mut State, now: Now) {
        self.serve_sessions(state, now);
        let State { shard, effects, rows, sessions, unread, flushing, mailing, .. } = state;
        // Nobody can be asked yet, and the configuration takes no rule that asks. A policy of another
        // making gets the one true answer.
        while let Some(question) = effects.questions.pop() {
            NOBODY_TO_ASK.call_once(|| log::error!("a policy asks, and there is nobody to ask: all such is refused"));
            let input = Input::Answer { ticket: question.ticket, outside: Outside::Fails };
            shard.step(now, input, effects);
        }
        if !effects.mail.is_empty() {
            let mut counters = self.counters.borrow_mut();
            counters.mails_out += effects.mail.len() as u64;
            counters.bells += mailing.send(&mut effects.mail);
        }
        if std::mem::take(&mut effects.is_soon) {
            self.sooner.raise();
        }
        if std::mem::take(&mut effects.keys_wanted) {
            (self.keys_wanted)();
        }
        for audited in effects.audit.drain(..) {
            self.audit.tell(now, || Told::OfCore(audited));
        }
        if flushing.list(effects, now.at) {
            self.held.raise();
        }
        let queued_before = unread.len();
        for conn in effects.resumed.drain(..) {
            if let Some(row) = rows.get_mut(conn) {
                row.queue(unread);
            }
            if let Some(post) = sessions.post_of(conn) {
                self.regulars.borrow_mut().list(post);
                self.reading.raise();
            }
        }
        for conn in effects.closing.drain(..) {
            if let Some(row) = rows.get_mut(conn).filter(|row| row.standing != Standing::Leaving) {
                row.standing = Standing::Closing;
                row.queue(unread);
            }
        }
        for conn in effects.reset.drain(..) {
            if let Some(row) = rows.get_mut(conn) {
                row.standing = Standing::Reset;
                self.counters.borrow_mut().resets += 1;
                socket::reset_on_close(&row.socket);
                row.mute(Shut::Both);
                row.queue(unread);
            }
        }
        if unread.len() > queued_before {
            self.reading.raise();
        }
        if flushing.is_due() || mailing.is_due(shard) {
            self.flush.raise();
        }
    }

    /// Somebody came in. To an idle shard the tick comes rarely, and what it set for the first may be due before.
    fn came_in(&self) {
        if self.counters.borrow().clients_now() == 1 {
            self.sooner.raise();
        }
    }

    /// How long the tick may sleep.
    pub fn until_tick(&self) -> Duration {
        let next = self.state.borrow().shard.next_deadline();
        let longest = match self.counters.borrow().clients_now() {
            0 if self.waiting.borrow().is_empty() && self.regulars.borrow().is_empty() => TICK_IDLE,
            _ => TICK_BUSY,
        };
        let until = match next {
            Instant::NEVER => longest,
            at => at.since(self.clock.now().at),
        };
        until.clamp(TICK_MIN, longest)
    }

    /// Whether nobody is taken in any more: some shard sends its connections back.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Listens no more; the core sends its connections back.
    pub fn drain(&self, pace: DrainPace) {
        self.leaving.borrow().iter().for_each(|leaving| leaving.raise());
        self.step(Input::Drain(pace));
    }

    pub fn report(&self) -> Report {
        let mut edge = self.counters.borrow().clone();
        edge.handshakes_now = self.waiting.borrow().len() as u64;
        edge.requesters_now = self.regulars.borrow().len() as u64;
        edge.listening = (!self.is_draining() && !self.leaving.borrow().is_empty()).into();
        let state = &mut *self.state.borrow_mut();
        Report { shard: self.id.0, edge, core: state.shard.snapshot(), times: state.timing.report() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::pattern::RulePattern;
    use crate::admission::policies::{RIGHTS, Rule, Rules, Who};
    use crate::admission::policy::Roles;
    use crate::io::edge::sample::{PONG, edge, join, on_each_driver, open, publish, turning};
    use crate::io::egress::Direct;
    use std::os::fd::AsRawFd;

    #[test]
    fn a_turn_lasts_from_the_first_thing_done_to_the_next_wait() {
        on_each_driver(async |driver| {
            let edge = turning(edge(driver));
            let tester = Rc::clone(&edge);
            monoio::spawn(async move {
                let turns = || tester.report().times.turns.len();
                let pause = || monoio::time::sleep(Duration::from_millis(1));
                let (_, peer) = open(&tester, "alice");
                while turns() == 0 {
                    pause().await;
                }
                // What the new socket says at first has been seen.
                while tester.counters.borrow().looks == 0 {
                    pause().await;
                }
                pause().await;
                let before = turns();
                pause().await;
                assert_eq!(turns(), before, "{driver:?}: nothing was done");
                socket::send(peer.as_raw_fd(), &PONG).unwrap();
                while tester.counters.borrow().reads == 0 {
                    pause().await;
                }
                pause().await;
                let taken = turns() - before;
                assert!((1..=2).contains(&taken), "{driver:?}: {taken} turns for one read");
                tester.stop.raise();
            });
            edge.run().await;
        });
    }

    #[test]
    fn what_a_policy_would_ask_about_is_refused_at_once_where_there_is_nobody_to_ask() {
        let edge = edge(Driver::Epoll);
        let (conn, _peer) = open(&edge, "alice");
        let (rooms, ask) = (RulePattern::parse("ask:*").unwrap(), Who::parse("ask").unwrap());
        let rule = Rule { name: "asks".into(), rooms, who: RIGHTS.map(|_| Some(ask.clone())) };
        let policy = Policy::new(Roles::default(), Rules::new(vec![rule]).unwrap());
        edge.step(Input::Policy(Arc::new(policy)));
        join(&edge, conn, "chat:1");
        join(&edge, conn, "ask:1");
        (0..3).for_each(|_| publish(&edge, conn, "ask:1"));
        let snapshot = edge.report().core;
        assert_eq!((snapshot.asked, snapshot.asked_now, snapshot.calls), (4, 0, 0));
        assert_eq!(snapshot.errors["unavailable"], 4);
    }

    #[test]
    fn what_is_delivered_is_timed_once_a_flush_that_finds_somebody_new() {
        let edge = edge(Driver::Epoll);
        let (conn, _peer) = open(&edge, "alice");
        let mut egress = Direct::default();
        let lags = || edge.report().times.lags.len();
        while edge.flush(&mut egress) {}
        assert_eq!(lags(), 1, "what a new connection is told");
        while edge.flush(&mut egress) {}
        assert_eq!(lags(), 1, "nothing was written");
        join(&edge, conn, "chat:1");
        (0..3).for_each(|_| publish(&edge, conn, "chat:1"));
        while edge.flush(&mut egress) {}
        assert_eq!(lags(), 2, "all of it left together");
    }
}
