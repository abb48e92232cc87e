//! Floor 7: what an operator sees, on the ops port and in the audit log.
//!
//! `collector` asks the shards, once for all who want to know; `metrics` declares every figure,
//! `exposition` writes them down, `manual` explains them; `stats` is the same as JSON; `readiness`
//! judges; `certificates` is what is known of those; `ops` serves; `audit` keeps a record of who came, went and was refused.

pub mod audit;
pub mod certificates;
pub mod collector;
pub mod exposition;
pub mod manual;
pub mod metrics;
pub mod ops;
pub mod readiness;
pub mod stats;
