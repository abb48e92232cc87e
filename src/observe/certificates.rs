//! What is known of the certificates that TLS is served with. Whoever follows their files writes it down;
//! the ops port shows it.

use crate::io::tls::settings::Expiry;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// The same for all who hold it.
#[derive(Clone, Default)]
pub struct Certificates(Arc<Mutex<Known>>);

#[derive(Default)]
pub struct Known {
    /// One for each certificate; none: no TLS is served.
    pub expiries: Arc<[Expiry]>,
    /// Times that changed files were taken, and that they could not be.
    pub taken: u64,
    pub refused: u64,
    /// What the files hold now could not be taken.
    pub is_stale: bool,
}

impl Certificates {
    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each ends, in seconds since 1970, by the name of its file.
    pub fn ends(&self) -> Vec<(String, u64)> {
        self.known().expiries.iter().map(|expiry| (expiry.name.to_string(), seconds(expiry.ends))).collect()
    }

    /// There are some, and none of them is good any more.
    pub fn have_expired(&self, now: SystemTime) -> bool {
        let known = self.known();
        !known.expiries.is_empty() && known.expiries.iter().all(|expiry| expiry.ends <= now)
    }

    /// For `/ready`; `None`: no TLS is served.
    pub fn body(&self, now: SystemTime) -> Option<Value> {
        let known = self.known();
        let each = |expiry: &Expiry| {
            let left = seconds(expiry.ends) as i64 - seconds(now) as i64;
            json!({"file": expiry.name, "expires_in_s": left})
        };
        let all: Vec<Value> = known.expiries.iter().map(each).collect();
        (!all.is_empty()).then(|| json!({"certificates": all, "stale": known.is_stale}))
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn certificates_have_expired_when_the_last_of_them_has() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let certificates = Certificates::default();
        assert!(!certificates.have_expired(at(9)) && certificates.body(at(9)).is_none(), "no TLS is served");
        let expiry = |name: &str, ends| Expiry { name: name.into(), ends: at(ends) };
        certificates.known().expiries = [expiry("a.pem", 100), expiry("b.pem", 200)].into();
        assert!(!certificates.have_expired(at(199)) && certificates.have_expired(at(200)));
        assert_eq!(certificates.ends(), [("a.pem".to_owned(), 100), ("b.pem".to_owned(), 200)]);
        assert_eq!(
            certificates.body(at(150)),
            Some(json!({
                "certificates": [{"file": "a.pem", "expires_in_s": -50}, {"file": "b.pem", "expires_in_s": 50}],
                "stale": false,
            }))
        );
    }
}
