//! The claims of a token, found by their paths and read within their bounds.

use super::TokenRefused;
use crate::admission::pattern::Pattern;
use crate::base::limits::{LABEL_BYTES_MAX, PATTERNS_MAX, ROLE_BYTES_MAX, ROLES_MAX};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// The members of a JSON object, none of them twice: what would the second one mean?
pub(super) struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Members<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Members<'a>, TokenRefused> {
        serde_json::from_slice(body).map_err(|_| TokenRefused::Malformed)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
    }

    /// What stands at `path`. Each step leads into a smaller object, so this ends.
    pub(super) fn find(&self, path: &str) -> Option<&'a RawValue> {
        self.get(path).or_else(|| {
            path.match_indices('.').find_map(|(dot, _)| {
                let inner: Members<'a> = serde_json::from_str(self.get(&path[..dot])?.get()).ok()?;
                inner.find(&path[dot + 1..])
            })
        })
    }

    /// What stands at `path`; `null` is nothing. `claim` is what a refusal calls it.
    pub(super) fn read<T: Deserialize<'a>>(&self, path: &str, claim: &'static str) -> Result<Option<T>, TokenRefused> {
        let Some(value) = self.find(path) else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|_| TokenRefused::Claim(claim))
    }

    /// `RFC 7519` allows fractions; a time in between counts from the next whole second.
    pub(super) fn seconds(&self, claim: &'static str) -> Result<Option<u64>, TokenRefused> {
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
    pub(super) fn holds(&self, wanted: &str) -> bool {
        match self {
            OneOrSeveral::One(one) => one == wanted,
            OneOrSeveral::Several(several) => several.iter().any(|one| one == wanted),
        }
    }

    /// `None`: out of bounds.
    pub(super) fn roles(self) -> Option<Box<[Box<str>]>> {
        let roles: Box<[Box<str>]> = match self {
            OneOrSeveral::One(words) => words.split_ascii_whitespace().map(Box::from).collect(),
            OneOrSeveral::Several(several) => several.into_iter().map(String::into_boxed_str).collect(),
        };
        let fit = roles.iter().all(|role| (1..=ROLE_BYTES_MAX).contains(&role.len()));
        (roles.len() <= ROLES_MAX && fit).then_some(roles)
    }
}

/// `None` when the text is out of bounds.
pub(super) fn label(text: Option<String>) -> Option<Option<Box<str>>> {
    let fits = text.as_ref().is_none_or(|text| text.len() <= LABEL_BYTES_MAX);
    fits.then(|| text.filter(|text| !text.is_empty()).map(String::into_boxed_str))
}

/// `None` when one pattern is malformed or there are too many.
pub(super) fn patterns(texts: Option<Vec<String>>) -> Option<Option<Box<[Pattern]>>> {
    let Some(texts) = texts else { return Some(None) };
    if texts.len() > PATTERNS_MAX {
        return None;
    }
    texts.iter().map(|text| Pattern::parse(text).ok()).collect::<Option<_>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::token::tests::{HS256, NOW, alice, lenient, signed, verifier, verify, with};
    use crate::admission::token::{Claims, RoomClaims};
    use crate::base::limits::TOKEN_ID_BYTES_MAX;
    use serde_json::json;

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
}
