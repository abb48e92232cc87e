//! Keys of every kind, with tokens as an issuer signs them without the library under test.

use super::*;
use crate::admission::token::{TokenRefused, TokenSettings, Verifier};
use crate::base::limits::{JWKS_BYTES_MAX, KEY_ID_BYTES_MAX, KEYS_MAX, KEYS_TRIED_MAX};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
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
    let secret = |nth: usize| Key::secret(format!("{nth:032}").as_bytes(), AlgorithmFamily::Hmac.algorithms()).unwrap();
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
    let weak =
        pem_of("RSA PUBLIC KEY", &[&[0x30, 0x81, 0x89, 2, 0x81, 0x81, 0][..], &[0xC5; 128], &[2, 3, 1, 0, 1]].concat());
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
