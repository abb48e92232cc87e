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
use super::extension::{self, Deflate};
use super::http::{self, Head};
use super::json;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// The native protocol in JSON, also spoken where none is offered.
pub const SUBPROTOCOL_JSON: &str = "ringroom.v1.json";
/// The same in MessagePack.
pub const SUBPROTOCOL_MSGPACK: &str = "ringroom.v1.msgpack";
/// What is spoken.
const SUBPROTOCOLS: [&str; 2] = [SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK];
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
    /// The offered compression that is spoken.
    pub deflate: Option<Deflate>,
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

/// The answer to somebody who comes too often: which limit it met, and after how long it may come
/// again.
pub fn limited(limit: &str, retry: Duration) -> Vec<u8> {
    limited_with(limit, retry, &[])
}

/// The same with more headers.
pub fn limited_with(limit: &str, retry: Duration, more: &[(&str, &str)]) -> Vec<u8> {
    limited_for(limit, "too many from your address; try again later", retry, more)
}

/// The same of another limit than an address's.
pub fn limited_for(limit: &str, message: &str, retry: Duration, more: &[(&str, &str)]) -> Vec<u8> {
    // Rounded up, so that whoever keeps to it is not too early.
    let retry_ms = retry.as_millis() as u64 + 1;
    let mut body = br#"{"error":{"code":"rate_limited","message":"#.to_vec();
    json::write_string(&mut body, message);
    body.extend_from_slice(br#","limit":"#);
    json::write_string(&mut body, limit);
    body.extend_from_slice(br#","retry_after_ms":"#);
    body.extend_from_slice(itoa::Buffer::new().format(retry_ms).as_bytes());
    body.extend_from_slice(b"}}");
    let mut seconds = itoa::Buffer::new();
    let mut headers =
        vec![("Content-Type", "application/json"), ("Retry-After", seconds.format(retry_ms.div_ceil(1_000)))];
    headers.extend_from_slice(more);
    http::response(429, &headers, &body, false)
}

/// Checks a request for the native protocol.
pub fn upgrade<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, Refused> {
    let upgrade = upgrade_plain(head)?;
    Ok(Upgrade { subprotocol: subprotocol(head)?, ..upgrade })
}

/// Checks a request for messages as they are. Subprotocols that it offers are left unanswered.
pub fn upgrade_plain<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, Refused> {
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
    if !offered(head).all(http::is_token) {
        return refuse("Sec-WebSocket-Protocol is malformed");
    }
    if !extension::are_well_formed(head) {
        return refuse("Sec-WebSocket-Extensions is malformed");
    }
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    Ok(Upgrade { accept, subprotocol: None, deflate: Deflate::of(head), token: Token::of(head) })
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
    let mut protocols = offered(head).filter(|offer| !offer.starts_with(SUBPROTOCOL_TOKEN_PREFIX)).peekable();
    if protocols.peek().is_none() {
        return Ok(None);
    }
    // The client's first choice that is spoken (`RFC 6455` section 4.1: it names them as it prefers them).
    match protocols.find_map(|offer| SUBPROTOCOLS.into_iter().find(|spoken| *spoken == offer)) {
        Some(spoken) => Ok(Some(spoken)),
        None => {
            let reason = "no offered subprotocol is spoken here; offer ringroom.v1.json, ringroom.v1.msgpack or none";
            Err(Refused::bad_request(reason))
        }
    }
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
    if let Some(deflate) = upgrade.deflate {
        http::put_header(&mut out, "Sec-WebSocket-Extensions", &deflate.answer());
    }
    out.extend_from_slice(b"\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::assembler::{Assembler, Event, MessageLimits};
    use crate::wire::codes::CloseCode;
    use crate::wire::deflate::Inflater;
    use crate::wire::frame;
    use crate::wire::http::parse_head;

    const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    #[test]
    fn a_limit_says_its_name_and_when_to_come_again() {
        let answer = String::from_utf8(limited("network.attempts", Duration::from_millis(1_999))).expect("text");
        assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 2\r\n") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(answer.ends_with(r#""limit":"network.attempts","retry_after_ms":2000}}"#), "{answer}");
    }

    /// The status of a request, 101 where it may become a WebSocket.
    fn status(text: &str) -> u16 {
        let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
        upgrade(&head).map_or_else(|refused| refused.status, |_| 101)
    }

    /// The request with a line replaced, or more lines added.
    fn with(line: &str, replacement: &str) -> String {
        assert!(REQUEST.contains(line));
        REQUEST.replacen(line, replacement, 1)
    }

    fn added(lines: &str) -> String {
        with("\r\n\r\n", &format!("\r\n{lines}\r\n\r\n"))
    }

    fn token(text: &str) -> Option<(String, TokenSource)> {
        let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
        upgrade(&head).expect("an upgrade").token.map(|token| (token.text.into_owned(), token.source))
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let head = parse_head(REQUEST.as_bytes()).expect("well formed").expect("whole");
        let upgrade = upgrade(&head).expect("an upgrade");
        assert_eq!((upgrade.subprotocol, upgrade.token.is_none()), (None, true));
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&accepted(&upgrade)), expected);
    }

    #[test]
    fn every_rule_of_the_handshake_is_kept() {
        for (text, expected) in [
            (with("GET /ws", "POST /ws"), 405),
            (with("HTTP/1.1", "HTTP/1.0"), 400),
            (with("Host: h\r\n", ""), 400),
            (with("Host: h", "Host:"), 400),
            (added("Host: h"), 400),
            (with("Upgrade: websocket\r\n", ""), 426),
            (with("Upgrade: websocket", "Upgrade: h2c"), 426),
            (with("Upgrade: websocket", "Upgrade: h2c, WebSocket"), 101),
            (with("keep-alive, Upgrade", "keep-alive"), 400),
            (with("Sec-WebSocket-Version: 13\r\n", ""), 426),
            (with("Version: 13", "Version: 8"), 426),
            (with("Version: 13", "Version: 13, 8"), 426),
            (added("Sec-WebSocket-Version: 13"), 400),
            (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
            (added("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
            (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), 400),
            (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), 400),
            (with("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!Q=="), 400),
            (added("Content-Length: 5"), 400),
            (added("Content-Length: 0"), 101),
            (added("Content-Length: 0\r\nContent-Length: 5"), 400),
            (added("Transfer-Encoding: chunked"), 400),
        ] {
            assert_eq!(status(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_refusal_says_in_json_what_to_do() {
        let text = with("Version: 13", "Version: 8");
        let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
        let answer = upgrade(&head).expect_err("an old version").response();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
        assert!(answer.contains("\r\nSec-WebSocket-Version: 13\r\n"), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(answer.contains(r#"{"error":{"code":"bad_request","message":"only version 13"#), "{answer}");
    }

    #[test]
    fn a_spoken_subprotocol_is_answered_and_an_unknown_one_refused() {
        let offer = |protocols: &str| added(&format!("Sec-WebSocket-Protocol: {protocols}"));
        let spoken = |text: &str| {
            let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
            upgrade(&head).map(|upgrade| upgrade.subprotocol).map_err(|refused| refused.status)
        };
        assert_eq!(spoken(&offer("ringroom.v1.json")), Ok(Some(SUBPROTOCOL_JSON)));
        assert_eq!(spoken(&offer("other, ringroom.v1.json")), Ok(Some(SUBPROTOCOL_JSON)));
        assert_eq!(spoken(&offer("other\r\nSec-WebSocket-Protocol: ringroom.v1.json")), Ok(Some(SUBPROTOCOL_JSON)));
        assert_eq!(spoken(&offer("other")), Err(400));
        assert_eq!(spoken(&offer("other, bearer.abc")), Err(400));
        assert_eq!(spoken(&offer("bearer.abc")), Ok(None));
        assert_eq!(spoken(&offer("ringroom.v1.json, ,")), Err(400));
        assert_eq!(spoken(&offer("ringroom.v1.json, a b")), Err(400));
        let text = offer("bearer.abc, ringroom.v1.json");
        let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
        let answer = accepted(&upgrade(&head).expect("an upgrade"));
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.contains("\r\nSec-WebSocket-Protocol: ringroom.v1.json\r\n") && !answer.contains("abc"),
            "{answer}"
        );
    }

    #[test]
    fn a_token_comes_from_the_first_of_its_places() {
        let query = |text: &str| text.replacen("/ws", "/ws?token=q%2B", 1);
        let subprotocol = added("Sec-WebSocket-Protocol: ringroom.v1.json, bearer.s.t-_");
        assert_eq!(token(&subprotocol), Some(("s.t-_".into(), TokenSource::Subprotocol)));
        let cookie = subprotocol.replacen("\r\n\r\n", "\r\nCookie: a=b; token=c\r\n\r\n", 1);
        assert_eq!(token(&cookie), Some(("c".into(), TokenSource::Cookie)));
        let header = cookie.replacen("\r\n\r\n", "\r\nAuthorization: BEARER h\r\n\r\n", 1);
        assert_eq!(token(&header), Some(("h".into(), TokenSource::Authorization)));
        assert_eq!(token(&query(&header)), Some(("q+".into(), TokenSource::Query)));
        assert_eq!(token(&header.replacen("/ws", "/ws?token=", 1)), Some(("h".into(), TokenSource::Authorization)));
        assert_eq!(token(&added("Authorization: Basic eDp5")), None);
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = Token { text: "secret".into(), source: TokenSource::Query };
        assert_eq!(format!("{token:?}"), "Token(Query, 6 bytes)");
    }

    /// A server on the other end of a second implementation's client.
    #[derive(Default)]
    struct Server {
        received: Vec<u8>,
        /// Where the frames begin, once the head was answered.
        head_len: Option<usize>,
        answer: std::collections::VecDeque<u8>,
    }

    impl std::io::Write for Server {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.received.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl std::io::Read for Server {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            if self.head_len.is_none() {
                let head = parse_head(&self.received).expect("well formed").expect("whole");
                self.answer.extend(accepted(&upgrade(&head).expect("an upgrade")));
                self.head_len = Some(head.len);
                let mut frames = Vec::new();
                for len in [5, 126, 65_536] {
                    frame::header(&mut frames, frame::TEXT, len);
                    frames.resize(frames.len() + len, b'x');
                }
                frame::close(&mut frames, CloseCode::Restart.as_u16(), "retry_ms=100");
                self.answer.extend(frames);
            }
            self.answer.read(out)
        }
    }

    #[test]
    fn a_second_implementations_client_opens_a_websocket_and_both_sides_understand_each_other() {
        let (mut client, answer) = tungstenite::client("ws://h/ws?token=t", Server::default()).expect("it opens");
        assert_eq!(answer.status(), 101);
        for len in [5, 126, 65_536] {
            assert_eq!(client.read().expect("a text").to_text().map(str::len).ok(), Some(len));
        }
        client.send("hello".into()).expect("sent");
        let closed = client.read().expect("a close");
        let tungstenite::Message::Close(Some(close)) = closed else { panic!("{closed:?}") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (1012, "retry_ms=100"));
        let server = client.get_mut();
        let mut at = server.head_len.expect("answered");
        let mut assembler = Assembler::new(MessageLimits::default());
        let mut inflater = Inflater::default();
        let event = assembler.next(&mut server.received, &mut at, &mut inflater);
        assert_eq!(event, Ok(Some(Event::Text(&mut b"hello".to_owned()))));
    }
}
