//! Floor 6: runtime, listener, reader, lanes, clock. The only floor that names monoio, flume and quanta.
//!
//! [`gateway`] starts a thread per shard. On it run, sharing one [`edge::Edge`]: the listener, the
//! reader (which also hears sockets whose handshake is under way), the flusher, the tick, the
//! arrivals (what other threads left), the keeper of turns and, where a profile wants it, the busy
//! polling.

pub mod arrivals;
pub mod audit;
pub mod bell;
pub mod callers;
pub mod clock;
pub mod control;
pub mod counters;
pub mod crowd;
pub mod dirty;
pub mod edge;
pub mod egress;
pub mod engine;
pub mod entrance;
pub mod flusher;
pub mod gateway;
pub mod handshake;
pub mod inherited;
pub mod joined;
pub mod lanes;
pub mod listener;
pub mod polling;
pub mod process;
pub mod pulse;
pub mod reader;
pub mod readiness;
pub mod ring;
pub mod routes;
pub mod rows;
pub mod runtime;
pub mod signal;
pub mod socket;
pub mod stream;
pub mod streams;
pub mod tick;
pub mod timing;
pub mod tls;
pub mod tuning;
pub mod turn;
pub mod users;
pub mod waiting;
