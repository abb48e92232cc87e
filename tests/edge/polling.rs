//! Engine.IO over HTTP, from outside: requests written by hand, since what matters here is what no good
//! client sends, and on which socket what comes. Whose shard a socket reaches is the kernel's choice: tests
//! that need both kinds ask until they had both.

use super::*;

const POLLING: &str = "/socket.io/?EIO=4&transport=polling";
const PAGE: &str = "Origin: https://app.example\r\n";

/// A connection for requests.
struct Http {
    stream: Patient,
    /// Read, and not yet an answer.
    ahead: Vec<u8>,
    /// GETs that were answered, of those who open and collect.
    polls: u64,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn keeps(&self) -> bool {
        self.head.contains("\r\nConnection: keep-alive")
    }

    fn has(&self, header: &str) -> bool {
        self.head.split("\r\n").any(|line| line.eq_ignore_ascii_case(header))
    }
}

/// What a session is asked by.
#[derive(Clone)]
struct Sid(String);

impl Sid {
    fn path(&self) -> String {
        format!("{POLLING}&sid={}", self.0)
    }

    fn get(&self) -> String {
        format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", self.path())
    }

    fn post(&self, body: &str) -> String {
        format!("POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", self.path(), body.len())
    }

    fn upgrade(&self) -> String {
        websocket_request(&format!("/socket.io/?EIO=4&transport=websocket&sid={}", self.0))
    }
}

fn websocket_request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

impl Http {
    fn new(server: &Server) -> Http {
        Http { stream: server.raw(), ahead: Vec::new(), polls: 0 }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Reads more; false: the end.
    fn read(&mut self) -> bool {
        let mut chunk = [0; 65_536];
        let got = self.stream.read(&mut chunk).unwrap_or(0);
        self.ahead.extend_from_slice(&chunk[..got]);
        got > 0
    }

    /// The next answer; `None`: the connection ends without one.
    fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            match self.ahead.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None if self.read() => {}
                None => return None,
            }
        };
        let head = String::from_utf8(self.ahead[..end].to_vec()).unwrap();
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        while self.ahead.len() < end + 4 + length {
            assert!(self.read(), "an answer comes whole: {head}");
        }
        let body = self.ahead.drain(..end + 4 + length).skip(end + 4).collect();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.answer().expect("an answer")
    }

    /// Asks for what must be answered with this payload.
    fn payload(&mut self, request: impl AsRef<[u8]>) -> String {
        let answer = self.ask(request);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    fn has_ended(&mut self) -> bool {
        self.ahead.is_empty() && !self.read()
    }
}

impl Server {
    /// A session, and the connection that opened it.
    fn session(&self) -> (Sid, Http) {
        let mut http = Http::new(self);
        let open = http.payload(format!("GET {POLLING} HTTP/1.1\r\nHost: x\r\n\r\n"));
        http.polls += 1;
        let open: Value = serde_json::from_str(open.strip_prefix('0').expect("an open packet")).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        (Sid(open["sid"].as_str().unwrap().to_owned()), http)
    }

    /// A session of `user` in the first namespace and a room.
    fn member(&self, user: &str, room: &str) -> (Sid, Http) {
        let (sid, mut http) = self.session();
        assert_eq!(http.payload(sid.post(&format!(r#"40{{"token":"{}"}}"#, token(user)))), "ok");
        assert_eq!(http.payload(sid.post(&format!(r#"420["room:join",{{"room":"{room}"}}]"#))), "ok");
        // The last two come in any order: one of them may be from another shard.
        let mut seen = Vec::new();
        while !["40{", "430[", r#"42["connected""#]
            .iter()
            .all(|start| seen.iter().any(|it: &String| it.starts_with(start)))
        {
            let payload = http.payload(sid.get());
            http.polls += 1;
            seen.extend(payload.split('\u{1e}').map(str::to_owned));
        }
        (sid, http)
    }

    fn is_empty(&self) {
        self.until(|total| {
            let edge = &total["edge"];
            total["core"]["connections"] == 0
                && ["connections_now", "sessions_polling_now", "requesters_now", "handshakes_now"]
                    .iter()
                    .all(|now| edge[*now] == 0)
        });
    }
}

impl Http {
    /// Polls until a packet begins so. Returns it.
    fn collect(&mut self, sid: &Sid, start: &str) -> String {
        loop {
            let payload = self.payload(sid.get());
            self.polls += 1;
            if let Some(packet) = payload.split('\u{1e}').find(|packet| packet.starts_with(start)) {
                return packet.to_owned();
            }
        }
    }
}

fn on_one_and_two_shards(test: impl Fn(&Server)) {
    on_each_driver(|driver| {
        for shards in [1, 2] {
            let server = Server::start(driver, shards, &[UNHURRIED, ("RINGROOM_NETWORK__ATTEMPTS", "unlimited")]);
            test(&server);
            server.is_empty();
        }
    });
}

/// The number that a push of an event has as its data.
fn number(packet: &str, event: &str) -> Option<usize> {
    let arguments: Value = serde_json::from_str(packet.strip_prefix("42")?).unwrap();
    (arguments[0] == event).then(|| arguments[1].as_u64().unwrap() as usize)
}

#[test]
fn a_session_is_polled_by_whatever_socket_reaches_whatever_shard() {
    on_one_and_two_shards(|server| {
        let (alice, mut http) = server.member("alice", "chat:1");
        let (bob, _bobs) = server.member("bob", "chat:1");
        for n in 0..40 {
            let mut other = Http::new(server);
            let publish = format!(r#"42["room:publish",{{"room":"chat:1","event":"chat","data":{n}}}]"#);
            assert_eq!(other.payload(bob.post(&publish)), "ok");
            let packet = match n % 2 {
                0 => http.collect(&alice, r#"42["chat""#),
                _ => Http::new(server).collect(&alice, r#"42["chat""#),
            };
            assert_eq!(number(&packet, "chat"), Some(n));
        }
        // Whoever asks for statistics may be given some of just before.
        server.until(|total| {
            total["edge"]["sessions_polling_now"] == 2 && total["edge"]["engine_posts"].as_u64() >= Some(44)
        });
        let edge = &server.total()["edge"];
        assert_eq!(edge["requests_out"], edge["requests_in"]);
        // 60 new sockets at random: that all of them reach one of two shards happens once in 2^60 times.
        assert_eq!(edge["requests_out"].as_u64() > Some(0), server.shards == 2, "{edge}");
        assert_eq!(http.payload(bob.post("1")), "ok");
        assert_eq!(http.payload(alice.post("1")), "ok");
    });
}

#[test]
fn requests_behind_one_another_are_answered_in_their_order() {
    on_one_and_two_shards(|server| {
        let (first, mut http) = server.member("alice", "chat:1");
        let (second, _others) = server.member("bob", "chat:1");
        // Of sessions that may live on different shards, on one socket: it moves with each.
        let rounds = 10;
        let mut requests = String::new();
        for n in 0..rounds {
            let publish = format!(r#"42["room:publish",{{"room":"chat:1","event":"chat","data":{n}}}]"#);
            requests.push_str(&first.post(&publish));
            requests.push_str(&second.get());
            requests.push_str(&format!("OPTIONS {POLLING} HTTP/1.1\r\nHost: x\r\n\r\n"));
        }
        http.send(requests);
        for n in 0..rounds {
            assert_eq!(http.answer().unwrap().body, "ok");
            let payload = http.answer().unwrap().body;
            assert_eq!(number(payload.split('\u{1e}').next().unwrap(), "chat"), Some(n), "{payload}");
            assert_eq!(http.answer().unwrap().status, 204);
        }
        // A GET that waits is not disturbed by what comes behind it.
        http.collect(&first, r#"42["chat""#);
        let mut other = Http::new(server);
        http.send([second.get(), first.post("3")].concat());
        server.until(|total| total["edge"]["sessions_polling_now"] == 2);
        other.payload(first.post(r#"42["room:publish",{"room":"chat:1","event":"chat","data":99}]"#));
        assert_eq!(number(&http.answer().unwrap().body, "chat"), Some(99));
        assert_eq!(http.answer().unwrap().body, "ok");
        assert_eq!(http.payload(first.post("1")), "ok");
        assert_eq!(http.payload(second.post("1")), "ok");
    });
}

#[test]
fn a_connection_is_kept_as_its_request_has_it() {
    on_one_and_two_shards(|server| {
        let (sid, mut http) = server.session();
        let ask = |request: &str| {
            let mut http = Http::new(server);
            let answer = http.ask(request);
            let keeps = answer.keeps();
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
            assert!(keeps || http.has_ended(), "{request}");
            keeps
        };
        let post = sid.post("3");
        assert!(ask(&post));
        assert!(!ask(&post.replace("Host: x\r\n", "Host: x\r\nConnection: close\r\n")));
        assert!(!ask(&post.replace("HTTP/1.1", "HTTP/1.0")));
        assert!(ask(&post.replace("HTTP/1.1\r\n", "HTTP/1.0\r\nConnection: keep-alive\r\n")));
        // Without the slash, as some proxies have it, and on a socket that served something else before.
        assert_eq!(http.payload(post.replace("/socket.io/?", "/socket.io?")), "ok");
        assert_eq!(http.payload(sid.post("1")), "ok");
        let health = http.ask("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(health.status == 200 && !health.keeps() && http.has_ended(), "{health:?}");
    });
}

#[test]
fn a_body_comes_in_chunks_or_byte_by_byte_and_never_in_doubt() {
    on_one_and_two_shards(|server| {
        let (sid, mut http) = server.session();
        let lines = |lines: &str| format!("POST {} HTTP/1.1\r\nHost: x\r\n{lines}\r\n", sid.path());
        let chunked =
            format!("{}1;a=b\r\n3\r\n2\r\n\u{1e}3\r\n0\r\nX: y\r\n\r\n", lines("Transfer-Encoding: chunked\r\n"));
        for request in [chunked.clone(), sid.post("3\u{1e}3")] {
            let mut slow = Http::new(server);
            slow.stream.set_nodelay(true).unwrap();
            request.as_bytes().iter().for_each(|byte| slow.send([*byte]));
            assert_eq!(slow.answer().unwrap().body, "ok");
        }
        assert_eq!(http.payload(chunked), "ok");
        http.send(lines("Expect: 100-continue\r\nContent-Length: 3\r\n"));
        assert_eq!(http.answer().unwrap().status, 100);
        assert_eq!(http.payload("3\u{1e}3"), "ok");
        for doubtful in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: identity\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Host: y\r\nContent-Length: 1\r\n",
            "Expect: a miracle\r\nContent-Length: 1\r\n",
        ] {
            let mut http = Http::new(server);
            let answer = http.ask([lines(doubtful), "3".into(), sid.post("1")].concat());
            assert_eq!((answer.status, answer.keeps()), (400, false), "{doubtful}");
            assert_eq!(answer.body, r#"{"code":3,"message":"Bad request"}"#);
            assert!(http.has_ended(), "{doubtful}");
        }
        let mut http = Http::new(server);
        let with_body = sid.get().replace("Host: x\r\n", "Host: x\r\nContent-Length: 3\r\n") + "abc";
        assert_eq!(http.ask(with_body).status, 400);
        // All of it was about one connection each; the session lives.
        assert_eq!(Http::new(server).payload(sid.post("1")), "ok");
    });
}

#[test]
fn what_is_asked_wrongly_is_told_what_nodes_engine_tells() {
    on_one_and_two_shards(|server| {
        let (sid, mut http) = server.session();
        // One connection asks all of it: a mistake without a body costs it nothing.
        let mut asker = Http::new(server);
        let mut ask = |line: &str| {
            let answer = asker.ask(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
            assert!(answer.keeps(), "{line}");
            (answer.status, serde_json::from_str::<Value>(&answer.body).unwrap()["code"].as_u64().unwrap())
        };
        let unknown = |shard: u8| {
            let sid = ringroom::wire::engine::Sid { shard, slot: 0, generation: 0, secret: [7; 12] };
            format!("GET {POLLING}&sid={}", sid.text())
        };
        for (line, code) in [
            ("GET /socket.io/", 0),
            ("GET /socket.io/?EIO=4&transport=carrier-pigeon", 0),
            ("GET /socket.io/?EIO=3&transport=polling", 5),
            ("GET /socket.io/?transport=polling", 5),
            ("GET /socket.io/?EIO=3&transport=websocket", 5),
            ("GET /socket.io/?EIO=4&transport=websocket", 3),
            (&format!("GET {POLLING}&sid=nobody"), 1),
            (&format!("GET {POLLING}&sid="), 1),
            (&unknown(0), 1),
            (&unknown(1), 1),
            (&unknown(200), 1),
            (&format!("POST {POLLING}"), 2),
            (&format!("PUT {POLLING}"), 2),
            (&format!("DELETE {}", sid.path()), 2),
        ] {
            assert_eq!(ask(line), (400, code), "{line}");
        }
        let unknown = websocket_request("/socket.io/?EIO=4&transport=websocket&sid=nobody");
        assert_eq!(Http::new(server).ask(unknown).status, 400);
        assert_eq!(http.payload(sid.post("1")), "ok");
        let gone = Http::new(server).ask(sid.get());
        assert_eq!((gone.status, gone.body.as_str()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
        assert_eq!(http.ask(sid.post("3")).status, 400);
    });
}

#[test]
fn pages_read_their_answers_where_they_may() {
    on_each_driver(|driver| {
        for (origins, is_known) in [("https://app.example", true), ("any", false)] {
            let server = Server::start(driver, 2, &[("RINGROOM_NETWORK__ORIGINS", origins)]);
            let (sid, _http) = server.session();
            let of_page = |request: &str| {
                let answer = Http::new(&server).ask(request.replace("Host: x\r\n", &format!("Host: x\r\n{PAGE}")));
                assert!(answer.has("Access-Control-Allow-Origin: https://app.example"), "{answer:?}");
                assert!(answer.has("Vary: Origin"), "{answer:?}");
                assert_eq!(answer.has("Access-Control-Allow-Credentials: true"), is_known, "{answer:?}");
                answer
            };
            assert_eq!(of_page(&sid.post("3")).status, 200);
            assert_eq!(of_page(&format!("GET {POLLING} HTTP/1.1\r\nHost: x\r\n\r\n")).status, 200);
            assert_eq!(of_page(&format!("GET {POLLING}&sid=nobody HTTP/1.1\r\nHost: x\r\n\r\n")).status, 400);
            let preflight = format!(
                "OPTIONS {} HTTP/1.1\r\nHost: x\r\nAccess-Control-Request-Method: POST\r\n\
                 Access-Control-Request-Headers: content-type\r\n\r\n",
                sid.path()
            );
            let preflight = of_page(&preflight);
            assert!(preflight.status == 204 && preflight.keeps(), "{preflight:?}");
            assert!(preflight.has("Access-Control-Allow-Methods: GET, POST"), "{preflight:?}");
            assert!(preflight.has("Access-Control-Allow-Headers: content-type"), "{preflight:?}");
            assert!(preflight.has("Access-Control-Max-Age: 600"), "{preflight:?}");
            let cookie = format!("GET {POLLING} HTTP/1.1\r\nHost: x\r\nCookie: token={}\r\n\r\n", token("alice"));
            assert_eq!(of_page(&cookie).status, if is_known { 200 } else { 403 }, "a cookie comes from known pages");
            let foreign = sid.post("3").replace("Host: x\r\n", "Host: x\r\nOrigin: https://evil.example\r\n");
            let answer = Http::new(&server).ask(foreign);
            assert_eq!(answer.status, if is_known { 403 } else { 200 }, "{answer:?}");
            assert!(is_known != answer.head.contains("Access-Control"), "{answer:?}");
        }
    });
}

#[test]
fn a_get_that_is_given_up_or_asked_twice_ends_the_session() {
    on_one_and_two_shards(|server| {
        let parked = |http: &mut Http, sid: &Sid, polls: u64| {
            http.send(sid.get());
            server.until(|total| total["edge"]["engine_polls"] == polls);
        };
        let (sid, mut http) = server.session();
        parked(&mut http, &sid, 2);
        drop(http);
        server.until(|total| total["core"]["connections"] == 0);
        assert_eq!(Http::new(server).ask(sid.get()).status, 400);
        let (sid, mut http) = server.session();
        parked(&mut http, &sid, 4);
        assert_eq!(Http::new(server).ask(sid.get()).status, 400);
        assert_eq!(http.answer().unwrap().body, "1");
        assert_eq!(http.ask(sid.get()).status, 400);
        // One that says goodbye.
        let (sid, mut http) = server.session();
        parked(&mut http, &sid, 7);
        assert_eq!(Http::new(server).payload(sid.post("1")), "ok");
        assert_eq!(http.answer().unwrap().body, "6");
    });
}

#[test]
fn a_post_that_breaks_the_rules_ends_what_it_must() {
    on_one_and_two_shards(|server| {
        let unfinished = |sid: &Sid| sid.post("3").replace("Length: 1", "Length: 9");
        // Given up half-way: what it brought is lost, and the client must know.
        let (sid, _http) = server.session();
        let mut half = Http::new(server);
        half.send(unfinished(&sid));
        server.until(|total| total["edge"]["requesters_now"] == 2);
        drop(half);
        server.until(|total| total["core"]["connections"] == 0);
        // Two at a time.
        let (sid, mut http) = server.session();
        let mut half = Http::new(server);
        half.send(unfinished(&sid));
        let second = loop {
            // Until the first has begun, this one is a good one.
            let answer = http.ask(sid.post("3"));
            if answer.status != 200 {
                break answer;
            }
        };
        assert_eq!((second.status, second.keeps()), (400, false));
        server.until(|total| total["core"]["connections"] == 0);
        half.send("\u{1e}3\u{1e}3\u{1e}3\u{1e}3");
        assert_eq!(half.answer().unwrap().status, 400);
        // No packets at all.
        for body in ["", "hello", "0{}", "3\u{1e}", "b!"] {
            let (sid, mut http) = server.session();
            assert_eq!(http.ask(sid.post(body)).status, 400, "{body:?}");
            assert_eq!(Http::new(server).ask(sid.get()).status, 400);
        }
    });
}

#[test]
fn bodies_that_are_too_large_or_too_slow_are_refused_and_their_sessions_live() {
    on_each_driver(|driver| {
        let limits = [("RINGROOM_SOCKETIO__PAYLOAD_BYTES", "2000"), ("RINGROOM_LIMITS__HANDSHAKE_MS", "300")];
        let server = Server::start(driver, 2, &limits);
        let (sid, http) = server.session();
        drop(http);
        let fits = sid.post(&format!("3{}", "x".repeat(1_999)));
        assert_eq!(Http::new(&server).payload(fits), "ok");
        // Refused by its head alone.
        let too_large = sid.post("").replace("Content-Length: 0", "Content-Length: 2001");
        assert_eq!(Http::new(&server).ask(too_large).status, 413);
        let chunked = sid.post("").replace("Content-Length: 0", "Transfer-Encoding: chunked") + "7d1\r\n3";
        assert_eq!(Http::new(&server).ask(chunked).status, 413);
        let slow = sid.post("3").replace("Length: 1", "Length: 2");
        let mut http = Http::new(&server);
        let answer = http.ask(slow);
        assert!(answer.status == 408 && http.has_ended(), "{answer:?}");
        // A head that does not end, on a connection that is kept.
        let mut http = Http::new(&server);
        assert_eq!(http.payload(sid.post("3")), "ok");
        http.send("POST /socket");
        assert!(http.has_ended());
        assert_eq!(Http::new(&server).payload(sid.post("1")), "ok");
        server.until(|total| {
            let refused = &total["edge"]["refused"];
            refused["engine_too_large"] == 2 && refused["engine_time"] == 1
        });
        server.is_empty();
    });
}

#[test]
fn an_answer_that_its_socket_does_not_take_at_once_comes_whole() {
    on_one_and_two_shards(|server| {
        let mut bob = server.connect("bob");
        bob.join("chat:1");
        let (sid, http) = server.member("alice", "chat:1");
        let narrow = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        narrow.set_recv_buffer_size(4_096).unwrap();
        narrow.connect(&server.data.into()).unwrap();
        let mut narrow = Http { stream: Patient::of(narrow.into(), PATIENCE), ahead: Vec::new(), polls: 0 };
        let text = "x".repeat(900_000);
        bob.publish("chat:1", "chat", json!(text));
        narrow.send([sid.get(), sid.post("3")].concat());
        server.until(|total| total["edge"]["engine_polls"] == http.polls + 1);
        let payload = narrow.answer().unwrap().body;
        assert!(payload.len() > 900_000 && payload.starts_with(r#"42["chat","xxx"#), "{} bytes", payload.len());
        assert_eq!(narrow.answer().unwrap().body, "ok");
        // Whoever reads nothing more loses its answer, and so its session.
        bob.publish("chat:1", "chat", json!(text));
        narrow.send(sid.get());
        server.until(|total| total["edge"]["engine_polls"] == http.polls + 2);
        let mut some = [0; 1_000];
        narrow.stream.read_exact(&mut some).unwrap();
        drop((narrow, http));
        server.until(|total| total["core"]["connections"] == 1);
    });
}

/// A WebSocket by hand: it says what it likes when it likes.
fn websocket(http: Http) -> WebSocket<Patient> {
    let Http { stream, ahead, .. } = http;
    WebSocket::from_partially_read(stream, ahead, tungstenite::protocol::Role::Client, None)
}

fn text(socket: &mut WebSocket<Patient>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.to_string(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// The code of the close frame that comes.
fn closed(mut socket: WebSocket<Patient>) -> u16 {
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => return u16::from(frame.unwrap().code),
            Ok(_) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// A WebSocket that comes for nothing is closed, with this code.
fn upgrade_refused(server: &Server, sid: &Sid) -> u16 {
    let mut http = Http::new(server);
    assert_eq!(http.ask(sid.upgrade()).status, 101);
    closed(websocket(http))
}

#[test]
fn nothing_is_lost_or_doubled_when_a_websocket_takes_over() {
    const EACH: usize = 150;
    on_one_and_two_shards(|server| {
        for round in 0..4 {
            let (sid, mut http) = server.member("alice", "chat:1");
            let mut bob = server.connect("bob");
            bob.join("chat:1");
            let mut seen = Vec::new();
            let mut publish = |numbers: std::ops::Range<usize>| {
                numbers.for_each(|n| {
                    bob.send(
                        "room:publish",
                        json!({"room": "chat:1", "event": "chat", "data": n, "exclude_self": true}),
                    );
                });
            };
            publish(0..EACH / 3);
            let payload = http.payload(sid.get());
            seen.extend(payload.split('\u{1e}').filter_map(|packet| number(packet, "chat")));
            let mut probe = Http::new(server);
            let switched = probe.ask(sid.upgrade());
            assert_eq!(switched.status, 101, "{switched:?}");
            let mut probe = websocket(probe);
            probe.send(Message::text("2probe")).unwrap();
            publish(EACH / 3..2 * EACH / 3);
            assert_eq!(text(&mut probe), "3probe");
            // Polls are answered at once from here on.
            assert_eq!(http.payload(sid.get()), "6");
            // The upgrade and what comes behind it share a segment.
            let behind = [text_frame("5"), text_frame(r#"426["room:info",{"room":"chat:1"}]"#)].concat();
            probe.get_mut().write_all(&behind).unwrap();
            publish(2 * EACH / 3..EACH);
            let mut is_answered = false;
            while seen.len() < EACH || !is_answered {
                let packet = text(&mut probe);
                is_answered |= packet.starts_with("436[");
                seen.extend(number(&packet, "chat"));
            }
            assert_eq!(seen, (0..EACH).collect::<Vec<_>>(), "round {round}");
            assert_eq!(http.ask(sid.get()).status, 400, "its WebSocket alone speaks for it");
            assert_eq!(Http::new(server).ask(sid.post("3")).status, 400);
            assert_eq!(upgrade_refused(server, &sid), 4400);
            probe.send(Message::text(r#"427["room:info",{"room":"chat:1"}]"#)).unwrap();
            while !text(&mut probe).starts_with("437[") {}
            drop(probe);
            server.until(|total| total["core"]["connections"] == 1);
        }
        server.until(|total| total["core"]["upgrades"] == 4);
    });
}

#[test]
fn a_probe_that_fails_leaves_the_polling_alone() {
    on_one_and_two_shards(|server| {
        let (sid, mut http) = server.session();
        for nonsense in ["hello", "5", "4hello"] {
            let mut probe = Http::new(server);
            assert_eq!(probe.ask(sid.upgrade()).status, 101);
            assert_eq!(upgrade_refused(server, &sid), 4400, "one at a time");
            let mut probe = websocket(probe);
            probe.send(Message::text(nonsense)).unwrap();
            assert_eq!(closed(probe), 4400);
            server.until(|total| total["core"]["connections"] == 1);
            assert_eq!(http.payload(sid.post("3")), "ok");
        }
        assert_eq!(http.payload(sid.post("1")), "ok");
    });
}

#[test]
fn a_websocket_of_its_own_needs_no_polling() {
    on_one_and_two_shards(|server| {
        let mut http = Http::new(server);
        let switched =
            http.ask(websocket_request(&format!("/socket.io/?EIO=4&transport=websocket&token={}", token("alice"))));
        assert_eq!(switched.status, 101);
        let mut socket = websocket(http);
        let open: Value = serde_json::from_str(&text(&mut socket)[1..]).unwrap();
        assert_eq!(open["upgrades"], json!([]));
        socket.send(Message::text("40")).unwrap();
        assert!(text(&mut socket).starts_with("40{"));
        let sid = Sid(open["sid"].as_str().unwrap().to_owned());
        assert_eq!(Http::new(server).ask(sid.get()).status, 400, "it cannot be polled");
        assert_eq!(upgrade_refused(server, &sid), 4400, "nor taken over");
        server.until(|total| total["edge"]["connections_now"] == 1);
        socket.send(Message::text("1")).unwrap();
        while socket.read().is_ok() {}
    });
}

#[test]
fn limits_of_users_and_addresses_hold_for_sessions() {
    on_each_driver(|driver| {
        let limits = [
            ("RINGROOM_LIMITS__CONNS_PER_USER", "1"),
            ("RINGROOM_NETWORK__CONNS_PER_ADDRESS", "3"),
            ("RINGROOM_NETWORK__FAILURES", "2"),
            ("RINGROOM_NETWORK__UNLIMITED", ""),
        ];
        let server = Server::start(driver, 2, &limits);
        let (sid, mut http) = server.session();
        let connect = |namespace: &str, token: &str| format!(r#"40{namespace}{{"token":"{token}"}}"#);
        assert_eq!(http.payload(sid.post(&connect("", &token("alice")))), "ok");
        http.collect(&sid, "40{");
        // The same user in another namespace is another connection of it.
        assert_eq!(http.payload(sid.post(&connect("/realtime,", &token("alice")))), "ok");
        let refused = http.collect(&sid, "44/realtime,");
        assert!(refused.contains("rate_limited") && refused.contains("retry_after_ms"), "{refused}");
        assert_eq!(http.payload(sid.post(&connect("/realtime,", &token("bob")))), "ok");
        http.collect(&sid, "40/realtime,{");
        assert_eq!(http.payload(sid.post("41/realtime,")), "ok");
        assert_eq!(http.payload(sid.post(&connect("/realtime,", &token("bob")))), "ok");
        http.collect(&sid, "40/realtime,{");
        // Two more sessions of this address, and no third.
        let others = [server.session(), server.session()];
        let open = format!("GET {POLLING} HTTP/1.1\r\nHost: x\r\n\r\n");
        let full = Http::new(&server).ask(&open);
        assert!(full.status == 429 && full.body.contains("network.conns_per_address"), "{full:?}");
        // An upgrade is not one more.
        let (other, _http) = &others[0];
        let mut probe = Http::new(&server);
        assert_eq!(probe.ask(other.upgrade()).status, 101);
        let mut probe = websocket(probe);
        probe.send(Message::text("2probe")).unwrap();
        assert_eq!(text(&mut probe), "3probe");
        probe.send(Message::text("5")).unwrap();
        server.until(|total| total["core"]["upgrades"] == 1);
        let (third, mut http) = server_of(&others[1]);
        assert_eq!(http.payload(third.post("1")), "ok");
        server.until(|total| total["edge"]["sessions_polling_now"] == 1);
        let (bad, mut http) = server.session();
        assert_eq!(Http::new(&server).ask(&open).status, 429, "the upgraded one still counts");
        for _ in 0..2 {
            assert_eq!(http.payload(bad.post(&connect("", "no.good.token"))), "ok");
            http.collect(&bad, "44{");
        }
        assert_eq!(http.payload(bad.post("1")), "ok");
        let failed = Http::new(&server).ask(&open);
        assert!(failed.status == 429 && failed.body.contains("network.failures"), "{failed:?}");
    });
}

/// The session with a connection of its own.
fn server_of(session: &(Sid, Http)) -> (Sid, Http) {
    let stream = Patient::of(session.1.stream.try_clone().unwrap(), PATIENCE);
    (session.0.clone(), Http { stream, ahead: Vec::new(), polls: 0 })
}

#[test]
fn crowds_that_poll_are_answered_and_leave_nothing_behind() {
    const CROWD: usize = 60;
    on_one_and_two_shards(|server| {
        let mut crowd: Vec<(Sid, Http)> =
            (0..CROWD).map(|user| server.member(&format!("user{user}"), "chat:1")).collect();
        let mut bob = server.connect("bob");
        bob.join("chat:1");
        for n in 0..20 {
            crowd.iter_mut().for_each(|(sid, http)| http.send(sid.get()));
            bob.publish("chat:1", "chat", json!(n));
            for (sid, http) in &mut crowd {
                // The first ones bring who else came.
                let first = http.answer().unwrap().body;
                let is_it = |packet: &str| number(packet, "chat").is_some_and(|found| found == n);
                if !first.split('\u{1e}').any(is_it) {
                    assert!(is_it(&http.collect(sid, r#"42["chat""#)), "{n} is next, not in {first}");
                }
            }
        }
        server.until(|total| total["edge"]["sessions_polling_now"] == CROWD);
        crowd.iter_mut().for_each(|(sid, http)| assert_eq!(http.payload(sid.post("1")), "ok"));
    });
}

#[test]
fn polling_clients_are_sent_away_by_a_drain() {
    on_each_driver(|driver| {
        let mut server = Server::start(driver, 2, &[("RINGROOM_DRAIN__SPREAD_MS", "500")]);
        let mut clients: Vec<(Sid, Http)> = (0..6).map(|_| server.session()).collect();
        clients.iter_mut().for_each(|(sid, http)| http.send(sid.get()));
        let polls = clients.iter().map(|(_, http)| http.polls + 1).sum::<u64>();
        server.until(|total| total["edge"]["engine_polls"] == polls);
        server.signal("-TERM");
        for (_, http) in &mut clients {
            // No goodbye, which would keep some clients away.
            assert_eq!(http.answer().expect("an answer").status, 400);
        }
        drop(clients);
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    });
}
