//! permessage-deflate as it is offered and answered in a handshake (`RFC 7692` section 7.1).
//! Invariant: what is answered keeps every bound of the offer that was taken, and neither side keeps
//! a context between messages: contexts are one per shard, not one per connection.

use super::deflate::Window;
use super::http::{Head, is_token};

const NAME: &str = "permessage-deflate";

/// An offer that was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deflate {
    /// For what the server sends. Clients' messages are taken with any.
    pub window: Window,
    /// The offer named it, so the answer has to.
    bits_offered: Option<u8>,
}

impl Deflate {
    /// The first offer of a request that can be kept. One that is malformed, or asks for what is not
    /// in the RFC, is passed over, and where none is left messages go uncompressed.
    pub fn of(head: &Head<'_>) -> Option<Deflate> {
        let offers = head.headers_named("sec-websocket-extensions").flat_map(|value| split(value, ','));
        offers.take(OFFERS_MAX).find_map(offer)
    }

    /// The value of the answer's `Sec-WebSocket-Extensions`.
    pub fn answer(self) -> String {
        let bits = self.bits_offered.map(|bits| format!("; server_max_window_bits={bits}")).unwrap_or_default();
        format!("{NAME}; server_no_context_takeover; client_no_context_takeover{bits}")
    }
}

/// Whether what a request offers keeps the grammar of `RFC 6455` section 9.1, which is a condition for
/// whatever comes next; what it means is another matter.
pub fn are_well_formed(head: &Head<'_>) -> bool {
    head.headers_named("sec-websocket-extensions").flat_map(|value| split(value, ',')).all(|offer| {
        let mut parts = split(offer, ';');
        // Nothing between two commas is allowed in any list (`RFC 9110` section 5.6.1).
        offer.is_empty() || parts.next().is_some_and(is_token) && parts.all(is_parameter)
    })
}

fn is_parameter(text: &str) -> bool {
    match text.split_once('=') {
        None => is_token(text),
        Some((name, value)) => is_token(name.trim_end()) && is_value(value.trim_start()),
    }
}

fn is_value(text: &str) -> bool {
    match text.strip_prefix('"').map(|rest| rest.strip_suffix('"')) {
        None => is_token(text),
        // What a backslash stands before is itself.
        Some(quoted) => quoted.is_some_and(|inner| is_token(&inner.replace('\\', ""))),
    }
}

/// Whoever offers more is not looking for an answer.
const OFFERS_MAX: usize = 16;

fn offer(text: &str) -> Option<Deflate> {
    let mut parts = split(text, ';');
    if !parts.next()?.eq_ignore_ascii_case(NAME) {
        return None;
    }
    let (mut server_alone, mut client_alone) = (false, false);
    let (mut server_bits, mut client_bits) = (None, None);
    for part in parts {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start())?)),
            None => (part, None),
        };
        // Named twice, or with a value of the wrong kind, a parameter spoils the whole offer.
        let is_new = match (name, value) {
            ("server_no_context_takeover", None) => !std::mem::replace(&mut server_alone, true),
            ("client_no_context_takeover", None) => !std::mem::replace(&mut client_alone, true),
            ("server_max_window_bits", Some(value)) => server_bits.replace(bits(value)?).is_none(),
            // Without a value: the client can keep to whatever the server answers, which is nothing.
            ("client_max_window_bits", value) => client_bits.replace(value.map_or(Some(15), bits)?).is_none(),
            _ => false,
        };
        if !is_new {
            return None;
        }
    }
    let window = if server_bits.is_none_or(|bits| bits == 15) { Window::Full } else { Window::Small };
    Some(Deflate { window, bits_offered: server_bits })
}

/// `RFC 7692` section 7.1.2: 8 to 15, without a leading zero.
fn bits(text: &str) -> Option<u8> {
    let is_plain = !text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|bits| is_plain && (8..=15).contains(bits))
}

/// A value may be quoted (`RFC 6455` section 9.1); none of ours needs an escape.
fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').filter(|inner| !inner.contains(['"', '\\'])),
        None => Some(value),
    }
}

/// What stands between `mark`s that are not quoted, without the white space around it.
fn split(text: &str, mark: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |char| {
        is_quoted ^= char == '"';
        char == mark && !is_quoted
    })
    .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::parse_head;

    fn answered(offers: &str) -> Option<String> {
        let text = format!("GET /ws HTTP/1.1\r\nHost: h\r\n{offers}\r\n");
        let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
        Deflate::of(&head).map(Deflate::answer)
    }

    fn answer(offer: &str) -> Option<String> {
        answered(&format!("Sec-WebSocket-Extensions: {offer}\r\n"))
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn what_browsers_offer_is_taken_without_contexts() {
        for offer in [
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=12",
            "Permessage-Deflate ; server_no_context_takeover ; client_no_context_takeover",
            "permessage-deflate; client_max_window_bits=\"10\"",
        ] {
            assert_eq!(answer(offer).as_deref(), Some(PLAIN), "{offer}");
        }
    }

    #[test]
    fn a_window_that_is_asked_for_is_kept_to_and_answered() {
        for bits in 8..=15u8 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}");
            assert_eq!(answer(&offer), Some(format!("{PLAIN}; server_max_window_bits={bits}")));
        }
        let small = offer("permessage-deflate; server_max_window_bits=9").expect("taken");
        assert_eq!(small.window, Window::Small);
        let full = offer("permessage-deflate; server_max_window_bits=15").expect("taken");
        assert_eq!(full.window, Window::Full);
    }

    #[test]
    fn an_offer_with_a_flaw_is_passed_over_and_the_next_one_taken() {
        for flaw in [
            "x-webkit-deflate-frame",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=true",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=+9",
            "permessage-deflate; server_max_window_bits=\"9",
            "permessage-deflate; client_max_window_bits=99999999999999999999",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate;",
            "",
            "\"permessage-deflate, permessage-deflate\"",
        ] {
            assert_eq!(answer(flaw), None, "{flaw}");
            // A quote that does not end takes the rest of its line with it.
            if !flaw.ends_with("\"9") {
                assert_eq!(answer(&format!("{flaw}, permessage-deflate")).as_deref(), Some(PLAIN), "{flaw}");
            }
            let lines = format!("Sec-WebSocket-Extensions: {flaw}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n");
            assert_eq!(answered(&lines).as_deref(), Some(PLAIN), "{flaw}");
        }
        assert_eq!(answered(""), None);
    }

    #[test]
    fn what_keeps_the_grammar_is_told_from_what_does_not() {
        let well_formed = |offers: &str| {
            let text = format!("GET /ws HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Extensions: {offers}\r\n\r\n");
            are_well_formed(&parse_head(text.as_bytes()).expect("well formed").expect("whole"))
        };
        for good in [
            "",
            "a",
            "a, b",
            "a,, b ,",
            "permessage-deflate; client_max_window_bits; server_max_window_bits=010",
            "a;b=c;d=\"e\"",
            "a ; b = c",
            "a; b=+9",
            "a; b=\"\\1\\5\"",
        ] {
            assert!(well_formed(good), "{good}");
        }
        for bad in [
            "a;",
            "a;;b",
            ";",
            "a b",
            "a; b c",
            "a; =b",
            "a; b=",
            "a; b=c=d",
            "a; b=\"c",
            "a; b=c\"",
            "a; b=\"\"",
            "a; b=\"c d\"",
            "a; b=\"c,d\"",
            "\"a\"",
            "a/b",
            "a, b;",
            "a=b",
        ] {
            assert!(!well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn a_thousand_bad_offers_are_not_all_looked_at() {
        let offers = format!("{}permessage-deflate", "a,".repeat(1_000));
        assert_eq!(answer(&offers), None);
    }
}
