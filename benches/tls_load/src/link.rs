//! One connection to the server, with TLS or without: bytes in, bytes out, never blocking.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, SignatureScheme, SupportedProtocolVersion,
};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// What one read takes at most.
const READ_BYTES: usize = 1 << 16;

/// How a client speaks TLS; a configuration of its own keeps tickets of its own.
#[derive(Clone)]
pub struct Speech {
    pub version: &'static SupportedProtocolVersion,
    /// Whether tickets are kept and shown.
    pub resumes: bool,
    /// With ML-KEM beside X25519, as browsers do, or X25519 alone.
    pub post_quantum: bool,
}

impl Speech {
    pub fn config(&self) -> Outcome<Arc<ClientConfig>> {
        let mut provider = aws_lc_rs::default_provider();
        // The first is used; P-256 has to be there for some servers to show an ECDSA certificate over TLS 1.2.
        provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
        if self.post_quantum {
            provider.kx_groups.insert(0, kx_group::X25519MLKEM768);
        }
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[self.version])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = if self.resumes { Resumption::in_memory_sessions(32) } else { Resumption::disabled() };
        Ok(Arc::new(config))
    }
}

/// Looks at no certificate and no signature: it is the server that is measured, and the load has half of the
/// machine only.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub struct Link {
    stream: TcpStream,
    tls: Option<ClientConnection>,
    /// What a plain connection has still to send.
    unsent: Vec<u8>,
}

impl Link {
    /// Begins to connect. The `nth` connection comes from the `nth / 20,000`th address, for the ports to suffice.
    pub fn begin(
        to: SocketAddr,
        nth: usize,
        config: Option<&Arc<ClientConfig>>,
        registry: &Registry,
        token: Token,
    ) -> Outcome<Link> {
        let mut stream = connected(to, nth)?;
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let tls = match config {
            None => None,
            Some(config) => Some(ClientConnection::new(config.clone(), ServerName::try_from("localhost")?)?),
        };
        Ok(Link { stream, tls, unsent: Vec::new() })
    }

    pub fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.unsent.extend_from_slice(bytes),
        }
        self.flush()
    }

    /// Sends what the socket takes; it is to be called again when the socket takes more.
    pub fn flush(&mut self) -> Outcome<()> {
        let outcome = match &mut self.tls {
            Some(tls) => {
                let mut outcome = Ok(0);
                while tls.wants_write() && outcome.is_ok() {
                    outcome = tls.write_tls(&mut self.stream);
                }
                outcome
            }
            None => {
                let mut outcome = Ok(0);
                while !self.unsent.is_empty() && outcome.is_ok() {
                    outcome = self.stream.write(&self.unsent);
                    if let Ok(sent) = outcome {
                        self.unsent.drain(..sent);
                    }
                }
                outcome
            }
        };
        match outcome {
            Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Appends to `heard` all that has come. False once the server has ended the connection.
    pub fn receive(&mut self, heard: &mut Vec<u8>) -> Outcome<bool> {
        let mut read = [0; READ_BYTES];
        loop {
            let bytes = match self.stream.read(&mut read) {
                Ok(0) => return Ok(false),
                Ok(bytes) => bytes,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
            };
            match &mut self.tls {
                None => heard.extend_from_slice(&read[..bytes]),
                Some(tls) => {
                    let mut encrypted = &read[..bytes];
                    while !encrypted.is_empty() {
                        tls.read_tls(&mut encrypted)?;
                        let plain = tls.process_new_packets()?.plaintext_bytes_to_read();
                        let at = heard.len();
                        heard.resize(at + plain, 0);
                        tls.reader().read_exact(&mut heard[at..])?;
                    }
                    self.flush()?;
                }
            }
            // Less than there was room for is all that there was.
            if bytes < READ_BYTES {
                return Ok(true);
            }
        }
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    pub fn was_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// The cipher suite, for saying what was measured.
    pub fn suite(&self) -> Option<String> {
        Some(format!("{:?}", self.tls.as_ref()?.negotiated_cipher_suite()?.suite()))
    }

    /// Says goodbye.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The server may have gone first.
            let _ = self.flush();
        }
    }
}

/// A socket on its way to the server; one write is one segment.
fn connected(to: SocketAddr, nth: usize) -> Outcome<TcpStream> {
    let from = Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(nth / 20_000)?);
    // SAFETY: plain system calls; the descriptor is owned as soon as it is there.
    let fd = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let stream = std::net::TcpStream::from(fd);
    let address = |ip: Ipv4Addr, port: u16| libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    let SocketAddr::V4(to) = to else {
        return Err("an IPv4 address is wanted".into());
    };
    let (from, to) = (address(from, 0), address(*to.ip(), to.port()));
    let bytes = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    let one: libc::c_int = 1;
    // SAFETY: the addresses and the option outlive the calls, and their lengths are theirs.
    let began = unsafe {
        let fd = stream.as_raw_fd();
        // The port is chosen when it is known where to, so that all ports serve every server.
        let option = (&raw const one).cast();
        libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, option, size_of_val(&one) as u32);
        libc::bind(fd, (&raw const from).cast(), bytes) == 0 && {
            libc::connect(fd, (&raw const to).cast(), bytes) == 0
                || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINPROGRESS)
        }
    };
    if !began {
        return Err(std::io::Error::last_os_error().into());
    }
    stream.set_nodelay(true)?;
    Ok(TcpStream::from_std(stream))
}
