//! Who may come in, from where and how often, as an operator sets it. Replaced as a whole when the
//! configuration is read again. Invariant: what a request says of where it comes from is believed
//! only from proxies that are listed.

use crate::admission::networks::Networks;
use crate::admission::origins::Origins;
use crate::base::limits::{ATTEMPTS_PER_ADDRESS, CALLER_TIME, FAILURES_PER_ADDRESS, HALF_OPEN_PER_ADDRESS};
use crate::io::callers::Rate;
use crate::wire::forwarded::{self, Said, Written};
use crate::wire::http::Head;
use std::net::IpAddr;

#[derive(Clone, Debug)]
pub struct Entrance {
    /// Whose sockets are served; empty: everybody's.
    pub allowed: Networks,
    /// Whose are not, allowed or not.
    pub denied: Networks,
    /// Whose word counts for where a request comes from.
    pub proxies: Networks,
    /// Where they write it.
    pub forwarded: Written,
    /// Each of their sockets begins with a header that says whose connection it is.
    pub proxy_protocol: bool,
    /// Addresses to which no limit of addresses applies.
    pub unlimited: Networks,
    pub origins: Origins,
    /// Attempts of one address to connect, and of one user.
    pub attempts: Option<Rate>,
    pub attempts_per_user: Option<Rate>,
    /// Bad tokens from one address.
    pub failures: Option<Rate>,
    /// Sockets of one address whose heads have not ended.
    pub half_open_max: Option<u32>,
    /// Open connections of one address, and of one user.
    pub conns_per_address: Option<u32>,
    pub conns_per_user: Option<u32>,
}

impl Default for Entrance {
    fn default() -> Self {
        Entrance {
            allowed: Networks::default(),
            denied: Networks::default(),
            proxies: Networks::default(),
            forwarded: Written::default(),
            proxy_protocol: false,
            unlimited: Networks::default(),
            origins: Origins::default(),
            attempts: Some(Rate { number: ATTEMPTS_PER_ADDRESS, per: CALLER_TIME }),
            attempts_per_user: None,
            failures: Some(Rate { number: FAILURES_PER_ADDRESS, per: CALLER_TIME }),
            half_open_max: Some(HALF_OPEN_PER_ADDRESS),
            conns_per_address: None,
            conns_per_user: None,
        }
    }
}

/// Who is at the other end of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// A proxy's header gave this address; that of the socket is the proxy's.
    pub is_named: bool,
    /// Whether it spoke TLS to whoever took its socket; `None`: nobody knows.
    pub is_tls: Option<bool>,
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Peer {
        Peer { address, is_named: false, is_tls: None }
    }
}

impl Peer {
    fn scheme(&self) -> Option<&'static str> {
        self.is_tls.map(|is_tls| if is_tls { "https" } else { "http" })
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    pub client: IpAddr,
    /// A proxy that is listed stands between.
    pub is_proxied: bool,
    /// How the client came to it, `http` or `https`, where that is known.
    pub scheme: Option<&'static str>,
    /// The proxy said something else than addresses; the client is then the proxy.
    pub is_malformed: bool,
}

impl Entrance {
    pub fn admits(&self, address: IpAddr) -> bool {
        !self.denied.contain(address) && (self.allowed.is_empty() || self.allowed.contain(address))
    }

    pub fn is_proxy(&self, peer: IpAddr) -> bool {
        self.proxies.contain(peer)
    }

    pub fn is_limited(&self, address: IpAddr) -> bool {
        !self.unlimited.contain(address)
    }

    /// Where a request comes from that came over a socket of `peer`.
    pub fn source(&self, peer: Peer, head: &Head<'_>) -> Source {
        let Peer { address, .. } = peer;
        if !self.is_proxy(address) {
            return Source { client: address, is_proxied: false, scheme: peer.scheme(), is_malformed: false };
        }
        let Said { client, scheme } = forwarded::said(head, address, |address| self.is_proxy(address), self.forwarded);
        // Who encrypts on the way here and does not say how a request came to it, got it so too.
        let scheme = scheme.or(peer.scheme());
        Source { client: client.unwrap_or(address), is_proxied: true, scheme, is_malformed: client.is_err() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::networks::Network;
    use crate::wire::http::parse_head;

    fn networks(text: &[&str]) -> Networks {
        text.iter().map(|text| Network::parse(text).unwrap()).collect()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn denied_wins_over_allowed_and_nothing_allowed_is_everything() {
        let mut entrance = Entrance { denied: networks(&["10.9.0.0/16"]), ..Entrance::default() };
        assert!(entrance.admits(address("192.0.2.1")) && !entrance.admits(address("10.9.1.1")));
        entrance.allowed = networks(&["10.0.0.0/8", "2001:db8::/32"]);
        assert!(entrance.admits(address("10.1.0.1")) && entrance.admits(address("2001:db8::1")));
        assert!(!entrance.admits(address("192.0.2.1")) && !entrance.admits(address("10.9.1.1")));
        assert!(!entrance.admits(address("::ffff:10.9.1.1")), "in whatever spelling");
    }

    #[test]
    fn only_listed_proxies_say_where_a_request_comes_from() {
        let entrance = Entrance { proxies: networks(&["10.0.0.0/8"]), ..Entrance::default() };
        let text = b"GET /ws HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
        let head = parse_head(text).unwrap().unwrap();
        assert_eq!(entrance.source(address("10.0.0.1").into(), &head).client, address("192.0.2.1"));
        let stranger = entrance.source(address("198.51.100.1").into(), &head);
        assert_eq!((stranger.client, stranger.is_proxied), (address("198.51.100.1"), false));
        let text = b"GET /ws HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1, who knows\r\n\r\n";
        let head = parse_head(text).unwrap().unwrap();
        let unclear = entrance.source(address("10.0.0.1").into(), &head);
        assert_eq!((unclear.client, unclear.is_malformed), (address("10.0.0.1"), true));
    }
}
