//! Engine.IO, protocol revision 4: packets and payloads.

mod packet;
pub mod payload;
mod sid;

pub use packet::{Packet, open_frame, packet_frame, parse};
pub use sid::Sid;

use std::fmt;

/// What a client sent is not of the protocol: its session is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed {
    pub reason: &'static str,
}

impl Malformed {
    pub(super) const fn new(reason: &'static str) -> Malformed {
        Malformed { reason }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.reason)
    }
}

impl std::error::Error for Malformed {}
