//! Socket.IO with handlers of one's own, as a program around the gateway: sessions, transports, rooms over
//! all shards and acknowledgements are the gateway's, what events mean is said here.
//!
//!     cargo run --release --example socketio_app -- --listen 127.0.0.1:3006
//!
//! Any Socket.IO client, version 3 or 4, connects to it: `io("http://127.0.0.1:3006/custom")`. Beside
//! `/socket.io/` there are `/engine.io/`, where messages come back over bare Engine.IO, and `/echo`, where
//! they do over a bare WebSocket. `--ping-interval` and `--ping-timeout` are milliseconds, `--max-payload`,
//! `--max-message` and `--max-fragments` bound what clients send. Once they can connect, a line that begins
//! with `ready data=` says where.

use ringroom::{
    Ack, App, Arguments, Client, ConnectRefused, Endpoint, EndpointLimits, EngineSettings, Message, Namespace, Options,
    Socket, SocketIo,
};
use serde::Deserialize;
use std::process::ExitCode;
use std::time::Duration;

/// What is served in every namespace.
struct Chat;

impl Namespace for Chat {
    fn on_connect(&mut self, socket: &mut Socket<'_>, auth: &str) {
        socket.emit("auth", &Arguments::one(auth));
    }

    fn on_event(&mut self, socket: &mut Socket<'_>, event: &str, arguments: &Arguments<'_>, ack: Option<Ack>) {
        match event {
            "message" => socket.emit("message-back", arguments),
            "message-with-ack" => {
                if let Some(ack) = ack {
                    socket.acknowledge(ack, arguments);
                }
            }
            // The answer comes to `on_answer`, under the number that is given here.
            "ask-me" => socket.ask("question", arguments, Duration::from_secs(5), 0),
            "broadcast" => socket.broadcast("broadcast-back", arguments),
            "burst" => {
                let (times,) = arguments.read::<(u32,)>().unwrap_or_default();
                for nth in 0..times.min(10_000) {
                    socket.emit("burst-item", &Arguments::of(&(nth,)));
                }
            }
            "disconnect-me" => match arguments.read::<(bool,)>() {
                Some((true,)) => socket.close(),
                _ => socket.disconnect(),
            },
            "join" | "leave" | "to-room" => self.on_room(socket, event, arguments, ack),
            // Whoever sends what is not served hears nothing, as with other servers.
            _ => {}
        }
    }

    fn on_answer(&mut self, socket: &mut Socket<'_>, _question: u64, answer: Option<&Arguments<'_>>) {
        match answer {
            Some(answer) => socket.emit("answer-was", answer),
            None => socket.emit("no-answer", &Arguments::NONE),
        }
    }
}

impl Chat {
    fn on_room(&mut self, socket: &mut Socket<'_>, event: &str, arguments: &Arguments<'_>, ack: Option<Ack>) {
        let Some((room, rest)) = arguments.after_string() else { return };
        // An acknowledgement means that whatever is sent to the room from now on comes, or comes no more.
        let done = match event {
            "join" => socket.join(&room, ack),
            "leave" => socket.leave(&room, ack),
            _ => socket.to_room(&room, "room-message", &rest),
        };
        if let Err(refused) = done {
            socket.emit("wrong-room", &Arguments::of(&(refused.to_string(),)));
        }
    }
}

/// The same for those who know the word.
struct Protected(Chat);

#[derive(Deserialize)]
struct Auth {
    token: String,
}

impl Namespace for Protected {
    fn admit(&mut self, auth: &str) -> Result<(), ConnectRefused> {
        match serde_json::from_str::<Auth>(auth) {
            Ok(Auth { token }) if token == "let-me-in" => Ok(()),
            _ => Err(ConnectRefused {
                message: "unauthorized".into(),
                data: Some(serde_json::json!({ "reason": "bad token" })),
            }),
        }
    }

    fn on_connect(&mut self, socket: &mut Socket<'_>, auth: &str) {
        self.0.on_connect(socket, auth);
    }

    fn on_event(&mut self, socket: &mut Socket<'_>, event: &str, arguments: &Arguments<'_>, ack: Option<Ack>) {
        self.0.on_event(socket, event, arguments, ack);
    }

    fn on_answer(&mut self, socket: &mut Socket<'_>, question: u64, answer: Option<&Arguments<'_>>) {
        self.0.on_answer(socket, question, answer);
    }
}

/// Sends each message back.
struct Echo;

impl Endpoint for Echo {
    fn on_message(&mut self, client: &mut Client<'_>, message: Message<'_>) {
        client.send(message);
    }
}

fn main() -> ExitCode {
    let Flags { options, engine, echo } = match arguments() {
        Ok(flags) => flags,
        Err(wrong) => {
            eprintln!("socketio_app: {wrong}");
            return ExitCode::from(2);
        }
    };
    let namespaces = SocketIo::new()
        .namespace("/", || Chat)
        .namespace("/custom", || Chat)
        .namespace("/protected", || Protected(Chat));
    let app = App::new()
        .socket_io("/socket.io/", engine.clone(), namespaces)
        .engine("/engine.io/", engine, || Echo)
        .endpoint("/echo", echo, || Echo);
    match app.serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("socketio_app: {failed}");
            ExitCode::from(failed.exit)
        }
    }
}

struct Flags {
    options: Options,
    engine: EngineSettings,
    echo: EndpointLimits,
}

fn arguments() -> Result<Flags, lexopt::Error> {
    use lexopt::prelude::*;
    // Two of them on one machine should not meet at the operators' port; and what one asks costs nothing.
    let mut options = Options { ops: Some("127.0.0.1:0".into()), ..Options::default() };
    let mut engine = EngineSettings { rate: None, ..EngineSettings::default() };
    let mut echo = EndpointLimits { rate: None, ..EndpointLimits::default() };
    let mut arguments = lexopt::Parser::from_env();
    let ms = |value: std::ffi::OsString| value.parse().map(Duration::from_millis);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => options.listen = Some(arguments.value()?.string()?),
            Long("ping-interval") => engine.ping_interval = ms(arguments.value()?)?,
            Long("ping-timeout") => engine.ping_timeout = ms(arguments.value()?)?,
            Long("max-payload") => engine.payload_bytes = arguments.value()?.parse()?,
            Long("max-message") => echo.message_bytes = arguments.value()?.parse()?,
            Long("max-fragments") => echo.fragments = arguments.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Flags { options, engine, echo })
}
