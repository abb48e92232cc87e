//! The one gate. Only [`admit`] makes an [`Admitted`], so no feature can forget to ask.

use crate::admission::identity::Identity;
use crate::admission::names::RoomName;
use crate::admission::policy::{Decision, Policy};
use crate::admission::rights::Right;
use crate::wire::codes::{ErrorCode, WireError};
use std::ops::Deref;

/// What a request asks for, as far as the gate needs to know.
pub trait Asks {
    fn right(&self) -> Right;
    /// The room that the right is needed in.
    fn room(&self) -> Option<&RoomName>;
}

/// What the sender is and has, gathered by the caller: admission knows no tables.
pub struct Standing<'a> {
    pub identity: &'a Identity,
    pub policy: &'a Policy,
}

/// A request that passed the gate.
#[derive(Debug)]
pub struct Admitted<T>(T);

impl<T> Deref for Admitted<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Lets `request` pass, or says why not.
pub fn admit<T: Asks>(request: T, standing: &Standing<'_>) -> Result<Admitted<T>, WireError> {
    if let Some(room) = request.room() {
        match standing.policy.decide(standing.identity, request.right(), room)? {
            Decision::Allowed => {}
            Decision::Ask => return Err(WireError::new(ErrorCode::Unavailable, "nobody can be asked")),
        }
    }
    Ok(Admitted(request))
}

/// What the server itself asks for in a user's name, such as the join of the user's own inbox.
pub fn admit_own<T>(request: T) -> Admitted<T> {
    Admitted(request)
}
