//! The core through its one door, `Shard::step`, with small scenarios: what clients are promised,
//! request by request. Sockets, lanes and the clock are the simulation's.

mod asked;
mod closing;
mod history;
mod house;
mod lanes;
mod membership;
mod memory;
mod policy;
mod publishing;
mod rates;
mod replay;
mod requests;
mod slow;
mod socketio;
mod streams;
mod tokens;
