//! `ringroom token`: one access token for trying things out, signed as the server expects it.

use super::Failed;
use super::arguments::TokenOptions;
use crate::admission::names::{check_tenant, check_user};
use crate::admission::token::{Claims, TYPE_ACCESS, Verifier, sign_hs256};
use std::time::{SystemTime, UNIX_EPOCH};

pub fn run(options: &TokenOptions) -> Result<(), Failed> {
    let secret = std::env::var("RINGROOM_JWT_SECRET").unwrap_or_default();
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("{}", issue(options, secret.as_bytes(), unix_s)?);
    Ok(())
}

fn issue(options: &TokenOptions, secret: &[u8], unix_s: u64) -> Result<String, Failed> {
    if secret.is_empty() {
        return Err(Failed::configuration(
            "RINGROOM_JWT_SECRET is not set, so there is nothing to sign with; export the secret that the server uses",
        ));
    }
    check_user(&options.sub).map_err(|refused| Failed::usage(format!("--sub: {refused}")))?;
    if let Some(tenant) = &options.tenant {
        check_tenant(tenant).map_err(|refused| Failed::usage(format!("--tenant: {refused}")))?;
    }
    let claims = Claims {
        sub: options.sub.clone(),
        tenant: options.tenant.clone(),
        name: options.name.clone(),
        roles: options.roles.clone(),
        typ: Some(TYPE_ACCESS.into()),
        iat: Some(unix_s),
        exp: Some(unix_s.saturating_add(options.ttl.as_secs())),
        ..Claims::default()
    };
    let token = sign_hs256(secret, &claims);
    // The server's own check: a token that it would refuse is never handed out.
    let server = Verifier::hs256(secret, 0)
        .map_err(|refused| Failed::configuration(format!("RINGROOM_JWT_SECRET: {refused}")))?;
    match server.verify(&token, unix_s) {
        Ok(_) => Ok(token),
        Err(refused) => Err(Failed::usage(format!("a server would refuse this token: {refused}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECRET: &[u8] = b"a secret of at least 32 bytes, for tests only";

    fn options(sub: &str) -> TokenOptions {
        TokenOptions {
            sub: sub.into(),
            tenant: Some("acme".into()),
            roles: vec!["admin".into()],
            name: Some("Alice".into()),
            ttl: Duration::from_secs(60),
        }
    }

    #[test]
    fn a_token_says_who_for_how_long() {
        let token = issue(&options("alice"), SECRET, 1_000).ok().unwrap();
        let identity = Verifier::hs256(SECRET, 0).unwrap().verify(&token, 1_059).unwrap();
        assert_eq!((&*identity.user, &**identity.tenant(), identity.name()), ("alice", "acme", Some("Alice")));
        assert!(identity.has_role("admin"));
        assert!(Verifier::hs256(SECRET, 0).unwrap().verify(&token, 1_060).is_err());
    }

    #[test]
    fn without_a_secret_the_configuration_is_to_blame() {
        let failed = issue(&options("alice"), b"", 0).unwrap_err();
        assert_eq!(failed.exit, 78);
        assert!(failed.message.contains("RINGROOM_JWT_SECRET"));
    }

    #[test]
    fn no_token_is_made_that_a_server_would_refuse() {
        assert_eq!(issue(&options("a\nb"), SECRET, 0).unwrap_err().exit, 2);
        let many = TokenOptions { roles: vec!["r".into(); 33], ..options("alice") };
        assert!(issue(&many, SECRET, 0).unwrap_err().message.contains("roles"));
    }
}
