//! Arguments to commands: what the user typed, checked as far as that is possible without
//! touching the network or a file.

use super::Failed;
use super::config::Action;
use super::declared::{self, CLIENT, COMPLETIONS, CONFIG, HEALTH, LOG, SERVE, TOKEN, TUNE};
use super::pages;
use super::tune::{self, TuneOptions};
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
    Tune(TuneOptions),
    /// A text to print.
    Help(String),
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
    /// A file of authorities to trust.
    pub ca: Option<String>,
    pub token: Option<String>,
    /// Rooms to join at once; lines typed go to the last one.
    pub join: Vec<String>,
    /// Leave after this many messages.
    pub exit_after: Option<u64>,
}

const URL_DEFAULT: &str = "ws://127.0.0.1:3001/ws";
const OPS_DEFAULT: &str = "127.0.0.1:9091";
const TTL_DEFAULT: Duration = Duration::from_secs(3_600);

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
        "tune" => tune(&mut parser),
        "completions" => completions(&mut parser),
        // For those who build ringroom: `docs/ringroom.1`.
        "man" => Ok(Command::Help(pages::manual_page())),
        "help" => {
            let topic = command_name(&mut parser)?;
            let command = declared::command(&topic).ok_or_else(|| unknown_command(&topic))?;
            Ok(help(command))
        }
        "--help" | "-h" => Ok(Command::Help(pages::overview())),
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

fn help(command: &declared::Command) -> Command {
    Command::Help(command.help())
}

/// What comes next on the command line.
enum Given {
    /// An option that is declared; its value, if it takes one, is still to be read.
    Option(&'static str),
    Word(OsString),
    Help,
}

/// Nothing gets past here that `command` does not declare.
fn next(parser: &mut Parser, command: &'static declared::Command) -> Result<Option<Given>, Failed> {
    let Some(arg) = parser.next().map_err(wrong)? else { return Ok(None) };
    Ok(Some(match arg {
        Arg::Long("help") | Arg::Short('h') => Given::Help,
        Arg::Value(word) => Given::Word(word),
        Arg::Long(name) => match command.options().find(|option| &option.name[2..] == name) {
            Some(option) => Given::Option(option.name),
            None => return Err(wrong(arg.unexpected())),
        },
        Arg::Short(_) => return Err(wrong(arg.unexpected())),
    }))
}

fn unread(option: &str) -> ! {
    unreachable!("{option} is declared, and its command does not read it")
}

fn unexpected(word: OsString) -> Failed {
    wrong(Arg::Value(word).unexpected())
}

fn serve(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options = host::Options::default();
    while let Some(given) = next(parser, &SERVE)? {
        match given {
            Given::Help => return Ok(help(&SERVE)),
            Given::Option(name) => option_of_serve(parser, name, &mut options)?,
            Given::Word(word) => return Err(unexpected(word)),
        }
    }
    Ok(Command::Serve(options))
}

fn option_of_serve(parser: &mut Parser, name: &'static str, options: &mut host::Options) -> Result<(), Failed> {
    match name {
        "--config" => options.config = Some(text(parser)?),
        "--profile" => options.profile = Some(text(parser)?),
        "--listen" => options.listen = Some(text(parser)?),
        "--ops" => options.ops = Some(text(parser)?),
        "--shards" => options.shards = Some(number(parser, name, 1)?),
        "--dev" => options.dev = true,
        _ => unread(name),
    }
    Ok(())
}

fn config(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options = host::Options::default();
    let mut words = Vec::new();
    while let Some(given) = next(parser, &CONFIG)? {
        match given {
            Given::Help => return Ok(help(&CONFIG)),
            Given::Option(name) => option_of_serve(parser, name, &mut options)?,
            Given::Word(word) if words.len() < 2 => words.push(word.string().map_err(wrong)?),
            Given::Word(word) => return Err(unexpected(word)),
        }
    }
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
        "sample" => Ok(Command::Config(Action::Sample)),
        "docs" => Ok(Command::Config(Action::Docs)),
        _ => Err(Failed::usage("config needs one of check, show and sample; `ringroom config --help` explains them")),
    }
}

fn tune(parser: &mut Parser) -> Result<Command, Failed> {
    let (mut serve, mut connections, mut root) = (host::Options::default(), None, "/".to_owned());
    let (mut action, mut json, mut yes) = (None, false, false);
    while let Some(given) = next(parser, &TUNE)? {
        match given {
            Given::Help => return Ok(help(&TUNE)),
            Given::Option("--connections") => connections = Some(number(parser, "--connections", 1)?),
            Given::Option("--root") => root = text(parser)?,
            Given::Option("--json") => json = true,
            Given::Option("--yes") => yes = true,
            Given::Option(name) => option_of_serve(parser, name, &mut serve)?,
            Given::Word(word) if action.is_none() => action = Some(word.string().map_err(wrong)?),
            Given::Word(word) => return Err(unexpected(word)),
        }
    }
    let action = match action.as_deref() {
        Some("check") if !yes => tune::Action::Check { json },
        Some("apply") if !json => tune::Action::Apply { yes },
        Some("undo") if !yes && !json => tune::Action::Undo,
        Some("check" | "apply" | "undo") => {
            return Err(Failed::usage("--json goes with tune check, --yes with tune apply"));
        }
        _ => {
            return Err(Failed::usage("tune needs one of check, apply and undo; `ringroom tune --help` explains them"));
        }
    };
    Ok(Command::Tune(TuneOptions { action, serve, connections, root: root.into() }))
}

fn completions(parser: &mut Parser) -> Result<Command, Failed> {
    let mut script = None;
    while let Some(given) = next(parser, &COMPLETIONS)? {
        script = match given {
            Given::Help => return Ok(help(&COMPLETIONS)),
            Given::Option(name) => unread(name),
            Given::Word(word) if script.is_some() => return Err(unexpected(word)),
            Given::Word(word) => match word.to_str() {
                Some("bash") => Some(pages::bash()),
                Some("zsh") => Some(pages::zsh()),
                Some("fish") => Some(pages::fish()),
                _ => None,
            },
        };
    }
    script.map(Command::Help).ok_or_else(|| Failed::usage("completions needs one of bash, zsh and fish"))
}

fn token(parser: &mut Parser) -> Result<Command, Failed> {
    let mut sub = None;
    let mut options =
        TokenOptions { sub: String::new(), tenant: None, roles: Vec::new(), name: None, ttl: TTL_DEFAULT };
    while let Some(given) = next(parser, &TOKEN)? {
        match given {
            Given::Help => return Ok(help(&TOKEN)),
            Given::Option("--sub") => sub = Some(text(parser)?),
            Given::Option("--tenant") => options.tenant = Some(text(parser)?),
            Given::Option("--role") => options.roles.push(text(parser)?),
            Given::Option("--name") => options.name = Some(text(parser)?),
            Given::Option("--ttl") => {
                let given = text(parser)?;
                options.ttl = span(&given).ok_or_else(|| {
                    Failed::usage(format!("--ttl {given} is no time; write it as 90s, 15m, 1h or 7d"))
                })?;
            }
            Given::Option(name) => unread(name),
            Given::Word(word) => return Err(unexpected(word)),
        }
    }
    options.sub = sub.ok_or_else(|| Failed::usage("token needs --sub USER: the user that the token is for"))?;
    Ok(Command::Token(options))
}

fn client(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options =
        ClientOptions { url: URL_DEFAULT.into(), ca: None, token: None, join: Vec::new(), exit_after: None };
    while let Some(given) = next(parser, &CLIENT)? {
        match given {
            Given::Help => return Ok(help(&CLIENT)),
            Given::Option("--url") => options.url = text(parser)?,
            Given::Option("--ca") => options.ca = Some(text(parser)?),
            Given::Option("--token") => options.token = Some(text(parser)?),
            Given::Option("--join") => options.join.push(text(parser)?),
            Given::Option("--exit-after") => options.exit_after = Some(number(parser, "--exit-after", 1)?),
            Given::Option(name) => unread(name),
            Given::Word(word) => return Err(unexpected(word)),
        }
    }
    Ok(Command::Client(options))
}

fn health(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options = HealthOptions { ops: OPS_DEFAULT.into(), ready: false };
    while let Some(given) = next(parser, &HEALTH)? {
        match given {
            Given::Help => return Ok(help(&HEALTH)),
            Given::Option("--ops") => options.ops = text(parser)?,
            Given::Option("--ready") => options.ready = true,
            Given::Option(name) => unread(name),
            Given::Word(word) => return Err(unexpected(word)),
        }
    }
    Ok(Command::Health(options))
}

fn log(parser: &mut Parser) -> Result<Command, Failed> {
    let mut options = LogOptions { ops: OPS_DEFAULT.into(), level: None };
    while let Some(given) = next(parser, &LOG)? {
        match given {
            Given::Help => return Ok(help(&LOG)),
            Given::Option("--ops") => options.ops = text(parser)?,
            Given::Option(name) => unread(name),
            Given::Word(level) if options.level.is_none() => {
                let level = level.string().map_err(wrong)?;
                if level.parse::<::log::LevelFilter>().is_err() {
                    let levels = "off, error, warn, info, debug and trace";
                    return Err(Failed::usage(format!("{level} is no level; there are {levels}")));
                }
                options.level = Some(level);
            }
            Given::Word(word) => return Err(unexpected(word)),
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
        assert!(refused("config").contains("check, show and sample"));
        assert!(refused("config mend").contains("check, show and sample"));
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
        let shown = |line: &str| match parsed(line) {
            Ok(Command::Help(text)) => text,
            _ => panic!("{line}"),
        };
        assert_eq!((shown("--help"), shown("-h")), (pages::overview(), pages::overview()));
        assert_eq!((shown("--dev --help"), shown("config check -h")), (SERVE.help(), CONFIG.help()));
        for command in declared::COMMANDS {
            let name = command.name;
            for line in [format!("{name} --help"), format!("{name} -h"), format!("help {name}")] {
                assert_eq!(shown(&line), command.help(), "{line}");
            }
        }
        assert!(matches!(parsed("--version"), Ok(Command::Version)));
        assert!(matches!(parsed("-V"), Ok(Command::Version)));
    }

    #[test]
    fn every_option_that_is_declared_is_read_by_its_command() {
        for command in declared::COMMANDS {
            for option in command.options() {
                // Enough for each to be read whatever the command needs besides; unread ones panic.
                let value = if option.value.is_some() { " 1" } else { "" };
                let line = format!("{} {}{value} --help", command.name, option.name);
                assert!(matches!(parsed(&line), Ok(Command::Help(_))), "{line}");
            }
        }
        for command in declared::COMMANDS.iter().filter(|command| !command.words.is_empty()) {
            for word in command.words {
                assert!(parsed(&format!("{} {word}", command.name)).is_ok(), "{} {word}", command.name);
            }
        }
    }

    #[test]
    fn tune_takes_an_action_a_profile_and_a_number_of_connections() {
        let line = "tune check --profile density --connections 5000 --json --root /mnt";
        let Ok(Command::Tune(options)) = parsed(line) else { panic!() };
        assert!(matches!(options.action, tune::Action::Check { json: true }));
        assert_eq!((options.connections, options.serve.profile.as_deref()), (Some(5_000), Some("density")));
        assert_eq!(options.root.to_str(), Some("/mnt"));
        let Ok(Command::Tune(options)) = parsed("tune apply --yes") else { panic!() };
        assert!(matches!(options.action, tune::Action::Apply { yes: true }) && options.root.to_str() == Some("/"));
        assert!(refused("tune").contains("check, apply and undo"));
        assert!(refused("tune undo --yes").contains("--yes with tune apply"));
        assert!(refused("tune apply --json").contains("--json goes with"));
        assert!(refused("tune check --connections 0").contains("number"));
        assert!(refused("completions tcsh").contains("bash, zsh and fish"));
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
