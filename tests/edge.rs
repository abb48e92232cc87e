//! The edge, from outside: the real program, real sockets, and `tungstenite` as the client that
//! knows nothing of us. Every promise is held on both drivers. Waits are bounded by patience that
//! only a failure exhausts; no time measured here decides anything.

#[path = "edge/patient.rs"]
mod patient;
#[path = "edge/polling.rs"]
mod polling;

use patient::Patient;
use ringroom::admission::token::{Claims, sign_hs256};
use ringroom::kernel::placement::Placement;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

const SECRET: &str = "a secret of at least 32 bytes, for tests only";
const PATIENCE: Duration = Duration::from_secs(60);
/// `auto` is io_uring wherever it is allowed.
const DRIVERS: [&str; 2] = ["auto", "epoll"];
/// Clients may ask as much as they can.
const UNHURRIED: (&str, &str) = ("RINGROOM_LIMITS__CONN_BURST", "unlimited");

struct Server {
    child: Child,
    shards: usize,
    out: BufReader<ChildStdout>,
    data: SocketAddr,
    ops: SocketAddr,
}

impl Server {
    fn start(driver: &str, shards: usize, environment: &[(&str, &str)]) -> Server {
        let child = program(&["--shards", &shards.to_string()])
            .env("RINGROOM_JWT_SECRET", SECRET)
            .env("RINGROOM_IO", driver)
            .envs(environment.iter().copied())
            .spawn()
            .unwrap();
        Server::of(child, driver, shards)
    }

    /// Waits until the program is ready.
    fn of(mut child: Child, driver: &str, shards: usize) -> Server {
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        out.read_line(&mut ready).unwrap();
        let field = |name: &str| {
            let found = ready.split_ascii_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in the ready line {ready:?}")).to_owned()
        };
        assert!(ready.starts_with("ready data="), "{ready:?}");
        assert_eq!(field("shards="), shards.to_string());
        assert!(driver == "auto" || field("io=") == driver, "{ready:?}");
        let (data, ops) = (field("data=").parse().unwrap(), field("ops=").parse().unwrap());
        Server { child, shards, out, data, ops }
    }

    fn connect(&self, user: &str) -> Client {
        let mut client = self.connect_with(self.raw(), &token(user)).unwrap();
        assert_eq!(client.next()["event"], "connected");
        client
    }

    fn connect_with(&self, stream: Patient, token: &str) -> Result<Client, String> {
        let url = format!("ws://{}/ws?token={token}", self.data);
        let (socket, _) = tungstenite::client(url, stream).map_err(|error| error.to_string())?;
        Ok(Client { socket, last_id: 0 })
    }

    /// A plain socket, for what no honest client does.
    fn raw(&self) -> Patient {
        Patient::connect(self.data, PATIENCE)
    }

    /// Sends `request` and reads to the end.
    fn answer(&self, request: &str) -> String {
        let mut stream = self.raw();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// The sum over all shards.
    fn total(&self) -> Value {
        // Where the whole machine stands still, shards are late.
        let whole = std::iter::repeat_with(|| self.stats()).take(10).find(|stats| stats["silent"] == json!([]));
        whole.expect("all shards answer")["total"].clone()
    }

    fn stats(&self) -> Value {
        let mut stream = Patient::connect(self.ops, PATIENCE);
        stream.write_all(b"GET /stats HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        serde_json::from_str(body).unwrap()
    }

    /// Asks until the statistics agree.
    fn until(&self, agrees: impl Fn(&Value) -> bool) {
        let rounds = PATIENCE.as_millis() / 10;
        let agreed = (0..rounds).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            agrees(&self.total())
        });
        assert!(agreed, "{}", self.total());
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program with ports of its own and nothing of our environment.
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringroom"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0"]).args(args);
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("RINGROOM_")) {
        command.env_remove(key);
    }
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn token(user: &str) -> String {
    sign_hs256(SECRET.as_bytes(), &Claims { sub: user.into(), ..Claims::default() })
}

struct Client {
    socket: WebSocket<Patient>,
    last_id: u64,
}

impl Client {
    fn send(&mut self, event: &str, data: Value) -> u64 {
        self.last_id += 1;
        let request = json!({"id": self.last_id, "event": event, "data": data});
        self.socket.send(Message::text(request.to_string())).unwrap();
        self.last_id
    }

    /// The next envelope.
    fn next(&mut self) -> Value {
        loop {
            match self.socket.read().unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// The reply to a request; pushes before it are passed over.
    fn ask(&mut self, event: &str, data: Value) -> Value {
        let id = self.send(event, data);
        loop {
            let envelope = self.next();
            if envelope["id"] == id {
                return envelope;
            }
        }
    }

    fn join(&mut self, room: &str) {
        let reply = self.ask("room:join", json!({"room": room}));
        assert_eq!(reply["ok"], true, "{reply}");
    }

    fn publish(&mut self, room: &str, event: &str, data: Value) {
        let reply = self.ask("room:publish", json!({"room": room, "event": event, "data": data, "exclude_self": true}));
        assert_eq!(reply["ok"], true, "{reply}");
    }

    /// The next push of this event.
    fn push(&mut self, event: &str) -> Value {
        loop {
            let envelope = self.next();
            if envelope["event"] == event {
                return envelope;
            }
        }
    }

    /// Reads to the close frame; `None` where the connection ends without one.
    fn close_frame(&mut self) -> Option<CloseFrame> {
        loop {
            match self.socket.read() {
                Ok(Message::Close(frame)) => return frame,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

fn on_each_driver(test: impl Fn(&str)) {
    for driver in DRIVERS {
        test(driver);
    }
}

#[test]
fn a_message_reaches_the_members_of_its_room() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 1, &[]);
        let (mut alice, mut bob) = (server.connect("alice"), server.connect("bob"));
        alice.join("chat:1");
        bob.join("chat:1");
        alice.publish("chat:1", "chat", json!({"text": "hello"}));
        let push = bob.push("chat");
        assert_eq!(
            (&push["room"], &push["from"], &push["data"]["text"]),
            (&json!("chat:1"), &json!("alice"), &json!("hello"))
        );
    });
}

#[test]
fn users_and_rooms_of_all_shards_meet_whichever_shard_accepts() {
    const USERS: usize = 40;
    on_each_driver(|driver| {
        let server = Server::start(driver, 3, &[]);
        let mut clients: Vec<Client> = (0..USERS).map(|user| server.connect(&format!("user{user}"))).collect();
        let rooms: Vec<String> = (0..6).map(|room| format!("chat:{room}")).collect();
        for client in &mut clients {
            rooms.iter().for_each(|room| client.join(room));
        }
        for (user, room) in rooms.iter().enumerate() {
            clients[user].publish(room, "chat", json!({"n": user}));
            for (other, client) in clients.iter_mut().enumerate() {
                if other != user {
                    assert_eq!(client.push("chat")["data"]["n"], user);
                }
            }
        }
        let edge = &server.total()["edge"];
        assert_eq!(edge["opened"], USERS);
        assert_eq!(edge["moved_out"], edge["moved_in"]);
        assert!(edge["moved_out"].as_u64() > Some(0), "of 40 users some are accepted away from home: {edge}");
        drop(clients);
        server.until(|total| total["edge"]["connections_now"] == 0 && total["core"]["connections"] == 0);
    });
}

#[test]
fn lanes_that_are_always_full_lose_and_reorder_nothing() {
    const CLIENTS: usize = 6;
    const ROOMS: usize = 4;
    const EACH: usize = 400;
    on_each_driver(|driver| {
        let server = Server::start(driver, 3, &[("RINGROOM_LIMITS__LANE_ENTRIES", "8"), UNHURRIED]);
        let mut clients: Vec<Client> = (0..CLIENTS).map(|user| server.connect(&format!("user{user}"))).collect();
        for client in &mut clients {
            (0..ROOMS).for_each(|room| client.join(&format!("chat:{room}")));
        }
        for n in 0..EACH {
            for client in &mut clients {
                client.send("room:publish", json!({"room": format!("chat:{}", n % ROOMS), "event": "chat", "data": n}));
            }
        }
        for client in &mut clients {
            let (mut replies, mut pushes, mut last_seq) = (0, 0, [0; ROOMS]);
            while replies < EACH || pushes < EACH * CLIENTS {
                let envelope = client.next();
                if envelope["event"] == "chat" {
                    let room: usize = envelope["room"].as_str().unwrap()["chat:".len()..].parse().unwrap();
                    let seq = envelope["seq"].as_u64().unwrap();
                    assert!(last_seq[room] == 0 || seq == last_seq[room] + 1, "after {last_seq:?}: {envelope}");
                    last_seq[room] = seq;
                    pushes += 1;
                } else if envelope["id"].is_u64() {
                    assert_eq!(envelope["ok"], true, "{envelope}");
                    replies += 1;
                }
            }
        }
        let core = &server.total()["core"];
        assert!(core["parked"].as_u64() > Some(0), "the lanes were full at times: {core}");
    });
}

#[test]
fn one_user_may_have_more_connections_than_are_moved() {
    const CONNECTIONS: usize = 100;
    on_each_driver(|driver| {
        let server = Server::start(driver, 2, &[]);
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect("alice")).collect();
        clients.iter_mut().for_each(|client| client.join("chat:1"));
        clients[0].publish("chat:1", "chat", json!({}));
        clients[1..].iter_mut().for_each(|client| drop(client.push("chat")));
        assert!(server.total()["edge"]["moved_in"].as_u64() <= Some(64));
    });
}

#[test]
fn a_users_connections_are_counted_exactly_over_all_shards() {
    // More than are moved to the user's home, so every shard has some.
    const ALLOWED: usize = 70;
    on_each_driver(|driver| {
        let server = Server::start(driver, 2, &[("RINGROOM_LIMITS__CONNS_PER_USER", "70")]);
        let come = || {
            let mut client = server.connect_with(server.raw(), &token("alice")).unwrap();
            match client.socket.read().unwrap() {
                Message::Text(_) => Some(client),
                Message::Close(frame) => {
                    assert_eq!(u16::from(frame.unwrap().code), 4429);
                    None
                }
                other => panic!("unexpected {other:?}"),
            }
        };
        let mut clients: Vec<Client> = std::thread::scope(|scope| {
            let crowds: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..30).filter_map(|_| come()).collect::<Vec<_>>())).collect();
            crowds.into_iter().flat_map(|crowd| crowd.join().unwrap()).collect()
        });
        assert_eq!(clients.len(), ALLOWED);
        assert_eq!(server.total()["edge"]["refused"]["conns_per_user"], 120 - ALLOWED);
        clients.truncate(ALLOWED - 7);
        server.until(|total| total["edge"]["connections_now"] == ALLOWED - 7);
        clients.extend((0..20).filter_map(|_| come()));
        assert_eq!(clients.len(), ALLOWED, "as many places as were left");
    });
}

#[test]
fn a_bad_token_is_told_in_a_close_frame() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 1, &[]);
        let mut client = server.connect_with(server.raw(), "nonsense").unwrap();
        let frame = client.close_frame().expect("a close frame");
        assert_eq!(u16::from(frame.code), 4401);
        assert!(frame.reason.contains("token"), "{}", frame.reason);
        server.until(|total| total["edge"]["refused"]["token_malformed"] == 1);
        assert_eq!(server.total()["edge"]["opened"], 0);
    });
}

#[test]
fn whoever_does_not_finish_its_head_in_time_is_cut() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 1, &[("RINGROOM_LIMITS__HANDSHAKE_MS", "1000")]);
        let mut silent = server.raw();
        let mut slow = server.raw();
        slow.write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\n").unwrap();
        assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(slow.read(&mut [0; 1]).unwrap(), 0);
        // Answered, but it never closes its side.
        let mut lingering = server.raw();
        lingering.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        server.until(|total| total["edge"]["handshakes_now"] == 0);
        assert_eq!(server.total()["edge"]["refused"]["handshake_time"], 3);
        drop(lingering);
        // An upgraded connection is not in a hurry any more.
        let mut client = server.connect("alice");
        server.until(|total| total["edge"]["handshakes_now"] == 0);
        client.join("chat:1");
    });
}

fn upgrade_request(server: &Server, token: &str) -> String {
    format!(
        "GET /ws?token={token} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        server.data
    )
}

/// A masked text frame; the mask is zero, so the payload stands as it is.
fn text_frame(text: &str) -> Vec<u8> {
    assert!(text.len() < 126);
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[test]
fn a_head_may_come_byte_by_byte_and_with_a_frame_behind_it() {
    on_each_driver(|driver| {
        for shards in [1, 2] {
            let server = Server::start(driver, shards, &[]);
            for user in ["alice", "bob", "carol", "dave"] {
                let mut stream = server.raw();
                stream.set_nodelay(true).unwrap();
                let request = upgrade_request(&server, &token(user));
                let (head, last) = request.split_at(request.len() - 1);
                for byte in head.as_bytes() {
                    stream.write_all(&[*byte]).unwrap();
                }
                let join = text_frame(r#"{"id":"early","event":"room:join","data":{"room":"chat:1"}}"#);
                stream.write_all(&[last.as_bytes(), &join].concat()).unwrap();
                let mut heard = Vec::new();
                while !String::from_utf8_lossy(&heard).contains(r#""id":"early""#) {
                    let mut chunk = [0; 1024];
                    let got = stream.read(&mut chunk).unwrap();
                    assert!(got > 0, "ended after {:?}", String::from_utf8_lossy(&heard));
                    heard.extend_from_slice(&chunk[..got]);
                }
                let heard = String::from_utf8_lossy(&heard);
                assert!(heard.starts_with("HTTP/1.1 101 "), "the 101 is first: {heard}");
                assert!(heard.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the key of RFC 6455 section 1.3");
            }
        }
    });
}

#[test]
fn plain_http_gets_plain_answers() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 1, &[]);
        let get = |path: &str| server.answer(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(get("/health").starts_with("HTTP/1.1 200 ") && get("/health").ends_with(r#"{"status":"ok"}"#));
        assert!(get("/nothing").starts_with("HTTP/1.1 404 ") && get("/nothing").contains(r#""code":"not_found""#));
        assert!(get("/ws").starts_with("HTTP/1.1 426 "));
        assert!(server.answer("POST /health HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 405 "));
        assert!(server.answer("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
        let endless = format!("GET / HTTP/1.1\r\nCookie: {}", "x".repeat(20_000));
        assert!(server.answer(&endless).starts_with("HTTP/1.1 431 "));
        let foreign = upgrade_request(&server, "").replace("/ws?token=", "/ws").replace(
            "\r\n\r\n",
            &format!("\r\nOrigin: https://evil.example\r\nCookie: token={}\r\n\r\n", token("alice")),
        );
        assert!(server.answer(&foreign).starts_with("HTTP/1.1 403 "));
        server.until(|total| total["edge"]["handshakes_now"] == 0);
    });
}

#[test]
fn a_large_message_arrives_whole_at_a_reader_that_reads_late() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 1, &[]);
        let mut alice = server.connect("alice");
        let narrow = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        narrow.set_recv_buffer_size(4_096).unwrap();
        narrow.connect(&server.data.into()).unwrap();
        let mut bob = server.connect_with(Patient::of(narrow.into(), PATIENCE), &token("bob")).unwrap();
        alice.join("chat:1");
        bob.join("chat:1");
        let texts: Vec<String> = (0..3).map(|n| char::from(b'a' + n).to_string().repeat(300_000)).collect();
        for text in &texts {
            alice.publish("chat:1", "chat", json!(text));
        }
        server.until(|total| total["edge"]["writes_short"].as_u64() > Some(0));
        for text in &texts {
            assert_eq!(bob.push("chat")["data"], json!(text));
        }
        bob.publish("chat:1", "chat", json!("thanks"));
        assert_eq!(alice.push("chat")["data"], "thanks");
    });
}

#[test]
fn a_reader_that_stands_still_is_closed_and_holds_nobody_up() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 2, &[UNHURRIED]);
        let (mut alice, mut bob, mut stuck) = (server.connect("alice"), server.connect("bob"), server.connect("stuck"));
        for client in [&mut alice, &mut bob, &mut stuck] {
            client.join("chat:1");
        }
        let text = "x".repeat(100_000);
        for n in 0..200 {
            alice.publish("chat:1", "chat", json!({"n": n, "text": text}));
            assert_eq!(bob.push("chat")["data"]["n"], n);
        }
        server.until(|total| total["core"]["closes"]["slow_consumer"] == 1);
        // It reads on at last: whole messages in order, then why it ended.
        let frame = stuck.close_frame().expect("a close frame");
        assert_eq!(u16::from(frame.code), 4410);
    });
}

#[test]
fn a_peer_that_vanishes_leaves_nothing_behind() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 2, &[]);
        let mut clients: Vec<Client> = (0..8).map(|user| server.connect(&format!("user{user}"))).collect();
        clients.iter_mut().for_each(|client| client.join("chat:1"));
        for (user, client) in clients.drain(1..).enumerate() {
            let stream: &TcpStream = client.socket.get_ref();
            match user % 2 {
                0 => drop(client),
                // A reset, as from a phone that lost its network and came back.
                _ => socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap(),
            }
        }
        server.until(|total| total["edge"]["connections_now"] == 1 && total["core"]["connections"] == 1);
        let info = clients[0].ask("room:info", json!({"room": "chat:1"}));
        assert_eq!(info["data"]["members"], 1, "{info}");
    });
}

#[test]
fn the_closing_handshake_is_answered_and_the_socket_ends() {
    on_each_driver(|driver| {
        let server = Server::start(driver, 1, &[]);
        let mut client = server.connect("alice");
        client.socket.send(Message::Ping("are you there".into())).unwrap();
        assert_eq!(client.socket.read().unwrap(), Message::Pong("are you there".into()));
        client.socket.close(None).unwrap();
        assert!(matches!(client.socket.read().unwrap(), Message::Close(_)));
        assert_eq!(client.socket.get_mut().read(&mut [0; 1]).unwrap(), 0, "an orderly end, no reset");
        drop(client);
        // Binary is not spoken: the server closes first.
        let mut client = server.connect("alice");
        client.socket.send(Message::binary(vec![1, 2, 3])).unwrap();
        assert_eq!(u16::from(client.close_frame().unwrap().code), 1003);
        drop(client);
        server.until(|total| total["edge"]["connections_now"] == 0);
        assert_eq!(server.total()["edge"]["resets"], 0);
    });
}

#[test]
fn sigterm_sends_clients_away_and_exits_clean() {
    on_each_driver(|driver| {
        for signal in ["-TERM", "-INT"] {
            let mut server = Server::start(driver, 2, &[("RINGROOM_DRAIN__SPREAD_MS", "1000")]);
            let mut clients: Vec<Client> = (0..10).map(|user| server.connect(&format!("user{user}"))).collect();
            server.signal(signal);
            for client in &mut clients {
                let frame = client.close_frame().expect("a close frame");
                assert_eq!(u16::from(frame.code), 1012);
                assert!(frame.reason.contains("retry_ms"), "{}", frame.reason);
            }
            assert!(TcpStream::connect(server.data).is_err(), "nobody listens while the last clients go");
            drop(clients);
            assert_eq!(server.child.wait().unwrap().code(), Some(0));
            let mut rest = String::new();
            server.out.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "", "standard output has the ready line and nothing else");
        }
    });
}

#[test]
fn running_out_of_descriptors_is_survived() {
    on_each_driver(|driver| {
        let mut wrapped = Command::new("sh");
        let inner = program(&["--shards", "1"]);
        wrapped.args(["-c", "ulimit -n 48 && exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
        wrapped.env("RINGROOM_JWT_SECRET", SECRET).env("RINGROOM_IO", driver);
        let child = wrapped.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let server = Server::of(child, driver, 1);
        let mut crowd: Vec<Patient> = (0..48).map(|_| server.raw()).collect();
        server.until(|total| total["edge"]["refused"]["descriptors"].as_u64() > Some(0));
        assert_eq!(crowd[0].read(&mut [0; 1]).unwrap(), 0, "whoever waits longest goes first");
        // While they all stay, somebody who means well comes in, and operators can look.
        let mut client = server.connect("alice");
        client.join("chat:1");
        // Connections that take all that is left are not thrown out.
        let mut clients: Vec<Client> = Vec::new();
        let mut refused = 0;
        for user in 0..48 {
            let stream = server.raw();
            match server.connect_with(stream, &token(&format!("user{user}"))) {
                Ok(mut client) => {
                    assert_eq!(client.next()["event"], "connected");
                    clients.push(client);
                }
                Err(_) => refused += 1,
            }
        }
        assert!(clients.len() > 10 && refused > 0, "{} came in, {refused} did not", clients.len());
        assert_eq!(server.total()["edge"]["accept_failures"], 0);
        client.join("chat:2");
        clients[0].join("chat:2");
        drop((crowd, clients));
        server.until(|total| total["edge"]["handshakes_now"] == 0 && total["edge"]["connections_now"] == 1);
        server.connect("bob").join("chat:2");
    });
}

#[test]
fn a_full_server_says_so_and_keeps_nothing_of_those_it_turns_away() {
    let home = |user: &str| Placement::new(2).of_user("default", user).index();
    on_each_driver(|driver| {
        let limits = [("RINGROOM_LIMITS__CONNS_PER_SHARD", "1"), ("RINGROOM_LIMITS__HANDSHAKE_MS", "1000")];
        let server = Server::start(driver, 2, &limits);
        let users: Vec<String> = (0..16).map(|user| format!("user{user}")).collect();
        let residents = [0, 1].map(|shard| server.connect(users.iter().find(|user| home(user) == shard).unwrap()));
        let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap().count();
        let before = descriptors();
        // They read the answer and never close.
        let turned_away: Vec<Patient> = users
            .iter()
            .map(|user| {
                let mut stream = server.raw();
                stream.write_all(upgrade_request(&server, &token(user)).as_bytes()).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(r#""code":"unavailable""#), "{answer}");
                stream
            })
            .collect();
        server.until(|total| total["edge"]["handshakes_now"] == 0 && descriptors() <= before + 1);
        drop((turned_away, residents));
        server.until(|total| total["edge"]["connections_now"] == 0);
        server.connect("user0");
    });
}

/// Has the kernel refuse `io_uring_setup`, as the seccomp profile of a container does.
fn forbid_io_uring(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    const IO_URING_SETUP: u32 = libc::SYS_io_uring_setup as u32;
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const SKIP_UNLESS_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let forbid = || {
        let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
        let mut steps = [
            step(LOAD_NUMBER, 0, 0),
            step(SKIP_UNLESS_EQUAL, 1, IO_URING_SETUP),
            step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the program and its steps outlive the call, which copies them.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls and nothing else.
    unsafe { command.pre_exec(forbid) };
}

#[test]
fn where_io_uring_is_forbidden_epoll_serves_and_the_log_says_what_to_allow() {
    let mut command = program(&["--shards", "1"]);
    forbid_io_uring(command.env("RINGROOM_JWT_SECRET", SECRET));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let server = Server::of(child, "epoll", 1);
    server.connect("alice").join("chat:1");
    let line = log.next().unwrap();
    assert!(line.contains("io_uring is refused") && line.contains("seccomp") && line.contains("epoll"), "{line}");

    let mut command = program(&["--shards", "1"]);
    forbid_io_uring(command.env("RINGROOM_JWT_SECRET", SECRET).env("RINGROOM_IO", "io_uring"));
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("seccomp"));
}

#[test]
fn a_port_that_is_taken_is_not_shared() {
    let server = Server::start("auto", 1, &[]);
    let listen = server.data.to_string();
    let mut second = program(&["--listen", &listen]);
    let output = second.env("RINGROOM_JWT_SECRET", SECRET).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&listen));
    assert!(output.stdout.is_empty());
}

#[test]
fn without_a_secret_it_can_be_tried_on_this_machine_only() {
    let output = program(&["--listen", "0.0.0.0:0"]).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("RINGROOM_JWT_SECRET"));

    let mut child = program(&[]).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let commands: Vec<String> = lines.filter(|line| line.contains("ringroom client --url")).take(2).collect();
    let words: Vec<&str> = commands[0].split_ascii_whitespace().collect();
    let after = |option| words[words.iter().position(|word| *word == option).unwrap() + 1];
    let address = after("--url").trim_start_matches("ws://").trim_end_matches("/ws");
    let stream = Patient::connect(address.parse().unwrap(), PATIENCE);
    let url = format!("{}?token={}", after("--url"), after("--token"));
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
    assert!(socket.read().unwrap().to_text().unwrap().contains("connected"));
    child.kill().unwrap();
    child.wait().unwrap();
}
