//! Which keys there are and where they stand, as the configuration says it.

use super::LoadFailed;
use crate::admission::keys::Algorithm;
use crate::admission::token::TokenSettings;
use hyper::Uri;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What tokens are checked with and against.
pub struct KeySettings {
    pub tokens: TokenSettings,
    /// What [`KeySettings::with_secret`] serves.
    pub secret_algorithms: Vec<Algorithm>,
    /// Keys that stand in the configuration itself.
    pub keys: Vec<NamedKey>,
    /// Key sets that may change while we run.
    pub sources: Vec<Source>,
    /// How old a fetched set becomes before it is fetched again.
    pub refresh: Duration,
    /// A token with an unknown key has the sets fetched at once, but no sooner after the last time.
    pub refresh_min: Duration,
}

impl Default for KeySettings {
    fn default() -> Self {
        KeySettings {
            tokens: TokenSettings::default(),
            secret_algorithms: vec![Algorithm::HS256],
            keys: Vec::new(),
            sources: Vec::new(),
            refresh: Duration::from_secs(600),
            refresh_min: Duration::from_secs(10),
        }
    }
}

impl KeySettings {
    /// These, and a shared secret.
    pub fn with_secret(mut self, secret: &[u8]) -> KeySettings {
        let (material, algorithms) = (Material::Secret(secret.to_vec()), Some(self.secret_algorithms.clone()));
        self.keys.push(NamedKey { material, id: None, issuer: None, algorithms });
        self
    }

    /// Whether there is anything that a token could be checked with.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty() || !self.sources.is_empty()
    }
}

pub struct NamedKey {
    pub material: Material,
    /// Its `kid`; none: whatever a token's `kid` says.
    pub id: Option<String>,
    /// The `iss` of its tokens.
    pub issuer: Option<String>,
    /// None: HS256 for a secret, all that fit for a public key.
    pub algorithms: Option<Vec<Algorithm>>,
}

pub enum Material {
    Secret(Vec<u8>),
    /// A public key.
    Pem(String),
    PemFile(PathBuf),
}

/// Where a JWK set stands.
pub struct Source {
    pub place: Place,
    /// The `iss` of tokens by its keys.
    pub issuer: Option<String>,
    /// None: all that its keys serve.
    pub algorithms: Option<Vec<Algorithm>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    File(PathBuf),
    Url(Uri),
}

impl Place {
    /// An `https://` or `http://` address, without a user or a password.
    pub fn url(text: &str) -> Result<Place, LoadFailed> {
        let uri: Uri = text.parse().map_err(|_| LoadFailed::NotUrl)?;
        let is_web = matches!(uri.scheme_str(), Some("https" | "http"));
        let is_plain = uri.host().is_some() && uri.authority().is_some_and(|whole| !whole.as_str().contains('@'));
        if is_web && is_plain { Ok(Place::Url(uri)) } else { Err(LoadFailed::NotUrl) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File(path) => write!(out, "{}", path.display()),
            // Without the query, where some put what should not be logged.
            Place::Url(uri) => write!(
                out,
                "{}://{}{}",
                uri.scheme_str().unwrap_or(""),
                uri.authority().map_or("", |a| a.as_str()),
                uri.path()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_without_passwords_are_taken() {
        for good in ["https://id.example/.well-known/jwks.json", "http://[::1]:8080/k?x=1"] {
            assert!(Place::url(good).is_ok(), "{good}");
        }
        assert_eq!(Place::url("https://id.example/k?key=private").unwrap().to_string(), "https://id.example/k");
        for bad in ["", "id.example", "/keys", "ftp://id.example/k", "file:///etc/passwd", "https://a:b@id.example/k"] {
            assert!(Place::url(bad).is_err(), "{bad}");
        }
    }
}
