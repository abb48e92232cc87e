//! Answers to HTTP requests of Engine.IO clients, and what their pages may read of them
//! (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//! Invariant: a page may send its cookies along only where it is listed or of this host, never because
//! any page is allowed; and no request ends a header of its answer.

use crate::admission::origins::Allowed;
use crate::base::limits::{CORS_HEADERS_BYTES_MAX, CORS_HEADERS_MAX};
use crate::wire::codes::{ErrorCode, Limit, WireError};
use crate::wire::encode;
use crate::wire::engine::Sid;
use crate::wire::handshake;
use crate::wire::http::{self, Head};
use std::time::Duration;

/// What tells a client its session in a cookie, for proxies that choose servers by one.
pub fn cookie(name: &str, sid: &Sid) -> String {
    format!("{name}={}; Path=/; HttpOnly; SameSite=Lax", sid.text())
}

/// How an answer is written.
#[derive(Clone, Debug)]
pub struct Manner {
    /// The page that asked.
    origin: Option<Box<str>>,
    is_known: bool,
    /// Whether the next request is waited for.
    pub keeps: bool,
    /// A cookie to be set.
    pub cookie: Option<Box<str>>,
}

/// What Node's engine answers: clients print it, and some look at the number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    Transport,
    Session,
    Method,
    Request,
    Version,
}

impl Refusal {
    fn body(self) -> &'static [u8] {
        match self {
            Refusal::Transport => br#"{"code":0,"message":"Transport unknown"}"#,
            Refusal::Session => br#"{"code":1,"message":"Session ID unknown"}"#,
            Refusal::Method => br#"{"code":2,"message":"Bad handshake method"}"#,
            Refusal::Request => br#"{"code":3,"message":"Bad request"}"#,
            Refusal::Version => br#"{"code":5,"message":"Unsupported protocol version"}"#,
        }
    }

    /// For counters.
    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Transport => "engine_transport",
            Refusal::Session => "engine_session",
            Refusal::Method => "engine_method",
            Refusal::Request => "engine_request",
            Refusal::Version => "engine_version",
        }
    }
}

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=UTF-8");
const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

impl Manner {
    /// To a request of a page that is `allowed` by the rules of origins.
    pub fn of(head: &Head<'_>, allowed: Allowed, may_keep: bool) -> Manner {
        let origin = head.header("origin").filter(|_| allowed != Allowed::NoPage);
        Manner {
            origin: origin.map(Box::from),
            is_known: allowed == Allowed::Known,
            keeps: may_keep && head.keeps_alive(),
            cookie: None,
        }
    }

    fn headers<'a>(&'a self, own: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut headers = own.to_vec();
        if let Some(origin) = &self.origin {
            headers.extend([("Access-Control-Allow-Origin", &**origin), ("Vary", "Origin")]);
            if self.is_known {
                headers.push(("Access-Control-Allow-Credentials", "true"));
            }
        }
        if let Some(cookie) = &self.cookie {
            headers.push(("Set-Cookie", cookie));
        }
        headers
    }

    /// The head of an answer with packets.
    pub fn payload(&self, bytes: usize) -> Vec<u8> {
        http::response_head(200, &self.headers(&[TEXT, NO_STORE]), bytes, self.keeps)
    }

    /// The head of an answer with a native reply; `refused`: why, and when to try again, ms.
    pub fn reply(&self, refused: Option<(ErrorCode, Option<u64>)>, bytes: usize) -> Vec<u8> {
        let mut own = vec![JSON, NO_STORE];
        let retry = refused.and_then(|(_, retry_ms)| retry_ms).map(|ms| ms.div_ceil(1_000).to_string());
        own.extend(retry.as_deref().map(|seconds| ("Retry-After", seconds)));
        let status = refused.map_or(200, |(code, _)| status_of(code));
        http::response_head(status, &self.headers(&own), bytes, self.keeps)
    }

    /// The head of a stream of server-sent events, which ends with its connection.
    pub fn stream(&self) -> Vec<u8> {
        // Proxies that buffer are told not to: nginx by a header of its own.
        let own = [("Content-Type", "text/event-stream; charset=utf-8"), NO_STORE, ("X-Accel-Buffering", "no")];
        http::response_head_until_end(200, &self.headers(&own))
    }

    /// The answer to packets.
    pub fn ok(&self) -> Vec<u8> {
        http::response(200, &self.headers(&[TEXT, NO_STORE]), b"ok", self.keeps)
    }

    /// What a page may send (the answer to its `OPTIONS`).
    pub fn preflight(&self, head: &Head<'_>) -> Vec<u8> {
        let asked = head.header("access-control-request-headers").filter(|names| are_few_tokens(names));
        let mut own = vec![("Access-Control-Allow-Methods", "GET, POST"), ("Access-Control-Max-Age", "600")];
        own.extend(asked.map(|names| ("Access-Control-Allow-Headers", names)));
        http::response(204, &self.headers(&own), b"", self.keeps)
    }

    /// The connection ends with it: what else was said is not read.
    pub fn refused(&self, refusal: Refusal) -> Vec<u8> {
        http::response(400, &self.headers(&[JSON, NO_STORE]), refusal.body(), false)
    }

    /// The next request may do better.
    pub fn refused_for_now(&self, refusal: Refusal) -> Vec<u8> {
        http::response(400, &self.headers(&[JSON, NO_STORE]), refusal.body(), self.keeps)
    }

    /// A refusal that Node's engine has no number for.
    pub fn denied(&self, status: u16, code: ErrorCode, message: &str) -> Vec<u8> {
        http::response(status, &self.headers(&[JSON, NO_STORE]), &handshake::error_body(code, message), false)
    }

    /// Another method is asked for (`RFC 9110` section 15.5.6).
    pub fn not_allowed(&self, methods: &str, message: &str) -> Vec<u8> {
        let headers = self.headers(&[JSON, NO_STORE, ("Allow", methods)]);
        http::response(405, &headers, &handshake::error_body(ErrorCode::BadRequest, message), false)
    }

    /// A request that names more than it may.
    pub fn too_many(&self, limit: Limit, message: String) -> Vec<u8> {
        let mut body = br#"{"error":"#.to_vec();
        encode::error_object(&mut body, &WireError::too_many(limit, message));
        body.push(b'}');
        http::response(status_of(ErrorCode::TooMany), &self.headers(&[JSON, NO_STORE]), &body, false)
    }

    /// A limit of something else than addresses.
    pub fn limited_for(&self, limit: &str, message: &str, retry: Duration) -> Vec<u8> {
        handshake::limited_for(limit, message, retry, &self.headers(&[NO_STORE]))
    }

    pub fn limited(&self, limit: &str, retry: Duration) -> Vec<u8> {
        handshake::limited_with(limit, retry, &self.headers(&[NO_STORE]))
    }
}

/// The status that says what an error's code says (`RFC 9110` section 15.5).
pub fn status_of(code: ErrorCode) -> u16 {
    match code {
        ErrorCode::BadRequest => 400,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired => 401,
        ErrorCode::Forbidden => 403,
        ErrorCode::NotFound | ErrorCode::NotMember | ErrorCode::UnknownEvent => 404,
        ErrorCode::Conflict => 409,
        ErrorCode::Gap => 410,
        ErrorCode::TooLarge => 413,
        ErrorCode::TooMany => 422,
        ErrorCode::RateLimited => 429,
        ErrorCode::Internal => 500,
        ErrorCode::Unavailable => 503,
    }
}

fn are_few_tokens(names: &str) -> bool {
    names.len() <= CORS_HEADERS_BYTES_MAX
        && names.split(',').count() <= CORS_HEADERS_MAX
        && names.split(',').all(|name| http::is_token(name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::parse_head;

    fn manner(lines: &str, allowed: Allowed) -> Manner {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        Manner::of(&parse_head(text.as_bytes()).unwrap().unwrap(), allowed, true)
    }

    #[test]
    fn a_page_may_read_its_answers_and_send_cookies_only_where_it_is_known() {
        let text = |manner: &Manner| String::from_utf8(manner.ok()).unwrap();
        let page = "Origin: https://a.example\r\n";
        let known = text(&manner(page, Allowed::Known));
        assert!(known.contains("\r\nAccess-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n"), "{known}");
        assert!(known.contains("\r\nAccess-Control-Allow-Credentials: true\r\n"), "{known}");
        let any = text(&manner(page, Allowed::Any));
        assert!(any.contains("\r\nAccess-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n"), "{any}");
        assert!(!any.contains("Credentials"), "{any}");
        let none = text(&manner("", Allowed::NoPage));
        assert!(!none.contains("Access-Control") && !none.contains("Vary"), "{none}");
        assert!(none.ends_with("Connection: keep-alive\r\n\r\nok"), "{none}");
        let refused = String::from_utf8(manner(page, Allowed::Known).refused(Refusal::Session)).unwrap();
        assert!(refused.contains("Access-Control-Allow-Origin") && refused.contains("Connection: close"), "{refused}");
        assert!(refused.ends_with(r#"{"code":1,"message":"Session ID unknown"}"#), "{refused}");
    }

    #[test]
    fn a_preflight_allows_the_headers_that_are_asked_for_if_they_are_few_and_names() {
        let preflight = |names: &str| {
            let text = format!(
                "OPTIONS / HTTP/1.1\r\nOrigin: https://a.example\r\nAccess-Control-Request-Headers: {names}\r\n\r\n"
            );
            let head = parse_head(text.as_bytes()).unwrap().unwrap();
            String::from_utf8(Manner::of(&head, Allowed::Known, true).preflight(&head)).unwrap()
        };
        let answer = preflight("content-type, x-token");
        assert!(answer.starts_with("HTTP/1.1 204 ") && !answer.contains("Content-Length"), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Allow-Headers: content-type, x-token\r\n"), "{answer}");
        assert!(answer.contains("\r\nAccess-Control-Allow-Methods: GET, POST\r\n"), "{answer}");
        for bad in ["a b", "", "a,,b", &"a,".repeat(CORS_HEADERS_MAX), &"a".repeat(CORS_HEADERS_BYTES_MAX + 1)] {
            assert!(!preflight(bad).contains("Allow-Headers"), "{bad}");
        }
    }
}
