//! `rust_socketio` against `examples/socketio_app.rs`: several sessions at a time say numbered things, texts and
//! bytes, ask, and are told in bursts; each message comes back once and in order, or this fails with why.
//!
//!     rust_client URL websocket|polling|upgrade SESSIONS
//!
//! Prints `{"sessions":N,"messages":N}` at the end.

use rust_socketio::client::Client;
use rust_socketio::{ClientBuilder, Event, Payload, TransportType};
use serde_json::{Value, json};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const MESSAGES: usize = 100;
const BURST: usize = 200;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, PartialEq)]
enum Heard {
    Connected,
    Event(String, Vec<Value>),
    Bytes(String, Vec<u8>),
    Failed(String),
}

struct Session {
    client: Client,
    heard: Receiver<Heard>,
}

impl Session {
    fn open(url: &str, transport: TransportType, namespace: &str, auth: Value) -> Result<Session, Failed> {
        let (tell, heard) = channel();
        let (of_connect, of_error) = (tell.clone(), tell.clone());
        let client = ClientBuilder::new(url)
            .namespace(namespace)
            .transport_type(transport)
            .auth(auth)
            .reconnect(false)
            .on(Event::Connect, move |_, _| drop(of_connect.send(Heard::Connected)))
            .on(Event::Error, move |error, _| drop(of_error.send(Heard::Failed(format!("{error:?}")))))
            .on_any(move |event, payload, _| {
                let event = String::from(event);
                let _ = tell.send(match payload {
                    Payload::Text(values) => Heard::Event(event, values),
                    Payload::Binary(bytes) => Heard::Bytes(event, bytes.to_vec()),
                    other => Heard::Failed(format!("{other:?}")),
                });
            })
            .connect()?;
        Ok(Session { client, heard })
    }

    fn hears(&self, wanted: &Heard) -> Result<(), Failed> {
        let heard = self.heard.recv_timeout(PATIENCE).map_err(|_| format!("waited in vain for {wanted:?}"))?;
        if heard != *wanted { Err(format!("{heard:?} where {wanted:?} should be").into()) } else { Ok(()) }
    }

    fn asks(&self, said: &[Value]) -> Result<(), Failed> {
        let (tell, told) = channel();
        self.client.emit_with_ack("message-with-ack", Payload::Text(said.to_vec()), PATIENCE, move |answer, _| {
            let _ = tell.send(answer);
        })?;
        let answer = told.recv_timeout(PATIENCE).map_err(|_| format!("no answer to {said:?}"))?;
        // The library gives an answer's arguments as the one value that their text is.
        let wanted = Payload::Text(vec![Value::Array(said.to_vec())]);
        if answer != wanted { Err(format!("{answer:?} answers {said:?}").into()) } else { Ok(()) }
    }
}

/// How many messages came back.
fn visit(url: &str, transport: TransportType, number: usize) -> Result<usize, Failed> {
    let auth = json!({"who": number});
    let session = Session::open(url, transport, ["/", "/custom"][number % 2], auth.clone())?;
    session.hears(&Heard::Connected)?;
    session.hears(&Heard::Event("auth".into(), vec![auth]))?;
    // The library takes a byte 0x1e for the end of a packet, on a WebSocket too.
    let blob = |n: usize| vec![n as u8 | 0x80, 0, 255];
    let said = |n: usize| [json!(n), json!("größe 🎉"), json!({"of": number, "deep": [null, 0.5]})];
    for n in 0..MESSAGES {
        match n % 3 {
            0 => session.client.emit("message", Payload::from(blob(n)))?,
            _ => session.client.emit("message", Payload::Text(said(n).to_vec()))?,
        }
    }
    for n in 0..MESSAGES {
        session.hears(&match n % 3 {
            0 => Heard::Bytes("message-back".into(), blob(n)),
            _ => Heard::Event("message-back".into(), said(n).to_vec()),
        })?;
    }
    session.asks(&said(1))?;
    session.asks(&[json!("one")])?;
    session.client.emit("burst", json!(BURST))?;
    for n in 0..BURST {
        session.hears(&Heard::Event("burst-item".into(), vec![json!(n)]))?;
    }
    session.client.emit("message", json!("the end"))?;
    session.hears(&Heard::Event("message-back".into(), vec![json!("the end")]))?;
    session.client.disconnect()?;
    Ok(MESSAGES + BURST + 3)
}

fn run() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, transport, sessions] = &arguments[..] else { return Err("rust_client URL TRANSPORT SESSIONS".into()) };
    let transport = match transport.as_str() {
        "websocket" => TransportType::Websocket,
        "polling" => TransportType::Polling,
        "upgrade" => TransportType::WebsocketUpgrade,
        other => return Err(format!("no transport {other}").into()),
    };
    let sessions: usize = sessions.parse()?;
    let messages: Result<Vec<usize>, Failed> = std::thread::scope(|scope| {
        let visits: Vec<_> = (0..sessions)
            .map(|number| {
                scope.spawn({
                    let transport = transport.clone();
                    move || visit(url, transport, number)
                })
            })
            .collect();
        visits.into_iter().map(|visit| visit.join().unwrap_or_else(|_| Err("a session panicked".into()))).collect()
    });
    println!("{}", json!({"sessions": sessions, "messages": messages?.iter().sum::<usize>()}));
    Ok(())
}

fn main() {
    if let Err(failed) = run() {
        eprintln!("{failed}");
        std::process::exit(1);
    }
}
