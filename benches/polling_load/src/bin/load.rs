//! Clients of Socket.IO that poll, as many as an answer's time allows: `load HOST:PORT TOKENS CLIENTS SECONDS`.
//!
//! Each client has two kept-alive sockets, as browsers do: on one a GET waits, on the other it POSTs an event for its
//! room, in which it is alone. The POST is answered `ok`, and the GET with what was published. All clients do that
//! one step after the other. Prints `ready` once all are in and have done it once, begins with a line on standard
//! input, and prints a line of JSON. Every answer is checked; the first wrong one ends it all.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);
const SEPARATOR: u8 = 0x1e;
/// What a client says each time, beside a number.
const TEXT_BYTES: usize = 200;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A kept-alive socket: one request after the other.
struct Kept {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Kept {
    fn open(to: &str) -> Outcome<Kept> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Kept { stream, heard: vec![0; 1 << 16] })
    }

    fn ask(&mut self, request: &[u8]) -> Outcome<()> {
        Ok(self.stream.write_all(request)?)
    }

    /// The body of the next answer, which has to be 200 and to say its length.
    fn answer(&mut self) -> Outcome<&[u8]> {
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.heard[filled..])?;
            filled += read;
            let heard = &self.heard[..filled];
            if read == 0 || !heard.starts_with(&b"HTTP/1.1 200 "[..filled.min(13)]) {
                return Err(format!("not the answer of a server that keeps up: {}", shown(heard)).into());
            }
            if let Some(body) = body_at(heard)
                && heard.len() >= body.end
            {
                return Ok(&self.heard[body]);
            }
        }
    }
}

/// Where the body stands, once the head is there.
fn body_at(heard: &[u8]) -> Option<std::ops::Range<usize>> {
    const NAME: &[u8] = b"content-length:";
    let start = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let mut lines = heard[..start].split(|byte| *byte == b'\n');
    let line = lines.find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))?;
    let bytes: usize = std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()?;
    Some(start..start + bytes)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

/// In a room of its own.
struct Client {
    waits: Kept,
    posts: Kept,
    get: Vec<u8>,
    post: String,
    room: String,
    text: String,
    number: u64,
}

impl Client {
    fn open(to: &str, nth: usize, token: &str) -> Outcome<Client> {
        let (mut waits, posts) = (Kept::open(to)?, Kept::open(to)?);
        let path = "/socket.io/?EIO=4&transport=polling";
        waits.ask(format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())?;
        let opened = shown(waits.answer()?);
        let sid = opened.split_once(r#""sid":""#).and_then(|(_, rest)| rest.split('"').next()).ok_or("no sid")?;
        let path = format!("{path}&sid={sid}");
        let mut client = Client {
            waits,
            posts,
            get: format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n").into_bytes(),
            post: format!(
                "POST {path} HTTP/1.1\r\nHost: {to}\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: "
            ),
            room: format!("polling:{nth}"),
            text: "x".repeat(TEXT_BYTES),
            number: 0,
        };
        client.say(&format!(r#"40{{"token":"{token}"}}"#), b"40{")?;
        let join = format!(r#"420["join","{}"]"#, client.room);
        client.say(&join, b"430[")?;
        Ok(client)
    }

    fn send(&mut self, packet: &str) -> Outcome<()> {
        let request = format!("{}{}\r\n\r\n{packet}", self.post, packet.len());
        self.posts.ask(request.as_bytes())
    }

    fn taken(&mut self) -> Outcome<()> {
        match self.posts.answer()? {
            b"ok" => Ok(()),
            other => Err(format!("a POST was answered {}", shown(other)).into()),
        }
    }

    /// Waits for the GET under way and, where that is not answered so, for others, until a packet comes that
    /// begins as wanted. Pings are answered; what else there is does not matter.
    fn until(&mut self, wanted: &[u8]) -> Outcome<()> {
        loop {
            let payload = self.waits.answer()?;
            let mut packets = payload.split(|byte| *byte == SEPARATOR);
            let is_there = packets.clone().any(|packet| packet.starts_with(wanted));
            let is_pinged = packets.clone().any(|packet| packet == b"2");
            if let Some(end) = packets.find(|packet| matches!(packet, [b'1', ..] | [b'4', b'1' | b'4', ..])) {
                return Err(format!("the server ends it: {}", shown(end)).into());
            }
            if is_pinged {
                self.send("3")?;
                self.taken()?;
            }
            if is_there {
                return Ok(());
            }
            self.waits.ask(&self.get)?;
        }
    }

    fn say(&mut self, packet: &str, wanted: &[u8]) -> Outcome<()> {
        self.send(packet)?;
        self.taken()?;
        self.waits.ask(&self.get)?;
        self.until(wanted)
    }

    fn publish(&mut self) -> Outcome<()> {
        self.number += 1;
        self.send(&format!(r#"42["pub","{}",{{"n":{},"text":"{}"}}]"#, self.room, self.number, self.text))
    }

    fn hear(&mut self) -> Outcome<()> {
        self.taken()?;
        let wanted = format!(r#"42["msg",{{"n":{},"text":"{}"}}"#, self.number, self.text);
        self.until(wanted.as_bytes())
    }
}

/// Requests made, in so many seconds or a little more.
fn run(clients: &mut [Client], seconds: f64) -> Outcome<(usize, f64)> {
    let began = Instant::now();
    let mut requests = 0;
    loop {
        for client in &mut *clients {
            client.waits.ask(&client.get)?;
        }
        for client in &mut *clients {
            client.publish()?;
        }
        for client in &mut *clients {
            client.hear()?;
        }
        requests += 2 * clients.len();
        let took = began.elapsed().as_secs_f64();
        if took >= seconds {
            return Ok((requests, took));
        }
    }
}

/// Seconds that this thread ran.
fn cpu() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns: f64 = stat.split(' ').next().unwrap_or_default().parse()?;
    Ok(ns / 1e9)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [to, tokens, clients, seconds] = &arguments[..] else {
        return Err("load HOST:PORT TOKENS CLIENTS SECONDS".into());
    };
    let tokens = std::fs::read_to_string(tokens)?;
    let tokens = tokens.lines().cycle().enumerate().take(clients.parse()?);
    let mut clients = tokens.map(|(nth, token)| Client::open(to, nth, token)).collect::<Outcome<Vec<_>>>()?;
    run(&mut clients, 0.0)?;
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    let before = cpu()?;
    let (requests, took) = run(&mut clients, seconds.parse()?)?;
    let busy = (cpu()? - before) / took;
    println!(r#"{{"requests":{requests},"took_s":{took:.6},"load_busy":{busy:.4}}}"#);
    Ok(())
}
