//! What makes a token good here: the settings of the operator.

use crate::admission::pattern::Pattern;
use crate::base::limits::TOKEN_EXPIRING;
use std::sync::Arc;
use std::time::Duration;

/// The tenant of a token that names none.
pub const TENANT_DEFAULT: &str = "default";
/// The `typ` that opens a connection, unless others are configured: a refresh token must not.
pub const TYPE_ACCESS: &str = "access";
/// What the ids of users without a token begin with.
pub const ANONYMOUS_PREFIX: &str = "anon:";

/// What makes a token good here, and where it says what.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// How far clocks may be apart, either way.
    pub leeway_s: u64,
    /// Tokens of others are refused; empty: the key's word is enough.
    pub issuers: Vec<Box<str>>,
    /// One of these is in the token's `aud`; empty: not looked at.
    pub audiences: Vec<Box<str>>,
    /// What the header's `typ` may be, whatever its case; `JWT` stands for none too.
    pub header_types: Vec<Box<str>>,
    /// What the type claim may be where there is one.
    pub types: Vec<Box<str>>,
    /// A token that never ends is refused.
    pub expiry_required: bool,
    /// How long before its token ends a client is told.
    pub expiring: Duration,
    pub claims: ClaimPaths,
    /// Where claims stand that policies compare: what is there is kept with the identity.
    pub compared: Vec<Arc<str>>,
    /// Present: who sends no token is let in as this.
    pub anonymous: Option<Anonymous>,
}

impl Default for TokenSettings {
    fn default() -> Self {
        TokenSettings {
            leeway_s: 5,
            issuers: Vec::new(),
            audiences: Vec::new(),
            header_types: ["JWT", "at+jwt"].map(Box::from).into(),
            types: [TYPE_ACCESS].map(Box::from).into(),
            expiry_required: false,
            expiring: TOKEN_EXPIRING,
            claims: ClaimPaths::default(),
            compared: Vec::new(),
            anonymous: None,
        }
    }
}

/// Where a token says what: a claim, or a claim in a claim with dots between (`realm_access.roles`).
/// A claim whose own name holds dots (`https://id.example/roles`) is found too, and first.
#[derive(Clone, Debug)]
pub struct ClaimPaths {
    pub user: Box<str>,
    pub tenant: Box<str>,
    pub roles: Box<str>,
    pub name: Box<str>,
    pub device: Box<str>,
    pub kind: Box<str>,
    pub join: Box<str>,
    pub publish: Box<str>,
}

impl Default for ClaimPaths {
    fn default() -> Self {
        ClaimPaths {
            user: "sub".into(),
            tenant: "tenant".into(),
            roles: "roles".into(),
            name: "name".into(),
            device: "device".into(),
            kind: "typ".into(),
            join: "rooms.join".into(),
            publish: "rooms.publish".into(),
        }
    }
}

/// Who sends no token.
#[derive(Clone, Debug)]
pub struct Anonymous {
    pub tenant: Box<str>,
    /// For policies to tell them by.
    pub role: Box<str>,
    /// Narrow what the policy allows, as the claims of a token would.
    pub join: Option<Box<[Pattern]>>,
    pub publish: Option<Box<[Pattern]>>,
}

impl Default for Anonymous {
    /// They listen and say nothing.
    fn default() -> Self {
        Anonymous { tenant: TENANT_DEFAULT.into(), role: "anonymous".into(), join: None, publish: Some(Box::default()) }
    }
}
