//! What the edge is to real shards, in one thread: lanes, sockets and a clock that move only when
//! they are told to, each by one small step, in any order.
//! Invariant: a step does what the edge does at that place, and nothing else.

use crate::admission::identity::{Identity, Particulars};
use crate::admission::names::User;
use crate::admission::policy::Policy;
use crate::admission::rates::Rates;
use crate::admission::revocations::Revocation;
use crate::admission::token::Verifier;
use crate::base::random::Random;
use crate::base::time::{Instant, Now};
use crate::features;
use crate::kernel::Limits;
use crate::kernel::asked::{Outside, Question, Ticket};
use crate::kernel::effects::Effects;
use crate::kernel::ids::{ConnId, ShardId};
use crate::kernel::mail::{Change, Mail};
use crate::shard::{DrainPace, Input, Opening, Shard, ShardConfig};
use crate::sim::decoder::{Decoder, Received};
use crate::sim::fault::Fault;
use crate::sim::oracle::{Check, Failure};
use crate::wire::codes::CloseCode;
use crate::wire::deflate::Window;
use crate::wire::dialect::{DialectId, NATIVE_JSON, NATIVE_MSGPACK};
use crate::wire::{json, msgpack};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What one write may take at most, as at the edge.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// Where messages are compressed, nearly all are.
const DEFLATE_BYTES_MIN: usize = 64;
/// What clients speak.
const DIALECTS: [DialectId; 6] = [
    NATIVE_JSON,
    NATIVE_MSGPACK,
    NATIVE_JSON.compressed(Window::Full),
    NATIVE_MSGPACK.compressed(Window::Full),
    NATIVE_JSON.compressed(Window::Small),
    NATIVE_MSGPACK.compressed(Window::Small),
];

/// A socket of the world, never used for a second connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Link(pub usize);

#[derive(Clone, Debug)]
pub struct WorldShape {
    pub shards: u8,
    /// Places of each lane.
    pub lane_entries: u32,
    /// Bytes that a socket holds before its client reads them.
    pub window: usize,
    /// What each shard may hold for readers, bytes.
    pub memory_bytes: usize,
    /// Clients speak every dialect that there is, and short messages are compressed too; else all speak
    /// plain JSON.
    pub babel: bool,
    pub rates: Rates,
    pub seed: u64,
    pub fault: Option<Fault>,
}

impl Default for WorldShape {
    fn default() -> Self {
        let memory_bytes = Limits::default().memory_bytes;
        let rates = Rates::default();
        WorldShape {
            shards: 2,
            lane_entries: 8,
            window: 1 << 20,
            memory_bytes,
            babel: false,
            rates,
            seed: 1,
            fault: None,
        }
    }
}

/// One thing that a client's socket brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FromClient {
    Text(String),
    Binary,
    Ping(Vec<u8>),
    Pong,
    Close(u16),
    /// Bytes that are no frame.
    Garbage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    Open,
    /// The core says goodbye; what the client sends is thrown away.
    Closing,
    Gone,
}

struct Socket {
    shard: ShardId,
    conn: ConnId,
    standing: Standing,
    /// Sent by the client and not yet given to the core.
    incoming: VecDeque<FromClient>,
    /// Written by the server and not yet read by the client.
    outgoing: VecDeque<u8>,
    window: usize,
    is_blocked: bool,
    /// The client's end is gone: nothing is read any more.
    is_deserted: bool,
    /// Of a planted bug: what the core thinks written.
    backlog: VecDeque<u8>,
    decoder: Decoder,
}

pub struct World {
    pub now: Now,
    shards: Vec<Shard>,
    lane_entries: u32,
    /// From one shard to another, by [`World::lane`].
    lanes: Vec<VecDeque<Mail>>,
    dirty: Vec<VecDeque<ConnId>>,
    effects: Effects,
    /// Asked of the outside by a shard, and not yet taken from here.
    questions: Vec<(ShardId, Question)>,
    sockets: Vec<Socket>,
    /// The socket of a slot, by shard.
    rows: Vec<Vec<Option<Link>>>,
    window: usize,
    babel: bool,
    sabotage: Option<Sabotage>,
    /// The largest frame that was written.
    frame_bytes_max: usize,
    /// The most connections that one step closed or reset.
    closes_max: usize,
    failure: Option<Failure>,
}

/// A planted bug and how far it is.
struct Sabotage {
    fault: Fault,
    /// Chances to let pass before it strikes.
    spare: u64,
    has_struck: bool,
}

fn packed_from(text: &str) -> Vec<u8> {
    let mut packed = Vec::new();
    msgpack::from_json(&mut packed, text);
    packed
}

/// An identity of `user` in `tenant` with one role, or none when that is empty.
pub fn identity(tenant: &str, user: &str, role: &str) -> Identity {
    let roles = if role.is_empty() { Box::default() } else { [Box::from(role)].into() };
    Identity::new(User::new(tenant.into(), user), None, Particulars { roles, ..Particulars::default() })
}

impl World {
    pub fn new(shape: &WorldShape) -> World {
        let now = Now { at: Instant::ZERO.after(Duration::from_secs(1_000)), unix_ms: 1_763_690_000_000 };
        let mut random = Random::new(shape.seed);
        let map_key = [random.next(), random.next()];
        let shard = |id| {
            let memory_bytes = match shape.fault {
                Some(Fault::IdleRelief) => Limits::default().memory_bytes,
                _ => shape.memory_bytes,
            };
            let deflate_bytes_min = shape.babel.then_some(DEFLATE_BYTES_MIN);
            let (lane_entries, rates) = (shape.lane_entries, shape.rates.clone());
            let limits = Limits { lane_entries, memory_bytes, rates, deflate_bytes_min, ..Limits::default() };
            let (id, seed) = (ShardId(id), shape.seed ^ u64::from(id) << 32);
            let config = ShardConfig { id, shards: shape.shards, origin: 7, seed, map_key, limits };
            Shard::new(config, features::all(), now)
        };
        let shards = usize::from(shape.shards);
        let sabotage = |fault| Sabotage { fault, spare: random.below(12), has_struck: false };
        World {
            now,
            shards: (0..shape.shards).map(shard).collect(),
            lane_entries: shape.lane_entries,
            lanes: (0..shards * shards).map(|_| VecDeque::new()).collect(),
            dirty: vec![VecDeque::new(); shards],
            effects: Effects::default(),
            questions: Vec::new(),
            sockets: Vec::new(),
            rows: vec![Vec::new(); shards],
            window: shape.window,
            babel: shape.babel,
            sabotage: shape.fault.map(sabotage),
            frame_bytes_max: 0,
            closes_max: 0,
            failure: None,
        }
    }

    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards.len() as u8).map(ShardId)
    }

    pub fn shard(&self, id: ShardId) -> &Shard {
        &self.shards[id.index()]
    }

    /// Every ordered pair of different shards.
    pub fn pairs(&self) -> Vec<(ShardId, ShardId)> {
        let pairs = self.shards().flat_map(|from| self.shards().map(move |to| (from, to)));
        pairs.filter(|(from, to)| from != to).collect()
    }

    /// What broke first, if anything did.
    pub fn failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    fn fail(&mut self, check: Check, saw: String) {
        self.failure.get_or_insert(Failure { check, saw });
    }

    // Clients.

    /// A client whose handshake is done; `None` when the shard is full.
    pub fn open(&mut self, shard: ShardId, identity: Identity) -> Option<Link> {
        let conn = self.shards[shard.index()].reserve()?;
        let link = Link(self.sockets.len());
        let dialect = if self.babel { DIALECTS[link.0 % DIALECTS.len()] } else { NATIVE_JSON };
        self.sockets.push(Socket {
            shard,
            conn,
            standing: Standing::Open,
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            window: self.window,
            is_blocked: false,
            is_deserted: false,
            backlog: VecDeque::new(),
            decoder: Decoder::new(dialect),
        });
        let rows = &mut self.rows[shard.index()];
        let slot = conn.0.slot as usize;
        rows.resize(rows.len().max(slot + 1), None);
        rows[slot] = Some(link);
        let opening = Opening { conn, identity, dialect, greeting: Box::default() };
        self.step(shard, Input::Open(Box::new(opening)));
        Some(link)
    }

    pub fn send(&mut self, link: Link, mut what: FromClient) {
        if let (FromClient::Text(text), Some(from)) = (&mut what, self.left_out())
            && let Some(shifted) = shift_back(text, from)
        {
            *text = shifted;
        }
        let socket = &mut self.sockets[link.0];
        if socket.standing == Standing::Open && !socket.is_deserted {
            socket.incoming.push_back(what);
        }
    }

    /// The client's end disappears. `kept` of what it sent has reached the server.
    pub fn desert(&mut self, link: Link, kept: usize) {
        let socket = &mut self.sockets[link.0];
        socket.is_deserted = true;
        socket.incoming.truncate(kept);
    }

    /// Reads up to `bytes` of what the server wrote and appends the whole frames. Says whether there
    /// was anything to read.
    pub fn read(&mut self, link: Link, bytes: usize, into: &mut Vec<Received>) -> bool {
        let socket = &mut self.sockets[link.0];
        if socket.is_deserted {
            return false;
        }
        let count = bytes.min(socket.outgoing.len());
        let taken = socket.outgoing.make_contiguous()[..count].to_vec();
        socket.outgoing.drain(..count);
        let fresh = into.len();
        let decoded = socket.decoder.take(&taken, into);
        let room = socket.window.saturating_sub(socket.outgoing.len()).min(socket.backlog.len());
        socket.outgoing.extend(&socket.backlog.make_contiguous()[..room]);
        socket.backlog.drain(..room);
        if let Err(error) = decoded {
            self.fail(Check::WholeFrames, format!("socket {}: {error}", link.0));
        }
        self.tamper_with_frames(into, fresh);
        count > 0
    }

    /// Bytes that wait for the client to read them.
    pub fn readable(&self, link: Link) -> usize {
        self.sockets[link.0].outgoing.len()
    }

    /// What the client sent and the core has not taken.
    pub fn unsent(&self, link: Link) -> usize {
        self.sockets[link.0].incoming.len()
    }

    /// The shard has given the connection's slot back.
    pub fn is_gone(&self, link: Link) -> bool {
        self.sockets[link.0].standing == Standing::Gone
    }

    pub fn is_deserted(&self, link: Link) -> bool {
        self.sockets[link.0].is_deserted
    }

    /// Sockets that have not ended.
    pub fn links_now(&self) -> usize {
        self.rows.iter().flatten().flatten().count()
    }

    pub fn links(&self) -> impl Iterator<Item = Link> + use<> {
        (0..self.sockets.len()).map(Link)
    }

    /// Bytes that the core holds for a client.
    pub fn queued(&self, link: Link) -> usize {
        let socket = &self.sockets[link.0];
        self.shards[socket.shard.index()].queued(socket.conn) + socket.backlog.len()
    }

    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    // What happens. Each says whether there was anything to do.

    /// The core takes one thing that the client sent.
    pub fn feed(&mut self, link: Link) -> bool {
        let socket = &mut self.sockets[link.0];
        let (shard, conn) = (socket.shard, socket.conn);
        match socket.standing {
            Standing::Open if self.shards[shard.index()].is_reading(conn) => {}
            // Read and thrown away, until the end.
            Standing::Closing => {
                socket.incoming.clear();
                return false;
            }
            Standing::Open | Standing::Gone => return false,
        }
        let Some(what) = socket.incoming.pop_front() else { return false };
        let packed;
        let input = match &what {
            // What is no JSON goes out as it is: then it is no MessagePack either.
            FromClient::Text(text) if socket.decoder.dialect().plain() == NATIVE_MSGPACK => {
                packed = match json::check(text.as_bytes()) {
                    Ok(()) => packed_from(text),
                    Err(_) => text.clone().into_bytes(),
                };
                Input::Binary { conn, message: &packed }
            }
            FromClient::Text(text) => Input::Text { conn, message: text.as_bytes() },
            // The kind of message that its subprotocol has not.
            FromClient::Binary if socket.decoder.dialect().plain() == NATIVE_MSGPACK => {
                Input::Text { conn, message: b"{}" }
            }
            FromClient::Binary => Input::Binary { conn, message: b"binary" },
            FromClient::Ping(payload) => Input::Ping { conn, payload },
            FromClient::Pong => Input::Pong { conn },
            FromClient::Close(code) => Input::PeerClose { conn, code: Some(*code) },
            FromClient::Garbage => Input::Failed { conn, code: CloseCode::Protocol, reason: "bytes that are no frame" },
        };
        self.step(shard, input);
        true
    }

    /// The socket of a client that disappeared ends, as the server sees it.
    pub fn end(&mut self, link: Link) -> bool {
        let socket = &mut self.sockets[link.0];
        if socket.standing == Standing::Gone {
            return false;
        }
        socket.standing = Standing::Gone;
        let (shard, conn) = (socket.shard, socket.conn);
        self.rows[shard.index()][conn.0.slot as usize] = None;
        self.step(shard, Input::Gone { conn });
        true
    }

    /// One write to the connection that waited longest.
    pub fn flush(&mut self, shard: ShardId) -> bool {
        let Some(conn) = self.dirty[shard.index()].pop_front() else { return false };
        let Some(link) = self.link(shard, conn) else { return true };
        let socket = &mut self.sockets[link.0];
        if socket.is_blocked {
            return true;
        }
        let mut pieces = Vec::new();
        let asked = self.shards[shard.index()].gather(conn, &mut pieces, WRITE_BYTES_MAX);
        let room = socket.window.saturating_sub(socket.outgoing.len());
        let mut took = asked.min(room);
        let mut rest = took;
        for piece in &pieces {
            self.frame_bytes_max = self.frame_bytes_max.max(piece.len());
            let part = piece.len().min(rest);
            socket.outgoing.extend(&piece[..part]);
            rest -= part;
        }
        let fault = self.sabotage.as_ref().map(|sabotage| sabotage.fault);
        if fault == Some(Fault::UnboundedOutbox) {
            let all = pieces.concat();
            socket.backlog.extend(&all[took..]);
            took = asked;
        }
        if took > 0 {
            self.step(shard, Input::Wrote { conn, bytes: took });
        }
        if took < asked {
            self.sockets[link.0].is_blocked = true;
            self.step(shard, Input::Blocked { conn });
        } else if asked >= WRITE_BYTES_MAX {
            self.dirty[shard.index()].push_back(conn);
        }
        true
    }

    /// A socket that took no more takes more again.
    pub fn relieve(&mut self, link: Link) -> bool {
        let socket = &mut self.sockets[link.0];
        let has_room = socket.outgoing.len() < socket.window;
        if !socket.is_blocked || !has_room || socket.is_deserted || socket.standing == Standing::Gone {
            return false;
        }
        socket.is_blocked = false;
        let (shard, conn) = (socket.shard, socket.conn);
        self.step(shard, Input::Writable { conn });
        true
    }

    /// One mail arrives.
    pub fn deliver(&mut self, from: ShardId, to: ShardId) -> bool {
        let lane = self.lane(from, to);
        let Some(mail) = self.lanes[lane].pop_front() else { return false };
        self.step(to, Input::Mail { from, mail });
        true
    }

    /// Tells `shard` of the room in its lane to `peer`, when the edge would.
    pub fn credit(&mut self, shard: ShardId, peer: ShardId) -> bool {
        let lane = self.lane(shard, peer);
        let mut free = self.lane_entries.saturating_sub(self.lanes[lane].len() as u32);
        if self.strikes(Fault::LaneOverrun) {
            free += self.lane_entries;
        }
        let core = &self.shards[shard.index()];
        let believed = core.credit(peer);
        let wants = core.is_starved(peer) || believed < self.lane_entries.div_ceil(2);
        if !wants || free <= believed {
            return false;
        }
        self.step(shard, Input::Credit { peer, free });
        true
    }

    pub fn tick(&mut self, shard: ShardId) {
        self.step(shard, Input::Tick);
    }

    /// Every shard checks tokens with `verifier` from now on.
    pub fn set_verifier(&mut self, verifier: Verifier) {
        let verifier = Arc::new(verifier);
        for shard in self.shards() {
            self.step(shard, Input::Verifier(Arc::clone(&verifier)));
        }
    }

    /// Every shard decides by `policy` from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        let policy = Arc::new(policy);
        for shard in self.shards() {
            self.step(shard, Input::Policy(Arc::clone(&policy)));
        }
    }

    /// What shards have asked since the last time.
    pub fn take_questions(&mut self) -> Vec<(ShardId, Question)> {
        std::mem::take(&mut self.questions)
    }

    pub fn answer(&mut self, shard: ShardId, ticket: Ticket, outside: Outside) {
        self.step(shard, Input::Answer { ticket, outside });
    }

    /// All shards keep to these limits from now on.
    pub fn set_limits(&mut self, limits: &Limits) {
        for shard in self.shards() {
            self.step(shard, Input::Limits(Box::new(limits.clone())));
        }
    }

    pub fn revoke(&mut self, shard: ShardId, revocations: &[Revocation]) {
        self.step(shard, Input::Revoke { revocations });
    }

    pub fn drain(&mut self, shard: ShardId, pace: DrainPace) {
        self.step(shard, Input::Drain(pace));
    }

    /// The most connections that one step has closed or reset so far.
    pub fn closes_max(&self) -> usize {
        self.closes_max
    }

    /// Time passes; nobody is told before the next step.
    pub fn pass(&mut self, time: Duration) {
        let before_ms = self.now.at.as_nanos() / 1_000_000;
        self.now.at = self.now.at.after(time);
        self.now.unix_ms += self.now.at.as_nanos() / 1_000_000 - before_ms;
    }

    /// When the first timer of any shard may fire.
    pub fn next_deadline(&self) -> Instant {
        self.shards.iter().map(Shard::next_deadline).min().unwrap_or(Instant::NEVER)
    }

    /// Lets everything happen that needs neither time nor clients. Says whether anything did.
    pub fn settle(&mut self) -> bool {
        let mut did = false;
        loop {
            let mut more = false;
            for (from, to) in self.pairs() {
                more |= self.deliver(from, to);
                more |= self.credit(from, to);
            }
            for link in self.links() {
                more |= self.feed(link) || self.relieve(link);
            }
            for shard in self.shards() {
                more |= self.flush(shard);
            }
            if !more {
                return did;
            }
            did = true;
        }
    }

    fn lane(&self, from: ShardId, to: ShardId) -> usize {
        from.index() * self.shards.len() + to.index()
    }

    fn link(&self, shard: ShardId, conn: ConnId) -> Option<Link> {
        let link = self.rows[shard.index()].get(conn.0.slot as usize).copied().flatten()?;
        (self.sockets[link.0].conn == conn).then_some(link)
    }

    fn step(&mut self, shard: ShardId, input: Input<'_>) {
        self.shards[shard.index()].step(self.now, input, &mut self.effects);
        let mut effects = std::mem::take(&mut self.effects);
        for (to, mail) in effects.mail.drain(..) {
            self.post(shard, to, mail);
        }
        let dirty = effects.dirty.drain(..).chain(effects.dirty_by_crowd.drain(..));
        self.dirty[shard.index()].extend(dirty);
        self.closes_max = self.closes_max.max(effects.closing.len() + effects.reset.len());
        for conn in effects.closing.drain(..) {
            if let Some(link) = self.link(shard, conn) {
                self.sockets[link.0].standing = Standing::Closing;
            }
        }
        // Readers ask `is_reading`.
        effects.resumed.clear();
        self.questions.extend(effects.questions.drain(..).map(|question| (shard, question)));
        let reset: Vec<ConnId> = effects.reset.drain(..).collect();
        self.effects = effects;
        for conn in reset {
            if let Some(link) = self.link(shard, conn) {
                self.sockets[link.0].is_deserted = true;
                self.end(link);
            }
        }
    }

    /// Puts a mail into its lane, unless a planted bug has other plans for it.
    fn post(&mut self, from: ShardId, to: ShardId, mut mail: Mail) {
        let lane = self.lane(from, to);
        let is_logged_entry = matches!(&mail, Mail::Entry { entry, .. } if entry.place.is_some());
        if matches!(mail, Mail::Gone(_)) && self.strikes(Fault::LostGone)
            || is_logged_entry && self.strikes(Fault::LostEntry)
        {
            return;
        }
        if is_logged_entry
            && let Mail::Entry { room, entry } = &mail
            && self.strikes(Fault::DoubledEntry)
        {
            self.lanes[lane].push_back(Mail::Entry { room: *room, entry: entry.clone() });
        }
        if let Mail::Reply(reply) = &mut mail
            && let Change::Page(page) = &mut reply.change
            && !page.entries.is_empty()
            && self.strikes(Fault::HoledReplay)
        {
            page.entries.remove(page.entries.len() / 2);
        }
        let swaps = match (self.lanes[lane].back(), &mail) {
            (Some(Mail::Entry { room: before, entry: first }), Mail::Entry { room, entry }) => {
                let both = first.place.is_some() && entry.place.is_some() && before == room;
                both && self.strikes(Fault::SwappedEntries)
            }
            (Some(Mail::Entry { entry, .. }), Mail::Reply(reply)) => {
                let mid = entry.place.map(|place| place.mid.to_string());
                let mut scratch = Vec::new();
                let answer = reply
                    .answer
                    .as_ref()
                    .map(|told| String::from_utf8_lossy(told.json(&mut scratch)))
                    .unwrap_or_default();
                let is_its_own = entry.excluded.is_none() && mid.is_some_and(|mid| answer.contains(&mid));
                is_its_own && self.strikes(Fault::OvertakingReply)
            }
            _ => false,
        };
        self.lanes[lane].push_back(mail);
        let len = self.lanes[lane].len();
        if swaps {
            self.lanes[lane].swap(len - 1, len - 2);
        }
        // A doubled entry takes a place that nobody gave it.
        if len > self.lane_entries as usize && !self.sabotages(Fault::DoubledEntry) {
            let saw = format!("{len} mails in the lane from {} to {} of {} places", from.0, to.0, self.lane_entries);
            self.fail(Check::LaneBound, saw);
        }
    }

    fn sabotages(&self, fault: Fault) -> bool {
        self.sabotage.as_ref().is_some_and(|sabotage| sabotage.fault == fault)
    }

    /// Whether the planted bug is this one, and now is its time.
    fn strikes(&mut self, fault: Fault) -> bool {
        let Some(sabotage) = self.sabotage.as_mut().filter(|sabotage| sabotage.fault == fault) else { return false };
        if sabotage.has_struck || sabotage.spare > 0 {
            sabotage.spare = sabotage.spare.saturating_sub(1);
            return false;
        }
        sabotage.has_struck = true;
        true
    }

    fn tamper_with_frames(&mut self, frames: &mut Vec<Received>, fresh: usize) {
        let Some(fault) = self.sabotage.as_ref().map(|sabotage| sabotage.fault) else { return };
        for at in (fresh..frames.len()).rev() {
            let Received::Text(text) = &frames[at] else { continue };
            let is_reply = text.starts_with("{\"id\":");
            match fault {
                Fault::DoubledReply if is_reply && self.strikes(fault) => {
                    let again = frames[at].clone();
                    frames.insert(at, again);
                }
                Fault::LostReply if is_reply && self.strikes(fault) => {
                    frames.remove(at);
                }
                Fault::SilentGap if is_reply && text.contains("\"resumed\":{\"gap\":true") && self.strikes(fault) => {
                    let told = text.replace("\"gap\":true,\"recovered\":false", "\"gap\":false,\"recovered\":true");
                    frames[at] = Received::Text(told);
                }
                Fault::SkippedSeq => {
                    if let Some(shifted) = self.skip_seq(text) {
                        frames[at] = Received::Text(shifted);
                    }
                }
                _ => {}
            }
        }
    }

    /// The seq that a sequencer with a bug leaves out, in every room.
    fn left_out(&self) -> Option<u64> {
        let sabotage = self.sabotage.as_ref().filter(|sabotage| sabotage.fault == Fault::SkippedSeq)?;
        Some(3 + sabotage.spare)
    }

    /// Adds one to every seq from the one that is left out on.
    fn skip_seq(&self, text: &str) -> Option<String> {
        let from = self.left_out()?;
        let mut value: Value = serde_json::from_str(text).ok()?;
        if value.get("event").is_some() {
            // As text: the data must stay as it is.
            let seq = value.get("seq")?.as_u64().filter(|seq| *seq >= from)?;
            return Some(text.replacen(&format!("\"seq\":{seq},"), &format!("\"seq\":{},", seq + 1), 1));
        }
        let data = value.get_mut("data")?;
        shift(data, from);
        for list in ["results", "messages"] {
            for one in data.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                shift(one, from);
            }
        }
        Some(value.to_string())
    }
}

fn shift(data: &mut Value, from: u64) {
    if let Some(seq) = data.get("seq").and_then(Value::as_u64).filter(|seq| *seq >= from) {
        data["seq"] = (seq + 1).into();
    }
    let pos = data.get("pos").and_then(Value::as_str).and_then(|pos| pos.split_once('-'));
    if let Some((epoch, Ok(seq))) = pos.map(|(epoch, seq)| (epoch, seq.parse::<u64>()))
        && seq >= from
    {
        data["pos"] = format!("{epoch}-{}", seq + 1).into();
    }
}

/// The position in `text` as the core gave it out.
fn shift_back(text: &str, from: u64) -> Option<String> {
    let since = text.split_once("\"since\":\"")?.1.split_once('"')?.0;
    let (epoch, seq) = since.split_once('-')?;
    let seq = seq.parse::<u64>().ok().filter(|seq| *seq > from)?;
    Some(text.replacen(since, &format!("{epoch}-{}", seq - 1), 1))
}
