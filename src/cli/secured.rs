//! TLS for the client in the terminal: `wss://`, trusting whom the system trusts, or one authority that is
//! named. Invariant: a read that waits holds nothing, so the other side can write meanwhile.

use super::Failed;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What one read of the socket takes.
const READ_BYTES: usize = 16 * 1024;

pub struct Secured(Mutex<ClientConnection>);

impl Secured {
    /// Ends the handshake with `host`. `authority`: a file of certificates in PEM to trust, in place of those
    /// that the system trusts.
    pub fn with(host: &str, authority: Option<&str>, mut socket: &TcpStream) -> Result<Secured, Failed> {
        let mut roots = RootCertStore::empty();
        match authority {
            Some(file) => {
                let wrong =
                    |error: &dyn std::fmt::Display| Failed::usage(format!("--ca {file} cannot be read: {error}"));
                for found in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
                    roots.add(found.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err(Failed::usage("there is nobody to trust; name a file of authorities with --ca"));
        }
        let failed =
            |error: &dyn std::fmt::Display| Failed::failure(format!("{host} cannot be spoken to by TLS: {error}"));
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| failed(&error))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(|error| failed(&error))?;
        }
        Ok(Secured(Mutex::new(connection)))
    }

    fn connection(&self) -> MutexGuard<'_, ClientConnection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn read(&self, mut socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
        let mut ciphertext = [0; READ_BYTES];
        loop {
            match self.connection().reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            let got = socket.read(&mut ciphertext)?;
            let mut connection = self.connection();
            let mut rest = &ciphertext[..got];
            // Nothing to take is the end, which is taken too.
            loop {
                connection.read_tls(&mut rest)?;
                connection.process_new_packets().map_err(io::Error::other)?;
                if rest.is_empty() {
                    break;
                }
            }
            send(&mut connection, socket)?;
        }
    }

    pub fn write(&self, socket: &TcpStream, from: &[u8]) -> io::Result<usize> {
        let mut connection = self.connection();
        let mut rest = from;
        while !rest.is_empty() {
            let took = connection.writer().write(rest)?;
            rest = &rest[took..];
            send(&mut connection, socket)?;
        }
        Ok(from.len())
    }
}

fn send(connection: &mut ClientConnection, mut socket: &TcpStream) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(&mut socket)?;
    }
    Ok(())
}
