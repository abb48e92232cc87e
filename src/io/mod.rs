//! Floor 6: runtime, listener, connection pumps, lanes, clock. The only floor that names monoio, flume and quanta.
//!
//! [`gateway`] starts a thread per shard. On it run, sharing one [`edge::Edge`]: the listener, a
//! handshake per new socket, a pump per connection, the flusher, the tick, the arrivals (what other
//! threads left) and the keeper of turns.

pub mod arrivals;
pub mod bell;
pub mod clock;
pub mod control;
pub mod counters;
pub mod crowd;
pub mod dirty;
pub mod edge;
pub mod egress;
pub mod flusher;
pub mod gateway;
pub mod handshake;
pub mod joined;
pub mod lanes;
pub mod listener;
pub mod process;
pub mod pump;
pub mod ring;
pub mod runtime;
pub mod signal;
pub mod socket;
pub mod tick;
pub mod turn;
pub mod waiting;
