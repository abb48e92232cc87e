//! The server's side of the WebSocket handshake, `RFC 6455` section 4.2, and where a token may be
//! in a request head. Invariant: an [`Upgrade`] comes only from a request that keeps every rule;
//! a doubtful one (two keys, two hosts, a body) is refused, never guessed at.
//!
//! A token is taken from the first of these that is there:
//! 1. the query parameter `token`,
//! 2. `Authorization: Bearer <token>`,
//! 3. the cookie `token`,
//! 4. an offered subprotocol `bearer.<token>`, for browsers, which can set none of the headers:
//!    `new WebSocket(url, ["ringroom.v1.json", "bearer." + token])`. It is no protocol and never
//!    answered; offer a real one beside it, since browsers fail a connection that answers none.

use super::codes::ErrorCode;
use super::http::{self, Head};
use super::json;
use std::borrow::Cow;
use std::fmt;

/// The native protocol in JSON, also spoken where none is offered.
pub const SUBPROTOCOL_JSON: &str = "ringroom.v1.json";
/// Before a token that is offered as a subprotocol.
pub const SUBPROTOCOL_TOKEN_PREFIX: &str = "bearer.";
pub const TOKEN_QUERY: &str = "token";
pub const TOKEN_COOKIE: &str = "token";

/// Where a token was found. A cookie comes with every request of a browser, whoever wrote the
/// page, so its origin has to be checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenSource {
    Query,
    Authorization,
    Cookie,
    Subprotocol,
}

/// An unchecked token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token<'a> {
    pub text: Cow<'a, str>,
    pub source: TokenSource,
}

/// A token is a secret: logs are told where it came from only.
impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:?}, {} bytes)", self.source, self.text.len())
    }
}

impl<'a> Token<'a> {
    /// The token of any request, in the order of the module's list. An empty one is none.
    pub fn of(head: &Head<'a>) -> Option<Token<'a>> {
        let query = || head.query_value(TOKEN_QUERY).map(|text| (text, TokenSource::Query));
        let authorization = || {
            let (scheme, text) = head.header("authorization")?.split_once(' ')?;
            let is_bearer = scheme.eq_ignore_ascii_case("bearer");
            is_bearer.then(|| (Cow::Borrowed(text.trim()), TokenSource::Authorization))
        };
        let cookie = || head.cookie(TOKEN_COOKIE).map(|text| (Cow::Borrowed(text), TokenSource::Cookie));
        let subprotocol = || {
            let text = offered(head).find_map(|offer| offer.strip_prefix(SUBPROTOCOL_TOKEN_PREFIX))?;
            Some((Cow::Borrowed(text), TokenSource::Subprotocol))
        };
        let there = |found: &(Cow<'a, str>, TokenSource)| !found.0.is_empty();
        query()
            .filter(there)
            .or_else(|| authorization().filter(there))
            .or_else(|| cookie().filter(there))
            .or_else(|| subprotocol().filter(there))
            .map(|(text, source)| Token { text, source })
    }
}

/// The offered subprotocols, one by one.
fn offered<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a str> {
    head.headers_named("sec-websocket-protocol").flat_map(|value| value.split(',')).map(str::trim)
}

/// A request that may become a WebSocket.
#[derive(Debug)]
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Accept`.
    pub accept: String,
    /// The offered subprotocol that is spoken; `None` where none was offered.
    pub subprotocol: Option<&'static str>,
    pub token: Option<Token<'a>>,
}

/// A request that must not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    pub status: u16,
    pub reason: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
}

impl Refused {
    fn bad_request(reason: &'static str) -> Refused {
        Refused { status: 400, reason, headers: &[] }
    }

    /// The whole answer; the connection ends with it.
    pub fn response(&self) -> Vec<u8> {
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend_from_slice(self.headers);
        http::response(self.status, &headers, &error_body(ErrorCode::BadRequest, self.reason), false)
    }
}

/// `{"error":{"code":..,"message":..}}`, the body of every refusal over HTTP.
pub fn error_body(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut body = br#"{"error":{"code":"#.to_vec();
    json::write_string(&mut body, code.as_str());
    body.extend_from_slice(br#","message":"#);
    json::write_string(&mut body, message);
    body.extend_from_slice(b"}}");
    body
}

/// Checks an upgrade request.
pub fn upgrade<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, Refused> {
    let refuse = |reason| Err(Refused::bad_request(reason));
    if head.method != "GET" {
        return Err(Refused { status: 405, reason: "a WebSocket is opened with GET", headers: &[("Allow", "GET")] });
    }
    if head.minor_version == 0 {
        return refuse("a WebSocket needs HTTP/1.1");
    }
    if only(head, "host").is_none_or(str::is_empty) {
        return refuse("send exactly one Host header");
    }
    if !head.lists("upgrade", "websocket") {
        return Err(Refused {
            status: 426,
            reason: "this path speaks WebSocket: send Upgrade: websocket",
            headers: &[("Upgrade", "websocket")],
        });
    }
    if !head.lists("connection", "upgrade") {
        return refuse("send Connection: Upgrade");
    }
    if head.headers_named("sec-websocket-version").count() > 1 {
        return refuse("send one Sec-WebSocket-Version");
    }
    if head.header("sec-websocket-version") != Some("13") {
        return Err(Refused {
            status: 426,
            reason: "only version 13 of WebSocket is spoken here",
            headers: &[("Sec-WebSocket-Version", "13")],
        });
    }
    let Some(key) = only(head, "sec-websocket-key").filter(|key| is_key(key)) else {
        return refuse("send exactly one Sec-WebSocket-Key: 16 bytes in base64");
    };
    let has_length = head.headers_named("content-length").any(|len| len != "0");
    if has_length || head.header("transfer-encoding").is_some() {
        return refuse("an upgrade request has no body");
    }
    let subprotocol = subprotocol(head)?;
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    Ok(Upgrade { accept, subprotocol, token: Token::of(head) })
}

/// The value of a header that is there exactly once.
fn only<'a>(head: &Head<'a>, name: &str) -> Option<&'a str> {
    let mut values = head.headers_named(name);
    values.next().filter(|_| values.next().is_none())
}

/// 16 bytes in base64 are 22 digits and two signs of padding.
fn is_key(key: &str) -> bool {
    key.strip_suffix("==").is_some_and(|digits| {
        digits.len() == 22 && digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
    })
}

fn subprotocol(head: &Head<'_>) -> Result<Option<&'static str>, Refused> {
    if head.header("sec-websocket-protocol").is_none() {
        return Ok(None);
    }
    if !offered(head).all(is_http_token) {
        return Err(Refused::bad_request("Sec-WebSocket-Protocol is malformed"));
    }
    let mut protocols = offered(head).filter(|offer| !offer.starts_with(SUBPROTOCOL_TOKEN_PREFIX)).peekable();
    if protocols.peek().is_none() {
        return Ok(None);
    }
    if protocols.any(|offer| offer == SUBPROTOCOL_JSON) {
        return Ok(Some(SUBPROTOCOL_JSON));
    }
    Err(Refused::bad_request("no offered subprotocol is spoken here; offer ringroom.v1.json or none"))
}

/// `RFC 9110` section 5.6.2.
fn is_http_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// The answer that makes the connection a WebSocket.
pub fn accepted(upgrade: &Upgrade<'_>) -> Vec<u8> {
    let mut out = http::status_line(101);
    http::put_header(&mut out, "Upgrade", "websocket");
    http::put_header(&mut out, "Connection", "Upgrade");
    http::put_header(&mut out, "Sec-WebSocket-Accept", &upgrade.accept);
    if let Some(subprotocol) = upgrade.subprotocol {
        http::put_header(&mut out, "Sec-WebSocket-Protocol", subprotocol);
    }
    out.extend_from_slice(b"\r\n");
    out
}
