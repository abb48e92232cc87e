//! Floor 2: who may do what. Token to identity, names, room policy, the one gate. Knows no table.

pub mod rights;
