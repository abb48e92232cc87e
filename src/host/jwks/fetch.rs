//! Fetching a key set over http or https: once, within bounds of time and size.

use super::{Found, LoadFailed};
use crate::base::limits::JWKS_BYTES_MAX;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// From the look-up of the name to the last byte.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(10);

/// Whom the operator's system trusts.
pub(super) fn trust() -> Result<TlsConnector, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        return Err("this system trusts nobody, so no keys can be fetched by https; install ca-certificates".into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("https is not to be had: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(super) async fn fetch(uri: &Uri, tls: Option<&TlsConnector>) -> Result<Found, LoadFailed> {
    match timeout(FETCH_TIME_MAX, fetch_in_time(uri, tls)).await {
        Ok(body) => Ok(Found { json: body?, stamp: None }),
        Err(_) => Err(LoadFailed::TimeOut),
    }
}

async fn fetch_in_time(uri: &Uri, tls: Option<&TlsConnector>) -> Result<Vec<u8>, LoadFailed> {
    let host = uri.host().ok_or(LoadFailed::NotUrl)?;
    let bare_host = host.trim_start_matches('[').trim_end_matches(']');
    let is_https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let stream = TcpStream::connect((bare_host, port)).await.map_err(network)?;
    match tls.filter(|_| is_https) {
        Some(tls) => {
            let name = ServerName::try_from(bare_host.to_owned()).map_err(network)?;
            get(uri, tls.connect(name, stream).await.map_err(network)?).await
        }
        None if is_https => Err(LoadFailed::NotUrl),
        None => get(uri, stream).await,
    }
}

async fn get(uri: &Uri, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Vec<u8>, LoadFailed> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(network)?;
    let target = uri.path_and_query().map_or("/", |whole| whole.as_str());
    let request = Request::get(target)
        .header("host", uri.authority().map_or("", |whole| whole.as_str()))
        .header("accept", "application/jwk-set+json, application/json")
        .header("user-agent", concat!("ringroom/", env!("CARGO_PKG_VERSION")))
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(network)?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(network)?;
        if answer.status() != StatusCode::OK {
            return Err(LoadFailed::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), JWKS_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| LoadFailed::Network(error.to_string()))?.to_bytes().to_vec())
    };
    // Both in this task: what is not waited for any more is gone, connection and all.
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            // Whole, so whatever the answer still waits for is here.
            Ok(()) => answer.await,
            Err(error) => Err(network(error)),
        },
    }
}

fn network(error: impl fmt::Display) -> LoadFailed {
    LoadFailed::Network(error.to_string())
}
