//! Floor 7: what an operator sees. Health and statistics on the ops port.

pub mod ops;
pub mod stats;
