//! Who a connection speaks for, as its token said.
//! Invariant: every field was checked against its bound by [`super::token::Verifier`]; nothing
//! here came from a request.

use super::names::User;
use super::pattern::Pattern;
use std::num::NonZeroU64;
use std::sync::Arc;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub user: User,
    expires_unix_s: Option<NonZeroU64>,
    /// Most tokens say nothing of this, and then it costs nothing.
    particulars: Option<Box<Particulars>>,
}

/// What a token may say besides.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Particulars {
    /// For showing to people.
    pub name: Option<Box<str>>,
    pub roles: Box<[Box<str>]>,
    pub device: Option<Box<str>>,
    /// When present, only rooms that match one of these may be joined.
    pub join: Option<Box<[Pattern]>>,
    /// When present, only rooms that match one of these may be published to.
    pub publish: Option<Box<[Pattern]>>,
}

// One per connection, and tens of thousands of them idle.
const _: () = assert!(size_of::<Identity>() <= 24);

impl Identity {
    pub fn new(user: User, expires_unix_s: Option<u64>, said: Particulars) -> Identity {
        // Whoever was over with the first second is over ever since.
        let expires_unix_s = expires_unix_s.map(|second| NonZeroU64::new(second).unwrap_or(NonZeroU64::MIN));
        let particulars = (said != Particulars::default()).then(|| Box::new(said));
        Identity { user, expires_unix_s, particulars }
    }

    /// A user of whom nothing more is said.
    pub fn of(tenant: &str, user: &str) -> Identity {
        Identity::new(User::new(tenant.into(), user), None, Particulars::default())
    }

    pub fn tenant(&self) -> &Arc<str> {
        self.user.tenant()
    }

    /// From this second on the identity is void; the allowed clock skew is included.
    pub fn expires_unix_s(&self) -> Option<u64> {
        self.expires_unix_s.map(NonZeroU64::get)
    }

    pub fn name(&self) -> Option<&str> {
        self.particulars.as_ref()?.name.as_deref()
    }

    pub fn device(&self) -> Option<&str> {
        self.particulars.as_ref()?.device.as_deref()
    }

    pub fn roles(&self) -> &[Box<str>] {
        self.particulars.as_ref().map_or(&[], |said| &said.roles)
    }

    pub fn join(&self) -> Option<&[Pattern]> {
        self.particulars.as_ref()?.join.as_deref()
    }

    pub fn publish(&self) -> Option<&[Pattern]> {
        self.particulars.as_ref()?.publish.as_deref()
    }

    pub fn has_role(&self, role: &str) -> bool {
        self.roles().iter().any(|own| &**own == role)
    }

    pub fn has_any_role(&self, roles: &[&str]) -> bool {
        roles.iter().any(|role| self.has_role(role))
    }
}
