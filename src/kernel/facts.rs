//! What happened, for features to take note of: the only way in which features meet.

use crate::kernel::ids::ConnAt;
use std::sync::Arc;

/// Something that happened in a room, observed at its home only.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The first connection of `user` came in.
    Joined { user: Arc<str>, by: ConnAt },
    /// The last connection of `user` went.
    Left { user: Arc<str>, by: ConnAt },
}
