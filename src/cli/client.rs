//! `ringroom client`: a conversation in the terminal, or a script's end of one through a pipe.
//!
//! Two threads feed one channel, the lines typed and the frames that come; the main thread owns
//! everything else. Arrivals are timed where they are read, so what is shown is the gateway's
//! latency and not the terminal's.
//! Invariant: nothing of a peer reaches the terminal with control characters in it.

use super::Failed;
use super::arguments::ClientOptions;
use super::secured::Secured;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, IsTerminal, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tungstenite::client::ClientRequestBuilder;
use tungstenite::http::Uri;
use tungstenite::protocol::Role;
use tungstenite::{HandshakeError, Message, WebSocket};

const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How long answers are waited for once standard input has ended, and a close once we said ours.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(5);
/// Own messages whose acknowledgement or arrival is awaited.
const OWN_MESSAGES_MAX: usize = 1_024;
const HISTORY_SHOWN: u32 = 20;

pub fn run(options: ClientOptions) -> Result<(), Failed> {
    let token = options.token.clone().or_else(|| std::env::var("RINGROOM_TOKEN").ok()).ok_or_else(|| {
        Failed::usage("client needs --token T or RINGROOM_TOKEN; `ringroom token --sub USER` prints one")
    })?;
    let (reader, writer) = connect(&options.url, &token, options.ca.as_deref())?;
    let (events_in, events) = channel();
    spawn_reader(reader, events_in.clone());
    spawn_lines(events_in);

    let screen = Screen { prompt: std::io::stdin().is_terminal() && std::io::stdout().is_terminal() };
    let mut session = Session::new(writer, screen, options.exit_after);
    for room in &options.join {
        session.join(room)?;
    }
    session.screen.prompt(session.room.as_deref());
    let outcome = converse(&mut session, &events);
    if !session.over {
        session.farewell(&events);
    }
    outcome
}

enum Event {
    Line(String),
    EndOfInput,
    Frame(String, Instant),
    /// The connection is over, and what the peer or the system said about it.
    Closed(String),
}

/// Until the user leaves or the connection ends. Leaving is success, being closed is not.
fn converse(session: &mut Session, events: &Receiver<Event>) -> Result<(), Failed> {
    let mut input_ended_at = None;
    loop {
        let patience = match input_ended_at {
            // With `--exit-after` the count decides; without, the last answers do.
            Some(at) if session.exit_after.is_none() => {
                if session.asked.is_empty() && session.user.is_some() {
                    return Ok(());
                }
                FAREWELL_TIME_MAX.saturating_sub(Instant::now().saturating_duration_since(at))
            }
            _ => Duration::MAX,
        };
        let event = match events.recv_timeout(patience) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Err(Failed::failure("the last requests were not answered")),
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        match event {
            Event::Line(line) => match Line::parse(&line) {
                Ok(Line::Quit) => return Ok(()),
                Ok(line) => session.obey(line)?,
                Err(advice) => session.screen.show(advice),
            },
            Event::EndOfInput => input_ended_at = Some(Instant::now()),
            Event::Frame(text, at) => {
                session.receive(&text, at);
                if session.exit_after.is_some_and(|count| session.messages >= count) {
                    return Ok(());
                }
            }
            Event::Closed(why) => {
                session.over = true;
                return Err(Failed::failure(why));
            }
        }
        session.screen.prompt(session.room.as_deref());
    }
}

/// What a line typed asks for.
#[derive(PartialEq, Eq, Debug)]
enum Line<'a> {
    Nothing,
    Say(&'a str),
    Join(&'a str),
    Leave(Option<&'a str>),
    Rooms,
    Online(Option<&'a str>),
    History(Option<&'a str>),
    Ping,
    Quit,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Result<Line<'a>, &'static str> {
        let line = line.trim();
        if line.is_empty() {
            return Ok(Line::Nothing);
        }
        let Some(command) = line.strip_prefix('/') else { return Ok(Line::Say(line)) };
        let mut words = command.split_whitespace();
        let (name, room) = (words.next().unwrap_or_default(), words.next());
        if words.next().is_some() {
            return Err("one room at a time, please");
        }
        match (name, room) {
            ("join", Some(room)) => Ok(Line::Join(room)),
            ("join", None) => Err("/join needs a room, such as /join chat:1"),
            ("leave", room) => Ok(Line::Leave(room)),
            ("online", room) => Ok(Line::Online(room)),
            ("history", room) => Ok(Line::History(room)),
            ("rooms", None) => Ok(Line::Rooms),
            ("ping", None) => Ok(Line::Ping),
            ("quit", None) => Ok(Line::Quit),
            _ => Err("commands are /join ROOM, /leave, /rooms, /online, /history, /ping, /quit"),
        }
    }
}

/// A frame of the gateway: a reply when it has `ok`, else a push.
#[derive(Deserialize)]
struct Incoming<'a> {
    id: Option<u64>,
    ok: Option<bool>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    error: Option<Refusal>,
    event: Option<String>,
    room: Option<String>,
    seq: Option<u64>,
    mid: Option<String>,
    from: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    #[serde(default)]
    message: String,
}

/// A request whose reply is awaited.
struct Asked {
    what: What,
    at: Instant,
}

enum What {
    Join(String),
    Leave(String),
    Publish,
    Ping,
    /// Shown as it comes, under this heading.
    Show(String),
}

struct Session {
    writer: WebSocket<Half>,
    screen: Screen,
    /// Known once the gateway has let us in.
    user: Option<String>,
    room: Option<String>,
    requests: u64,
    asked: HashMap<u64, Asked>,
    own: OwnMessages,
    messages: u64,
    exit_after: Option<u64>,
    /// The connection has ended.
    over: bool,
}

impl Session {
    fn new(writer: WebSocket<Half>, screen: Screen, exit_after: Option<u64>) -> Session {
        Session {
            writer,
            screen,
            user: None,
            room: None,
            requests: 0,
            asked: HashMap::new(),
            own: OwnMessages::default(),
            messages: 0,
            exit_after,
            over: false,
        }
    }

    fn obey(&mut self, line: Line<'_>) -> Result<(), Failed> {
        match line {
            Line::Nothing | Line::Quit => Ok(()),
            Line::Join(room) => self.join(room),
            Line::Rooms => self.ask("room:list", json!({}), What::Show("rooms".into())),
            Line::Ping => self.ask("ping", json!({}), What::Ping),
            Line::Say(text) => self.in_room(None, |session, room| {
                let data = json!({"room": room, "event": "chat", "data": {"text": text}});
                session.ask("room:publish", data, What::Publish)
            }),
            Line::Leave(room) => self.in_room(room, |session, room| {
                session.ask("room:leave", json!({"room": room}), What::Leave(room.into()))
            }),
            Line::Online(room) => self.in_room(room, |session, room| {
                session.ask("room:online", json!({"room": room}), What::Show(format!("online in {room}")))
            }),
            Line::History(room) => self.in_room(room, |session, room| {
                let data = json!({"room": room, "limit": HISTORY_SHOWN});
                session.ask("room:history", data, What::Show(format!("history of {room}")))
            }),
        }
    }

    fn join(&mut self, room: &str) -> Result<(), Failed> {
        // Current at once: lines that follow through a pipe are meant for it.
        self.room = Some(room.into());
        self.ask("room:join", json!({"room": room}), What::Join(room.into()))
    }

    fn in_room(
        &mut self,
        room: Option<&str>,
        then: impl FnOnce(&mut Session, &str) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        match room.map(str::to_owned).or_else(|| self.room.clone()) {
            Some(room) => then(self, &room),
            None => {
                self.screen.show("you are in no room; /join ROOM first");
                Ok(())
            }
        }
    }

    fn ask(&mut self, event: &str, data: Value, what: What) -> Result<(), Failed> {
        self.requests += 1;
        let request = json!({"id": self.requests, "event": event, "data": data}).to_string();
        self.asked.insert(self.requests, Asked { what, at: Instant::now() });
        let sent = self.writer.send(Message::text(request));
        // Where the peer has closed, the reader knows the reason and tells it next.
        sent.or_else(|error| match error {
            tungstenite::Error::Io(_) | tungstenite::Error::ConnectionClosed => Ok(()),
            other => Err(Failed::failure(format!("the request could not be sent: {other}"))),
        })
    }

    fn receive(&mut self, text: &str, at: Instant) {
        match serde_json::from_str::<Incoming<'_>>(text) {
            Ok(Incoming { id: Some(id), ok: Some(ok), data, error, .. }) => self.answered(id, ok, data, error, at),
            Ok(push) => self.pushed(&push, at),
            Err(_) => self.screen.show(&format!("not understood: {text}")),
        }
    }

    fn answered(&mut self, id: u64, ok: bool, data: Option<&RawValue>, error: Option<Refusal>, at: Instant) {
        let Some(asked) = self.asked.remove(&id) else { return };
        let took = at.saturating_duration_since(asked.at);
        if !ok {
            let refusal = error.unwrap_or(Refusal { code: "internal".into(), message: String::new() });
            if let What::Join(room) = &asked.what
                && self.room.as_deref() == Some(room)
            {
                self.room = None;
            }
            self.screen.show(&format!("refused: {} ({})", refusal.message, refusal.code));
            return;
        }
        match asked.what {
            What::Ping => self.screen.show(&format!("ping {}", millis(took))),
            What::Publish => {
                if let Some(mid) = data.and_then(mid_of)
                    && let Some(latency) = self.own.acknowledged(mid, asked.at)
                {
                    self.screen.show(&own_latency(latency));
                }
            }
            What::Join(room) => self.screen.show(&format!("joined {room}{}", members(data))),
            What::Leave(room) => {
                if self.room.as_deref() == Some(&room) {
                    self.room = None;
                }
                self.screen.show(&format!("left {room}"));
            }
            What::Show(heading) => self.screen.show(&format!("{heading}: {}", data.map_or("", RawValue::get))),
        }
    }

    fn pushed(&mut self, push: &Incoming<'_>, at: Instant) {
        let (event, data) = (push.event.as_deref().unwrap_or("?"), push.data.map_or("", RawValue::get));
        match event {
            "heartbeat" => return,
            "connected" => {
                self.user = push.data.and_then(user_of);
                self.screen.show(&format!("connected as {}", self.user.as_deref().unwrap_or("?")));
                return;
            }
            "error" => {
                self.screen.show(&format!("error: {data}"));
                return;
            }
            _ => {}
        }
        let room = push.room.as_deref().unwrap_or("");
        let from = push.from.as_deref().unwrap_or("server");
        let text = if event == "chat" { push.data.and_then(|data| field(data, "text")) } else { None };
        let said = text.unwrap_or_else(|| format!("{event} {data}"));
        match push.seq {
            Some(seq) => self.screen.show(&format!("[{room} #{seq}] {from}: {said}")),
            None => self.screen.show(&format!("[{room}] {event} {data}")),
        }
        self.messages += u64::from(push.seq.is_some());
        if let Some(mid) = &push.mid
            && push.from.is_some()
            && push.from == self.user
            && let Some(latency) = self.own.arrived(mid.clone(), at)
        {
            self.screen.show(&own_latency(latency));
        }
    }

    /// Says goodbye and lets the peer answer it, but not for long.
    fn farewell(&mut self, events: &Receiver<Event>) {
        if self.writer.close(None).and_then(|()| self.writer.flush()).is_err() {
            return;
        }
        let until = Instant::now() + FAREWELL_TIME_MAX;
        while let Ok(event) = events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            if matches!(event, Event::Closed(_)) {
                return;
            }
        }
    }
}

/// Publishing to arrival of one's own messages, matched by `mid`: the push and the reply come in
/// either order.
#[derive(Default)]
struct OwnMessages {
    sent: HashMap<String, Instant>,
    arrived: HashMap<String, Instant>,
    /// Oldest first, in either table.
    order: VecDeque<String>,
}

impl OwnMessages {
    /// The reply named `mid` for what was sent at `sent`.
    fn acknowledged(&mut self, mid: String, sent: Instant) -> Option<Duration> {
        if let Some(at) = self.arrived.remove(&mid) {
            return Some(at.saturating_duration_since(sent));
        }
        self.remember(mid.clone());
        self.sent.insert(mid, sent);
        None
    }

    fn arrived(&mut self, mid: String, at: Instant) -> Option<Duration> {
        if let Some(sent) = self.sent.remove(&mid) {
            return Some(at.saturating_duration_since(sent));
        }
        self.remember(mid.clone());
        self.arrived.insert(mid, at);
        None
    }

    fn remember(&mut self, mid: String) {
        self.order.push_back(mid);
        if self.order.len() > OWN_MESSAGES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent.remove(&oldest);
            self.arrived.remove(&oldest);
        }
    }
}

/// Standard output, with a prompt where a person sits before it.
struct Screen {
    prompt: bool,
}

impl Screen {
    fn show(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        // Return and erase: the line comes where the prompt stood. A closed pipe ends us elsewhere.
        let _ = writeln!(out, "{}{}", if self.prompt { "\r\x1b[K" } else { "" }, printable(line));
    }

    fn prompt(&self, room: Option<&str>) {
        if self.prompt {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "\r\x1b[K{}> ", printable(room.unwrap_or("")));
            let _ = out.flush();
        }
    }
}

/// Control characters as escapes: what others say must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() })
        .collect()
}

fn field(data: &RawValue, name: &str) -> Option<String> {
    let value: Value = serde_json::from_str(data.get()).ok()?;
    value.get(name)?.as_str().map(str::to_owned)
}

/// The id that the `connected` push says is ours.
fn user_of(data: &RawValue) -> Option<String> {
    let value: Value = serde_json::from_str(data.get()).ok()?;
    value.get("user")?.as_str().map(str::to_owned)
}

fn mid_of(data: &RawValue) -> Option<String> {
    field(data, "mid")
}

fn members(data: Option<&RawValue>) -> String {
    let value: Option<Value> = data.and_then(|data| serde_json::from_str(data.get()).ok());
    match value.as_ref().and_then(|value| value.get("members")) {
        Some(Value::Number(count)) => format!(", {count} there"),
        Some(Value::Array(users)) => format!(", {} there", users.len()),
        _ => String::new(),
    }
}

fn own_latency(took: Duration) -> String {
    format!("yours came back in {}", millis(took))
}

fn millis(took: Duration) -> String {
    format!("{:.3} ms", took.as_secs_f64() * 1e3)
}

/// One side of the connection's socket. Each write is a whole buffer of frames under the turn, so
/// the reader's automatic pongs never cut into the writer's frames.
#[derive(Clone)]
struct Half {
    socket: Arc<TcpStream>,
    tls: Option<Arc<Secured>>,
    turn: Arc<Mutex<()>>,
}

impl Read for Half {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match &self.tls {
            None => (&*self.socket).read(into),
            Some(tls) => tls.read(&self.socket, into),
        }
    }
}

impl Write for Half {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match &self.tls {
            None => (&*self.socket).write_all(from).map(|()| from.len()),
            Some(tls) => tls.write(&self.socket, from),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Two views of one connection: one that reads, one that writes.
fn connect(url: &str, token: &str, authority: Option<&str>) -> Result<(WebSocket<Half>, WebSocket<Half>), Failed> {
    let uri: Uri = url.parse().map_err(|_| Failed::usage(format!("--url {url} is no address; try {EXAMPLE}")))?;
    let is_secured = match uri.scheme_str() {
        Some("ws") => false,
        Some("wss") => true,
        _ => return Err(Failed::usage(format!("--url must begin with ws:// or wss://, for example {EXAMPLE}"))),
    };
    let host = uri.host().ok_or_else(|| Failed::usage(format!("--url {url} names no host; try {EXAMPLE}")))?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let address = (&*host, uri.port_u16().unwrap_or(if is_secured { 443 } else { 80 }));
    let unreachable = |error: std::io::Error| {
        Failed::failure(format!("{url} cannot be reached: {error}; is the gateway running there?"))
    };
    let address = address.to_socket_addrs().map_err(unreachable)?.next();
    let address = address.ok_or_else(|| Failed::failure(format!("{host} has no address")))?;
    let socket = TcpStream::connect_timeout(&address, CONNECT_TIME_MAX).map_err(unreachable)?;
    socket.set_nodelay(true).map_err(unreachable)?;
    socket.set_read_timeout(Some(CONNECT_TIME_MAX)).map_err(unreachable)?;

    let tls = if is_secured { Some(Arc::new(Secured::with(&host, authority, &socket)?)) } else { None };
    let half = Half { socket: Arc::new(socket), tls, turn: Arc::default() };
    let request = ClientRequestBuilder::new(uri)
        .with_header("Authorization", format!("Bearer {token}"))
        .with_sub_protocol("ringroom.v1.json");
    let (reader, _) = tungstenite::client(request, half.clone()).map_err(|error| match error {
        HandshakeError::Failure(tungstenite::Error::Http(response)) => {
            Failed::failure(format!("{url} answered {} instead of opening a WebSocket", response.status()))
        }
        HandshakeError::Failure(error) => Failed::failure(format!("{url} does not speak ringroom.v1.json: {error}")),
        HandshakeError::Interrupted(_) => Failed::failure(format!("{url} did not answer the handshake in time")),
    })?;
    half.socket.set_read_timeout(None).map_err(unreachable)?;
    Ok((reader, WebSocket::from_raw_socket(half, Role::Client, None)))
}

const EXAMPLE: &str = "ws://127.0.0.1:3001/ws";

fn spawn_reader(mut reader: WebSocket<Half>, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut why = "the connection ended without a close".to_owned();
        loop {
            let event = match reader.read() {
                Ok(Message::Text(text)) => Event::Frame(text.to_string(), Instant::now()),
                Ok(Message::Close(close)) => {
                    why = match close {
                        Some(close) => format!("closed by the gateway: {} {}", u16::from(close.code), close.reason),
                        None => "closed by the gateway".into(),
                    };
                    why = printable(&why);
                    continue;
                }
                Ok(_) => continue,
                Err(_) => Event::Closed(why.clone()),
            };
            let over = matches!(event, Event::Closed(_));
            if events.send(event).is_err() || over {
                return;
            }
        }
    });
}

fn spawn_lines(events: Sender<Event>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if events.send(Event::Line(line)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::EndOfInput);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_said_and_commands_are_understood() {
        assert_eq!(Line::parse("  hello there "), Ok(Line::Say("hello there")));
        assert_eq!(Line::parse(""), Ok(Line::Nothing));
        assert_eq!(Line::parse("/join chat:1"), Ok(Line::Join("chat:1")));
        assert_eq!(Line::parse("/leave"), Ok(Line::Leave(None)));
        assert_eq!(Line::parse("/online chat:2"), Ok(Line::Online(Some("chat:2"))));
        assert_eq!(Line::parse("/quit"), Ok(Line::Quit));
        for wrong in ["/join", "/", "/dance", "/ping now", "/join a b"] {
            assert!(Line::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_latency_of_an_own_message_is_known_whichever_of_push_and_reply_comes_first() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let mut own = OwnMessages::default();
        assert_eq!(own.acknowledged("a".into(), start), None);
        assert_eq!(own.arrived("a".into(), start + ms(3)), Some(ms(3)));
        assert_eq!(own.arrived("b".into(), start + ms(2)), None);
        assert_eq!(own.acknowledged("b".into(), start), Some(ms(2)));
    }

    #[test]
    fn own_messages_that_never_come_back_are_forgotten_in_the_end() {
        let mut own = OwnMessages::default();
        for mid in 0..3 * OWN_MESSAGES_MAX {
            own.acknowledged(mid.to_string(), Instant::now());
        }
        assert_eq!((own.sent.len(), own.order.len()), (OWN_MESSAGES_MAX, OWN_MESSAGES_MAX));
    }

    #[test]
    fn control_characters_are_shown_and_not_sent_to_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c"), "a\\u{1b}[2Jb\\u{9b}c");
        assert_eq!(printable("héllo 🎉"), "héllo 🎉");
    }

    #[test]
    fn replies_and_pushes_are_read_from_the_envelope() {
        let reply: Incoming<'_> = serde_json::from_str(r#"{"id":7,"ok":true,"data":{"mid":"01J"}}"#).unwrap();
        assert_eq!((reply.id, reply.ok, reply.data.and_then(mid_of)), (Some(7), Some(true), Some("01J".into())));
        let push = r#"{"event":"chat","room":"r","seq":41,"mid":"01J","ts":1,"from":"a\"b","data":{"text":"hi"}}"#;
        let push: Incoming<'_> = serde_json::from_str(push).unwrap();
        assert_eq!((push.seq, push.from.as_deref()), (Some(41), Some("a\"b")));
        assert_eq!(field(push.data.unwrap(), "text").as_deref(), Some("hi"));
        let connected: Incoming<'_> =
            serde_json::from_str(r#"{"event":"connected","data":{"user":"ada","name":null}}"#).unwrap();
        assert_eq!(connected.data.and_then(user_of).as_deref(), Some("ada"));
    }

    #[test]
    fn an_address_that_is_none_is_wrong_usage() {
        for url in ["https://127.0.0.1/ws", "http://127.0.0.1/", "127.0.0.1:3001", "ws://", ""] {
            assert_eq!(connect(url, "t", None).err().unwrap().exit, 2, "{url}");
        }
    }
}
