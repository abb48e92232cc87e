//! Server-sent events over HTTP: the request that a stream begins with, and the requests of its client.
//! A stream itself is a connection like others; who asks for it is a regular, on whichever shard the stream
//! lives.
//! Invariant: whoever asks for a stream is of its user, and hears the same of a stream that never was and of
//! one that has ended.

use crate::admission::names::User;
use crate::admission::origins::Allowed;
use crate::base::table::Key;
use crate::io::control::{Control, Emitting, Wanted};
use crate::io::edge::{Edge, secret};
use crate::io::engine;
use crate::io::engine::answers::Manner;
use crate::io::engine::regulars::{self, Answer, Emit, Parked, Stage};
use crate::io::engine::requests::{Asked, What, has_body, is_of_unclear_host, names};
use crate::io::handshake::{self, Admit, Arrival, FULL, Verdict};
use crate::io::routes::{self, Denied, FOREIGN_COOKIE, Page, TOO_MANY, TOO_OFTEN, Visit, page_of};
use crate::kernel::ids::ConnId;
use crate::shard::Input;
use crate::wire::body::{Body, BodyRefused};
use crate::wire::codes::{ErrorCode, Limit, WireError};
use crate::wire::engine::Sid;
use crate::wire::handshake::{Token, TokenSource};
use crate::wire::http::Head;
use crate::wire::{encode, sse};
use std::borrow::Cow;
use std::time::Duration;

/// Where streams begin, and where their clients ask.
pub const PATH: &str = "/sse";
pub const EMIT_PATH: &str = "/emit";
/// When a client whose stream was cut comes back.
const RETRY: Duration = Duration::from_secs(2);

const LAST_EVENT_HEADER: &str = "last-event-id";
/// The same for clients that cannot set a header.
const LAST_EVENT_QUERY: &str = "lastEventId";
const ROOMS_QUERY: &str = "rooms";

/// What becomes of a request for a stream.
pub fn judge(edge: &Edge, visit: &Visit<'_>, head: &Head<'_>, rest: &[u8]) -> Verdict {
    let (manner, token) = match page(edge, visit, head) {
        Ok(page) => page,
        Err(answer) => return Verdict::Answer(answer),
    };
    let refuse = |reason, status, code, message: &str| {
        edge.refuse(reason);
        Verdict::Answer(manner.denied(status, code, message))
    };
    if head.method == "OPTIONS" && !is_doubtful(head) {
        let what = What::Answered(manner.preflight(head));
        return Verdict::Engine(Box::new(Asked { what, manner, rest: rest.to_vec() }));
    }
    if head.method != "GET" {
        edge.refuse("method");
        return Verdict::Answer(manner.not_allowed("GET, OPTIONS", "ask for /sse with GET; send with POST /emit"));
    }
    if is_doubtful(head) {
        return refuse("head", 400, ErrorCode::BadRequest, "this request has a body, or several hosts");
    }
    let is_unreadable = |name| names(head, name) && head.query_value(name).is_none();
    if is_unreadable(ROOMS_QUERY) || is_unreadable(LAST_EVENT_QUERY) {
        return refuse("head", 400, ErrorCode::BadRequest, "the query cannot be decoded");
    }
    if edge.is_draining() {
        // Any other answer would end the client's attempts for good.
        edge.refuse("draining");
        return Verdict::Answer(beginning(&manner));
    }
    let let_in = match routes::let_in(edge, visit, head, token.as_ref()) {
        Ok(let_in) => let_in,
        Err(denied) => return Verdict::Answer(deny(edge, &manner, denied)),
    };
    let rooms = head.query_value(ROOMS_QUERY).unwrap_or(Cow::Borrowed(""));
    let rooms = sse::rooms(&rooms);
    let most = edge.rooms_per_request();
    if rooms.len() > most {
        let message = format!("rooms names more than {most} rooms; join the others with POST /emit");
        edge.refuse("rooms");
        return Verdict::Answer(manner.too_many(Limit::RoomsPerRequest, message));
    }
    // What cannot be read is a place that nobody gave out, and not none.
    let header = head.values(LAST_EVENT_HEADER).next().map(|value| String::from_utf8_lossy(value.trim_ascii()));
    let query = || head.query_value(LAST_EVENT_QUERY);
    let last = header.or_else(query).filter(|last| !last.is_empty());
    let Some(secret) = secret() else {
        return refuse("full", 503, ErrorCode::Unavailable, FULL);
    };
    let wanted = Wanted {
        secret,
        is_anonymous: token.is_none(),
        rooms: rooms.into_iter().map(Box::from).collect(),
        last_event: last.map(|last| last.into_owned().into()),
    };
    Verdict::Admit(Box::new(Admit::stream(beginning(&manner), let_in, visit.client, wanted)))
}

/// What every stream begins with.
fn beginning(manner: &Manner) -> Vec<u8> {
    let mut answer = manner.stream();
    sse::retry(&mut answer, RETRY);
    answer
}

/// What a request of a stream's client asks.
pub fn judge_emit(edge: &Edge, visit: &Visit<'_>, head: &Head<'_>, rest: &[u8]) -> Asked {
    let refused = |what| Asked { what, manner: Manner::of(head, Allowed::NoPage, false), rest: Vec::new() };
    let (manner, token) = match page(edge, visit, head) {
        Ok(page) => page,
        Err(answer) => return refused(What::Refused(answer)),
    };
    let refuse = |reason, status, code, message: &str| {
        edge.refuse(reason);
        refused(What::Refused(manner.denied(status, code, message)))
    };
    if head.method == "OPTIONS" && !is_doubtful(head) {
        let what = What::Answered(manner.preflight(head));
        return Asked { what, manner, rest: rest.to_vec() };
    }
    if head.method != "POST" {
        edge.refuse("method");
        return refused(What::Refused(manner.not_allowed("POST, OPTIONS", "send with POST")));
    }
    let expects = head.header("expect");
    if is_of_unclear_host(head) || expects.is_some_and(|expects| !expects.eq_ignore_ascii_case("100-continue")) {
        return refuse("head", 400, ErrorCode::BadRequest, "the request head is malformed");
    }
    let now = edge.clock.now().at;
    if let (Some(caller), Some(rate)) = (visit.caller, visit.entrance.failures)
        && let Err(retry) = edge.callers.may_fail(caller, rate, now)
    {
        edge.refuse("failures");
        return refused(What::Refused(manner.limited("network.failures", retry)));
    }
    let user = match &token {
        None => None,
        Some(token) => match edge.verify(&token.text) {
            Ok(identity) => Some(identity.user.clone()),
            Err(why) => {
                if let (Some(caller), Some(rate)) = (visit.caller, visit.entrance.failures) {
                    edge.callers.fail(caller, rate, now);
                }
                return refuse(why.reason(), 401, why.code(), &why.to_string());
            }
        },
    };
    match Body::of(head, edge.message_bytes()) {
        Ok(body) => {
            let expects = expects.is_some() && head.minor_version > 0;
            Asked { what: What::Emit { user, body, expects }, manner, rest: rest.to_vec() }
        }
        Err(body) => {
            let (reason, answer) = refuse_body(&manner, body);
            edge.refuse(reason);
            refused(What::Refused(answer))
        }
    }
}

/// What is answered to a body that is none. What follows it is not looked at.
pub fn refuse_body(manner: &Manner, refused: BodyRefused) -> (&'static str, Vec<u8>) {
    match refused {
        BodyRefused::TooLarge => {
            let message = "the body is larger than a message may be (limits.message_bytes)";
            ("emit_too_large", manner.denied(413, ErrorCode::TooLarge, message))
        }
        BodyRefused::Malformed => {
            ("emit_malformed", manner.denied(400, ErrorCode::BadRequest, "the body is malformed, or how long it is"))
        }
    }
}

/// How the page that asks is answered, and what it says who it is.
fn page<'a>(edge: &Edge, visit: &Visit<'_>, head: &Head<'a>) -> Result<(Manner, Option<Token<'a>>), Vec<u8>> {
    let refuse = |manner: Manner, message| {
        edge.refuse("origin");
        Err(manner.denied(403, ErrorCode::Forbidden, message))
    };
    let Page { allowed, message } = page_of(visit, head);
    let Some(allowed) = allowed else { return refuse(Manner::of(head, Allowed::NoPage, false), message) };
    let manner = Manner::of(head, allowed, !edge.is_draining());
    let token = Token::of(head);
    if allowed == Allowed::Any && token.as_ref().is_some_and(|token| token.source == TokenSource::Cookie) {
        return refuse(manner, FOREIGN_COOKIE);
    }
    Ok((manner, token))
}

/// Whether the next request might be found in this one, or a proxy has mistaken it.
fn is_doubtful(head: &Head<'_>) -> bool {
    has_body(head) || is_of_unclear_host(head)
}

fn deny(edge: &Edge, manner: &Manner, denied: Denied) -> Vec<u8> {
    match denied {
        Denied::Address { reason, limit, retry } => {
            edge.refuse(reason);
            manner.limited(limit, retry)
        }
        Denied::Token(refused) => {
            edge.refuse(refused.reason());
            manner.denied(401, refused.code(), &refused.to_string())
        }
        Denied::Attempts(retry) => {
            edge.refuse("attempts_per_user");
            manner.limited_for("limits.attempts_per_user", TOO_OFTEN, retry)
        }
        Denied::Conns => {
            edge.refuse("conns_per_user");
            manner.limited_for("limits.conns_per_user", TOO_MANY, routes::CONNS_RETRY)
        }
    }
}

/// Goes on with a request that another shard found to be for this one.
pub fn take_over(edge: &Edge, emitting: Emitting) {
    edge.count(|counters| counters.requests_in += 1);
    let Emitting { socket, peer, emit } = emitting;
    if let Some(key) = engine::seat(edge, Arrival::of(socket, peer, false), Vec::new()) {
        self::emit(edge, key, emit);
    }
}

/// Gives a request that came whole to its stream.
pub fn emit(edge: &Edge, key: Key, emit: Emit) {
    let Emit { user, manner, body, ahead } = emit;
    let bytes = body.into_bytes();
    match sse::emitter(&bytes).and_then(|sid| find(edge, &sid, user.as_ref())) {
        Ok(Found::Here(conn)) => {
            let parked = Stage::Waits(Box::new(Parked { conn, manner, ahead, is_emit: true }));
            edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| regular.stage = parked);
            edge.step(Input::Emit { conn, poll: regulars::poll_of(key), message: &bytes });
        }
        Ok(Found::Elsewhere(shard)) => {
            let Some(arrival) = engine::leave(edge, key) else { return };
            let emit = Emit { user, manner, body: Body::whole(bytes), ahead };
            hand_over(edge, arrival, shard, emit);
        }
        Err(error) => {
            let mut body = br#"{"id":null,"ok":false,"error":"#.to_vec();
            encode::error_object(&mut body, &error);
            body.push(b'}');
            engine::refuse(edge, key, "emit");
            engine::keep(edge, key, ahead);
            let (keeps, head) = (manner.keeps, manner.reply(Some((error.code, error.retry_after_ms)), body.len()));
            engine::tell(edge, key, Answer { head, body: &body, keeps, conn: None });
        }
    }
}

enum Found {
    Here(ConnId),
    Elsewhere(usize),
}

fn find(edge: &Edge, sid: &Sid, user: Option<&User>) -> Result<Found, WireError> {
    let shard = usize::from(sid.shard);
    if shard >= edge.doors.len() {
        return Err(sse::unknown());
    }
    if shard != edge.id.index() {
        return Ok(Found::Elsewhere(shard));
    }
    let conn = edge.stream(sid).ok_or_else(sse::unknown)?;
    edge.may_emit(conn, user)?;
    Ok(Found::Here(conn))
}

/// Gives a request to the shard of its stream.
fn hand_over(edge: &Edge, arrival: Arrival, shard: usize, emit: Emit) {
    if arrival.is_watched
        && let Err(error) = edge.forget_guest(&arrival.guest.socket)
    {
        log::warn!("shard {}: a socket cannot be handed over: {error}", edge.id.0);
        return;
    }
    let Arrival { guest, .. } = arrival;
    let emitting = Box::new(Emitting { socket: guest.socket, peer: guest.peer, emit });
    match edge.doors[shard].try_leave(Control::Emits(emitting)) {
        Ok(()) => edge.count(|counters| counters.requests_out += 1),
        Err(Control::Emits(emitting)) => {
            let Emitting { socket, peer, emit } = *emitting;
            edge.refuse_from("engine_full", peer.address);
            let message = "the server has too much waiting; try again later";
            let answer = emit.manner.denied(503, ErrorCode::Unavailable, message);
            handshake::end(edge, Arrival::of(socket, peer, false), &answer);
        }
        Err(_) => unreachable!("the door gives back what it was given"),
    }
}
