//! Floor 4: one promise each, one file each, one line each in [`all`]. Features know nothing of
//! one another; they meet through the kernel's facts.

mod auth;
mod data;
mod ping;
mod publish;
mod rooms;

use crate::kernel::feature::Feature;

/// What this server answers. One set of instances a shard.
pub fn all() -> Vec<Box<dyn Feature>> {
    vec![Box::new(rooms::Rooms), Box::new(publish::Publish), Box::new(ping::Ping), Box::new(auth::Auth)]
}
