//! What it costs to check a token, by algorithm: header, signature, claims, identity.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, criterion_group, criterion_main};
use jsonwebtoken::{EncodingKey, Header, encode};
use ringroom::admission::keys::{Algorithm, Key, KeySet};
use ringroom::admission::token::{TokenSettings, Verifier};
use serde_json::json;
use std::hint::black_box;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SECRET: &[u8] = b"a secret of at least 32 bytes, for benches only";
const NOW_S: u64 = 1_790_000_000;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn public(der: PublicKeyX509Der<'_>) -> Key {
    Key::pem(&pem("PUBLIC KEY", der.as_ref())).expect("a fresh key")
}

fn tokens(criterion: &mut Criterion) {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("random bytes");
    let rsa_private: Pkcs8V1Der<'_> = rsa.as_der().expect("a fresh key");
    let rsa_signing = EncodingKey::from_rsa_pem(pem("PRIVATE KEY", rsa_private.as_ref()).as_bytes()).expect("its key");
    let rsa_public = || public(rsa.public_key().as_der().expect("a fresh key"));
    let ec = |algorithm| {
        let made = EcdsaKeyPair::generate(algorithm).expect("random bytes");
        let signing = EncodingKey::from_ec_der(made.to_pkcs8v1().expect("a fresh key").as_ref());
        (signing, public(made.public_key().as_der().expect("a fresh key")))
    };
    let (p256_signing, p256) = ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING);
    let (p384_signing, p384) = ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING);
    let ed = Ed25519KeyPair::generate().expect("random bytes");
    let ed_signing = EncodingKey::from_ed_der(ed.to_pkcs8v1().expect("a fresh key").as_ref());
    let secret = || Key::secret(SECRET, &[Algorithm::HS256, Algorithm::HS512]).expect("long enough");
    let hs_signing = EncodingKey::from_secret(SECRET);

    let mut group = criterion.benchmark_group("token");
    for (algorithm, signing, key) in [
        (Algorithm::HS256, &hs_signing, secret()),
        (Algorithm::HS512, &hs_signing, secret()),
        (Algorithm::RS256, &rsa_signing, rsa_public()),
        (Algorithm::PS256, &rsa_signing, rsa_public()),
        (Algorithm::ES256, &p256_signing, p256),
        (Algorithm::ES384, &p384_signing, p384),
        (Algorithm::EdDSA, &ed_signing, public(ed.public_key().as_der().expect("a fresh key"))),
    ] {
        let header = Header { kid: Some("k1".into()), ..Header::new(algorithm) };
        let claims = json!({
            "sub": "5f1e2c7a-alice", "tenant": "acme", "name": "Alice", "roles": ["member", "moderator"],
            "typ": "access", "iss": "https://id.example", "aud": "chat", "iat": NOW_S, "exp": NOW_S + 900,
            "jti": "0b7c6d2e-9a31-4c55-8f5e-1d2c3b4a5968",
        });
        let token = encode(&header, &claims, signing).expect("its own key");
        let keys = KeySet::new(vec![key.with_id("k1")]).expect("one key");
        let verifier = Verifier::new(TokenSettings::default(), Arc::new(keys));
        group.bench_function(format!("{algorithm:?}"), |bencher| {
            bencher.iter(|| verifier.verify(black_box(&token), NOW_S).expect("a good token"));
        });
    }
    group.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
