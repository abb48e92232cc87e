use super::*;
use crate::base::limits::POSTED_PER_TURN;
use crate::io::edge::sample::{ENGINE, begin_to_drain, counters, edge};
use crate::io::egress::Direct;
use crate::io::runtime::Driver;
use crate::io::socket;
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

fn come(edge: &Edge) -> UnixStream {
    let (ours, peer) = UnixStream::pair().unwrap();
    peer.set_nonblocking(true).unwrap();
    handshake::begin(edge, ours.into(), Ipv4Addr::LOCALHOST.into());
    peer
}

/// Says something, and has the edge do what there is to do.
fn say(edge: &Edge, peer: &UnixStream, bytes: impl AsRef<[u8]>) {
    socket::send(peer.as_raw_fd(), bytes.as_ref()).unwrap();
    turn(edge);
}

fn turn(edge: &Edge) {
    let mut egress = Direct::default();
    edge.look();
    // Twice: what a flush brings is heard too.
    for _ in 0..2 {
        while edge.read() | handshake::hear_some(edge) | hear_some(edge) | edge.flush(&mut egress) {}
    }
}

/// What came by now.
fn heard(peer: &mut UnixStream) -> String {
    let mut heard = Vec::new();
    let _ = peer.read_to_end(&mut heard);
    String::from_utf8(heard).unwrap()
}

fn has_ended(peer: &mut UnixStream) -> bool {
    matches!(peer.read(&mut [0; 1]), Ok(0))
}

fn path(sid: &str) -> String {
    format!("{ENGINE}?EIO=4&transport=polling{}{sid}", if sid.is_empty() { "" } else { "&sid=" })
}

fn get(sid: &str) -> String {
    format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", path(sid))
}

fn post(sid: &str, body: &str) -> String {
    format!("POST {} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", path(sid), body.len())
}

fn session(edge: &Edge) -> (String, UnixStream) {
    let mut peer = come(edge);
    say(edge, &peer, get(""));
    let open = heard(&mut peer);
    let (_, rest) = open.split_once(r#"0{"sid":""#).unwrap_or_else(|| panic!("{open}"));
    (rest[..28].to_owned(), peer)
}

#[test]
fn a_session_is_opened_told_in_a_cookie_and_echoes() {
    let edge = edge(Driver::Epoll);
    let mut peer = come(&edge);
    say(&edge, &peer, get(""));
    let open = heard(&mut peer);
    let sid = open.split_once(r#"0{"sid":""#).expect("an open packet").1[..28].to_owned();
    assert!(open.contains(&format!("\r\nSet-Cookie: io={sid}; Path=/; HttpOnly; SameSite=Lax\r\n")), "{open}");
    say(&edge, &peer, post(&sid, "4hello\u{1e}bAQID"));
    assert!(heard(&mut peer).ends_with("\r\n\r\nok"));
    say(&edge, &peer, get(&sid));
    let echo = heard(&mut peer);
    assert!(echo.ends_with("\r\n\r\n4hello\u{1e}bAQID") && !echo.contains("Set-Cookie"), "{echo}");
    assert_eq!((counters(&edge).sessions_polling_now, edge.regulars.borrow().len()), (1, 1));
    // What is said while nobody asks is there for who asks next.
    say(&edge, &peer, get(&sid));
    assert_eq!(heard(&mut peer), "");
    let second = come(&edge);
    say(&edge, &second, post(&sid, "4again"));
    assert!(heard(&mut peer).ends_with("\r\n\r\n4again"));
    drop(second);
    say(&edge, &peer, post(&sid, "1"));
    assert_eq!(heard(&mut peer), "", "a GET may be under way");
    while edge.report().core.connections > 0 {
        std::thread::sleep(crate::base::wheel::TICK);
        edge.step(Input::Tick);
    }
    turn(&edge);
    assert!(heard(&mut peer).ends_with("\r\n\r\nok"));
    assert_eq!(counters(&edge).writes, 6, "one for each answer");
    assert_eq!((counters(&edge).sessions_polling_now, edge.report().core.connections), (0, 0));
}

#[test]
fn a_session_that_is_sent_away_brings_nothing_more_and_has_its_last_words() {
    let edge = edge(Driver::Epoll);
    let (sid, mut peer) = session(&edge);
    say(&edge, &peer, post(&sid, "4bye\u{1e}4too late"));
    assert!(heard(&mut peer).ends_with("\r\n\r\nok"));
    let mut second = come(&edge);
    say(&edge, &second, post(&sid, "3"));
    assert!(heard(&mut second).ends_with(r#"{"code":1,"message":"Session ID unknown"}"#));
    say(&edge, &peer, get(&sid));
    assert!(heard(&mut peer).ends_with("\r\n\r\n1"));
    say(&edge, &peer, get(&sid));
    assert!(heard(&mut peer).starts_with("HTTP/1.1 400 "));
    assert_eq!((counters(&edge).sessions_polling_now, edge.report().core.connections), (0, 0));
}

#[test]
fn many_packets_of_one_post_let_others_have_their_turn() {
    let edge = edge(Driver::Epoll);
    let (sid, mut peer) = session(&edge);
    let packets = vec!["3"; 3 * POSTED_PER_TURN].join("\u{1e}");
    socket::send(peer.as_raw_fd(), post(&sid, &packets).as_bytes()).unwrap();
    edge.look();
    let mut turns = 1;
    while hear_some(&edge) {
        turns += 1;
    }
    assert_eq!(turns, 3);
    assert!(heard(&mut peer).ends_with("ok"));
    assert_eq!(counters(&edge).engine_posts, 1);
}

#[test]
fn a_post_waits_with_what_the_core_does_not_want_yet_and_goes_on() {
    let edge = edge(Driver::Epoll);
    let (sid, mut peer) = session(&edge);
    // Each is answered with more than is to wait for a client that does not read.
    say(&edge, &peer, post(&sid, "490000\u{1e}490000\u{1e}490000\u{1e}490000\u{1e}490000\u{1e}490000\u{1e}490000"));
    assert_eq!(heard(&mut peer), "", "it is not answered while any of it waits");
    let mut reader = come(&edge);
    let mut brought = 0;
    while brought < 7 {
        say(&edge, &reader, get(&sid));
        let payload = heard(&mut reader);
        assert!(payload.starts_with("HTTP/1.1 200 "), "{payload:.200}");
        brought += payload.matches("4x").count();
    }
    assert!(heard(&mut peer).ends_with("ok"));
}

#[test]
fn a_post_that_waits_for_the_core_is_refused_nothing_when_its_session_ends() {
    let edge = edge(Driver::Epoll);
    let (sid, mut peer) = session(&edge);
    say(&edge, &peer, post(&sid, &["490000"; 8].join("\u{1e}")));
    let mut second = come(&edge);
    say(&edge, &second, post(&sid, "3"));
    assert!(heard(&mut second).starts_with("HTTP/1.1 400 "), "two at a time");
    assert_eq!(edge.report().core.connections, 0);
    assert!(heard(&mut peer).contains("HTTP/1.1 200 OK"), "what came was heard in part, and that it came is true");
}

#[test]
fn an_answer_that_its_socket_does_not_take_is_written_on_and_nobody_else_is_given_one() {
    let edge = edge(Driver::Epoll);
    let (sid, mut peer) = session(&edge);
    socket2::SockRef::from(&peer).set_recv_buffer_size(1).unwrap();
    let big = post(&sid, "4900000");
    say(&edge, &peer, &big);
    assert!(heard(&mut peer).ends_with("ok"));
    say(&edge, &peer, get(&sid) + &post(&sid, "3"));
    let mut other = come(&edge);
    say(&edge, &other, get(&sid));
    let refused = heard(&mut other);
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let mut all = String::new();
    // What came behind it finds no session any more.
    while !all.ends_with(r#""Session ID unknown"}"#) {
        let some = heard(&mut peer);
        assert!(!some.is_empty(), "{} bytes, and then nothing", all.len());
        all.push_str(&some);
        turn(&edge);
    }
    assert!(all.len() > 900_000, "the first answer is whole");
    assert_eq!(edge.report().core.connections, 0);
}

#[test]
fn where_descriptors_are_few_who_is_idle_goes_first_and_who_waits_for_packets_stays() {
    let mut edge = edge(Driver::Epoll);
    let (sid, mut parked) = session(&edge);
    say(&edge, &parked, get(&sid));
    let (_, mut idle) = session(&edge);
    let mut silent = come(&edge);
    let scarce = crate::io::process::Descriptors { few_from: 0, last_from: 0 };
    std::rc::Rc::get_mut(&mut edge).expect("nobody else has it").descriptors = scarce;
    let mut newest = come(&edge);
    assert!(has_ended(&mut idle) && !has_ended(&mut silent));
    let second = come(&edge);
    assert!(has_ended(&mut silent) && !has_ended(&mut newest));
    drop(second);
    assert!(!has_ended(&mut parked));
    assert_eq!(counters(&edge).sessions_polling_now, 2, "who is idle loses its socket and no session");
}

#[test]
fn a_request_for_another_shard_goes_there_whole_or_is_told_that_there_is_too_much() {
    use crate::base::limits::CONTROLS_MAX;
    use crate::io::bell::Bell;
    use crate::io::control::door;
    let mut edge = edge(Driver::Epoll);
    let (other, controls) = door(std::sync::Arc::new(Bell::new().unwrap()));
    let doors = std::sync::Arc::new([edge.doors[0].clone(), other]);
    std::rc::Rc::get_mut(&mut edge).expect("nobody else has it").doors = doors;
    let sid = crate::wire::engine::Sid { shard: 1, slot: 0, generation: 0, secret: [0; 12] }.text();
    let request = post(&sid, "4whole").replace("\r\n\r\n", "\r\nOrigin: http://h\r\n\r\n");
    let both = request.clone() + &get(&sid);
    let mut first = come(&edge);
    say(&edge, &first, &both);
    let Some(Control::Asks(asking)) = controls.take() else { panic!("it is for the other shard") };
    assert_eq!(String::from_utf8(asking.bytes).unwrap(), both);
    assert_eq!((heard(&mut first), edge.regulars.borrow().len()), (String::new(), 0));
    (0..CONTROLS_MAX).for_each(|_| assert!(edge.doors[1].try_leave(Control::Stop).is_ok()));
    let mut second = come(&edge);
    say(&edge, &second, &request);
    let refused = heard(&mut second);
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Access-Control-Allow-Origin"), "{refused}");
    assert_eq!((counters(&edge).requests_out, counters(&edge).refused["engine_full"]), (1, 1));
}

#[test]
fn a_socket_that_polled_may_ask_for_something_else() {
    let edge = edge(Driver::Epoll);
    let (sid, mut peer) = session(&edge);
    say(&edge, &peer, post(&sid, "3") + "GET /health HTTP/1.1\r\n\r\n");
    let both = heard(&mut peer);
    assert!(both.contains("ok") && both.ends_with(r#"{"status":"ok"}"#), "{both}");
    assert_eq!((edge.regulars.borrow().len(), edge.waiting.borrow().len()), (0, 1));
}

#[test]
fn sessions_are_no_way_around_the_attempts_of_an_address() {
    let edge = edge(Driver::Epoll);
    let mut entrance = crate::io::entrance::Entrance::clone(&edge.entrance.borrow());
    entrance.attempts = Some(crate::io::callers::Rate { number: 3, per: std::time::Duration::from_secs(3_600) });
    *edge.entrance.borrow_mut() = std::sync::Arc::new(entrance);
    // One attempt was its socket.
    let mut peer = come(&edge);
    for expected in ["200", "200", "200", "429"] {
        say(&edge, &peer, get(""));
        let answer = heard(&mut peer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{expected}: {answer}");
    }
}

#[test]
fn whoever_names_no_host_or_two_is_refused() {
    let edge = edge(Driver::Epoll);
    for (request, status) in [
        (get(""), 200),
        (get("").replace("Host: h\r\n", "Host: h\r\nHost: h\r\n"), 400),
        (get("").replace("Host: h\r\n", ""), 400),
        (get("").replace("1.1\r\nHost: h\r\n", "1.0\r\n"), 200),
    ] {
        let mut peer = come(&edge);
        say(&edge, &peer, request.clone());
        let answer = heard(&mut peer);
        assert!(answer.split(' ').nth(1) == Some(&status.to_string()), "{request}: {answer}");
    }
}

#[test]
fn whoever_was_sent_back_is_not_taken_in_by_a_shard_that_is_still_to_be_told() {
    let edge = edge(Driver::Epoll);
    let (sid, mut peer) = session(&edge);
    begin_to_drain(&edge);
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for request in [
        get(""),
        get("").replace("polling", "websocket").replace("\r\n\r\n", &format!("\r\n{websocket}")),
        format!("GET /ws HTTP/1.1\r\nHost: h\r\n{websocket}"),
    ] {
        let mut newcomer = come(&edge);
        say(&edge, &newcomer, &request);
        let answer = heard(&mut newcomer);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{request}: {answer}");
    }
    assert_eq!(counters(&edge).refused["draining"], 3);
    // Who is not yet asked to go is served as before.
    say(&edge, &peer, post(&sid, "4hello"));
    assert!(heard(&mut peer).ends_with("ok"));
}
