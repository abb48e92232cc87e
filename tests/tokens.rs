//! What the service thread may ask of the shards about tokens, with real sockets: take back what was
//! given, and change the keys. Waits are bounded by patience that only a failure exhausts.

#[path = "edge/patient.rs"]
mod patient;

use patient::Patient;
use ringroom::admission::keys::{Algorithm, Key, KeySet};
use ringroom::admission::revocations::{Revocation, Target};
use ringroom::admission::token::{Claims, TokenSettings, Verifier, sign_hs256};
use ringroom::io::gateway::{Gateway, Settings};
use ringroom::io::runtime::Choice;
use ringroom::io::tuning::Tuning;
use ringroom::kernel::Limits;
use ringroom::kernel::placement::Placement;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tungstenite::{Message, WebSocket};

const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";
const PATIENCE: Duration = Duration::from_secs(60);

fn gateway(io: Choice, verifier: Verifier, wanted: &Arc<AtomicUsize>) -> Gateway {
    let wanted = Arc::clone(wanted);
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        inherited: Vec::new(),
        tls: None,
        cpus: Vec::new(),
        shards: 2,
        io,
        tuning: Tuning::default(),
        handshake_time: PATIENCE,
        entrance: Arc::default(),
        limits: Limits::default(),
        verifier: Arc::new(verifier),
        policy: Arc::default(),
        paths: Default::default(),
        keys_wanted: Arc::new(move || {
            wanted.fetch_add(1, Ordering::SeqCst);
        }),
    };
    Gateway::start(settings, Vec::new()).unwrap_or_else(|failed| panic!("{failed}"))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn token(user: &str, issued_s: u64) -> String {
    sign_hs256(SECRET, &Claims { sub: user.into(), iat: Some(issued_s), ..Claims::default() })
}

/// Opens a connection. `Err`: what it is closed with instead.
fn enter(gateway: &Gateway, token: &str) -> Result<WebSocket<Patient>, u16> {
    let stream = Patient::connect(gateway.address(), PATIENCE);
    let url = format!("ws://{}/ws?token={token}", gateway.address());
    let (mut socket, _) = tungstenite::client(url, stream).unwrap();
    match socket.read().unwrap() {
        Message::Text(text) if text.contains(r#""event":"connected""#) => Ok(socket),
        Message::Close(Some(frame)) => Err(frame.code.into()),
        other => panic!("{other:?}"),
    }
}

/// Reads to the close.
fn closed(mut socket: WebSocket<Patient>) -> u16 {
    loop {
        if let Message::Close(Some(frame)) = socket.read().unwrap() {
            return frame.code.into();
        }
    }
}

#[test]
fn a_user_that_is_revoked_is_closed_on_every_shard_and_let_in_by_a_newer_token_only() {
    for io in [Choice::Auto, Choice::Epoll] {
        let gateway = gateway(io, Verifier::hs256(SECRET, 0).unwrap(), &Arc::default());
        let issued_s = now_s();
        let users: Vec<String> = (0..8).map(|nth| format!("user{nth}")).collect();
        // Whoever hears all of them closed knows that both shards have done it.
        let homes = Placement::new(2);
        let shards: BTreeSet<_> = users[1..].iter().map(|user| homes.of_user("default", user)).collect();
        assert_eq!(shards.len(), 2);
        let sockets: Vec<_> = users.iter().map(|user| enter(&gateway, &token(user, issued_s)).unwrap()).collect();
        let revocation = |user: &String| Revocation {
            target: Target::User { tenant: "default".into(), user: user.as_str().into() },
            issued_upto_unix_s: issued_s,
            until_unix_s: issued_s + 3_600,
        };
        // All but the first one.
        assert_eq!(gateway.revoke(users[1..].iter().map(revocation).collect()), 0, "all shards are told");
        let mut sockets = sockets.into_iter();
        let spared = sockets.next().unwrap();
        for socket in sockets {
            assert_eq!(closed(socket), 4409);
        }
        for user in &users[1..] {
            assert_eq!(enter(&gateway, &token(user, issued_s)).err(), Some(4401), "{user}");
            assert!(enter(&gateway, &token(user, issued_s + 1)).is_ok(), "{user}");
        }
        assert!(enter(&gateway, &token(&users[0], issued_s)).is_ok());
        drop(spared);
    }
}

#[test]
fn a_missing_key_is_asked_for_and_counts_once_it_is_there() {
    let key = || Key::secret(SECRET, &[Algorithm::HS256]).unwrap();
    let verifier = |keys| Verifier::new(TokenSettings::default(), Arc::new(KeySet::new(keys).unwrap()));
    let wanted = Arc::default();
    let gateway = gateway(Choice::Auto, verifier(Vec::new()), &wanted);
    let token = token("alice", now_s());
    assert_eq!(enter(&gateway, &token).err(), Some(4401));
    assert_eq!(wanted.load(Ordering::SeqCst), 1);
    assert_eq!(gateway.set_verifier(&Arc::new(verifier(vec![key()]))), 0);
    // Shards hear of it one after the other, and a fresh connection may reach either.
    let socket = (0..PATIENCE.as_millis() / 10).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        enter(&gateway, &token).ok()
    });
    assert!(socket.is_some());
}
