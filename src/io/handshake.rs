//! From an accepted socket to a connection of the core, or to an answer and the end: who may come in
//! is judged, the request head read and judged (`routes`), and the socket brought to its user's home. Invariant: a socket costs no more than a bounded head until its token was checked,
//! no cryptography until its address may have it, and is ended when its time is over, whatever its
//! peer does or does not. Where there is no room it is the longest waiting that goes, never the
//! newcomer: a client that means well is through before its turn to go comes.

use crate::admission::identity::Identity;
use crate::base::limits::{
    DISCARD_BYTES_MAX, HALF_OPEN_LOOKED_THROUGH_MAX, HANDSHAKES_PER_TURN, TLS_HANDSHAKES_PER_TURN, USER_CONNS_MOVED_MAX,
};
use crate::base::table::Key;
use crate::io::callers::{Counted, Kind};
use crate::io::control::{Control, Held, Newcomer, Wanted, Welcome};
use crate::io::edge::Edge;
use crate::io::engine;
use crate::io::engine::requests::Asked as AskedOfEngine;
use crate::io::entrance::Peer;
use crate::io::routes::{going_away, judge, refuse};
use crate::io::socket::Shut;
use crate::io::stream::{Got, Stream};
use crate::io::tls::News;
use crate::io::waiting::{Guest, Stage};
use crate::wire::codes::ErrorCode;
use crate::wire::dialect::{DialectId, SSE};
use crate::wire::handshake as wire;
use crate::wire::http;
use crate::wire::proxy::{self, HEADER_BYTES_MAX, Header};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

const JSON: (&str, &str) = ("Content-Type", "application/json");
/// Reads of one answered guest before others have their turn.
const DISCARDS_PER_TURN: usize = 4;
pub const FULL: &str = "this server holds as many connections as it may; try again later";

/// What a proxy is told that does not say whose connection it is.
const NO_HEADER: &str =
    "connections of this proxy have to begin with a header of the PROXY protocol (network.proxy_protocol)";

/// A socket and whether the readiness knows it.
pub struct Arrival {
    pub guest: Guest,
    pub is_watched: bool,
}

impl Arrival {
    /// A socket that somebody else had.
    pub fn of(socket: Stream, peer: Peer, is_watched: bool) -> Arrival {
        Arrival { guest: Guest { socket, peer, stage: Stage::start(), half_open: None }, is_watched }
    }
}

/// What hearing a guest brought.
enum Heard {
    /// Nothing more for now.
    Waits,
    /// There may be more: others first.
    Again,
    /// It ended, or nobody listens to it any longer.
    Ended,
    /// The proxy said whose it is, and nothing behind that was read.
    Named(Header),
    /// What it said is no TLS, and it was told so.
    Garbled,
    Said(Verdict),
}

/// How who may not come in is told.
enum Unwelcome {
    /// Nothing is said to it.
    Silently,
    With(Vec<u8>),
}

/// What becomes of a request.
pub enum Verdict {
    /// These bytes, and the end.
    Answer(Vec<u8>),
    Admit(Box<Admit>),
    /// It is for Engine.IO, or for a stream.
    Engine(Box<AskedOfEngine>),
}

pub struct Admit {
    pub answer: Vec<u8>,
    pub dialect: DialectId,
    pub identity: Identity,
    pub client: IpAddr,
    pub held: Held,
    /// What came behind the head.
    pub rest: Vec<u8>,
    /// What a stream of server-sent events is to begin with.
    pub stream: Option<Box<Wanted>>,
}

impl Admit {
    /// Of a stream, whose client says nothing more.
    pub fn stream(answer: Vec<u8>, (identity, held): (Identity, Held), client: IpAddr, wanted: Wanted) -> Admit {
        Admit { answer, dialect: SSE, identity, client, held, rest: Vec::new(), stream: Some(Box::new(wanted)) }
    }
}

/// Starts the handshake of a socket.
pub fn begin(edge: &Edge, socket: Stream, peer: IpAddr) {
    let entrance = edge.entrance.borrow();
    // A proxy brings everybody: who they are is known once they have spoken.
    let is_proxy = entrance.is_proxy(peer);
    if !is_proxy && !entrance.admits(peer) {
        return edge.refuse_from("network", peer);
    }
    let Some(socket) = make_room(edge, socket) else { return edge.refuse_from("descriptors", peer) };
    let peer = Peer { is_tls: socket.is_secured().then_some(true), ..peer.into() };
    let mut guest = Guest { socket, peer, stage: Stage::start(), half_open: None };
    let has_header = is_proxy && entrance.proxy_protocol;
    drop(entrance);
    let heard = match has_header {
        true => {
            guest.stage = Stage::Header { bytes: Vec::new() };
            hear(edge, &mut guest)
        }
        false => hear_welcome(edge, &mut guest),
    };
    let heard = match heard {
        Heard::Named(header) => {
            name(&mut guest, header);
            hear_welcome(edge, &mut guest)
        }
        heard => heard,
    };
    go_on(edge, Arrival { guest, is_watched: false }, heard);
}

/// Notes what a proxy said of a guest.
fn name(guest: &mut Guest, header: Header) {
    if let Header::Client { address, is_tls } = header {
        guest.peer = Peer { address, is_named: true, is_tls: is_tls.or(guest.peer.is_tls) };
    }
    guest.stage = Stage::start();
}

/// Hears a guest that waits nowhere, if it may come in.
fn hear_welcome(edge: &Edge, guest: &mut Guest) -> Heard {
    match welcome(edge, guest.peer, &mut guest.half_open) {
        // A handshake of TLS costs a lot: it waits for its turn.
        Ok(()) if guest.socket.is_secured() => Heard::Waits,
        // Who has spoken already needs no place to wait.
        Ok(()) => hear(edge, guest),
        Err(Unwelcome::Silently) => Heard::Ended,
        Err(Unwelcome::With(answer)) => Heard::Said(Verdict::Answer(answer)),
    }
}

/// Whether `peer` may come in, before a byte of its request is read. `half_open`: its place among those of its address,
/// from here on.
fn welcome(edge: &Edge, peer: Peer, half_open: &mut Option<Counted>) -> Result<(), Unwelcome> {
    let Peer { address, is_named, .. } = peer;
    let entrance = edge.entrance.borrow();
    if entrance.is_proxy(address) {
        return Ok(());
    }
    let refuse = |reason| {
        edge.refuse_from(reason, address);
        Err(Unwelcome::Silently)
    };
    // Others were asked as they came.
    if is_named && !entrance.admits(address) {
        return refuse("network");
    }
    if !entrance.is_limited(address) {
        return Ok(());
    }
    let now = edge.clock.now().at;
    let caller = edge.callers.address(address, now);
    if let Some(most) = entrance.half_open_max {
        let (counted, before) = edge.callers.count(caller, Kind::HalfOpen);
        *half_open = Some(counted);
        if before >= most {
            // Where none of its address is found here, all wait at other shards, and it is one
            // more than allowed; or too many wait to know.
            let (longest, waiting) = (edge.waiting.borrow().oldest_of(caller), edge.waiting.borrow().len());
            if !let_go(edge, longest, "half_open") && waiting > HALF_OPEN_LOOKED_THROUGH_MAX {
                return refuse("half_open");
            }
        }
    }
    if let Some(rate) = entrance.attempts
        && let Err(retry) = edge.callers.attempt(caller, rate, now)
    {
        edge.refuse_from("attempts", address);
        return Err(Unwelcome::With(wire::limited("network.attempts", retry)));
    }
    Ok(())
}

/// Hears guests that have something to say, a bounded number. Says whether more wait.
pub fn hear_some(edge: &Edge) -> bool {
    let due = edge.waiting.borrow().to_hear().min(HANDSHAKES_PER_TURN);
    let mut answered = 0;
    for _ in 0..due {
        let Some(key) = edge.waiting.borrow_mut().next_to_hear() else { break };
        let heard = edge.waiting.borrow_mut().with(key, |guest| {
            let heard = hear(edge, guest);
            (heard, guest.socket.news(), guest.socket.owes().then(|| edge.watch_guest_for_room(&guest.socket, key)))
        });
        let heard = heard.map(|(heard, news, _)| {
            answered += usize::from(news == Some(News::Answered));
            edge.note_tls(news);
            heard
        });
        match heard {
            None => {}
            Some(Heard::Waits) => {
                let is_full = edge.waiting.borrow().is_full();
                if is_full {
                    let longest = edge.waiting.borrow().oldest();
                    let_go(edge, longest, "handshakes_full");
                }
            }
            Some(Heard::Again) => edge.waiting.borrow_mut().list(key),
            Some(Heard::Named(header)) => come_in(edge, key, header),
            Some(heard @ (Heard::Ended | Heard::Garbled | Heard::Said(_))) => {
                let guest = edge.waiting.borrow_mut().take(key);
                if let Some(guest) = guest {
                    go_on(edge, Arrival { guest, is_watched: true }, heard);
                }
            }
        }
        if answered >= TLS_HANDSHAKES_PER_TURN {
            break;
        }
    }
    edge.waiting.borrow().to_hear() > 0
}

/// Asks whether a guest may come in that waited for its proxy to name it.
fn come_in(edge: &Edge, key: Key, header: Header) {
    let peer = edge.waiting.borrow_mut().with(key, |guest| {
        name(guest, header);
        guest.peer
    });
    let Some(peer) = peer else { return };
    let mut half_open = None;
    let welcome = welcome(edge, peer, &mut half_open);
    edge.waiting.borrow_mut().with(key, |guest| guest.half_open = half_open);
    match welcome {
        Ok(()) => edge.waiting.borrow_mut().list(key),
        Err(unwelcome) => {
            let guest = edge.waiting.borrow_mut().take(key);
            if let (Some(guest), Unwelcome::With(answer)) = (guest, unwelcome) {
                end(edge, Arrival { guest, is_watched: true }, &answer);
            }
        }
    }
}

/// Goes on with a socket that another shard handed over.
pub fn take_over(edge: &Edge, newcomer: Newcomer) {
    edge.count(|counters| counters.moved_in += 1);
    open(edge, newcomer.socket, false, newcomer.welcome);
}

/// Lets somebody go who waits, so that somebody else has its descriptor: whoever has nothing to say first.
/// False: none waits.
pub fn spare_a_descriptor(edge: &Edge) -> bool {
    let longest = edge.waiting.borrow().oldest();
    engine::spare_an_idle(edge) || let_go(edge, longest, "descriptors") || engine::spare_the_slowest(edge)
}

/// Ends a guest in favour of others.
fn let_go(edge: &Edge, key: Option<Key>, reason: &'static str) -> bool {
    let guest = key.and_then(|key| edge.waiting.borrow_mut().take(key));
    if let Some(guest) = &guest {
        edge.refuse_from(reason, guest.peer.address);
    }
    guest.is_some()
}

/// Sees to it that descriptors are left when `newest` stays. `None`: there is nobody to go instead.
fn make_room(edge: &Edge, newest: Stream) -> Option<Stream> {
    // The system gives the lowest number that is free, so below this one none is.
    let number = newest.as_raw_fd();
    if number < edge.descriptors.few_from {
        return Some(newest);
    }
    if spare_a_descriptor(edge) {
        // It takes the number that became free: high numbers stay a sign that few are left.
        return Some(newest.renumbered());
    }
    (number < edge.descriptors.last_from).then_some(newest)
}

fn go_on(edge: &Edge, arrival: Arrival, heard: Heard) {
    match heard {
        Heard::Ended => {}
        Heard::Named(_) => unreachable!("who was named is heard again"),
        Heard::Garbled => {
            edge.refuse_from("tls", arrival.guest.peer.address);
            part(edge, arrival);
        }
        Heard::Said(verdict) => follow(edge, arrival, verdict),
        Heard::Waits => drop(wait(edge, arrival)),
        Heard::Again => {
            if let Some(key) = wait(edge, arrival) {
                edge.waiting.borrow_mut().list(key);
                edge.reading.raise();
            }
        }
    }
}

/// Does to a socket what was found of its request.
pub fn follow(edge: &Edge, arrival: Arrival, verdict: Verdict) {
    match verdict {
        Verdict::Answer(answer) => end(edge, arrival, &answer),
        Verdict::Admit(admit) => admit_home(edge, arrival, *admit),
        Verdict::Engine(asked) => engine::begin(edge, arrival, *asked),
    }
}

/// Gives a guest a place among those that wait.
fn wait(edge: &Edge, arrival: Arrival) -> Option<Key> {
    let is_full = edge.waiting.borrow().is_full();
    if is_full {
        let longest = edge.waiting.borrow().oldest();
        let_go(edge, longest, "handshakes_full");
    }
    let deadline = edge.clock.now().at.after(edge.handshake_time);
    let key = edge.waiting.borrow_mut().enter(arrival.guest, deadline);
    let watched = edge.waiting.borrow_mut().with(key, |guest| edge.watch_guest(&guest.socket, key, arrival.is_watched));
    if let Some(Err(error)) = watched {
        log::warn!("shard {}: a socket cannot be waited for: {error}", edge.id.0);
        edge.waiting.borrow_mut().take(key);
        return None;
    }
    Some(key)
}

/// Reads what a guest says, until it has said what it wants or says nothing more.
fn hear(edge: &Edge, guest: &mut Guest) -> Heard {
    let Guest { socket, peer, stage, .. } = guest;
    edge.with_input(|input| match stage {
        Stage::Header { bytes } => hear_header(edge, socket, peer.address, bytes, input),
        Stage::Head { bytes, scan } => loop {
            let got = match socket.receive(input) {
                Ok(Got { bytes: 0, .. }) => return Heard::Ended,
                Ok(Got { bytes, .. }) => &input[..bytes],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Waits,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Heard::Again,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Heard::Garbled,
                Err(_) => return Heard::Ended,
            };
            // Nearly every head comes whole, and is read where it lies.
            let said = match bytes.is_empty() {
                true => judge(edge, *peer, got, scan, true),
                false => {
                    bytes.extend_from_slice(got);
                    judge(edge, *peer, bytes, scan, true)
                }
            };
            match said {
                Some(verdict) => return Heard::Said(verdict),
                None if bytes.is_empty() => bytes.extend_from_slice(got),
                None => {}
            }
        },
        Stage::Answered { discarded } => {
            for _ in 0..DISCARDS_PER_TURN {
                match socket.receive(input) {
                    Ok(Got { bytes: 0, .. }) => return Heard::Ended,
                    Ok(Got { bytes, .. }) => *discarded += bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Waits,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => return Heard::Again,
                    Err(_) => return Heard::Ended,
                }
                if *discarded >= DISCARD_BYTES_MAX {
                    return Heard::Ended;
                }
            }
            Heard::Again
        }
    })
}

/// Reads what a proxy says first. Of what stands behind it nothing is taken: it may be a request, or the beginning of
/// TLS.
fn hear_header(edge: &Edge, socket: &mut Stream, proxy: IpAddr, bytes: &mut Vec<u8>, input: &mut [u8]) -> Heard {
    loop {
        let most = input.len().min(HEADER_BYTES_MAX);
        let seen = match socket.peek(&mut input[..most]) {
            Ok(0) => return Heard::Ended,
            Ok(seen) => &mut input[..seen],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Waits,
            Err(_) => return Heard::Ended,
        };
        let before = bytes.len();
        // Nearly every header comes whole, and is read where it lies.
        let parsed = match before {
            0 => proxy::parse(seen),
            _ => {
                bytes.extend_from_slice(seen);
                proxy::parse(bytes)
            }
        };
        let (header, taken) = match parsed {
            Ok(Some((header, len))) => (Some(header), &mut seen[..len - before]),
            // While it has not ended, all is of it.
            Ok(None) => (None, seen),
            Err(proxy::Malformed) => {
                edge.refuse_from("proxy_header", proxy);
                let body = wire::error_body(ErrorCode::BadRequest, NO_HEADER);
                return Heard::Said(Verdict::Answer(http::response(400, &[JSON], &body, false)));
            }
        };
        if socket.take(taken).is_err() {
            return Heard::Ended;
        }
        match header {
            Some(header) => return Heard::Named(header),
            None if before == 0 => bytes.extend_from_slice(taken),
            None => {}
        }
    }
}

/// Writes the last bytes to a socket and waits for its peer to close; the sweep bounds the time.
pub fn end(edge: &Edge, mut arrival: Arrival, answer: &[u8]) {
    // An empty send buffer takes it whole; a peer that made it too small gets less.
    if arrival.guest.socket.send(answer).is_ok() {
        part(edge, arrival);
    }
}

/// Waits for a peer to close that was told all there is.
pub fn part(edge: &Edge, arrival: Arrival) {
    let Arrival { mut guest, is_watched } = arrival;
    guest.socket.shut(Shut::Sending);
    guest.stage = Stage::Answered { discarded: 0 };
    wait(edge, Arrival { guest, is_watched });
}

/// Opens the connection here, or hands it to its user's home.
fn admit_home(edge: &Edge, arrival: Arrival, admit: Admit) {
    let Arrival { guest: Guest { socket, .. }, is_watched } = arrival;
    let Admit { answer, dialect, identity, client, held, rest, stream } = admit;
    if dialect.endpoint().is_some() {
        // Whose it is matters to nobody else, so it is served where it came.
        let welcome = Welcome { answer, rest, identity, dialect, client, counted: None, held, stream };
        return open(edge, socket, is_watched, welcome);
    }
    let (counted, before) = edge.crowd.enter(identity.tenant(), &identity.user);
    let home = edge.placement.of_user(identity.tenant(), &identity.user);
    let welcome = Welcome { answer, rest, identity, dialect, client, counted, held, stream };
    if home == edge.id || u32::from(before) >= USER_CONNS_MOVED_MAX {
        return open(edge, socket, is_watched, welcome);
    }
    if is_watched && let Err(error) = edge.forget_guest(&socket) {
        log::warn!("shard {}: a socket stays where it was accepted: {error}", edge.id.0);
        return open(edge, socket, is_watched, welcome);
    }
    match edge.doors[home.index()].try_leave(Control::HandOff(Box::new(Newcomer { socket, welcome }))) {
        Ok(()) => edge.count(|counters| counters.moved_out += 1),
        // Its home has too much waiting: the connection is served where it is.
        Err(Control::HandOff(newcomer)) => open(edge, newcomer.socket, false, newcomer.welcome),
        Err(_) => unreachable!("the door gives back what it was given"),
    }
}

/// Answers the upgrade and lets the core have the connection.
fn open(edge: &Edge, socket: Stream, is_watched: bool, welcome: Welcome) {
    let peer = welcome.client;
    let (socket, verdict) = match edge.is_draining() {
        // Whoever follows a stream comes back by itself, unless it is refused.
        true if welcome.stream.is_some() => (socket, Verdict::Answer(welcome.answer)),
        true => (socket, going_away(edge)),
        false => match edge.open(socket, is_watched, welcome) {
            Ok(_) => return,
            Err(socket) => (socket, refuse(edge, "full", 503, ErrorCode::Unavailable, FULL)),
        },
    };
    edge.audit_refusal(peer, None);
    let Verdict::Answer(answer) = verdict else { unreachable!("a refusal is an answer") };
    end(edge, Arrival::of(socket, peer.into(), is_watched), &answer);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::networks::Network;
    use crate::admission::token::{Claims, sign_hs256};
    use crate::base::limits::{HEAD_BYTES_MAX, HEADS_BYTES_MAX};
    use crate::io::edge::sample::{SECRET, counters, edge};
    use crate::io::entrance::Entrance;
    use crate::io::runtime::Driver;
    use crate::io::socket;
    use std::io::Read;
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::sync::Arc;

    /// Comes from `address` and says something at once.
    fn come(edge: &Edge, address: u32, says: &[u8]) -> UnixStream {
        let (ours, peer) = UnixStream::pair().unwrap();
        socket::send(peer.as_raw_fd(), says).unwrap();
        begin(edge, ours.into(), Ipv4Addr::from_bits(address).into());
        peer
    }

    fn hear_all(edge: &Edge) {
        edge.look();
        while hear_some(edge) {}
    }

    fn request() -> String {
        let token = sign_hs256(SECRET, &Claims { sub: "alice".into(), ..Claims::default() });
        format!(
            "GET /ws?token={token} HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
    }

    #[test]
    fn a_request_that_is_there_at_once_needs_no_place_to_wait() {
        let edge = edge(Driver::Epoll);
        let _peer = come(&edge, 1, request().as_bytes());
        assert_eq!((counters(&edge).opened, edge.waiting.borrow().len()), (1, 0));
    }

    #[test]
    fn a_request_that_comes_in_pieces_is_heard_when_its_last_comes() {
        let edge = edge(Driver::Epoll);
        let request = request();
        let (first, last) = request.split_at(40);
        let peer = come(&edge, 1, first.as_bytes());
        hear_all(&edge);
        assert_eq!((counters(&edge).opened, edge.waiting.borrow().len()), (0, 1));
        socket::send(peer.as_raw_fd(), last.as_bytes()).unwrap();
        hear_all(&edge);
        assert_eq!((counters(&edge).opened, edge.waiting.borrow().len()), (1, 0));
        // What it says from now on is heard as a connection's.
        socket::send(peer.as_raw_fd(), &crate::io::edge::sample::PONG).unwrap();
        edge.look();
        while edge.read() {}
        assert_eq!(counters(&edge).reads, 1);
    }

    #[test]
    fn heads_that_never_end_make_room_for_others_the_longest_waiting_first() {
        const CROWD: usize = HEADS_BYTES_MAX / HEAD_BYTES_MAX + 50;
        let edge = edge(Driver::Epoll);
        let endless = [b"GET /ws HTTP/1.1\r\na: ".to_vec(), vec![b'x'; HEAD_BYTES_MAX - 100]].concat();
        let mut crowd: Vec<_> = (0..CROWD as u32).map(|nth| come(&edge, nth, &endless)).collect();
        assert!(edge.waiting.borrow().len() < CROWD);
        let gone = counters(&edge).refused["handshakes_full"] as usize;
        assert_eq!(edge.waiting.borrow().len() + gone, CROWD);
        let is_open = |peer: &mut UnixStream| {
            peer.set_nonblocking(true).unwrap();
            peer.read(&mut [0; 1]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        };
        let open: Vec<bool> = crowd.iter_mut().map(is_open).collect();
        assert!(open[..gone].iter().all(|open| !open) && open[gone..].iter().all(|open| *open));
        let _good = come(&edge, 9_999, request().as_bytes());
        assert_eq!(counters(&edge).opened, 1);
    }

    #[test]
    fn whoever_was_answered_is_listened_to_until_it_ends_or_has_said_enough() {
        let edge = edge(Driver::Epoll);
        let mut polite = come(&edge, 1, b"GET /health HTTP/1.1\r\n\r\n");
        let talker = come(&edge, 2, b"GET /health HTTP/1.1\r\n\r\n");
        let mut answer = String::new();
        polite.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(edge.waiting.borrow().len(), 2);
        drop(polite);
        hear_all(&edge);
        assert_eq!(edge.waiting.borrow().len(), 1);
        let chunk = vec![0u8; 1 << 16];
        let mut sent = 0;
        while !edge.waiting.borrow().is_empty() {
            sent += socket::send(talker.as_raw_fd(), &chunk).unwrap_or(0);
            hear_all(&edge);
            assert!(sent <= DISCARD_BYTES_MAX + 2 * chunk.len(), "it is heard for {sent} bytes");
        }
        assert!(sent >= DISCARD_BYTES_MAX);
    }

    #[test]
    fn where_descriptors_are_few_a_newcomer_takes_the_number_of_whoever_waits_longest() {
        let mut edge = edge(Driver::Epoll);
        let first = come(&edge, 1, b"");
        let scarce = crate::io::process::Descriptors { few_from: 0, last_from: 0 };
        std::rc::Rc::get_mut(&mut edge).expect("nobody else has it").descriptors = scarce;
        let mut second = come(&edge, 2, b"");
        assert_eq!((counters(&edge).refused["descriptors"], edge.waiting.borrow().len()), (1, 1));
        drop(first);
        let longest = edge.waiting.borrow().oldest();
        let_go(&edge, longest, "descriptors");
        assert_eq!(second.read(&mut [0; 1]).unwrap(), 0);
        let mut third = come(&edge, 3, b"");
        assert_eq!(third.read(&mut [0; 1]).unwrap(), 0, "nobody waits who could go instead");
        assert!(edge.waiting.borrow().is_empty());
    }

    /// Behind proxies of `10.0.0.0/8` that speak the PROXY protocol.
    fn behind_proxies(entrance: Entrance) -> Rc<Edge> {
        let edge = edge(Driver::Epoll);
        let proxies = ["10.0.0.0/8"].iter().map(|text| Network::parse(text).unwrap()).collect();
        *edge.entrance.borrow_mut() = Arc::new(Entrance { proxies, proxy_protocol: true, ..entrance });
        edge
    }

    const PROXY: u32 = 0x0A00_0001;
    const NAMED: &[u8] = b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n";

    #[test]
    fn a_header_and_its_request_need_no_place_to_wait() {
        let edge = behind_proxies(Entrance::default());
        let _peer = come(&edge, PROXY, &[NAMED, request().as_bytes()].concat());
        assert_eq!((counters(&edge).opened, edge.waiting.borrow().len()), (1, 0));
        let direct = come(&edge, 1, request().as_bytes());
        assert_eq!(counters(&edge).opened, 2, "who is no proxy has no header");
        drop(direct);
        let mut stranger = come(&edge, 1, &[NAMED, request().as_bytes()].concat());
        let mut answer = [0; 12];
        stranger.read_exact(&mut answer).unwrap();
        // A line of text reads as a request of some other HTTP.
        assert_eq!((&answer, counters(&edge).refused["head"]), (b"HTTP/1.1 505", 1));
    }

    #[test]
    fn a_header_that_comes_byte_by_byte_ends_where_it_ends() {
        let signature = b"\r\n\r\n\0\r\nQUIT\n";
        let binary = [&signature[..], &[0x21, 0x11, 0, 12, 192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 3, 4]].concat();
        for header in [NAMED, &binary] {
            let edge = behind_proxies(Entrance::default());
            let peer = come(&edge, PROXY, b"");
            for byte in [header, request().as_bytes()].concat() {
                assert_eq!(counters(&edge).opened, 0);
                socket::send(peer.as_raw_fd(), &[byte]).unwrap();
                hear_all(&edge);
            }
            assert_eq!((counters(&edge).opened, edge.waiting.borrow().len()), (1, 0));
        }
    }

    #[test]
    fn who_is_named_is_asked_as_if_it_came_by_itself_and_once() {
        let denied = [Network::parse("192.0.2.0/24").unwrap()].into_iter().collect();
        let edge = behind_proxies(Entrance { denied, half_open_max: Some(2), ..Entrance::default() });
        let mut peers: Vec<_> = (0..3).map(|_| come(&edge, PROXY, NAMED)).collect();
        peers.push(come(&edge, PROXY, &NAMED[..9]));
        hear_all(&edge);
        socket::send(peers[3].as_raw_fd(), &NAMED[9..]).unwrap();
        hear_all(&edge);
        assert_eq!((counters(&edge).refused["network"], edge.waiting.borrow().len()), (4, 0));
        for peer in &mut peers {
            assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "nothing is said to it");
        }
        let other = b"PROXY TCP4 198.51.100.1 10.0.0.1 4711 443\r\n";
        let at_once: Vec<_> = (0..3).map(|_| come(&edge, PROXY, other)).collect();
        let later: Vec<_> = (0..3).map(|_| come(&edge, PROXY, &other[..9])).collect();
        later.iter().for_each(|peer| drop(socket::send(peer.as_raw_fd(), &other[9..])));
        hear_all(&edge);
        assert_eq!((counters(&edge).refused["half_open"], edge.waiting.borrow().len()), (4, 2));
        drop((at_once, later));
        hear_all(&edge);
        assert_eq!(edge.waiting.borrow().len(), 0);
    }

    #[test]
    fn attempts_are_those_of_who_is_named() {
        let attempts = Some(crate::io::callers::Rate { number: 2, per: std::time::Duration::from_secs(3_600) });
        let edge = behind_proxies(Entrance { attempts, ..Entrance::default() });
        let come_as = |last: u8, pieces: usize| {
            let whole = format!("PROXY TCP4 192.0.2.{last} 10.0.0.1 4711 443\r\nGET /health HTTP/1.1\r\n\r\n");
            let mut peer = come(&edge, PROXY, &whole.as_bytes()[..whole.len() / pieces]);
            hear_all(&edge);
            socket::send(peer.as_raw_fd(), &whole.as_bytes()[whole.len() / pieces..]).unwrap();
            hear_all(&edge);
            let mut answer = [0; 12];
            peer.read_exact(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[9..]).into_owned()
        };
        assert_eq!(
            [1, 1, 1, 2, 1, 2, 2].map(|last| come_as(last, 1)),
            ["200", "200", "429", "200", "429", "200", "429"]
        );
        assert_eq!([3, 3, 3].map(|last| come_as(last, 2)), ["200", "200", "429"]);
    }

    #[test]
    fn a_proxy_that_does_not_say_whose_it_is_is_refused() {
        let edge = behind_proxies(Entrance::default());
        for (nth, says) in
            [request().as_bytes(), b"PROXY TCP4 nobody\r\n", b"\x16\x03\x01\x02\x00"].into_iter().enumerate()
        {
            let mut peer = come(&edge, PROXY, says);
            let mut answer = [0; 12];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!((&answer, counters(&edge).refused["proxy_header"]), (b"HTTP/1.1 400", 1 + nth as u64));
        }
        let cut_off = come(&edge, PROXY, &NAMED[..20]);
        hear_all(&edge);
        let before = edge.waiting.borrow().len();
        drop(cut_off);
        hear_all(&edge);
        assert!(edge.waiting.borrow().len() < before, "half a header and the end");
    }

    #[test]
    fn a_proxy_may_speak_for_itself() {
        let edge = behind_proxies(Entrance::default());
        for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"] {
            let mut peer = come(&edge, PROXY, &[header, b"GET /health HTTP/1.1\r\n\r\n"].concat());
            let mut answer = [0; 12];
            peer.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        }
    }
}
