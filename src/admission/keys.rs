//! The keys that tokens are checked with.
//! Invariant: a key serves only algorithms of its own kind, bound to it when it was made. What a
//! token's header says chooses among keys and never how a key is used: a public key is no secret.
//!
//! Keys are read and signatures are checked by `jsonwebtoken`. It takes any bytes for a key and
//! looks at them when a signature comes; whether a key can ever serve is asked here, when it is made.

use crate::base::limits::{JWKS_BYTES_MAX, KEY_ID_BYTES_MAX, KEYS_MAX, KEYS_TRIED_MAX, SECRET_BYTES_MIN};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents,
};
pub use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind, crypto};
use serde::Deserialize;
use serde_json::value::RawValue;
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

/// Big-endian, less the zeros in front that some issuers leave there.
fn number(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[zeros..]
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::token::{TokenRefused, TokenSettings, Verifier};
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::hmac;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
        RsaEncoding,
    };
    use base64::Engine;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
    use serde_json::{Value, json};
    use std::sync::{Arc, OnceLock};

    const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";
    const NOW: u64 = 1_763_690_000;

    /// A key pair as an issuer has it: what signs, without the library under test, and what it publishes.
    struct Pair {
        signing: Signing,
        algorithms: &'static [Algorithm],
        public_pem: Option<String>,
        jwk: Value,
    }

    enum Signing {
        Secret(Vec<u8>),
        Rsa(RsaKeyPair),
        Ec(EcdsaKeyPair),
        Ed(Ed25519KeyPair),
    }

    fn signed_by_secret(algorithm: Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
        let algorithm = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            other => panic!("{other:?}"),
        };
        hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
    }

    impl Signing {
        fn sign(&self, algorithm: Algorithm, message: &[u8]) -> Vec<u8> {
            match self {
                Signing::Secret(secret) => signed_by_secret(algorithm, secret, message),
                Signing::Rsa(pair) => {
                    let encoding: &'static dyn RsaEncoding = match algorithm {
                        Algorithm::RS256 => &RSA_PKCS1_SHA256,
                        Algorithm::RS384 => &RSA_PKCS1_SHA384,
                        Algorithm::RS512 => &RSA_PKCS1_SHA512,
                        Algorithm::PS256 => &RSA_PSS_SHA256,
                        Algorithm::PS384 => &RSA_PSS_SHA384,
                        Algorithm::PS512 => &RSA_PSS_SHA512,
                        other => panic!("{other:?}"),
                    };
                    let mut signature = vec![0; pair.public_modulus_len()];
                    pair.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
                    signature
                }
                Signing::Ec(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
                Signing::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            }
        }
    }

    /// A token as any issuer writes it.
    fn token(algorithm: Algorithm, kid: Option<&str>, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let mut header = json!({ "alg": format!("{algorithm:?}"), "typ": "JWT" });
        if let Some(kid) = kid {
            header["kid"] = json!(kid);
        }
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    fn pem_of(label: &str, der: &[u8]) -> String {
        let digits = STANDARD.encode(der);
        let lines: Vec<&str> = digits.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    /// One pair of each kind. RSA keys take long to make, so all tests share them.
    fn pairs() -> &'static [Pair] {
        static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
        PAIRS.get_or_init(|| {
            let text = |bytes: &[u8]| json!(URL_SAFE_NO_PAD.encode(bytes));
            let public =
                |key: &dyn AsDer<PublicKeyX509Der<'static>>| Some(pem_of("PUBLIC KEY", key.as_der().unwrap().as_ref()));
            let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let rsa_pem = public(rsa.public_key());
            let read = DecodingKey::from_rsa_pem(rsa_pem.as_ref().unwrap().as_bytes()).unwrap();
            let ec = |curve: &str, signing, algorithms| {
                let pair = EcdsaKeyPair::generate(signing).unwrap();
                let (x, y) = pair.public_key().as_ref()[1..].split_at((pair.public_key().as_ref().len() - 1) / 2);
                let jwk = json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)});
                let public_pem = public(pair.public_key());
                Pair { signing: Signing::Ec(pair), algorithms, public_pem, jwk }
            };
            let ed = Ed25519KeyPair::generate().unwrap();
            vec![
                Pair {
                    signing: Signing::Secret(SECRET.to_vec()),
                    algorithms: AlgorithmFamily::Hmac.algorithms(),
                    public_pem: None,
                    jwk: json!({"kty": "oct", "k": text(SECRET)}),
                },
                Pair {
                    signing: Signing::Rsa(rsa),
                    algorithms: AlgorithmFamily::Rsa.algorithms(),
                    public_pem: rsa_pem,
                    jwk: json!(Jwk::from_decoding_key(&read, None).unwrap()),
                },
                ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING, &[Algorithm::ES256]),
                ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING, &[Algorithm::ES384]),
                Pair {
                    jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": text(ed.public_key().as_ref())}),
                    public_pem: public(ed.public_key()),
                    signing: Signing::Ed(ed),
                    algorithms: &[Algorithm::EdDSA],
                },
            ]
        })
    }

    impl Pair {
        fn token(&self, algorithm: Algorithm, kid: Option<&str>) -> String {
            let claims = json!({"sub": "alice", "iss": "https://id.example"});
            token(algorithm, kid, &claims, |message| self.signing.sign(algorithm, message))
        }

        fn jwk(&self, change: impl FnOnce(&mut Value)) -> Value {
            let mut jwk = self.jwk.clone();
            change(&mut jwk);
            jwk
        }

        fn key(&self) -> Key {
            match &self.public_pem {
                Some(pem) => Key::pem(pem).unwrap(),
                None => Key::secret(SECRET, AlgorithmFamily::Hmac.algorithms()).unwrap(),
            }
        }
    }

    fn set_of(jwks: &[Value]) -> Vec<Key> {
        super::jwks(json!({ "keys": jwks }).to_string().as_bytes(), Secrets::Taken).unwrap().0
    }

    fn verify(keys: Vec<Key>, token: &str) -> Result<(), TokenRefused> {
        Verifier::new(TokenSettings::default(), Arc::new(KeySet::new(keys).unwrap())).verify(token, NOW).map(|_| ())
    }

    #[test]
    fn each_algorithm_is_taken_from_its_own_key_and_no_other() {
        for (nth, signer) in pairs().iter().enumerate() {
            for algorithm in signer.algorithms {
                let token = signer.token(*algorithm, None);
                for (other, pair) in pairs().iter().enumerate() {
                    let expected = if other == nth { Ok(()) } else { Err(TokenRefused::WrongAlgorithm) };
                    assert_eq!(verify(vec![pair.key()], &token), expected, "{algorithm:?} by PEM or secret {other}");
                    assert_eq!(
                        verify(set_of(std::slice::from_ref(&pair.jwk)), &token),
                        expected,
                        "{algorithm:?} by JWK {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_byte_of_a_public_key_serves_as_a_secret() {
        for pair in &pairs()[1..] {
            let pem = pair.public_pem.as_ref().unwrap();
            let der = pem::parse(pem).unwrap().into_contents();
            for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &der, pair.jwk.to_string().as_bytes()] {
                for algorithm in AlgorithmFamily::Hmac.algorithms() {
                    let claims = json!({"sub": "mallory"});
                    let sign = |message: &[u8]| signed_by_secret(*algorithm, secret, message);
                    let forged = token(*algorithm, None, &claims, sign);
                    assert_eq!(verify(vec![pair.key()], &forged), Err(TokenRefused::WrongAlgorithm));
                    // Beside a secret, only the secret is tried.
                    let both = vec![pair.key(), pairs()[0].key()];
                    assert_eq!(verify(both, &forged), Err(TokenRefused::WrongSignature));
                }
            }
        }
    }

    #[test]
    fn a_key_set_names_the_algorithm_that_its_key_serves() {
        let rsa = &pairs()[1];
        let keys = || set_of(&[rsa.jwk(|jwk| jwk["alg"] = json!("PS256"))]);
        assert_eq!(verify(keys(), &rsa.token(Algorithm::PS256, None)), Ok(()));
        assert_eq!(verify(keys(), &rsa.token(Algorithm::RS256, None)), Err(TokenRefused::WrongAlgorithm));
        let only = rsa.key().only(&[Algorithm::RS512]).unwrap();
        assert_eq!(verify(vec![only], &rsa.token(Algorithm::RS256, None)), Err(TokenRefused::WrongAlgorithm));
        assert_eq!(rsa.key().only(&[Algorithm::HS256]).unwrap_err(), KeyRefused::Unusable);
    }

    #[test]
    fn keys_are_found_by_their_ids() {
        let (one, two) = (Signing::Secret(b"1".to_vec()), &pairs()[2]);
        let other = Pair { signing: one, algorithms: &[], public_pem: None, jwk: Value::Null };
        let keys = || vec![two.key().with_id("a"), pairs()[4].key().with_id("b")];
        assert_eq!(verify(keys(), &two.token(Algorithm::ES256, Some("a"))), Ok(()));
        assert_eq!(verify(keys(), &two.token(Algorithm::ES256, None)), Ok(()), "one key of that algorithm");
        assert_eq!(verify(keys(), &two.token(Algorithm::ES256, Some("b"))), Err(TokenRefused::WrongAlgorithm));
        assert_eq!(verify(keys(), &two.token(Algorithm::ES256, Some("c"))), Err(TokenRefused::UnknownKey));
        assert_eq!(verify(Vec::new(), &two.token(Algorithm::ES256, None)), Err(TokenRefused::UnknownKey));
        let nameless = || vec![pairs()[0].key()];
        assert_eq!(verify(nameless(), &pairs()[0].token(Algorithm::HS256, Some("x"))), Ok(()), "any id is its own");
        assert_eq!(verify(nameless(), &other.token(Algorithm::HS256, Some("x"))), Err(TokenRefused::UnknownKey));
        assert_eq!(verify(nameless(), &other.token(Algorithm::HS256, None)), Err(TokenRefused::WrongSignature));
    }

    #[test]
    fn without_an_id_a_few_keys_are_tried_and_not_many() {
        let secret =
            |nth: usize| Key::secret(format!("{nth:032}").as_bytes(), AlgorithmFamily::Hmac.algorithms()).unwrap();
        let keys = |others: usize| (0..others).map(secret).chain([pairs()[0].key()]).enumerate();
        let named = |others| keys(others).map(|(nth, key)| key.with_id(&nth.to_string())).collect::<Vec<_>>();
        let token = pairs()[0].token(Algorithm::HS256, None);
        assert_eq!(verify(named(KEYS_TRIED_MAX - 1), &token), Ok(()));
        assert_eq!(verify(named(KEYS_TRIED_MAX), &token), Err(TokenRefused::AmbiguousKey));
        let id = KEYS_TRIED_MAX.to_string();
        assert_eq!(verify(named(KEYS_TRIED_MAX), &pairs()[0].token(Algorithm::HS256, Some(&id))), Ok(()));
    }

    #[test]
    fn a_key_speaks_for_its_own_issuer_alone() {
        let ed = &pairs()[4];
        let keys = |issuer: &str| vec![ed.key().with_issuer(issuer)];
        let token = ed.token(Algorithm::EdDSA, None);
        assert_eq!(verify(keys("https://id.example"), &token), Ok(()));
        assert_eq!(verify(keys("https://other.example"), &token), Err(TokenRefused::WrongIssuer));
        // Two issuers may give their keys the same id.
        let stranger =
            set_of(std::slice::from_ref(&pairs()[2].jwk)).remove(0).with_id("1").with_issuer("https://other.example");
        let both = vec![stranger, ed.key().with_id("1").with_issuer("https://id.example")];
        assert_eq!(verify(both, &ed.token(Algorithm::EdDSA, Some("1"))), Ok(()));
    }

    #[test]
    fn odd_keys_of_a_set_are_passed_over_and_counted() {
        let rsa = &pairs()[1];
        let odd = [
            json!({"kty": "unheard-of", "kid": "1"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}),
            json!({"kty": "OKP", "crv": "X25519", "x": "AA"}),
            json!("no object"),
            json!({}),
            pairs()[2].jwk(|jwk| jwk["x"] = json!("AAAA")),
            pairs()[4].jwk(|jwk| jwk["x"] = json!("AAAA")),
            rsa.jwk(|jwk| jwk["use"] = json!("enc")),
            rsa.jwk(|jwk| jwk["alg"] = json!("RSA-OAEP")),
            rsa.jwk(|jwk| jwk["alg"] = json!("ES256")),
            rsa.jwk(|jwk| jwk["alg"] = json!("none")),
            rsa.jwk(|jwk| jwk["key_ops"] = json!(["encrypt"])),
            rsa.jwk(|jwk| jwk["n"] = json!("%%%")),
            rsa.jwk(|jwk| jwk["n"] = json!(URL_SAFE_NO_PAD.encode([0xFF; 128]))),
            rsa.jwk(|jwk| jwk["kid"] = json!("k".repeat(KEY_ID_BYTES_MAX + 1))),
            json!({"kty": "oct", "k": "AAAA"}),
        ];
        let mut keys = odd.to_vec();
        keys.insert(3, rsa.jwk(|jwk| jwk["use"] = json!("sig")));
        let set = json!({ "keys": keys }).to_string();
        let (usable, others) = super::jwks(set.as_bytes(), Secrets::Taken).unwrap();
        assert_eq!((usable.len(), others), (1, odd.len()));
        assert_eq!(verify(usable, &rsa.token(Algorithm::RS256, None)), Ok(()));
    }

    #[test]
    fn padding_and_zeros_in_front_do_not_make_another_key() {
        let padded = |text: &Value, zeros: usize| {
            let bytes = URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap();
            json!(URL_SAFE.encode([vec![0; zeros], bytes].concat()))
        };
        for (nth, member, zeros) in [(0, "k", 0), (1, "n", 0), (1, "n", 1), (1, "e", 1), (2, "x", 0), (4, "x", 0)] {
            let pair = &pairs()[nth];
            let keys = set_of(&[pair.jwk(|jwk| jwk[member] = padded(&jwk[member], zeros))]);
            assert_eq!(verify(keys, &pair.token(pair.algorithms[0], None)), Ok(()), "{nth} {member} {zeros}");
        }
    }

    #[test]
    fn a_point_that_is_not_on_its_curve_is_no_key() {
        for nth in [2, 3] {
            let off = pairs()[nth].jwk(|jwk| jwk["x"] = jwk["y"].clone());
            assert_eq!(set_of(&[off]).len(), 0);
            let other = pairs()[nth].jwk(|jwk| jwk["crv"] = json!(if nth == 2 { "P-384" } else { "P-256" }));
            assert_eq!(set_of(&[other]).len(), 0);
        }
        let mixed = pairs()[4].jwk(|jwk| jwk["crv"] = json!("P-256"));
        assert_eq!(set_of(&[mixed]).len(), 0);
    }

    /// `RFC 7515` appendix A.1 and A.3, `RFC 8037` appendix A.4.
    #[test]
    fn the_examples_of_the_standards_hold() {
        let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        for (algorithm, jwk, message, signature) in [
            (
                Algorithm::HS256,
                json!({"kty": "oct", "k": secret}),
                format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{claims}"),
                "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
            ),
            (
                Algorithm::ES256,
                json!({
                    "kty": "EC", "crv": "P-256",
                    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
                }),
                format!("eyJhbGciOiJFUzI1NiJ9.{claims}"),
                "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            ),
            (
                Algorithm::EdDSA,
                json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
                "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc".into(),
                "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            ),
        ] {
            let keys = KeySet::new(set_of(&[jwk])).unwrap();
            let signer = |message: &str, signature| keys.signer(algorithm, None, message.as_bytes(), signature).err();
            assert_eq!(signer(&message, signature), None, "{algorithm:?}");
            assert_eq!(signer(&format!("{message}A"), signature), Some(Unsigned::WrongSignature), "{algorithm:?}");
            assert_eq!(signer(&message, "%"), Some(Unsigned::Malformed), "{algorithm:?}");
        }
    }

    #[test]
    fn a_secret_in_a_set_that_anybody_can_fetch_is_no_secret() {
        let set = json!({ "keys": [pairs()[0].jwk] }).to_string();
        assert_eq!(super::jwks(set.as_bytes(), Secrets::Ignored).unwrap().0.len(), 0);
        assert_eq!(super::jwks(set.as_bytes(), Secrets::Taken).unwrap().0.len(), 1);
    }

    #[test]
    fn what_is_no_key_set_says_so() {
        for text in ["", "[]", "{}", r#"{"keys":5}"#, "<html>"] {
            assert_eq!(super::jwks(text.as_bytes(), Secrets::Ignored).unwrap_err(), KeyRefused::NotJwks, "{text}");
        }
        let large = format!(r#"{{"keys":[],"pad":"{}"}}"#, "x".repeat(JWKS_BYTES_MAX));
        assert_eq!(super::jwks(large.as_bytes(), Secrets::Ignored).unwrap_err(), KeyRefused::Large);
        let many = json!({ "keys": vec![json!({}); KEYS_MAX + 1] }).to_string();
        let refused = super::jwks(many.as_bytes(), Secrets::Ignored).unwrap_err();
        assert_eq!(refused, KeyRefused::TooMany { keys: KEYS_MAX + 1 });
    }

    #[test]
    fn what_is_no_public_key_says_what_it_is() {
        let weak = pem_of(
            "RSA PUBLIC KEY",
            &[&[0x30, 0x81, 0x89, 2, 0x81, 0x81, 0][..], &[0xC5; 128], &[2, 3, 1, 0, 1]].concat(),
        );
        let of_bitcoin = [
            "-----BEGIN PUBLIC KEY-----",
            "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEZVq/2bi3SdnqZjg0nGfveUD1io+dToIh",
            "JV8avPo9w4NGLwLREASD5MuW3/VODgJis5OLfpxqGbYdSfdT+gg/JQ==",
            "-----END PUBLIC KEY-----",
        ];
        for (text, refused) in [
            ("", KeyRefused::NotPem),
            (&of_bitcoin.join("\n"), KeyRefused::Unusable),
            ("-----BEGIN PUBLIC KEY-----\n%\n-----END PUBLIC KEY-----", KeyRefused::NotPem),
            (&pem_of("PUBLIC KEY", b"no key"), KeyRefused::Unusable),
            (&pem_of("PRIVATE KEY", b"k"), KeyRefused::Private),
            (&pem_of("EC PRIVATE KEY", b"k"), KeyRefused::Private),
            (&pem_of("CERTIFICATE", b"c"), KeyRefused::Certificate),
            (&weak, KeyRefused::RsaSize { bits: 1024 }),
        ] {
            assert_eq!(Key::pem(text).unwrap_err(), refused, "{text}");
        }
        assert_eq!(
            Key::secret(b"short", AlgorithmFamily::Hmac.algorithms()).unwrap_err(),
            KeyRefused::ShortSecret { bytes: 5 }
        );
        let refused = Key::secret(SECRET, &[Algorithm::RS256]).unwrap_err();
        assert_eq!(refused, KeyRefused::NotOfThisKind { algorithm: Algorithm::RS256 });
    }

    #[test]
    fn damaged_public_keys_are_read_without_harm() {
        for pair in &pairs()[1..] {
            let der = pem::parse(pair.public_pem.as_ref().unwrap()).unwrap().into_contents();
            for at in 0..der.len() {
                for damage in [0x01, 0x20, 0x80, 0xFF] {
                    let mut damaged = der.clone();
                    damaged[at] ^= damage;
                    if let Ok(key) = Key::pem(&pem_of("PUBLIC KEY", &damaged)) {
                        // Names of the kind and such may change and mean the same; a family may not.
                        assert_eq!(key.decoding.family(), pair.key().decoding.family(), "byte {at}, {damage:#x}");
                    }
                }
                assert!(Key::pem(&pem_of("PUBLIC KEY", &der[..at])).is_err(), "cut to {at} bytes");
            }
        }
    }

    #[test]
    fn a_key_does_not_print_itself() {
        let shown = format!("{:?}", pairs()[0].key().with_id("main"));
        assert_eq!(shown, r#"Key { id: Some("main"), issuer: None, algorithms: [HS256, HS384, HS512] }"#);
    }
}
