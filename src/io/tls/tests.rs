//! Sessions and streams against a client of rustls' own, with certificates that are made here.

use super::sample::{Authority, Client, HOST, Issued, VERSIONS, client_config, client_config_with, served, settings};
use super::settings::{Clients, Oldest, Pair, Refused, Settings, Tickets};
use super::*;
use crate::io::socket;
use crate::io::stream::Stream;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use proptest::prelude::*;
use rcgen::KeyPair;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ConnectionTrafficSecrets, HandshakeKind, SupportedProtocolVersion, version};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Everything that a session has to send.
fn unsent(session: &mut Session) -> Vec<u8> {
    let bytes = session.unsent().to_vec();
    session.sent(bytes.len());
    bytes
}

/// Has both speak until neither has anything to say. Returns what the server read.
fn converse(client: &mut Client, session: &mut Session) -> Result<Vec<u8>, session::Broken> {
    let mut read = Vec::new();
    let mut into = [0; 4_096];
    loop {
        let mut said = client.says();
        let told = unsent(session);
        if said.is_empty() && told.is_empty() {
            return Ok(read);
        }
        client.hears(&told).unwrap();
        if !said.is_empty() {
            let got = session.feed(&mut said, &mut into)?;
            read.extend_from_slice(&into[..got]);
            while session.is_over() {
                let got = session.take_over(&mut into);
                read.extend_from_slice(&into[..got]);
            }
        }
    }
}

/// A server's and a client's end after the handshake.
fn opened(versions: &[&'static SupportedProtocolVersion]) -> (Client, Session) {
    let (mut client, mut session) = (Client::new(client_config(versions), HOST), Session::new(served().config()));
    assert_eq!(converse(&mut client, &mut session), Ok(Vec::new()));
    (client, session)
}

#[test]
fn both_versions_are_spoken_and_an_idle_session_holds_nothing() {
    for (version, name) in VERSIONS.into_iter().zip(["1.2", "1.3"]) {
        let (mut client, mut session) = (Client::new(client_config(&[version]), HOST), Session::new(served().config()));
        assert!(session.news().is_none());
        assert_eq!(converse(&mut client, &mut session), Ok(Vec::new()));
        assert_eq!(session.news(), Some(News::Done { version: name, is_resumed: false }));
        assert_eq!(session.news(), None, "once");
        assert_eq!(client.tls.alpn_protocol(), None);
        for text in ["a", "", "a longer one", &"long".repeat(20_000)] {
            client.tls.set_buffer_limit(None);
            client.tls.writer().write_all(text.as_bytes()).unwrap();
            assert_eq!(converse(&mut client, &mut session).unwrap(), text.as_bytes());
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                let (front, behind) = rest.split_at(rest.len() / 3);
                let sealed = session.seal(&[front, behind], 10_000).unwrap();
                assert!(sealed == rest.len().min(10_000));
                assert_eq!(session.take_sealed(), sealed);
                rest = &rest[sealed..];
                assert_eq!(converse(&mut client, &mut session), Ok(Vec::new()));
            }
            assert_eq!(std::mem::take(&mut client.heard), text.as_bytes());
            assert_eq!(session.bytes_held(), 0);
        }
    }
}

#[test]
fn bytes_may_be_split_anywhere() {
    for version in VERSIONS {
        for part in [1, 2, 3, 5, 7, 100, 1_000] {
            let mut client = Client::new(client_config(&[version]), HOST);
            let mut session = Session::new(served().config());
            let mut read = Vec::new();
            client.tls.writer().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            loop {
                let (said, told) = (client.says(), unsent(&mut session));
                if said.is_empty() && told.is_empty() {
                    break;
                }
                told.chunks(part).for_each(|told| client.hears(told).unwrap());
                for said in said.chunks(part) {
                    let mut into = [0; 64];
                    let got = session.feed(&mut said.to_vec(), &mut into).unwrap();
                    read.extend_from_slice(&into[..got]);
                }
            }
            assert_eq!(read, b"GET / HTTP/1.1\r\n\r\n", "{version:?} in parts of {part}");
        }
    }
}

#[test]
fn one_split_at_every_place_of_what_follows_the_handshake() {
    for version in VERSIONS {
        let mut at = 0;
        loop {
            let (mut client, mut session) = opened(&[version]);
            client.tls.writer().write_all(b"one").unwrap();
            let mut said = client.says();
            client.tls.writer().write_all(b"another").unwrap();
            said.extend(client.says());
            client.tls.send_close_notify();
            said.extend(client.says());
            if at > said.len() {
                break;
            }
            let (front, behind) = said.split_at_mut(at);
            let mut into = [0; 64];
            let first = session.feed(front, &mut into).unwrap();
            // What is written meanwhile finds half a record.
            assert_eq!(session.seal(&[b"meanwhile"], 100), Ok(9));
            let second = session.feed(behind, &mut into[first..]).unwrap();
            assert_eq!(&into[..first + second], b"oneanother", "at {at}");
            assert!(session.is_ended());
            client.hears(&unsent(&mut session)).unwrap();
            assert_eq!(client.heard, b"meanwhile");
            at += 1;
        }
    }
}

#[test]
fn what_finds_no_room_is_kept_and_read_in_order() {
    let (mut client, mut session) = opened(&VERSIONS);
    let text: Vec<u8> = (0..60_000u32).map(|byte| byte as u8).collect();
    client.tls.set_buffer_limit(None);
    client.tls.writer().write_all(&text).unwrap();
    let mut said = client.says();
    let mut into = [0; 777];
    let mut read = Vec::new();
    for said in said.chunks_mut(20_000) {
        let got = session.feed(said, &mut into).unwrap();
        read.extend_from_slice(&into[..got]);
        while session.is_over() {
            assert!(session.bytes_held() > 0);
            let got = session.take_over(&mut into);
            read.extend_from_slice(&into[..got]);
        }
    }
    assert!(read == text);
    assert_eq!(session.bytes_held(), 0);
}

#[test]
fn a_ticket_is_good_on_every_shard_and_after_a_change_but_not_once_clients_must_show_more() {
    for version in VERSIONS {
        let mut config = client_config(&[version]);
        config.resumption = Resumption::in_memory_sessions(8);
        let mut tickets = Tickets::default();
        let mut connect = |settings: &Settings| {
            let (mut client, mut session) =
                (Client::new(config.clone(), HOST), Session::new(settings.served(&mut tickets).unwrap().config()));
            converse(&mut client, &mut session).map(|_| (client.tls.handshake_kind(), session.news()))
        };
        let settings = settings();
        let resumed = |connected: &Result<(Option<HandshakeKind>, Option<News>), session::Broken>| match connected {
            Ok((kind, Some(News::Done { is_resumed, .. }))) => {
                assert_eq!(*is_resumed, *kind == Some(HandshakeKind::Resumed));
                *is_resumed
            }
            other => panic!("{other:?}"),
        };
        assert!(!resumed(&connect(&settings)));
        assert!(resumed(&connect(&settings)));
        let renewed = Settings { certificates: vec![Authority::shared().issue(&[HOST]).pair()], ..settings.clone() };
        assert!(resumed(&connect(&renewed)), "another certificate");
        let clients = Clients::MustShow(Authority::shared().pem.clone().into());
        let strict = Settings { clients, ..renewed.clone() };
        assert!(connect(&strict).is_err(), "a ticket shows no certificate");
    }
}

#[test]
fn clients_show_certificates_where_they_have_to() {
    let authority = Authority::shared();
    let (good, strange) = (authority.issue(&["a client"]), Authority::fresh().issue(&["a client"]));
    let pem: Vec<u8> = authority.pem.clone().into();
    for (clients, shows, expected) in [
        (Clients::MustShow(pem.clone()), Some(&good), None),
        (Clients::MustShow(pem.clone()), None, Some("client_certificate_missing")),
        (Clients::MustShow(pem.clone()), Some(&strange), Some("client_certificate")),
        (Clients::MayShow(pem.clone()), None, None),
        (Clients::MayShow(pem.clone()), Some(&good), None),
        (Clients::MayShow(pem), Some(&strange), Some("client_certificate")),
    ] {
        for version in VERSIONS {
            let served = Settings { clients: clients.clone(), ..settings() }.served(&mut Tickets::default()).unwrap();
            let mut session = Session::new(served.config());
            let mut client = Client::new(client_config_with(&[version], shows), HOST);
            let done = converse(&mut client, &mut session);
            match expected {
                None => assert!(done.is_ok() && matches!(session.news(), Some(News::Done { .. }))),
                Some(reason) => {
                    assert!(done.is_err());
                    assert_eq!(session.news(), Some(News::Failed(reason)));
                    assert!(matches!(client.hears(&unsent(&mut session)), Err(rustls::Error::AlertReceived(_))));
                }
            }
        }
    }
}

#[test]
fn a_host_is_shown_the_certificate_that_is_for_it() {
    let authority = Authority::shared();
    let issued = [
        authority.issue(&["first.example"]),
        authority.issue(&["*.example"]),
        authority.issue(&["exact.example", "Other.test"]),
        authority.issue_for(&["exact.example"], KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()),
    ];
    let settings = Settings { certificates: issued.iter().map(Issued::pair).collect(), ..Settings::default() };
    let served = settings.served(&mut Tickets::default()).unwrap();
    let shown = |host: &str| {
        let mut config = client_config(&VERSIONS);
        // Whatever is shown is taken, to see which it is.
        #[derive(Debug)]
        struct Any;
        impl rustls::client::danger::ServerCertVerifier for Any {
            fn verify_server_cert(
                &self,
                _: &CertificateDer<'_>,
                _: &[CertificateDer<'_>],
                _: &ServerName<'_>,
                _: &[u8],
                _: rustls::pki_types::UnixTime,
            ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
                Ok(rustls::client::danger::ServerCertVerified::assertion())
            }

            fn verify_tls12_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }

            fn verify_tls13_signature(
                &self,
                _: &[u8],
                _: &CertificateDer<'_>,
                _: &rustls::DigitallySignedStruct,
            ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
                Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
            }

            fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
                vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
            }
        }
        config.dangerous().set_certificate_verifier(Arc::new(Any));
        let (mut client, mut session) = (Client::new(config, host), Session::new(served.config()));
        converse(&mut client, &mut session).unwrap();
        let shown = client.tls.peer_certificates().unwrap()[0].clone();
        issued.iter().position(|issued| issued.chain()[0] == shown).unwrap()
    };
    for (host, expected) in [
        ("first.example", 0),
        ("second.example", 1),
        ("EXACT.example", 2),
        ("other.test", 2),
        ("deep.second.example", 0),
        ("example", 0),
        ("unknown.test", 0),
        ("192.0.2.1", 0),
    ] {
        assert_eq!(shown(host), expected, "{host}");
    }
}

#[test]
fn what_cannot_be_served_is_refused_in_words() {
    let authority = Authority::shared();
    let (one, other) = (authority.issue(&[HOST]), authority.issue(&[HOST]));
    let refused = |settings: Settings| match settings.served(&mut Tickets::default()) {
        Ok(_) => panic!("it is served"),
        Err(Refused(why)) => why,
    };
    let with = |pair: Pair| Settings { certificates: vec![pair], ..Settings::default() };
    for (settings, expected) in [
        (Settings::default(), "there is no certificate"),
        (with(Pair { key: other.key.into(), ..one.pair() }), "the key of one.pem is not the key of its certificate"),
        (with(Pair { certificate: one.key.clone().into(), ..one.pair() }), "one.pem holds no certificate in PEM"),
        (with(Pair { key: one.certificate.clone().into(), ..one.pair() }), "holds no private key in PEM"),
        (with(Pair { certificate: Vec::new(), ..one.pair() }), "one.pem holds no certificate in PEM"),
        (
            with(Pair {
                certificate: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
                ..one.pair()
            }),
            "its first certificate cannot be read",
        ),
        (Settings { clients: Clients::MayShow(Vec::new()), ..with(one.pair()) }, "hold no certificate in PEM"),
        (Settings { clients: Clients::MustShow(one.key.clone().into()), ..with(one.pair()) }, "hold no certificate"),
    ] {
        let why = refused(settings);
        assert!(why.contains(expected), "{why}");
    }
}

#[test]
fn an_older_version_than_is_spoken_is_told_so() {
    let served = Settings { oldest: Oldest::Tls13, ..settings() }.served(&mut Tickets::default()).unwrap();
    let (mut client, mut session) =
        (Client::new(client_config(&[&version::TLS12]), HOST), Session::new(served.config()));
    assert!(converse(&mut client, &mut session).is_err());
    assert_eq!(session.news(), Some(News::Failed("version")));
    let told = client.hears(&unsent(&mut session));
    assert_eq!(told, Err(rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)));
}

#[test]
fn who_speaks_http_is_answered_in_http() {
    let mut session = Session::new(served().config());
    assert!(session.feed(&mut b"GET /ws HTTP/1.1\r\n\r\n".to_vec(), &mut [0; 9]).is_err());
    assert_eq!(session.news(), Some(News::Failed("plain_http")));
    let answer = String::from_utf8(unsent(&mut session)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("wss://"), "{answer}");
    assert!(session.is_closed() && session.feed(&mut [1], &mut [0; 9]).is_err());
}

#[test]
fn a_message_of_the_handshake_is_kept_within_bounds() {
    let mut session = Session::new(served().config());
    // A hello that announces 64 KiB and comes a byte a record: each byte costs six.
    let mut fed = 0;
    let mut record = |payload: &[u8]| {
        let mut record = [&[22, 3, 1, 0, payload.len() as u8], payload].concat();
        fed += record.len();
        session.feed(&mut record, &mut [0; 9]).map(|_| session.bytes_held())
    };
    assert!(record(&[1, 0, 0xff, 0]).is_ok());
    let mut most = 0;
    while let Ok(held) = record(&[0]) {
        most = most.max(held);
        // The memory of a list may be twice what is in it.
        assert!(held <= 2 * crate::base::limits::TLS_HELD_BYTES_MAX, "{held} bytes");
    }
    assert!(most > crate::base::limits::TLS_HELD_BYTES_MAX / 2);
    assert!(session.is_closed() && session.bytes_held() < 1_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever strangers send, the session ends or waits; it panics never and holds no more than it may.
    #[test]
    fn bent_bytes_never_panic(
        bends in proptest::collection::vec((0usize..3_000, any::<u8>()), 0..6),
        junk in proptest::collection::vec(any::<u8>(), 0..40),
        part in 1usize..2_000,
        is_old: bool,
        writes: bool,
    ) {
        let version = VERSIONS[usize::from(!is_old)];
        let (mut client, mut session) = (Client::new(client_config(&[version]), HOST), Session::new(served().config()));
        client.tls.writer().write_all(&[b'x'; 700]).unwrap();
        let mut into = [0; 256];
        let mut at = 0;
        'over: for _ in 0..20 {
            let mut said = client.says();
            if said.is_empty() {
                said = junk.clone();
            }
            for (place, byte) in &bends {
                if let Some(bent) = place.checked_sub(at).and_then(|place| said.get_mut(place)) {
                    *bent = *byte;
                }
            }
            at += said.len();
            for said in said.chunks_mut(part) {
                if session.feed(said, &mut into).is_err() {
                    break 'over;
                }
                while session.is_over() {
                    session.take_over(&mut into);
                }
                if writes {
                    let _ = session.seal(&[b"something", b"more"], 100);
                }
                prop_assert!(session.bytes_held() < 200_000);
            }
            if client.hears(&unsent(&mut session)).is_err() {
                // It says why, and the session hears that too.
                continue;
            }
        }
        session.part();
        prop_assert!(session.is_closed());
    }
}

/// The client's next record, encrypted by hand: what no client of ours would say.
struct Forger {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Forger {
    /// In place of a client whose handshake is over.
    fn of(client: Client) -> Forger {
        let (sequence, secrets) = client.tls.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else { panic!("another cipher") };
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap());
        Forger { key, iv: iv.as_ref().try_into().unwrap(), sequence }
    }

    /// `RFC 8446` section 5.2.
    fn record(&mut self, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()).for_each(|(byte, of_sequence)| *byte ^= of_sequence);
        self.sequence += 1;
        let mut inner = [payload, &[kind]].concat();
        let length = (inner.len() + 16) as u16;
        let header = [&[23, 3, 3], &length.to_be_bytes()[..]].concat();
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(&header), &mut inner).unwrap();
        [header, inner].concat()
    }
}

fn forged() -> (Forger, Session) {
    let mut config = client_config(&[&version::TLS13]);
    config.enable_secret_extraction = true;
    let (mut client, mut session) = (Client::new(config, HOST), Session::new(served().config()));
    assert_eq!(converse(&mut client, &mut session), Ok(Vec::new()));
    (Forger::of(client), session)
}

const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 1];

#[test]
fn a_key_update_may_come_in_parts_while_much_is_written() {
    for at in 0..=KEY_UPDATE.len() {
        let (mut forger, mut session) = forged();
        let (front, behind) = KEY_UPDATE.split_at(at);
        for part in [front, behind] {
            if !part.is_empty() {
                let mut record = forger.record(HANDSHAKE, part);
                // Each byte by itself, and something written behind each.
                for byte in record.iter_mut() {
                    assert_eq!(session.feed(std::slice::from_mut(byte), &mut [0; 9]), Ok(0));
                    assert_eq!(session.seal(&[b"meanwhile"], 9), Ok(9));
                }
            }
        }
        assert!(!session.unsent().is_empty() && session.held_bytes() == 0);
    }
}

#[test]
fn a_goodbye_is_said_with_half_a_message_at_hand() {
    let (mut forger, mut session) = forged();
    assert_eq!(session.feed(&mut forger.record(HANDSHAKE, &KEY_UPDATE[..2]), &mut [0; 9]), Ok(0));
    assert!(session.held_bytes() > 0);
    let before = session.unsent().len();
    session.part();
    assert!(session.unsent().len() > before && session.is_closed());
}

#[test]
fn what_no_client_may_say_ends_the_session() {
    let interleaved = |forger: &mut Forger| vec![forger.record(HANDSHAKE, &KEY_UPDATE[..2]), forger.record(DATA, b"x")];
    let strange = |forger: &mut Forger| vec![forger.record(99, b"x")];
    let hello_again = |forger: &mut Forger| vec![forger.record(HANDSHAKE, &[1, 0, 0, 2, 3, 3])];
    let empty = |forger: &mut Forger| (0..200).map(|_| forger.record(DATA, b"")).collect();
    let updates = |forger: &mut Forger| {
        // Of one record, so that the keys change only behind it.
        vec![forger.record(HANDSHAKE, &KEY_UPDATE.repeat(2))]
    };
    type Says = dyn Fn(&mut Forger) -> Vec<Vec<u8>>;
    let all: [(&str, &Says); 5] = [
        ("interleaved", &interleaved),
        ("strange", &strange),
        ("hello again", &hello_again),
        ("empty", &empty),
        ("updates", &updates),
    ];
    for (name, says) in all {
        let (mut forger, mut session) = forged();
        let ended = says(&mut forger).iter_mut().any(|record| session.feed(record, &mut [0; 9]).is_err());
        assert!(ended && session.is_closed(), "{name}");
        assert!(session.seal(&[b"x"], 1).is_err());
    }
}

fn pair() -> (Stream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Stream::secured(ours.into(), served()), theirs)
}

/// Reads until there is nothing for now. `None`: the peer has ended.
fn read_all(stream: &mut Stream, into: &mut [u8], read: &mut Vec<u8>) -> Option<()> {
    loop {
        match stream.receive(into) {
            Ok(got) if got.bytes == 0 => return None,
            Ok(got) => read.extend_from_slice(&into[..got.bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted),
        }
    }
}

/// Both ends of a connection after the handshake.
pub fn connected() -> (Stream, Client, UnixStream) {
    let ((mut stream, mut socket), mut client) = (pair(), Client::any());
    while client.tls.is_handshaking() || !matches!(stream.news(), Some(News::Done { .. })) {
        client.turn(&mut socket);
        assert_eq!(read_all(&mut stream, &mut [0; 100], &mut Vec::new()), Some(()));
    }
    client.turn(&mut socket);
    (stream, client, socket)
}

#[test]
fn a_stream_reads_whatever_the_size_of_the_buffer_and_says_when_there_is_more() {
    for size in [1, 7, 1_000, 16 * 1024, 1 << 20] {
        let (mut stream, mut client, mut socket) = connected();
        let text: Vec<u8> = (0..100_000u32).map(|byte| (byte / 3) as u8).collect();
        client.tls.set_buffer_limit(None);
        client.tls.writer().write_all(&text).unwrap();
        client.turn(&mut socket);
        let (mut into, mut read) = (vec![0; size], Vec::new());
        // As whoever is told once that there is something, and reads while there is said to be more.
        loop {
            match stream.receive(&mut into) {
                Ok(got) => {
                    read.extend_from_slice(&into[..got.bytes]);
                    if !got.has_more {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        assert!(read == text, "{} bytes of {} with {size}", read.len(), text.len());
        assert_eq!(stream.bytes_held(), 0);
    }
}

#[test]
fn a_full_socket_takes_the_rest_later_and_nothing_overtakes() {
    let (mut stream, mut client, mut socket) = connected();
    let text: Vec<u8> = (0..3_000_000u32).map(|byte| (byte / 5) as u8).collect();
    let (mut at, mut times_full) = (0, 0);
    while at < text.len() || stream.owes() {
        match stream.send_gathered(&[&text[at..at + (text.len() - at) / 2], &text[at + (text.len() - at) / 2..]]) {
            Ok(took) => at += took,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(stream.bytes_held() <= 3 * crate::base::limits::TLS_SEALED_BYTES_MAX, "{}", stream.bytes_held());
        if stream.owes() {
            times_full += 1;
            assert!(stream.send(b"in between").is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
            client.turn(&mut socket);
        }
    }
    assert!(times_full > 3);
    client.turn(&mut socket);
    assert!(client.heard == text);
    assert_eq!(stream.bytes_held(), 0);
}

#[test]
fn goodbyes_are_said_and_answered() {
    // Ours.
    let (mut stream, mut client, mut socket) = connected();
    assert_eq!(stream.send(b"last").unwrap(), 4);
    stream.shut(socket::Shut::Sending);
    client.turn(&mut socket);
    assert_eq!((&client.heard[..], client.is_ended), (&b"last"[..], true));
    client.tls.writer().write_all(b"too late").unwrap();
    client.turn(&mut socket);
    let got = stream.receive(&mut [0; 100]).unwrap();
    assert!(got.bytes > 8, "what still comes is counted and not looked at");
    // Theirs.
    let (mut stream, mut client, mut socket) = connected();
    client.tls.writer().write_all(b"last").unwrap();
    client.tls.send_close_notify();
    client.turn(&mut socket);
    let mut read = Vec::new();
    assert_eq!(read_all(&mut stream, &mut [0; 100], &mut read), None);
    assert_eq!(read, b"last");
    client.turn(&mut socket);
    assert!(client.is_ended, "it was answered");
    // None at all.
    let (mut stream, _client, socket) = connected();
    drop(socket);
    assert_eq!(read_all(&mut stream, &mut [0; 100], &mut Vec::new()), None);
    // In the middle of a record.
    let (mut stream, mut client, mut socket) = connected();
    client.tls.writer().write_all(b"half").unwrap();
    let said = client.says();
    socket.write_all(&said[..said.len() / 2]).unwrap();
    drop(socket);
    let mut read = Vec::new();
    assert_eq!(read_all(&mut stream, &mut [0; 100], &mut read), None);
    assert!(read.is_empty());
}

#[test]
fn garbage_ends_a_connection_with_an_alert() {
    let (mut stream, mut client, mut socket) = connected();
    socket.write_all(&[23, 3, 3, 0, 30]).unwrap();
    socket.write_all(&[7; 30]).unwrap();
    assert_eq!(stream.receive(&mut [0; 100]).unwrap_err().kind(), ErrorKind::InvalidData);
    let mut told = [0; 1_000];
    let got = socket.read(&mut told).unwrap();
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
    assert_eq!(client.hears(&told[..got]), Err(alert));
    assert!(stream.send(b"more").is_err());
    assert_eq!(socket::send(stream.as_raw_fd(), b"").unwrap(), 0, "the socket is there until it is closed");
}
