//! Configuration: defaults, then the profile, the file, the environment and options, each over the
//! ones before. `tree` declares every key once; the other files know no key's particulars.
//! Invariant: what runs never meets a value that it cannot serve; a refusal holds all problems at
//! once, each with its place and what to do; and a secret is never shown.

mod declare;
mod file;
mod manual;
mod origin;
mod profiles;
mod settle;
mod sources;
mod tree;
mod value;

pub use manual::{manual, sample};
pub use origin::Refused;
pub use settle::{Config, SocketIo};
pub use sources::{Effective, Reloaded, Sources};

use crate::host::tls::TlsFiles;
use settle::{Settled, settle};
use sources::Gathered;

/// A configuration that can be served.
pub struct Loaded {
    pub config: Config,
    pub effective: Effective,
    /// What an operator should know and that stops nothing.
    pub notes: Vec<String>,
}

pub fn load(sources: &Sources) -> Result<Loaded, Refused> {
    let Gathered { effective, mut problems, notes } = sources.gather();
    match judge(&effective, sources.options.dev) {
        Ok(config) if problems.is_empty() => return Ok(Loaded { config, effective, notes }),
        Ok(_) => {}
        Err(refused) => problems.extend(refused.0),
    }
    Err(Refused(problems))
}

/// Whether values that each are allowed can be served together. `dev`: development mode was asked for.
pub fn judge(effective: &Effective, dev: bool) -> Result<Config, Refused> {
    let Settled { config, mut problems, secret_missing } = settle(effective, dev);
    problems.extend(secret_missing);
    config.filter(|_| problems.is_empty()).ok_or(Refused(problems))
}

/// Whether a gateway would serve this, on a machine that may lack the secret and the files of TLS. Returns notes.
pub fn check(sources: &Sources) -> Result<Vec<String>, Refused> {
    let Judged { mut notes, tls, .. } = judged(sources)?;
    let unserved = tls.and_then(|files| files.judge().err());
    notes.extend(unserved.map(|refused| format!("serve would not start here: {refused}")));
    Ok(notes)
}

/// What a gateway would run with.
pub fn show(sources: &Sources) -> Result<String, Refused> {
    judged(sources).map(|judged| judged.effective.to_string())
}

/// What the configuration asks of the system it runs on.
pub struct Asked {
    pub config: Config,
    pub profile: String,
    /// Names and texts of what the profile is made of; the last says most.
    pub profile_texts: Vec<(String, String)>,
}

/// As [`check`], with what a tool for the system has to know.
pub fn asked(sources: &Sources) -> Result<Asked, Refused> {
    const PROFILE: &str = "server.profile";
    let Gathered { effective, mut problems, .. } = sources.gather();
    let settled = settle(&effective, sources.options.dev);
    problems.extend(settled.problems);
    let profile = effective.tree().server.profile;
    let texts = profiles::texts(&profile, effective.origin(PROFILE));
    match (settled.config, texts) {
        (Some(config), Ok(profile_texts)) if problems.is_empty() => Ok(Asked { config, profile, profile_texts }),
        // A profile that cannot be read has been told of.
        (_, Ok(_)) | (None, Err(_)) => Err(Refused(problems)),
        (Some(_), Err(problem)) => {
            if problems.is_empty() {
                problems.push(problem);
            }
            Err(Refused(problems))
        }
    }
}

struct Judged {
    effective: Effective,
    notes: Vec<String>,
    tls: Option<TlsFiles>,
}

fn judged(sources: &Sources) -> Result<Judged, Refused> {
    let Gathered { effective, mut problems, mut notes } = sources.gather();
    let settled = settle(&effective, sources.options.dev);
    problems.extend(settled.problems);
    notes.extend(settled.secret_missing.map(|problem| problem.to_string()));
    let tls = settled.config.and_then(|config| config.tls);
    if problems.is_empty() { Ok(Judged { effective, notes, tls }) } else { Err(Refused(problems)) }
}

#[cfg(test)]
mod tests {
    use super::declare::Allowed;
    use super::sources::Sources;
    use super::tree::{key, keys};
    use super::value::{Quoted, Value};
    use super::*;
    use crate::admission::identity::{Identity, Particulars};
    use crate::admission::names::{RoomName, User};
    use crate::admission::rates::{Allowance, Rates};
    use crate::admission::rights::Right;
    use crate::base::limits::{CLAIMS_MAX, POLICIES_MAX, SHARDS_MAX};
    use crate::host::Options;
    use crate::host::tls::{ClientFiles, PairFiles};
    use crate::io::runtime::Choice;
    use crate::io::tls::settings::Oldest;
    use crate::kernel::mounts::EngineSettings;
    use crate::wire::alias::{Aliases, DeclaredAlias, DeclaredPush};
    use log::LevelFilter;
    use proptest::prelude::*;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::Duration;

    const SECRET: (&str, &str) = ("RINGROOM_JWT_SECRET", "a secret of at least 32 bytes, for tests only");

    /// A file of one test, gone with it.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> File {
            let path = std::env::temp_dir().join(format!("ringroom-{}-{name}.toml", std::process::id()));
            std::fs::write(&path, text).unwrap();
            File(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn sources(options: Options, file: Option<&File>, environment: &[(&str, &str)]) -> Sources {
        let nowhere = Path::new("/nonexistent/ringroom.toml");
        Sources {
            options,
            handed: [None; 3],
            standard_file: file.map_or(nowhere, |file| &file.0).into(),
            environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }

    fn loaded(options: Options, environment: &[(&str, &str)]) -> Loaded {
        load(&sources(options, None, environment)).unwrap_or_else(|refused| panic!("{refused}"))
    }

    fn refusal(options: Options, environment: &[(&str, &str)]) -> String {
        load(&sources(options, None, environment)).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn each_source_wins_over_those_before_it() {
        let file = File::new(
            "order",
            "[server]\nprofile = \"density\"\n[limits]\nidle_ms = 7\n[sockets]\nbacklog = 5\n[drain]\nretry_ms = 5",
        );
        let environment = [
            SECRET,
            ("RINGROOM_DRAIN__RETRY_MS", "6"),
            ("RINGROOM_LISTEN", "127.0.0.1:1"),
            ("RINGROOM_OPS", "127.0.0.1:2"),
        ];
        let options = Options { listen: Some("localhost:7".into()), ..Options::default() };
        let Loaded { config, effective, notes } = load(&sources(options, Some(&file), &environment)).unwrap();
        assert_eq!(config.keys.tokens.leeway_s, 5, "a default");
        assert_eq!(config.limits.heartbeat, Duration::from_secs(50), "the profile over the default");
        assert_eq!(config.limits.idle_time_max, Duration::from_millis(7), "the file over the profile");
        assert_eq!(config.drain.retry, Duration::from_millis(6), "the environment over the file");
        assert_eq!((config.listen.port(), config.ops.port()), (7, 2), "an option over the environment");
        assert!(notes.is_empty() && !config.development);
        let shown = effective.to_string();
        for line in [
            "leeway_s = 5  # default".to_owned(),
            "heartbeat_ms = 50000  # profile density".to_owned(),
            format!("idle_ms = 7  # {}:4:1", file.0.display()),
            "retry_ms = 6  # RINGROOM_DRAIN__RETRY_MS".to_owned(),
            "listen = \"localhost:7\"  # --listen".to_owned(),
            "# secret is hidden  # RINGROOM_JWT_SECRET".to_owned(),
        ] {
            assert!(shown.lines().any(|shown| shown == line), "{line} is missing in\n{shown}");
        }
        assert!(!shown.contains(SECRET.1));
    }

    #[test]
    fn levels_of_a_key_are_joined_by_two_underscores_and_some_have_a_short_name() {
        let environment = [
            ("RINGROOM_JWT__SECRET", SECRET.1),
            ("RINGROOM_IO", "epoll"),
            ("RINGROOM_SERVER__SHARDS", "3"),
            ("RINGROOM_LOG", "debug"),
            ("RINGROOM_LIMITS__HANDSHAKE_MS", "250"),
            ("RINGROOM_LIMITS__HEARTBEAT_MS", "1000"),
            ("RINGROOM_DRAIN__RETRY_MS", "0"),
            ("RINGROOM_SOCKETS__SEND_BUFFER_BYTES", "65536"),
            ("HOME", "/"),
        ];
        let Loaded { config, notes, .. } = loaded(Options::default(), &environment);
        assert_eq!((config.io, config.shards, config.log), (Choice::Epoll, 3, LevelFilter::Debug));
        assert_eq!(config.handshake_time, Duration::from_millis(250));
        assert_eq!(config.limits.heartbeat, Duration::from_secs(1));
        assert_eq!(config.drain.retry, Duration::ZERO);
        assert_eq!(config.tuning.sockets.send_buffer_bytes, Some(65_536));
        assert!(notes.is_empty() && !config.development);
    }

    #[test]
    fn two_names_of_one_key_are_one_too_many() {
        let both = [SECRET, ("RINGROOM_LOG", "info"), ("RINGROOM_LOG__LEVEL", "warn")];
        assert_eq!(
            refusal(Options::default(), &both),
            "RINGROOM_LOG__LEVEL: log.level is set by RINGROOM_LOG as well; keep one of them"
        );
    }

    #[test]
    fn an_unknown_variable_is_named_and_stops_nothing() {
        let environment = [SECRET, ("RINGROOM_LIMITS__IDEL_MS", "x"), ("RINGROOM_TOKEN", "t"), ("RINGROOM_LISTN", "x")];
        assert_eq!(
            loaded(Options::default(), &environment).notes,
            [
                "RINGROOM_LIMITS__IDEL_MS changes nothing: there is no key \"limits.idel_ms\"; did you mean limits.idle_ms?",
                "RINGROOM_LISTN changes nothing: there is no key \"listn\"; did you mean server.listen?",
            ]
        );
    }

    #[test]
    fn a_wrong_value_names_its_place_and_its_key() {
        for (name, value, key) in [
            ("RINGROOM_IO", "kqueue", "server.io"),
            ("RINGROOM_SHARDS", "two", "server.shards"),
            ("RINGROOM_LOG", "loud", "log.level"),
            ("RINGROOM_LIMITS__HANDSHAKE_MS", "0", "limits.handshake_ms"),
            ("RINGROOM_LIMITS__HEARTBEAT_MS", "-1", "limits.heartbeat_ms"),
            ("RINGROOM_LIMITS__LANE_ENTRIES", "1", "limits.lane_entries"),
            ("RINGROOM_SERVER__CPUS", "all", "server.cpus"),
        ] {
            let message = refusal(Options::default(), &[SECRET, (name, value)]);
            assert!(message.starts_with(&format!("{name}: {key} is ")), "{message}");
        }
        let options = Options { shards: Some(SHARDS_MAX + 1), ..Options::default() };
        assert!(refusal(options, &[SECRET]).starts_with("--shards: server.shards is 65"));
        let options = Options { listen: Some("nonsense".into()), ..Options::default() };
        assert!(refusal(options, &[SECRET]).starts_with("--listen: server.listen is \"nonsense\""));
        let options = Options { profile: Some("fast".into()), ..Options::default() };
        assert!(refusal(options, &[SECRET]).contains("bench"));
    }

    #[test]
    fn values_that_do_not_go_together_are_told_where_somebody_wrote() {
        let message = refusal(Options::default(), &[SECRET, ("RINGROOM_LIMITS__HEARTBEAT_MS", "50000")]);
        assert!(message.starts_with("RINGROOM_LIMITS__HEARTBEAT_MS: ") && message.contains("set it to 100000"));
        let message = refusal(Options::default(), &[SECRET, ("RINGROOM_TURN__WRITES_PER_TURN", "10")]);
        assert!(message.starts_with("RINGROOM_TURN__WRITES_PER_TURN: turn.crowd") && message.contains("set it to 9"));
        for (name, value, what) in [
            ("RINGROOM_LIMITS__SLOW_MS", "10000", "limits.stall_ms is 10000 and must be more than limits.slow_ms"),
            ("RINGROOM_LIMITS__STALL_MS", "1000", "set it to 1001 or more"),
            ("RINGROOM_LIMITS__ROOMS_PER_SHARD", "5", "limits.rooms_per_shard is 5 and must be at least"),
            ("RINGROOM_LIMITS__OUTBOX_BYTES", "67108865", "limits.outbox_bytes is 67108865; it takes"),
            ("RINGROOM_MEMORY__BUDGET_BYTES", "1000", "memory.budget_bytes is 1000; it takes"),
        ] {
            let message = refusal(Options::default(), &[SECRET, (name, value)]);
            assert!(message.starts_with(&format!("{name}: ")) && message.contains(what), "{message}");
        }
        let large =
            [SECRET, ("RINGROOM_LIMITS__OUTBOX_BYTES", "4194304"), ("RINGROOM_MEMORY__BUDGET_BYTES", "16777216")];
        let message = refusal(Options::default(), &large);
        assert!(
            message.starts_with("RINGROOM_LIMITS__OUTBOX_BYTES: ") && message.contains("set it to 2097152 or less")
        );
        let few = [("RINGROOM_LIMITS__ROOMS_PER_SHARD", "5"), ("RINGROOM_LIMITS__CONNS_PER_SHARD", "5")];
        assert_eq!(loaded(Options::default(), &[SECRET, few[0], few[1]]).config.limits.rooms_max, 5);
        let message = refusal(Options::default(), &[SECRET, ("RINGROOM_SERVER__CPUS", "1023")]);
        assert!(message.contains("processor 1023") && message.contains("it may use 0"), "{message}");
    }

    #[test]
    fn rates_are_read_as_they_are_written_and_a_word_takes_them_away() {
        let rates = |environment: &[(&str, &str)]| {
            let environment: Vec<_> = [SECRET].into_iter().chain(environment.iter().copied()).collect();
            loaded(Options::default(), &environment).config.limits.rates
        };
        let each = |burst, tokens, s| Some(Allowance { burst, tokens, period: Duration::from_secs(s) });
        let default = rates(&[]);
        assert_eq!((default.conn, default.user, default.events.len()), (each(100, 10, 1), None, 0));
        assert_eq!(*default.unlimited_roles, [Box::from("service")]);
        for off in ["RINGROOM_LIMITS__CONN_BURST", "RINGROOM_LIMITS__CONN_PER_S"] {
            assert_eq!(rates(&[(off, "unlimited")]).conn, None);
        }
        let set = rates(&[
            ("RINGROOM_LIMITS__CONN_BURST", "7"),
            ("RINGROOM_LIMITS__CONN_PER_S", "3"),
            ("RINGROOM_LIMITS__USER_EVENTS", "200"),
            ("RINGROOM_LIMITS__EVENTS", "room:publish 50/1s, message:* 100/1m"),
            ("RINGROOM_LIMITS__UNLIMITED_ROLES", "admin, service"),
        ]);
        assert_eq!((set.conn, set.user), (each(7, 3, 1), each(200, 200, 60)));
        let events: Vec<_> = set.events.iter().map(ToString::to_string).collect();
        assert_eq!(events, ["room:publish 50/1000ms", "message:* 100/60000ms"]);
        assert_eq!(set.unlimited_roles.len(), 2);
        let message = refusal(Options::default(), &[SECRET, ("RINGROOM_LIMITS__EVENTS", "room:publish 50")]);
        assert!(message.contains("for example: events = \"room:publish 50/1s"), "{message}");
        let bench = loaded(Options { profile: Some("bench".into()), ..Options::default() }, &[SECRET]);
        assert_eq!(Rates { unlimited_roles: Vec::new(), ..bench.config.limits.rates }, Rates::default());
    }

    #[test]
    fn socket_io_is_served_as_the_library_would_unless_somebody_says_otherwise() {
        let of = |environment: &[(&str, &str)]| {
            let environment: Vec<_> = [SECRET].into_iter().chain(environment.iter().copied()).collect();
            loaded(Options::default(), &environment).config.socketio
        };
        let default = of(&[]).unwrap();
        assert_eq!(default.settings, EngineSettings::default());
        assert_eq!(default.namespaces, ["/", "/realtime", "/notifications", "/ws"].map(Box::from));
        assert_eq!(of(&[("RINGROOM_SOCKETIO__ENABLED", "false")]), None);
        let set = of(&[
            ("RINGROOM_SOCKETIO__NAMESPACES", "/chat, /"),
            ("RINGROOM_SOCKETIO__PING_INTERVAL_MS", "1000"),
            ("RINGROOM_SOCKETIO__PING_TIMEOUT_MS", "2000"),
            ("RINGROOM_SOCKETIO__CONNECT_TIMEOUT_MS", "3000"),
            ("RINGROOM_SOCKETIO__UPGRADE_TIMEOUT_MS", "4000"),
            ("RINGROOM_SOCKETIO__PAYLOAD_BYTES", "5000"),
            ("RINGROOM_SOCKETIO__ATTACHMENTS_MAX", "6"),
            ("RINGROOM_SOCKETIO__COMPRESSION", "true"),
            ("RINGROOM_SOCKETIO__COOKIE", "io"),
        ]);
        let settings = EngineSettings {
            ping_interval: Duration::from_secs(1),
            ping_timeout: Duration::from_secs(2),
            connect_timeout: Duration::from_secs(3),
            upgrade_timeout: Duration::from_secs(4),
            payload_bytes: 5_000,
            attachments_max: 6,
            compression: true,
            cookie: Some("io".into()),
            ..EngineSettings::default()
        };
        let namespaces = ["/chat", "/"].map(Box::from).into();
        assert_eq!(set, Some(SocketIo { settings, namespaces, aliases: Arc::default() }));
        for (name, value, key) in [
            ("RINGROOM_SOCKETIO__NAMESPACES", "chat", "socketio.namespaces is \"chat\"; it takes 1 to 10 different"),
            ("RINGROOM_SOCKETIO__PAYLOAD_BYTES", "1000", "socketio.payload_bytes is 1000; it takes"),
            ("RINGROOM_SOCKETIO__COOKIE", "a=b", "socketio.cookie is \"a=b\"; it takes the name of a cookie"),
        ] {
            let message = refusal(Options::default(), &[SECRET, (name, value)]);
            assert!(message.starts_with(&format!("{name}: {key}")), "{message}");
        }
    }

    #[test]
    fn all_problems_come_at_once_and_none_twice() {
        let environment = [
            ("RINGROOM_JWT_SECRET", "short"),
            ("RINGROOM_LISTEN", "0.0.0.0:1"),
            ("RINGROOM_LIMITS__HEARTBEAT_MS", "50000"),
            ("RINGROOM_LIMITS__HEARTBEAT_TIME_OUT_MS", "long"),
        ];
        let refused = load(&sources(Options::default(), None, &environment)).map(|_| ()).unwrap_err();
        assert_eq!(refused.0.len(), 2, "{refused}");
        assert!(
            refused.to_string().starts_with("the configuration has 2 errors:\n  RINGROOM_JWT_SECRET: jwt.secret is 5")
        );
    }

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        let message = refusal(Options::default(), &[("RINGROOM_JWT_SECRET", "too short a secret")]);
        assert!(message.contains("18 bytes") && !message.contains("too short a secret"));
        assert!(refusal(Options::default(), &[("RINGROOM_JWT_SECRET", "")]).contains("0 bytes"));
    }

    #[test]
    fn strangers_are_served_only_with_a_secret_and_outside_development() {
        let open = || Options { listen: Some("0.0.0.0:3001".into()), ..Options::default() };
        assert!(refusal(open(), &[]).contains("secret"));
        assert!(refusal(Options { dev: true, ..open() }, &[SECRET]).contains("development"));
        assert!(refusal(Options { profile: Some("bench".into()), ..open() }, &[SECRET]).contains("bench"));
        assert!(load(&sources(open(), None, &[SECRET])).is_ok());
        assert!(loaded(Options::default(), &[]).config.development);
    }

    #[test]
    fn a_check_on_a_machine_without_the_secret_notes_that_and_passes() {
        let open = Options { listen: Some("0.0.0.0:3001".into()), ..Options::default() };
        let notes = check(&sources(open, None, &[])).unwrap();
        assert!(notes.len() == 1 && notes[0].contains("RINGROOM_JWT_SECRET"), "{notes:?}");
    }

    #[test]
    fn a_profile_of_ones_own_is_found_beside_the_file_that_names_it() {
        let own = File::new("own-profile", "[limits]\nidle_ms = 9");
        let name = own.0.file_name().unwrap().to_str().unwrap();
        let file = File::new("names-profile", &format!("[server]\nprofile = \"{name}\""));
        let loaded = load(&sources(Options::default(), Some(&file), &[SECRET])).unwrap();
        assert_eq!(loaded.config.limits.idle_time_max, Duration::from_millis(9));
        let by_option = Options { profile: own.0.to_str().map(str::to_owned), ..Options::default() };
        assert_eq!(super::tests::loaded(by_option, &[SECRET]).config.limits.idle_time_max, Duration::from_millis(9));

        let circle = File::new("circle", "[server]\nprofile = \"latency\"");
        let options = Options { profile: circle.0.to_str().map(str::to_owned), ..Options::default() };
        assert!(refusal(options, &[SECRET]).contains("cannot stand in a profile"));
        let options = Options { profile: Some("./none.toml".into()), ..Options::default() };
        assert!(refusal(options, &[SECRET]).starts_with("--profile: the profile ./none.toml cannot be read"));
    }

    #[test]
    fn a_file_that_is_named_must_be_there_and_the_standard_one_need_not() {
        let options = Options { config: Some("/nonexistent/ringroom.toml".into()), ..Options::default() };
        assert!(refusal(options, &[SECRET]).starts_with("/nonexistent/ringroom.toml: cannot be read"));
        assert!(sources(Options::default(), None, &[]).file().is_none());
    }

    #[test]
    fn a_secret_that_all_may_read_is_warned_of() {
        let file = File::new("open-secret", &format!("[jwt]\nsecret = {}", Quoted(SECRET.1)));
        let loaded = load(&sources(Options::default(), Some(&file), &[])).unwrap();
        assert!(loaded.notes.iter().any(|note| note.contains("chmod 640")), "{:?}", loaded.notes);
        assert_eq!(loaded.config.secret.as_deref(), Some(SECRET.1.as_bytes()));
    }

    #[test]
    fn a_reload_takes_what_can_change_and_names_what_waits() {
        let before = loaded(Options::default(), &[SECRET, ("RINGROOM_SHARDS", "1")]).effective;
        let after = [("RINGROOM_SHARDS", "2"), ("RINGROOM_LOG", "debug"), ("RINGROOM_LIMITS__IDLE_MS", "never")];
        let Reloaded { effective, changed, waiting } = before.reload(loaded(Options::default(), &after).effective);
        assert_eq!(changed, ["limits.idle_ms", "log.level"]);
        assert_eq!(waiting, ["server.shards", "jwt.secret"], "a secret does not just go");
        let config = judge(&effective, false).unwrap();
        assert_eq!((config.shards, config.limits.idle_time_max), (1, Duration::MAX));
        assert_eq!(config.secret.as_deref(), Some(SECRET.1.as_bytes()));
        let again = effective.reload(loaded(Options::default(), &after).effective);
        assert!(again.changed.is_empty() && again.waiting.len() == 2, "what waits is named until it is done");
    }

    const RULES: &str = r#"
[[policy]]
name = "editors"
rooms = "news:*"
publish = "role:editor, claim:plan=pro"

[[policy]]
rooms = "**"
publish = "nobody"
"#;

    fn of_file(name: &str, text: &str) -> Result<Loaded, Refused> {
        load(&sources(Options::default(), Some(&File::new(name, text)), &[SECRET]))
    }

    fn may_publish(config: &Config, role: &str, room: &str) -> bool {
        let said = Particulars { roles: [role.into()].into(), ..Particulars::default() };
        let identity = Identity::new(User::new("acme".into(), "alice"), None, said);
        config.policy.decide(&identity, Right::Publish, &RoomName::parse(room).unwrap()).is_ok()
    }

    #[test]
    fn policies_of_a_file_decide_and_their_claims_are_looked_for_in_tokens() {
        let Loaded { config, effective, .. } = of_file("policies", RULES).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(may_publish(&config, "editor", "news:1") && !may_publish(&config, "editor", "chat:1"));
        assert!(!may_publish(&config, "guest", "news:1"));
        assert_eq!(config.keys.tokens.compared, ["plan".into()]);
        let shown = effective.to_string();
        assert!(shown.contains("\n[[policy]]  # ") && shown.contains(":7:1\nrooms = \"**\"  # "), "{shown}");
        let again = Effective::of_text(&shown);
        assert!(effective.reload(again).changed.is_empty(), "what is shown reads the same again");
    }

    #[test]
    fn roles_of_the_platform_can_be_called_otherwise() {
        let Loaded { config, .. } = of_file("roles", "[roles]\nplatform = \"root, ops\"").unwrap();
        assert!(
            may_publish(&config, "ops", "platform.news") && !may_publish(&config, "platform_admin", "platform.news")
        );
        assert!(may_publish(&config, "admin", "performance.dashboard"));
    }

    #[test]
    fn a_later_source_with_policies_replaces_the_whole_list_of_an_earlier_one() {
        let profile = File::new("rules-profile", RULES);
        let with = |name: &str, rest: &str| {
            let profile = Quoted(profile.0.to_str().unwrap()).to_string();
            of_file(name, &format!("{rest}\n[server]\nprofile = {profile}"))
                .unwrap_or_else(|refused| panic!("{refused}"))
        };
        assert!(!may_publish(&with("no-list", "").config, "guest", "news:1"), "none: the profile's stay");
        let own = with("own-list", "[[policy]]\nrooms = \"chat:*\"\npublish = \"nobody\"").config;
        assert!(may_publish(&own, "guest", "news:1") && !may_publish(&own, "guest", "chat:1"));
        assert!(may_publish(&with("empty-list", "policy = []").config, "guest", "news:1"));
    }

    #[test]
    fn policies_that_cannot_stand_are_told_with_their_place() {
        let of = |text: &str| {
            let refused = of_file("wrong-policies", text).map(|_| ()).unwrap_err().to_string();
            refused.split_once(".toml:").map(|(_, rest)| rest.to_owned()).unwrap_or(refused)
        };
        assert_eq!(
            of("[[policy]]\nrooms = \"a\""),
            "1:1: this [[policy]] decides nothing; add one of join, publish, direct, presence, manage"
        );
        assert_eq!(
            of("[[policy]]\nrooms = \"a\"\njoin = \"role:a, ask\""),
            "3:1: policy.join says ask, and this release has nobody to ask; name roles or claims instead"
        );
        let hidden = of(
            "[[policy]]\nrooms = \"**\"\njoin = \"token\"\n[[policy]]\nrooms = \"a:*\"\npublish = \"token\"\njoin = \"anybody\"",
        );
        assert!(
            hidden.starts_with("7:1: policy.join never decides here: the [[policy]] at ")
                && hidden.contains(".toml:1:1 comes first"),
            "{hidden}"
        );
        let many: String =
            (0..=POLICIES_MAX).map(|nth| format!("[[policy]]\nrooms = \"r{nth}\"\njoin = \"nobody\"\n")).collect();
        assert!(of(&many).contains("1024 at most"));
        let claims: String = (0..=CLAIMS_MAX)
            .map(|nth| format!("[[policy]]\nrooms = \"r{nth}\"\njoin = \"claim:c{nth}=1\"\n"))
            .collect();
        assert!(of(&claims).contains("17 different claims"));
    }

    #[test]
    fn tls_has_what_it_needs_or_says_what_is_missing() {
        let of = |text: &str| {
            let refused = of_file("wrong-tls", text).map(|_| ()).unwrap_err().to_string();
            refused.split_once(".toml:").map(|(_, rest)| rest.to_owned()).unwrap_or(refused)
        };
        assert_eq!(
            of("[tls]\nlisten = \"127.0.0.1:0\""),
            "2:1: tls.listen has no certificate to serve TLS with; set tls.certificate_file and tls.key_file"
        );
        assert_eq!(
            of("[tls]\nkey_file = \"key.pem\""),
            "2:1: tls.key_file is the key of nothing; set tls.certificate_file too"
        );
        assert_eq!(
            of("[tls]\nclient_auth = \"required\""),
            "2:1: tls.client_auth needs authorities that vouch for clients; set tls.client_ca_file"
        );
        assert!(of("[tls]\nlisten = \"127.0.0.1\"").contains("tls.listen"));
        let config = of_file(
            "tls",
            "[tls]\nlisten = \"127.0.0.1:0, 127.0.0.2:0\"\ncertificate_file = \"one.pem\"\nmin_version = \"1.3\"\n\
             [[certificate]]\ncertificate_file = \"two.pem\"\nkey_file = \"two.key\"",
        );
        let config = config.unwrap_or_else(|refused| panic!("{refused}")).config;
        let pair = |certificate: &str, key: &str| PairFiles { certificate: certificate.into(), key: key.into() };
        let pairs = vec![pair("one.pem", "one.pem"), pair("two.pem", "two.key")];
        assert_eq!(config.tls, Some(TlsFiles { pairs, oldest: Oldest::Tls13, clients: ClientFiles::Unknown }));
        assert_eq!(config.tls_listen.len(), 2);
        // Strangers who come over TLS are strangers.
        let open = [("RINGROOM_TLS__LISTEN", "0.0.0.0:0"), ("RINGROOM_TLS__CERTIFICATE_FILE", "a.pem")];
        let refused = refusal(Options::default(), &open);
        assert!(
            refused.contains("can be reached from other machines") && refused.contains("RINGROOM_JWT_SECRET"),
            "{refused}"
        );
    }

    #[test]
    fn a_reload_takes_policies_and_names_them_once_if_they_changed() {
        let of = |name, text: &str| of_file(name, text).unwrap_or_else(|refused| panic!("{refused}")).effective;
        let before = of("rules-before", RULES);
        let moved = before.reload(of("rules-moved", &format!("# moved\n{RULES}")));
        assert!(moved.changed.is_empty(), "the same rules in other lines: {:?}", moved.changed);
        let Reloaded { effective, changed, waiting } = before.reload(of("rules-after", "policy = []"));
        assert_eq!((changed, waiting), (vec!["policy"], vec![]));
        assert!(may_publish(&judge(&effective, false).unwrap(), "guest", "chat:1"));
    }

    #[test]
    fn the_environment_cannot_hold_a_list_and_says_so() {
        let notes = loaded(Options::default(), &[SECRET, ("RINGROOM_POLICY__0__ROOMS", "chat:*")]).notes;
        assert_eq!(notes, ["RINGROOM_POLICY__0__ROOMS changes nothing: policy is a list, which only files can hold"]);
    }

    const NAMES: &str = r#"
[[alias]]
event = "join:chat"
request = "room:join"
arguments = "chatId"
fields = "room = chat:{chatId}"
reply_push = "chat:joined"
reply_fields = "chatId = {room after chat:}"

[[alias]]
event = "room:leave"
arguments = "room"

[[push]]
event = "message:new"
name = "NEW_MESSAGE"
fields = "chatId = {room after chat:}, senderId = {from}"
"#;

    #[test]
    fn aliases_of_a_file_are_those_of_all_namespaces() {
        let Loaded { config, effective, .. } = of_file("aliases", NAMES).unwrap_or_else(|refused| panic!("{refused}"));
        let declared = [
            DeclaredAlias {
                event: "join:chat".into(),
                request: "room:join".into(),
                arguments: "chatId".into(),
                fields: "room = chat:{chatId}".into(),
                reply_push: "chat:joined".into(),
                reply_fields: "chatId = {room after chat:}".into(),
            },
            DeclaredAlias { event: "room:leave".into(), arguments: "room".into(), ..DeclaredAlias::default() },
        ];
        let pushes = [DeclaredPush {
            event: "message:new".into(),
            name: "NEW_MESSAGE".into(),
            fields: "chatId = {room after chat:}, senderId = {from}".into(),
        }];
        assert_eq!(*config.socketio.unwrap().aliases, Aliases::new(&declared, &pushes).unwrap());
        assert!(effective.reload(Effective::of_text(&effective.to_string())).changed.is_empty());
    }

    #[test]
    fn what_the_page_for_socket_io_shows_can_be_served() {
        let page = include_str!("../../../docs/socketio.md");
        let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let text: String = blocks.collect();
        let Loaded { config, effective, .. } = of_file("page", &text).unwrap_or_else(|refused| panic!("{refused}"));
        assert!(effective.rows("alias").len() > 3 && effective.rows("push").len() == 1);
        assert_eq!(config.socketio.unwrap().namespaces.len(), 2);
    }

    #[test]
    fn aliases_that_cannot_stand_are_told_with_row_and_key() {
        let of = |text: &str| of_file("wrong-aliases", text).map(|_| ()).unwrap_err().to_string();
        for (text, place, what) in [
            (
                "[[alias]]\nevent = \"a\"\n[[alias]]\nevent = \"a\"",
                ".toml:4:1: alias.event cannot be taken: ",
                "`a` has a row already",
            ),
            (
                "[[alias]]\nevent = \"a\"\nfields = \"room chat\"",
                ".toml:3:1: alias.fields cannot be taken: ",
                "write `name = {field}`",
            ),
            // What would be the request is the event itself.
            ("[[alias]]\nevent = \"a b\"", ".toml:1:1: alias.request cannot be taken: ", "1 to 64 letters"),
            (
                "[[push]]\nevent = \"a\"\nname = \"disconnect\"",
                ".toml:3:1: push.name cannot be taken: ",
                "would close the connection",
            ),
            ("[[alias]]\nrequest = \"room:join\"", ".toml:1:1: this [[alias]] has no alias.event", "join:chat"),
            ("[[alias]]\nevent = 3", ".toml:2:1: alias.event is the number 3", "the name of an event"),
            ("[[push]]\nevent = \"a\"\nfeilds = \"a = b\"", ".toml:3:1: there is no key \"push.feilds\"", "fields?"),
        ] {
            let refused = of(text);
            assert!(refused.contains(place) && refused.contains(what), "{text}: {refused}");
        }
        let two = of("[[alias]]\nevent = \"a\"\nfields = \"x\"\nreply_fields = \"y\"");
        assert!(two.contains("2 errors") && two.contains("alias.reply_fields"), "{two}");
    }

    #[test]
    fn a_reload_leaves_aliases_for_a_restart() {
        let of = |name, text: &str| of_file(name, text).unwrap_or_else(|refused| panic!("{refused}")).effective;
        let before = of("aliases-before", NAMES);
        let aliases = |effective: &Effective| judge(effective, false).unwrap().socketio.unwrap().aliases;
        let after = of("aliases-after", "alias = []\n[[push]]\nevent = \"a\"\nname = \"b\"");
        let Reloaded { effective, changed, waiting } = before.reload(after);
        assert_eq!((changed, waiting), (vec![], vec!["alias", "push"]));
        assert_eq!(aliases(&effective), aliases(&before));
    }

    /// Some value that a key allows.
    fn some_value(path: &'static str) -> BoxedStrategy<Value> {
        match key(path).unwrap().spec.allowed {
            Allowed::Flag => any::<bool>().prop_map(Value::Flag).boxed(),
            Allowed::Number { least, most, word, .. } => {
                let number = (least..=most).prop_map(Value::Number);
                match word {
                    Some(word) => prop_oneof![number, Just(Value::Text(word.into()))].boxed(),
                    None => number.boxed(),
                }
            }
            Allowed::OneOf(words) => proptest::sample::select(words).prop_map(|word| Value::Text(word.into())).boxed(),
            Allowed::Text { fits, example, .. } => {
                let example = Just(example.to_owned());
                prop_oneof![
                    example,
                    "[ -~\\\\\"\u{0}-\u{20}é\u{7f}\u{85}]{1,20}:[0-9]{1,4}",
                    "[0-9]-1[0-9](,[0-9]){0,3}",
                ]
                .prop_filter("fits", move |text| fits(text))
                .prop_map(Value::Text)
                .boxed()
            }
        }
    }

    fn some_tree() -> impl Strategy<Value = Vec<(&'static str, Value)>> {
        let open = keys().filter(|key| !key.spec.is_secret).map(|key| key.path);
        open.map(|path| some_value(path).prop_map(move |value| (path, value))).collect::<Vec<_>>()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_tree_that_was_shown_reads_the_same_again(values in some_tree()) {
            let mut text = String::new();
            for (path, value) in &values {
                text.push_str(&format!("{path} = {value}\n"));
            }
            let effective = Effective::of_text(&text);
            for (path, value) in &values {
                prop_assert_eq!(effective.value(path), value);
            }
            let again = Effective::of_text(&effective.to_string());
            for (path, value) in &values {
                prop_assert_eq!(again.value(path), value);
            }
        }
    }
}
