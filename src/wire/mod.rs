//! Floor 1: bytes to envelopes and back. Knows no room, no user and no right.

pub mod alias;
pub mod assembler;
pub mod body;
pub mod codes;
pub mod deflate;
pub mod dialect;
pub mod encode;
pub mod engine;
pub mod envelope;
pub mod extension;
pub mod forwarded;
pub mod frame;
pub mod handshake;
pub mod http;
pub mod json;
pub mod msgpack;
pub mod proxy;
pub mod socketio;
pub mod sse;
