//! Beside the floors: floors 0 to 5 in a simulated world under one seed.
//!
//! [`World`] is what the edge is to real shards: lanes with few places, sockets that take a part of
//! what they are given, a clock that is told. [`Simulation`] draws clients that misbehave and lets
//! everything happen in an order that its seed decides; [`race`] does so with one client's change from polling to a
//! WebSocket; the oracle knows what was promised and
//! says which promise was broken. Invariant: the same seed brings the same run, byte for byte.

mod client;
mod decoder;
mod fault;
mod oracle;
mod simulation;
mod upgrade;
mod world;

pub use decoder::Received;
pub use fault::Fault;
pub use oracle::{Check, Failure};
pub use simulation::{Outcome, Simulation};
pub use upgrade::{UpgradeFault, UpgradeOutcome, race};
pub use world::{FromClient, Link, World, WorldShape, identity};
