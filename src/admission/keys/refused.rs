//! Why a key or a key set is not taken.

use super::Algorithm;
use crate::base::limits::{JWKS_BYTES_MAX, KEYS_MAX, SECRET_BYTES_MIN};
use std::fmt;

/// Why a key or a key set is not taken. What is said never holds a byte of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyRefused {
    ShortSecret { bytes: usize },
    NotOfThisKind { algorithm: Algorithm },
    NotPem,
    Private,
    Certificate,
    RsaSize { bits: usize },
    Unusable,
    NotJwks,
    Large,
    TooMany { keys: usize },
}

impl fmt::Display for KeyRefused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRefused::ShortSecret { bytes } => write!(
                out,
                "the secret has {bytes} bytes and needs {SECRET_BYTES_MIN}; make one with: head -c 32 /dev/urandom | base64"
            ),
            KeyRefused::NotOfThisKind { algorithm } => {
                write!(out, "a shared secret does not serve {algorithm:?}; use HS256, HS384 or HS512")
            }
            KeyRefused::NotPem => {
                out.write_str("this is no public key in PEM; it begins with -----BEGIN PUBLIC KEY-----")
            }
            KeyRefused::Private => out.write_str(
                "this is a private key, which must stay with the issuer; give the public one (openssl pkey -pubout)",
            ),
            KeyRefused::Certificate => {
                out.write_str("this is a certificate; give its public key (openssl x509 -pubkey -noout)")
            }
            KeyRefused::RsaSize { bits } => write!(out, "the RSA key has {bits} bits; 2048 to 8192 are taken"),
            KeyRefused::Unusable => {
                out.write_str("no algorithm is left that this key serves; RSA, P-256, P-384 and Ed25519 keys are taken")
            }
            KeyRefused::NotJwks => out.write_str("this is no JWK set; it is a JSON object with a list `keys`"),
            KeyRefused::Large => write!(out, "the JWK set is larger than {JWKS_BYTES_MAX} bytes"),
            KeyRefused::TooMany { keys } => write!(out, "there are {keys} keys; at most {KEYS_MAX} are taken"),
        }
    }
}

impl std::error::Error for KeyRefused {}
