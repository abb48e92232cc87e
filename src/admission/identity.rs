//! Who a connection speaks for, as its token said.
//! Invariant: every field was checked against its bound by [`super::token::Verifier`]; nothing
//! here came from a request.

use super::pattern::Pattern;
use std::sync::Arc;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub tenant: Arc<str>,
    pub user: Arc<str>,
    /// For showing to people.
    pub name: Option<Box<str>>,
    pub roles: Box<[Box<str>]>,
    pub device: Option<Box<str>>,
    /// When present, only rooms that match one of these may be joined.
    pub join: Option<Box<[Pattern]>>,
    /// When present, only rooms that match one of these may be published to.
    pub publish: Option<Box<[Pattern]>>,
    /// From this second on the identity is void; the allowed clock skew is included.
    pub expires_unix_s: Option<u64>,
}

// One per connection, and tens of thousands of them idle.
const _: () = assert!(size_of::<Identity>() <= 128);

impl Identity {
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|own| &**own == role)
    }

    pub fn has_any_role(&self, roles: &[&str]) -> bool {
        roles.iter().any(|role| self.has_role(role))
    }
}
