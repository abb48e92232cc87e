//! Floor 6: runtime, listener, connection pumps, lanes, clock. The only floor that names monoio, flume and quanta.

pub mod bell;
pub mod clock;
pub mod crowd;
pub mod lanes;
pub mod signal;
pub mod socket;
