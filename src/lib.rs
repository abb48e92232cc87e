//! ringroom: a real-time gateway. Floors, from the ground up; a file names its own floor and
//! lower ones only (`tests/floors.rs` reads the imports). `ARCHITECTURE.md` is the map.
//!
//! A program of one's own begins with [`App`]: `examples/echo.rs` is one, `docs/library.md` says more.

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

pub use host::{App, Failed, Options};
pub use kernel::endpoint::{Client, Endpoint, EndpointLimits, Message};
pub use kernel::ids::ConnId;
pub use kernel::mounts::{EngineSettings, SocketIo};
pub use kernel::namespace::{Ack, Arguments, ConnectRefused, Namespace, Socket};
pub use wire::codes::CloseCode;
