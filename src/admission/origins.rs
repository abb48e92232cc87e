//! Origins: which web pages may open connections. Browsers name the page's origin in every such
//! request and no page can change it; whatever is no browser names what it likes, or nothing.
//! Invariant: a cookie, which a browser sends along whoever wrote the page, counts only for an
//! origin that is listed or is this host itself, never because any is allowed.

use std::borrow::Cow;

/// Pages of this machine: what a developer's own server serves.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// What an operator allows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origins {
    pub listed: Box<[Pattern]>,
    /// Pages of the host that the request names.
    pub same_host: bool,
    /// Pages of the client's own machine, of whatever port.
    pub local: bool,
    /// Whatever page.
    pub any: bool,
}

impl Default for Origins {
    fn default() -> Self {
        Origins { listed: Box::default(), same_host: true, local: false, any: false }
    }
}

/// One or many origins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pattern {
    scheme: Box<str>,
    /// Behind the wildcard with its dot, where there is one.
    host: Box<str>,
    port: Option<u16>,
    is_wild: bool,
}

/// Why a page is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Allowed {
    /// The request names no origin: it is no browser's.
    NoPage,
    /// The page is known: its cookies count.
    Known,
    /// Any page is allowed, and this is one.
    Any,
}

/// The request, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `Origin`, where it is named once.
    pub origin: Option<&'a str>,
    /// `Host`.
    pub host: &'a str,
    /// How the client reached us, where somebody trustworthy says so.
    pub scheme: Option<&'a str>,
}

/// An origin, taken apart (`RFC 6454` section 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    /// The scheme's own where none is named.
    port: Option<u16>,
}

impl<'a> Parts<'a> {
    fn of(origin: &'a str) -> Option<Parts<'a>> {
        let (scheme, authority) = origin.split_once("://")?;
        let mut letters = scheme.bytes();
        let is_scheme = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
            && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return None;
        }
        let (host, port) = host_and_port(authority)?;
        Some(Parts { scheme, host, port: port.or_else(|| port_of(scheme)) })
    }
}

/// Nothing but a host and a port: no user, no path, and only what browsers put into hosts.
fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let end_of_host = match authority.strip_prefix('[') {
        Some(rest) => rest.find(']')? + 2,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end_of_host);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
        None => None,
    };
    is_host.then_some((host, port))
}

fn port_of(scheme: &str) -> Option<u16> {
    match scheme {
        _ if is_same(scheme, "http") => Some(80),
        _ if is_same(scheme, "https") => Some(443),
        _ => None,
    }
}

fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

impl Pattern {
    /// `https://app.example`, `https://app.example:8443`, or `https://*.example` for all hosts below it.
    pub fn parse(text: &str) -> Option<Pattern> {
        let wild = text.split_once("://*.").map(|(scheme, rest)| format!("{scheme}://{rest}"));
        let text = wild.as_deref().map_or(Cow::Borrowed(text), Cow::Borrowed);
        let Parts { scheme, host, port } = Parts::of(&text)?;
        let dot = if wild.is_some() { "." } else { "" };
        Some(Pattern { scheme: scheme.into(), host: format!("{dot}{host}").into(), port, is_wild: wild.is_some() })
    }

    fn fits(&self, origin: &Parts<'_>) -> bool {
        let is_host = match self.is_wild {
            false => is_same(origin.host, &self.host),
            true => {
                // At least one byte before the dot: a host of that name below, never the name itself.
                let at = origin.host.len().checked_sub(self.host.len()).filter(|at| *at > 0);
                at.is_some_and(|at| is_same(&origin.host[at..], &self.host))
            }
        };
        is_host && is_same(origin.scheme, &self.scheme) && origin.port == self.port
    }
}

impl Origins {
    /// `None`: this page may not.
    pub fn judge(&self, asked: Asked<'_>) -> Option<Allowed> {
        let Some(origin) = asked.origin else { return Some(Allowed::NoPage) };
        // What cannot be read, such as `null`, is a page that nobody knows.
        let is_known = Parts::of(origin).is_some_and(|origin| self.know(&origin, &asked));
        match is_known {
            true => Some(Allowed::Known),
            false => self.any.then_some(Allowed::Any),
        }
    }

    fn know(&self, origin: &Parts<'_>, asked: &Asked<'_>) -> bool {
        self.listed.iter().any(|pattern| pattern.fits(origin))
            || self.same_host && is_of_host(origin, asked)
            || self.local && LOCAL_HOSTS.iter().any(|host| is_same(origin.host, host))
    }
}

/// Whether the page comes from where the request goes.
fn is_of_host(origin: &Parts<'_>, asked: &Asked<'_>) -> bool {
    // A proxy may have taken TLS off without saying so: then the page's word has to do.
    let is_scheme =
        port_of(origin.scheme).is_some() && asked.scheme.is_none_or(|scheme| is_same(scheme, origin.scheme));
    let host = host_and_port(asked.host);
    is_scheme
        && host.is_some_and(|(host, port)| {
            is_same(host, origin.host) && port.or_else(|| port_of(origin.scheme)) == origin.port
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "chat.example";

    fn judged(origins: &Origins, origin: &str) -> Option<Allowed> {
        origins.judge(Asked { origin: Some(origin), host: HOST, scheme: None })
    }

    fn listed(patterns: &[&str]) -> Origins {
        let listed = patterns.iter().map(|text| Pattern::parse(text).expect("a pattern")).collect();
        Origins { listed, same_host: false, ..Origins::default() }
    }

    #[test]
    fn pages_of_the_same_host_are_known_by_default_and_no_others() {
        let origins = Origins::default();
        for same in ["https://chat.example", "http://chat.example", "HTTPS://Chat.Example", "https://chat.example:443"]
        {
            assert_eq!(judged(&origins, same), Some(Allowed::Known), "{same}");
        }
        for other in [
            "null",
            "",
            "chat.example",
            "https://evil.example",
            "https://evil-chat.example",
            "https://chat.example.evil.example",
            "https://sub.chat.example",
            "https://chat.example.",
            "https://chat.example:8443",
            "http://chat.example:443",
            "https://chat.example:",
            "https://chat.example:0443x",
            "https://chat.example:99999",
            "https://chat.example/",
            "https://chat.example/path",
            "https://chat.example@evil.example",
            "https://user@chat.example",
            "https://chat.example\\.evil.example",
            "https://chat.example evil.example",
            "https://chat.example, https://evil.example",
            "https://ch\u{430}t.example",
            "https://chat%2eexample",
            "https://",
            "://chat.example",
            "ftp://chat.example",
            "file://chat.example",
        ] {
            assert_eq!(judged(&origins, other), None, "{other}");
        }
        let no_page = Asked { origin: None, host: HOST, scheme: None };
        assert_eq!(origins.judge(no_page), Some(Allowed::NoPage));
    }

    #[test]
    fn the_port_of_the_host_counts_and_the_scheme_where_it_is_known() {
        let origins = Origins::default();
        let judge = |origin, host, scheme| origins.judge(Asked { origin: Some(origin), host, scheme }).is_some();
        assert!(judge("http://localhost:3001", "localhost:3001", None));
        assert!(!judge("http://localhost:5173", "localhost:3001", None));
        assert!(judge("http://[::1]:3001", "[::1]:3001", None));
        assert!(!judge("http://[::1", "[::1", None) && !judge("http://::1", "::1", None));
        assert!(judge("https://chat.example", HOST, Some("https")));
        assert!(!judge("http://chat.example", HOST, Some("https")), "it could have been changed on its way");
        assert!(!judge("https://chat.example", "", None) && !judge("https://chat.example", "chat.example/x", None));
    }

    #[test]
    fn listed_pages_are_known_exactly() {
        let origins =
            listed(&["https://app.example", "https://*.shop.example", "http://dev.example:8080", "app://desk"]);
        for known in [
            "https://app.example",
            "https://APP.example:443",
            "https://a.shop.example",
            "https://a.b.shop.example",
            "http://dev.example:8080",
            "app://desk",
        ] {
            assert_eq!(judged(&origins, known), Some(Allowed::Known), "{known}");
        }
        for other in [
            "http://app.example",
            "https://evil-app.example",
            "https://app.example.evil.example",
            "https://app.example.",
            "https://shop.example",
            "https://.shop.example/",
            "https://evilshop.example",
            "https://a.shop.example:444",
            "https://a@b.shop.example",
            "http://a.shop.example",
            "http://dev.example",
            "app://desk:1",
            "https://chat.example",
            "null",
        ] {
            assert_eq!(judged(&origins, other), None, "{other}");
        }
    }

    #[test]
    fn any_page_is_allowed_and_not_known() {
        let origins = Origins { any: true, ..Origins::default() };
        for page in ["https://evil.example", "null", "nonsense"] {
            assert_eq!(judged(&origins, page), Some(Allowed::Any), "{page}");
        }
        assert_eq!(judged(&origins, "https://chat.example"), Some(Allowed::Known));
    }

    #[test]
    fn pages_of_the_own_machine_are_known_whatever_their_port() {
        let origins = Origins { local: true, ..Origins::default() };
        for local in ["http://localhost:5173", "http://127.0.0.1", "https://[::1]:1"] {
            assert_eq!(judged(&origins, local), Some(Allowed::Known), "{local}");
        }
        for other in ["http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://notlocalhost:1"] {
            assert_eq!(judged(&origins, other), None, "{other}");
        }
    }

    #[test]
    fn a_pattern_is_an_origin_with_at_most_one_wildcard_in_front() {
        for wrong in [
            "",
            "*",
            "app.example",
            "https://",
            "https://*",
            "https://*.",
            "https://*app.example",
            "https://a.*.example",
            "https://*.*.example",
            "https://app.example/",
            "https://app.example:*",
            "*://app.example",
            "null",
        ] {
            assert_eq!(Pattern::parse(wrong), None, "{wrong}");
        }
    }
}
