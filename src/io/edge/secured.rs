//! Clients that speak TLS, from their first byte to their last, through each egress.

use super::Edge;
use super::sample::{CLOSE, ENGINE, PONG, SECRET, counters, edge, edge_tuned, publish};
use crate::admission::token::{Claims, sign_hs256};
use crate::base::limits::TLS_HANDSHAKES_PER_TURN;
use crate::io::egress::{Direct, Egress, Sent};
use crate::io::engine;
use crate::io::handshake;
use crate::io::ring::Ring;
use crate::io::runtime::Driver;
use crate::io::stream::Stream;
use crate::io::tls::Served;
use crate::io::tls::sample::{Authority, Client, served};
use crate::io::tls::settings::{Pair, Settings, Tickets};
use crate::io::tuning::Tuning;
use crate::kernel::ids::ConnId;
use crate::shard::Input;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// Whichever egress a test runs with.
enum Either {
    Direct(Direct),
    Ring(Box<Ring>),
}

impl Egress for Either {
    unsafe fn offer(&mut self, conn: ConnId, fd: RawFd, pieces: &[&[u8]]) {
        // SAFETY: the caller's promise is handed on.
        unsafe {
            match self {
                Either::Direct(direct) => direct.offer(conn, fd, pieces),
                Either::Ring(ring) => ring.offer(conn, fd, pieces),
            }
        }
    }

    fn settle(&mut self, sent: &mut Vec<Sent>) {
        match self {
            Either::Direct(direct) => direct.settle(sent),
            Either::Ring(ring) => ring.settle(sent),
        }
    }
}

/// Runs a test with each egress that can be had here.
fn with_each(test: impl Fn(&mut Either)) {
    test(&mut Either::Direct(Direct::default()));
    if let Ok(ring) = Ring::new(256) {
        test(&mut Either::Ring(Box::new(ring)));
    }
}

struct Guest {
    client: Client,
    socket: UnixStream,
}

impl Guest {
    fn come(edge: &Edge) -> Guest {
        Guest::come_to(edge, served())
    }

    fn come_to(edge: &Edge, served: &Served) -> Guest {
        let (ours, socket) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&ours).set_send_buffer_size(10_000).unwrap();
        handshake::begin(edge, Stream::secured(ours.into(), served), Ipv4Addr::LOCALHOST.into());
        let mut client = Client::any();
        client.tls.set_buffer_limit(None);
        Guest { client, socket }
    }

    fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.client.tls.writer().write_all(bytes.as_ref()).unwrap();
    }

    fn turn(&mut self) {
        self.client.turn(&mut self.socket);
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.client.heard).into_owned()
    }
}

/// What the edge does until nothing is left to do.
fn turn(edge: &Edge, egress: &mut Either) {
    edge.look();
    while edge.read() | handshake::hear_some(edge) | engine::hear_some(edge) {}
    while edge.flush(egress) {}
}

/// Both do what there is to do, until `is_done`.
fn until(edge: &Edge, egress: &mut Either, guest: &mut Guest, is_done: impl Fn(&Guest) -> bool) {
    for _ in 0..2_000 {
        guest.turn();
        turn(edge, egress);
        guest.turn();
        if is_done(guest) {
            return;
        }
    }
    panic!("not done after many turns; the client has heard {} bytes", guest.client.heard.len());
}

fn request(user: &str) -> String {
    let token = sign_hs256(SECRET, &Claims { sub: user.into(), ..Claims::default() });
    format!(
        "GET /ws?token={token} HTTP/1.1\r\nHost: h\r\nOrigin: https://h\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

fn frame(text: &str) -> Vec<u8> {
    assert!(text.len() < 126);
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// A client whose WebSocket is open.
fn open(edge: &Edge, egress: &mut Either, user: &str) -> Guest {
    let mut guest = Guest::come(edge);
    guest.say(request(user));
    until(edge, egress, &mut guest, |guest| guest.heard().contains("\"connected\""));
    guest
}

/// A member of a room, and somebody at another socket who speaks there.
fn joined(edge: &Edge, egress: &mut Either) -> (Guest, ConnId, UnixStream) {
    let mut guest = open(edge, egress, "alice");
    guest.say(frame(r#"{"id":7,"event":"room:join","data":{"room":"chat:1"}}"#));
    until(edge, egress, &mut guest, |guest| guest.heard().contains(r#"{"id":7,"ok":true"#));
    let (publisher, peer) = super::sample::open(edge, "bob");
    super::sample::join(edge, publisher, "chat:1");
    (guest, publisher, peer)
}

#[test]
fn a_client_comes_is_heard_and_parts() {
    with_each(|egress| {
        let edge = edge(Driver::Epoll);
        let mut guest = open(&edge, egress, "alice");
        assert!(guest.heard().starts_with("HTTP/1.1 101 "));
        let come = counters(&edge);
        assert_eq!((come.tls_full["1.3"], come.tls_connections_now, come.connections_now), (1, 1, 1));
        guest.say(frame(r#"{"id":7,"event":"room:join","data":{"room":"chat:1"}}"#));
        until(&edge, egress, &mut guest, |guest| guest.heard().contains(r#"{"id":7,"ok":true"#));
        guest.say(CLOSE);
        until(&edge, egress, &mut guest, |guest| guest.client.is_ended);
        assert!(guest.client.heard.ends_with(&[0x88, 2, 3, 232]), "and its answer came before");
        let gone = counters(&edge);
        assert_eq!((gone.tls_connections_now, gone.connections_now, gone.closed), (0, 0, 1));
    });
}

#[test]
fn a_page_of_this_host_is_one_of_https_only() {
    let edge = edge(Driver::Epoll);
    let egress = &mut Either::Direct(Direct::default());
    let mut guest = Guest::come(&edge);
    guest.say(request("alice").replace("https://h", "http://h"));
    until(&edge, egress, &mut guest, |guest| guest.client.is_ended);
    assert!(guest.heard().starts_with("HTTP/1.1 403 "), "{}", guest.heard());
}

#[test]
fn who_does_not_read_gets_all_later_and_in_order_and_its_goodbye_last() {
    const PUBLISHES: usize = 2_000;
    with_each(|egress| {
        let edge = edge(Driver::Epoll);
        let (mut guest, publisher, _peer) = joined(&edge, egress);
        for nth in 0..PUBLISHES {
            publish(&edge, publisher, "chat:1");
            if nth % 3 == 0 {
                turn(&edge, egress);
            }
        }
        turn(&edge, egress);
        assert!(counters(&edge).writes_short > 0, "its socket was full");
        guest.say(CLOSE);
        until(&edge, egress, &mut guest, |guest| guest.client.is_ended);
        let heard = guest.heard();
        let seqs: Vec<usize> = heard
            .split("\"event\":\"chat\"")
            .skip(1)
            .map(|rest| {
                let seq = rest.split_once("\"seq\":").unwrap().1;
                seq.split(|char: char| !char.is_ascii_digit()).next().unwrap().parse().unwrap()
            })
            .collect();
        assert_eq!(seqs, (1..=PUBLISHES).collect::<Vec<_>>());
        assert!(guest.client.heard.ends_with(&[0x88, 2, 3, 232]));
        assert_eq!(counters(&edge).tls_connections_now, 0);
    });
}

#[test]
fn the_core_is_told_when_a_socket_is_full_and_when_it_takes_bytes_again() {
    with_each(|egress| {
        let edge = edge(Driver::Epoll);
        let (mut guest, publisher, _peer) = joined(&edge, egress);
        while edge.report().core.blocked == 0 {
            publish(&edge, publisher, "chat:1");
            turn(&edge, egress);
        }
        for _ in 0..2 {
            guest.turn();
            turn(&edge, egress);
        }
        assert_eq!(edge.report().core.blocked, 0);
    });
}

#[test]
fn what_came_with_the_request_is_heard_though_the_buffer_was_too_small() {
    let tuning = Tuning { read_bytes_per_turn: 600, ..Tuning::default() };
    let edge = edge_tuned(Driver::Epoll, tuning);
    let egress = &mut Either::Direct(Direct::default());
    let mut guest = Guest::come(&edge);
    // All of it is one record, so that the socket is empty by then.
    let pongs = PONG.repeat(2_000);
    guest.say([request("alice").as_bytes(), &pongs, &frame(r#"{"id":9,"event":"ping"}"#)].concat());
    until(&edge, egress, &mut guest, |guest| guest.heard().contains(r#"{"id":9,"#));
}

#[test]
fn few_handshakes_are_answered_in_one_turn() {
    const CROWD: usize = 3 * TLS_HANDSHAKES_PER_TURN + 1;
    let edge = edge(Driver::Epoll);
    let mut crowd: Vec<Guest> = (0..CROWD).map(|_| Guest::come(&edge)).collect();
    crowd.iter_mut().for_each(Guest::turn);
    edge.look();
    let mut turns = 1;
    while handshake::hear_some(&edge) {
        turns += 1;
    }
    assert_eq!(turns, CROWD.div_ceil(TLS_HANDSHAKES_PER_TURN));
    assert_eq!(counters(&edge).tls_full.len(), 0, "they have not answered yet");
    for _ in 0..2 {
        crowd.iter_mut().for_each(Guest::turn);
    }
    turn(&edge, &mut Either::Direct(Direct::default()));
    assert_eq!(counters(&edge).tls_full["1.3"], CROWD as u64);
}

#[test]
fn a_chain_that_a_socket_does_not_take_at_once_is_sent_bit_by_bit() {
    let edge = edge(Driver::Epoll);
    let egress = &mut Either::Direct(Direct::default());
    let pair = Authority::shared().issue(&["chat.example"]).pair();
    // What is behind the host's own certificate matters to nobody here.
    let behind = (0..100).map(|_| &*Authority::shared().pem).collect::<String>();
    let pair = Pair { certificate: [&pair.certificate, behind.as_bytes()].concat(), ..pair };
    let settings = Settings { certificates: vec![pair], ..Settings::default() };
    let mut guest = Guest::come_to(&edge, &settings.served(&mut Tickets::default()).unwrap());
    guest.turn();
    turn(&edge, egress);
    let key = edge.waiting.borrow().oldest().expect("it waits");
    let (owes, held) =
        edge.waiting.borrow_mut().with(key, |guest| (guest.socket.owes(), guest.socket.bytes_held())).unwrap();
    assert!(owes && held > 0, "its socket took all of it");
    guest.say(request("alice"));
    until(&edge, egress, &mut guest, |guest| guest.heard().contains("\"connected\""));
}

#[test]
fn who_speaks_no_tls_is_counted_and_told() {
    let edge = edge(Driver::Epoll);
    let egress = &mut Either::Direct(Direct::default());
    let mut plain = Guest::come(&edge);
    plain.socket.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
    turn(&edge, egress);
    let mut told = String::new();
    plain.socket.set_nonblocking(false).unwrap();
    std::io::Read::read_to_string(&mut plain.socket, &mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 "), "{told}");
    let counted = counters(&edge);
    assert_eq!((counted.tls_failed["plain_http"], counted.refused["tls"]), (1, 1));
    drop(plain);
    turn(&edge, egress);
    assert!(edge.waiting.borrow().is_empty());
}

#[test]
fn clients_that_poll_do_so_over_tls() {
    with_each(|egress| {
        let edge: Rc<Edge> = edge(Driver::Epoll);
        let mut guest = Guest::come(&edge);
        guest.say(format!("GET {ENGINE}?EIO=4&transport=polling HTTP/1.1\r\nHost: h\r\n\r\n"));
        until(&edge, egress, &mut guest, |guest| guest.heard().contains("\"sid\""));
        let heard = guest.heard();
        let sid = heard.split("\"sid\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        // An answer that is far larger than what its socket takes at once.
        let ask = "490000";
        guest.say(format!(
            "POST {ENGINE}?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{ask}",
            ask.len()
        ));
        guest.say(format!("GET {ENGINE}?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let short = counters(&edge).writes_short;
        until(&edge, egress, &mut guest, |guest| guest.client.heard.ends_with(&[b'x'; 90_000]));
        assert!(counters(&edge).writes_short > short, "it was written bit by bit");
        // And the next request of the same socket.
        guest.say(format!("GET {ENGINE}?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: h\r\n\r\n"));
        guest.turn();
        turn(&edge, egress);
        assert_eq!(edge.regulars.borrow().len(), 1);
        drop(guest);
        turn(&edge, egress);
        assert_eq!(edge.regulars.borrow().len(), 0);
        edge.step(Input::Tick);
    });
}
