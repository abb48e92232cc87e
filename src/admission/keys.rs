//! The keys that tokens are checked with.
//! Invariant: a key serves only algorithms of its own kind, bound to it when it was made. What a
//! token's header says chooses among keys and never how a key is used: a public key is no secret.

use crate::base::limits::{JWKS_BYTES_MAX, KEY_ID_BYTES_MAX, KEYS_MAX, KEYS_TRIED_MAX, SECRET_BYTES_MIN};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicKey;
use aws_lc_rs::signature::{self as public, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::fmt;

/// How a token is signed, `RFC 7518` section 3.1 and `RFC 8037`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    pub const ALL: [Algorithm; 12] = [
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ];
    const SECRET: &[Algorithm] = &[Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512];
    const RSA: &[Algorithm] =
        &[Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512];

    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// Names are compared as they stand; `none` is no algorithm.
    pub fn parse(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    const fn of_secret(self) -> Option<hmac::Algorithm> {
        match self {
            Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
            Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
            Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    const fn of_rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Algorithm::Rs256 => Some(&public::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Some(&public::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Some(&public::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => Some(&public::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => Some(&public::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => Some(&public::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }
}

/// RSA keys below this are too weak to be told apart from guessed ones, `RFC 7518` section 3.3.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
const P256_POINT_BYTES: usize = 65;
const P384_POINT_BYTES: usize = 97;
const ED25519_BYTES: usize = 32;

/// One key: who it belongs to, and how signatures by it are checked.
pub struct Key {
    id: Option<Box<str>>,
    issuer: Option<Box<str>>,
    checks: Vec<(Algorithm, Check)>,
}

enum Check {
    /// Boxed: it is twenty times the other.
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Check {
    fn holds(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Check::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Check::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

impl Key {
    /// A shared secret, for each of `algorithms`, all of them HS.
    pub fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Key, KeyRefused> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyRefused::ShortSecret { bytes: secret.len() });
        }
        let check = |algorithm: &Algorithm| {
            let of_secret = algorithm.of_secret().ok_or(KeyRefused::NotOfThisKind { algorithm: *algorithm })?;
            Ok((*algorithm, Check::Secret(Box::new(hmac::Key::new(of_secret, secret)))))
        };
        Key::of(algorithms.iter().map(check).collect::<Result<_, _>>()?)
    }

    /// A public key: `PUBLIC KEY` (RSA, P-256, P-384 or Ed25519) or `RSA PUBLIC KEY`.
    pub fn pem(text: &str) -> Result<Key, KeyRefused> {
        let (label, der) = pem(text).ok_or(KeyRefused::NotPem)?;
        match label {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => {}
            label if label.ends_with("PRIVATE KEY") => return Err(KeyRefused::Private),
            "CERTIFICATE" => return Err(KeyRefused::Certificate),
            _ => return Err(KeyRefused::NotPem),
        }
        if let Ok(key) = PublicKey::from_der(&der) {
            if !RSA_BYTES.contains(&key.modulus_len()) {
                return Err(KeyRefused::RsaSize { bits: key.modulus_len() * 8 });
            }
            return Key::rsa(|parameters| ParsedPublicKey::new(parameters, &der).ok());
        }
        let of_curve = [
            (Algorithm::Es256, ParsedPublicKey::new(&public::ECDSA_P256_SHA256_FIXED, &der)),
            (Algorithm::Es384, ParsedPublicKey::new(&public::ECDSA_P384_SHA384_FIXED, &der)),
            (Algorithm::EdDsa, ParsedPublicKey::new(&public::ED25519, &der)),
        ];
        let found = of_curve.into_iter().find_map(|(algorithm, key)| Some((algorithm, Check::Public(key.ok()?))));
        Key::of(found.into_iter().collect())
    }

    fn rsa(parse: impl Fn(&'static RsaParameters) -> Option<ParsedPublicKey>) -> Result<Key, KeyRefused> {
        let check = |algorithm: &Algorithm| Some((*algorithm, Check::Public(parse(algorithm.of_rsa()?)?)));
        Key::of(Algorithm::RSA.iter().filter_map(check).collect())
    }

    fn of(checks: Vec<(Algorithm, Check)>) -> Result<Key, KeyRefused> {
        if checks.is_empty() {
            return Err(KeyRefused::Unusable);
        }
        Ok(Key { id: None, issuer: None, checks })
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
        self.checks.retain(|(algorithm, _)| algorithms.contains(algorithm));
        if self.checks.is_empty() {
            return Err(KeyRefused::Unusable);
        }
        Ok(self)
    }

    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    fn check(&self, wanted: Algorithm) -> Option<&Check> {
        self.checks.iter().find(|(algorithm, _)| *algorithm == wanted).map(|(_, check)| check)
    }
}

impl fmt::Debug for Key {
    /// Without the key itself.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.checks.iter().map(|(algorithm, _)| algorithm).collect();
        write!(out, "Key {{ id: {:?}, issuer: {:?}, algorithms: {algorithms:?} }}", self.id, self.issuer)
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

    /// The key that signed `message`. At most `KEYS_TRIED_MAX` signatures are checked.
    pub fn signer(
        &self,
        algorithm: Algorithm,
        id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<&Key, Unsigned> {
        let is_known = self.keys.iter().any(|key| key.id.as_deref() == id);
        let may_be_meant = |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let meant = self.keys.iter().filter(may_be_meant);
        let mut candidates = meant.filter_map(|key| Some((key, key.check(algorithm)?)));
        match candidates.clone().count() {
            0 if self.is_empty() || id.is_some() && !is_known => return Err(Unsigned::UnknownKey),
            0 => return Err(Unsigned::WrongAlgorithm),
            1..=KEYS_TRIED_MAX => {}
            _ => return Err(Unsigned::Ambiguous),
        }
        match candidates.find(|(_, check)| check.holds(message, signature)) {
            Some((key, _)) => Ok(key),
            None if id.is_some() && !is_known => Err(Unsigned::UnknownKey),
            None => Err(Unsigned::WrongSignature),
        }
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
    let read = |raw: Box<RawValue>| serde_json::from_str::<Jwk>(raw.get()).ok()?.key(secrets);
    let usable: Vec<Key> = keys.into_iter().filter_map(read).collect();
    let others = number - usable.len();
    Ok((usable, others))
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<String>,
}

impl Jwk {
    /// `None`: not usable here.
    fn key(&self, secrets: Secrets) -> Option<Key> {
        let is_for_signatures = self.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
            && self.key_ops.as_ref().is_none_or(|operations| operations.iter().any(|name| name == "verify"));
        if !is_for_signatures || self.kid.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return None;
        }
        let key = match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (n, e) = (number(&self.n)?, number(&self.e)?);
                let is_sound = RSA_BYTES.contains(&n.len());
                let parts = is_sound.then_some(RsaPublicKeyComponents { n, e })?;
                Key::rsa(|parameters| parts.to_parsed_public_key(parameters).ok())
            }
            ("EC", Some("P-256")) => self.point(Algorithm::Es256, &public::ECDSA_P256_SHA256_FIXED, P256_POINT_BYTES),
            ("EC", Some("P-384")) => self.point(Algorithm::Es384, &public::ECDSA_P384_SHA384_FIXED, P384_POINT_BYTES),
            ("OKP", Some("Ed25519")) => {
                let x = bytes(&self.x).filter(|x| x.len() == ED25519_BYTES)?;
                let key = ParsedPublicKey::new(&public::ED25519, &x).ok()?;
                Key::of(vec![(Algorithm::EdDsa, Check::Public(key))])
            }
            ("oct", _) if secrets == Secrets::Taken => Key::secret(&bytes(&self.k)?, Algorithm::SECRET),
            _ => return None,
        };
        let key = match &self.alg {
            Some(name) => key.ok()?.only(&[Algorithm::parse(name)?]).ok()?,
            None => key.ok()?,
        };
        Some(match &self.kid {
            Some(id) => key.with_id(id),
            None => key,
        })
    }

    fn point(
        &self,
        algorithm: Algorithm,
        of_curve: &'static public::EcdsaVerificationAlgorithm,
        len: usize,
    ) -> Result<Key, KeyRefused> {
        let point = || {
            let point = [vec![4], bytes(&self.x)?, bytes(&self.y)?].concat();
            let is_whole = point.len() == len;
            ParsedPublicKey::new(of_curve, is_whole.then_some(point)?).ok()
        };
        Key::of(point().into_iter().map(|key| (algorithm, Check::Public(key))).collect())
    }
}

/// Key sets in the wild have padding where the standard has none.
const BASE64_OF_KEYS: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn bytes(text: &Option<String>) -> Option<Vec<u8>> {
    BASE64_OF_KEYS.decode(text.as_ref()?).ok()
}

/// Big-endian, less the zeros in front that some issuers leave there.
fn number(text: &Option<String>) -> Option<Vec<u8>> {
    let bytes = bytes(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Some(bytes[zeros..].to_vec())
}

/// Label and content of the first block of `text`.
fn pem(text: &str) -> Option<(&str, Vec<u8>)> {
    let (_, begun) = text.split_once("-----BEGIN ")?;
    let (label, rest) = begun.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    let digits: String = body.chars().filter(|char| !char.is_ascii_whitespace()).collect();
    Some((label, general_purpose::STANDARD.decode(digits).ok()?))
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
                write!(out, "a shared secret does not serve {}; use HS256, HS384 or HS512", algorithm.as_str())
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
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
    use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    use jsonwebtoken::jwk::Jwk as TheirJwk;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};
    use std::sync::{Arc, OnceLock};

    const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";
    const NOW: u64 = 1_763_690_000;

    /// A key pair as an issuer has it: what signs, and what it publishes.
    struct Pair {
        signing: EncodingKey,
        algorithms: &'static [Algorithm],
        public_pem: Option<String>,
        jwk: Value,
    }

    fn theirs(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
        algorithm.as_str().parse().unwrap()
    }

    fn pem_of(label: &str, der: &[u8]) -> String {
        let digits = general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = digits.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn pair(signing: EncodingKey, algorithms: &'static [Algorithm], public_der: Option<&[u8]>) -> Pair {
        let mut jwk = json!(TheirJwk::from_encoding_key(&signing, theirs(algorithms[0])).unwrap());
        jwk.as_object_mut().unwrap().remove("alg");
        Pair { signing, algorithms, public_pem: public_der.map(|der| pem_of("PUBLIC KEY", der)), jwk }
    }

    /// One pair of each kind. RSA keys take long to make, so all tests share them.
    fn pairs() -> &'static [Pair] {
        static PAIRS: OnceLock<Vec<Pair>> = OnceLock::new();
        PAIRS.get_or_init(|| {
            let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let rsa_public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap();
            let rsa_private = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&rsa).unwrap();
            let rsa_private = pem_of("PRIVATE KEY", rsa_private.as_ref());
            let ec = |signing, checking, algorithms| {
                let made = EcdsaKeyPair::generate(signing).unwrap();
                let private = made.to_pkcs8v1().unwrap();
                let public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(made.public_key()).unwrap();
                let _: &public::EcdsaVerificationAlgorithm = checking;
                pair(EncodingKey::from_ec_der(private.as_ref()), algorithms, Some(public.as_ref()))
            };
            let ed = Ed25519KeyPair::generate().unwrap();
            let ed_private = ed.to_pkcs8v1().unwrap();
            let ed_public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(ed.public_key()).unwrap();
            vec![
                pair(EncodingKey::from_secret(SECRET), Algorithm::SECRET, None),
                pair(
                    EncodingKey::from_rsa_pem(rsa_private.as_bytes()).unwrap(),
                    Algorithm::RSA,
                    Some(rsa_public.as_ref()),
                ),
                ec(&public::ECDSA_P256_SHA256_FIXED_SIGNING, &public::ECDSA_P256_SHA256_FIXED, &[Algorithm::Es256]),
                ec(&public::ECDSA_P384_SHA384_FIXED_SIGNING, &public::ECDSA_P384_SHA384_FIXED, &[Algorithm::Es384]),
                pair(EncodingKey::from_ed_der(ed_private.as_ref()), &[Algorithm::EdDsa], Some(ed_public.as_ref())),
            ]
        })
    }

    impl Pair {
        fn token(&self, algorithm: Algorithm, kid: Option<&str>) -> String {
            let header = Header { kid: kid.map(Into::into), ..Header::new(theirs(algorithm)) };
            encode(&header, &json!({"sub": "alice", "iss": "https://id.example"}), &self.signing).unwrap()
        }

        fn jwk(&self, change: impl FnOnce(&mut Value)) -> Value {
            let mut jwk = self.jwk.clone();
            change(&mut jwk);
            jwk
        }

        fn key(&self) -> Key {
            match &self.public_pem {
                Some(pem) => Key::pem(pem).unwrap(),
                None => Key::secret(SECRET, Algorithm::SECRET).unwrap(),
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
                    let name = algorithm.as_str();
                    assert_eq!(verify(vec![pair.key()], &token), expected, "{name} by PEM or secret {other}");
                    assert_eq!(
                        verify(set_of(std::slice::from_ref(&pair.jwk)), &token),
                        expected,
                        "{name} by JWK {other}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_byte_of_a_public_key_serves_as_a_secret() {
        for pair in &pairs()[1..] {
            let pem = pair.public_pem.as_ref().unwrap();
            let (_, der) = super::pem(pem).unwrap();
            for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &der, pair.jwk.to_string().as_bytes()] {
                for algorithm in Algorithm::SECRET {
                    let claims = json!({"sub": "mallory"});
                    let header = Header::new(theirs(*algorithm));
                    let forged = encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
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
        assert_eq!(verify(keys(), &rsa.token(Algorithm::Ps256, None)), Ok(()));
        assert_eq!(verify(keys(), &rsa.token(Algorithm::Rs256, None)), Err(TokenRefused::WrongAlgorithm));
        let only = rsa.key().only(&[Algorithm::Rs512]).unwrap();
        assert_eq!(verify(vec![only], &rsa.token(Algorithm::Rs256, None)), Err(TokenRefused::WrongAlgorithm));
        assert_eq!(rsa.key().only(&[Algorithm::Hs256]).unwrap_err(), KeyRefused::Unusable);
    }

    #[test]
    fn keys_are_found_by_their_ids() {
        let (one, two) = (EncodingKey::from_secret(b"1"), &pairs()[2]);
        let other = Pair { signing: one, algorithms: &[], public_pem: None, jwk: Value::Null };
        let keys = || vec![two.key().with_id("a"), pairs()[4].key().with_id("b")];
        assert_eq!(verify(keys(), &two.token(Algorithm::Es256, Some("a"))), Ok(()));
        assert_eq!(verify(keys(), &two.token(Algorithm::Es256, None)), Ok(()), "one key of that algorithm");
        assert_eq!(verify(keys(), &two.token(Algorithm::Es256, Some("b"))), Err(TokenRefused::WrongAlgorithm));
        assert_eq!(verify(keys(), &two.token(Algorithm::Es256, Some("c"))), Err(TokenRefused::UnknownKey));
        assert_eq!(verify(Vec::new(), &two.token(Algorithm::Es256, None)), Err(TokenRefused::UnknownKey));
        let nameless = || vec![pairs()[0].key()];
        assert_eq!(verify(nameless(), &pairs()[0].token(Algorithm::Hs256, Some("x"))), Ok(()), "any id is its own");
        assert_eq!(verify(nameless(), &other.token(Algorithm::Hs256, Some("x"))), Err(TokenRefused::UnknownKey));
        assert_eq!(verify(nameless(), &other.token(Algorithm::Hs256, None)), Err(TokenRefused::WrongSignature));
    }

    #[test]
    fn without_an_id_a_few_keys_are_tried_and_not_many() {
        let secret = |nth: usize| Key::secret(format!("{nth:032}").as_bytes(), Algorithm::SECRET).unwrap();
        let keys = |others: usize| (0..others).map(secret).chain([pairs()[0].key()]).enumerate();
        let named = |others| keys(others).map(|(nth, key)| key.with_id(&nth.to_string())).collect::<Vec<_>>();
        let token = pairs()[0].token(Algorithm::Hs256, None);
        assert_eq!(verify(named(KEYS_TRIED_MAX - 1), &token), Ok(()));
        assert_eq!(verify(named(KEYS_TRIED_MAX), &token), Err(TokenRefused::AmbiguousKey));
        let id = KEYS_TRIED_MAX.to_string();
        assert_eq!(verify(named(KEYS_TRIED_MAX), &pairs()[0].token(Algorithm::Hs256, Some(&id))), Ok(()));
    }

    #[test]
    fn a_key_speaks_for_its_own_issuer_alone() {
        let ed = &pairs()[4];
        let keys = |issuer: &str| vec![ed.key().with_issuer(issuer)];
        let token = ed.token(Algorithm::EdDsa, None);
        assert_eq!(verify(keys("https://id.example"), &token), Ok(()));
        assert_eq!(verify(keys("https://other.example"), &token), Err(TokenRefused::WrongIssuer));
        // Two issuers may give their keys the same id.
        let stranger =
            set_of(std::slice::from_ref(&pairs()[2].jwk)).remove(0).with_id("1").with_issuer("https://other.example");
        let both = vec![stranger, ed.key().with_id("1").with_issuer("https://id.example")];
        assert_eq!(verify(both, &ed.token(Algorithm::EdDsa, Some("1"))), Ok(()));
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
            rsa.jwk(|jwk| jwk["n"] = json!(BASE64_OF_KEYS.encode([0xFF; 128]))),
            rsa.jwk(|jwk| jwk["kid"] = json!("k".repeat(KEY_ID_BYTES_MAX + 1))),
            json!({"kty": "oct", "k": "AAAA"}),
        ];
        let mut keys = odd.to_vec();
        keys.insert(3, rsa.jwk(|jwk| jwk["use"] = json!("sig")));
        let set = json!({ "keys": keys }).to_string();
        let (usable, others) = super::jwks(set.as_bytes(), Secrets::Taken).unwrap();
        assert_eq!((usable.len(), others), (1, odd.len()));
        assert_eq!(verify(usable, &rsa.token(Algorithm::Rs256, None)), Ok(()));
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
        for (text, refused) in [
            ("", KeyRefused::NotPem),
            ("-----BEGIN PUBLIC KEY-----\n%\n-----END PUBLIC KEY-----", KeyRefused::NotPem),
            (&pem_of("PUBLIC KEY", b"no key"), KeyRefused::Unusable),
            (&pem_of("PRIVATE KEY", b"k"), KeyRefused::Private),
            (&pem_of("EC PRIVATE KEY", b"k"), KeyRefused::Private),
            (&pem_of("CERTIFICATE", b"c"), KeyRefused::Certificate),
            (&weak, KeyRefused::RsaSize { bits: 1024 }),
        ] {
            assert_eq!(Key::pem(text).unwrap_err(), refused, "{text}");
        }
        assert_eq!(Key::secret(b"short", Algorithm::SECRET).unwrap_err(), KeyRefused::ShortSecret { bytes: 5 });
        let refused = Key::secret(SECRET, &[Algorithm::Rs256]).unwrap_err();
        assert_eq!(refused, KeyRefused::NotOfThisKind { algorithm: Algorithm::Rs256 });
    }

    #[test]
    fn a_key_does_not_print_itself() {
        let shown = format!("{:?}", pairs()[0].key().with_id("main"));
        assert_eq!(shown, r#"Key { id: Some("main"), issuer: None, algorithms: [Hs256, Hs384, Hs512] }"#);
    }
}
