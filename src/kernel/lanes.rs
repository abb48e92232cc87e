//! What goes to other shards, and when: one bounded lane per pair of shards, counted by credit.
//! Invariants: a mail is sent only with credit, so the edge always has room for it; mails about a
//! room keep their order; what waits here is bounded: replies by the calls that the peer may have
//! open ([`CALLS_PER_PEER_MAX`]), runs of entries by rooms and replies, gone connections by
//! connections, parked requests by connections (each pauses its reads).

use crate::admission::gate::Admitted;
use crate::base::limits::CALLS_PER_PEER_MAX;
use crate::kernel::effects::Effects;
use crate::kernel::ids::{ConnId, RoomId, Seq, ShardId};
use crate::kernel::mail::{Gone, Mail, Request};
use std::collections::VecDeque;

/// Waits for credit, in order.
pub enum Held {
    Mail(Mail),
    /// Entries of a room, to be taken from its history when their turn comes.
    Run {
        room: RoomId,
        from: Seq,
        to: Seq,
    },
}

/// Requests of one connection that wait, the first of them for the peer that it is parked at.
pub struct Parked {
    pub conn: ConnId,
    pub requests: Requests,
}

/// Requests of one event, each with its home.
pub type Requests = Vec<(ShardId, Box<Admitted<Request>>)>;

#[derive(Default)]
struct Peer {
    credit: u32,
    held: VecDeque<Held>,
    /// Number of the first of `held`, counted since the start.
    held_from: u64,
    /// Runs among `held`.
    runs: usize,
    /// Requests sent and not answered.
    calls: usize,
    gone: VecDeque<Box<Gone>>,
    parked: VecDeque<Parked>,
}

impl Peer {
    fn is_free(&self) -> bool {
        self.credit > 0 && self.held.is_empty()
    }
}

/// What waits for one peer's credit.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Waiting {
    /// Replies.
    pub mails: usize,
    /// Runs of entries.
    pub runs: usize,
    /// Connections that have gone.
    pub gone: usize,
    /// Connections whose requests are parked.
    pub parked: usize,
    /// Requests sent and not answered.
    pub calls: usize,
}

pub struct Lanes {
    me: ShardId,
    peers: Vec<Peer>,
    to_self: VecDeque<Mail>,
}

impl Lanes {
    /// `credit`: what each lane holds when it is empty.
    pub fn new(me: ShardId, shards: u8, credit: u32) -> Self {
        let peer = |_| Peer { credit, ..Peer::default() };
        Lanes { me, peers: (0..shards).map(peer).collect(), to_self: VecDeque::new() }
    }

    pub fn credit(&self, peer: ShardId) -> u32 {
        self.peers[peer.index()].credit
    }

    pub fn set_credit(&mut self, peer: ShardId, free: u32) {
        self.peers[peer.index()].credit = free;
    }

    /// Something waits for credit to `peer`.
    pub fn is_starved(&self, peer: ShardId) -> bool {
        let peer = &self.peers[peer.index()];
        !peer.held.is_empty() || !peer.gone.is_empty() || !peer.parked.is_empty()
    }

    pub fn peers(&self) -> impl Iterator<Item = ShardId> + use<> {
        let me = self.me;
        (0..self.peers.len() as u8).map(ShardId).filter(move |peer| *peer != me)
    }

    /// Mails held, runs included: a gauge.
    pub fn held(&self) -> usize {
        self.peers.iter().map(|peer| peer.held.len()).sum()
    }

    /// Runs held, each a room that is behind on one shard: a gauge.
    pub fn runs(&self) -> usize {
        self.peers.iter().map(|peer| peer.runs).sum()
    }

    pub fn waiting(&self, peer: ShardId) -> Waiting {
        let peer = &self.peers[peer.index()];
        let mails = peer.held.iter().filter(|held| matches!(held, Held::Mail(_))).count();
        debug_assert_eq!(peer.runs, peer.held.len() - mails);
        Waiting {
            mails,
            runs: peer.held.len() - mails,
            gone: peer.gone.len(),
            parked: peer.parked.len(),
            calls: peer.calls,
        }
    }

    pub fn next_to_self(&mut self) -> Option<Mail> {
        self.to_self.pop_front()
    }

    /// Sends what must not be lost and keeps its place: a reply.
    pub fn send(&mut self, to: ShardId, mail: Mail, effects: &mut Effects) {
        if to == self.me {
            self.to_self.push_back(mail);
            return;
        }
        let peer = &mut self.peers[to.index()];
        if peer.is_free() {
            peer.credit -= 1;
            effects.mail.push((to, mail));
        } else {
            peer.held.push_back(Held::Mail(mail));
        }
    }

    /// Sends what may be lost; false when it was.
    pub fn try_send(&mut self, to: ShardId, mail: Mail, effects: &mut Effects) -> bool {
        let is_free = to == self.me || self.peers[to.index()].is_free();
        if is_free {
            self.send(to, mail, effects);
        }
        is_free
    }

    /// Sends a room's entry `seq`, or notes that the peer is behind from there. `open_run` is the
    /// run of this room that may be extended.
    pub fn send_entry(
        &mut self,
        to: ShardId,
        (room, seq): (RoomId, Seq),
        open_run: &mut Option<u64>,
        mail: Mail,
        effects: &mut Effects,
    ) {
        if to == self.me || self.peers[to.index()].is_free() {
            return self.send(to, mail, effects);
        }
        let peer = &mut self.peers[to.index()];
        let open = open_run.and_then(|number| number.checked_sub(peer.held_from));
        match open.and_then(|nth| peer.held.get_mut(nth as usize)) {
            Some(Held::Run { room: held, to, .. }) => {
                assert_eq!(*held, room, "an open run is the room's own");
                *to = seq;
            }
            Some(Held::Mail(_)) => unreachable!("a run's number names a run"),
            None => {
                *open_run = Some(peer.held_from + peer.held.len() as u64);
                peer.held.push_back(Held::Run { room, from: seq, to: seq });
                peer.runs += 1;
            }
        }
    }

    /// Tells `to` that a connection has gone, now or later; needs no credit.
    pub fn send_gone(&mut self, to: ShardId, gone: Box<Gone>, effects: &mut Effects) {
        if !self.peers[to.index()].gone.is_empty() || !self.may_send_gone(to) {
            return self.peers[to.index()].gone.push_back(gone);
        }
        self.send(to, Mail::Gone(gone), effects);
    }

    fn may_send_gone(&self, to: ShardId) -> bool {
        to == self.me || self.peers[to.index()].is_free()
    }

    /// Sends the requests of one event, each as soon as there is credit for it. Those that have to
    /// wait are parked, and the connection's reads must pause until [`Lanes::unpark`] has given the
    /// last of them back. True when all are sent.
    pub fn request(&mut self, conn: ConnId, requests: &mut Requests, effects: &mut Effects) -> bool {
        let mut waiting = Requests::new();
        for (to, request) in requests.drain(..) {
            if !self.may_request(to) {
                waiting.push((to, request));
                continue;
            }
            if to != self.me {
                self.peers[to.index()].calls += 1;
            }
            self.send(to, Mail::Request(request), effects);
        }
        let Some((lacking, _)) = waiting.first() else { return true };
        let lacking = lacking.index();
        self.peers[lacking].parked.push_back(Parked { conn, requests: waiting });
        false
    }

    /// True when one request to `to` would be sent at once.
    pub fn may_request(&self, to: ShardId) -> bool {
        let peer = &self.peers[to.index()];
        to == self.me || (peer.is_free() && peer.calls < CALLS_PER_PEER_MAX)
    }

    /// A reply came in from `from`.
    pub fn answered(&mut self, from: ShardId) {
        if from != self.me {
            let peer = &mut self.peers[from.index()];
            peer.calls = peer.calls.checked_sub(1).expect("a reply answers a request");
        }
    }

    /// The next of what is held for `peer`, while there is credit. The caller sends it with
    /// [`Lanes::release`] or drops it with [`Lanes::skip`].
    pub fn next_held(&mut self, peer: ShardId) -> Option<&mut Held> {
        let peer = &mut self.peers[peer.index()];
        if peer.credit == 0 {
            return None;
        }
        peer.held.front_mut()
    }

    /// Takes the front of what is held off; its number is never used again.
    pub fn skip(&mut self, peer: ShardId) -> Option<Held> {
        let peer = &mut self.peers[peer.index()];
        let front = peer.held.pop_front()?;
        peer.held_from += 1;
        peer.runs -= usize::from(matches!(front, Held::Run { .. }));
        Some(front)
    }

    /// Sends `mail` past what is held: it is what stood in front.
    pub fn release(&mut self, to: ShardId, mail: Mail, effects: &mut Effects) {
        let peer = &mut self.peers[to.index()];
        peer.credit = peer.credit.checked_sub(1).expect("released with credit");
        effects.mail.push((to, mail));
    }

    /// Sends word of gone connections while there is credit.
    pub fn release_gone(&mut self, to: ShardId, effects: &mut Effects) {
        while self.may_send_gone(to) {
            let Some(gone) = self.peers[to.index()].gone.pop_front() else { return };
            self.send(to, Mail::Gone(gone), effects);
        }
    }

    /// Requests that may be tried again: the first of them is to `peer`, which has credit.
    pub fn unpark(&mut self, peer: ShardId) -> Option<Parked> {
        if !self.may_request(peer) {
            return None;
        }
        self.peers[peer.index()].parked.pop_front()
    }
}
