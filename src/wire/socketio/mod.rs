//! Socket.IO, protocol revision 5: packets of namespaces, read from Engine.IO messages and written as frames.
//! Invariant: what is read of a packet costs its bytes and no more, whatever it announces.

mod binary;
mod parse;
mod write;

pub use binary::{embed, extract};
pub use parse::{Arguments, Packet, is_reserved, parse};
pub use write::{ack, connect_error, connected, disconnect, event};

use std::sync::Arc;
#[derive(Debug)]
pub enum Style {
    Gateway,
    Application,
}
#[derive(Debug)]
pub struct Form {
    pub namespace: Box<str>,
    pub style: Style,
    pub aliases: Arc<super::alias::Aliases>,
}
