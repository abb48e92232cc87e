//! Who a connection speaks for, as its token said.
//! Invariant: every field was checked against its bound by [`super::token::Verifier`]; nothing
//! here came from a request.

use super::names::User;
use super::pattern::Pattern;
use std::sync::Arc;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    pub user: User,
    /// Seconds since 1970: 32 bits of them last until 2106. Zero: not said.
    issued_unix_s: u32,
    /// `NEVER`: not said, or later than the bits last.
    expires_unix_s: u32,
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
    /// The token's own id.
    pub token: Option<Box<str>>,
    /// When present, only rooms that match one of these may be joined.
    pub join: Option<Box<[Pattern]>>,
    /// When present, only rooms that match one of these may be published to.
    pub publish: Option<Box<[Pattern]>>,
    /// Claims that policies compare: where each stood, and a value that it had.
    pub claims: Box<[(Arc<str>, Box<str>)]>,
}

const NEVER: u32 = u32::MAX;

// One per connection, and tens of thousands of them idle.
const _: () = assert!(size_of::<Identity>() <= 24);

impl Identity {
    pub fn new(user: User, expires_unix_s: Option<u64>, said: Particulars) -> Identity {
        let particulars = (said != Particulars::default()).then(|| Box::new(said));
        let expires_unix_s = expires_unix_s.map_or(NEVER, |at| u32::try_from(at).unwrap_or(NEVER));
        Identity { user, issued_unix_s: 0, expires_unix_s, particulars }
    }

    /// By a token of this second.
    pub fn issued(self, unix_s: Option<u64>) -> Identity {
        let issued_unix_s = unix_s.map_or(0, |at| u32::try_from(at).unwrap_or(u32::MAX));
        Identity { issued_unix_s, ..self }
    }

    /// A user of whom nothing more is said.
    pub fn of(tenant: &str, user: &str) -> Identity {
        Identity::new(User::new(tenant.into(), user), None, Particulars::default())
    }

    /// Whose user is made up by the server.
    pub fn of_user(user: User) -> Identity {
        Identity::new(user, None, Particulars::default())
    }

    /// Who needs no token: nobody that one could name.
    pub fn guest() -> Identity {
        Identity::of("", "")
    }

    pub fn is_guest(&self) -> bool {
        self.user.is_empty()
    }

    pub fn tenant(&self) -> &Arc<str> {
        self.user.tenant()
    }

    /// When its token was issued.
    pub fn issued_unix_s(&self) -> Option<u64> {
        (self.issued_unix_s > 0).then_some(self.issued_unix_s.into())
    }

    /// From this second on the identity is void; the allowed clock skew is included.
    pub fn expires_unix_s(&self) -> Option<u64> {
        (self.expires_unix_s < NEVER).then_some(self.expires_unix_s.into())
    }

    /// The id of its token.
    pub fn token(&self) -> Option<&str> {
        self.particulars.as_ref()?.token.as_deref()
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

    pub fn has_any_role(&self, roles: &[impl AsRef<str>]) -> bool {
        roles.iter().any(|role| self.has_role(role.as_ref()))
    }

    /// Whether the claim at `path` is `value`, or a list with it.
    pub fn has_claim(&self, path: &str, value: &str) -> bool {
        let claims = self.particulars.as_ref().map_or(&[][..], |said| &said.claims);
        claims.iter().any(|(own_path, own)| &**own_path == path && &**own == value)
    }
}
