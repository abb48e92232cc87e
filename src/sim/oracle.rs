//! What was promised, and whether it was kept. The [`Ledger`] knows what all clients together have
//! seen, a [`View`] what one connection was promised and has seen so far.
//! Invariant: nothing here asks the core; all is concluded from what clients sent and got.

use crate::base::limits::{HISTORY_AGE_MAX, HISTORY_ENTRIES_MAX};
use crate::base::time::Instant;
use crate::wire::msgpack;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A client may read a message this much later than it was sequenced.
const LAG: Duration = Duration::from_secs(120);

/// What the outside says when it denies something.
pub const DENIAL: &str = "not today";

/// A promise, by the name under which its breach is reported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Check {
    /// A room's messages come in the order of a dense `seq`.
    OneOrder,
    /// All see the same message at the same place of a room's order.
    Agreement,
    /// A member gets every message of its room.
    NoLoss,
    /// And gets it once.
    NoDuplicate,
    /// `exclude_self` keeps a message from its sender's connection, and from nobody else.
    Excluded,
    /// Nothing comes from a room that the connection is not in.
    MembersOnly,
    /// A join with a position replays what was missed, once and in order.
    ReplayComplete,
    /// A gap is told where there is one, and nowhere else.
    NoSilentGap,
    /// A publish that was answered has the place that the answer named.
    AnsweredIsDelivered,
    /// A repeated client id is delivered once and gets its first answer.
    RetriedOnce,
    /// Each request with an id is answered once.
    RepliesOnce,
    /// A reply comes after the messages that were sequenced before it.
    NothingOvertakes,
    /// Valid requests succeed.
    RequestsSucceed,
    /// What was refused because its sender asks too much was not done.
    RefusedIsNotDone,
    /// A connection is closed for a reason.
    NoNeedlessClose,
    /// `data` arrives byte for byte.
    DataIntact,
    /// The server writes whole frames, and nothing after a close frame.
    WholeFrames,
    OutboxBound,
    LaneBound,
    HistoryBound,
    WaitingBound,
    /// A shard holds no more for readers than its budget and what one message adds.
    MemoryBound,
    /// What a shard's account says is what there is.
    MemoryCounted,
    /// Once all is quiet, homes know exactly the members that there are.
    MembersConverge,
    /// Once all is quiet, nothing waits.
    AllIsDone,
    /// Once all have gone and time has passed, nothing is held.
    AllIsFreed,
    /// No assertion of the core fails.
    NoPanic,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub check: Check,
    pub saw: String,
}

type Kept = Result<(), Failure>;

/// What is left of JSON that went through MessagePack: all but its spelling.
fn packed_and_unpacked(json: &str) -> String {
    let (mut packed, mut unpacked) = (Vec::new(), Vec::new());
    msgpack::from_json(&mut packed, json);
    let done = msgpack::to_json(&mut unpacked, &packed, usize::MAX / 2);
    done.ok().and_then(|()| String::from_utf8(unpacked).ok()).unwrap_or_default()
}

fn broken<T>(check: Check, saw: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { check, saw: saw.into() })
}

/// A room of a tenant, `tenant/room`.
pub type RoomKey = String;

/// What was published under one tag, which is part of its data: a retry has the same.
#[derive(Debug)]
struct Attempt {
    /// As the sender wrote it.
    data: String,
    from: String,
    exclude_self: bool,
    /// Connections that sent it.
    conns: BTreeSet<u32>,
    /// Where it was sequenced, by room.
    places: BTreeMap<RoomKey, String>,
    /// How often it was sent, and how often that was refused.
    sent: u64,
    refused: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Message {
    mid: String,
    tag: String,
}

#[derive(Default)]
pub struct Ledger {
    /// Clients speak MessagePack too, which keeps what JSON says and not how.
    babel: bool,
    attempts: BTreeMap<String, Attempt>,
    /// By room, epoch and seq.
    order: BTreeMap<(RoomKey, String), BTreeMap<u64, Message>>,
    /// Room and seq of each mid.
    mids: BTreeMap<String, (RoomKey, u64, String)>,
}

impl Ledger {
    pub fn new(babel: bool) -> Ledger {
        Ledger { babel, ..Ledger::default() }
    }

    pub fn attempt(&mut self, tag: &str, data: &str, from: &str, exclude_self: bool, conn: u32) {
        let attempt = self.attempts.entry(tag.to_string()).or_insert_with(|| Attempt {
            data: data.to_string(),
            from: from.to_string(),
            exclude_self,
            conns: BTreeSet::new(),
            places: BTreeMap::new(),
            sent: 0,
            refused: 0,
        });
        attempt.conns.insert(conn);
        attempt.sent += 1;
    }

    /// Whatever was refused each time that it was sent is nowhere.
    pub fn assert_refused_is_not_done(&self) -> Kept {
        let is_wrong = |attempt: &&Attempt| attempt.sent == attempt.refused && !attempt.places.is_empty();
        match self.attempts.values().find(is_wrong) {
            None => Ok(()),
            Some(attempt) => broken(Check::RefusedIsNotDone, format!("refused and sequenced: {attempt:?}")),
        }
    }

    /// A message was seen, or its place told. The epoch is not always known.
    fn note(&mut self, room: &str, epoch: Option<&str>, seq: u64, mid: &str, tag: &str) -> Kept {
        let Some(attempt) = self.attempts.get_mut(tag) else {
            return broken(Check::Agreement, format!("{room}: nobody sent `{tag}`, which is at {seq}"));
        };
        let place = attempt.places.entry(room.to_string()).or_insert_with(|| mid.to_string());
        if place != mid {
            return broken(Check::RetriedOnce, format!("{room}: `{tag}` was sequenced as {place} and as {mid}"));
        }
        let here = (room.to_string(), seq, tag.to_string());
        let known = self.mids.entry(mid.to_string()).or_insert_with(|| here.clone());
        if *known != here {
            return broken(Check::Agreement, format!("{mid} is {known:?} for one and {here:?} for another"));
        }
        let Some(epoch) = epoch else { return Ok(()) };
        let order = self.order.entry((room.to_string(), epoch.to_string())).or_default();
        let message = Message { mid: mid.to_string(), tag: tag.to_string() };
        let known = order.entry(seq).or_insert_with(|| message.clone());
        if *known != message {
            let saw = format!("{room} has at {seq} {known:?} for one and {message:?} for another");
            return broken(Check::Agreement, saw);
        }
        Ok(())
    }

    /// Messages of the longest order.
    pub fn longest(&self) -> usize {
        self.order.values().map(BTreeMap::len).max().unwrap_or(0)
    }

    fn at(&self, room: &str, epoch: &str, seq: u64) -> Option<&Message> {
        self.order.get(&(room.to_string(), epoch.to_string()))?.get(&seq)
    }

    /// Whether `conn` asked that this message be kept from it.
    fn is_kept_from(&self, tag: &str, conn: u32) -> bool {
        self.attempts.get(tag).is_some_and(|attempt| attempt.exclude_self && attempt.conns.contains(&conn))
    }
}

/// Where a client was in a room.
#[derive(Clone, Debug)]
pub struct Seen {
    pub seq: u64,
    pub epoch: Option<String>,
    /// A `mid` or a `pos`.
    pub cursor: String,
    pub at: Instant,
}

/// What a request was, for judging its reply.
#[derive(Clone, Debug)]
pub enum Asked {
    Join { room: String, since: Option<Seen> },
    Leave { room: String },
    JoinMany { rooms: Vec<String> },
    LeaveMany { rooms: Vec<String> },
    Publish { rooms: Vec<String>, tag: String, exclude_self: bool, is_many: bool },
    Info { room: String },
    History { room: String },
    List,
    Ping,
    Unknown,
}

impl Asked {
    fn moves_many(&self) -> &[String] {
        match self {
            Asked::JoinMany { rooms } | Asked::LeaveMany { rooms } => rooms,
            _ => &[],
        }
    }
}

/// A connection's stay in a room.
#[derive(Clone, Debug, Default)]
pub struct Stay {
    epoch: Option<String>,
    /// The next seq to come; unknown until the first where the join did not say.
    next: Option<u64>,
    /// Seqs that did not come, with the promise that is broken unless they were excluded.
    holes: BTreeMap<u64, Check>,
    /// A replay may be under way: replies come before what is still to be replayed.
    is_replaying: bool,
    pub last: Option<Seen>,
}

/// What one connection was promised and has seen.
pub struct View {
    pub conn: u32,
    tenant: String,
    user: String,
    asked: BTreeMap<i64, Asked>,
    next_id: i64,
    pub stays: BTreeMap<String, Stay>,
    /// Stays that have ended, with holes to be explained.
    ended: Vec<(String, Stay)>,
    /// Rooms that it excluded itself from some message of.
    excludes: BTreeSet<String>,
    /// How much the server can keep.
    plenty: Plenty,
    /// Somebody outside is asked now and then, who may deny, or say nothing in time.
    asks: bool,
    /// May be told that it asks too much.
    is_limited: bool,
}

/// What a run leaves the server to keep messages in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plenty {
    /// Histories are as long as they may be.
    Enough,
    /// Messages may be so large that histories let go of them early.
    Heavy,
    /// Memory is so scarce that histories are cut short and publishes refused.
    Scarce,
}

impl View {
    pub fn new(conn: u32, tenant: &str, user: &str, plenty: Plenty) -> View {
        View {
            conn,
            tenant: tenant.to_string(),
            user: user.to_string(),
            asked: BTreeMap::new(),
            next_id: 1,
            stays: BTreeMap::new(),
            ended: Vec::new(),
            excludes: BTreeSet::new(),
            plenty,
            asks: false,
            is_limited: false,
        }
    }

    pub fn limited(self, is_limited: bool) -> View {
        View { is_limited, ..self }
    }

    pub fn asked_about(self, asks: bool) -> View {
        View { asks, ..self }
    }

    pub fn inbox(&self) -> String {
        format!("user:{}", self.user)
    }

    fn key(&self, room: &str) -> RoomKey {
        format!("{}/{room}", self.tenant)
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// Notes a request and gives its id.
    pub fn ask(&mut self, asked: Asked) -> i64 {
        if let Asked::Publish { rooms, exclude_self: true, .. } = &asked {
            self.excludes.extend(rooms.iter().cloned());
        }
        let id = self.next_id;
        self.next_id += 1;
        self.asked.insert(id, asked);
        id
    }

    /// A request over several rooms changes whether the connection is in this one, at a place of
    /// its order that the reply does not tell.
    pub fn is_moving(&self, room: &str) -> bool {
        self.asked.values().any(|asked| asked.moves_many().iter().any(|other| other == room))
    }

    /// A single join or leave of this room is under way.
    pub fn is_changing(&self, room: &str) -> bool {
        let is_it = |asked: &Asked| match asked {
            Asked::Join { room: other, .. } | Asked::Leave { room: other } => other == room,
            _ => false,
        };
        self.asked.values().any(is_it)
    }

    pub fn on_text(&mut self, text: &str, ledger: &mut Ledger, now: Instant) -> Kept {
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            return broken(Check::WholeFrames, format!("not JSON: {text}"));
        };
        if let Some(id) = value.get("id") {
            return self.on_reply(id, &value, ledger, now);
        }
        match value["event"].as_str() {
            Some("connected") => {
                self.stays.entry(self.inbox()).or_default();
                Ok(())
            }
            Some("error") if !self.may_refuse(&value["data"]) && !self.may_limit(&value["data"]) => {
                broken(Check::RequestsSucceed, text)
            }
            Some(_) if value.get("seq").is_some() => self.on_push(text, &value, ledger, now),
            Some(_) => Ok(()),
            None => broken(Check::WholeFrames, format!("neither reply nor push: {text}")),
        }
    }

    fn on_push(&mut self, text: &str, push: &Value, ledger: &mut Ledger, now: Instant) -> Kept {
        let (Some(room), Some(seq), Some(mid)) = (push["room"].as_str(), push["seq"].as_u64(), push["mid"].as_str())
        else {
            return broken(Check::WholeFrames, format!("a logged push without room, seq or mid: {text}"));
        };
        let (key, conn) = (self.key(room), self.conn);
        let tag = push["data"]["tag"].as_str().unwrap_or_default();
        if !self.stays.contains_key(room) {
            let may_be_in = self.is_moving(room) || room == self.inbox();
            if !may_be_in {
                return broken(Check::MembersOnly, format!("connection {conn} is not in {room}: {}", head(text)));
            }
            self.stays.insert(room.to_string(), Stay::default());
        }
        let may_exclude = self.excludes.contains(room);
        let stay = self.stays.get_mut(room).expect("made above");
        ledger.note(&key, stay.epoch.as_deref(), seq, mid, tag)?;
        let attempt = &ledger.attempts[tag];
        if push["from"].as_str() != Some(&attempt.from) {
            return broken(Check::Agreement, format!("{} sent what comes as {}", attempt.from, head(text)));
        }
        let ends_with = |data: &str| text.ends_with(&format!("\"data\":{data}}}"));
        let is_intact = ends_with(&attempt.data) || ledger.babel && ends_with(&packed_and_unpacked(&attempt.data));
        if !is_intact {
            return broken(Check::DataIntact, format!("`{}` came as {}", head(&attempt.data), head(text)));
        }
        if attempt.exclude_self && attempt.conns.len() == 1 && attempt.conns.contains(&conn) {
            return broken(Check::Excluded, format!("connection {conn} got its own {}", head(text)));
        }
        let next = *stay.next.get_or_insert(seq);
        if seq < next {
            let saw = format!("connection {conn} in {room}: {seq} after {}", next - 1);
            let check = stay.holes.get(&seq).map_or(Check::NoDuplicate, |check| match check {
                Check::NothingOvertakes => Check::NothingOvertakes,
                _ => Check::OneOrder,
            });
            return broken(check, saw);
        }
        stay.advance(seq - 1, Check::NoLoss, may_exclude, &key, conn, ledger)?;
        stay.next = Some(seq + 1);
        stay.last = Some(Seen { seq, epoch: stay.epoch.clone(), cursor: mid.to_string(), at: now });
        Ok(())
    }

    fn on_reply(&mut self, id: &Value, reply: &Value, ledger: &mut Ledger, now: Instant) -> Kept {
        let conn = self.conn;
        let Some(asked) = id.as_i64().and_then(|id| self.asked.remove(&id)) else {
            return broken(
                Check::RepliesOnce,
                format!("connection {conn}: nothing waits for {}", head(&reply.to_string())),
            );
        };
        let is_ok = reply["ok"] == true;
        if self.may_limit(&reply["error"]) {
            if let Asked::Publish { tag, .. } = &asked
                && let Some(attempt) = ledger.attempts.get_mut(tag)
            {
                attempt.refused += 1;
            }
            return Ok(());
        }
        let may_fail = match &asked {
            Asked::Unknown => reply["error"]["code"] == "unknown_event",
            Asked::Leave { room } if reply["error"]["code"] == "not_member" => !self.stays.contains_key(room),
            Asked::Publish { .. } => self.may_refuse(&reply["error"]),
            Asked::Join { .. } | Asked::Leave { .. } | Asked::Info { .. } | Asked::History { .. } => {
                self.may_deny(&reply["error"])
            }
            Asked::JoinMany { .. } | Asked::LeaveMany { .. } | Asked::List | Asked::Ping => false,
        };
        if !is_ok && !may_fail {
            return broken(Check::RequestsSucceed, format!("connection {conn}: {asked:?} was answered {reply}"));
        }
        if !is_ok {
            // Whatever the reason was, it was not done.
            if let Asked::Publish { tag, .. } = &asked
                && let Some(attempt) = ledger.attempts.get_mut(tag)
            {
                attempt.refused += 1;
            }
            return Ok(());
        }
        let data = &reply["data"];
        match asked {
            Asked::Join { room, since } => self.on_joined(&room, since, data, ledger, now)?,
            Asked::Leave { room } => self.end_stay(&room),
            Asked::JoinMany { rooms } => {
                for room in self.done(&rooms, "joined", data)? {
                    self.stays.entry(room).or_default();
                }
            }
            Asked::LeaveMany { rooms } => {
                for room in self.done(&rooms, "left", data)? {
                    self.end_stay(&room);
                }
            }
            Asked::Publish { rooms, tag, exclude_self, is_many: false } => {
                self.on_published(&rooms[0], &tag, exclude_self, data, ledger)?;
            }
            Asked::Publish { rooms, tag, exclude_self, is_many: true } => {
                let results = data["results"].as_array().map_or(&[][..], Vec::as_slice);
                let named: Vec<_> = results.iter().filter_map(|result| result["room"].as_str()).collect();
                if named != rooms {
                    return broken(Check::RepliesOnce, format!("asked for {rooms:?}, answered for {named:?}"));
                }
                for (room, result) in rooms.iter().zip(results) {
                    self.on_published(room, &tag, exclude_self, result, ledger)?;
                }
            }
            Asked::Info { room } => self.on_info(&room, data, ledger)?,
            Asked::History { room } => self.on_history(&room, data, ledger)?,
            Asked::List | Asked::Ping | Asked::Unknown => {}
        }
        Ok(())
    }

    /// A publish may fail with `error`: there is no memory for it, and it says when to try again.
    fn may_refuse(&self, error: &Value) -> bool {
        let is_full = error["code"] == "unavailable" && error["retry_after_ms"].is_u64();
        self.plenty == Plenty::Scarce && is_full || self.may_deny(error)
    }

    /// Somebody outside may have denied it, or said nothing in time, or too much waits for that.
    fn may_deny(&self, error: &Value) -> bool {
        let is_known = match error["code"].as_str() {
            Some("forbidden") => error["message"] == DENIAL,
            Some("unavailable") => error["retry_after_ms"].is_u64(),
            Some("too_many") => error["limit"].as_str().is_some_and(|limit| limit.starts_with("asked")),
            _ => false,
        };
        self.asks && is_known
    }

    /// The rooms of a request over several that the reply calls `done`; it names each exactly once.
    fn done(&self, rooms: &[String], done: &str, data: &Value) -> Result<Vec<String>, Failure> {
        let list = |key: &str| data[key].as_array().cloned().unwrap_or_default();
        let done: Vec<String> = list(done).iter().filter_map(|room| room.as_str().map(str::to_string)).collect();
        let mut named = done.clone();
        for failed in list("failed") {
            let room = failed["room"].as_str().unwrap_or_default();
            let is_stranger = failed["error"]["code"] == "not_member" && !self.stays.contains_key(room);
            if !is_stranger && !self.may_deny(&failed["error"]) {
                return broken(Check::RequestsSucceed, format!("connection {}: {failed}", self.conn));
            }
            named.push(room.to_string());
        }
        let (mut asked, is_once) = (rooms.to_vec(), named.len() == rooms.len());
        asked.sort();
        named.sort();
        if asked != named || !is_once {
            return broken(Check::RepliesOnce, format!("asked for {asked:?}, answered for {named:?}"));
        }
        Ok(done)
    }

    /// Anything may fail with `error`: the client asks too much, and it says of what and when to go on.
    fn may_limit(&self, error: &Value) -> bool {
        let says_all = error["limit"].is_string() && error["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0);
        self.is_limited && error["code"] == "rate_limited" && says_all
    }

    fn end_stay(&mut self, room: &str) {
        if let Some(stay) = self.stays.remove(room) {
            self.ended.push((room.to_string(), stay));
        }
    }

    fn on_joined(&mut self, room: &str, since: Option<Seen>, data: &Value, ledger: &mut Ledger, now: Instant) -> Kept {
        let conn = self.conn;
        let (Some(head), Some(epoch)) = (data["seq"].as_u64(), data["epoch"].as_str()) else {
            return broken(Check::RequestsSucceed, format!("a join answered with {data}"));
        };
        if self.stays.contains_key(room) {
            return self.caught_up(room, epoch, head, None, Check::NothingOvertakes, ledger);
        }
        let mut stay = Stay { epoch: Some(epoch.to_string()), next: Some(head + 1), ..Stay::default() };
        let pos = data["pos"].as_str().unwrap_or_default().to_string();
        stay.last = Some(Seen { seq: head, epoch: stay.epoch.clone(), cursor: pos, at: now });
        if let Some(since) = since {
            let resumed = &data["resumed"];
            let (Some(gap), Some(replayed)) = (resumed["gap"].as_bool(), resumed["replayed"].as_u64()) else {
                return broken(
                    Check::NoSilentGap,
                    format!("connection {conn}: a join since {since:?} answered {data}"),
                );
            };
            let is_same = since.epoch.as_deref().is_none_or(|known| known == epoch);
            let missed = head.saturating_sub(since.seq);
            if gap {
                let is_old = now.since(since.at) + LAG > HISTORY_AGE_MAX;
                let is_kept = missed < HISTORY_ENTRIES_MAX as u64 && self.plenty == Plenty::Enough && !is_old;
                if since.epoch.as_deref() == Some(epoch) && is_kept {
                    let saw = format!("connection {conn} in {room}: a gap told since {since:?} at {head}");
                    return broken(Check::NoSilentGap, saw);
                }
            } else {
                if !is_same || since.seq > head {
                    let saw = format!("connection {conn} in {room}: no gap told since {since:?}, now {epoch}-{head}");
                    return broken(Check::NoSilentGap, saw);
                }
                // Its own messages on this same connection may be among them.
                let may_exclude = self.excludes.contains(room);
                if replayed > missed || (replayed < missed && !may_exclude) {
                    let saw = format!("connection {conn} in {room}: {replayed} replayed of {missed} since {since:?}");
                    return broken(Check::ReplayComplete, saw);
                }
                stay.next = Some(since.seq + 1);
                stay.is_replaying = replayed > 0;
                if replayed == 0 {
                    let key = self.key(room);
                    stay.advance(head, Check::ReplayComplete, may_exclude, &key, conn, ledger)?;
                } else {
                    stay.last = Some(Seen { at: now, ..since });
                }
            }
        }
        self.stays.insert(room.to_string(), stay);
        Ok(())
    }

    fn on_published(&mut self, room: &str, tag: &str, exclude_self: bool, data: &Value, ledger: &mut Ledger) -> Kept {
        let place = (data["mid"].as_str(), data["seq"].as_u64(), data["pos"].as_str());
        let (Some(mid), Some(seq), Some(pos)) = place else {
            // `room:update` answers without a place.
            return Ok(());
        };
        let epoch = pos.split('-').next().unwrap_or_default();
        let noted = ledger.note(&self.key(room), Some(epoch), seq, mid, tag);
        if let Err(failure) = noted {
            let check = if failure.check == Check::Agreement { Check::AnsweredIsDelivered } else { failure.check };
            return broken(check, failure.saw);
        }
        let own = exclude_self.then_some(seq);
        self.caught_up(room, epoch, seq, own, Check::NothingOvertakes, ledger)
    }

    fn on_info(&mut self, room: &str, data: &Value, ledger: &mut Ledger) -> Kept {
        let (Some(head), Some(epoch)) = (data["seq"].as_u64(), data["epoch"].as_str()) else {
            return broken(Check::RequestsSucceed, format!("room:info answered with {data}"));
        };
        let is_moving = self.is_moving(room);
        if let Some(stay) = self.stays.get_mut(room)
            && !is_moving
        {
            stay.epoch.get_or_insert_with(|| epoch.to_string());
            stay.next.get_or_insert(head + 1);
        }
        self.caught_up(room, epoch, head, None, Check::NothingOvertakes, ledger)
    }

    /// Everything up to `seq` has been seen, where the connection is in the room and live.
    fn caught_up(
        &mut self,
        room: &str,
        epoch: &str,
        seq: u64,
        own: Option<u64>,
        check: Check,
        ledger: &Ledger,
    ) -> Kept {
        let (key, may_exclude, conn) = (self.key(room), self.excludes.contains(room), self.conn);
        if self.is_moving(room) {
            return Ok(());
        }
        let Some(stay) = self.stays.get_mut(room) else { return Ok(()) };
        if stay.is_replaying || stay.next.is_none() {
            return Ok(());
        }
        if stay.epoch.as_deref().is_some_and(|known| known != epoch) {
            return broken(Check::OneOrder, format!("{room} has epoch {epoch} under its member's feet: {stay:?}"));
        }
        if own == stay.next {
            stay.next = own.map(|seq| seq + 1);
        }
        stay.advance(seq, check, may_exclude, &key, conn, ledger)
    }

    fn on_history(&mut self, room: &str, data: &Value, ledger: &mut Ledger) -> Kept {
        let key = self.key(room);
        let epoch = data["pos"].as_str().and_then(|pos| pos.split('-').next()).map(str::to_string);
        let mut before = None;
        for message in data["messages"].as_array().map_or(&[][..], Vec::as_slice) {
            let seq = message["seq"].as_u64().unwrap_or_default();
            let (mid, tag) = (message["mid"].as_str().unwrap_or_default(), message["data"]["tag"].as_str());
            ledger.note(&key, epoch.as_deref(), seq, mid, tag.unwrap_or_default())?;
            if before.is_some_and(|before| seq != before + 1) {
                return broken(Check::OneOrder, format!("history of {room}: {seq} after {before:?}"));
            }
            before = Some(seq);
        }
        Ok(())
    }

    /// Once all is quiet: everything has been seen up to what `room:info` said.
    pub fn assert_complete(&mut self, room: &str, data: &Value, ledger: &Ledger) -> Kept {
        let (Some(head), Some(epoch)) = (data["seq"].as_u64(), data["epoch"].as_str()) else { return Ok(()) };
        if let Some(stay) = self.stays.get_mut(room) {
            stay.is_replaying = false;
        }
        self.caught_up(room, epoch, head, None, Check::NoLoss, ledger)
    }

    /// The data of a `room:info` reply to `id`, before it is judged.
    pub fn info_of(&self, text: &str) -> Option<(String, Value)> {
        let mut reply: Value = serde_json::from_str(text).ok()?;
        match self.asked.get(&reply.get("id")?.as_i64()?)? {
            Asked::Info { room } => Some((room.clone(), reply["data"].take())),
            _ => None,
        }
    }

    /// Every seq that did not come was kept from this connection at its own wish.
    pub fn explain_holes(&self, ledger: &Ledger) -> Kept {
        let stays = self.ended.iter().map(|(room, stay)| (room, stay)).chain(&self.stays);
        for (room, stay) in stays {
            for (seq, check) in &stay.holes {
                let Some(epoch) = &stay.epoch else { continue };
                match ledger.at(&self.key(room), epoch, *seq) {
                    Some(message) if ledger.is_kept_from(&message.tag, self.conn) => {}
                    // Nobody saw it, and the answer to its sender may have been lost.
                    None if self.has_unanswered_exclusion(room) => {}
                    message => {
                        let saw = format!("connection {} in {room} never got {seq}, {message:?}", self.conn);
                        let check = if message.is_none() { Check::OneOrder } else { *check };
                        return broken(check, saw);
                    }
                }
            }
        }
        Ok(())
    }

    fn has_unanswered_exclusion(&self, room: &str) -> bool {
        let is_it = |asked: &Asked| match asked {
            Asked::Publish { rooms, exclude_self: true, .. } => rooms.iter().any(|other| other == room),
            _ => false,
        };
        self.asked.values().any(is_it)
    }

    /// Once all is quiet: nothing waits for an answer.
    pub fn assert_answered(&self) -> Kept {
        match self.asked.first_key_value() {
            None => Ok(()),
            Some((id, asked)) => {
                let count = self.asked.len();
                let saw = format!("connection {}: {count} requests without an answer, first {id} {asked:?}", self.conn);
                broken(Check::RepliesOnce, saw)
            }
        }
    }
}

impl Stay {
    /// Everything up to `seq` should have come.
    fn advance(&mut self, upto: u64, check: Check, may_exclude: bool, key: &str, conn: u32, ledger: &Ledger) -> Kept {
        let next = self.next.unwrap_or(upto + 1);
        for seq in next..=upto {
            let message = self.epoch.as_deref().and_then(|epoch| ledger.at(key, epoch, seq));
            let is_own = message.is_some_and(|message| ledger.is_kept_from(&message.tag, conn));
            if !may_exclude || message.is_some() && !is_own {
                let check = if message.is_none() && check == Check::NoLoss { Check::OneOrder } else { check };
                let saw = format!("connection {conn} in {key} lacks {seq}, {message:?}, before {}", upto + 1);
                return broken(check, saw);
            }
            self.holes.insert(seq, check);
        }
        self.next = Some(next.max(upto + 1));
        Ok(())
    }
}

fn head(text: &str) -> &str {
    let end = (0..=text.len().min(300)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    &text[..end]
}
