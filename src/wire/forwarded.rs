//! Who a request comes from where proxies stand between: `X-Forwarded-For`, which each proxy writes
//! the address behind that it was reached from. Invariant: only what proxies of ours wrote is
//! believed. What stands before it was written by whoever they were reached from, and may be anything.

use super::http::Head;
use std::net::{IpAddr, SocketAddr};

/// What cannot be read where a proxy of ours should have written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// The client of a request that came from `proxy`, one of ours: the rightmost address that is none
/// of ours. `proxy` itself where nobody wrote anything, or ours alone did.
pub fn client(head: &Head<'_>, proxy: IpAddr, is_ours: impl Fn(IpAddr) -> bool) -> Result<IpAddr, Malformed> {
    let mut client = proxy;
    for hop in head.headers_named("x-forwarded-for").rev().flat_map(|value| value.rsplit(',')) {
        client = address(hop.trim()).ok_or(Malformed)?;
        if !is_ours(client) {
            break;
        }
    }
    Ok(client)
}

/// How the client reached the proxy, `http` or `https`, as the last proxy says.
pub fn scheme(head: &Head<'_>) -> Option<&'static str> {
    let said = head.headers_named("x-forwarded-proto").next_back()?.rsplit(',').next()?.trim();
    ["http", "https"].into_iter().find(|known| said.eq_ignore_ascii_case(known))
}

/// An address, with a port or without; proxies write IPv6 in brackets or bare.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::super::http::parse_head;
    use super::*;
    use proptest::prelude::*;

    const PROXY: &str = "10.0.0.1";

    fn of(headers: &[&str]) -> Result<String, Malformed> {
        let lines: String = headers.iter().map(|value| format!("X-Forwarded-For: {value}\r\n")).collect();
        let text = format!("GET /ws HTTP/1.1\r\n{lines}\r\n");
        let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
        let is_ours = |address: IpAddr| address.to_string().starts_with("10.");
        client(&head, PROXY.parse().expect("an address"), is_ours).map(|client| client.to_string())
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_not_ours() {
        for (headers, client) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["192.0.2.1, 10.0.0.7, 10.0.0.8"], "192.0.2.1"),
            (&["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
            (&["198.51.100.9", "192.0.2.1", "10.0.0.3"], "192.0.2.1"),
            (&["nonsense, 192.0.2.1"], "192.0.2.1"),
            (&["10.0.0.9, 192.0.2.1"], "192.0.2.1"),
            (&["10.0.0.2,10.0.0.3"], "10.0.0.2"),
            (&[], PROXY),
        ] {
            assert_eq!(of(headers).as_deref(), Ok(client), "{headers:?}");
        }
    }

    #[test]
    fn addresses_come_in_several_spellings() {
        for (spelling, client) in [
            ("192.0.2.1:4711", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(of(&[spelling]).as_deref(), Ok(client), "{spelling}");
        }
    }

    #[test]
    fn what_cannot_be_read_where_it_counts_is_said_so() {
        for wrong in [
            "",
            ",",
            "192.0.2.1,",
            "unknown",
            "_hidden",
            "192.0.2",
            "192.0.2.1:x",
            "192.0.2.1:99999",
            "[2001:db8::1",
            "[192.0.2.1]",
            "fe80::1%eth0",
            "192.0.2.1 192.0.2.2",
            "\u{ff}",
        ] {
            assert_eq!(of(&[wrong]), Err(Malformed), "{wrong:?}");
        }
        assert_eq!(of(&["192.0.2.1", ""]), Err(Malformed), "an empty one behind it");
    }

    #[test]
    fn many_hops_are_walked_and_many_headers() {
        let hops = vec!["10.9.9.9"; 100].join(", ");
        assert_eq!(of(&[&format!("192.0.2.1, {hops}")]).as_deref(), Ok("192.0.2.1"));
        let headers: Vec<&str> = std::iter::once("192.0.2.1").chain(std::iter::repeat_n("10.9.9.9", 60)).collect();
        assert_eq!(of(&headers).as_deref(), Ok("192.0.2.1"));
    }

    #[test]
    fn the_scheme_is_the_last_proxys_word() {
        let said = |lines: &str| {
            let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            let head = parse_head(text.as_bytes()).expect("well formed").expect("whole");
            scheme(&head).map(str::to_owned)
        };
        assert_eq!(said("X-Forwarded-Proto: HTTPS\r\n").as_deref(), Some("https"));
        assert_eq!(said("X-Forwarded-Proto: https, http\r\n").as_deref(), Some("http"));
        assert_eq!(said("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n").as_deref(), Some("http"));
        assert_eq!(said("X-Forwarded-Proto: gopher\r\n"), None);
        assert_eq!(said(""), None);
    }

    proptest! {
        #[test]
        fn what_a_client_writes_itself_changes_nothing(spoofed in "[ -~]{0,200}") {
            prop_assert_eq!(of(&[&format!("{spoofed},192.0.2.1, 10.0.0.5")]), Ok("192.0.2.1".into()));
            prop_assert_eq!(of(&[&spoofed, "192.0.2.1"]), Ok("192.0.2.1".into()));
        }
    }
}
