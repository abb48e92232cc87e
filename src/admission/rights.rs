//! What a request needs and what it costs, as its feature declares it.

/// What the sender must be allowed in the room that a request names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// Nothing beyond a valid identity.
    None,
    Join,
    Publish,
    /// To write to a user by name, which is not to enter that user's room.
    Direct,
    Presence,
    Manage,
}

impl Right {
    pub const fn as_str(self) -> &'static str {
        match self {
            Right::None => "none",
            Right::Join => "join",
            Right::Publish => "publish",
            Right::Direct => "direct",
            Right::Presence => "presence",
            Right::Manage => "manage",
        }
    }
}

/// The class of a request for rate limits, by the work that it causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// Answered from the connection's own row.
    Light,
    /// One room's home, no fan-out.
    Normal,
    /// A fan-out.
    Heavy,
}
