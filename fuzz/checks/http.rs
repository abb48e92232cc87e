//! The head of a request, and everything that is read out of it before a connection is one.

use super::choices::{Choices, ends};
use ringroom::base::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use ringroom::wire::extension::Deflate;
use ringroom::wire::forwarded::{self, Written};
use ringroom::wire::handshake::{Token, Upgrade, accepted, upgrade};
use ringroom::wire::http::{Head, HeadError, HeadScan, parse_head};
use std::net::{IpAddr, Ipv4Addr};

/// Input: cuts, then what a client sends.
///
/// - However the bytes arrive, they are answered alike, and by the time their head has ended.
/// - What is read is what a plain split into lines says: nothing is hidden in a header, or made up.
/// - An upgrade keeps the rules of `RFC 6455` section 4.2.1, an answer has the lines it should and no more.
pub fn http_head(input: &[u8]) {
    let mut choices = Choices(input);
    let cuts = choices.cuts();
    let bytes = choices.0;
    let whole = parse_head(bytes);
    assert_eq!(in_pieces(bytes, &ends(&cuts, bytes.len())), expected(bytes, &whole), "in pieces: {cuts:?}");
    if let Ok(Some(head)) = whole {
        lines_are_read(&bytes[..head.len], &head);
        ["token", "", "a"].iter().for_each(|name| value_is_there(&head, name));
        cookie_is_there(&head);
        token_is_there(&head);
        forwarded_is_an_address(&head);
        if let Some(deflate) = Deflate::of(&head) {
            answers_an_offer(&head, deflate);
        }
        match upgrade(&head) {
            Ok(upgrade) => keeps_the_rules(&head, &upgrade),
            Err(refused) => {
                assert!(matches!(refused.status, 400 | 405 | 426));
                assert_eq!(blank_lines(&refused.response()), 1);
            }
        }
    }
}

/// What a head was answered with: its length, or why it is refused.
type Answer = Option<Result<usize, HeadError>>;

/// As the edge does it: parse when the scan says so.
fn in_pieces(bytes: &[u8], ends: &[usize]) -> Answer {
    let mut scan = HeadScan::default();
    ends.iter().find_map(|end| {
        let came = &bytes[..*end];
        let is_complete = scan.is_complete(came);
        is_complete.then(|| parse_head(came).map(|head| head.map(|head| head.len)).transpose()).flatten()
    })
}

/// A refusal may wait for the end of the head, an answer to a whole head may not.
fn expected(bytes: &[u8], whole: &Result<Option<Head<'_>>, HeadError>) -> Answer {
    match whole {
        Ok(None) => None,
        Ok(Some(head)) => Some(Ok(head.len)),
        Err(error) => has_ended(bytes).then_some(Err(*error)),
    }
}

/// Whether a blank line follows what is none, or there is more than a head may be.
fn has_ended(bytes: &[u8]) -> bool {
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    bytes.len() >= HEAD_BYTES_MAX || blank_lines(&bytes[begin..]) > 0
}

fn blank_lines(bytes: &[u8]) -> usize {
    bytes.windows(2).filter(|two| two == b"\n\n").count() + bytes.windows(3).filter(|three| three == b"\n\r\n").count()
}

fn lines_are_read(bytes: &[u8], head: &Head<'_>) {
    assert!(bytes.len() <= HEAD_BYTES_MAX);
    let begin = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).expect("more than blank lines");
    let mut lines = bytes[begin..].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request = lines.next().expect("a first line");
    let words: Vec<&[u8]> = request.split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("not three words: {}", request.escape_ascii()) };
    assert_eq!(head.method.as_bytes(), method);
    assert!(!method.is_empty() && method.iter().all(u8::is_ascii_graphic));
    assert_eq!(version, if head.minor_version == 0 { b"HTTP/1.0" } else { b"HTTP/1.1" });
    let target = std::str::from_utf8(target).expect("a target is text");
    assert!(target.bytes().all(|byte| byte > b' ' && byte != 0x7F), "{target:?}");
    assert_eq!((head.path, head.query), path_and_query(target));

    // The last two are the blank line and what stands behind it: nothing.
    let headers: Vec<&[u8]> = lines.collect();
    let (headers, end) = headers.split_at(headers.len() - 2);
    assert!(headers.len() <= HEADERS_MAX && end == [b"", b""]);
    let fields: Vec<(&str, &str)> = headers
        .iter()
        .map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
            let value = &line[colon + 1..];
            assert!(value.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control()), "{}", line.escape_ascii());
            let name = std::str::from_utf8(&line[..colon]).expect("a name is text");
            assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
            (name, std::str::from_utf8(value).unwrap_or("").trim_matches([' ', '\t']))
        })
        .collect();
    for (name, _) in &fields {
        let same = fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| *value);
        assert!(head.headers_named(name).eq(same), "{name}");
    }
}

/// `RFC 9112` section 3.2: of a target in absolute form, what follows the authority.
fn path_and_query(target: &str) -> (&str, Option<&str>) {
    let authority = target.find("://").filter(|_| !target.starts_with('/')).map(|scheme| &target[scheme + 3..]);
    let local = authority.map_or(target, |rest| &rest[rest.find(['/', '?', '#']).unwrap_or(rest.len())..]);
    let (path, query) = local.split_once('?').map_or((local, None), |(path, query)| (path, Some(query)));
    (if path.is_empty() { "/" } else { path }, query)
}

fn value_is_there(head: &Head<'_>, name: &str) {
    let Some(value) = head.query_value(name) else { return };
    let query = head.query.expect("a value stands in a query");
    assert!(value.len() <= query.len());
    if !query.contains(['%', '+']) {
        let written = query.split('&').find_map(|pair| match pair.split_once('=') {
            Some((key, value)) => (key == name).then_some(value),
            None => (pair == name).then_some(""),
        });
        assert_eq!(Some(&*value), written);
    }
}

fn cookie_is_there(head: &Head<'_>) {
    let found = head.cookie("token");
    let headers: Vec<&str> = head.headers_named("cookie").collect();
    // What is not UTF-8 reads as empty here, and may still have a cookie that is.
    if headers.contains(&"") {
        return assert!(found.is_none_or(|value| !value.contains(';')));
    }
    let mut pairs = headers.iter().flat_map(|value| value.split(';')).map(|pair| pair.trim_matches([' ', '\t']));
    let value = pairs.find_map(|pair| pair.strip_prefix("token="));
    let unquoted = value.map(|value| match value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) {
        Some(inner) => inner,
        None => value,
    });
    assert_eq!(found, unquoted);
}

fn token_is_there(head: &Head<'_>) {
    let Some(token) = Token::of(head) else { return };
    assert!(!token.text.is_empty());
    assert_eq!(format!("{token:?}"), format!("Token({:?}, {} bytes)", token.source, token.text.len()));
}

fn forwarded_is_an_address(head: &Head<'_>) {
    let proxy = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let is_ours = |address: IpAddr| matches!(address, IpAddr::V4(four) if four.octets()[0] == 10);
    let said = |written| forwarded::said(head, proxy, is_ours, written);
    let (loosely, strictly) = (said(Written::Loosely), said(Written::AsInRfc7239));
    let hops = |name| head.headers_named(name).flat_map(|value| value.split(',')).map(str::trim);
    // Bare addresses only; ports, brackets and quotes are the business of unit tests.
    let bare: Option<Vec<IpAddr>> = hops("x-forwarded-for").map(|hop| hop.parse().ok()).collect();
    let named: Option<Vec<IpAddr>> = hops("forwarded").map(|hop| hop.strip_prefix("for=")?.parse().ok()).collect();
    for (said, addresses, name) in [(loosely, bare, "x-forwarded-for"), (strictly, named, "forwarded")] {
        if let Some(addresses) = addresses {
            let mut nearest_first = addresses.iter().rev().map(IpAddr::to_canonical);
            let farthest = addresses.first().map_or(proxy, IpAddr::to_canonical);
            assert_eq!(said.client, Ok(nearest_first.find(|address| !is_ours(*address)).unwrap_or(farthest)));
        }
        assert!(said.client.is_ok_and(|client| client == client.to_canonical()) || head.header(name).is_some());
        assert!(matches!(said.scheme, None | Some("http" | "https")));
    }
}

/// `RFC 7692` section 7.1: the answer names a window where the offer did, and none where it did not.
fn answers_an_offer(head: &Head<'_>, deflate: Deflate) {
    let answer = deflate.answer();
    let alone = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let rest = answer.strip_prefix(alone).expect("no context is kept");
    let bits = rest.strip_prefix("; server_max_window_bits=").map(|bits| bits.parse::<u8>().expect("a number"));
    assert!(rest.is_empty() || bits.is_some_and(|bits| (8..=15).contains(&bits)));
    let is_offer = |offer: &str| {
        let mut parts = offer.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("permessage-deflate"));
        let asked =
            parts.filter_map(|part| part.split_once('=')).find(|(name, _)| name.trim() == "server_max_window_bits");
        is_named && asked.map(|(_, value)| value.trim().trim_matches('"').parse().ok()) == bits.map(Some)
    };
    let mut offers = head.headers_named("sec-websocket-extensions").flat_map(|value| value.split(','));
    assert!(offers.any(is_offer), "{answer}");
}

fn keeps_the_rules(head: &Head<'_>, upgrade: &Upgrade<'_>) {
    let values = |name| head.headers_named(name).collect::<Vec<_>>();
    assert_eq!((head.method, head.minor_version), ("GET", 1));
    assert!(matches!(values("host")[..], [host] if !host.is_empty()));
    assert_eq!(values("sec-websocket-version"), ["13"]);
    let [key] = values("sec-websocket-key")[..] else { panic!("not one key") };
    assert!(key.len() == 24 && key.ends_with("=="));
    assert!(values("upgrade").iter().any(|value| value.to_ascii_lowercase().contains("websocket")));
    assert!(values("connection").iter().any(|value| value.to_ascii_lowercase().contains("upgrade")));
    assert!(values("transfer-encoding").is_empty() && values("content-length").iter().all(|len| *len == "0"));
    if let Some(spoken) = upgrade.subprotocol {
        assert!(values("sec-websocket-protocol").iter().any(|offers| offers.contains(spoken)));
    }
    let answer = accepted(upgrade);
    let lines = 5 + usize::from(upgrade.subprotocol.is_some()) + usize::from(upgrade.deflate.is_some());
    assert!(answer.is_ascii() && answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
    assert_eq!(answer.iter().filter(|byte| **byte == b'\n').count(), lines);
}
