//! What a request at a path of Engine.IO asks for. The order of the questions is that of Node's engine, so
//! that whoever gets one of them wrong is told the same.
//! Invariant: what is judged here has no effect but on the counts of its address, and a request that is
//! doubtful (a body where none belongs, two hosts) is refused with the end of its connection.

use crate::admission::identity::Identity;
use crate::admission::names::User;
use crate::admission::origins::Allowed;
use crate::admission::token::TokenRefused;
use crate::io::callers::Kind;
use crate::io::control::Held;
use crate::io::edge::Edge;
use crate::io::engine::answers::{Manner, Refusal};
use crate::io::routes::{CONNS_RETRY, FOREIGN_COOKIE, GOING_AWAY, LABEL_QUERY, Page, Visit, page_of};
use crate::kernel::ids::{ConnId, ShardId};
use crate::shard::Spoken;
use crate::wire::body::{Body, BodyRefused};
use crate::wire::codes::{CloseCode, ErrorCode};
use crate::wire::dialect::DialectId;
use crate::wire::engine::Sid;
use crate::wire::frame;
use crate::wire::handshake::{self as wire, Token, TokenSource, Upgrade};
use crate::wire::http::{self, Head};
use std::net::IpAddr;

pub const VERSION: &str = "4";
pub const SESSION_TOO_LARGE: &str = "the body is larger than this server takes (maxPayload)";

/// A request, and how its answer is written.
pub struct Asked {
    pub what: What,
    pub manner: Manner,
    /// What came behind its head.
    pub rest: Vec<u8>,
}

pub enum What {
    /// This answer; whether the connection is kept the manner says.
    Answered(Vec<u8>),
    /// This answer, and the end of the connection.
    Refused(Vec<u8>),
    /// It is for this shard to hear, from its first byte on.
    Elsewhere(ShardId, Vec<u8>),
    /// A session, and its first packets.
    Open(Box<Candidate>),
    /// A WebSocket: of a session of its own, or to take one over.
    WebSocket(Box<WebSocket>),
    Poll(ConnId),
    Post {
        conn: ConnId,
        body: Body,
        /// The client waits for leave to send it.
        expects: bool,
    },
    /// A request for a stream; the body says which.
    Emit {
        user: Option<User>,
        body: Body,
        expects: bool,
    },
}

/// Who wants a session.
pub struct Candidate {
    pub mount: DialectId,
    pub identity: Identity,
    pub refused: Option<TokenRefused>,
    pub client: IpAddr,
    pub held: Held,
}

pub struct WebSocket {
    /// The 101.
    pub answer: Vec<u8>,
    /// The path's, compressed where that was agreed on.
    pub dialect: DialectId,
    pub of: Of,
}

/// What a WebSocket is for.
pub enum Of {
    Session(Candidate),
    /// It is to take over this one's polling.
    Probe(ConnId),
}

/// What `bytes` ask for, which begin with `head`. `is_counted`: as an attempt of its address, by its socket.
pub fn judge(
    edge: &Edge,
    visit: &Visit<'_>,
    mount: DialectId,
    head: &Head<'_>,
    bytes: &[u8],
    is_counted: bool,
) -> Asked {
    let rest = &bytes[head.len..];
    let (manner, what) = match page_of(visit, head) {
        Page { allowed: None, message } => {
            edge.refuse("origin");
            let body = wire::error_body(ErrorCode::Forbidden, message);
            let manner = Manner::of(head, Allowed::NoPage, false);
            (manner, Ok(What::Refused(http::response(403, &[("Content-Type", "application/json")], &body, false))))
        }
        Page { allowed: Some(allowed), .. } => {
            let manner = Manner::of(head, allowed, !edge.is_draining());
            let request = Request { edge, visit, mount, head, bytes, is_counted, allowed, manner: &manner };
            let what = request.what();
            (manner, what)
        }
    };
    let what = what.unwrap_or_else(|refusal| {
        edge.refuse(refusal.reason());
        // Where a body may follow, the next request might be found in it, or in what follows an upgrade that fails; and
        // of two hosts one is a proxy's mistake.
        let is_clear = !has_body(head) && head.header("upgrade").is_none() && !is_of_unclear_host(head);
        match manner.keeps && is_clear {
            true => What::Answered(manner.refused_for_now(refusal)),
            false => What::Refused(manner.refused(refusal)),
        }
    });
    let rest = if matches!(what, What::Refused(_) | What::Elsewhere(..)) { Vec::new() } else { rest.to_vec() };
    Asked { what, manner, rest }
}

pub fn has_body(head: &Head<'_>) -> bool {
    head.header("transfer-encoding").is_some() || head.headers_named("content-length").any(|length| length != "0")
}

/// Whether nobody can say which host is asked (`RFC 9112` section 3.2).
pub fn is_of_unclear_host(head: &Head<'_>) -> bool {
    let hosts = head.headers_named("host").count();
    hosts > 1 || hosts == 0 && head.minor_version > 0
}

/// Whether the query has this name, with a value that can be read or without.
pub fn names(head: &Head<'_>, name: &str) -> bool {
    let mut pairs = head.query.unwrap_or_default().split('&');
    pairs.any(|pair| pair.split('=').next() == Some(name))
}

struct Request<'a> {
    edge: &'a Edge,
    visit: &'a Visit<'a>,
    mount: DialectId,
    head: &'a Head<'a>,
    bytes: &'a [u8],
    is_counted: bool,
    allowed: Allowed,
    manner: &'a Manner,
}

impl Request<'_> {
    fn what(&self) -> Result<What, Refusal> {
        let Request { head, edge, .. } = *self;
        if is_of_unclear_host(head) || has_body(head) && head.method != "POST" {
            return Err(Refusal::Request);
        }
        if head.method == "OPTIONS" {
            return Ok(What::Answered(self.manner.preflight(head)));
        }
        let is_websocket = match head.query_value("transport").as_deref() {
            Some("polling") => false,
            Some("websocket") => true,
            _ => return Err(Refusal::Transport),
        };
        if head.query_value("EIO").as_deref() != Some(VERSION) {
            return Err(Refusal::Version);
        }
        if is_websocket != head.lists("upgrade", "websocket") && head.method == "GET" {
            return Err(Refusal::Request);
        }
        let Some(sid) = head.query_value("sid") else {
            if names(head, "sid") {
                return Err(Refusal::Session);
            }
            return match (head.method, is_websocket) {
                ("GET", true) => self.open_websocket(),
                ("GET", false) => {
                    Ok(self.candidate().map_or_else(What::Refused, |candidate| What::Open(Box::new(candidate))))
                }
                _ => Err(Refusal::Method),
            };
        };
        let sid = Sid::parse(&sid).filter(|sid| usize::from(sid.shard) < edge.doors.len()).ok_or(Refusal::Session)?;
        if sid.shard != edge.id.0 {
            return Ok(What::Elsewhere(ShardId(sid.shard), self.bytes.to_vec()));
        }
        let (conn, spoken) = edge.session(self.mount, &sid).ok_or(Refusal::Session)?;
        match (head.method, is_websocket, spoken) {
            ("GET", true, Spoken::Polling) => self.probe(conn),
            // Browsers tell pages of nothing but a WebSocket's end.
            ("GET", true, _) => {
                let (mut answer, _) = self.upgrade()?;
                edge.refuse(Refusal::Request.reason());
                frame::close(&mut answer, CloseCode::BadRequest.as_u16(), "the session has its WebSocket");
                Ok(What::Refused(answer))
            }
            ("GET", false, Spoken::Polling | Spoken::Upgrading) => Ok(What::Poll(conn)),
            ("POST", false, Spoken::Polling | Spoken::Upgrading) => self.post(conn),
            ("GET" | "POST", ..) => Err(Refusal::Request),
            _ => Err(Refusal::Method),
        }
    }

    fn post(&self, conn: ConnId) -> Result<What, Refusal> {
        let Request { head, edge, manner, .. } = *self;
        let expects = head.header("expect");
        if expects.is_some_and(|expects| !expects.eq_ignore_ascii_case("100-continue")) {
            return Err(Refusal::Request);
        }
        match Body::of(head, edge.engine(self.mount).payload_bytes) {
            Ok(body) => Ok(What::Post { conn, body, expects: expects.is_some() && head.minor_version > 0 }),
            Err(BodyRefused::TooLarge) => {
                edge.refuse("engine_too_large");
                Ok(What::Refused(manner.denied(413, ErrorCode::TooLarge, SESSION_TOO_LARGE)))
            }
            Err(BodyRefused::Malformed) => Err(Refusal::Request),
        }
    }

    /// The upgrade, with compression where the path wants any.
    fn upgrade(&self) -> Result<(Vec<u8>, DialectId), Refusal> {
        let upgrade = wire::upgrade_plain(self.head).map_err(|_| Refusal::Request)?;
        let may_compress = self.edge.compresses() && self.edge.engine(self.mount).compression;
        let deflate = upgrade.deflate.filter(|_| may_compress);
        let dialect = deflate.map_or(self.mount, |deflate| self.mount.compressed(deflate.window));
        Ok((wire::accepted(&Upgrade { deflate, ..upgrade }), dialect))
    }

    fn open_websocket(&self) -> Result<What, Refusal> {
        let (answer, dialect) = self.upgrade()?;
        Ok(self.candidate().map_or_else(What::Refused, |candidate| {
            What::WebSocket(Box::new(WebSocket { answer, dialect, of: Of::Session(candidate) }))
        }))
    }

    /// It is not counted: its session is, and has one at a time.
    fn probe(&self, session: ConnId) -> Result<What, Refusal> {
        let (answer, dialect) = self.upgrade()?;
        Ok(What::WebSocket(Box::new(WebSocket { answer, dialect, of: Of::Probe(session) })))
    }

    /// Who wants a session, or the answer that it gets.
    fn candidate(&self) -> Result<Candidate, Vec<u8>> {
        let Request { edge, visit, mount, head, allowed, manner, .. } = *self;
        let limited = |reason, limit: &str, retry| {
            edge.refuse(reason);
            Err(manner.limited(limit, retry))
        };
        if edge.is_draining() {
            edge.refuse("draining");
            return Err(manner.denied(503, ErrorCode::Unavailable, GOING_AWAY));
        }
        let token = Token::of(head);
        if allowed == Allowed::Any && token.as_ref().is_some_and(|token| token.source == TokenSource::Cookie) {
            edge.refuse("origin");
            return Err(manner.denied(403, ErrorCode::Forbidden, FOREIGN_COOKIE));
        }
        let mut held = Held::default();
        let now = edge.clock.now().at;
        if let Some(caller) = visit.caller {
            if !self.is_counted
                && let Some(rate) = visit.entrance.attempts
                && let Err(retry) = edge.callers.attempt(caller, rate, now)
            {
                return limited("attempts", "network.attempts", retry);
            }
            if let Some(rate) = visit.entrance.failures
                && let Err(retry) = edge.callers.may_fail(caller, rate, now)
            {
                return limited("failures", "network.failures", retry);
            }
            if let Some(most) = visit.entrance.conns_per_address {
                let (counted, before) = edge.callers.count(caller, Kind::Open);
                held.address = Some(counted);
                if before >= most {
                    return limited("conns_per_address", "network.conns_per_address", CONNS_RETRY);
                }
            }
        }
        // A bad token is refused, and counted, where it is used: as the client enters a namespace.
        let (identity, refused) = match token {
            Some(Token { text, .. }) => match edge.verify(&text) {
                Ok(identity) => (identity, None),
                Err(refused) => (Identity::guest(), Some(refused)),
            },
            None => {
                let anonymous = edge.anonymous(head.query_value(LABEL_QUERY).as_deref());
                (anonymous.unwrap_or_else(Identity::guest), None)
            }
        };
        Ok(Candidate { mount, identity, refused, client: visit.client, held })
    }
}
