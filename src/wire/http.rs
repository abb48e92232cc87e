//! HTTP/1.1 as far as a gateway's data port needs it: the head of a request, and small answers.
//! `httparse` reads the syntax; here are bounds, look-ups and what a byte-by-byte sender costs.
//! Invariant: a [`Head`] is complete, at most `HEAD_BYTES_MAX` long, and borrows all it says.

use crate::base::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use std::borrow::Cow;

/// Why a head cannot be read. The connection is answered with the status and closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeadError {
    /// More than `HEAD_BYTES_MAX` bytes. Send fewer cookies or a shorter token.
    TooLarge,
    /// More than `HEADERS_MAX` headers.
    TooManyHeaders,
    /// Not HTTP, or a request target that is no path.
    Malformed,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    BadVersion,
}

impl HeadError {
    pub fn status(self) -> u16 {
        match self {
            HeadError::TooLarge | HeadError::TooManyHeaders => 431,
            HeadError::Malformed => 400,
            HeadError::BadVersion => 505,
        }
    }

    pub fn message(self) -> &'static str {
        match self {
            HeadError::TooLarge => "the request head is too long",
            HeadError::TooManyHeaders => "the request has too many headers",
            HeadError::Malformed => "the request head is malformed",
            HeadError::BadVersion => "the HTTP version is not supported; use HTTP/1.1",
        }
    }
}

/// Remembers how far a head that arrives in pieces has been searched for its end, so that a sender
/// of single bytes costs one look at each byte, not one parse.
#[derive(Clone, Copy, Default, Debug)]
pub struct HeadScan {
    /// Bytes looked at. Before the request line these are line ends only.
    looked: usize,
    /// The request line has begun: a blank line from here on ends the head.
    begun: bool,
}

impl HeadScan {
    /// Whether it is time to parse: a blank line came among the bytes added since the last call, or
    /// there are more bytes than a head may have. `bytes` is all that has arrived so far.
    pub fn is_complete(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() >= HEAD_BYTES_MAX {
            return true;
        }
        if !self.begun {
            match bytes[self.looked..].iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
                None => {
                    self.looked = bytes.len();
                    return false;
                }
                Some(blank) => {
                    self.looked += blank;
                    self.begun = true;
                }
            }
        }
        let from = self.looked;
        self.looked = bytes.len();
        memchr::memchr_iter(b'\n', &bytes[from..]).any(|place| {
            let before = &bytes[..from + place];
            before.strip_suffix(b"\r").unwrap_or(before).ends_with(b"\n")
        })
    }
}

/// The head of a request.
#[derive(Debug)]
pub struct Head<'a> {
    pub method: &'a str,
    /// Begins with `/`, or is `*`. Not percent-decoded.
    pub path: &'a str,
    /// What follows the first `?`.
    pub query: Option<&'a str>,
    /// 0 or 1.
    pub minor_version: u8,
    /// Bytes of the head, its blank line included: the body or the first frame begins there.
    pub len: usize,
    headers: Vec<httparse::Header<'a>>,
}

/// Reads the head at the start of `bytes`; `None` where more bytes are needed.
pub fn parse_head(bytes: &[u8]) -> Result<Option<Head<'_>>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let bounded = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    let len = match request.parse(bounded) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(HeadError::TooLarge),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
        Err(httparse::Error::Version) => return Err(HeadError::BadVersion),
        Err(_) => return Err(HeadError::Malformed),
    };
    let (Some(method), Some(target), Some(minor_version)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Malformed);
    };
    let (path, query) = path_and_query(target).ok_or(HeadError::Malformed)?;
    Ok(Some(Head { method, path, query, minor_version, len, headers: request.headers.to_vec() }))
}

/// The path and query of a request target; proxies may send them behind scheme and authority
/// (`RFC 9112` section 3.2.2).
fn path_and_query(target: &str) -> Option<(&str, Option<&str>)> {
    let local = if target.starts_with('/') || target == "*" { target } else { behind_authority(target)? };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    Some((if path.is_empty() { "/" } else { path }, query))
}

fn behind_authority(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    if !["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return None;
    }
    // A slash in a query begins no path, and a request names no fragment (`RFC 3986` section 3.2).
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    Some(&rest[end..]).filter(|local| !local.starts_with('#'))
}

impl<'a> Head<'a> {
    /// The first header of this name, in any case; a value that is not UTF-8 reads as empty.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers_named(name).next()
    }

    /// Every header of this name, so that duplicates can be refused.
    pub fn headers_named(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
        self.values(name).map(|value| std::str::from_utf8(value).unwrap_or("").trim_ascii())
    }

    /// The same as bytes, with the blanks around them.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
    }

    /// Whether a header that is a list, such as `Connection`, has this element, in any case.
    pub fn lists(&self, name: &str, element: &str) -> bool {
        self.headers_named(name).flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(element))
    }

    /// Whether the client will ask again on this connection (`RFC 9112` section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.minor_version {
            0 => self.lists("connection", "keep-alive") && !self.lists("connection", "close"),
            _ => !self.lists("connection", "close"),
        }
    }

    /// The first value of a query parameter, percent-decoded, a plus being a space.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query?.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decode(key)? == name { decode(value) } else { None }
        })
    }

    /// The first cookie of this name, as it was sent, less quotes around it.
    pub fn cookie(&self, name: &str) -> Option<&'a str> {
        let pairs = self.values("cookie").flat_map(|value| value.split(|byte| *byte == b';'));
        pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
            std::str::from_utf8(bare).ok()
        })
    }
}

/// Decodes one key or value of a query. An incomplete escape stands for itself, as in browsers;
/// `None` where the bytes are not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digit = |place: usize| bytes.get(place).and_then(|byte| (*byte as char).to_digit(16));
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
                continue;
            }
            (b'+', _, _) => decoded.push(b' '),
            _ => decoded.push(*byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The words of a status line.
pub fn status_words(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unnamed",
    }
}

/// A whole HTTP/1.1 answer with `Content-Length` and `Connection`. Control characters in values
/// become spaces, so nothing that is echoed can end a header.
pub fn response(status: u16, headers: &[(&str, &str)], body: &[u8], keep_alive: bool) -> Vec<u8> {
    let mut out = response_head(status, headers, body.len(), keep_alive);
    out.extend_from_slice(body);
    out
}

/// The same, less its body of this many bytes.
pub fn response_head(status: u16, headers: &[(&str, &str)], body_bytes: usize, keep_alive: bool) -> Vec<u8> {
    let mut out = status_line(status);
    for (name, value) in headers {
        put_header(&mut out, name, value);
    }
    // Such an answer has no body, and must not say how long it is (`RFC 9110` section 8.6).
    if status != 204 {
        put_header(&mut out, "Content-Length", itoa::Buffer::new().format(body_bytes));
    }
    put_header(&mut out, "Connection", if keep_alive { "keep-alive" } else { "close" });
    out.extend_from_slice(b"\r\n");
    out
}

/// The head of an answer whose body ends with its connection (`RFC 9112` section 6.3).
pub fn response_head_until_end(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut out = status_line(status);
    for (name, value) in headers {
        put_header(&mut out, name, value);
    }
    put_header(&mut out, "Connection", "close");
    out.extend_from_slice(b"\r\n");
    out
}

/// The first line of an answer.
pub(super) fn status_line(status: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(status_words(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    out
}

pub fn put_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// `RFC 9110` section 5.6.2.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(text: &str) -> Head<'_> {
        parse_head(text.as_bytes()).expect("well formed").expect("whole")
    }

    #[test]
    fn a_head_is_taken_apart() {
        let text = "GET /ws?token=a%2Bb+c&x HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\nx-a: 2\r\n\r\nbody";
        let head = head(text);
        assert_eq!((head.method, head.path, head.query), ("GET", "/ws", Some("token=a%2Bb+c&x")));
        assert_eq!((head.minor_version, &text[head.len..]), (1, "body"));
        assert_eq!(head.header("HOST"), Some("h"));
        assert_eq!(head.headers_named("X-a").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(head.header("absent"), None);
    }

    #[test]
    fn query_values_are_decoded() {
        let target = "/?a=1&token=x%20y%2Bz+w&b%5B%5D=3&bad=%zz%4&empty=&flag&utf8=%C3%A9&broken=%FF&a=2";
        let text = format!("GET {target} HTTP/1.1\r\n\r\n");
        let head = head(&text);
        for (name, value) in [
            ("a", "1"),
            ("token", "x y+z w"),
            ("b[]", "3"),
            ("bad", "%zz%4"),
            ("empty", ""),
            ("flag", ""),
            ("utf8", "é"),
        ] {
            assert_eq!(head.query_value(name).as_deref(), Some(value), "{name}");
        }
        assert_eq!(head.query_value("broken"), None);
        assert_eq!(head.query_value("absent"), None);
        assert!(matches!(head.query_value("a"), Some(Cow::Borrowed("1"))));
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let bytes = b"GET / HTTP/1.1\r\nCookie: xtoken=0; odd=\xFF; token2=1\r\nCookie: token=\"abc\"; token=d\r\n\r\n";
        let head = parse_head(bytes).expect("well formed").expect("whole");
        assert_eq!(head.cookie("token"), Some("abc"));
        assert_eq!(head.cookie("odd"), None);
        assert_eq!(head.cookie("oken"), None);
    }

    #[test]
    fn list_headers_are_searched_element_by_element() {
        let head = head("GET / HTTP/1.1\r\nConnection: keep-alive, UPGRADE\r\nConnection: x\r\n\r\n");
        assert!(head.lists("connection", "upgrade") && head.lists("connection", "x"));
        assert!(!head.lists("connection", "up"));
    }

    #[test]
    fn a_connection_is_kept_as_its_version_has_it() {
        for (text, keeps) in [
            ("GET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false),
            ("GET / HTTP/1.0\r\n\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
        ] {
            assert_eq!(head(text).keeps_alive(), keeps, "{text}");
        }
    }

    #[test]
    fn a_target_behind_scheme_and_authority_is_a_path() {
        assert_eq!(head("GET http://h:1/ws?a=1 HTTP/1.1\r\n\r\n").path, "/ws");
        assert_eq!(head("GET HTTPS://h HTTP/1.1\r\n\r\n").path, "/");
        let query_alone = head("GET ws://h?next=/ws HTTP/1.1\r\n\r\n");
        assert_eq!((query_alone.path, query_alone.query), ("/", Some("next=/ws")));
        assert_eq!(parse_head(b"GET http://h#/ws HTTP/1.1\r\n\r\n").err(), Some(HeadError::Malformed));
        assert_eq!(head("OPTIONS * HTTP/1.1\r\n\r\n").path, "*");
        assert_eq!(parse_head(b"GET ws HTTP/1.1\r\n\r\n").err(), Some(HeadError::Malformed));
        assert_eq!(parse_head(b"CONNECT h:1 HTTP/1.1\r\n\r\n").err(), Some(HeadError::Malformed));
    }

    #[test]
    fn heads_beyond_a_bound_are_refused_with_431() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(parse_head(many.as_bytes()).err(), Some(HeadError::TooManyHeaders));
        let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse_head(long.as_bytes()).err(), Some(HeadError::TooLarge));
        let filled = |len: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(len - 23));
        assert_eq!(head(&filled(HEAD_BYTES_MAX)).len, HEAD_BYTES_MAX);
        assert_eq!(parse_head(filled(HEAD_BYTES_MAX + 1).as_bytes()).err(), Some(HeadError::TooLarge));
        assert_eq!((HeadError::TooLarge.status(), HeadError::TooManyHeaders.status()), (431, 431));
    }

    #[test]
    fn bytes_behind_a_head_do_not_count_against_its_bound() {
        let text = format!("GET / HTTP/1.1\r\n\r\n{}", "x".repeat(2 * HEAD_BYTES_MAX));
        assert_eq!(head(&text).len, 18);
    }

    #[test]
    fn what_is_not_http_1_is_refused_by_its_kind() {
        for (bytes, error) in [
            (&b"GET / HTTP/2.0\r\n\r\n"[..], HeadError::BadVersion),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HeadError::BadVersion),
            (b"\x16\x03\x01\x02\x00", HeadError::Malformed),
            (b"GET / HTTP/1.1\r\na : b\r\n\r\n", HeadError::Malformed),
            (b"GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", HeadError::Malformed),
            (b"GET / HTTP/1.1\r\na: b\0c\r\n\r\n", HeadError::Malformed),
            (b"GET / HTTP/1.1\r\n: b\r\n\r\n", HeadError::Malformed),
        ] {
            assert_eq!(parse_head(bytes).err(), Some(error), "{}", bytes.escape_ascii());
        }
        assert_eq!((HeadError::BadVersion.status(), HeadError::Malformed.status()), (505, 400));
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_parsed_once() {
        let text = b"\r\n\nGET / HTTP/1.1\r\na: b\r\n\r\n";
        let mut scan = HeadScan::default();
        let parses = (1..=text.len()).filter(|len| scan.is_complete(&text[..*len])).count();
        assert_eq!(parses, 1);
        assert!(!scan.is_complete(text), "nothing new has come");
        assert!(parse_head(text).expect("well formed").is_some());
    }

    #[test]
    fn a_head_that_never_ends_is_looked_at_until_its_bound() {
        let text = b"a".repeat(HEAD_BYTES_MAX);
        let mut scan = HeadScan::default();
        assert!(!scan.is_complete(&text[..HEAD_BYTES_MAX - 1]));
        assert!(scan.is_complete(&text));
        assert!(parse_head(&text).is_err());
    }

    proptest! {
        #[test]
        fn the_scan_says_to_parse_by_the_time_a_head_is_whole(
            lead in "[\r\n]{0,3}", headers in proptest::collection::vec("[a-z]{1,5}: ?[ -~]{0,10}", 0..4),
            ends in proptest::collection::vec(any::<bool>(), 6), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let mut text = lead;
            let lines = std::iter::once("GET / HTTP/1.1".to_owned()).chain(headers).chain(std::iter::once(String::new()));
            for (line, crlf) in lines.zip(ends) {
                text.push_str(&line);
                text.push_str(if crlf { "\r\n" } else { "\n" });
            }
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).chain([bytes.len()]).collect();
            cuts.sort_unstable();
            let mut scan = HeadScan::default();
            let mut said = false;
            for cut in cuts {
                said |= scan.is_complete(&bytes[..cut]);
                let is_whole = matches!(parse_head(&bytes[..cut]), Ok(Some(_)));
                prop_assert!(said || !is_whole);
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(noise: Vec<u8>, start in 0usize..60, query in "[ -~]{0,20}") {
            let valid = b"GET /a?b=c HTTP/1.1\r\nHost: h\r\nCookie: token=\"\r\n\r\n";
            let bytes = [&valid[..start.min(valid.len())], &noise].concat();
            let _ = parse_head(&bytes).map(|head| head.map(|head| (head.cookie("token").is_some(), head.query_value("b").is_some())));
            let _ = decode(&query);
        }
    }

    #[test]
    fn an_answer_has_its_length_and_says_whether_the_connection_stays() {
        let answer = response(200, &[("Content-Type", "text/plain"), ("X", "a\r\nb")], b"ok", true);
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX: a  b\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok";
        assert_eq!(String::from_utf8_lossy(&answer), expected);
        assert!(response(404, &[], b"", false).ends_with(b"Content-Length: 0\r\nConnection: close\r\n\r\n"));
        assert_eq!(response(204, &[], b"", true), b"HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n");
    }
}
