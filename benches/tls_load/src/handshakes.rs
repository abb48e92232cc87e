//! Handshakes, so many at a time: connect, TLS, one request, its answer, goodbye, and again.
//!
//! The request makes all servers alike: some send their tickets with the first answer only. The same without TLS
//! is what the rest costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use rustls::ClientConfig;

use crate::link::{Link, Outcome, Speech};

const REQUEST: &[u8] = b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub struct Done {
    pub total: u64,
    pub resumed: u64,
    pub suite: Option<String>,
    /// From the beginning of each connection to its answer.
    pub times: Vec<Duration>,
}

impl Done {
    /// Milliseconds, of the sorted times.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        let last = self.times.len().saturating_sub(1);
        let at = (last as f64 * quantile).round() as usize;
        self.times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    }
}

struct Slot {
    /// With tickets of its own, so that no two want the same.
    config: Option<Arc<ClientConfig>>,
    link: Link,
    began: Instant,
    asked: bool,
    heard: Vec<u8>,
}

pub struct Handshakes {
    to: SocketAddr,
    poll: Poll,
    events: Events,
    slots: Vec<Slot>,
}

impl Handshakes {
    pub fn begin(to: SocketAddr, speech: Option<&Speech>, concurrency: usize) -> Outcome<Handshakes> {
        let poll = Poll::new()?;
        let mut slots = Vec::new();
        for nth in 0..concurrency {
            let config = speech.map(Speech::config).transpose()?;
            let link = Link::begin(to, 0, config.as_ref(), poll.registry(), Token(nth))?;
            slots.push(Slot { config, link, began: Instant::now(), asked: false, heard: Vec::new() });
        }
        Ok(Handshakes { to, poll, events: Events::with_capacity(1024), slots })
    }

    /// Goes on for so long.
    pub fn run(&mut self, time: Duration) -> Outcome<Done> {
        let began = Instant::now();
        let mut done = Done::default();
        let mut last = Instant::now();
        while began.elapsed() < time {
            self.poll.poll(&mut self.events, Some(Duration::from_millis(10)))?;
            let due: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
            for token in due {
                if self.advance(token, &mut done)? {
                    last = Instant::now();
                }
            }
            if last.elapsed() > PATIENCE {
                return Err("no handshake was done in ten seconds".into());
            }
        }
        done.times.sort_unstable();
        Ok(done)
    }

    /// True where one was done.
    fn advance(&mut self, token: Token, done: &mut Done) -> Outcome<bool> {
        let slot = &mut self.slots[token.0];
        slot.link.flush()?;
        let goes_on = slot.link.receive(&mut slot.heard)?;
        if !slot.asked && !slot.link.is_handshaking() {
            slot.asked = true;
            slot.link.send(REQUEST)?;
        }
        let answered = slot.heard.windows(4).any(|bytes| bytes == b"\r\n\r\n");
        if !answered {
            return if goes_on { Ok(false) } else { Err("the server ended a connection without an answer".into()) };
        }
        if !slot.heard.starts_with(b"HTTP/1.1 4") {
            return Err(format!("not what is expected: {}", String::from_utf8_lossy(&slot.heard)).into());
        }
        done.total += 1;
        done.times.push(slot.began.elapsed());
        done.resumed += u64::from(slot.link.was_resumed());
        done.suite = done.suite.take().or_else(|| slot.link.suite());
        slot.link.finish();
        slot.began = Instant::now();
        // What comes from a socket that is gone is not heard, so the token can be used again.
        slot.link = Link::begin(self.to, 0, slot.config.as_ref(), self.poll.registry(), token)?;
        slot.asked = false;
        slot.heard.clear();
        Ok(true)
    }
}
