//! The keys that tokens are checked with.
//! Invariant: a key serves only algorithms of its own kind, bound to it when it was made. What a
//! token's header says chooses among keys and never how a key is used: a public key is no secret.
//!
//! Keys are read and signatures are checked by `jsonwebtoken`. It takes any bytes for a key and
//! looks at them when a signature comes; whether a key can ever serve is asked here, when it is made.

mod jwk;
mod refused;
mod set;
#[cfg(test)]
mod tests;

pub use jsonwebtoken::Algorithm;
pub use jwk::{Secrets, jwks};
pub use refused::KeyRefused;
pub use set::{KeySet, Unsigned};

use crate::base::limits::SECRET_BYTES_MIN;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use std::fmt;

/// RSA keys below this are too weak to be told apart from guessed ones, `RFC 7518` section 3.3.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// One key: who it belongs to, and what it serves.
pub struct Key {
    id: Option<Box<str>>,
    issuer: Option<Box<str>>,
    decoding: DecodingKey,
    algorithms: Vec<Algorithm>,
}

impl Key {
    /// A shared secret, for each of `algorithms`, all of them HS.
    pub fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Key, KeyRefused> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyRefused::ShortSecret { bytes: secret.len() });
        }
        if let Some(algorithm) = algorithms.iter().find(|algorithm| algorithm.family() != AlgorithmFamily::Hmac) {
            return Err(KeyRefused::NotOfThisKind { algorithm: *algorithm });
        }
        Key::of(DecodingKey::from_secret(secret), algorithms)
    }

    /// A public key: `PUBLIC KEY` (RSA, P-256, P-384 or Ed25519) or `RSA PUBLIC KEY`.
    pub fn pem(text: &str) -> Result<Key, KeyRefused> {
        // The library would take a private key and a certificate too, and has one word for whatever is wrong.
        let block = pem::parse(text).map_err(|_| KeyRefused::NotPem)?;
        match block.tag() {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
            tag if tag.ends_with("PRIVATE KEY") => return Err(KeyRefused::Private),
            "CERTIFICATE" => return Err(KeyRefused::Certificate),
            _ => return Err(KeyRefused::NotPem),
        }
        let text = text.as_bytes();
        let read = DecodingKey::from_rsa_pem(text)
            .or_else(|_| DecodingKey::from_ec_pem(text))
            .or_else(|_| DecodingKey::from_ed_pem(text));
        let decoding = read.map_err(|_| KeyRefused::Unusable)?;
        Key::public(&Jwk::from_decoding_key(&decoding, None).map_err(|_| KeyRefused::Unusable)?)
    }

    /// A public key for all that its kind allows.
    fn public(jwk: &Jwk) -> Result<Key, KeyRefused> {
        let decoding = DecodingKey::from_jwk(jwk).map_err(|_| KeyRefused::Unusable)?;
        match (&jwk.algorithm, decoding.kind()) {
            (AlgorithmParameters::RSA(_), DecodingKeyKind::RsaModulusExponent { n, e }) => Key::rsa(n, e),
            (AlgorithmParameters::EllipticCurve(point), DecodingKeyKind::SecretOrDer(bytes)) => {
                let (algorithm, is_point) = match point.curve {
                    EllipticCurve::P256 => (Algorithm::ES256, ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, bytes)),
                    EllipticCurve::P384 => (Algorithm::ES384, ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, bytes)),
                    _ => return Err(KeyRefused::Unusable),
                };
                is_point.map_err(|_| KeyRefused::Unusable)?;
                Key::of(decoding, &[algorithm])
            }
            (AlgorithmParameters::OctetKeyPair(point), DecodingKeyKind::SecretOrDer(bytes))
                if point.curve == EllipticCurve::Ed25519 =>
            {
                ParsedPublicKey::new(&ED25519, bytes).map_err(|_| KeyRefused::Unusable)?;
                Key::of(decoding, &[Algorithm::EdDSA])
            }
            _ => Err(KeyRefused::Unusable),
        }
    }

    fn rsa(n: &[u8], e: &[u8]) -> Result<Key, KeyRefused> {
        let (n, e) = (number(n), number(e));
        let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(KeyRefused::RsaSize { bits });
        }
        let parsed = RsaPublicKeyComponents { n, e }.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256);
        parsed.map_err(|_| KeyRefused::Unusable)?;
        Key::of(DecodingKey::from_rsa_raw_components(n, e), AlgorithmFamily::Rsa.algorithms())
    }

    fn of(decoding: DecodingKey, algorithms: &[Algorithm]) -> Result<Key, KeyRefused> {
        if algorithms.is_empty() {
            return Err(KeyRefused::Unusable);
        }
        Ok(Key { id: None, issuer: None, decoding, algorithms: algorithms.to_vec() })
    }

    /// The `kid` of tokens that it signs. Without one it is tried whatever a token's `kid` says.
    pub fn with_id(mut self, id: &str) -> Key {
        self.id = Some(id.into());
        self
    }

    /// Tokens by this key have this `iss`, whatever else they say.
    pub fn with_issuer(mut self, issuer: &str) -> Key {
        self.issuer = Some(issuer.into());
        self
    }

    /// Serves no other algorithms than these from now on.
    pub fn only(mut self, algorithms: &[Algorithm]) -> Result<Key, KeyRefused> {
        self.algorithms.retain(|algorithm| algorithms.contains(algorithm));
        if self.algorithms.is_empty() {
            return Err(KeyRefused::Unusable);
        }
        Ok(self)
    }

    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }
}

impl fmt::Debug for Key {
    /// Without the key itself.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { id, issuer, algorithms, .. } = self;
        write!(out, "Key {{ id: {id:?}, issuer: {issuer:?}, algorithms: {algorithms:?} }}")
    }
}

/// Big-endian, less the zeros in front that some issuers leave there.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}
