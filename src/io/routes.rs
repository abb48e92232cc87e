//! What a request is for, and whether whoever asks may have it: the path, the page that asks, the limits of its
//! address, the token, the limits of its user, in this order. Invariant: what is judged here has no effect but on
//! what is counted, and no token is looked at while its address may not have that.

use crate::admission::identity::Identity;
use crate::admission::origins::{Allowed, Asked};
use crate::admission::token::TokenRefused;
use crate::io::callers::{Caller, Kind};
use crate::io::control::Held;
use crate::io::edge::Edge;
use crate::io::engine;
use crate::io::entrance::{Entrance, Peer, Source};
use crate::io::handshake::{Admit, Verdict};
use crate::io::streams;
use crate::wire::codes::{CloseCode, ErrorCode};
use crate::wire::dialect::{DialectId, NATIVE_JSON, NATIVE_MSGPACK};
use crate::wire::frame;
use crate::wire::handshake::{self as wire, Token, TokenSource, Upgrade};
use crate::wire::http::{self, Head, HeadScan};
use std::net::IpAddr;
use std::time::Duration;

/// What somebody without a token is called, for showing to people.
pub const LABEL_QUERY: &str = "userId";
const JSON: (&str, &str) = ("Content-Type", "application/json");
/// When one may ask again whose address or user has all connections that it may have: nobody knows
/// when one of them ends.
pub const CONNS_RETRY: Duration = Duration::from_secs(5);
pub const GOING_AWAY: &str = "the server is going away; connect again and reach another";
pub const FOREIGN_COOKIE: &str =
    "a cookie counts only from pages that are listed or of this host; send the token in the query or a header";
pub const TOO_OFTEN: &str = "this user connects too often (limits.attempts_per_user)";
pub const TOO_MANY: &str = "this user has as many connections as it may (limits.conns_per_user); close one first";

/// What becomes of the request that begins with `bytes`; `None`: its head has not ended. `is_first`: of
/// its socket.
pub fn judge(edge: &Edge, peer: Peer, bytes: &[u8], scan: &mut HeadScan, is_first: bool) -> Option<Verdict> {
    if !scan.is_complete(bytes) {
        return None;
    }
    match http::parse_head(bytes) {
        Ok(None) => None,
        Ok(Some(head)) => Some(route(edge, peer, &head, bytes, is_first)),
        Err(error) => {
            edge.refuse_from("head", peer.address);
            let body = wire::error_body(ErrorCode::BadRequest, error.message());
            Some(Verdict::Answer(http::response(error.status(), &[JSON], &body, false)))
        }
    }
}

fn route(edge: &Edge, peer: Peer, head: &Head<'_>, bytes: &[u8], is_first: bool) -> Verdict {
    let entrance = &*edge.entrance.borrow();
    let source = entrance.source(peer, head);
    let client = source.client;
    let verdict = route_of(edge, entrance, source, head, bytes, is_first);
    edge.audit_refusal(client, head.header("origin"));
    verdict
}

fn route_of(
    edge: &Edge,
    entrance: &Entrance,
    source: Source,
    head: &Head<'_>,
    bytes: &[u8],
    is_first: bool,
) -> Verdict {
    let rest = &bytes[head.len..];
    let mount = edge.mount_at(head.path);
    if source.is_malformed {
        edge.count(|counters| counters.forwarded_malformed += 1);
    }
    let caller = entrance.is_limited(source.client).then(|| edge.callers.address(source.client, edge.clock.now().at));
    if source.is_proxied {
        // What the proxy's own socket could not be asked.
        if !entrance.admits(source.client) {
            return refuse(edge, "network", 403, ErrorCode::Forbidden, "connections from your network are not served");
        }
        // A client that polls asks as often as it has something to say: only for a session it comes anew.
        if !is_asked_again(mount, head.path)
            && let (Some(caller), Some(rate)) = (caller, entrance.attempts)
            && let Err(retry) = edge.callers.attempt(caller, rate, edge.clock.now().at)
        {
            return limited(edge, "attempts", "network.attempts", retry);
        }
    }
    let visit = Visit { entrance, client: source.client, caller, scheme: source.scheme, endpoint: None };
    if let Some(mount) = mount {
        let is_counted = is_first && !source.is_proxied;
        let asked = engine::requests::judge(edge, &visit, mount, head, bytes, is_counted);
        return Verdict::Engine(Box::new(asked));
    }
    match head.path {
        "/ws" => upgrade(edge, &visit, head, rest),
        streams::PATH => streams::judge(edge, &visit, head, rest),
        streams::EMIT_PATH => Verdict::Engine(Box::new(streams::judge_emit(edge, &visit, head, rest))),
        "/health" if head.method == "GET" => {
            Verdict::Answer(http::response(200, &[JSON], br#"{"status":"ok"}"#, false))
        }
        "/health" => refuse(edge, "method", 405, ErrorCode::BadRequest, "ask for /health with GET"),
        path => match edge.endpoint_at(path) {
            Some(endpoint) => {
                let visit = Visit { endpoint: Some(endpoint), ..visit };
                upgrade(edge, &visit, head, rest)
            }
            None => refuse(edge, "path", 404, ErrorCode::NotFound, "nothing is served at this path; connect to /ws"),
        },
    }
}

/// Whether one client asks there again and again.
fn is_asked_again(mount: Option<DialectId>, path: &str) -> bool {
    mount.is_some() || path == streams::EMIT_PATH
}

/// Who asks, under which rules.
pub struct Visit<'a> {
    pub entrance: &'a Entrance,
    pub client: IpAddr,
    /// `None`: no limit of addresses applies.
    pub caller: Option<Caller>,
    scheme: Option<&'static str>,
    /// Of an application; `None`: the native protocol's.
    endpoint: Option<DialectId>,
}

pub fn refuse(edge: &Edge, reason: &'static str, status: u16, code: ErrorCode, message: &str) -> Verdict {
    edge.refuse(reason);
    Verdict::Answer(http::response(status, &[JSON], &wire::error_body(code, message), false))
}

fn limited(edge: &Edge, reason: &'static str, limit: &str, retry: Duration) -> Verdict {
    edge.refuse(reason);
    Verdict::Answer(wire::limited(limit, retry))
}

/// Completes the upgrade and closes: browsers show a page nothing of a refused upgrade, but the code
/// of a close.
fn close(edge: &Edge, reason: &'static str, mut answer: Vec<u8>, code: CloseCode, why: &str) -> Verdict {
    edge.refuse(reason);
    frame::close(&mut answer, code.as_u16(), why);
    Verdict::Answer(answer)
}

fn upgrade(edge: &Edge, visit: &Visit<'_>, head: &Head<'_>, rest: &[u8]) -> Verdict {
    let checked = if visit.endpoint.is_some() { wire::upgrade_plain(head) } else { wire::upgrade(head) };
    let upgrade = match checked {
        Ok(upgrade) if !edge.compresses() => Upgrade { deflate: None, ..upgrade },
        Ok(upgrade) => upgrade,
        Err(refused) => {
            edge.refuse("upgrade");
            return Verdict::Answer(refused.response());
        }
    };
    if edge.is_draining() {
        return going_away(edge);
    }
    if let Some(refused) = foreign(edge, visit, head, upgrade.token.as_ref()) {
        return refused;
    }
    let answer = wire::accepted(&upgrade);
    let plain = match (visit.endpoint, upgrade.subprotocol) {
        (Some(endpoint), _) => endpoint,
        (None, Some(wire::SUBPROTOCOL_MSGPACK)) => NATIVE_MSGPACK,
        (None, _) => NATIVE_JSON,
    };
    let dialect = upgrade.deflate.map_or(plain, |deflate| plain.compressed(deflate.window));
    let (identity, held) = match let_in(edge, visit, head, upgrade.token.as_ref()) {
        Ok(let_in) => let_in,
        Err(Denied::Address { reason, limit, retry }) => return limited(edge, reason, limit, retry),
        Err(Denied::Token(refused)) => {
            return close(edge, refused.reason(), answer, CloseCode::Unauthorized, &refused.to_string());
        }
        Err(Denied::Attempts(retry)) => {
            let why = format!("{TOO_OFTEN}; try again: retry_ms={}", retry.as_millis() + 1);
            return close(edge, "attempts_per_user", answer, CloseCode::RateLimited, &why);
        }
        Err(Denied::Conns) => return close(edge, "conns_per_user", answer, CloseCode::RateLimited, TOO_MANY),
    };
    let (client, rest) = (visit.client, rest.to_vec());
    Verdict::Admit(Box::new(Admit { answer, dialect, identity, client, held, rest, stream: None }))
}

/// Why somebody is not let in.
pub enum Denied {
    Address {
        reason: &'static str,
        limit: &'static str,
        retry: Duration,
    },
    Token(TokenRefused),
    /// Its user comes too often.
    Attempts(Duration),
    /// Its user has as many connections as it may.
    Conns,
}

/// Who comes with this token, if the limits of its address and its user have room for it.
pub fn let_in(
    edge: &Edge,
    visit: &Visit<'_>,
    head: &Head<'_>,
    token: Option<&Token<'_>>,
) -> Result<(Identity, Held), Denied> {
    let Visit { entrance, caller, .. } = *visit;
    let now = edge.clock.now().at;
    let mut held = Held::default();
    if let Some(caller) = caller {
        if let Some(rate) = entrance.failures
            && let Err(retry) = edge.callers.may_fail(caller, rate, now)
        {
            return Err(Denied::Address { reason: "failures", limit: "network.failures", retry });
        }
        if let Some(most) = entrance.conns_per_address {
            let (counted, before) = edge.callers.count(caller, Kind::Open);
            held.address = Some(counted);
            if before >= most {
                let (reason, limit) = ("conns_per_address", "network.conns_per_address");
                return Err(Denied::Address { reason, limit, retry: CONNS_RETRY });
            }
        }
    }
    let verified = match token {
        Some(Token { text, .. }) => edge.verify(text),
        None if visit.endpoint.is_some() => Ok(Identity::guest()),
        None => edge.anonymous(head.query_value(LABEL_QUERY).as_deref()).ok_or(TokenRefused::Missing),
    };
    let identity = verified.map_err(|refused| {
        if let (Some(caller), Some(rate)) = (caller, entrance.failures) {
            edge.callers.fail(caller, rate, now);
        }
        Denied::Token(refused)
    })?;
    if let Some(rate) = entrance.attempts_per_user.filter(|_| !identity.is_guest()) {
        let caller = edge.callers.user(identity.tenant(), &identity.user, now);
        edge.callers.attempt(caller, rate, now).map_err(Denied::Attempts)?;
    }
    if let Some(most) = entrance.conns_per_user.filter(|_| !identity.is_guest()) {
        held.user = Some(edge.users.enter(identity.tenant(), &identity.user, most).ok_or(Denied::Conns)?);
    }
    Ok((identity, held))
}

/// The page that asks.
pub struct Page {
    /// `None`: it may not.
    pub allowed: Option<Allowed>,
    /// What it is told then.
    pub message: &'static str,
}

pub fn page_of(visit: &Visit<'_>, head: &Head<'_>) -> Page {
    let mut origins = head.headers_named("origin");
    let origin = origins.next();
    // Two are none that anybody knows.
    let origin = if origins.next().is_some() { Some("") } else { origin };
    let asked = Asked { origin, host: head.header("host").unwrap_or(""), scheme: visit.scheme };
    let message = "pages of this origin may not connect; the operator lists those that may in network.origins";
    Page { allowed: visit.entrance.origins.judge(asked), message }
}

/// The refusal of a page that may not connect, or whose cookies may not.
fn foreign(edge: &Edge, visit: &Visit<'_>, head: &Head<'_>, token: Option<&Token<'_>>) -> Option<Verdict> {
    let page = page_of(visit, head);
    let message = match page.allowed {
        None => page.message,
        Some(Allowed::Any) if token.is_some_and(|token| token.source == TokenSource::Cookie) => FOREIGN_COOKIE,
        Some(_) => return None,
    };
    Some(refuse(edge, "origin", 403, ErrorCode::Forbidden, message))
}

pub fn going_away(edge: &Edge) -> Verdict {
    refuse(edge, "draining", 503, ErrorCode::Unavailable, GOING_AWAY)
}
