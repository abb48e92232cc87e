//! TLS of clients' sockets: `session` (bytes of one connection), `settings` (what is served with, made of
//! what an operator gives), `certificate` (what a certificate says of itself).
//! Invariant: nothing here touches a socket; `stream` brings the bytes and takes them away.

pub mod certificate;
#[cfg(test)]
pub mod sample;
pub mod session;
pub mod settings;
#[cfg(test)]
mod tests;

pub use session::{News, Session};
pub use settings::Served;
