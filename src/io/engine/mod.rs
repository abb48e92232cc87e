//! Engine.IO at the edge: HTTP requests of clients that poll, and their way to a WebSocket. By subject:
//! `requests` (what a request asks for), `regulars` (the sockets that bring them), `answers`. What the core
//! wants done for sessions is in `edge::sessions`; here requests are followed.
//! Invariant: the requests of a socket are answered one after the other, each once; what comes behind one is
//! not looked at before its answer was written; and whoever cannot be served as it asks ends its connection,
//! so that nothing of it is taken for the next request.

pub mod answers;
pub mod regulars;
pub mod requests;
#[cfg(test)]
mod tests;

use crate::base::limits::HEAD_BYTES_MAX;
use crate::base::table::Key;
use crate::io::control::{Asking, Control};
use crate::io::edge::{Edge, Heard as Taken};
use crate::io::handshake::{self, Arrival, FULL, Verdict};
use crate::io::routes;
use crate::io::streams;
use crate::kernel::ids::{ConnId, ShardId};
use crate::shard::Input;
use crate::wire::body::BodyRefused;
use crate::wire::codes::ErrorCode;
use answers::{CONTINUE, Manner, Refusal};
use regulars::{Answer, Emit, Parked, Post, Posted, Regular, Stage, Written};
use requests::{Asked, Candidate, SESSION_TOO_LARGE, WebSocket, What};

/// What hearing a regular brought.
enum Heard {
    /// Nothing more for now.
    Waits,
    /// There may be more: others first.
    Again,
    /// Its socket has ended.
    Ended,
    Said(Verdict),
    /// It brought all packets that it announced, and the core may take more of them.
    Posted,
    /// What it brings is no body.
    Refused(BodyRefused),
    /// So much of an answer, and whose packets it has.
    Told(Written, Option<ConnId>),
}

/// Follows the first request of a socket.
pub fn begin(edge: &Edge, arrival: Arrival, asked: Asked) {
    let Asked { what, manner, rest } = asked;
    match what {
        What::Refused(answer) => handshake::end(edge, arrival, &answer),
        What::Elsewhere(shard, bytes) => hand_over(edge, arrival, shard, bytes, &manner),
        What::WebSocket(websocket) => open_websocket(edge, arrival, *websocket, rest, &manner),
        what => {
            if let Some(key) = seat(edge, arrival, Vec::new()) {
                follow(edge, key, Asked { what, manner, rest });
            }
        }
    }
}

/// Hears a socket whose request another shard found to be for this one.
pub fn take_over(edge: &Edge, asking: Asking) {
    edge.count(|counters| counters.requests_in += 1);
    let Asking { socket, peer, bytes } = asking;
    if let Some(key) = seat(edge, Arrival::of(socket, peer, false), bytes) {
        list(edge, key);
    }
}

/// Hears regulars that have something to say or to be told, a bounded number. Says whether more wait.
pub fn hear_some(edge: &Edge) -> bool {
    let due = edge.regulars.borrow().to_hear().min(edge.tuning.reads_per_turn);
    for _ in 0..due {
        let Some(key) = edge.regulars.borrow_mut().next_to_hear() else { break };
        hear_one(edge, key);
    }
    edge.regulars.borrow().to_hear() > 0
}

/// Lets those go whose time is over.
pub fn sweep(edge: &Edge) {
    let now = edge.clock.now().at;
    while let Some(key) = { edge.regulars.borrow().overdue(now) } {
        let (reason, late) = edge
            .regulars
            .borrow_mut()
            .with(key, now, |regular| match &regular.stage {
                Stage::Asks { bytes, .. } if bytes.is_empty() => (None, None),
                Stage::Asks { .. } => (Some("handshake_time"), None),
                Stage::Posts(post) => {
                    let message = "the body took too long";
                    (Some("engine_time"), Some(post.manner.denied(408, ErrorCode::BadRequest, message)))
                }
                Stage::Emits(emit) => {
                    let message = "the body took too long";
                    (Some("emit_time"), Some(emit.manner.denied(408, ErrorCode::BadRequest, message)))
                }
                _ => (Some("engine_stalled"), None),
            })
            .unwrap_or_default();
        if let Some(reason) = reason {
            refuse(edge, key, reason);
        }
        match late {
            Some(answer) => end_with(edge, key, &answer),
            None => drop_regular(edge, key),
        }
    }
}

/// Lets somebody go who has a socket and nothing to say. False: nobody has.
pub fn spare_an_idle(edge: &Edge) -> bool {
    let idlest = edge.regulars.borrow().idlest();
    idlest.inspect(|key| drop_regular(edge, *key)).is_some()
}

/// Lets somebody go who takes long. False: nobody does.
pub fn spare_the_slowest(edge: &Edge) -> bool {
    let slowest = edge.regulars.borrow().slowest();
    slowest
        .inspect(|key| {
            refuse(edge, *key, "descriptors");
            drop_regular(edge, *key);
        })
        .is_some()
}

/// Counts a request that became nothing.
pub fn refuse(edge: &Edge, key: Key, reason: &'static str) {
    let peer = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| regular.peer);
    if let Some(peer) = peer {
        edge.refuse_from(reason, peer.address);
    }
}

/// Gives a socket a place among the regulars.
pub fn seat(edge: &Edge, arrival: Arrival, bytes: Vec<u8>) -> Option<Key> {
    let Arrival { guest, is_watched } = arrival;
    let now = edge.clock.now().at;
    let key = edge.regulars.borrow_mut().enter(Regular::new(guest.socket, guest.peer, bytes), now);
    let watched =
        edge.regulars.borrow_mut().with(key, now, |regular| edge.watch_regular(&regular.socket, key, is_watched));
    if let Some(Err(error)) = watched {
        log::warn!("shard {}: a socket cannot be waited for: {error}", edge.id.0);
        edge.regulars.borrow_mut().take(key);
        return None;
    }
    make_room(edge);
    Some(key)
}

/// Lets those go who are too many or hold too much.
pub fn make_room(edge: &Edge) {
    while let Some(key) = { edge.regulars.borrow().surplus() } {
        refuse(edge, key, "engine_full");
        drop_regular(edge, key);
    }
}

/// Takes a regular from its place.
pub fn leave(edge: &Edge, key: Key) -> Option<Arrival> {
    let Regular { socket, peer, .. } = edge.regulars.borrow_mut().take(key)?;
    Some(Arrival::of(socket, peer, true))
}

/// Ends a regular, and what it had under way.
fn drop_regular(edge: &Edge, key: Key) {
    let regular = edge.regulars.borrow_mut().take(key);
    let Some(Regular { stage, .. }) = regular else { return };
    match stage {
        Stage::Asks { .. } | Stage::Emits(_) => {}
        Stage::Posts(post) => {
            edge.end_request(post.conn, key);
            edge.lose(post.conn, "a POST did not come whole");
        }
        Stage::IsHeard(posted) => {
            edge.end_request(posted.conn, key);
            edge.lose(posted.conn, "a POST was not heard to its end");
        }
        Stage::Waits(parked) => {
            let (conn, poll) = (parked.conn, regulars::poll_of(key));
            edge.step(if parked.is_emit { Input::EmitGone { conn, poll } } else { Input::PollGone { conn, poll } });
        }
        Stage::IsTold(told) => {
            if let Some(conn) = told.conn {
                edge.end_request(conn, key);
                edge.lose(conn, "an answer could not be written");
            }
        }
    }
}

/// Ends a regular with an answer. Its session lives on.
fn end_with(edge: &Edge, key: Key, answer: &[u8]) {
    let conn = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| match &regular.stage {
        Stage::Posts(post) => Some(post.conn),
        Stage::IsHeard(posted) => Some(posted.conn),
        _ => None,
    });
    if let Some(Some(conn)) = conn {
        edge.end_request(conn, key);
    }
    if let Some(arrival) = leave(edge, key) {
        handshake::end(edge, arrival, answer);
    }
}

fn list(edge: &Edge, key: Key) {
    edge.regulars.borrow_mut().list(key);
    edge.reading.raise();
}

fn hear_one(edge: &Edge, key: Key) {
    let now = edge.clock.now().at;
    let heard =
        edge.with_input(|input| edge.regulars.borrow_mut().with(key, now, |regular| hear(edge, regular, input)));
    let Some(heard) = heard else { return };
    match heard {
        Heard::Waits => make_room(edge),
        Heard::Again => {
            make_room(edge);
            list(edge, key);
        }
        Heard::Ended => drop_regular(edge, key),
        Heard::Said(Verdict::Engine(asked)) => follow(edge, key, *asked),
        Heard::Said(verdict) => {
            if let Some(arrival) = leave(edge, key) {
                handshake::follow(edge, arrival, verdict);
            }
        }
        Heard::Posted => hear_posted(edge, key),
        Heard::Refused(refused) => refuse_body(edge, key, refused),
        Heard::Told(written, conn) => {
            if let Some(conn) = conn.filter(|_| matches!(written, Written::Whole | Written::Last)) {
                edge.end_request(conn, key);
            }
            go_on(edge, key, written);
        }
    }
}

fn hear(edge: &Edge, regular: &mut Regular, input: &mut [u8]) -> Heard {
    match &mut regular.stage {
        Stage::Asks { .. } => hear_head(edge, regular, input),
        Stage::Posts(_) | Stage::Emits(_) => hear_body(edge, regular, input),
        Stage::IsHeard(_) => Heard::Posted,
        Stage::Waits(_) if regular.is_ended => Heard::Ended,
        Stage::Waits(_) => Heard::Waits,
        Stage::IsTold(_) => {
            let (written, conn, took) = regular.tell_on();
            edge.count_write(took);
            Heard::Told(written, conn)
        }
    }
}

fn hear_head(edge: &Edge, regular: &mut Regular, input: &mut [u8]) -> Heard {
    let peer = regular.peer;
    let Stage::Asks { bytes, scan } = &mut regular.stage else { return Heard::Waits };
    // What came with an earlier request, or from another shard.
    if let Some(verdict) = routes::judge(edge, peer, bytes, scan, false) {
        bytes.clear();
        return Heard::Said(verdict);
    }
    loop {
        // What is behind a head waits, so no more than one is read.
        let most = input.len().min(HEAD_BYTES_MAX);
        let got = match regular.receive(&mut input[..most]) {
            None if regular.is_readable => return Heard::Again,
            None => return Heard::Waits,
            Some(0) => return Heard::Ended,
            Some(got) => &input[..got],
        };
        edge.count(|counters| {
            counters.reads += 1;
            counters.bytes_in += got.len() as u64;
        });
        let Stage::Asks { bytes, scan } = &mut regular.stage else { return Heard::Waits };
        // Nearly every head comes whole, and is read where it lies.
        if bytes.is_empty() {
            match routes::judge(edge, peer, got, scan, false) {
                Some(verdict) => return Heard::Said(verdict),
                None => bytes.extend_from_slice(got),
            }
        } else {
            bytes.extend_from_slice(got);
            if let Some(verdict) = routes::judge(edge, peer, bytes, scan, false) {
                *bytes = Vec::new();
                return Heard::Said(verdict);
            }
        }
    }
}

fn hear_body(edge: &Edge, regular: &mut Regular, input: &mut [u8]) -> Heard {
    let got = match regular.receive(input) {
        None if regular.is_readable => return Heard::Again,
        None => return Heard::Waits,
        Some(0) => return Heard::Ended,
        Some(got) => &input[..got],
    };
    edge.count(|counters| {
        counters.reads += 1;
        counters.bytes_in += got.len() as u64;
    });
    match take_body(regular, got) {
        Ok(true) => Heard::Posted,
        Ok(false) if regular.is_readable => Heard::Again,
        Ok(false) => Heard::Waits,
        Err(refused) => Heard::Refused(refused),
    }
}

/// Takes what came of a body. Says whether it is whole.
fn take_body(regular: &mut Regular, bytes: &[u8]) -> Result<bool, BodyRefused> {
    let post = match &mut regular.stage {
        Stage::Posts(post) => post,
        Stage::Emits(emit) => {
            let used = emit.body.read(bytes)?;
            emit.ahead.extend_from_slice(&bytes[used..]);
            return Ok(emit.body.is_whole());
        }
        _ => return Ok(false),
    };
    let used = post.body.read(bytes)?;
    if !post.body.is_whole() {
        return Ok(false);
    }
    let Stage::Posts(post) = std::mem::replace(&mut regular.stage, Stage::asks(Vec::new())) else { return Ok(false) };
    regular.stage = Stage::IsHeard(Box::new(Posted::of(*post, bytes[used..].to_vec())));
    Ok(true)
}

/// Follows a request of a regular.
fn follow(edge: &Edge, key: Key, asked: Asked) {
    let Asked { what, manner, rest } = asked;
    match what {
        What::Answered(answer) => {
            keep(edge, key, rest);
            let keeps = manner.keeps;
            tell(edge, key, Answer { head: answer, body: b"", keeps, conn: None });
        }
        What::Open(candidate) => open_polled(edge, key, *candidate, manner, rest),
        What::Poll(conn) => park(edge, key, conn, manner, rest),
        What::Post { conn, body, expects } => {
            if !edge.begin_post(conn, key) {
                refuse(edge, key, "engine_request");
                return end_with(edge, key, &manner.refused(Refusal::Request));
            }
            bring(edge, key, Stage::Posts(Box::new(Post { conn, manner, body })), expects, &rest);
        }
        What::Emit { user, body, expects } => {
            let emit = Emit { user, manner, body, ahead: Vec::new() };
            bring(edge, key, Stage::Emits(Box::new(emit)), expects, &rest);
        }
        what => {
            if let Some(arrival) = leave(edge, key) {
                begin(edge, arrival, Asked { what, manner, rest });
            }
        }
    }
}

/// Keeps what came behind a request that is answered at once.
pub fn keep(edge: &Edge, key: Key, rest: Vec<u8>) {
    edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| regular.stage = Stage::asks(rest));
}

fn open_polled(edge: &Edge, key: Key, candidate: Candidate, mut manner: Manner, rest: Vec<u8>) {
    let settings = edge.engine(candidate.mount);
    let Some(conn) = edge.open_polled(candidate) else {
        refuse(edge, key, "full");
        return end_with(edge, key, &manner.denied(503, ErrorCode::Unavailable, FULL));
    };
    if let (Some(name), Some(sid)) = (&settings.cookie, edge.sid_of(conn)) {
        manner.cookie = Some(answers::cookie(name, &sid).into());
    }
    park(edge, key, conn, manner, rest);
}

/// Has a regular wait for packets.
fn park(edge: &Edge, key: Key, conn: ConnId, manner: Manner, ahead: Vec<u8>) {
    let refusal = manner.refused(Refusal::Request);
    if !ahead.is_empty() && !edge.regulars.borrow().has_room_ahead() {
        refuse(edge, key, "engine_full");
        return end_with(edge, key, &refusal);
    }
    let parked = Stage::Waits(Box::new(Parked { conn, manner, ahead, is_emit: false }));
    edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| regular.stage = parked);
    if !edge.poll(conn, key) {
        refuse(edge, key, "engine_request");
        end_with(edge, key, &refusal);
    }
}

/// Takes what has come of a body, and has the rest come.
fn bring(edge: &Edge, key: Key, stage: Stage, expects: bool, rest: &[u8]) {
    let is_empty = match &stage {
        Stage::Posts(post) => post.body.is_whole(),
        Stage::Emits(emit) => emit.body.is_whole(),
        _ => true,
    };
    let taken = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| {
        regular.stage = stage;
        let is_whole = take_body(regular, rest)?;
        if !is_whole && !is_empty && expects {
            // A socket that is empty takes so little.
            let _ = regular.socket.send(CONTINUE);
        }
        Ok(is_whole)
    });
    match taken {
        None => {}
        Some(Ok(true)) => hear_posted(edge, key),
        Some(Ok(false)) => {
            make_room(edge);
            list(edge, key);
        }
        Some(Err(refused)) => refuse_body(edge, key, refused),
    }
}

fn refuse_body(edge: &Edge, key: Key, refused: BodyRefused) {
    let answer = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| match &regular.stage {
        Stage::Posts(post) => Some(match refused {
            BodyRefused::TooLarge => {
                ("engine_too_large", post.manner.denied(413, ErrorCode::TooLarge, SESSION_TOO_LARGE))
            }
            BodyRefused::Malformed => ("engine_request", post.manner.refused(Refusal::Request)),
        }),
        Stage::Emits(emit) => Some(streams::refuse_body(&emit.manner, refused)),
        _ => None,
    });
    if let Some(Some((reason, answer))) = answer {
        refuse(edge, key, reason);
        end_with(edge, key, &answer);
    }
}

/// Has the core take what a regular brought, and answers when it has.
fn hear_posted(edge: &Edge, key: Key) {
    let emit = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| match &regular.stage {
        Stage::Emits(_) => match std::mem::replace(&mut regular.stage, Stage::asks(Vec::new())) {
            Stage::Emits(emit) => Some(emit),
            _ => None,
        },
        _ => None,
    });
    if let Some(Some(emit)) = emit {
        return streams::emit(edge, key, *emit);
    }
    let Some(taken) = edge.hear_posted(key) else { return };
    let answer = |manner: &Manner| match taken {
        Taken::Malformed => (manner.refused(Refusal::Request), false),
        Taken::Ended => (manner.refused(Refusal::Session), false),
        _ => (manner.ok(), manner.keeps),
    };
    match taken {
        Taken::Paused => {}
        Taken::Again => list(edge, key),
        Taken::Whole | Taken::Malformed | Taken::Ended => {
            let found = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| match &regular.stage {
                Stage::IsHeard(posted) => Some((posted.conn, answer(&posted.manner))),
                _ => None,
            });
            let Some(Some((conn, (head, keeps)))) = found else { return };
            edge.end_request(conn, key);
            edge.count(|counters| counters.engine_posts += 1);
            tell(edge, key, Answer { head, body: b"", keeps, conn: None });
        }
    }
}

/// Writes an answer to a regular that is not waiting for the core.
pub fn tell(edge: &Edge, key: Key, answer: Answer<'_>) {
    let written = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| regular.tell(answer));
    if let Some((written, took)) = written {
        edge.count_write(took);
        go_on(edge, key, written);
    }
}

/// Goes on with a regular to which an answer was written so far.
fn go_on(edge: &Edge, key: Key, written: Written) {
    match written {
        Written::Partly => make_room(edge),
        Written::Broken => drop_regular(edge, key),
        Written::Whole => {
            let has_more = edge.regulars.borrow_mut().with(key, edge.clock.now().at, |regular| regular.has_more());
            if has_more == Some(true) {
                list(edge, key);
            }
        }
        Written::Last => {
            if let Some(arrival) = leave(edge, key) {
                handshake::part(edge, arrival);
            }
        }
    }
}

/// Gives a socket to the shard that its request is for.
fn hand_over(edge: &Edge, arrival: Arrival, shard: ShardId, bytes: Vec<u8>, manner: &Manner) {
    if arrival.is_watched
        && let Err(error) = edge.forget_guest(&arrival.guest.socket)
    {
        log::warn!("shard {}: a socket cannot be handed over: {error}", edge.id.0);
        return;
    }
    let Arrival { guest, .. } = arrival;
    let asking = Box::new(Asking { socket: guest.socket, peer: guest.peer, bytes });
    match edge.doors[shard.index()].try_leave(Control::Asks(asking)) {
        Ok(()) => edge.count(|counters| counters.requests_out += 1),
        Err(Control::Asks(asking)) => {
            edge.refuse_from("engine_full", asking.peer.address);
            let message = "the server has too much waiting; try again later";
            let answer = manner.denied(503, ErrorCode::Unavailable, message);
            handshake::end(edge, Arrival::of(asking.socket, asking.peer, false), &answer);
        }
        Err(_) => unreachable!("the door gives back what it was given"),
    }
}

fn open_websocket(edge: &Edge, arrival: Arrival, websocket: WebSocket, rest: Vec<u8>, manner: &Manner) {
    let Arrival { guest, is_watched } = arrival;
    if let Err(socket) = edge.open_websocket(guest.socket, guest.peer, is_watched, websocket, rest) {
        edge.refuse_from("full", guest.peer.address);
        let answer = manner.denied(503, ErrorCode::Unavailable, FULL);
        handshake::end(edge, Arrival::of(socket, guest.peer, is_watched), &answer);
    }
}
