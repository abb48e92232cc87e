//! Tokens: bytes that a stranger sent to an [`Identity`].
//! Invariant: no claim is looked at before the signature holds, and what a refusal says never
//! holds a byte of the token or of a key.
//!
//! Times are compared here against the core's clock, so a replay sees the same answers.
//!
//! By subject: `settings` says what makes a token good, `claims` reads what it says, `refused` says why
//! it is not taken; `issued` makes tokens of our own.

mod claims;
mod issued;
mod refused;
mod settings;

pub use claims::OneOrSeveral;
pub use issued::{Claims, RoomClaims, sign_hs256};
pub use refused::TokenRefused;
pub use settings::{ANONYMOUS_PREFIX, Anonymous, ClaimPaths, TENANT_DEFAULT, TYPE_ACCESS, TokenSettings};

use super::identity::{Identity, Particulars};
use super::keys::{Algorithm, Key, KeyRefused, KeySet, Unsigned};
use super::names::{User, check_tenant, check_user};
use crate::base::base32;
use crate::base::limits::{
    CLAIM_VALUE_BYTES_MAX, CLAIM_VALUES_MAX, LABEL_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_ID_BYTES_MAX,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claims::{Members, label, patterns};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::sync::Arc;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::names::RoomName;
    use crate::wire::codes::ErrorCode;
    use aws_lc_rs::hmac;
    use proptest::prelude::*;
    use serde_json::json;

    pub(super) const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";
    pub(super) const NOW: u64 = 1_763_690_000;

    pub(super) fn verifier() -> Verifier {
        lenient(0)
    }

    pub(super) fn lenient(leeway_s: u64) -> Verifier {
        Verifier::hs256(SECRET, leeway_s).unwrap()
    }

    pub(super) fn with(change: impl FnOnce(&mut TokenSettings)) -> Verifier {
        let mut settings = TokenSettings { leeway_s: 0, ..TokenSettings::default() };
        change(&mut settings);
        Verifier::new(settings, Arc::clone(&verifier().keys))
    }

    pub(super) fn alice() -> Claims {
        Claims { sub: "alice".into(), exp: Some(NOW + 60), ..Claims::default() }
    }

    pub(super) fn verify(claims: &Claims) -> Result<Identity, TokenRefused> {
        verifier().verify(&sign_hs256(SECRET, claims), NOW)
    }

    /// A token with any header and body, signed rightly with HS256 by the raw primitive.
    pub(super) fn signed(header: &str, body: &str) -> String {
        let message = format!("{}.{}", base64(header.as_bytes()), base64(body.as_bytes()));
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
        format!("{message}.{}", base64(signature.as_ref()))
    }

    fn base64(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(super) const HS256: &str = r#"{"alg":"HS256"}"#;

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

    proptest! {
        #[test]
        fn no_text_whatever_is_taken_for_a_token(text in "\\PC{0,60}|[A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,60}[.][A-Za-z0-9_-]{0,60}") {
            prop_assert!(verifier().verify(&text, NOW).is_err());
        }
    }
}
