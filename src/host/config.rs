//! Configuration: defaults, then the environment, then options. Every key is checked here, so what
//! runs never meets a value that it cannot serve.
//! Invariant: a value that is refused names its key and what is allowed, and never shows a secret.

use crate::base::limits::{HANDSHAKE_TIME_MAX, LANE_ENTRIES_MAX, SECRET_BYTES_MIN, SHARDS_MAX};
use crate::host::jwks::{KeySettings, Material, NamedKey};
use crate::host::{Failed, Options, development};
use crate::io::process;
use crate::io::runtime::Choice;
use crate::io::socket::SocketOptions;
use crate::kernel::Limits;
use log::LevelFilter;
use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

const PREFIX: &str = "RINGROOM_";
/// Keys of the command line's own, which the server leaves alone.
const OTHERS: [&str; 1] = ["TOKEN"];
const LANE_ENTRIES_MIN: usize = 8;
const IDLE_IN_BENCH: Duration = Duration::from_secs(24 * 3_600);

pub struct Config {
    pub listen: SocketAddr,
    pub ops: SocketAddr,
    pub shards: usize,
    pub cpus: Vec<usize>,
    pub io: Choice,
    pub sockets: SocketOptions,
    pub handshake_time: Duration,
    pub limits: Limits,
    /// Over how long clients are told to come back when the process goes away.
    pub drain_spread: Duration,
    /// What development mode signs its tokens with. It is among the keys; empty when there is none.
    pub secret: Vec<u8>,
    pub keys: KeySettings,
    pub development: bool,
    pub log: LevelFilter,
}

/// What the sources say, each later one over the earlier.
struct Draft {
    listen: String,
    ops: String,
    shards: Option<usize>,
    profile: String,
    io: Choice,
    sockets: SocketOptions,
    handshake_time: Duration,
    limits: Limits,
    drain_spread: Duration,
    secret: Option<Vec<u8>>,
    keys: KeySettings,
    log: LevelFilter,
}

impl Config {
    /// Also returns what an operator should know and that stops nothing.
    pub fn read(
        options: &Options,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Config, Vec<String>), Failed> {
        let mut draft = Draft {
            listen: "127.0.0.1:3001".into(),
            ops: "127.0.0.1:9091".into(),
            shards: None,
            profile: "default".into(),
            io: Choice::Auto,
            sockets: SocketOptions::default(),
            handshake_time: HANDSHAKE_TIME_MAX,
            limits: Limits::default(),
            drain_spread: Duration::from_secs(5),
            secret: None,
            keys: KeySettings::default(),
            log: LevelFilter::Info,
        };
        let mut notes = Vec::new();
        for (key, value) in environment {
            let Some(path) = key.to_str().and_then(|key| key.strip_prefix(PREFIX)) else { continue };
            let Some(value) = value.to_str() else {
                return Err(Failed::configuration(format!("{PREFIX}{path} is not UTF-8; set it again")));
            };
            if !draft.set(path, value)? && !OTHERS.contains(&path) {
                notes.push(format!("{PREFIX}{path} is no key of this version and changes nothing; see --help"));
            }
        }
        if let Some(listen) = &options.listen {
            draft.listen = listen.clone();
        }
        if let Some(ops) = &options.ops {
            draft.ops = ops.clone();
        }
        if let Some(profile) = &options.profile {
            draft.profile = profile.clone();
        }
        draft.shards = options.shards.or(draft.shards);
        Ok((draft.check(options.dev)?, notes))
    }
}

impl Draft {
    /// Says whether there is such a key.
    fn set(&mut self, path: &str, value: &str) -> Result<bool, Failed> {
        match path {
            "LISTEN" => self.listen = value.into(),
            "OPS" => self.ops = value.into(),
            "SHARDS" => self.shards = Some(number(path, value)?),
            "PROFILE" => self.profile = value.into(),
            "JWT_SECRET" => self.secret = Some(value.as_bytes().to_vec()),
            "LIMITS__HANDSHAKE_MS" => self.handshake_time = milliseconds(path, value)?,
            "LIMITS__HEARTBEAT_MS" => self.limits.heartbeat = milliseconds(path, value)?,
            "LIMITS__HEARTBEAT_TIME_OUT_MS" => self.limits.heartbeat_time_out = milliseconds(path, value)?,
            "LIMITS__IDLE_MS" => self.limits.idle_time_max = milliseconds(path, value)?,
            "LIMITS__CONNS_PER_SHARD" => self.limits.conns_max = number(path, value)?,
            "LIMITS__LANE_ENTRIES" => self.limits.lane_entries = number(path, value)?,
            "DRAIN__SPREAD_MS" => self.drain_spread = Duration::from_millis(number(path, value)?),
            "SOCKETS__BACKLOG" => self.sockets.backlog = number(path, value)?,
            "SOCKETS__NOTSENT_LOWAT_BYTES" => self.sockets.notsent_lowat = number(path, value)?,
            "SOCKETS__SEND_BUFFER_BYTES" => self.sockets.send_buffer_bytes = Some(number(path, value)?),
            "SOCKETS__RECEIVE_BUFFER_BYTES" => self.sockets.receive_buffer_bytes = Some(number(path, value)?),
            "IO" => {
                self.io = match value {
                    "auto" => Choice::Auto,
                    "io_uring" => Choice::IoUring,
                    "epoll" => Choice::Epoll,
                    _ => return Err(wrong(path, "auto, io_uring or epoll")),
                }
            }
            "LOG" => self.log = value.parse().map_err(|_| wrong(path, "off, error, warn, info, debug or trace"))?,
            _ => {
                let Some(key) = path.strip_prefix("JWT__") else { return Ok(false) };
                return self.keys.set(key, value).map_err(|allowed| wrong(path, allowed));
            }
        }
        Ok(true)
    }

    fn check(mut self, dev: bool) -> Result<Config, Failed> {
        let listen = address("listen", &self.listen)?;
        let ops = address("ops", &self.ops)?;
        let is_local = listen.ip().is_loopback();
        match self.profile.as_str() {
            "default" => {}
            "bench" if is_local => self.limits.idle_time_max = IDLE_IN_BENCH,
            "bench" => {
                return Err(Failed::configuration(
                    "the profile bench switches limits off and listens on loopback only; use --listen 127.0.0.1:3001",
                ));
            }
            _ => return Err(Failed::configuration("there is no such profile; take default or bench")),
        }
        let development = dev || self.secret.is_none() && !self.keys.has_keys();
        if development && !is_local {
            return Err(Failed::configuration(format!(
                "{listen} can be reached from other machines, and there {}; \
                 export RINGROOM_JWT_SECRET=$(head -c 32 /dev/urandom | base64), or listen on 127.0.0.1",
                if dev { "development mode is refused" } else { "a secret is needed to check tokens with" },
            )));
        }
        let secret = match self.secret {
            Some(secret) if secret.len() >= SECRET_BYTES_MIN => secret,
            Some(secret) => {
                return Err(Failed::configuration(format!(
                    "RINGROOM_JWT_SECRET has {} bytes and needs {SECRET_BYTES_MIN}; \
                     make one with: head -c 32 /dev/urandom | base64",
                    secret.len()
                )));
            }
            None if !development => Vec::new(),
            None => development::secret().ok_or_else(|| Failed::failure("the system has no random bytes"))?,
        };
        if !secret.is_empty() {
            let material = Material::Secret(secret.clone());
            self.keys.keys.push(NamedKey { material, id: None, issuer: None, algorithms: None });
        }
        if self.limits.heartbeat * 2 > self.limits.heartbeat_time_out {
            return Err(Failed::configuration(
                "RINGROOM_LIMITS__HEARTBEAT_TIME_OUT_MS must be at least twice RINGROOM_LIMITS__HEARTBEAT_MS, \
                 or one late answer closes a connection",
            ));
        }
        let lane_entries = self.limits.lane_entries as usize;
        if !(LANE_ENTRIES_MIN..=LANE_ENTRIES_MAX).contains(&lane_entries) {
            let allowed = format!("{LANE_ENTRIES_MIN} to {LANE_ENTRIES_MAX}");
            return Err(wrong("LIMITS__LANE_ENTRIES", &allowed));
        }
        let cpus = process::allowed_cpus().unwrap_or_default();
        let shards = self.shards.unwrap_or(shards_for(cpus.len()));
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(Failed::configuration(format!("shards is {shards}; allowed are 1 to {SHARDS_MAX}")));
        }
        Ok(Config {
            listen,
            ops,
            shards,
            cpus,
            io: self.io,
            sockets: self.sockets,
            handshake_time: self.handshake_time,
            limits: self.limits,
            drain_spread: self.drain_spread,
            secret,
            keys: self.keys,
            development,
            log: self.log,
        })
    }
}

/// One shard per CPU; of four or more one is left for everything else.
fn shards_for(cpus: usize) -> usize {
    match cpus {
        0 => 1,
        1..=3 => cpus,
        _ => (cpus - 1).min(SHARDS_MAX),
    }
}

fn wrong(path: &str, allowed: &str) -> Failed {
    Failed::configuration(format!("{PREFIX}{path} is wrong; it takes {allowed}"))
}

fn number<T: FromStr>(path: &str, value: &str) -> Result<T, Failed> {
    value.parse().map_err(|_| wrong(path, "a whole number"))
}

fn milliseconds(path: &str, value: &str) -> Result<Duration, Failed> {
    match value.parse() {
        Ok(ms @ 1..) => Ok(Duration::from_millis(ms)),
        _ => Err(wrong(path, "milliseconds, at least 1")),
    }
}

/// Names such as `localhost` are looked up once, at the start.
fn address(key: &str, text: &str) -> Result<SocketAddr, Failed> {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| Failed::configuration(format!("{key} takes an address such as 127.0.0.1:3001, not {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: (&str, &str) = ("RINGROOM_JWT_SECRET", "a secret of at least 32 bytes, for tests only");

    fn read(options: Options, environment: &[(&str, &str)]) -> Result<(Config, Vec<String>), Failed> {
        Config::read(&options, environment.iter().map(|(key, value)| (key.into(), value.into())))
    }

    fn refusal(options: Options, environment: &[(&str, &str)]) -> String {
        let failed = read(options, environment).map(|_| ()).unwrap_err();
        assert_eq!(failed.exit, 78, "{}", failed.message);
        failed.message
    }

    #[test]
    fn options_win_over_the_environment_and_that_over_defaults() {
        let environment = [SECRET, ("RINGROOM_LISTEN", "127.0.0.1:1"), ("RINGROOM_OPS", "127.0.0.1:2"), ("HOME", "/")];
        let options = Options { listen: Some("localhost:7".into()), ..Options::default() };
        let (config, notes) = read(options, &environment).unwrap();
        assert_eq!((config.listen.port(), config.ops.port()), (7, 2));
        assert_eq!(config.handshake_time, HANDSHAKE_TIME_MAX);
        assert!(notes.is_empty() && !config.development);
    }

    #[test]
    fn levels_of_a_key_are_joined_by_two_underscores() {
        let environment = [
            SECRET,
            ("RINGROOM_IO", "epoll"),
            ("RINGROOM_SHARDS", "3"),
            ("RINGROOM_LOG", "debug"),
            ("RINGROOM_LIMITS__HANDSHAKE_MS", "250"),
            ("RINGROOM_LIMITS__HEARTBEAT_MS", "1000"),
            ("RINGROOM_DRAIN__SPREAD_MS", "0"),
            ("RINGROOM_SOCKETS__SEND_BUFFER_BYTES", "65536"),
        ];
        let (config, notes) = read(Options::default(), &environment).unwrap();
        assert_eq!((config.io, config.shards, config.log), (Choice::Epoll, 3, LevelFilter::Debug));
        assert_eq!(config.handshake_time, Duration::from_millis(250));
        assert_eq!(config.limits.heartbeat, Duration::from_secs(1));
        assert_eq!(config.drain_spread, Duration::ZERO);
        assert_eq!(config.sockets.send_buffer_bytes, Some(65_536));
        assert!(notes.is_empty());
    }

    #[test]
    fn an_unknown_key_is_named_and_stops_nothing() {
        let (_, notes) = read(Options::default(), &[SECRET, ("RINGROOM_LISTN", "x"), ("RINGROOM_TOKEN", "t")]).unwrap();
        assert_eq!(notes.len(), 1);
        assert!(notes[0].contains("RINGROOM_LISTN"));
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        for (key, value) in [
            ("RINGROOM_IO", "kqueue"),
            ("RINGROOM_SHARDS", "two"),
            ("RINGROOM_LOG", "loud"),
            ("RINGROOM_LIMITS__HANDSHAKE_MS", "0"),
            ("RINGROOM_LIMITS__HEARTBEAT_MS", "-1"),
            ("RINGROOM_LIMITS__LANE_ENTRIES", "1"),
        ] {
            assert!(refusal(Options::default(), &[SECRET, (key, value)]).contains(key));
        }
        for shards in [0, SHARDS_MAX + 1] {
            let options = Options { shards: Some(shards), ..Options::default() };
            assert!(refusal(options, &[SECRET]).contains("shards"));
        }
        let options = Options { listen: Some("nonsense".into()), ..Options::default() };
        assert!(refusal(options, &[SECRET]).contains("listen"));
        assert!(refusal(Options::default(), &[SECRET, ("RINGROOM_LIMITS__HEARTBEAT_MS", "50000")]).contains("twice"));
    }

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        let message = refusal(Options::default(), &[("RINGROOM_JWT_SECRET", "too short a secret")]);
        assert!(message.contains("18 bytes") && !message.contains("too short a secret"));
    }

    #[test]
    fn strangers_are_served_only_with_a_secret_and_outside_development() {
        let open = || Options { listen: Some("0.0.0.0:3001".into()), ..Options::default() };
        assert!(refusal(open(), &[]).contains("secret"));
        assert!(refusal(Options { dev: true, ..open() }, &[SECRET]).contains("development"));
        assert!(refusal(Options { profile: Some("bench".into()), ..open() }, &[SECRET]).contains("bench"));
        assert!(read(open(), &[SECRET]).is_ok());
    }

    #[test]
    fn without_a_secret_each_start_makes_its_own() {
        let (first, _) = read(Options::default(), &[]).unwrap();
        let (second, _) = read(Options::default(), &[]).unwrap();
        assert!(first.development && first.secret.len() >= SECRET_BYTES_MIN);
        assert_ne!(first.secret, second.secret);
    }

    #[test]
    fn an_unknown_profile_is_refused() {
        assert!(refusal(Options { profile: Some("fast".into()), ..Options::default() }, &[SECRET]).contains("bench"));
    }

    #[test]
    fn four_cpus_leave_one_over() {
        assert_eq!([0, 1, 2, 3, 4, 8, 1_000].map(shards_for), [1, 1, 2, 3, 3, 7, SHARDS_MAX]);
    }
}
