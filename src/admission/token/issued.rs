//! Tokens of our own.

use super::OneOrSeveral;
use crate::admission::keys::Algorithm;
use jsonwebtoken::EncodingKey;
use serde::Serialize;

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
