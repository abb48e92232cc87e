//! A hall of shards with clients of Engine.IO, which speak by hand: what is sent and what comes are packets.

use ringroom::admission::token::{Claims, Verifier, sign_hs256};
use ringroom::base::limits::LANE_ENTRIES_MAX;
use ringroom::base::time::{Instant, Now};
use ringroom::base::wheel::TICK;
use ringroom::features;
use ringroom::kernel::Limits;
use ringroom::kernel::audited::{Audited, Auditing};
use ringroom::kernel::carriers::{PollAnswer, PollId, Transport};
use ringroom::kernel::effects::Effects;
use ringroom::kernel::ids::{ConnId, ShardId};
use ringroom::kernel::mail::Mail;
use ringroom::kernel::mounts::EngineSettings;
use ringroom::kernel::paths::Paths;
use ringroom::shard::{EngineOpening, Input, Shard, ShardConfig};
use ringroom::wire::codes::WireError;
use ringroom::wire::frame;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

pub type Name = usize;

pub struct Hall {
    pub shards: Vec<Shard>,
    pub now: Now,
    pub guests: Vec<Guest>,
    /// What GETs were answered.
    pub answers: BTreeMap<PollId, PollAnswer>,
    polls: u64,
    /// Whether users may come in.
    pub refusal: Option<WireError>,
    /// Sessions by which bad tokens came, and riders that came in and left.
    pub failures: Vec<ConnId>,
    pub left: Vec<ConnId>,
    /// Whose ends the audit log is told, with code and reason.
    pub ends: Vec<String>,
    mail: VecDeque<(ShardId, ShardId, Mail)>,
    is_soon: bool,
}

pub struct Guest {
    pub shard: usize,
    pub conn: ConnId,
    /// A WebSocket, whose packets come by themselves.
    pub is_websocket: bool,
    pub packets: VecDeque<String>,
    pub closed: Option<u16>,
    /// Sent, and not yet read by the server.
    unread: VecDeque<Sent>,
}

#[derive(Clone, Debug)]
pub enum Sent {
    Text(String),
    Binary(Vec<u8>),
}

impl Hall {
    pub fn new(shards: u8, paths: &Paths) -> Hall {
        Hall::with(shards, paths, Limits::default())
    }

    pub fn with(shards: u8, paths: &Paths, limits: Limits) -> Hall {
        paths.check().expect("they can be served");
        let now = Now { at: Instant::from_nanos(1_000_000_000), unix_ms: 1_790_000_000_000 };
        let shard = |id| {
            let audit = Auditing { is_on: true, ..Auditing::default() };
            let limits = Limits { audit, ..limits.clone() };
            let config =
                ShardConfig { id: ShardId(id), shards, origin: 1, seed: 7 + u64::from(id), map_key: [1, 2], limits };
            let mut shard = Shard::new(config, features::all(), now).with_paths(paths);
            let verifier = Verifier::hs256(SECRET.as_bytes(), 0).expect("a secret");
            shard.step(now, Input::Verifier(Arc::new(verifier)), &mut Effects::default());
            shard
        };
        Hall {
            shards: (0..shards).map(shard).collect(),
            now,
            guests: Vec::new(),
            answers: BTreeMap::new(),
            polls: 0,
            refusal: None,
            failures: Vec::new(),
            left: Vec::new(),
            ends: Vec::new(),
            mail: VecDeque::new(),
            is_soon: false,
        }
    }

    pub fn settings(&self, path: &str) -> Arc<EngineSettings> {
        let dialect = self.shards[0].mount_at(path).expect("it is served");
        self.shards[0].engine(dialect).clone()
    }

    pub fn token(&self, user: &str) -> String {
        let exp = Some(self.now.unix_ms / 1_000 + 3_600);
        sign_hs256(SECRET.as_bytes(), &Claims { sub: user.into(), exp, ..Claims::default() })
    }

    pub fn open(&mut self, shard: usize, path: &str, transport: Transport) -> Name {
        self.open_with(shard, path, transport, None)
    }

    /// `token`: of the first request.
    pub fn open_with(&mut self, shard: usize, path: &str, transport: Transport, token: Option<&str>) -> Name {
        let of = &mut self.shards[shard];
        let dialect = of.mount_at(path).expect("it is served");
        let conn = of.reserve().expect("there is room");
        let verified = token.map(|token| of.verify(self.now, token));
        let (identity, refused) = match verified {
            None => (ringroom::admission::identity::Identity::guest(), None),
            Some(Ok(identity)) => (identity, None),
            Some(Err(refused)) => (ringroom::admission::identity::Identity::guest(), Some(refused)),
        };
        let secret = [shard as u8; 12];
        let opening = EngineOpening { conn, dialect, transport, secret, identity, refused, greeting: Box::default() };
        let is_websocket = transport != Transport::Polling;
        let (packets, unread) = (VecDeque::new(), VecDeque::new());
        self.guests.push(Guest { shard, conn, is_websocket, packets, closed: None, unread });
        self.step(shard, Input::OpenEngine(Box::new(opening)));
        self.settle();
        self.guests.len() - 1
    }

    pub fn step(&mut self, shard: usize, input: Input<'_>) {
        let mut effects = Effects::default();
        self.shards[shard].step(self.now, input, &mut effects);
        self.carry_out(shard, effects);
    }

    fn carry_out(&mut self, shard: usize, mut effects: Effects) {
        let me = ShardId(shard as u8);
        self.mail.extend(effects.mail.drain(..).map(|(to, mail)| (me, to, mail)));
        for (poll, answer) in effects.polls.drain(..) {
            assert!(self.answers.insert(poll, answer).is_none(), "a GET is answered once");
        }
        for (probe, session) in effects.merged.drain(..) {
            // What came behind the upgrade is the session's.
            let at = self.at(shard, probe).expect("a probe is somebody's");
            let unread = std::mem::take(&mut self.guests[at].unread);
            let packets = std::mem::take(&mut self.guests[at].packets);
            assert!(packets.is_empty() || packets == ["3probe"], "{packets:?}");
            let of = self.at(shard, session).expect("a session is somebody's");
            let guest = &mut self.guests[of];
            guest.is_websocket = true;
            guest.unread.extend(unread);
            guest.packets.extend(packets);
            self.guests[at].closed = Some(0);
        }
        self.failures.append(&mut effects.failures);
        self.is_soon |= std::mem::take(&mut effects.is_soon);
        self.left.append(&mut effects.left);
        self.ends.extend(effects.audit.drain(..).filter_map(|audited| match audited {
            Audited::Closed { user, code, reason, .. } => Some(format!("{} {code} {reason}", &*user)),
            _ => None,
        }));
        let dirty: Vec<ConnId> = effects.dirty.drain(..).chain(effects.dirty_by_crowd.drain(..)).collect();
        for conn in dirty {
            self.flush(shard, conn);
        }
        for conn in effects.ended.drain(..) {
            if let Some(at) = self.at(shard, conn) {
                self.guests[at].closed.get_or_insert(0);
            }
            self.step(shard, Input::Gone { conn });
        }
        for conn in effects.reset.drain(..) {
            self.step(shard, Input::Gone { conn });
        }
        for entrant in effects.entrants.drain(..) {
            let (conn, carrier) = (entrant.conn, entrant.carrier);
            self.step(shard, Input::Entered { conn, carrier, refused: self.refusal.clone() });
        }
    }

    pub fn at(&self, shard: usize, conn: ConnId) -> Option<Name> {
        self.guests.iter().position(|guest| guest.shard == shard && guest.conn == conn)
    }

    fn flush(&mut self, shard: usize, conn: ConnId) {
        let Some(at) = self.at(shard, conn) else { return };
        if !self.guests[at].is_websocket {
            return self.step(shard, Input::Deliver { conn });
        }
        loop {
            let mut pieces = Vec::new();
            let bytes = self.shards[shard].gather(conn, &mut pieces, 1 << 16);
            let mut rest = &pieces.concat()[..];
            if bytes == 0 {
                return;
            }
            let guest = &mut self.guests[at];
            while let Some((opcode, payload, len)) = frame::first(rest) {
                match opcode {
                    frame::TEXT => guest.packets.push_back(String::from_utf8(payload.to_vec()).expect("text")),
                    frame::BINARY => guest.packets.push_back(format!("<{}>", String::from_utf8_lossy(payload))),
                    frame::CLOSE => guest.closed = Some(u16::from_be_bytes([payload[0], payload[1]])),
                    other => panic!("a frame of kind {other}"),
                }
                rest = &rest[len..];
            }
            self.step(shard, Input::Wrote { conn, bytes });
        }
    }

    /// Lets everything flow until nothing does.
    pub fn settle(&mut self) {
        loop {
            let mut did = false;
            while let Some((from, to, mail)) = self.mail.pop_front() {
                did = true;
                self.step(to.index(), Input::Mail { from, mail });
                self.step(from.index(), Input::Credit { peer: to, free: LANE_ENTRIES_MAX as u32 });
            }
            for at in 0..self.guests.len() {
                let (shard, conn) = (self.guests[at].shard, self.guests[at].conn);
                if self.shards[shard].is_reading(conn)
                    && let Some(sent) = self.guests[at].unread.pop_front()
                {
                    did = true;
                    match sent {
                        Sent::Text(text) => self.step(shard, Input::Text { conn, message: text.as_bytes() }),
                        Sent::Binary(bytes) => self.step(shard, Input::Binary { conn, message: &bytes }),
                    }
                }
            }
            if !did && self.is_soon {
                // Somebody is about to be greeted.
                self.is_soon = false;
                self.pass(TICK);
                did = true;
            }
            if !did {
                return;
            }
        }
    }

    pub fn send(&mut self, guest: Name, sent: Sent) {
        self.guests[guest].unread.push_back(sent);
    }

    pub fn say(&mut self, guest: Name, packet: impl Into<String>) {
        self.send(guest, Sent::Text(packet.into()));
        self.settle();
    }

    pub fn bytes(&mut self, guest: Name, bytes: &[u8]) {
        self.send(guest, Sent::Binary(bytes.to_vec()));
        self.settle();
    }

    /// Sends a GET.
    pub fn get(&mut self, guest: Name) -> PollId {
        self.polls += 1;
        let poll = PollId(self.polls);
        let (shard, conn) = (self.guests[guest].shard, self.guests[guest].conn);
        self.step(shard, Input::Poll { conn, poll });
        self.settle();
        poll
    }

    /// What a GET was answered, if it was.
    pub fn answer(&self, poll: PollId) -> Option<&str> {
        match self.answers.get(&poll)? {
            PollAnswer::Packets(packets) => Some(std::str::from_utf8(packets).expect("text")),
            PollAnswer::Refused => Some("refused"),
            PollAnswer::Reply { .. } => panic!("a poll has no reply"),
        }
    }

    /// Sends a GET that is answered at once.
    pub fn poll(&mut self, guest: Name) -> String {
        let poll = self.get(guest);
        self.answer(poll).expect("an answer").to_owned()
    }

    /// All that came to a WebSocket.
    pub fn heard(&mut self, guest: Name) -> Vec<String> {
        self.guests[guest].packets.drain(..).collect()
    }

    /// Without what tells of the session and the connection.
    pub fn heard_of(&mut self, guest: Name, start: &str) -> Vec<String> {
        self.heard(guest).into_iter().filter(|packet| packet.starts_with(start)).collect()
    }

    pub fn is_open(&self, guest: Name) -> bool {
        self.guests[guest].closed.is_none()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now.at = self.now.at.after(time);
        self.now.unix_ms += time.as_millis() as u64;
        for shard in 0..self.shards.len() {
            self.step(shard, Input::Tick);
        }
        self.settle();
    }

    /// Closes what is open and sees that nothing is left.
    pub fn empty(&mut self) {
        for at in 0..self.guests.len() {
            let (shard, conn) = (self.guests[at].shard, self.guests[at].conn);
            self.step(shard, Input::Gone { conn });
        }
        self.settle();
        for shard in &self.shards {
            let (census, snapshot) = (shard.census(), shard.snapshot());
            assert_eq!((census.conns, census.calls, census.rooms_joined), (0, 0, 0));
            assert_eq!((snapshot.connections, snapshot.namespaces), (0, 0));
            assert_eq!(census.memory, census.account);
        }
    }
}
