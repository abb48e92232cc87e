//! Socket.IO, protocol revision 5: packets of namespaces, read from Engine.IO messages and written as frames.
//! Invariant: what is read of a packet costs its bytes and no more, whatever it announces.

mod binary;
mod form;
mod parse;
mod write;

pub use binary::{canonical, embed, extract};
pub use form::{Form, Forms, Style};
pub use parse::{Arguments, Packet, is_reserved, parse};
pub use write::{ack, connect_error, connected, disconnect, event};

#[cfg(test)]
pub(in crate::wire) use parse::tests::values;
