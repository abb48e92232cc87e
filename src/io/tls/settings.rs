//! What TLS is served with: certificates and keys by the names of hosts, the versions, and what clients have
//! to show. Invariant: what is served was judged as a whole before, so a key that belongs to another
//! certificate is found here and not by a client.

use crate::io::tls::certificate::Facts;
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

/// What an operator gives.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// At least one. The first is for everybody who names no host, or one that no other is for.
    pub certificates: Vec<Pair>,
    pub oldest: Oldest,
    pub clients: Clients,
}

/// A certificate and its key, which nothing shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// How it is called where something is said of it.
    pub name: Box<str>,
    /// The chain in PEM, the host's own first.
    pub certificate: Vec<u8>,
    /// In PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: Vec<u8>,
}

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Oldest {
    #[default]
    Tls12,
    Tls13,
}

/// Whether clients show certificates of their own.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Clients {
    #[default]
    Unknown,
    /// Whoever shows one has to show one of these authorities, in PEM.
    MayShow(Vec<u8>),
    MustShow(Vec<u8>),
}

/// Why something cannot be served, in words for an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused(pub String);

impl std::fmt::Display for Refused {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0)
    }
}

/// Until when a certificate is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Expiry {
    pub name: Box<str>,
    pub ends: SystemTime,
}

/// What is served: the same for all shards, replaced as a whole.
#[derive(Clone)]
pub struct Served {
    config: Arc<ServerConfig>,
    expiries: Arc<[Expiry]>,
}

impl Served {
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// One for each certificate, in the order of the settings.
    pub fn expiries(&self) -> &Arc<[Expiry]> {
        &self.expiries
    }
}

/// What outlives the settings: tickets that one was served with are taken with the next, unless it asks for
/// more than they say of a client.
#[derive(Default)]
pub struct Tickets {
    /// With the clients that they were given to.
    current: Option<(Clients, Oldest, Arc<dyn ProducesTickets>)>,
}

impl Tickets {
    fn of(&mut self, settings: &Settings) -> Result<Arc<dyn ProducesTickets>, Refused> {
        match &self.current {
            Some((clients, oldest, tickets)) if (clients, oldest) == (&settings.clients, &settings.oldest) => {
                Ok(Arc::clone(tickets))
            }
            _ => {
                let tickets =
                    provider::Ticketer::new().map_err(|error| Refused(format!("tickets cannot be made: {error}")))?;
                self.current = Some((settings.clients.clone(), settings.oldest, Arc::clone(&tickets)));
                Ok(tickets)
            }
        }
    }
}

impl Settings {
    /// Judges the settings as a whole.
    pub fn served(&self, tickets: &mut Tickets) -> Result<Served, Refused> {
        let provider = Arc::new(provider::default_provider());
        let mut hosts = Hosts::default();
        let mut expiries = Vec::new();
        for pair in &self.certificates {
            let (key, facts) = pair.read(&provider)?;
            hosts.add(Arc::new(key), &facts);
            expiries.push(Expiry { name: pair.name.clone(), ends: facts.ends });
        }
        if hosts.keys.is_empty() {
            return Err(Refused("there is no certificate to serve TLS with".into()));
        }
        let versions: &[&SupportedProtocolVersion] = match self.oldest {
            Oldest::Tls12 => &[&version::TLS13, &version::TLS12],
            Oldest::Tls13 => &[&version::TLS13],
        };
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| Refused(format!("TLS cannot be served: {error}")))?;
        let mut config = match self.clients.verifier(provider)? {
            None => config.with_no_client_auth(),
            Some(verifier) => config.with_client_cert_verifier(verifier),
        }
        .with_cert_resolver(Arc::new(hosts));
        // What a client needs to come back quickly is with the client: no shard has to know another's.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = tickets.of(self)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Served { config: Arc::new(config), expiries: expiries.into() })
    }
}

impl Pair {
    fn read(&self, provider: &CryptoProvider) -> Result<(CertifiedKey, Facts), Refused> {
        let Pair { name, certificate, key } = self;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
        let chain = chain.map_err(|error| Refused(format!("{name} holds no PEM that can be read: {error}")))?;
        let Some(first) = chain.first() else {
            return Err(Refused(format!("{name} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")));
        };
        let facts = Facts::of(first)
            .ok_or_else(|| Refused(format!("{name}: its first certificate cannot be read; it is no X.509")))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            Refused(format!("the key of {name} holds no private key in PEM, or one that a passphrase protects"))
        })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Refused(format!(
                "the key of {name} is not the key of its certificate: give the two that were made together, \
                 and the host's own certificate first"
            )),
            error => Refused(format!("{name} and its key cannot be used: {error}")),
        })?;
        Ok((key, facts))
    }
}

impl Clients {
    fn verifier(&self, provider: Arc<CryptoProvider>) -> Result<Option<Arc<dyn ClientCertVerifier>>, Refused> {
        let (Clients::MayShow(authorities) | Clients::MustShow(authorities)) = self else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities) {
            let refused = |error: &dyn std::fmt::Display| {
                Refused(format!("the authorities of clients (tls.client_ca_file) cannot be read: {error}"))
            };
            let authority = authority.map_err(|error| refused(&error))?;
            roots.add(authority).map_err(|error| refused(&error))?;
        }
        if roots.is_empty() {
            return Err(Refused("the authorities of clients (tls.client_ca_file) hold no certificate in PEM".into()));
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let builder = match self {
            Clients::MayShow(_) => builder.allow_unauthenticated(),
            _ => builder,
        };
        let verifier = builder.build();
        verifier.map(Some).map_err(|error| Refused(format!("the authorities of clients cannot be used: {error}")))
    }
}

/// Which certificate is shown to whom.
#[derive(Default, Debug)]
struct Hosts {
    keys: Vec<Arc<CertifiedKey>>,
    /// By the name of a host, or what stands behind `*.`: those for it, the first that was given first.
    exact: HashMap<Box<str>, Vec<usize>>,
    wild: HashMap<Box<str>, Vec<usize>>,
}

impl Hosts {
    fn add(&mut self, key: Arc<CertifiedKey>, facts: &Facts) {
        for name in &facts.names {
            let (hosts, name) = match name.strip_prefix("*.") {
                Some(parent) => (&mut self.wild, parent),
                None => (&mut self.exact, &**name),
            };
            hosts.entry(name.into()).or_default().push(self.keys.len());
        }
        self.keys.push(key);
    }

    /// Those for a host, the likeliest first. `None`: it is not named, or nobody is for it.
    fn of(&self, host: Option<&str>) -> Option<&[usize]> {
        let host = host?.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        let exact = self.exact.get(host);
        let found = exact.or_else(|| self.wild.get(host.split_once('.')?.1))?;
        Some(found)
    }
}

impl ResolvesServerCert for Hosts {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = self.of(hello.server_name()).unwrap_or(&[0]);
        // One host may have a key of each kind, for clients that know only one.
        let fits = |at: &&usize| self.keys[**at].key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = found.iter().find(fits).or(found.first())?;
        Some(Arc::clone(&self.keys[*chosen]))
    }
}
