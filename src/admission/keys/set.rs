//! The keys that count at a time, and which of them signed a token.

use super::{Algorithm, Key, KeyRefused};
use crate::base::limits::{KEYS_MAX, KEYS_TRIED_MAX};
use jsonwebtoken::crypto;

/// The keys that count at a time. Never changed: a new set takes its place.
#[derive(Default, Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why no key of a set signed a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsigned {
    /// No key has the `kid`, and none without one signed it: perhaps one that is not loaded yet.
    UnknownKey,
    /// No key that could be meant serves the algorithm.
    WrongAlgorithm,
    /// Without a `kid`, more keys could be meant than are tried.
    Ambiguous,
    WrongSignature,
    /// The signature is not base64.
    Malformed,
}

impl KeySet {
    pub fn new(keys: Vec<Key>) -> Result<KeySet, KeyRefused> {
        if keys.len() > KEYS_MAX {
            return Err(KeyRefused::TooMany { keys: keys.len() });
        }
        Ok(KeySet { keys })
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key that signed `message`; `signature` is in base64, as in the token. At most
    /// `KEYS_TRIED_MAX` signatures are checked.
    pub fn signer(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        message: &[u8],
        signature: &str,
    ) -> Result<&Key, Unsigned> {
        let is_known = self.keys.iter().any(|key| key.id.as_deref() == id);
        let may_be_meant = |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let serves = |key: &&Key| may_be_meant(key) && key.algorithms.contains(&algorithm);
        let candidates = self.keys.iter().filter(serves);
        match candidates.clone().count() {
            0 if self.is_empty() || id.is_some() && !is_known => return Err(Unsigned::UnknownKey),
            0 => return Err(Unsigned::WrongAlgorithm),
            1..=KEYS_TRIED_MAX => {}
            _ => return Err(Unsigned::Ambiguous),
        }
        for key in candidates {
            match crypto::verify(signature, message, &key.decoding, algorithm) {
                Ok(true) => return Ok(key),
                Ok(false) => {}
                // The key is of the algorithm's kind, so nothing else is left that the library refuses.
                Err(_) => return Err(Unsigned::Malformed),
            }
        }
        Err(if id.is_some() && !is_known { Unsigned::UnknownKey } else { Unsigned::WrongSignature })
    }
}
