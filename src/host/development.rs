//! Development mode: a gateway that can be tried without any configuration.
//! Invariant: only on loopback, and a secret that was made up ends with the process.

use crate::admission::token::{Claims, sign_hs256};
use std::fmt::Write;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET_BYTES: usize = 32;
const TOKEN_TIME_S: u64 = 24 * 3_600;
const USERS: [&str; 2] = ["alice", "bob"];

/// A secret nobody knows. `None`: the system has no random bytes.
pub fn secret() -> Option<Vec<u8>> {
    let mut secret = vec![0; SECRET_BYTES];
    aws_lc_rs::rand::fill(&mut secret).ok()?;
    Some(secret)
}

/// What to print once clients can connect. `program`: what a terminal calls this one by.
pub fn welcome(program: &str, secret: &[u8], data: SocketAddr, ops: SocketAddr) -> String {
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let url = format!("ws://{data}/ws");
    let mut text = format!(
        "development mode: for this machine only; set RINGROOM_JWT_SECRET to serve others\n  \
         clients  {url}\n  events   http://{data}/sse?rooms=chat:1&token=..\n  health   http://{data}/health\n  \
         metrics  http://{ops}/metrics\n"
    );
    for user in USERS {
        let claims = Claims { sub: user.into(), exp: Some(unix_s + TOKEN_TIME_S), ..Claims::default() };
        let token = sign_hs256(secret, &claims);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{user}, in a terminal of its own:\n  {program} client --url {url} --join chat:1 --token {token}\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::token::Verifier;

    #[test]
    fn the_printed_tokens_open_the_gateway() {
        let secret = secret().unwrap();
        let address = "127.0.0.1:3001".parse().unwrap();
        let text = welcome("target/release/ringroom", &secret, address, address);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let tokens: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("--token ")).map(|line| line.1).collect();
        let users: Vec<_> = tokens
            .iter()
            .map(|token| Verifier::hs256(&secret, 0).unwrap().verify(token, now).unwrap().user.to_string())
            .collect();
        assert_eq!(users, USERS);
        assert!(text.contains("\n  target/release/ringroom client --url ws://127.0.0.1:3001/ws"));
    }
}
