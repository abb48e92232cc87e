//! A simulated client: what it wants, what it says, and how it comes back after its connection
//! has ended.

use crate::base::random::Random;
use crate::base::time::Instant;
use crate::sim::oracle::{Asked, Ledger, Seen, View};
use crate::sim::world::Link;
use std::collections::BTreeMap;
use std::time::Duration;

/// A retry is only promised to be recognised for so long.
const RETRY_TIME_MAX: Duration = Duration::from_secs(400);
/// Retries that a client remembers.
const RETRIES_MAX: usize = 8;

/// How a client reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pace {
    /// All there is, whenever it looks.
    Fast,
    /// A few bytes at a time.
    Slow,
    /// Nothing for long times.
    Stuck,
}

/// What the clients of a run are like.
#[derive(Clone, Debug)]
pub struct Habits {
    pub rooms: u64,
    pub users: u64,
    /// Rooms that one request may name.
    pub rooms_per_request: u64,
    pub pad_bytes_max: u64,
    /// Requests without an answer that a client may have.
    pub pipeline: usize,
}

struct Retry {
    first: Instant,
    rooms: Vec<String>,
    is_many: bool,
    tag: String,
    data: String,
    exclude_self: bool,
}

pub struct Client {
    pub name: usize,
    pub tenant: String,
    pub user: String,
    pub is_moderator: bool,
    pub pace: Pace,
    /// When it last read, and the longest time that it did not.
    pub looked: Instant,
    pub unread_max: Duration,
    pub link: Option<Link>,
    pub view: Option<View>,
    /// Rooms to come back to, and where it was in them.
    pub wanted: BTreeMap<String, Option<Seen>>,
    retries: Vec<Retry>,
    tags: u64,
    /// Broke the protocol on purpose, so the server may close.
    pub misbehaved: bool,
}

impl Client {
    pub fn new(name: usize, tenant: String, user: String, is_moderator: bool, pace: Pace) -> Client {
        Client {
            name,
            tenant,
            user,
            is_moderator,
            pace,
            looked: Instant::ZERO,
            unread_max: Duration::ZERO,
            link: None,
            view: None,
            wanted: BTreeMap::new(),
            retries: Vec::new(),
            tags: 0,
            misbehaved: false,
        }
    }

    /// What it says once it is connected again: joins from where it was, and some retries.
    pub fn come_back(&mut self, random: &mut Random, now: Instant, ledger: &mut Ledger) -> Vec<String> {
        let Some(view) = &mut self.view else { return Vec::new() };
        let mut said = Vec::new();
        for (room, seen) in std::mem::take(&mut self.wanted) {
            let since = seen.filter(|_| !random.one_in(8));
            said.push(join(view, room, since));
        }
        self.retries.retain(|retry| now.since(retry.first) < RETRY_TIME_MAX);
        for nth in 0..self.retries.len() {
            if !random.one_in(4) {
                said.push(self.retry(nth, ledger));
            }
        }
        said
    }

    /// The connection is over: notes where it was.
    pub fn lose(&mut self) -> Option<View> {
        self.link = None;
        let view = self.view.take()?;
        for (room, stay) in &view.stays {
            if *room != view.inbox() {
                self.wanted.insert(room.clone(), stay.last.clone());
            }
        }
        Some(view)
    }

    /// One thing to say, if it wants to say anything.
    pub fn speak(&mut self, habits: &Habits, random: &mut Random, now: Instant, ledger: &mut Ledger) -> Option<String> {
        let view = self.view.as_mut()?;
        if view.waiting() >= habits.pipeline {
            return None;
        }
        let room = format!("room:{}", random.below(habits.rooms));
        let is_in = view.stays.contains_key(&room);
        match random.below(100) {
            0..20 => {
                if view.is_moving(&room) || (is_in && !random.one_in(10)) {
                    return None;
                }
                let seen = self.wanted.remove(&room).flatten();
                // A join that is repeated, or pipelined behind another, finds it in the room already.
                let since = seen.filter(|_| !is_in && !view.is_changing(&room));
                Some(join(view, room, since))
            }
            20..26 => {
                if view.is_moving(&room) || (!is_in && !random.one_in(10)) {
                    return None;
                }
                if let Some(stay) = view.stays.get(&room).filter(|_| random.one_in(2)) {
                    self.wanted.insert(room.clone(), stay.last.clone());
                }
                let id = view.ask(Asked::Leave { room: room.clone() });
                Some(format!(r#"{{"id":{id},"event":"room:leave","data":{{"room":"{room}"}}}}"#))
            }
            26..31 => {
                let rooms = some_rooms(habits, random);
                let is_busy = |room: &String| view.is_moving(room) || view.is_changing(room);
                if rooms.iter().any(is_busy) {
                    return None;
                }
                let is_join = !random.one_in(3);
                let list = list(&rooms);
                let (event, asked) = match is_join {
                    true => ("room:join-many", Asked::JoinMany { rooms }),
                    false => ("room:leave-many", Asked::LeaveMany { rooms }),
                };
                let id = view.ask(asked);
                Some(format!(r#"{{"id":{id},"event":"{event}","data":{{"rooms":{list}}}}}"#))
            }
            31..38 => {
                let id = view.ask(Asked::Info { room: room.clone() });
                Some(format!(r#"{{"id":{id},"event":"room:info","data":{{"room":"{room}"}}}}"#))
            }
            38..41 => {
                let id = view.ask(Asked::History { room: room.clone() });
                let limit = 1 + random.below(100);
                Some(format!(r#"{{"id":{id},"event":"room:history","data":{{"room":"{room}","limit":{limit}}}}}"#))
            }
            41 => {
                let id = view.ask(Asked::List);
                Some(format!(r#"{{"id":{id},"event":"room:list"}}"#))
            }
            42 => {
                let id = view.ask(Asked::Unknown);
                Some(format!(r#"{{"id":{id},"event":"room:dance","data":{{"room":"{room}"}}}}"#))
            }
            43 => {
                let id = view.ask(Asked::Ping);
                Some(format!(r#"{{"id":{id},"event":"ping"}}"#))
            }
            44..48 if !self.retries.is_empty() => {
                let nth = random.below(self.retries.len() as u64) as usize;
                (now.since(self.retries[nth].first) < RETRY_TIME_MAX).then(|| self.retry(nth, ledger))
            }
            48 if self.is_moderator => {
                let (tag, data) = self.message(habits.pad_bytes_max.min(1_000), random);
                let view = self.view.as_mut()?;
                ledger.attempt(&tag, &data, &self.user, false, view.conn);
                let asked = Asked::Publish { rooms: vec![room.clone()], tag, exclude_self: false, is_many: false };
                let id = view.ask(asked);
                Some(format!(r#"{{"id":{id},"event":"room:update","data":{{"room":"{room}","data":{data}}}}}"#))
            }
            _ => Some(self.publish(room, habits, random, now, ledger)),
        }
    }

    fn message(&mut self, pad_bytes_max: u64, random: &mut Random) -> (String, String) {
        self.tags += 1;
        let tag = format!("{}#{}", self.name, self.tags);
        // Mostly short, now and then as long as it gets.
        let max = if random.one_in(4) { pad_bytes_max } else { pad_bytes_max.min(40) };
        let pad = "x".repeat(random.below(max + 1) as usize);
        // White space and escapes must arrive as they are.
        let data = format!(r#"{{ "tag":"{tag}","pad":"{pad}\u0041é" }}"#);
        (tag, data)
    }

    fn publish(
        &mut self,
        room: String,
        habits: &Habits,
        random: &mut Random,
        now: Instant,
        ledger: &mut Ledger,
    ) -> String {
        let (tag, data) = self.message(habits.pad_bytes_max, random);
        let exclude_self = random.one_in(5);
        let (rooms, is_many) = match random.below(10) {
            0 => (some_rooms(habits, random), true),
            1 => (vec![format!("user:u{}", random.below(habits.users))], false),
            _ => (vec![room], false),
        };
        let publish = Retry { first: now, rooms, is_many, tag, data, exclude_self };
        match random.below(4) {
            // Without a cid there is nothing to retry by.
            0 => self.say(&publish, false, random.one_in(3), ledger),
            1 => self.say(&publish, false, false, ledger),
            _ => {
                let said = self.say(&publish, true, false, ledger);
                if self.retries.len() == RETRIES_MAX {
                    self.retries.remove(0);
                }
                self.retries.push(publish);
                said
            }
        }
    }

    fn retry(&mut self, nth: usize, ledger: &mut Ledger) -> String {
        let retry = self.retries.remove(nth);
        let said = self.say(&retry, true, false, ledger);
        self.retries.insert(nth, retry);
        said
    }

    fn say(&mut self, publish: &Retry, with_cid: bool, is_silent: bool, ledger: &mut Ledger) -> String {
        let Retry { rooms, is_many, tag, data, exclude_self, .. } = publish;
        let view = self.view.as_mut().expect("who speaks is connected");
        ledger.attempt(tag, data, &self.user, *exclude_self, view.conn);
        let target = match (is_many, rooms[0].strip_prefix("user:")) {
            (true, _) => format!(r#""rooms":{}"#, list(rooms)),
            (false, Some(user)) => format!(r#""user":"{user}""#),
            (false, None) => format!(r#""room":"{}""#, rooms[0]),
        };
        let cid = if with_cid { format!(r#","cid":"{tag}""#) } else { String::new() };
        let body = format!(r#"{{{target},"event":"said","data":{data}{cid},"exclude_self":{exclude_self}}}"#);
        if is_silent && !exclude_self && !is_many {
            return format!(r#"{{"event":"room:publish","data":{body}}}"#);
        }
        let asked =
            Asked::Publish { rooms: rooms.clone(), tag: tag.clone(), exclude_self: *exclude_self, is_many: *is_many };
        let id = view.ask(asked);
        format!(r#"{{"id":{id},"event":"room:publish","data":{body}}}"#)
    }
}

fn join(view: &mut View, room: String, since: Option<Seen>) -> String {
    let cursor = since.as_ref().map_or(String::new(), |seen| format!(r#","since":"{}""#, seen.cursor));
    let body = format!(r#"{{"room":"{room}"{cursor}}}"#);
    let id = view.ask(Asked::Join { room, since });
    format!(r#"{{"id":{id},"event":"room:join","data":{body}}}"#)
}

fn some_rooms(habits: &Habits, random: &mut Random) -> Vec<String> {
    let count = 1 + random.below(habits.rooms_per_request.min(habits.rooms));
    let first = random.below(habits.rooms);
    (0..count).map(|nth| format!("room:{}", (first + nth) % habits.rooms)).collect()
}

fn list(rooms: &[String]) -> String {
    format!("[\"{}\"]", rooms.join("\",\""))
}
