//! What an endpoint is to the kernel: a path of an application's own, whose clients send WebSocket
//! messages as they are, without the protocol's envelope. Connections, limits, compression, backpressure
//! and the drain are the gateway's; what a message means is the application's.
//! Invariant: an endpoint hears of a connection from [`Endpoint::on_open`] to [`Endpoint::on_close`], each
//! once and in this order, and of nobody else's.

use crate::admission::rights::Rate;
use crate::base::limits::{ENDPOINT_MESSAGE_BYTES_MAX, ENDPOINTS_MAX, FRAGMENTS_MAX, MESSAGE_BYTES_MAX};
use crate::base::time::Now;
use crate::kernel::Kernel;
use crate::kernel::effects::Effects;
use crate::kernel::ids::ConnId;
use crate::wire::codes::CloseCode;
use crate::wire::frame;
use std::sync::Arc;

/// One message, whole, as the client sent it or is to read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
}

/// What an application does at one path. One instance a shard, on that shard's thread: what it keeps is
/// that shard's part, and what takes long holds up everybody there.
pub trait Endpoint {
    /// Somebody has connected.
    fn on_open(&mut self, _client: &mut Client<'_>) {}

    /// A client sent a message.
    fn on_message(&mut self, client: &mut Client<'_>, message: Message<'_>);

    /// The connection has ended, whoever ended it.
    fn on_close(&mut self, _conn: ConnId) {}
}

/// What clients may send to an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointLimits {
    /// One message, also as it inflates: at most 64 MiB. More is closed with 1009.
    pub message_bytes: usize,
    /// Frames of one message (`RFC 6455` section 5.4). More are closed with 1009.
    pub fragments: u32,
    /// What a message costs of what a connection may ask for (`limits.conn_per_s`); who sends on without
    /// any left is closed with 4429. `None`: messages cost nothing.
    pub rate: Option<Rate>,
}

impl Default for EndpointLimits {
    fn default() -> EndpointLimits {
        EndpointLimits { message_bytes: MESSAGE_BYTES_MAX, fragments: FRAGMENTS_MAX, rate: Some(Rate::Light) }
    }
}

/// Makes an endpoint's instance for a shard.
pub type Make = Arc<dyn Fn() -> Box<dyn Endpoint> + Send + Sync>;

/// The endpoints of a process.
#[derive(Clone, Default)]
pub struct Endpoints(Vec<Declared>);

#[derive(Clone)]
struct Declared {
    path: &'static str,
    limits: EndpointLimits,
    make: Make,
}

impl Endpoints {
    pub fn add(&mut self, path: &'static str, limits: EndpointLimits, make: Make) {
        self.0.push(Declared { path, limits, make });
    }

    pub fn has(&self, path: &str) -> bool {
        self.0.iter().any(|endpoint| endpoint.path == path)
    }

    /// `Err`: what cannot be served, and why.
    pub fn check(&self) -> Result<(), String> {
        if self.0.len() > ENDPOINTS_MAX {
            return Err(format!("{} endpoints are declared; {ENDPOINTS_MAX} is the most", self.0.len()));
        }
        for (nth, Declared { path, limits, .. }) in self.0.iter().enumerate() {
            let is_path = path.len() > 1 && path.starts_with('/') && !path.contains(['?', '#', ' ']);
            let bytes = limits.message_bytes;
            if !is_path {
                return Err(format!("an endpoint's path begins with / and has no query; {path:?} is none"));
            }
            if OWN_PATHS.contains(path) || self.0[..nth].iter().any(|other| other.path == *path) {
                return Err(format!("an endpoint is declared at {path}, where something is served already"));
            }
            if !(1..=ENDPOINT_MESSAGE_BYTES_MAX).contains(&bytes) {
                let most = ENDPOINT_MESSAGE_BYTES_MAX;
                return Err(format!("messages at {path} may have 1 to {most} bytes, not {bytes}"));
            }
            if limits.fragments == 0 {
                return Err(format!("a message at {path} has at least one frame; zero fragments allow none"));
            }
        }
        Ok(())
    }

    /// The instances of one shard.
    pub fn instances(&self) -> Vec<Served> {
        let served =
            |declared: &Declared| Served { path: declared.path, limits: declared.limits, endpoint: (declared.make)() };
        self.0.iter().map(served).collect()
    }
}

/// What the gateway serves itself.
const OWN_PATHS: [&str; 2] = ["/ws", "/health"];

/// An endpoint on one shard.
pub struct Served {
    pub path: &'static str,
    pub limits: EndpointLimits,
    pub endpoint: Box<dyn Endpoint>,
}

/// A client of an endpoint, for as long as the endpoint is called.
pub struct Client<'a> {
    kernel: &'a mut Kernel,
    effects: &'a mut Effects,
    now: Now,
    conn: ConnId,
}

impl<'a> Client<'a> {
    pub fn new(kernel: &'a mut Kernel, effects: &'a mut Effects, now: Now, conn: ConnId) -> Client<'a> {
        Client { kernel, effects, now, conn }
    }

    /// Names the connection among those of its shard, for as long as it is open.
    pub fn conn(&self) -> ConnId {
        self.conn
    }

    /// The tenant and the user that the connection's token names; `None`: it brought no token.
    pub fn user(&self) -> Option<(&str, &str)> {
        let identity = &self.kernel.conns.cold(self.conn)?.identity;
        (!identity.is_guest()).then(|| (&**identity.tenant(), &*identity.user))
    }

    /// Sends a message, compressed where the client reads that and it pays. While more than an eighth of
    /// `limits.outbox_bytes` waits for a client, no more is read of it; one for whom an application has
    /// more than all of it, in more than four messages, is closed with 4410.
    pub fn send(&mut self, message: Message<'_>) {
        let (opcode, payload) = match message {
            Message::Text(text) => (frame::TEXT, text.as_bytes()),
            Message::Binary(bytes) => (frame::BINARY, bytes),
        };
        self.kernel.send_message(self.now, self.conn, opcode, payload, self.effects);
    }

    /// Says goodbye, after what was sent. A reason of more than 123 bytes is cut (`RFC 6455` section 5.5).
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        self.kernel.close(self.now, self.conn, code, reason, self.effects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    impl Endpoint for Deaf {
        fn on_message(&mut self, _: &mut Client<'_>, _: Message<'_>) {}
    }

    fn check(declared: &[(&'static str, EndpointLimits)]) -> Result<(), String> {
        let mut endpoints = Endpoints::default();
        for (path, limits) in declared {
            endpoints.add(path, *limits, Arc::new(|| Box::new(Deaf)));
        }
        endpoints.check()
    }

    #[test]
    fn a_program_that_declares_what_cannot_be_served_is_told_why() {
        const GOOD: EndpointLimits = EndpointLimits { message_bytes: 1, fragments: 1, rate: None };
        let bytes = |message_bytes| EndpointLimits { message_bytes, ..GOOD };
        let many = ["/1", "/2", "/3", "/4", "/5", "/6", "/7"].map(|path| (path, GOOD));
        assert_eq!(check(&[("/echo", GOOD), ("/echo/more", bytes(ENDPOINT_MESSAGE_BYTES_MAX))]), Ok(()));
        assert_eq!(check(&many[..ENDPOINTS_MAX]), Ok(()));
        for (declared, expected) in [
            (&many[..], "7 endpoints are declared; 6 is the most"),
            (&[("echo", GOOD)], "begins with /"),
            (&[("/", GOOD)], "begins with /"),
            (&[("/echo?loud", GOOD)], "begins with /"),
            (&[("/ws", GOOD)], "at /ws, where something"),
            (&[("/health", GOOD)], "at /health, where something"),
            (&[("/echo", GOOD), ("/echo", GOOD)], "at /echo, where something"),
            (&[("/echo", bytes(0))], "1 to 67108864 bytes, not 0"),
            (&[("/echo", bytes(ENDPOINT_MESSAGE_BYTES_MAX + 1))], "1 to 67108864 bytes, not 67108865"),
            (&[("/echo", EndpointLimits { fragments: 0, ..GOOD })], "at least one frame"),
        ] {
            let said = check(declared).expect_err(expected);
            assert!(said.contains(expected), "{said} is not {expected}");
        }
    }
}
