//! Tokens: bytes that a stranger sent to an [`Identity`].
//! Invariant: no claim is looked at before the signature holds, and what a refusal says never
//! holds a byte of the token or of the secret.
//!
//! The signature is the library's work. Times are compared here against the core's clock, so a
//! replay sees the same answers, and only the algorithm that the key was made for counts, whatever
//! the token's header asks for.

use super::identity::{Identity, Particulars};
use super::names::{User, check_tenant, check_user};
use super::pattern::Pattern;
use crate::base::limits::{LABEL_BYTES_MAX, PATTERNS_MAX, ROLE_BYTES_MAX, ROLES_MAX, TOKEN_BYTES_MAX};
use crate::wire::codes::ErrorCode;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::sync::Arc;

/// The tenant of a token that names none.
pub const TENANT_DEFAULT: &str = "default";
/// The only `typ` that opens a connection: a refresh token must not.
pub const TYPE_ACCESS: &str = "access";

/// Checks tokens. Build one per shard: identities share its default tenant.
#[derive(Clone)]
pub struct Verifier {
    key: Key,
    leeway_s: u64,
    issuer: Option<Box<str>>,
    audience: Option<Box<str>>,
    tenant_default: Arc<str>,
}

/// A key and the one algorithm that it serves.
#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl Verifier {
    /// HS256 with one shared `secret`. Times may be off by `leeway_s` either way.
    pub fn hs256(secret: &[u8], leeway_s: u64) -> Verifier {
        assert!(!secret.is_empty(), "the configuration refuses an empty secret before it comes here");
        let key = Key { algorithm: Algorithm::HS256, decoding: DecodingKey::from_secret(secret) };
        Verifier { key, leeway_s, issuer: None, audience: None, tenant_default: TENANT_DEFAULT.into() }
    }

    /// Only tokens with this `iss` are taken.
    pub fn with_issuer(mut self, issuer: &str) -> Verifier {
        self.issuer = Some(issuer.into());
        self
    }

    /// Only tokens whose `aud` is or holds this are taken.
    pub fn with_audience(mut self, audience: &str) -> Verifier {
        self.audience = Some(audience.into());
        self
    }

    /// The identity that `token` proves at `unix_s`, seconds since 1970.
    pub fn verify(&self, token: &str, unix_s: u64) -> Result<Identity, TokenRefused> {
        let claims = self.signed_claims(token)?;
        if let Some(typ) = claims.typ.as_deref()
            && typ != TYPE_ACCESS
        {
            return Err(TokenRefused::WrongType);
        }
        let expires_unix_s = claims.exp.map(|exp| exp.saturating_add(self.leeway_s));
        if expires_unix_s.is_some_and(|expires| unix_s >= expires) {
            return Err(TokenRefused::Expired);
        }
        if claims.nbf.is_some_and(|nbf| unix_s.saturating_add(self.leeway_s) < nbf) {
            return Err(TokenRefused::NotYetValid);
        }
        if self.issuer.is_some() && self.issuer.as_deref() != claims.iss.as_deref() {
            return Err(TokenRefused::WrongIssuer);
        }
        if let Some(audience) = &self.audience
            && !claims.aud.as_ref().is_some_and(|aud| aud.holds(audience))
        {
            return Err(TokenRefused::WrongAudience);
        }
        self.identity(claims, expires_unix_s)
    }

    fn signed_claims(&self, token: &str) -> Result<Claims, TokenRefused> {
        if token.is_empty() {
            return Err(TokenRefused::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenRefused::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenRefused::Malformed)?;
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenRefused::Malformed)?;
        let key = self.key_for(&header).ok_or(TokenRefused::WrongAlgorithm)?;
        // `RFC 7515` section 4.1.11: whoever does not understand a critical extension must refuse.
        if header.crit.is_some() {
            return Err(TokenRefused::Malformed);
        }
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, key.algorithm) {
            Ok(true) => {}
            Ok(false) => return Err(TokenRefused::WrongSignature),
            Err(_) => return Err(TokenRefused::Malformed),
        }
        // "Insecure" is the library's word for not checking; that was done one line up.
        jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| TokenRefused::Malformed)
    }

    fn key_for(&self, header: &Header) -> Option<&Key> {
        (header.alg == self.key.algorithm).then_some(&self.key)
    }

    fn identity(&self, claims: Claims, expires_unix_s: Option<u64>) -> Result<Identity, TokenRefused> {
        check_user(&claims.sub).map_err(|_| TokenRefused::Claim("sub"))?;
        let tenant = match claims.tenant {
            Some(tenant) if *tenant != *self.tenant_default => {
                check_tenant(&tenant).map_err(|_| TokenRefused::Claim("tenant"))?;
                tenant.into()
            }
            _ => Arc::clone(&self.tenant_default),
        };
        let role_fits = |role: &String| (1..=ROLE_BYTES_MAX).contains(&role.len());
        if claims.roles.len() > ROLES_MAX || !claims.roles.iter().all(role_fits) {
            return Err(TokenRefused::Claim("roles"));
        }
        let rooms = claims.rooms.unwrap_or_default();
        let particulars = Particulars {
            name: label(claims.name).ok_or(TokenRefused::Claim("name"))?,
            roles: claims.roles.into_iter().map(String::into_boxed_str).collect(),
            device: label(claims.device).ok_or(TokenRefused::Claim("device"))?,
            join: patterns(rooms.join).ok_or(TokenRefused::Claim("rooms.join"))?,
            publish: patterns(rooms.publish).ok_or(TokenRefused::Claim("rooms.publish"))?,
        };
        Ok(Identity::new(User::new(tenant, &claims.sub), expires_unix_s, particulars))
    }
}

/// What a token says. Times are seconds since 1970.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The user. Empty when the token names none, and refused as such.
    #[serde(default)]
    pub sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub typ: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rooms: Option<RoomClaims>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole_seconds")]
    pub exp: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "whole_seconds")]
    pub nbf: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
}

/// The patterns of rooms that a token narrows its user to.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
pub struct RoomClaims {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publish: Option<Vec<String>>,
}

/// `aud` is one string or a list of them (`RFC 7519` section 4.1.3).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    fn holds(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// Signs `claims` with HS256: for the command line and for tests.
pub fn sign_hs256(secret: &[u8], claims: &Claims) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret))
        .expect("strings and numbers always become JSON, and HMAC takes a key of any length")
}

/// Why a token is refused. None of these can be helped by sending the same token again, save
/// `NotYetValid` later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TokenRefused {
    Missing,
    TooLong,
    Malformed,
    WrongAlgorithm,
    WrongSignature,
    Expired,
    NotYetValid,
    WrongType,
    WrongIssuer,
    WrongAudience,
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
            TokenRefused::WrongSignature => "token_wrong_signature",
            TokenRefused::Expired => "token_expired",
            TokenRefused::NotYetValid => "token_not_yet_valid",
            TokenRefused::WrongType => "token_wrong_type",
            TokenRefused::WrongIssuer => "token_wrong_issuer",
            TokenRefused::WrongAudience => "token_wrong_audience",
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
                "the token is signed with an algorithm that this server does not take; use HS256"
            }
            TokenRefused::WrongSignature => {
                "the token's signature does not fit this server's key; get a token for this server"
            }
            TokenRefused::Expired => "the token has expired; get a new one and connect again",
            TokenRefused::NotYetValid => "the token is not valid yet; wait, or check the issuer's clock",
            TokenRefused::WrongType => "the token is not an access token; connect with one whose typ is access",
            TokenRefused::WrongIssuer => "the token's issuer is not trusted here; get a token for this server",
            TokenRefused::WrongAudience => "the token is meant for another audience; get a token for this server",
            TokenRefused::Claim(claim) => {
                return write!(out, "the token's claim {claim} is missing or out of bounds; have it issued again");
            }
        })
    }
}

impl std::error::Error for TokenRefused {}

/// `RFC 7519` allows fractions; a time in between counts from the next whole second.
fn whole_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    // The conversion saturates: a negative time is 0, long past.
    Ok(Option::<f64>::deserialize(from)?.map(|seconds| seconds.ceil() as u64))
}

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
    use proptest::prelude::*;

    const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";
    const NOW: u64 = 1_763_690_000;

    fn verifier() -> Verifier {
        Verifier::hs256(SECRET, 0)
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
        let key = EncodingKey::from_secret(SECRET);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for digit in 0..=chunk.len() {
                text.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
            }
        }
        text
    }

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
            ..alice()
        };
        let identity = verify(&claims).unwrap();
        assert_eq!((&**identity.tenant(), &*identity.user), ("acme", "alice"));
        assert_eq!((identity.name(), identity.device()), (Some("Alice"), Some("phone")));
        assert!(identity.has_role("admin") && identity.has_role("moderator") && !identity.has_role("adm"));
        assert!(identity.has_any_role(&["nobody", "admin"]) && !identity.has_any_role(&[]));
        assert!(identity.join().unwrap()[0].matches(&RoomName::parse("chat:1").unwrap()));
        assert_eq!(identity.publish(), Some(&[][..]));
        assert_eq!(identity.expires_unix_s(), Some(NOW + 60));
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
        let lenient = Verifier::hs256(SECRET, 5);
        assert_eq!(lenient.verify(&token, NOW + 4).unwrap().expires_unix_s(), Some(NOW + 5));
        assert_eq!(lenient.verify(&token, NOW + 5), Err(TokenRefused::Expired));
        assert_eq!(TokenRefused::Expired.code(), ErrorCode::TokenExpired);
    }

    #[test]
    fn a_token_is_refused_before_its_time_less_the_leeway() {
        let token = sign_hs256(SECRET, &Claims { nbf: Some(NOW), ..alice() });
        assert_eq!(verifier().verify(&token, NOW - 1), Err(TokenRefused::NotYetValid));
        assert!(verifier().verify(&token, NOW).is_ok());
        assert!(Verifier::hs256(SECRET, 1).verify(&token, NOW - 1).is_ok());
    }

    #[test]
    fn fractions_of_a_second_and_absurd_times_are_read_without_overflow() {
        let at = |exp: &str| {
            let body = format!(r#"{{"sub":"alice","exp":{exp}}}"#);
            Verifier::hs256(SECRET, u64::MAX).verify(&signed(r#"{"alg":"HS256"}"#, &body), NOW)
        };
        assert_eq!(at("1e300").unwrap().expires_unix_s(), Some(u64::MAX));
        assert_eq!(at("-5").unwrap().expires_unix_s(), Some(u64::MAX));
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
            // The last digit of a base64 text may carry bits that mean nothing.
            let same = at + 1 == token.len();
            assert!(verifier().verify(&changed, NOW).is_err() || same, "byte {at}");
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
        for body in ["", "[5]", "null", r#"{"sub":5}"#, r#"{"sub":"a","roles":"admin"}"#, r#"{"sub":"a","sub":"b"}"#] {
            let token = signed(r#"{"alg":"HS256"}"#, body);
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
        let strict = verifier().with_issuer("https://id.example").with_audience("chat");
        let verify = |iss: Option<&str>, aud: Option<Audience>| {
            let claims = Claims { iss: iss.map(Into::into), aud, ..alice() };
            strict.verify(&sign_hs256(SECRET, &claims), NOW).map(|_| ())
        };
        let issuer = Some("https://id.example");
        assert_eq!(verify(issuer, Some(Audience::One("chat".into()))), Ok(()));
        assert_eq!(verify(issuer, Some(Audience::Several(vec!["mail".into(), "chat".into()]))), Ok(()));
        assert_eq!(verify(issuer, Some(Audience::One("mail".into()))), Err(TokenRefused::WrongAudience));
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
    fn every_refusal_fits_a_close_frame() {
        let refusals = [
            TokenRefused::Missing,
            TokenRefused::TooLong,
            TokenRefused::Malformed,
            TokenRefused::WrongAlgorithm,
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
