//! Members of one room, and some of them publish: each its next message once its own has come back to it (closed
//! loop), or all together so many a second. Every member has to hear every message once and in its publisher's order.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::dialect::{Dialect, frame, mark_of, next_frame};
use crate::link::{Link, Outcome, Speech};

const PATIENCE: Duration = Duration::from_secs(20);
/// Connections on their way in at a time.
const COMING_MAX: usize = 64;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[derive(PartialEq)]
enum Stage {
    Connecting,
    Upgrading,
    Joining,
    In,
}

struct Member {
    link: Link,
    stage: Stage,
    heard: Vec<u8>,
    /// Of each publisher, the number that comes next.
    next: Vec<u64>,
}

pub struct Room {
    dialect: Dialect,
    poll: Poll,
    events: Events,
    members: Vec<Member>,
    /// Of each publisher, the number that it sends next. The first members are the publishers.
    numbers: Vec<u64>,
    delivered: u64,
    /// Publishers whose last message has come back to them.
    returned: Vec<usize>,
}

pub struct Ran {
    pub deliveries: u64,
    pub messages: u64,
    pub took: Duration,
}

impl Room {
    /// All connected and in the room.
    pub fn fill(
        to: SocketAddr,
        dialect: Dialect,
        speech: Option<&Speech>,
        tokens: &[String],
        members: usize,
        publishers: usize,
    ) -> Outcome<Room> {
        let config = speech.map(Speech::config).transpose()?;
        let poll = Poll::new()?;
        let mut room = Room {
            dialect,
            poll,
            events: Events::with_capacity(4096),
            members: Vec::with_capacity(members),
            numbers: vec![0; publishers],
            delivered: 0,
            returned: Vec::new(),
        };
        let mut last = Instant::now();
        let mut joined = 0;
        while joined < members {
            while room.members.len() < members && room.members.len() - joined < COMING_MAX {
                let nth = room.members.len();
                let link = Link::begin(to, nth, config.as_ref(), room.poll.registry(), Token(nth))?;
                let next = vec![0; publishers];
                room.members.push(Member { link, stage: Stage::Connecting, heard: Vec::new(), next });
            }
            room.turn(Duration::from_millis(100), tokens)?;
            let now_joined = room.members.iter().filter(|member| member.stage == Stage::In).count();
            if now_joined > joined {
                (joined, last) = (now_joined, Instant::now());
            }
            if last.elapsed() > PATIENCE {
                return Err(format!("{joined} of {members} came in, and nobody more").into());
            }
        }
        Ok(room)
    }

    pub fn suite(&self) -> Option<String> {
        self.members.first()?.link.suite()
    }

    /// Hears whatever comes, for at most so long.
    fn turn(&mut self, wait: Duration, tokens: &[String]) -> Outcome<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(()),
            outcome => outcome?,
        }
        for event in &self.events {
            let nth = event.token().0;
            let member = &mut self.members[nth];
            if event.is_writable() {
                member.link.flush()?;
                if member.stage == Stage::Connecting {
                    member.stage = Stage::Upgrading;
                    // TLS keeps it until its handshake is done.
                    member.link.send(&self.dialect.upgrade(tokens.get(nth).map_or("", String::as_str)))?;
                }
            }
            if !event.is_readable() {
                continue;
            }
            if !member.link.receive(&mut member.heard)? {
                return Err(format!("the server ended connection {nth}").into());
            }
            let mut at = 0;
            if member.stage == Stage::Upgrading {
                let Some(end) = member.heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
                if !member.heard.starts_with(b"HTTP/1.1 101 ") {
                    return Err(format!("no upgrade: {}", String::from_utf8_lossy(&member.heard)).into());
                }
                at = end + 4;
                member.stage = Stage::Joining;
                member.link.send(&frame(TEXT, self.dialect.join().as_bytes()))?;
            }
            while let Some((opcode, payload)) = next_frame(&member.heard[at..]) {
                let end = at + payload.end;
                let payload = &member.heard[at + payload.start..end];
                at = end;
                match opcode {
                    CLOSE => return Err(format!("closed: {}", String::from_utf8_lossy(payload)).into()),
                    PING => member.link.send(&frame(PONG, payload))?,
                    _ => {}
                }
                if member.stage == Stage::Joining && self.dialect.is_joined(payload) {
                    member.stage = Stage::In;
                } else if let Some((publisher, number)) = mark_of(payload) {
                    let next = member.next.get_mut(publisher).ok_or("a message of nobody")?;
                    if number != *next {
                        return Err(format!("{nth} heard {number} of {publisher} where {next} was to come").into());
                    }
                    *next += 1;
                    self.delivered += 1;
                    if publisher == nth {
                        self.returned.push(nth);
                    }
                }
            }
            member.heard.drain(..at);
        }
        Ok(())
    }

    fn publish(&mut self, publisher: usize) -> Outcome<()> {
        let text = self.dialect.publish(publisher, self.numbers[publisher]);
        self.numbers[publisher] += 1;
        self.members[publisher].link.send(&frame(TEXT, text.as_bytes()))
    }

    /// Goes on for so long, and then waits until all have heard all. `rate` in messages a second; without it each
    /// publisher has one message under way.
    pub fn run(&mut self, time: Duration, rate: Option<f64>) -> Outcome<Ran> {
        let began = Instant::now();
        let (delivered, sent) = (self.delivered, self.numbers.iter().sum::<u64>());
        self.returned.clear();
        if rate.is_none() {
            (0..self.numbers.len()).try_for_each(|publisher| self.publish(publisher))?;
        }
        let mut due = 0;
        while began.elapsed() < time {
            match rate {
                None => {
                    for publisher in std::mem::take(&mut self.returned) {
                        self.publish(publisher)?;
                    }
                    self.turn(Duration::from_millis(10), &[])?;
                }
                Some(rate) => {
                    while due < (began.elapsed().as_secs_f64() * rate) as usize {
                        self.publish(due % self.numbers.len())?;
                        due += 1;
                    }
                    self.turn(Duration::from_millis(1), &[])?;
                }
            }
        }
        let messages = self.numbers.iter().sum::<u64>() - sent;
        let expected = messages * self.members.len() as u64;
        while self.delivered - delivered < expected {
            if began.elapsed() > time + PATIENCE {
                return Err(format!("{} of {expected} deliveries came", self.delivered - delivered).into());
            }
            self.turn(Duration::from_millis(10), &[])?;
        }
        Ok(Ran { deliveries: expected, messages, took: began.elapsed() })
    }

    /// Stays, and answers what has to be answered.
    pub fn rest(&mut self, time: Duration) -> Outcome<()> {
        let began = Instant::now();
        while began.elapsed() < time {
            self.turn(Duration::from_millis(50), &[])?;
        }
        Ok(())
    }
}
