//! Tokens: bytes that a stranger sent to an [`Identity`].
//! Invariant: no claim is looked at before the signature holds, and what a refusal says never
//! holds a byte of the token or of a key.
//!
//! Times are compared here against the core's clock, so a replay sees the same answers.

use super::identity::{Identity, Particulars};
use super::keys::{Algorithm, Key, KeyRefused, KeySet, Unsigned};
use super::names::{User, check_tenant, check_user};
use super::pattern::Pattern;
use crate::base::base32;
use crate::base::limits::{
    CLAIM_VALUE_BYTES_MAX, CLAIM_VALUES_MAX, LABEL_BYTES_MAX, PATTERNS_MAX, ROLE_BYTES_MAX, ROLES_MAX, TOKEN_BYTES_MAX,
    TOKEN_EXPIRING, TOKEN_ID_BYTES_MAX,
};
use crate::wire::codes::ErrorCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::EncodingKey;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
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

/// Checks tokens.
#[derive(Debug)]
pub struct Verifier {
    settings: TokenSettings,
    keys: Arc<KeySet>,
    tenant_default: Arc<str>,
}

impl Default for Verifier {
    /// Without a key, it lets nobody in.
    fn default() -> Self {
        Verifier::new(TokenSettings::default(), Arc::default())
    }
}

impl Verifier {
    pub fn new(settings: TokenSettings, keys: Arc<KeySet>) -> Verifier {
        Verifier { settings, keys, tenant_default: TENANT_DEFAULT.into() }
    }

    /// HS256 with one shared `secret`. Times may be off by `leeway_s` either way.
    pub fn hs256(secret: &[u8], leeway_s: u64) -> Result<Verifier, KeyRefused> {
        let keys = KeySet::new(vec![Key::secret(secret, &[Algorithm::HS256])?])?;
        Ok(Verifier::new(TokenSettings { leeway_s, ..TokenSettings::default() }, Arc::new(keys)))
    }

    pub fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    /// Whether there is anybody whom it would let in: it has a key, or needs none.
    pub fn admits_anybody(&self) -> bool {
        !self.keys.is_empty() || self.settings.anonymous.is_some()
    }

    /// The identity that `token` proves at `unix_s`, seconds since 1970.
    pub fn verify(&self, token: &str, unix_s: u64) -> Result<Identity, TokenRefused> {
        let settings = &self.settings;
        let (body, key) = self.signed_body(token)?;
        let claims = Members::parse(&body)?;
        let kind: Option<Cow<'_, str>> = claims.read(&settings.claims.kind, "typ")?;
        if kind.is_some_and(|kind| !settings.types.iter().any(|allowed| **allowed == *kind)) {
            return Err(TokenRefused::WrongType);
        }
        let expires = claims.seconds("exp")?;
        if expires.is_none() && settings.expiry_required {
            return Err(TokenRefused::Claim("exp"));
        }
        let expires_unix_s = expires.map(|exp| exp.saturating_add(settings.leeway_s));
        if expires_unix_s.is_some_and(|expires| unix_s >= expires) {
            return Err(TokenRefused::Expired);
        }
        if claims.seconds("nbf")?.is_some_and(|nbf| unix_s.saturating_add(settings.leeway_s) < nbf) {
            return Err(TokenRefused::NotYetValid);
        }
        let issuer: Option<Cow<'_, str>> = claims.read("iss", "iss")?;
        let is_trusted = match key.issuer() {
            Some(own) => issuer.as_deref() == Some(own),
            None if settings.issuers.is_empty() => true,
            None => issuer.is_some_and(|issuer| settings.issuers.iter().any(|trusted| **trusted == *issuer)),
        };
        if !is_trusted {
            return Err(TokenRefused::WrongIssuer);
        }
        let audience: Option<OneOrSeveral> = claims.read("aud", "aud")?;
        let is_meant = |audience: OneOrSeveral| settings.audiences.iter().any(|own| audience.holds(own));
        if !settings.audiences.is_empty() && !audience.is_some_and(is_meant) {
            return Err(TokenRefused::WrongAudience);
        }
        self.identity(&claims, expires_unix_s)
    }

    /// Who sends no token, where that is allowed. `random` tells them apart; `label` is shown to
    /// people and proves nothing.
    pub fn anonymous(&self, random: u128, label: Option<&str>) -> Option<Identity> {
        let allowed = self.settings.anonymous.as_ref()?;
        let digits = base32::encode::<20>(random);
        let user = format!("{ANONYMOUS_PREFIX}{}", String::from_utf8_lossy(&digits));
        let is_label = |text: &&str| (1..=LABEL_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
        let said = Particulars {
            name: label.filter(is_label).map(Box::from),
            roles: [allowed.role.clone()].into(),
            join: allowed.join.clone(),
            publish: allowed.publish.clone(),
            ..Particulars::default()
        };
        Some(Identity::new(User::new(self.tenant(&allowed.tenant), &user), None, said))
    }

    /// The claims of a token, and the key that signed them.
    fn signed_body(&self, token: &str) -> Result<(Vec<u8>, &Key), TokenRefused> {
        if token.is_empty() {
            return Err(TokenRefused::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused::TooLong);
        }
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenRefused::Malformed);
        let (message, signature) = token.rsplit_once('.').ok_or(TokenRefused::Malformed)?;
        let (header, body) = message.split_once('.').ok_or(TokenRefused::Malformed)?;
        let header = decoded(header)?;
        let header: Header<'_> = serde_json::from_slice(&header).map_err(|_| TokenRefused::Malformed)?;
        // `RFC 7515` section 4.1.11: whoever does not understand a critical extension must refuse.
        if header.crit.is_some() {
            return Err(TokenRefused::Malformed);
        }
        if !self.takes_header_type(header.typ.as_deref()) {
            return Err(TokenRefused::WrongType);
        }
        let algorithm = header.alg.parse::<Algorithm>().map_err(|_| TokenRefused::WrongAlgorithm)?;
        let signer = self.keys.signer(algorithm, header.kid.as_deref(), message.as_bytes(), signature);
        let key = signer.map_err(|unsigned| match unsigned {
            Unsigned::UnknownKey => TokenRefused::UnknownKey,
            Unsigned::WrongAlgorithm => TokenRefused::WrongAlgorithm,
            Unsigned::Ambiguous => TokenRefused::AmbiguousKey,
            Unsigned::WrongSignature => TokenRefused::WrongSignature,
            Unsigned::Malformed => TokenRefused::Malformed,
        })?;
        Ok((decoded(body)?, key))
    }

    fn takes_header_type(&self, typ: Option<&str>) -> bool {
        let typ = typ.unwrap_or("JWT");
        // `RFC 7515` section 4.1.9: the prefix may be left out.
        let bare = match typ.split_at_checked("application/".len()) {
            Some((prefix, bare)) if prefix.eq_ignore_ascii_case("application/") => bare,
            _ => typ,
        };
        self.settings.header_types.iter().any(|allowed| allowed.eq_ignore_ascii_case(bare))
    }

    fn identity(&self, claims: &Members<'_>, expires_unix_s: Option<u64>) -> Result<Identity, TokenRefused> {
        let paths = &self.settings.claims;
        let user: String = claims.read(&paths.user, "sub")?.unwrap_or_default();
        let is_taken = self.settings.anonymous.is_some() && user.starts_with(ANONYMOUS_PREFIX);
        if is_taken || check_user(&user).is_err() {
            return Err(TokenRefused::Claim("sub"));
        }
        let tenant: Option<Cow<'_, str>> = claims.read(&paths.tenant, "tenant")?;
        let tenant = tenant.as_deref().unwrap_or(TENANT_DEFAULT);
        check_tenant(tenant).map_err(|_| TokenRefused::Claim("tenant"))?;
        let token: Option<String> = claims.read("jti", "jti")?;
        if token.as_ref().is_some_and(|token| token.len() > TOKEN_ID_BYTES_MAX) {
            return Err(TokenRefused::Claim("jti"));
        }
        let roles: Option<OneOrSeveral> = claims.read(&paths.roles, "roles")?;
        let particulars = Particulars {
            name: label(claims.read(&paths.name, "name")?).ok_or(TokenRefused::Claim("name"))?,
            roles: roles.map_or(Some(Box::default()), OneOrSeveral::roles).ok_or(TokenRefused::Claim("roles"))?,
            device: label(claims.read(&paths.device, "device")?).ok_or(TokenRefused::Claim("device"))?,
            token: token.filter(|token| !token.is_empty()).map(String::into_boxed_str),
            join: patterns(claims.read(&paths.join, "rooms.join")?).ok_or(TokenRefused::Claim("rooms.join"))?,
            publish: patterns(claims.read(&paths.publish, "rooms.publish")?)
                .ok_or(TokenRefused::Claim("rooms.publish"))?,
            claims: self.compared(claims),
        };
        let identity = Identity::new(User::new(self.tenant(tenant), &user), expires_unix_s, particulars);
        Ok(identity.issued(claims.seconds("iat")?))
    }

    /// What the token says at the paths that policies compare. What is no text, number, truth value or
    /// list of them, and what passes a bound, is as if it were not there: a claim only ever gives.
    fn compared(&self, claims: &Members<'_>) -> Box<[(Arc<str>, Box<str>)]> {
        let mut kept = Vec::new();
        for path in &self.settings.compared {
            let value = claims.find(path).and_then(|value| serde_json::from_str(value.get()).ok());
            let values = match value {
                Some(serde_json::Value::Array(values)) => values,
                value => value.into_iter().collect(),
            };
            let texts = values.into_iter().filter_map(|value| match value {
                serde_json::Value::String(text) => Some(text),
                serde_json::Value::Number(number) => Some(number.to_string()),
                serde_json::Value::Bool(flag) => Some(flag.to_string()),
                _ => None,
            });
            let texts = texts.filter(|text| text.len() <= CLAIM_VALUE_BYTES_MAX);
            kept.extend(texts.map(|text| (Arc::clone(path), text.into_boxed_str())));
        }
        kept.truncate(CLAIM_VALUES_MAX);
        kept.into()
    }

    /// Most are of one tenant, and share its name.
    fn tenant(&self, name: &str) -> Arc<str> {
        if *name == *self.tenant_default { Arc::clone(&self.tenant_default) } else { name.into() }
    }
}

/// What of a token's header counts here. The library's reader calls a token by an algorithm that it
/// does not know unreadable, and would take apart whatever else a stranger put in.
#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    #[serde(borrow)]
    kid: Option<Cow<'a, str>>,
    crit: Option<IgnoredAny>,
}

/// The members of a JSON object, none of them twice: what would the second one mean?
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    fn parse(body: &'a [u8]) -> Result<Members<'a>, TokenRefused> {
        serde_json::from_slice(body).map_err(|_| TokenRefused::Malformed)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    /// What stands at `path`. Each step leads into a smaller object, so this ends.
    fn find(&self, path: &str) -> Option<&'a RawValue> {
        self.get(path).or_else(|| {
            path.match_indices('.').find_map(|(dot, _)| {
                let inner: Members<'a> = serde_json::from_str(self.get(&path[..dot])?.get()).ok()?;
                inner.find(&path[dot + 1..])
            })
        })
    }

    /// What stands at `path`; `null` is nothing. `claim` is what a refusal calls it.
    fn read<T: Deserialize<'a>>(&self, path: &str, claim: &'static str) -> Result<Option<T>, TokenRefused> {
        let Some(value) = self.find(path) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|_| TokenRefused::Claim(claim))
    }

    /// `RFC 7519` allows fractions; a time in between counts from the next whole second.
    fn seconds(&self, claim: &'static str) -> Result<Option<u64>, TokenRefused> {
        // The conversion saturates: a negative time is 0, long past.
        Ok(self.read::<f64>(claim, claim)?.map(|seconds| seconds.ceil() as u64))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = Members(Vec::new());
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    if members.get(&name).is_some() {
                        return Err(M::Error::custom("a member is there twice"));
                    }
                    members.0.push((name, value));
                }
                Ok(members)
            }
        }
        from.deserialize_map(Reader)
    }
}

/// `aud` is one string or a list of them (`RFC 7519` section 4.1.3); so are roles (`scope` is one
/// string with spaces between, `RFC 8693` section 4.2).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

impl OneOrSeveral {
    fn holds(&self, wanted: &str) -> bool {
        match self {
            OneOrSeveral::One(one) => one == wanted,
            OneOrSeveral::Several(several) => several.iter().any(|one| one == wanted),
        }
    }

    /// `None`: out of bounds.
    fn roles(self) -> Option<Box<[Box<str>]>> {
        let roles: Box<[Box<str>]> = match self {
            OneOrSeveral::One(words) => words.split_ascii_whitespace().map(Box::from).collect(),
            OneOrSeveral::Several(several) => several.into_iter().map(String::into_boxed_str).collect(),
        };
        let fit = roles.iter().all(|role| (1..=ROLE_BYTES_MAX).contains(&role.len()));
        (roles.len() <= ROLES_MAX && fit).then_some(roles)
    }
}

/// What a token of ours says. Times are seconds since 1970.
#[derive(Clone, Default, Debug, Serialize)]
pub struct Claims {
    pub sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<RoomClaims>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<OneOrSeveral>,
}

/// The patterns of rooms that a token narrows its user to.
#[derive(Clone, Default, Debug, Serialize)]
pub struct RoomClaims {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<String>>,
}

/// Signs `claims` with HS256: for the command line and for tests.
pub fn sign_hs256(secret: &[u8], claims: &Claims) -> String {
    let header = jsonwebtoken::Header::new(Algorithm::HS256);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret))
        .expect("strings and numbers always become JSON, and HMAC takes a key of any length")
}

/// Why a token is refused. None of these can be helped by sending the same token again, save
/// `NotYetValid` and `UnknownKey` later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenRefused {
    Missing,
    TooLong,
    Malformed,
    WrongAlgorithm,
    /// The server looks for the key as soon as it may.
    UnknownKey,
    AmbiguousKey,
    WrongSignature,
    Expired,
    NotYetValid,
    WrongType,
    WrongIssuer,
    WrongAudience,
    Revoked,
    /// The named claim is missing or out of bounds.
    Claim(&'static str),
}

impl TokenRefused {
    /// The code that the client sees.
    pub const fn code(self) -> ErrorCode {
        match self {
            TokenRefused::Expired => ErrorCode::TokenExpired,
            _ => ErrorCode::Unauthorized,
        }
    }

    /// A short stable name for counters and the log.
    pub const fn reason(self) -> &'static str {
        match self {
            TokenRefused::Missing => "token_missing",
            TokenRefused::TooLong => "token_too_long",
            TokenRefused::Malformed => "token_malformed",
            TokenRefused::WrongAlgorithm => "token_wrong_algorithm",
            TokenRefused::UnknownKey => "token_unknown_key",
            TokenRefused::AmbiguousKey => "token_ambiguous_key",
            TokenRefused::WrongSignature => "token_wrong_signature",
            TokenRefused::Expired => "token_expired",
            TokenRefused::NotYetValid => "token_not_yet_valid",
            TokenRefused::WrongType => "token_wrong_type",
            TokenRefused::WrongIssuer => "token_wrong_issuer",
            TokenRefused::WrongAudience => "token_wrong_audience",
            TokenRefused::Revoked => "token_revoked",
            TokenRefused::Claim(_) => "token_claim",
        }
    }
}

impl fmt::Display for TokenRefused {
    /// At most 123 bytes: it also travels as the reason of a close frame.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            TokenRefused::Missing => {
                "no token was sent; put one in the Authorization header, the subprotocol or ?token="
            }
            TokenRefused::TooLong => "the token is longer than 8 KiB; issue one with fewer claims",
            TokenRefused::Malformed => "the token is not a readable signed JWT; send it exactly as it was issued",
            TokenRefused::WrongAlgorithm => {
                "this server has no key for the token's algorithm; get a token for this server"
            }
            TokenRefused::UnknownKey => {
                "the token's key is not known here; try again in some seconds, or get a token for this server"
            }
            TokenRefused::AmbiguousKey => "the token does not say which key signed it; have it issued with a kid",
            TokenRefused::WrongSignature => {
                "the token's signature does not fit this server's key; get a token for this server"
            }
            TokenRefused::Expired => "the token has expired; get a new one and connect again",
            TokenRefused::NotYetValid => "the token is not valid yet; wait, or check the issuer's clock",
            TokenRefused::WrongType => "the token is not an access token; connect with one that is",
            TokenRefused::WrongIssuer => "the token's issuer is not trusted here; get a token for this server",
            TokenRefused::WrongAudience => "the token is meant for another audience; get a token for this server",
            TokenRefused::Revoked => "the token was revoked; log in again",
            TokenRefused::Claim(claim) => {
                return write!(out, "the token's claim {claim} is missing or out of bounds; have it issued again");
            }
        })
    }
}

impl std::error::Error for TokenRefused {}

/// `None` when the text is out of bounds.
fn label(text: Option<String>) -> Option<Option<Box<str>>> {
    let fits = text.as_ref().is_none_or(|text| text.len() <= LABEL_BYTES_MAX);
    fits.then(|| text.filter(|text| !text.is_empty()).map(String::into_boxed_str))
}

/// `None` when one pattern is malformed or there are too many.
fn patterns(texts: Option<Vec<String>>) -> Option<Option<Box<[Pattern]>>> {
    let Some(texts) = texts else { return Some(None) };
    if texts.len() > PATTERNS_MAX {
        return None;
    }
    texts.iter().map(|text| Pattern::parse(text).ok()).collect::<Option<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::names::RoomName;
    use aws_lc_rs::hmac;
    use proptest::prelude::*;
    use serde_json::json;

    const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";
    const NOW: u64 = 1_763_690_000;

    fn verifier() -> Verifier {
        lenient(0)
    }

    fn lenient(leeway_s: u64) -> Verifier {
        Verifier::hs256(SECRET, leeway_s).unwrap()
    }

    fn with(change: impl FnOnce(&mut TokenSettings)) -> Verifier {
        let mut settings = TokenSettings { leeway_s: 0, ..TokenSettings::default() };
        change(&mut settings);
        Verifier::new(settings, Arc::clone(&verifier().keys))
    }

    fn alice() -> Claims {
        Claims { sub: "alice".into(), exp: Some(NOW + 60), ..Claims::default() }
    }

    fn verify(claims: &Claims) -> Result<Identity, TokenRefused> {
        verifier().verify(&sign_hs256(SECRET, claims), NOW)
    }

    /// A token with any header and body, signed rightly with HS256 by the raw primitive.
    fn signed(header: &str, body: &str) -> String {
        let message = format!("{}.{}", base64(header.as_bytes()), base64(body.as_bytes()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
        format!("{message}.{}", base64(signature.as_ref()))
    }

    fn base64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    const HS256: &str = r#"{"alg":"HS256"}"#;

    #[test]
    fn a_token_with_every_claim_becomes_an_identity() {
        let claims = Claims {
            tenant: Some("acme".into()),
            name: Some("Alice".into()),
            roles: vec!["admin".into(), "moderator".into()],
            device: Some("phone".into()),
            typ: Some("access".into()),
            rooms: Some(RoomClaims { join: Some(vec!["chat:*".into()]), publish: Some(vec![]) }),
            nbf: Some(NOW),
            iat: Some(NOW - 1),
            jti: Some("t-1".into()),
            ..alice()
        };
        let identity = verify(&claims).unwrap();
        assert_eq!((&**identity.tenant(), &*identity.user), ("acme", "alice"));
        assert_eq!((identity.name(), identity.device()), (Some("Alice"), Some("phone")));
        assert!(identity.has_role("admin") && identity.has_role("moderator") && !identity.has_role("adm"));
        assert!(identity.has_any_role(&["nobody", "admin"]) && !identity.has_any_role(&[] as &[&str]));
        assert!(identity.join().unwrap()[0].matches(&RoomName::parse("chat:1").unwrap()));
        assert_eq!(identity.publish(), Some(&[][..]));
        assert_eq!((identity.issued_unix_s(), identity.token()), (Some(NOW - 1), Some("t-1")));
        assert_eq!(identity.expires_unix_s(), Some(NOW + 60));
    }

    #[test]
    fn claims_that_policies_compare_are_kept_and_no_others() {
        let body = format!(
            r#"{{"sub":"alice","plan":"pro","level":3,"beta":true,"org":{{"groups":["a","b",7,null,{{}}]}},"long":"{}","much":[{}],"other":"x"}}"#,
            "x".repeat(CLAIM_VALUE_BYTES_MAX + 1),
            ["1"; 100].join(",")
        );
        let paths = ["plan", "level", "beta", "org.groups", "long", "absent", "much"];
        let curious = with(|settings| settings.compared = paths.map(Arc::from).into());
        let identity = curious.verify(&signed(HS256, &body), NOW).unwrap();
        for (path, value) in
            [("plan", "pro"), ("level", "3"), ("beta", "true"), ("org.groups", "b"), ("org.groups", "7")]
        {
            assert!(identity.has_claim(path, value), "{path}");
        }
        for (path, value) in [("plan", "pr"), ("other", "x"), ("absent", ""), ("groups", "a"), ("org.groups", "null")] {
            assert!(!identity.has_claim(path, value), "{path}");
        }
        let plain = verifier().verify(&signed(HS256, r#"{"sub":"alice","plan":"pro"}"#), NOW).unwrap();
        assert_eq!(plain, Identity::of("default", "alice"), "nothing is kept where nobody asks for it");
    }

    #[test]
    fn a_token_with_a_subject_alone_gets_the_default_tenant_and_no_narrowing() {
        let identity = verify(&Claims { exp: None, ..alice() }).unwrap();
        assert_eq!(&**identity.tenant(), "default");
        assert_eq!((identity.roles().len(), identity.join(), identity.expires_unix_s()), (0, None, None));
    }

    #[test]
    fn a_token_expires_at_its_second_plus_the_leeway() {
        let token = sign_hs256(SECRET, &Claims { exp: Some(NOW), ..alice() });
        assert_eq!(verifier().verify(&token, NOW), Err(TokenRefused::Expired));
        assert!(verifier().verify(&token, NOW - 1).is_ok());
        let lenient = lenient(5);
        assert_eq!(lenient.verify(&token, NOW + 4).unwrap().expires_unix_s(), Some(NOW + 5));
        assert_eq!(lenient.verify(&token, NOW + 5), Err(TokenRefused::Expired));
        assert_eq!(TokenRefused::Expired.code(), ErrorCode::TokenExpired);
    }

    #[test]
    fn a_token_is_refused_before_its_time_less_the_leeway() {
        let token = sign_hs256(SECRET, &Claims { nbf: Some(NOW), ..alice() });
        assert_eq!(verifier().verify(&token, NOW - 1), Err(TokenRefused::NotYetValid));
        assert!(verifier().verify(&token, NOW).is_ok());
        assert!(lenient(1).verify(&token, NOW - 1).is_ok());
    }

    #[test]
    fn fractions_of_a_second_and_absurd_times_are_read_without_overflow() {
        let at = |exp: &str| {
            let body = format!(r#"{{"sub":"alice","exp":{exp}}}"#);
            lenient(u64::MAX).verify(&signed(HS256, &body), NOW)
        };
        assert_eq!(at("1e300").unwrap().expires_unix_s(), None, "that is never");
        assert_eq!(at("-5").unwrap().expires_unix_s(), None);
        let body = format!(r#"{{"sub":"alice","exp":{NOW}.5}}"#);
        assert_eq!(
            verifier().verify(&signed(r#"{"alg":"HS256"}"#, &body), NOW).unwrap().expires_unix_s(),
            Some(NOW + 1)
        );
        let negative = signed(r#"{"alg":"HS256"}"#, r#"{"sub":"alice","exp":-1}"#);
        assert_eq!(verifier().verify(&negative, NOW), Err(TokenRefused::Expired));
    }

    #[test]
    fn a_signature_of_another_secret_is_refused() {
        let token = sign_hs256(b"another secret", &alice());
        assert_eq!(verifier().verify(&token, NOW), Err(TokenRefused::WrongSignature));
        let expired = sign_hs256(b"another secret", &Claims { exp: Some(1), ..alice() });
        assert_eq!(verifier().verify(&expired, NOW), Err(TokenRefused::WrongSignature), "no claim is read before");
    }

    #[test]
    fn changing_any_byte_of_a_token_makes_it_void() {
        let token = sign_hs256(SECRET, &alice());
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed == token || verifier().verify(&changed, NOW).is_err(), "byte {at}");
        }
    }

    #[test]
    fn only_hs256_counts_whatever_the_header_says() {
        let body = r#"{"sub":"alice"}"#;
        assert!(verifier().verify(&signed(r#"{"alg":"HS256"}"#, body), NOW).is_ok());
        for algorithm in ["HS384", "HS512", "RS256", "ES256", "EdDSA"] {
            let token = signed(&format!(r#"{{"alg":"{algorithm}"}}"#), body);
            assert_eq!(verifier().verify(&token, NOW), Err(TokenRefused::WrongAlgorithm), "{algorithm}");
        }
        for algorithm in ["none", "None", "hs256", ""] {
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            assert!(verifier().verify(&signed(&header, body), NOW).is_err(), "{algorithm}");
            let unsigned = format!("{}.{}.", base64(header.as_bytes()), base64(body.as_bytes()));
            assert!(verifier().verify(&unsigned, NOW).is_err(), "{algorithm} without a signature");
        }
    }

    #[test]
    fn a_header_with_critical_extensions_is_refused() {
        let token = signed(r#"{"alg":"HS256","crit":["exp"]}"#, r#"{"sub":"alice"}"#);
        assert_eq!(verifier().verify(&token, NOW), Err(TokenRefused::Malformed));
    }

    #[test]
    fn what_is_not_a_token_is_named_so() {
        assert_eq!(verifier().verify("", NOW), Err(TokenRefused::Missing));
        let long = "a".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(verifier().verify(&long, NOW), Err(TokenRefused::TooLong));
        for text in ["x", "..", "a.b.c", "a.b.c.d", "\u{1f511}.\u{1f511}.\u{1f511}"] {
            assert_eq!(verifier().verify(text, NOW), Err(TokenRefused::Malformed), "{text}");
        }
        for body in ["", "[5]", "null", r#"{"sub":"a","sub":"b"}"#, r#"{"sub":"a"} "#.trim_end_matches("} ")] {
            let token = signed(HS256, body);
            assert_eq!(verifier().verify(&token, NOW), Err(TokenRefused::Malformed), "{body}");
        }
    }

    #[test]
    fn a_refresh_token_opens_nothing() {
        let claims = Claims { typ: Some("refresh".into()), ..alice() };
        assert_eq!(verify(&claims), Err(TokenRefused::WrongType));
    }

    #[test]
    fn issuer_and_audience_are_compared_when_the_server_names_them() {
        let strict = with(|settings| {
            settings.issuers = vec!["https://other.example".into(), "https://id.example".into()];
            settings.audiences = vec!["chat".into()];
        });
        let verify = |iss: Option<&str>, aud: Option<OneOrSeveral>| {
            let claims = Claims { iss: iss.map(Into::into), aud, ..alice() };
            strict.verify(&sign_hs256(SECRET, &claims), NOW).map(|_| ())
        };
        let issuer = Some("https://id.example");
        assert_eq!(verify(issuer, Some(OneOrSeveral::One("chat".into()))), Ok(()));
        assert_eq!(verify(issuer, Some(OneOrSeveral::Several(vec!["mail".into(), "chat".into()]))), Ok(()));
        assert_eq!(verify(issuer, Some(OneOrSeveral::One("mail".into()))), Err(TokenRefused::WrongAudience));
        assert_eq!(verify(issuer, None), Err(TokenRefused::WrongAudience));
        assert_eq!(verify(Some("https://evil.example"), None), Err(TokenRefused::WrongIssuer));
        assert_eq!(verify(None, None), Err(TokenRefused::WrongIssuer));
    }

    #[test]
    fn claims_out_of_bounds_are_refused_by_name() {
        let cases = [
            ("sub", Claims { sub: String::new(), ..alice() }),
            ("sub", Claims { sub: "u".repeat(129), ..alice() }),
            ("sub", Claims { sub: "a\u{0}b".into(), ..alice() }),
            ("jti", Claims { jti: Some("j".repeat(TOKEN_ID_BYTES_MAX + 1)), ..alice() }),
            ("tenant", Claims { tenant: Some(String::new()), ..alice() }),
            ("tenant", Claims { tenant: Some("a/b".into()), ..alice() }),
            ("tenant", Claims { tenant: Some("t".repeat(65)), ..alice() }),
            ("roles", Claims { roles: vec!["r".into(); ROLES_MAX + 1], ..alice() }),
            ("roles", Claims { roles: vec![String::new()], ..alice() }),
            ("roles", Claims { roles: vec!["r".repeat(ROLE_BYTES_MAX + 1)], ..alice() }),
            ("name", Claims { name: Some("n".repeat(LABEL_BYTES_MAX + 1)), ..alice() }),
            ("device", Claims { device: Some("d".repeat(LABEL_BYTES_MAX + 1)), ..alice() }),
        ];
        for (claim, claims) in cases {
            assert_eq!(verify(&claims), Err(TokenRefused::Claim(claim)));
        }
        for texts in [vec!["chat:*".to_owned(); PATTERNS_MAX + 1], vec!["a b".to_owned()]] {
            let rooms = RoomClaims { join: Some(texts), publish: None };
            let claims = Claims { rooms: Some(rooms), ..alice() };
            assert_eq!(verify(&claims), Err(TokenRefused::Claim("rooms.join")));
        }
    }

    #[test]
    fn a_claim_of_the_wrong_type_is_named() {
        for (body, claim) in [
            (json!({"sub": 5}), "sub"),
            (json!({"sub": "a", "roles": 5}), "roles"),
            (json!({"sub": "a", "roles": [5]}), "roles"),
            (json!({"sub": "a", "exp": "soon"}), "exp"),
            (json!({"sub": "a", "rooms": {"join": "chat:*"}}), "rooms.join"),
        ] {
            assert_eq!(verifier().verify(&signed(HS256, &body.to_string()), NOW), Err(TokenRefused::Claim(claim)));
        }
        let absent = json!({"sub": "a", "roles": null, "exp": null, "rooms": {"join": null}, "name": ""});
        assert!(verifier().verify(&signed(HS256, &absent.to_string()), NOW).is_ok());
    }

    #[test]
    fn claims_are_read_where_the_settings_say() {
        let keycloak = with(|settings| {
            settings.claims.user = "preferred_username".into();
            settings.claims.roles = "resource_access.my.app.roles".into();
            settings.claims.tenant = "https://id.example/tenant".into();
            settings.types = vec!["Bearer".into()];
        });
        let body = json!({
            "sub": "f:1", "preferred_username": "alice", "typ": "Bearer", "realm_access": {"roles": ["x"]},
            "resource_access": {"my": 5, "my.app": {"roles": ["admin", "staff"]}},
            "https://id.example/tenant": "acme",
        });
        let identity = keycloak.verify(&signed(HS256, &body.to_string()), NOW).unwrap();
        assert_eq!((&*identity.user, &**identity.tenant()), ("alice", "acme"));
        assert_eq!(identity.roles(), ["admin", "staff"].map(Box::<str>::from));
        let scope = with(|settings| settings.claims.roles = "scope".into());
        let identity = scope.verify(&signed(HS256, r#"{"sub":"a","scope":"chat.read  chat.write"}"#), NOW).unwrap();
        assert_eq!(identity.roles(), ["chat.read", "chat.write"].map(Box::<str>::from));
    }

    #[test]
    fn the_headers_type_is_one_of_those_taken() {
        let strict = with(|settings| settings.header_types = vec!["at+jwt".into()]);
        for (typ, by_default, by_strict) in [
            ("JWT", true, false),
            ("jwt", true, false),
            ("at+jwt", true, true),
            ("application/AT+JWT", true, true),
            ("dpop+jwt", false, false),
            ("logout+jwt", false, false),
            ("", false, false),
        ] {
            let token = signed(&json!({"alg": "HS256", "typ": typ}).to_string(), r#"{"sub":"alice"}"#);
            assert_eq!(verifier().verify(&token, NOW).is_ok(), by_default, "{typ}");
            assert_eq!(strict.verify(&token, NOW).is_ok(), by_strict, "{typ}");
        }
        let untyped = signed(HS256, r#"{"sub":"alice"}"#);
        assert_eq!(strict.verify(&untyped, NOW), Err(TokenRefused::WrongType));
    }

    #[test]
    fn a_token_without_an_end_is_refused_where_one_is_required() {
        let strict = with(|settings| settings.expiry_required = true);
        let token = |exp| sign_hs256(SECRET, &Claims { exp, ..alice() });
        assert_eq!(strict.verify(&token(None), NOW), Err(TokenRefused::Claim("exp")));
        assert!(strict.verify(&token(Some(NOW + 1)), NOW).is_ok());
    }

    #[test]
    fn without_a_key_only_those_get_in_who_need_none() {
        assert!(!Verifier::default().admits_anybody());
        assert!(verifier().admits_anybody());
        let open = TokenSettings { anonymous: Some(Anonymous::default()), ..TokenSettings::default() };
        assert!(Verifier::new(open, Arc::default()).admits_anybody());
    }

    #[test]
    fn who_sends_no_token_gets_in_only_where_that_is_allowed() {
        assert_eq!(verifier().anonymous(7, None), None);
        let open = with(|settings| settings.anonymous = Some(Anonymous::default()));
        let (first, second) = (open.anonymous(7, Some("Zoë")).unwrap(), open.anonymous(8, Some("a\nb")).unwrap());
        assert!(first.user.starts_with(ANONYMOUS_PREFIX) && first.user != second.user);
        assert_eq!((first.name(), second.name()), (Some("Zoë"), None), "a label is for showing, or nothing");
        assert!(first.has_role("anonymous") && first.publish() == Some(&[]) && first.join().is_none());
        let forged = sign_hs256(SECRET, &Claims { sub: first.user.to_string(), ..alice() });
        assert_eq!(open.verify(&forged, NOW), Err(TokenRefused::Claim("sub")), "no token speaks for them");
        assert_eq!(open.verify("", NOW), Err(TokenRefused::Missing), "an empty token is not none");
    }

    #[test]
    fn every_refusal_fits_a_close_frame() {
        let refusals = [
            TokenRefused::Missing,
            TokenRefused::TooLong,
            TokenRefused::Malformed,
            TokenRefused::WrongAlgorithm,
            TokenRefused::UnknownKey,
            TokenRefused::AmbiguousKey,
            TokenRefused::Revoked,
            TokenRefused::WrongSignature,
            TokenRefused::Expired,
            TokenRefused::NotYetValid,
            TokenRefused::WrongType,
            TokenRefused::WrongIssuer,
            TokenRefused::WrongAudience,
            TokenRefused::Claim("rooms.publish"),
        ];
        for refusal in refusals {
            assert!(refusal.to_string().len() <= 123, "{refusal:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_whatever_is_taken_for_a_token(text in "\\PC{0,60}|[A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,60}") {
            prop_assert!(verifier().verify(&text, NOW).is_err());
        }
    }
}
