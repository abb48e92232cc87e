//! Keys as issuers publish them: JWK sets (`RFC 7517`).

use super::{Key, KeyRefused};
use crate::base::limits::{JWKS_BYTES_MAX, KEY_ID_BYTES_MAX, KEYS_MAX};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Whether a key set may hold shared secrets: one that anybody can fetch must not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrets {
    Taken,
    Ignored,
}

/// The usable keys of a JWK set (`RFC 7517`), and how many others there were: of an unknown kind,
/// for encryption, malformed, too weak.
pub fn jwks(json: &[u8], secrets: Secrets) -> Result<(Vec<Key>, usize), KeyRefused> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Box<RawValue>>,
    }
    if json.len() > JWKS_BYTES_MAX {
        return Err(KeyRefused::Large);
    }
    let Set { keys } = serde_json::from_slice(json).map_err(|_| KeyRefused::NotJwks)?;
    if keys.len() > KEYS_MAX {
        return Err(KeyRefused::TooMany { keys: keys.len() });
    }
    let number = keys.len();
    // Issuers publish what we cannot use beside what we can: one odd key must not cost the others.
    let read = |raw: Box<RawValue>| of_jwk(serde_json::from_str(raw.get()).ok()?, secrets);
    let usable: Vec<Key> = keys.into_iter().filter_map(read).collect();
    let others = number - usable.len();
    Ok((usable, others))
}

/// `None`: not usable here.
fn of_jwk(mut jwk: Jwk, secrets: Secrets) -> Option<Key> {
    let said = &jwk.common;
    let is_for_signatures = said.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && said.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || said.key_id.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
        return None;
    }
    unpad(&mut jwk.algorithm);
    let key = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) if secrets == Secrets::Ignored => return None,
        AlgorithmParameters::OctetKey(_) => {
            let decoding = DecodingKey::from_jwk(&jwk).ok()?;
            Key::secret(decoding.try_get_as_bytes().ok()?, AlgorithmFamily::Hmac.algorithms())
        }
        _ => Key::public(&jwk),
    };
    let key = match jwk.common.key_algorithm {
        Some(named) => key.ok()?.only(&[named.try_into().ok()?]).ok()?,
        None => key.ok()?,
    };
    Some(match &jwk.common.key_id {
        Some(id) => key.with_id(id),
        None => key,
    })
}

/// Key sets in the wild have padding where the standard, and the library with it, has none.
fn unpad(parameters: &mut AlgorithmParameters) {
    let texts: [Option<&mut String>; 2] = match parameters {
        AlgorithmParameters::RSA(key) => [Some(&mut key.n), Some(&mut key.e)],
        AlgorithmParameters::EllipticCurve(key) => [Some(&mut key.x), Some(&mut key.y)],
        AlgorithmParameters::OctetKeyPair(key) => [Some(&mut key.x), None],
        AlgorithmParameters::OctetKey(key) => [Some(&mut key.value), None],
        _ => [None, None],
    };
    for text in texts.into_iter().flatten() {
        text.truncate(text.trim_end_matches('=').len());
    }
}
