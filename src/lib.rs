//! ringroom: a real-time gateway. Floors, from the ground up; a file names its own floor and
//! lower ones only (`tests/floors.rs` reads the imports). `ARCHITECTURE.md` is the map.

pub mod admission;
pub mod base;
pub mod cli;
pub mod features;
pub mod host;
pub mod io;
pub mod kernel;
pub mod observe;
pub mod shard;
pub mod sim;
pub mod tune;
pub mod wire;
