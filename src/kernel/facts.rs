//! What happened, for features to take note of: the only way in which features meet.

use crate::admission::names::User;
use crate::kernel::ids::ConnAt;

/// Something that happened in a room, observed at its home only.
#[derive(Clone, Debug)]
pub enum Fact {
    /// The first connection of `user` came in.
    Joined { user: User, by: ConnAt },
    /// The last connection of `user` went.
    Left { user: User, by: ConnAt },
}
