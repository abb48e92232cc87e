//! Arguments to commands: what the user typed, checked as far as that is possible without
//! touching the network or a file.

use super::Failed;
use super::config::Action;
use crate::host;
use lexopt::{Arg, Parser, ValueExt};
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

pub enum Command {
    Serve(host::Options),
    Token(TokenOptions),
    Client(ClientOptions),
    Health(HealthOptions),
    Log(LogOptions),
    Config(Action),
    Help(&'static str),
    Version,
}

pub struct HealthOptions {
    pub ops: String,
    /// Whether clients should come, too.
    pub ready: bool,
}

pub struct LogOptions {
    pub ops: String,
    /// Only asked for where there is none.
    pub level: Option<String>,
}

pub struct TokenOptions {
    pub sub: String,
    pub tenant: Option<String>,
    pub roles: Vec<String>,
    pub name: Option<String>,
    pub ttl: Duration,
}

pub struct ClientOptions {
    pub url: String,
    pub token: Option<String>,
    /// Rooms to join at once; lines typed go to the last one.
    pub join: Vec<String>,
    /// Leave after this many messages.
    pub exit_after: Option<u64>,
}

const URL_DEFAULT: &str = "ws://127.0.0.1:3001/ws";
const OPS_DEFAULT: &str = "127.0.0.1:9091";
const TTL_DEFAULT: Duration = Duration::from_secs(3_600);

const HELP: &str = "\
ringroom - a real-time gateway: rooms over WebSocket, one order per room, one binary

Usage: ringroom [COMMAND] [OPTIONS]

Commands:
  serve    Serve clients until SIGTERM or SIGINT (the default command)
  token    Print one access token for a user
  client   Talk to a running gateway from the terminal
  health   Ask a running gateway whether it is well
  log      Show or change what a running gateway logs: log debug
  config   Check or show the configuration: config check, config show
  help     Show the help of a command: ringroom help client

Options:
  -h, --help      Show this help, or that of the command
  -V, --version   Show the version

A first conversation:
  export RINGROOM_JWT_SECRET=$(head -c 32 /dev/urandom | base64)
  ringroom &
  ringroom client --token $(ringroom token --sub alice) --join chat:1

Exit status: 0 done, 1 failure, 2 wrong usage, 78 wrong configuration.
";

const HELP_SERVE: &str = "\
Serve clients until SIGTERM or SIGINT.

Usage: ringroom [serve] [OPTIONS]

Options:
  --config FILE    Read FILE [default: /etc/ringroom/ringroom.toml, if it is there]
  --profile NAME   Tune for a purpose: default, latency, throughput, density, bench (limits off,
                   loopback only), or a file of your own
  --listen ADDR    Address for clients [default: 127.0.0.1:3001]; port 0 picks a free one
  --ops ADDR       Address for operators: health, metrics [default: 127.0.0.1:9091]
  --shards N       How many shards to run [default: one per CPU]
  --dev            Development mode: conveniences that production must not have

Later sources win: defaults, profile, file, environment, options. In the environment a key is
RINGROOM_ and its path in capitals, levels joined by two underscores: RINGROOM_LIMITS__IDLE_MS.
The secret that tokens are signed with is RINGROOM_JWT_SECRET. SIGHUP reads all of it again;
`ringroom config show` shows every key, docs/configuration.md explains them.

Once clients can connect, one line goes to standard output:
  ready data=127.0.0.1:3001 ops=127.0.0.1:9091 shards=2 io=io_uring
";

const HELP_CONFIG: &str = "\
Check or show the configuration.

Usage: ringroom config check [FILE] [OPTIONS]
       ringroom config show [FILE] [OPTIONS]

check names every error with its file, line and remedy: exit status 0 if there is none, else 78.
show prints what `serve` would run with, as TOML, with the source of each value; secrets are hidden.

FILE stands for --config FILE. Options are those of `serve`: the same profile, environment and
options give the same answer here and there. See: ringroom serve --help
";

const HELP_TOKEN: &str = "\
Print one access token, signed with the secret in RINGROOM_JWT_SECRET (HS256).

Usage: ringroom token --sub USER [OPTIONS]

Options:
  --sub USER      The user that the token is for
  --tenant T      The user's tenant [default: default]
  --role R        A role of the user; may be given several times
  --name N        A name to show to people
  --ttl TIME      How long the token is good for: 90s, 15m, 1h, 7d [default: 1h]
";

const HELP_CLIENT: &str = "\
Talk to a running gateway from the terminal.

Usage: ringroom client [OPTIONS]

Options:
  --url URL         Where the gateway listens [default: ws://127.0.0.1:3001/ws]
  --token T         The access token; without it, RINGROOM_TOKEN is read
  --join ROOM       Join ROOM at once; may be given several times
  --exit-after N    Leave after N messages have come, even when standard input has ended

A line is said in the current room, the one joined last; it is published as the event `chat`
with the data {\"text\": LINE}. For each, the time until it came back is shown. Commands:
  /join ROOM        Join ROOM and make it the current one
  /leave [ROOM]     Leave ROOM, or the current one
  /rooms            Show the rooms you are in
  /online [ROOM]    Show who is in the room
  /history [ROOM]   Show the latest messages of the room
  /ping             Measure the way to the gateway and back
  /quit             Leave
";

const HELP_HEALTH: &str = "\
Ask a running gateway whether it is well: exit status 0 if it is, 1 if not.

Usage: ringroom health [--ready] [--ops ADDR]

Options:
  --ready      Ask whether clients should come (/ready) instead of whether it lives (/health)
  --ops ADDR   The operators' address of the gateway [default: 127.0.0.1:9091]
";

const HELP_LOG: &str = "\
Show or change what a running gateway logs, until its next reload or restart.

Usage: ringroom log [LEVEL] [--ops ADDR]

LEVEL is one of off, error, warn, info, debug and trace; without it, the present one is shown.

Options:
  --ops ADDR   The operators' address of the gateway [default: 127.0.0.1:9091]
";

/// Reads the arguments, the program's own name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Failed> {
    let mut parser = Parser::from_iter(args);
    let name = command_name(&mut parser)?;
    match name.as_str() {
        "serve" => serve(&mut parser),
        "token" => token(&mut parser),
        "client" => client(&mut parser),
        "health" => health(&mut parser),
        "log" => log(&mut parser),
        "config" => config(&mut parser),
        "help" => {
            let topic = command_name(&mut parser)?;
            help_of(&topic).map(Command::Help).ok_or_else(|| unknown_command(&topic))
        }
        "--help" | "-h" => Ok(Command::Help(HELP)),
        "--version" | "-V" => Ok(Command::Version),
        _ => Err(unknown_command(&name)),
    }
}

/// The first argument if it names a command; `serve` is understood where there is none.
fn command_name(parser: &mut Parser) -> Result<String, Failed> {
    let mut rest = parser.raw_args().map_err(wrong)?;
    let is_general = |arg: &str| matches!(arg, "--help" | "-h" | "--version" | "-V");
    match rest.next_if(|arg| arg.to_str().is_none_or(|arg| !arg.starts_with('-') || is_general(arg))) {
        Some(name) => name.string().map_err(wrong),
        None => Ok("serve".into()),
    }
}

fn help_of(topic: &str) -> Option<&'static str> {
    Some(match topic {
        "serve" => HELP_SERVE,
        "token" => HELP_TOKEN,
        "client" => HELP_CLIENT,
        "health" => HELP_HEALTH,
        "log" => HELP_LOG,
        "config" => HELP_CONFIG,
        _ => return None,
    })
}

fn serve(parser: &mut Parser) -> Result<Command, Failed> {
    Ok(match options_of_serve(parser, 0)? {
        Some((options, _)) => Command::Serve(options),
        None => Command::Help(HELP_SERVE),
    })
}

fn config(parser: &mut Parser) -> Result<Command, Failed> {
    let Some((mut options, words)) = options_of_serve(parser, 2)? else { return Ok(Command::Help(HELP_CONFIG)) };
    let mut words = words.into_iter();
    let action = words.next().unwrap_or_default();
    if let Some(file) = words.next()
        && options.config.replace(file).is_some()
    {
        return Err(Failed::usage("there are two files; give one, with --config or without"));
    }
    match action.as_str() {
        "check" => Ok(Command::Config(Action::Check(options))),
        "show" => Ok(Command::Config(Action::Show(options))),
        "docs" if options.config.as_deref() == Some("metrics") => Ok(Command::Config(Action::MetricsDocs)),
        "docs" => Ok(Command::Config(Action::Docs)),
        _ => Err(Failed::usage("config needs one of check and show; `ringroom config --help` explains them")),
    }
}

/// The options that say how to serve, and at most `words_max` words beside them. `None`: help is
/// asked for.
fn options_of_serve(parser: &mut Parser, words_max: usize) -> Result<Option<(host::Options, Vec<String>)>, Failed> {
    let mut options = host::Options::default();
    let mut words = Vec::new();
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Arg::Long("config") => options.config = Some(text(parser)?),
            Arg::Long("profile") => options.profile = Some(text(parser)?),
            Arg::Long("listen") => options.listen = Some(text(parser)?),
            Arg::Long("ops") => options.ops = Some(text(parser)?),
            Arg::Long("shards") => options.shards = Some(number(parser, "--shards", 1)?),
            Arg::Long("dev") => options.dev = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(None),
            Arg::Value(word) if words.len() < words_max => words.push(word.string().map_err(wrong)?),
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(Some((options, words)))
}

fn token(parser: &mut Parser) -> Result<Command, Failed> {
    let mut sub = None;
    let mut options =
        TokenOptions { sub: String::new(), tenant: None, roles: Vec::new(), name: None, ttl: TTL_DEFAULT };
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Arg::Long("sub") => sub = Some(text(parser)?),
            Arg::Long("tenant") => options.tenant = Some(text(parser)?),
            Arg::Long("role") => options.roles.push(text(parser)?),
            Arg::Long("name") => options.name = Some(text(parser)?),
            Arg::Long("ttl") => {
                let given = text(parser)?;
                options.ttl = span(&given).ok_or_else(|| {
                    Failed::usage(format!("--ttl {given} is no time; write it as 90s, 15m, 1h or 7d"))
                })?;
            }
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(HELP_TOKEN)),
            other => return Err(wrong(other.unexpected())),
        }
    }
    options.sub = sub.ok_or_else(|| Failed::usage("token needs --sub USER: the user that the token is for"))?;
    Ok(Command::Token(options))
}

fn client(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options = ClientOptions { url: URL_DEFAULT.into(), token: None, join: Vec::new(), exit_after: None };
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Arg::Long("url") => options.url = text(parser)?,
            Arg::Long("token") => options.token = Some(text(parser)?),
            Arg::Long("join") => options.join.push(text(parser)?),
            Arg::Long("exit-after") => options.exit_after = Some(number(parser, "--exit-after", 1)?),
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(HELP_CLIENT)),
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(Command::Client(options))
}

fn health(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options = HealthOptions { ops: OPS_DEFAULT.into(), ready: false };
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Arg::Long("ops") => options.ops = text(parser)?,
            Arg::Long("ready") => options.ready = true,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(HELP_HEALTH)),
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(Command::Health(options))
}

fn log(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options = LogOptions { ops: OPS_DEFAULT.into(), level: None };
    while let Some(arg) = parser.next().map_err(wrong)? {
        match arg {
            Arg::Long("ops") => options.ops = text(parser)?,
            Arg::Long("help") | Arg::Short('h') => return Ok(Command::Help(HELP_LOG)),
            Arg::Value(level) if options.level.is_none() => {
                let level = level.string().map_err(wrong)?;
                if level.parse::<::log::LevelFilter>().is_err() {
                    let levels = "off, error, warn, info, debug and trace";
                    return Err(Failed::usage(format!("{level} is no level; there are {levels}")));
                }
                options.level = Some(level);
            }
            other => return Err(wrong(other.unexpected())),
        }
    }
    Ok(Command::Log(options))
}

fn text(parser: &mut Parser) -> Result<String, Failed> {
    parser.value().and_then(|value| value.string()).map_err(wrong)
}

fn number<N: FromStr + PartialOrd>(parser: &mut Parser, option: &str, least: N) -> Result<N, Failed> {
    let given = text(parser)?;
    let number = given.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| Failed::usage(format!("{option} {given} is not a number from 1 up")))
}

/// A number and one of `s`, `m`, `h`, `d`; seconds without one. Never zero.
fn span(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_lowercase());
    let unit_s: u64 = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let count: u64 = digits.parse().ok()?;
    count.checked_mul(unit_s).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn unknown_command(name: &str) -> Failed {
    Failed::usage(format!("there is no command {name}; `ringroom --help` shows those there are"))
}

fn wrong(error: lexopt::Error) -> Failed {
    Failed::usage(format!("{error}; `ringroom --help` shows what is understood"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, Failed> {
        parse(std::iter::once("ringroom").chain(line.split_whitespace()).map(OsString::from))
    }

    fn refused(line: &str) -> String {
        match parsed(line) {
            Ok(_) => panic!("{line} was accepted"),
            Err(failed) => {
                assert_eq!(failed.exit, 2, "{line}");
                failed.message
            }
        }
    }

    #[test]
    fn serve_is_the_default_command() {
        for line in ["", "serve", "--dev", "serve --dev"] {
            let Ok(Command::Serve(options)) = parsed(line) else { panic!("{line}") };
            assert_eq!(options.dev, line.contains("--dev"));
            assert!(options.listen.is_none() && options.shards.is_none());
        }
    }

    #[test]
    fn every_option_of_serve_reaches_the_host() {
        let line = "--config a.toml --profile bench --listen 127.0.0.1:0 --ops=127.0.0.1:1 --shards 2";
        let Ok(Command::Serve(options)) = parsed(line) else { panic!() };
        assert_eq!(options.config.as_deref(), Some("a.toml"));
        assert_eq!(options.profile.as_deref(), Some("bench"));
        assert_eq!(options.listen.as_deref(), Some("127.0.0.1:0"));
        assert_eq!(options.ops.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(options.shards, Some(2));
    }

    #[test]
    fn config_takes_an_action_a_file_and_the_options_of_serve() {
        for line in ["config check a.toml --profile bench", "config --config a.toml check --profile bench"] {
            let Ok(Command::Config(Action::Check(options))) = parsed(line) else { panic!("{line}") };
            assert_eq!((options.config.as_deref(), options.profile.as_deref()), (Some("a.toml"), Some("bench")));
        }
        assert!(matches!(parsed("config show"), Ok(Command::Config(Action::Show(_)))));
        assert!(refused("config").contains("check and show"));
        assert!(refused("config mend").contains("check and show"));
        assert!(refused("config check a b").contains("\"b\""));
        assert!(refused("config check a --config b").contains("two files"));
    }

    #[test]
    fn a_token_needs_a_subject_and_takes_several_roles() {
        let Ok(Command::Token(options)) = parsed("token --sub alice --role a --role b --tenant t --ttl 15m") else {
            panic!()
        };
        assert_eq!((options.sub.as_str(), options.tenant.as_deref()), ("alice", Some("t")));
        assert_eq!((options.roles, options.ttl), (vec!["a".into(), "b".into()], Duration::from_secs(900)));
        assert!(refused("token --role admin").contains("--sub USER"));
    }

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3_600), ("7d", 604_800)] {
            assert_eq!(span(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "h", "0s", "1w", "-1h", "1.5h", "1hh", "18446744073709551615d", "1é"] {
            assert_eq!(span(text), None, "{text}");
        }
        assert!(refused("token --sub a --ttl soon").contains("15m"));
    }

    #[test]
    fn the_client_has_defaults_and_collects_rooms() {
        let Ok(Command::Client(options)) = parsed("client --join a --join b --exit-after 3") else { panic!() };
        assert_eq!((options.url.as_str(), options.token), (URL_DEFAULT, None));
        assert_eq!((options.join, options.exit_after), (vec!["a".into(), "b".into()], Some(3)));
    }

    #[test]
    fn health_and_log_ask_the_ops_port_that_is_named() {
        let Ok(Command::Health(options)) = parsed("health") else { panic!() };
        assert_eq!((options.ops.as_str(), options.ready), (OPS_DEFAULT, false));
        let Ok(Command::Health(options)) = parsed("health --ready --ops 127.0.0.1:1") else { panic!() };
        assert_eq!((options.ops.as_str(), options.ready), ("127.0.0.1:1", true));
        let Ok(Command::Log(options)) = parsed("log debug --ops 127.0.0.1:1") else { panic!() };
        assert_eq!((options.ops.as_str(), options.level.as_deref()), ("127.0.0.1:1", Some("debug")));
        assert!(matches!(parsed("log"), Ok(Command::Log(LogOptions { level: None, .. }))));
        assert!(refused("log loud").contains("loud") && refused("log debug info").contains("info"));
    }

    #[test]
    fn help_is_there_for_the_program_and_for_each_command() {
        for (line, expected) in [
            ("--help", HELP),
            ("-h", HELP),
            ("serve --help", HELP_SERVE),
            ("--dev --help", HELP_SERVE),
            ("token -h", HELP_TOKEN),
            ("help client", HELP_CLIENT),
            ("health --help", HELP_HEALTH),
            ("log --help", HELP_LOG),
            ("config --help", HELP_CONFIG),
            ("config check -h", HELP_CONFIG),
        ] {
            let Ok(Command::Help(text)) = parsed(line) else { panic!("{line}") };
            assert_eq!(text, expected, "{line}");
        }
        assert!(matches!(parsed("--version"), Ok(Command::Version)));
        assert!(matches!(parsed("-V"), Ok(Command::Version)));
    }

    #[test]
    fn wrong_usage_says_what_is_wrong_and_exits_with_2() {
        assert!(refused("frobnicate").contains("frobnicate"));
        assert!(refused("help frobnicate").contains("frobnicate"));
        assert!(refused("--frobnicate").contains("--frobnicate"));
        assert!(refused("serve extra").contains("extra"));
        assert!(refused("--listen").contains("--listen"));
        for line in ["--shards 0", "--shards two", "--shards -1", "client --exit-after 0"] {
            assert!(refused(line).contains("number"), "{line}");
        }
    }
}
