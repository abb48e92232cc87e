//! Why a key or a set was not loaded.

use super::fetch::FETCH_TIME_MAX;
use crate::admission::keys::KeyRefused;
use hyper::StatusCode;
use std::fmt;
use std::io;

/// Why a key or a set was not loaded.
#[derive(Debug)]
pub enum LoadFailed {
    NotUrl,
    Key(KeyRefused),
    /// Nothing of the set can be used.
    NoKeys {
        others: usize,
    },
    File(io::Error),
    Network(String),
    Status(StatusCode),
    TimeOut,
}

impl From<KeyRefused> for LoadFailed {
    fn from(refused: KeyRefused) -> LoadFailed {
        LoadFailed::Key(refused)
    }
}

impl fmt::Display for LoadFailed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadFailed::NotUrl => {
                out.write_str("it is no address such as https://id.example/jwks.json, without user and password")
            }
            LoadFailed::Key(refused) => refused.fmt(out),
            LoadFailed::NoKeys { others } => {
                write!(
                    out,
                    "none of its {others} keys can be used; RSA, P-256, P-384 and Ed25519 keys for signatures are"
                )
            }
            LoadFailed::File(error) => error.fmt(out),
            LoadFailed::Network(error) => out.write_str(error),
            LoadFailed::Status(status) if status.is_redirection() => {
                write!(out, "it was answered with {status}; redirections are not followed, give the final address")
            }
            LoadFailed::Status(status) => write!(out, "it was answered with {status}"),
            LoadFailed::TimeOut => write!(out, "no answer within {} s", FETCH_TIME_MAX.as_secs()),
        }
    }
}
