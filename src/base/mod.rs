//! Floor 0: what any program could use. Ids, units, bounds, tables, timer wheel, shared bytes.
//! Knows no domain word, no clock and no system call.

pub mod base32;
pub mod few;
pub mod hash;
pub mod index;
pub mod limits;
pub mod pages;
pub mod random;
pub mod table;
pub mod time;
pub mod u48;
pub mod wheel;
