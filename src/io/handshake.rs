//! From an accepted socket to a connection of the core, or to an answer and the end. One task per
//! socket reads the request head, routes it, checks the token and brings the socket to its user's
//! home. Invariant: a socket costs no more than a bounded head until its token was checked, and is
//! ended when its time is over, whatever its peer does or does not.

use crate::admission::identity::Identity;
use crate::admission::token::TokenRefused;
use crate::base::limits::{DISCARD_BYTES_MAX, USER_CONNS_MOVED_MAX};
use crate::base::table::Key;
use crate::io::control::{Control, Newcomer, Welcome};
use crate::io::edge::Edge;
use crate::io::socket::{self, Shut};
use crate::io::turn;
use crate::wire::codes::{CloseCode, ErrorCode};
use crate::wire::dialect::NATIVE_JSON;
use crate::wire::frame;
use crate::wire::handshake::{self as wire, Token, TokenSource};
use crate::wire::http::{self, Head, HeadScan};
use monoio::net::TcpStream;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;

/// What somebody without a token is called, for showing to people.
const LABEL_QUERY: &str = "userId";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A socket that has not shown what it is. Fields are dropped in this order: the sweep forgets the
/// descriptor before it is closed.
struct Candidate {
    place: Place,
    stream: TcpStream,
}

/// A place among those that wait.
struct Place {
    edge: Rc<Edge>,
    key: Key,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.edge.waiting.borrow_mut().leave(self.key);
    }
}

/// What becomes of a request.
enum Verdict {
    /// These bytes, and the end.
    Answer(Vec<u8>),
    Admit(Box<Admit>),
}

struct Admit {
    answer: Vec<u8>,
    identity: Identity,
    /// Where the head ends.
    head_len: usize,
}

impl Candidate {
    /// `None`: there is no place for it, and it is closed.
    fn enter(edge: &Rc<Edge>, socket: OwnedFd) -> Option<Candidate> {
        let deadline = edge.clock.now().at.after(edge.handshake_time);
        let Some(key) = edge.waiting.borrow_mut().enter(socket.as_raw_fd(), deadline) else {
            edge.refuse("handshakes_full");
            edge.audit_refusal(|| socket::peer(socket.as_raw_fd()), None);
            return None;
        };
        let place = Place { edge: Rc::clone(edge), key };
        match turn::waitable(socket) {
            Ok(stream) => Some(Candidate { place, stream }),
            Err(error) => {
                log::warn!("shard {}: a socket cannot be waited for: {error}", edge.id.0);
                None
            }
        }
    }
}

/// Starts the handshake of a socket.
pub fn begin(edge: &Rc<Edge>, socket: OwnedFd) {
    if let Some(candidate) = Candidate::enter(edge, socket) {
        monoio::spawn(run(Rc::clone(edge), candidate));
    }
}

async fn run(edge: Rc<Edge>, candidate: Candidate) {
    let Some((verdict, bytes)) = hear(&edge, &candidate.stream).await else { return };
    match verdict {
        Verdict::Answer(answer) => finish(&edge, &candidate.stream, &answer).await,
        Verdict::Admit(admit) => admit_home(&edge, candidate, *admit, bytes).await,
    }
}

/// Reads until the head says what the socket wants; also gives back all bytes read. `None`: the
/// peer went away first, or its time is over.
async fn hear(edge: &Rc<Edge>, stream: &TcpStream) -> Option<(Verdict, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut scan = HeadScan::default();
    loop {
        stream.readable(false).await.ok()?;
        let got = edge.with_input(|input| {
            let got = socket::receive(stream.as_raw_fd(), input)?;
            bytes.extend_from_slice(&input[..got]);
            io::Result::Ok(got)
        });
        match got {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        if !scan.is_complete(&bytes) {
            continue;
        }
        match http::parse_head(&bytes) {
            Ok(None) => {}
            Ok(Some(head)) => {
                let verdict = route(edge, &head);
                edge.audit_refusal(|| socket::peer(stream.as_raw_fd()), head.header("origin"));
                return Some((verdict, bytes));
            }
            Err(error) => {
                edge.refuse("head");
                edge.audit_refusal(|| socket::peer(stream.as_raw_fd()), None);
                let body = wire::error_body(ErrorCode::BadRequest, error.message());
                return Some((Verdict::Answer(http::response(error.status(), &[JSON], &body, false)), bytes));
            }
        }
    }
}

fn route(edge: &Edge, head: &Head<'_>) -> Verdict {
    match head.path {
        "/ws" => upgrade(edge, head),
        "/health" if head.method == "GET" => {
            Verdict::Answer(http::response(200, &[JSON], br#"{"status":"ok"}"#, false))
        }
        "/health" => refuse(edge, "method", 405, ErrorCode::BadRequest, "ask for /health with GET"),
        _ => refuse(edge, "path", 404, ErrorCode::NotFound, "nothing is served at this path; connect to /ws"),
    }
}

fn refuse(edge: &Edge, reason: &'static str, status: u16, code: ErrorCode, message: &str) -> Verdict {
    edge.refuse(reason);
    Verdict::Answer(http::response(status, &[JSON], &wire::error_body(code, message), false))
}

fn upgrade(edge: &Edge, head: &Head<'_>) -> Verdict {
    let upgrade = match wire::upgrade(head) {
        Ok(upgrade) => upgrade,
        Err(refused) => {
            edge.refuse("upgrade");
            return Verdict::Answer(refused.response());
        }
    };
    if edge.draining.get() {
        let message = "the server is going away; connect again and reach another";
        return refuse(edge, "draining", 503, ErrorCode::Unavailable, message);
    }
    if let Some(token) = &upgrade.token
        && token.source == TokenSource::Cookie
        && !is_same_origin(head)
    {
        let message = "a cookie counts only from pages of this host; send the token in the query or a header";
        return refuse(edge, "origin", 403, ErrorCode::Forbidden, message);
    }
    let answer = wire::accepted(&upgrade);
    let verified = match &upgrade.token {
        Some(Token { text, .. }) => edge.verify(text),
        None => edge.anonymous(head.query_value(LABEL_QUERY).as_deref()).ok_or(TokenRefused::Missing),
    };
    match verified {
        Ok(identity) => Verdict::Admit(Box::new(Admit { answer, identity, head_len: head.len })),
        Err(refused) => {
            // Browsers show a page nothing of a refused upgrade, but the code of a close.
            edge.refuse(refused.reason());
            let mut answer = answer;
            frame::close(&mut answer, CloseCode::Unauthorized, &refused.to_string());
            Verdict::Answer(answer)
        }
    }
}

/// Browsers send cookies along whoever wrote the page, so the page has to be ours. Other clients
/// name no origin.
fn is_same_origin(head: &Head<'_>) -> bool {
    let Some(origin) = head.header("origin") else { return true };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_some() && host == head.header("host")
}

/// Writes the last bytes to a socket and waits for its peer to close; the sweep bounds the time.
async fn finish(edge: &Rc<Edge>, stream: &TcpStream, answer: &[u8]) {
    // An empty send buffer takes it whole; a peer that made it too small gets less.
    if socket::send(stream.as_raw_fd(), answer).is_err() {
        return;
    }
    socket::shut(stream.as_raw_fd(), Shut::Sending);
    let mut discarded = 0;
    while discarded < DISCARD_BYTES_MAX {
        if stream.readable(false).await.is_err() {
            return;
        }
        match edge.with_input(|input| socket::receive(stream.as_raw_fd(), input)) {
            Ok(0) => return,
            Ok(got) => discarded += got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Opens the connection here, or hands it to its user's home.
async fn admit_home(edge: &Rc<Edge>, candidate: Candidate, admit: Admit, bytes: Vec<u8>) {
    let Admit { answer, identity, head_len } = admit;
    // Almost always nothing, which then owns no memory for the life of the connection.
    let rest = bytes[head_len..].to_vec();
    drop(bytes);
    let (counted, before) = edge.crowd.enter(identity.tenant(), &identity.user);
    let home = edge.placement.of_user(identity.tenant(), &identity.user);
    let welcome = Welcome { answer, rest, identity, dialect: NATIVE_JSON, counted };
    if home == edge.id || u32::from(before) >= USER_CONNS_MOVED_MAX {
        return open(edge, candidate, welcome).await;
    }
    let Candidate { place, stream } = candidate;
    drop(place);
    // No operation is in flight: the only one so far was awaited to its end.
    // SAFETY: the stream has just given its descriptor up.
    let socket = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
    let newcomer = Control::HandOff(Box::new(Newcomer { socket, welcome }));
    match edge.doors[home.index()].try_leave(newcomer) {
        Ok(()) => edge.count(|counters| counters.moved_out += 1),
        // Its home has too much waiting: the connection is served where it is.
        Err(Control::HandOff(newcomer)) => {
            if let Some(candidate) = Candidate::enter(edge, newcomer.socket) {
                open(edge, candidate, newcomer.welcome).await;
            }
        }
        Err(_) => unreachable!("the door gives back what it was given"),
    }
}

/// Goes on with a socket that another shard handed over.
pub fn take_over(edge: &Rc<Edge>, newcomer: Newcomer) {
    edge.count(|counters| counters.moved_in += 1);
    let Some(candidate) = Candidate::enter(edge, newcomer.socket) else { return };
    let edge = Rc::clone(edge);
    monoio::spawn(async move { open(&edge, candidate, newcomer.welcome).await });
}

/// Answers the upgrade and lets the core have the connection.
async fn open(edge: &Rc<Edge>, candidate: Candidate, welcome: Welcome) {
    let Candidate { place, stream } = candidate;
    let Welcome { answer, rest, identity, dialect, counted } = welcome;
    let full = |edge: &Edge, reason, message| match refuse(edge, reason, 503, ErrorCode::Unavailable, message) {
        Verdict::Answer(answer) => answer,
        Verdict::Admit(_) => unreachable!("a refusal is an answer"),
    };
    if edge.draining.get() {
        let answer = full(edge, "draining", "the server is going away; connect again and reach another");
        edge.audit_refusal(|| socket::peer(stream.as_raw_fd()), None);
        return finish(edge, &stream, &answer).await;
    }
    // No operation is in flight: all were awaited to their ends.
    // SAFETY: the stream has just given its descriptor up.
    let socket = unsafe { OwnedFd::from_raw_fd(stream.into_raw_fd()) };
    match edge.open(socket, identity, dialect, counted, &answer, rest) {
        Ok(_) => drop(place),
        Err(socket) => {
            let answer = full(edge, "full", "this server holds as many connections as it may; try again later");
            edge.audit_refusal(|| socket::peer(socket.as_raw_fd()), None);
            if let Ok(stream) = turn::waitable(socket) {
                finish(edge, &stream, &answer).await;
            }
        }
    }
}
