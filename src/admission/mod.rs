//! Floor 2: who may do what. Token to identity, names, room policy, the one gate. Knows no table.

pub mod gate;
pub mod identity;
pub mod keys;
pub mod names;
pub mod networks;
pub mod origins;
pub mod pattern;
pub mod policies;
pub mod policy;
pub mod rates;
pub mod revocations;
pub mod rights;
pub mod token;
