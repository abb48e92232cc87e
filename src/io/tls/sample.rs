//! What tests of TLS begin with: an authority and its certificates, what a server of one host is served with,
//! and a client of rustls' own.

use super::Served;
use super::settings::{Pair, Settings, Tickets};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion, version};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

pub const HOST: &str = "chat.example";
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

/// Who vouches for certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A certificate with its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn fresh() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for tests");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// The same for all who ask.
    pub fn shared() -> &'static Authority {
        static SHARED: OnceLock<Authority> = OnceLock::new();
        SHARED.get_or_init(Authority::fresh)
    }

    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for(names, KeyPair::generate().unwrap())
    }

    pub fn issue_for(&self, names: &[&str], key: KeyPair) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { certificate, key: key.serialize_pem() }
    }
}

impl Issued {
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(Result::unwrap).collect()
    }

    pub fn pair(&self) -> Pair {
        Pair { name: "one.pem".into(), certificate: self.certificate.clone().into(), key: self.key.clone().into() }
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// What a server of one host is served with.
pub fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| settings().served(&mut Tickets::default()).unwrap())
}

pub fn settings() -> Settings {
    Settings { certificates: vec![Authority::shared().issue(&[HOST]).pair()], ..Settings::default() }
}

pub fn client_config(versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    client_config_with(versions, None)
}

pub fn client_config_with(versions: &[&'static SupportedProtocolVersion], shows: Option<&Issued>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(Authority::shared().pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let config = config.with_root_certificates(roots);
    match shows {
        None => config.with_no_client_auth(),
        Some(issued) => config.with_client_auth_cert(issued.chain(), issued.key()).unwrap(),
    }
}

/// A client, and what it has heard.
pub struct Client {
    pub tls: ClientConnection,
    pub heard: Vec<u8>,
    pub is_ended: bool,
}

impl Client {
    pub fn new(config: ClientConfig, host: &str) -> Client {
        let host = ServerName::try_from(host.to_owned()).unwrap();
        Client { tls: ClientConnection::new(Arc::new(config), host).unwrap(), heard: Vec::new(), is_ended: false }
    }

    pub fn any() -> Client {
        Client::new(client_config(&VERSIONS), HOST)
    }

    /// What it wants to send.
    pub fn says(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut said).unwrap();
        }
        said
    }

    pub fn hears(&mut self, mut bytes: &[u8]) -> Result<(), rustls::Error> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            let state = self.tls.process_new_packets()?;
            self.is_ended |= state.peer_has_closed();
            let mut chunk = vec![0; state.plaintext_bytes_to_read()];
            self.tls.reader().read_exact(&mut chunk).unwrap();
            self.heard.extend(chunk);
        }
        Ok(())
    }

    /// Says and hears what there is, over a socket that does not wait.
    pub fn turn(&mut self, socket: &mut UnixStream) {
        let mut said = &self.says()[..];
        while !said.is_empty() {
            match socket.write(said) {
                Ok(took) => said = &said[took..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{said:?}"),
            }
        }
        let mut chunk = vec![0; 1 << 16];
        while let Ok(got @ 1..) = socket.read(&mut chunk) {
            self.hears(&chunk[..got]).unwrap();
        }
    }
}
