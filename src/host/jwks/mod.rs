//! Keys: loads what the configuration names, looks again, and tells the shards of what changed. A
//! task of the service thread.
//! Invariant: what is fetched is named by the operator, never by a token; a source that fails keeps
//! the keys that it had; and no source is asked more often than its least interval, whatever
//! strangers send.

mod failed;
mod fetch;
mod settings;

pub use failed::LoadFailed;
pub use settings::{KeySettings, Material, NamedKey, Place, Source};

use crate::admission::keys::{self, Algorithm, Key, KeyRefused, KeySet, Secrets};
use crate::admission::token::{TokenSettings, Verifier};
use crate::base::limits::JWKS_BYTES_MAX;
use crate::base::random::Random;
use fetch::{fetch, trust};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsConnector;

/// After a failure, doubled each time up to the interval.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// How often a file is looked at; it is read only when it has changed.
const FILE_LOOK: Duration = Duration::from_secs(1);
/// Without a source there is nothing to wake for.
const NOTHING_TO_LOOK_AT: Duration = Duration::from_secs(24 * 3_600);

/// Loads, looks again, and makes a [`Verifier`] of what there is.
pub struct KeyRing {
    tokens: TokenSettings,
    named: Vec<NamedKey>,
    shelves: Vec<Shelf>,
    refresh: Duration,
    refresh_min: Duration,
    tls: Option<TlsConnector>,
    random: Random,
}

/// One source and when to look at it again.
struct Shelf {
    source: Source,
    /// The set as it was last loaded.
    json: Option<Vec<u8>>,
    /// What the file was like then.
    stamp: Option<Stamp>,
    loaded: Option<Instant>,
    next: Instant,
    failures: u32,
}

/// When a file changed, and its length.
type Stamp = (SystemTime, u64);

/// A set as it stands at its source.
struct Found {
    json: Vec<u8>,
    stamp: Option<Stamp>,
}

impl KeyRing {
    /// Reads what stands in files and checks it; fetches once what stands elsewhere. A key that is
    /// wrong fails the start, a server that is away does not: `seed` spreads how often it is asked.
    pub async fn open(settings: KeySettings, seed: u64) -> Result<KeyRing, String> {
        KeyRing::stock(settings, Random::new(seed), &[]).await
    }

    /// Sets that stand among those of `before` are there at once, whatever becomes of their source.
    async fn stock(settings: KeySettings, random: Random, before: &[Shelf]) -> Result<KeyRing, String> {
        let KeySettings { tokens, keys, sources, refresh, refresh_min, .. } = settings;
        let shelf = |source: Source| {
            let json =
                before.iter().find(|shelf| shelf.source.place == source.place).and_then(|shelf| shelf.json.clone());
            Shelf { source, json, stamp: None, loaded: None, next: Instant::now(), failures: 0 }
        };
        let shelves: Vec<Shelf> = sources.into_iter().map(shelf).collect();
        let is_https =
            |shelf: &Shelf| matches!(&shelf.source.place, Place::Url(uri) if uri.scheme_str() == Some("https"));
        let tls = shelves.iter().any(is_https).then(trust).transpose()?;
        let mut ring = KeyRing { tokens, named: keys, shelves, refresh, refresh_min, tls, random };
        for key in &mut ring.named {
            if let Material::PemFile(path) = &key.material {
                let pem = read_bounded(path).map_err(|error| format!("the key in {}: {error}", path.display()))?;
                key.material = Material::Pem(String::from_utf8_lossy(&pem).into_owned());
            }
            made(key).map_err(|refused| format!("a key of the configuration: {refused}"))?;
        }
        ring.look(Instant::now()).await;
        for shelf in &ring.shelves {
            if let (Place::File(path), true) = (&shelf.source.place, shelf.json.is_none()) {
                return Err(format!("the key set in {} cannot be used; see the log", path.display()));
            }
            if let Place::Url(uri) = &shelf.source.place
                && uri.scheme_str() == Some("http")
            {
                log::warn!(
                    "keys come from {} without https: whoever is on the way can let anybody in",
                    shelf.source.place
                );
            }
        }
        ring.verifier().map_err(|refused| format!("the keys together: {refused}"))?;
        Ok(ring)
    }

    /// What the shards check tokens with from now on.
    pub fn verifier(&self) -> Result<Arc<Verifier>, KeyRefused> {
        let mut keys = self.named.iter().map(made).collect::<Result<Vec<Key>, _>>()?;
        for shelf in &self.shelves {
            if let Some(json) = &shelf.json {
                keys.extend(shelf.source.read(json).unwrap_or_default());
            }
        }
        Ok(Arc::new(Verifier::new(self.tokens.clone(), Arc::new(KeySet::new(keys)?))))
    }

    /// Looks again for as long as it is polled. `wanted` is notified when a token's key is missing,
    /// `orders` are settings that take the place of the old ones unless they are wrong; `tell` hands a
    /// new verifier to the shards and says whether all of them have it.
    pub async fn keep(
        mut self,
        wanted: Arc<Notify>,
        mut orders: UnboundedReceiver<KeySettings>,
        tell: impl Fn(&Arc<Verifier>) -> bool,
    ) {
        let mut untold: Option<Arc<Verifier>> = None;
        // Whoever wants keys before this is heard already.
        let mut heard_until = Instant::now();
        loop {
            let next = self.shelves.iter().map(|shelf| shelf.next).min();
            let next = next.unwrap_or_else(|| Instant::now() + NOTHING_TO_LOOK_AT);
            let next = if untold.is_some() { next.min(Instant::now() + RETRY_FIRST) } else { next };
            let mut is_new = false;
            tokio::select! {
                () = sleep_until(next) => {}
                Some(settings) = orders.recv() => is_new = self.restock(settings).await,
                () = wanted.notified(), if heard_until <= Instant::now() => heard_until = self.hasten(),
            }
            is_new |= self.look(Instant::now()).await;
            if is_new {
                match self.verifier() {
                    Ok(verifier) => untold = Some(verifier),
                    Err(refused) => log::error!("the new keys are not taken: {refused}; the old ones stay"),
                }
            }
            if untold.as_ref().is_some_and(&tell) {
                untold = None;
            }
        }
    }

    /// Says whether the new settings are taken.
    async fn restock(&mut self, settings: KeySettings) -> bool {
        match KeyRing::stock(settings, self.random.clone(), &self.shelves).await {
            Ok(ring) => {
                *self = ring;
                true
            }
            Err(refused) => {
                log::error!("the new keys are not taken: {refused}; the old ones stay");
                false
            }
        }
    }

    /// A key is missing: each set is looked at as soon as it may be. Says when the last of them is.
    fn hasten(&mut self) -> Instant {
        for shelf in &mut self.shelves {
            let soonest = shelf.loaded.map_or_else(Instant::now, |loaded| loaded + self.refresh_min);
            shelf.next = shelf.next.min(soonest);
        }
        self.shelves.iter().map(|shelf| shelf.next).max().unwrap_or_else(Instant::now)
    }

    /// Loads the sets whose time has come. Says whether any changed.
    async fn look(&mut self, now: Instant) -> bool {
        let mut is_new = false;
        for shelf in self.shelves.iter_mut().filter(|shelf| shelf.next <= now) {
            let found = match &shelf.source.place {
                Place::File(path) => shelf.changed_file(path),
                Place::Url(uri) => fetch(uri, self.tls.as_ref()).await.map(Some),
            };
            shelf.loaded = Some(Instant::now());
            let wait = match found.and_then(|found| shelf.take(found)) {
                Ok(is_other) => {
                    is_new |= is_other;
                    shelf.failures = 0;
                    self.refresh
                }
                Err(error) => shelf.fail(&error).min(self.refresh),
            };
            let is_file = matches!(shelf.source.place, Place::File(_));
            shelf.next = Instant::now() + if is_file { FILE_LOOK } else { spread(wait, &mut self.random) };
        }
        is_new
    }
}

/// A fifth shorter or longer: many gateways are not to ask in step.
fn spread(wait: Duration, random: &mut Random) -> Duration {
    let shortest = wait.mul_f64(0.8);
    shortest + Duration::from_nanos(random.below(wait.as_nanos() as u64 / 5 * 2 + 1))
}

impl Source {
    fn read(&self, json: &[u8]) -> Result<Vec<Key>, LoadFailed> {
        let secrets = if matches!(self.place, Place::File(_)) { Secrets::Taken } else { Secrets::Ignored };
        let (keys, others) = keys::jwks(json, secrets)?;
        let number = keys.len() + others;
        let finished = |key: Key| {
            let key = match &self.algorithms {
                Some(algorithms) => key.only(algorithms).ok()?,
                None => key,
            };
            Some(match &self.issuer {
                Some(issuer) => key.with_issuer(issuer),
                None => key,
            })
        };
        let usable: Vec<Key> = keys.into_iter().filter_map(finished).collect();
        if usable.is_empty() { Err(LoadFailed::NoKeys { others: number }) } else { Ok(usable) }
    }
}

impl Shelf {
    /// Keeps a set that can be used. Says whether it is another than before.
    fn take(&mut self, found: Option<Found>) -> Result<bool, LoadFailed> {
        let Some(Found { json, stamp }) = found else { return Ok(false) };
        let keys = self.source.read(&json)?.len();
        self.stamp = stamp;
        let is_other = self.json.as_ref() != Some(&json);
        if is_other {
            log::info!("{keys} keys loaded from {}", self.source.place);
            self.json = Some(json);
        }
        Ok(is_other)
    }

    /// Says how long to wait before the next attempt.
    fn fail(&mut self, error: &LoadFailed) -> Duration {
        // A file is looked at each second; once is enough to say so.
        if self.failures == 0 || matches!(self.source.place, Place::Url(_)) {
            let place = &self.source.place;
            log::warn!("keys cannot be loaded from {place}: {error}; trying again, with the old ones meanwhile");
        }
        let wait = RETRY_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        wait
    }

    /// `None`: it is as it was.
    fn changed_file(&self, path: &Path) -> Result<Option<Found>, LoadFailed> {
        let about = std::fs::metadata(path).map_err(LoadFailed::File)?;
        let stamp = about.modified().ok().map(|at| (at, about.len()));
        // A file may change twice within the grain of its time, so a young one is read again.
        let is_young = stamp.is_some_and(|(at, _)| at.elapsed().is_ok_and(|age| age < FILE_LOOK * 3));
        if self.json.is_some() && stamp.is_some() && stamp == self.stamp && !is_young {
            return Ok(None);
        }
        Ok(Some(Found { json: read_bounded(path).map_err(LoadFailed::File)?, stamp }))
    }
}

fn made(key: &NamedKey) -> Result<Key, KeyRefused> {
    let made = match (&key.material, &key.algorithms) {
        (Material::Secret(secret), algorithms) => {
            Key::secret(secret, algorithms.as_deref().unwrap_or(&[Algorithm::HS256]))?
        }
        (Material::Pem(text), None) => Key::pem(text)?,
        (Material::Pem(text), Some(algorithms)) => Key::pem(text)?.only(algorithms)?,
        (Material::PemFile(_), _) => return Err(KeyRefused::NotPem),
    };
    let made = key.id.iter().fold(made, |made, id| made.with_id(id));
    Ok(key.issuer.iter().fold(made, |made, issuer| made.with_issuer(issuer)))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(JWKS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::token::{Claims, TokenRefused, sign_hs256};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use std::io::Write;
    use std::net::TcpListener;
    use std::path::PathBuf;
    use std::sync::Mutex;

    const NOW: u64 = 1_763_690_000;

    fn secret(nth: usize) -> String {
        format!("secret {nth:04} of at least 32 bytes, for tests")
    }

    fn set(nths: &[usize]) -> String {
        let key = |nth: &usize| format!(r#"{{"kty":"oct","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(secret(*nth)));
        format!(r#"{{"keys":[{}]}}"#, nths.iter().map(key).collect::<Vec<_>>().join(","))
    }

    fn verify(verifier: &Verifier, nth: usize) -> Result<(), TokenRefused> {
        let claims = Claims { sub: "alice".into(), ..Claims::default() };
        verifier.verify(&sign_hs256(secret(nth).as_bytes(), &claims), NOW).map(|_| ())
    }

    fn no_orders() -> UnboundedReceiver<KeySettings> {
        tokio::sync::mpsc::unbounded_channel().1
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    /// A file of its own for each test, gone with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, text: &str) -> Scratch {
            let scratch = Scratch(std::env::temp_dir().join(format!("ringroom-{}-{name}", std::process::id())));
            scratch.write(text);
            scratch
        }

        fn write(&self, text: &str) {
            File::create(&self.0).unwrap().write_all(text.as_bytes()).unwrap();
        }

        fn settings(&self) -> KeySettings {
            of(Place::File(self.0.clone()))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn of(place: Place) -> KeySettings {
        let sources = vec![Source { place, issuer: None, algorithms: None }];
        KeySettings { sources, ..KeySettings::default() }
    }

    /// Answers each request with what `answer` holds then, and says where it stands.
    fn server(answer: Arc<Mutex<Vec<u8>>>) -> Place {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut request, mut byte) = (Vec::new(), [0]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
                    request.extend(byte);
                }
                let _ = stream.write_all(&answer.lock().unwrap());
            }
        });
        Place::url(&format!("http://{address}/keys?for=ringroom")).unwrap()
    }

    fn http(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn a_file_is_read_again_when_it_has_changed_and_a_bad_one_changes_nothing() {
        let file = Scratch::new("changed", &set(&[1]));
        run(async {
            let mut ring = KeyRing::open(file.settings(), 1).await.unwrap();
            assert_eq!(verify(&ring.verifier().unwrap(), 1), Ok(()));
            let later = |ring: &KeyRing| ring.shelves[0].next;
            let soon = later(&ring);
            assert!(!ring.look(soon).await, "it is as it was");
            file.write(&set(&[2, 3]));
            let soon = later(&ring);
            assert!(ring.look(soon).await);
            let verifier = ring.verifier().unwrap();
            assert_eq!(
                (verify(&verifier, 1).is_ok(), verify(&verifier, 2), verify(&verifier, 3)),
                (false, Ok(()), Ok(()))
            );
            for bad in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"x"}]}"#] {
                file.write(bad);
                let soon = later(&ring);
                assert!(!ring.look(soon).await, "{bad}");
                assert_eq!(verify(&ring.verifier().unwrap(), 2), Ok(()));
            }
            std::fs::remove_file(&file.0).unwrap();
            let soon = later(&ring);
            assert!(!ring.look(soon).await);
            assert_eq!(verify(&ring.verifier().unwrap(), 2), Ok(()));
        });
    }

    #[test]
    fn a_wrong_key_stops_the_start_and_a_server_that_is_away_does_not() {
        run(async {
            let file = Scratch::new("wrong", "no keys");
            assert!(KeyRing::open(file.settings(), 1).await.err().unwrap().contains("ringroom-"));
            let material = Material::PemFile(file.0.clone());
            let keys = vec![NamedKey { material, id: None, issuer: None, algorithms: None }];
            let refused = KeyRing::open(KeySettings { keys, ..KeySettings::default() }, 1).await.err().unwrap();
            assert!(refused.contains("PUBLIC KEY"), "{refused}");
            // Nobody listens there: the port was free a moment ago, and is ours.
            let unheard = TcpListener::bind("127.0.0.1:0").unwrap();
            let place = Place::url(&format!("http://{}/", unheard.local_addr().unwrap())).unwrap();
            drop(unheard);
            let ring = KeyRing::open(of(place), 1).await.unwrap();
            assert_eq!(ring.shelves[0].failures, 1);
            assert_eq!(verify(&ring.verifier().unwrap(), 1), Err(TokenRefused::UnknownKey));
        });
    }

    #[test]
    fn whatever_a_server_answers_the_old_keys_stay_until_there_are_new_ones() {
        // A set as a server may publish it: this one of `RFC 8037` appendix A.2.
        const PUBLIC: &str =
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let endless =
            [&b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n"[..], &vec![b' '; JWKS_BYTES_MAX + 1]].concat();
        run(async {
            let answer = Arc::new(Mutex::new(http("200 OK", PUBLIC)));
            let mut ring = KeyRing::open(of(server(Arc::clone(&answer))), 1).await.unwrap();
            let loaded = ring.shelves[0].json.clone();
            assert_eq!(loaded.as_deref(), Some(PUBLIC.as_bytes()));
            for (nth, bad) in [
                http("404 Not Found", PUBLIC),
                http("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
                http("200 OK", "<html>"),
                http("200 OK", &set(&[1])),
                http("200 OK", &format!("{PUBLIC}{}", " ".repeat(JWKS_BYTES_MAX))),
                endless,
                chunked,
                b"no http\r\n\r\n".to_vec(),
                Vec::new(),
            ]
            .into_iter()
            .enumerate()
            {
                *answer.lock().unwrap() = bad;
                let due = ring.shelves[0].next;
                assert!(!ring.look(due).await, "{nth}");
                assert_eq!((&ring.shelves[0].json, ring.shelves[0].failures as usize), (&loaded, nth + 1));
            }
            *answer.lock().unwrap() = http("200 OK", &PUBLIC.replace("\"k\"", "\"k2\""));
            let due = ring.shelves[0].next;
            assert!(ring.look(due).await);
            assert_eq!(ring.shelves[0].failures, 0);
        });
    }

    #[test]
    fn a_missing_key_hastens_the_next_look_but_not_beyond_the_least_interval() {
        run(async {
            let file = Scratch::new("hasten", &set(&[1]));
            let mut ring = KeyRing::open(file.settings(), 1).await.unwrap();
            let loaded = ring.shelves[0].loaded.unwrap();
            ring.shelves[0].next = loaded + ring.refresh;
            assert_eq!(ring.hasten(), loaded + ring.refresh_min);
            ring.shelves[0].next = loaded + Duration::from_secs(1);
            assert_eq!(ring.hasten(), loaded + Duration::from_secs(1), "sooner already");
        });
    }

    #[test]
    fn new_keys_reach_the_shards_when_one_is_missing() {
        run(async {
            let file = Scratch::new("kept", &set(&[1]));
            let ring = KeyRing::open(file.settings(), 1).await.unwrap();
            file.write(&set(&[2]));
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            let mut refusals = 1;
            let refusals = Mutex::new(&mut refusals);
            let tell = |verifier: &Arc<Verifier>| {
                let mut refusals = refusals.lock().unwrap();
                if **refusals > 0 {
                    // A shard has too much waiting: it is told again.
                    **refusals -= 1;
                    return false;
                }
                sender.send(Arc::clone(verifier)).is_ok()
            };
            let told = tokio::select! {
                () = ring.keep(Arc::new(Notify::new()), no_orders(), tell) => unreachable!("it goes on"),
                told = receiver.recv() => told.unwrap(),
            };
            assert_eq!(verify(&told, 2), Ok(()));
        });
    }

    #[test]
    fn new_settings_take_the_place_of_the_old_ones_unless_they_are_wrong() {
        run(async {
            let (first, second) = (Scratch::new("first", &set(&[1])), Scratch::new("second", &set(&[2])));
            let mut ring = KeyRing::open(first.settings(), 1).await.unwrap();
            let wrong = Scratch::new("no-set", "{}");
            assert!(!ring.restock(wrong.settings()).await);
            assert_eq!(verify(&ring.verifier().unwrap(), 1), Ok(()));
            let mut both = first.settings();
            both.sources.extend(second.settings().sources);
            std::fs::remove_file(&first.0).unwrap();
            assert!(ring.restock(both).await, "what was loaded before is there");
            let verifier = ring.verifier().unwrap();
            assert_eq!((verify(&verifier, 1), verify(&verifier, 2)), (Ok(()), Ok(())));
            assert!(ring.restock(second.settings()).await);
            assert!(verify(&ring.verifier().unwrap(), 1).is_err());
        });
    }
}
