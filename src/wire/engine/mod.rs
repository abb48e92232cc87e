//! Engine.IO, protocol revision 4: packets and payloads.

mod sid;

pub use sid::Sid;
