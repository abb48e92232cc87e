//! The service manager: what it hands over (listeners) and what it is told (ready, reloading, stopping,
//! alive), by `sd_listen_fds(3)` and `sd_notify(3)`.
//! Invariant: without `NOTIFY_SOCKET` nothing is said and without `LISTEN_FDS` nothing is taken; and
//! whoever does not listen to what is said never holds the service thread up.

use crate::host::Failed;
use crate::io::{inherited, process};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{self, UnixDatagram};
use std::time::Duration;

/// Listeners that one process may be handed.
const LISTENERS_MAX: usize = 256;

/// What the manager says in the environment.
pub struct Environment(HashMap<String, OsString>);

/// Listeners by what they are for.
#[derive(Default)]
pub struct Handed {
    pub data: Vec<TcpListener>,
    /// For clients that speak TLS.
    pub tls: Vec<TcpListener>,
    pub ops: Option<TcpListener>,
}

/// Where the manager wants to be told.
pub struct Notifier {
    socket: Option<(UnixDatagram, net::SocketAddr)>,
    /// How long it waits for a sign of life.
    pub watchdog: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    Data,
    Tls,
    Ops,
}

impl Environment {
    pub fn of_process() -> Environment {
        let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
        Environment(std::env::vars_os().filter_map(named).collect())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str()
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// Whether a variable with somebody's process id means this process.
    fn is_for_us(&self, name: &str) -> bool {
        self.number(name) == Some(std::process::id())
    }

    /// What each descriptor that was handed over is for.
    fn purposes(&self) -> Result<Vec<Purpose>, String> {
        if !self.is_for_us("LISTEN_PID") {
            return Ok(Vec::new());
        }
        let count: usize = self.number("LISTEN_FDS").unwrap_or_default();
        if count > LISTENERS_MAX {
            return Err(format!("LISTEN_FDS hands over {count} sockets and at most {LISTENERS_MAX} are taken"));
        }
        let Some(names) = self.text("LISTEN_FDNAMES") else { return Ok(vec![Purpose::Data; count]) };
        let purposes = names.split(':').map(|name| match name {
            "data" => Ok(Purpose::Data),
            "tls" => Ok(Purpose::Tls),
            "ops" => Ok(Purpose::Ops),
            _ => Err(format!(
                "a socket called {name:?} was handed over and nothing here listens on such; \
                 set FileDescriptorName= of its socket unit to data, to tls or to ops"
            )),
        });
        let purposes: Vec<Purpose> = purposes.collect::<Result<_, _>>()?;
        match purposes.len() == count {
            true => Ok(purposes),
            false => Err(format!("LISTEN_FDS says {count} and LISTEN_FDNAMES has {} names", purposes.len())),
        }
    }
}

impl Handed {
    /// To be called once, before anything is opened.
    pub fn take(environment: &Environment) -> Result<Handed, Failed> {
        let purposes = environment.purposes().map_err(Failed::configuration)?;
        if purposes.is_empty() {
            return Ok(Handed::default());
        }
        let taken = inherited::take(purposes.len());
        let taken = taken.map_err(|error| Failed::configuration(format!("LISTEN_FDS: {error}")))?;
        let mut handed = Handed::default();
        for (purpose, listener) in purposes.into_iter().zip(taken) {
            match purpose {
                Purpose::Data => handed.data.push(listener),
                Purpose::Tls => handed.tls.push(listener),
                Purpose::Ops if handed.ops.is_none() => handed.ops = Some(listener),
                Purpose::Ops => {
                    let message = "LISTEN_FDS hands over two sockets for operators; keep one ListenStream= for them";
                    return Err(Failed::configuration(message));
                }
            }
        }
        Ok(handed)
    }

    /// Of the listener for clients, the one for operators, and the one for clients that speak TLS. Of several
    /// for clients, the one that most can reach.
    pub fn addresses(&self) -> [Option<SocketAddr>; 3] {
        let of = |listeners: &[TcpListener]| {
            let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok());
            addresses.min_by_key(|address| address.ip().is_loopback())
        };
        let ops = self.ops.as_ref().and_then(|listener| listener.local_addr().ok());
        [of(&self.data), ops, of(&self.tls)]
    }
}

impl Notifier {
    pub fn new(environment: &Environment) -> Notifier {
        let socket = environment.0.get("NOTIFY_SOCKET").and_then(|address| match open(address.as_bytes()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("the service manager cannot be told anything: NOTIFY_SOCKET {address:?}: {error}");
                None
            }
        });
        // Absent: it is meant for whoever can tell.
        let is_for_us = environment.text("WATCHDOG_PID").is_none() || environment.is_for_us("WATCHDOG_PID");
        let watchdog = environment.number("WATCHDOG_USEC").filter(|us| *us > 0 && is_for_us && socket.is_some());
        Notifier { socket, watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// To be followed by [`Notifier::ready`].
    pub fn reloading(&self) {
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", process::monotonic_us()));
    }

    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// The end begins, and may take `longest` from now on.
    pub fn stopping(&self, status: &str, longest: Duration) {
        self.tell(&format!("STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC={}", longest.as_micros()));
    }

    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, what: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(what.as_bytes(), address) {
            log::warn!("the service manager was not told {:?}: {error}", what.lines().next().unwrap_or_default());
        }
    }
}

/// `/path` or `@name` of a socket without a file.
fn open(address: &[u8]) -> io::Result<(UnixDatagram, net::SocketAddr)> {
    let address = match address {
        [b'/', ..] => net::SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?,
        [b'@', name @ ..] => net::SocketAddr::from_abstract_name(name)?,
        _ => return Err(io::Error::other("neither a path nor a name that begins with @")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(of: &[(&str, &str)]) -> Environment {
        Environment(of.iter().map(|(name, value)| (name.to_string(), value.into())).collect())
    }

    fn me() -> String {
        std::process::id().to_string()
    }

    #[test]
    fn what_is_handed_over_is_named_and_meant_for_this_process() {
        let me = me();
        let all =
            |names| environment(&[("LISTEN_PID", &me), ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", names)]).purposes();
        assert_eq!(all("data:ops:tls"), Ok(vec![Purpose::Data, Purpose::Ops, Purpose::Tls]));
        assert!(all("data:ringroom.socket:ops").unwrap_err().contains("FileDescriptorName="));
        assert!(all("data").unwrap_err().contains("1 names"));
        let unnamed = environment(&[("LISTEN_PID", &me), ("LISTEN_FDS", "2")]);
        assert_eq!(unnamed.purposes(), Ok(vec![Purpose::Data; 2]));
        let many = environment(&[("LISTEN_PID", &me), ("LISTEN_FDS", "100000")]);
        assert!(many.purposes().unwrap_err().contains("at most 256"));
        let parents = environment(&[("LISTEN_PID", "1"), ("LISTEN_FDS", "3"), ("LISTEN_FDNAMES", "x")]);
        for nothing in [parents, environment(&[]), environment(&[("LISTEN_FDS", "3")])] {
            assert_eq!(nothing.purposes(), Ok(Vec::new()));
        }
    }

    #[test]
    fn the_manager_hears_what_is_said_at_a_path_and_at_a_name() {
        let path = std::env::temp_dir().join(format!("ringroom-notify-{}", std::process::id()));
        let name = format!("ringroom-notify-{}", std::process::id());
        let named = net::SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let by_name = UnixDatagram::bind_addr(&named).unwrap();
        let by_path = UnixDatagram::bind(&path).unwrap();
        for (manager, address) in [(by_name, format!("@{name}")), (by_path, path.to_str().unwrap().to_owned())] {
            let notifier = Notifier::new(&environment(&[("NOTIFY_SOCKET", &address)]));
            let heard = || {
                let mut buffer = [0; 256];
                let got = manager.recv(&mut buffer).unwrap();
                String::from_utf8(buffer[..got].to_vec()).unwrap()
            };
            assert!(notifier.is_heard() && notifier.watchdog.is_none());
            notifier.ready("3 connections");
            assert_eq!(heard(), "READY=1\nSTATUS=3 connections");
            notifier.reloading();
            let reloading = heard();
            let at: u64 = reloading.split(['=', '\n']).nth(3).unwrap().parse().unwrap();
            assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC=") && at <= process::monotonic_us());
            notifier.stopping("draining", Duration::from_secs(2));
            assert_eq!(heard(), "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=2000000");
            notifier.alive();
            assert_eq!(heard(), "WATCHDOG=1");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_manager_that_does_not_listen_is_not_waited_for() {
        let silent = Notifier::new(&environment(&[("NOTIFY_SOCKET", "@ringroom-nobody-listens-here")]));
        silent.ready("unheard");
        for nobody in [environment(&[]), environment(&[("NOTIFY_SOCKET", "vsock:2:1")])] {
            let notifier = Notifier::new(&nobody);
            assert!(!notifier.is_heard() && notifier.watchdog.is_none());
            notifier.alive();
        }
    }

    #[test]
    fn the_watchdog_is_fed_only_by_whom_it_watches() {
        let me = me();
        let at = ("NOTIFY_SOCKET", "@ringroom-watchdog");
        let asked = |more: &[(&str, &str)]| Notifier::new(&environment(&[&[at], more].concat())).watchdog;
        let us = ("WATCHDOG_USEC", "30000000");
        assert_eq!(asked(&[us]), Some(Duration::from_secs(30)));
        assert_eq!(asked(&[us, ("WATCHDOG_PID", &me)]), Some(Duration::from_secs(30)));
        assert_eq!(asked(&[us, ("WATCHDOG_PID", "1")]), None);
        assert_eq!(asked(&[("WATCHDOG_USEC", "0")]), None);
        assert_eq!(asked(&[("WATCHDOG_USEC", "soon")]), None);
        assert_eq!(Notifier::new(&environment(&[us])).watchdog, None, "nobody would hear it");
    }
}
