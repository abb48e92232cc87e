//! Who a request comes from where proxies stand between: `X-Forwarded-For` or `Forwarded` (`RFC 7239`), to which each
//! proxy adds the address that it was reached from. Invariant: only what proxies of ours wrote is believed, and in the
//! one header that they write. What stands before it, and the other header, were written by whoever they were reached
//! from, and may be anything: so both are read from their right end, by bytes.

use super::http::Head;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// What cannot be read where a proxy of ours should have written, or does not tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// Where proxies of ours write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Written {
    /// `X-Forwarded-For`, and `X-Forwarded-Proto`.
    #[default]
    Loosely,
    /// `Forwarded`.
    AsInRfc7239,
}

/// What proxies say of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// Whose it is: the rightmost address that is none of ours. The proxy's own where nobody wrote anything, or ours
    /// alone did.
    pub client: Result<IpAddr, Malformed>,
    /// How it came, `http` or `https`: as the last proxy says in `X-Forwarded-Proto`, or in `Forwarded` as the one says
    /// that names the client.
    pub scheme: Option<&'static str>,
}

/// What is said of a request that came from `proxy`, one of ours.
pub fn said(head: &Head<'_>, proxy: IpAddr, is_ours: impl Fn(IpAddr) -> bool, written: Written) -> Said {
    match written {
        Written::Loosely => Said { client: client(head, proxy, is_ours), scheme: scheme(head) },
        Written::AsInRfc7239 => {
            let hop = last_hop(head, proxy, is_ours);
            Said { client: hop.map(|hop| hop.client), scheme: hop.ok().and_then(|hop| hop.scheme) }
        }
    }
}

fn client(head: &Head<'_>, proxy: IpAddr, is_ours: impl Fn(IpAddr) -> bool) -> Result<IpAddr, Malformed> {
    let mut client = proxy;
    for hop in head.values("x-forwarded-for").rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
        client = address(hop).ok_or(Malformed)?;
        if !is_ours(client) {
            break;
        }
    }
    Ok(client)
}

fn scheme(head: &Head<'_>) -> Option<&'static str> {
    known_scheme(head.values("x-forwarded-proto").next_back()?.rsplit(|byte| *byte == b',').next()?)
}

fn known_scheme(said: &[u8]) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| said.trim_ascii().eq_ignore_ascii_case(known.as_bytes()))
}

/// An address, with a port or without; proxies write IPv6 in brackets or bare.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match bare {
        Some(bare) => IpAddr::V6(bare.parse().ok()?),
        None => text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?,
    };
    Some(address.to_canonical())
}

/// What one proxy says in `Forwarded`.
#[derive(Clone, Copy)]
struct Hop {
    client: IpAddr,
    scheme: Option<&'static str>,
}

/// The rightmost that is none of ours.
fn last_hop(head: &Head<'_>, proxy: IpAddr, is_ours: impl Fn(IpAddr) -> bool) -> Result<Hop, Malformed> {
    let mut last = Hop { client: proxy, scheme: None };
    for element in head.values("forwarded").rev().flat_map(Elements::of) {
        last = hop(element).ok_or(Malformed)?;
        if !is_ours(last.client) {
            break;
        }
    }
    Ok(last)
}

/// The elements of a value, the last first. A comma inside quotes is none that divides; from the right it is known
/// which those are, whatever quotes a client left open before what ours wrote.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Elements<'a> {
    fn of(value: &'a [u8]) -> Elements<'a> {
        Elements(Some(value))
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0.take()?;
        let mut is_quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            match byte {
                b'"' if !is_escaped(rest, at) => is_quoted = !is_quoted,
                b',' if !is_quoted => {
                    self.0 = Some(&rest[..at]);
                    return Some(&rest[at + 1..]);
                }
                _ => {}
            }
        }
        Some(rest)
    }
}

fn is_escaped(bytes: &[u8], at: usize) -> bool {
    bytes[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// One element: `for`, which has to be there and an address, and perhaps `proto`.
fn hop(element: &[u8]) -> Option<Hop> {
    let (mut client, mut scheme) = (None, None);
    let mut rest = element.trim_ascii();
    while !rest.is_empty() {
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let name = rest[..equals].trim_ascii_start();
        let (value, behind) = value(&rest[equals + 1..])?;
        // Said twice is said by two (`RFC 7239` section 4).
        if name.eq_ignore_ascii_case(b"for") && client.replace(node(&value)?).is_some()
            || name.eq_ignore_ascii_case(b"proto") && scheme.replace(known_scheme(&value)).is_some()
        {
            return None;
        }
        rest = behind;
    }
    Some(Hop { client: client?, scheme: scheme.flatten() })
}

/// A value and what stands behind it and its semicolon.
fn value(bytes: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = bytes.strip_prefix(b"\"") else {
        let end = bytes.iter().position(|byte| *byte == b';').unwrap_or(bytes.len());
        let value = bytes[..end].trim_ascii_end();
        // Brackets and colons should be in quotes; who writes them bare means nothing else.
        let is_bare = !value.is_empty() && value.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'"');
        return is_bare.then(|| (Cow::Borrowed(value), bytes.get(end + 1..).unwrap_or_default()));
    };
    let end = (0..quoted.len()).find(|at| quoted[*at] == b'"' && !is_escaped(quoted, *at))?;
    let behind = quoted[end + 1..].trim_ascii_start();
    let behind = if behind.is_empty() { behind } else { behind.strip_prefix(b";")? };
    Some((unescaped(&quoted[..end]), behind))
}

/// What stands between quotes, less the backslashes that escape (`RFC 9110` section 5.6.4).
fn unescaped(quoted: &[u8]) -> Cow<'_, [u8]> {
    if !quoted.contains(&b'\\') {
        return Cow::Borrowed(quoted);
    }
    let mut is_escaped = false;
    let is_meant = |byte: &&u8| {
        is_escaped = !is_escaped && **byte == b'\\';
        !is_escaped
    };
    Cow::Owned(quoted.iter().filter(is_meant).copied().collect())
}

/// The address of a node (`RFC 7239` section 6), if it has one: not `unknown`, and no made up name. Its port may be one.
fn node(text: &[u8]) -> Option<IpAddr> {
    let made_up = text.windows(2).rposition(|two| two == b":_").filter(|at| {
        let name = &text[at + 2..];
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
    });
    address(&text[..made_up.unwrap_or(text.len())])
}

#[cfg(test)]
mod tests {
    use super::super::http::parse_head;
    use super::*;
    use proptest::prelude::*;

    const PROXY: &str = "10.0.0.1";

    /// What is said in `lines`, and how the request came.
    fn said_in(lines: &[u8], written: Written) -> (Result<String, Malformed>, Option<&'static str>) {
        let text = [b"GET /ws HTTP/1.1\r\n", lines, b"\r\n"].concat();
        let head = parse_head(&text).expect("well formed").expect("whole");
        let is_ours = |address: IpAddr| address.to_string().starts_with("10.");
        let Said { client, scheme } = said(&head, PROXY.parse().expect("an address"), is_ours, written);
        (client.map(|client| client.to_string()), scheme)
    }

    fn lines_of(name: &str, values: &[impl AsRef<[u8]>]) -> Vec<u8> {
        values.iter().flat_map(|value| [name.as_bytes(), b": ", value.as_ref(), b"\r\n"].concat()).collect()
    }

    fn of(values: &[impl AsRef<[u8]>]) -> Result<String, Malformed> {
        said_in(&lines_of("X-Forwarded-For", values), Written::Loosely).0
    }

    fn forwarded(values: &[impl AsRef<[u8]>]) -> (Result<String, Malformed>, Option<&'static str>) {
        said_in(&lines_of("Forwarded", values), Written::AsInRfc7239)
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
            (&[][..], PROXY),
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
        let said = |values: &[&str]| said_in(&lines_of("X-Forwarded-Proto", values), Written::Loosely).1;
        assert_eq!(said(&["HTTPS"]), Some("https"));
        assert_eq!(said(&["https, http"]), Some("http"));
        assert_eq!(said(&["https", "http"]), Some("http"));
        assert_eq!(said(&["gopher"]), None);
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn only_the_header_that_ours_write_is_read() {
        let both =
            b"Forwarded: for=192.0.2.1;proto=https\r\nX-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: http\r\n";
        assert_eq!(said_in(both, Written::Loosely), (Ok("198.51.100.1".into()), Some("http")));
        assert_eq!(said_in(both, Written::AsInRfc7239), (Ok("192.0.2.1".into()), Some("https")));
        let other = b"X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n";
        assert_eq!(said_in(other, Written::AsInRfc7239), (Ok(PROXY.into()), None));
        assert_eq!(said_in(b"Forwarded: for=192.0.2.1;proto=https\r\n", Written::Loosely), (Ok(PROXY.into()), None));
    }

    #[test]
    fn bytes_that_are_no_text_spoil_nothing_that_ours_wrote_behind_them() {
        assert_eq!(of(&[b"\xFF, 192.0.2.1"]).as_deref(), Ok("192.0.2.1"));
        assert_eq!(forwarded(&[b"for=\xFF, for=192.0.2.1"]).0.as_deref(), Ok("192.0.2.1"));
        let proto = said_in(b"X-Forwarded-Proto: \xFF, https\r\n", Written::Loosely).1;
        assert_eq!(proto, Some("https"));
        assert_eq!(of(&[b"192.0.2.1, \xFF"]), Err(Malformed));
    }

    #[test]
    fn forwarded_is_read_as_the_standard_has_it() {
        for (values, client, scheme) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], "192.0.2.60", Some("http")),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17", None),
            (&["for=192.0.2.43, for=198.51.100.17"], "198.51.100.17", None),
            (&["for=192.0.2.43", "for=10.0.0.3;proto=http"], "192.0.2.43", None),
            (&["for=192.0.2.43;proto=https, for=10.0.0.3;proto=http"], "192.0.2.43", Some("https")),
            (&["for=10.0.0.2;proto=https"], "10.0.0.2", Some("https")),
            (&["proto=HTTPS; for=\"192.0.2.43:_port-1\" ;host=\"a,b;c=\\\"d\\\\\""], "192.0.2.43", Some("https")),
            (&["for=\"1\\92.0.2.43\""], "192.0.2.43", None),
            (&["for=192.0.2.43;proto=gopher"], "192.0.2.43", None),
            (&["for=[2001:db8::1]:80;"], "2001:db8::1", None),
            (&["for=\"_client, for=192.0.2.43"], "192.0.2.43", None),
            (&["for=\"_client\\, for=\"[2001:db8::1]\""], "2001:db8::1", None),
            (&["for=unknown", "for=192.0.2.43"], "192.0.2.43", None),
            (&[], PROXY, None),
        ] {
            assert_eq!(forwarded(values), (Ok(client.into()), scheme), "{values:?}");
        }
    }

    #[test]
    fn forwarded_that_does_not_name_an_address_where_it_counts_is_said_so() {
        for wrong in [
            "",
            ",",
            ";",
            "for",
            "for=",
            "for=;proto=http",
            "for=unknown",
            "for=_hidden",
            "for=\"_hidden:80\"",
            "for=\"192.0.2.1:_\"",
            "for=\"192.0.2.1:_a b\"",
            "proto=https;by=10.0.0.1",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1;proto=http;proto=https",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\"x",
            "for=192.0.2.1\"",
            "for=192.0.2.1 192.0.2.2",
            "for=192.0.2.1;=",
            "for=192.0.2.1,",
            "forr=192.0.2.1",
        ] {
            assert_eq!(forwarded(&[wrong]), (Err(Malformed), None), "{wrong:?}");
        }
    }

    /// A hop: an address, a scheme, how it is spelt, and whether a header begins with it.
    type Spelt = (IpAddr, Option<bool>, [bool; 5], bool);

    fn hops() -> impl Strategy<Value = Vec<Spelt>> {
        let address = prop_oneof![
            any::<[u8; 16]>().prop_map(IpAddr::from),
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::from([10, a, b, c])),
        ];
        prop::collection::vec((address, any::<Option<bool>>(), any::<[bool; 5]>(), any::<bool>()), 0..6)
    }

    fn spell((address, is_tls, [has_port, is_made_up, quotes, comes_late, has_host], _): &Spelt) -> String {
        let mut node = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        if *has_port {
            node += if *is_made_up { ":_web.1" } else { ":4711" };
        }
        let node = if *quotes || address.is_ipv6() { format!("fOr=\"{node}\"") } else { format!("for={node}") };
        let host = has_host.then(|| r#"host="a\",for=6.6.6.6;proto=\\""#.to_owned());
        let proto = is_tls.map(|is_tls| format!("proto={}", if is_tls { "https" } else { "http" }));
        let mut parts: Vec<String> = [Some(node), host, proto].into_iter().flatten().collect();
        parts.rotate_left(usize::from(*comes_late));
        parts.join(";")
    }

    /// What a header's values are when each hop adds itself to the last, or a line of its own.
    fn values(before: &[u8], hops: &[Spelt], spell: impl Fn(&Spelt) -> String) -> Vec<Vec<u8>> {
        let mut values = vec![before.to_vec()];
        for hop in hops {
            match hop.3 {
                true => values.push(spell(hop).into_bytes()),
                false => values.last_mut().expect("the first").extend([b", ", spell(hop).as_bytes()].concat()),
            }
        }
        values
    }

    proptest! {
        #[test]
        fn the_client_is_found_however_it_is_spelt_and_whatever_it_wrote_itself(
            spoofed in prop::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b','), 0x20u8..=0x7E, 0x80u8..], 0..40),
            client in any::<[u8; 3]>(), mut hops in hops(),
        ) {
            // Whoever wrote it is none of ours, so nothing of it counts.
            let [a, b, c] = client;
            hops.insert(0, (IpAddr::from([192, a, b, c]), Some(true), [false; 5], false));
            let ours = |address: IpAddr| matches!(address, IpAddr::V4(four) if four.octets()[0] == 10);
            let last = hops.iter().rev().find(|hop| !ours(hop.0.to_canonical())).expect("the client at least");
            let (named, scheme) = (last.0.to_canonical().to_string(), last.1.map(|is_tls| if is_tls { "https" } else { "http" }));
            prop_assert_eq!(forwarded(&values(&spoofed, &hops, spell)), (Ok(named.clone()), scheme));
            prop_assert_eq!(of(&values(&spoofed, &hops, |hop| hop.0.to_string())), Ok(named));
        }

        #[test]
        fn no_value_makes_it_panic(values in prop::collection::vec("[for=\"\\\\;:,_\\[\\] 1.proto]{0,40}", 0..4)) {
            let _ = (of(&values), forwarded(&values));
        }
    }
}
