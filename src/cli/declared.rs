//! The command line, declared once: the parser, `--help`, the manual page and the completions of
//! shells read it here. Invariant: the parser takes no option that is not declared (see
//! `arguments::next`), and reads every one that is (a test tries each).

use super::pages;

pub struct Command {
    pub name: &'static str,
    /// One line for lists of commands.
    pub about: &'static str,
    /// What it does, where a help or a manual page begins.
    pub intro: &'static str,
    /// What follows the program's name.
    pub usage: &'static [&'static str],
    /// The first words that it takes.
    pub words: &'static [&'static str],
    pub options: &'static [CommandOption],
    /// The options of `serve` are taken as well.
    pub as_serve: bool,
    pub notes: &'static str,
}

pub struct CommandOption {
    /// With its dashes.
    pub name: &'static str,
    /// What to write after it, if anything.
    pub value: Option<&'static str>,
    pub help: &'static str,
    pub completes: Completes,
}

#[derive(Clone, Copy)]
pub enum Completes {
    Nothing,
    Files,
    Folders,
    Words(&'static [&'static str]),
}

const PROFILES: &[&str] = &["default", "latency", "throughput", "density", "bench"];

const fn option(name: &'static str, value: &'static str, help: &'static str) -> CommandOption {
    CommandOption { name, value: Some(value), help, completes: Completes::Nothing }
}

const fn switch(name: &'static str, help: &'static str) -> CommandOption {
    CommandOption { name, value: None, help, completes: Completes::Nothing }
}

impl CommandOption {
    const fn completes(mut self, completes: Completes) -> CommandOption {
        self.completes = completes;
        self
    }
}

impl Command {
    /// All options that it takes.
    pub fn options(&self) -> impl Iterator<Item = &'static CommandOption> {
        let of_serve = if self.as_serve { SERVE.options } else { &[] };
        self.options.iter().chain(of_serve)
    }

    pub fn help(&self) -> String {
        pages::help(self)
    }
}

pub fn command(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().copied().find(|command| command.name == name)
}

pub static COMMANDS: &[&Command] = &[&SERVE, &TOKEN, &CLIENT, &HEALTH, &LOG, &CONFIG, &TUNE, &COMPLETIONS];

pub const TITLE: &str = "ringroom - a real-time gateway: rooms over WebSocket, one order per room, one binary";
pub const NOTES: &str = "\
A first conversation:
  export RINGROOM_JWT_SECRET=$(head -c 32 /dev/urandom | base64)
  ringroom &
  ringroom client --token $(ringroom token --sub alice) --join chat:1

Exit status: 0 done, 1 failure, 2 wrong usage, 78 wrong configuration.
";

pub static SERVE: Command = Command {
    name: "serve",
    about: "Serve clients until SIGTERM or SIGINT (the default command)",
    intro: "Serve clients until SIGTERM or SIGINT.",
    usage: &["[serve] [OPTIONS]"],
    words: &[],
    options: &[
        option("--config", "FILE", "Read FILE [default: /etc/ringroom/ringroom.toml, if it is there]")
            .completes(Completes::Files),
        option(
            "--profile",
            "NAME",
            "Tune for a purpose: default, latency, throughput, density, bench (limits off,\nloopback only), or a file of your own",
        )
        .completes(Completes::Words(PROFILES)),
        option("--listen", "ADDR", "Address for clients [default: 127.0.0.1:3001]; port 0 picks a free one"),
        option("--ops", "ADDR", "Address for operators: health, metrics [default: 127.0.0.1:9091]"),
        option("--shards", "N", "How many shards to run [default: one per CPU]"),
        switch("--dev", "Development mode: conveniences that production must not have"),
    ],
    as_serve: false,
    notes: "\
Later sources win: defaults, profile, file, environment, options. In the environment a key is
RINGROOM_ and its path in capitals, levels joined by two underscores: RINGROOM_LIMITS__IDLE_MS.
The secret that tokens are signed with is RINGROOM_JWT_SECRET. SIGHUP reads all of it again;
`ringroom config show` shows every key, docs/configuration.md explains them.

Once clients can connect, one line goes to standard output:
  ready data=127.0.0.1:3001 ops=127.0.0.1:9091 shards=2 io=io_uring
",
};

pub static TOKEN: Command = Command {
    name: "token",
    about: "Print one access token for a user",
    intro: "Print one access token, signed with the secret in RINGROOM_JWT_SECRET (HS256).",
    usage: &["token --sub USER [OPTIONS]"],
    words: &[],
    options: &[
        option("--sub", "USER", "The user that the token is for"),
        option("--tenant", "T", "The user's tenant [default: default]"),
        option("--role", "R", "A role of the user; may be given several times"),
        option("--name", "N", "A name to show to people"),
        option("--ttl", "TIME", "How long the token is good for: 90s, 15m, 1h, 7d [default: 1h]"),
    ],
    as_serve: false,
    notes: "",
};

pub static CLIENT: Command = Command {
    name: "client",
    about: "Talk to a running gateway from the terminal",
    intro: "Talk to a running gateway from the terminal.",
    usage: &["client [OPTIONS]"],
    words: &[],
    options: &[
        option("--url", "URL", "Where the gateway listens [default: ws://127.0.0.1:3001/ws]"),
        option("--ca", "FILE", "Authorities in PEM to trust for wss://, in place of those that the system trusts"),
        option("--token", "T", "The access token; without it, RINGROOM_TOKEN is read"),
        option("--join", "ROOM", "Join ROOM at once; may be given several times"),
        option("--exit-after", "N", "Leave after N messages have come, even when standard input has ended"),
    ],
    as_serve: false,
    notes: "\
A line is said in the current room, the one joined last; it is published as the event `chat`
with the data {\"text\": LINE}. For each, the time until it came back is shown. Commands:
  /join ROOM        Join ROOM and make it the current one
  /leave [ROOM]     Leave ROOM, or the current one
  /rooms            Show the rooms you are in
  /online [ROOM]    Show who is in the room
  /history [ROOM]   Show the latest messages of the room
  /ping             Measure the way to the gateway and back
  /quit             Leave
",
};

pub static HEALTH: Command = Command {
    name: "health",
    about: "Ask a running gateway whether it is well",
    intro: "Ask a running gateway whether it is well: exit status 0 if it is, 1 if not.",
    usage: &["health [--ready] [--ops ADDR]"],
    words: &[],
    options: &[
        switch("--ready", "Ask whether clients should come (/ready) instead of whether it lives (/health)"),
        option("--ops", "ADDR", "The operators' address of the gateway [default: 127.0.0.1:9091]"),
    ],
    as_serve: false,
    notes: "",
};

pub static LOG: Command = Command {
    name: "log",
    about: "Show or change what a running gateway logs: log debug",
    intro: "Show or change what a running gateway logs, until its next reload or restart.",
    usage: &["log [LEVEL] [--ops ADDR]"],
    words: &["off", "error", "warn", "info", "debug", "trace"],
    options: &[option("--ops", "ADDR", "The operators' address of the gateway [default: 127.0.0.1:9091]")],
    as_serve: false,
    notes: "Without LEVEL, the present one is shown.\n",
};

pub static CONFIG: Command = Command {
    name: "config",
    about: "Check or show the configuration: config check, config show, config sample",
    intro: "Check or show the configuration.",
    usage: &["config check [FILE] [OPTIONS]", "config show [FILE] [OPTIONS]", "config sample"],
    words: &["check", "show", "sample"],
    options: &[],
    as_serve: true,
    notes: "\
check names every error with its file, line and remedy: exit status 0 if there is none, else 78.
show prints what `serve` would run with, as TOML, with the source of each value; secrets are hidden.
sample prints a file to begin with: every key with its default and its help, all of it commented out.

FILE stands for --config FILE. Options are those of `serve`: the same profile, environment and
options give the same answer here and there. See: ringroom serve --help
",
};

pub static TUNE: Command = Command {
    name: "tune",
    about: "Find what the system lacks, and set it: tune check, tune apply, tune undo",
    intro: "Find what the system lacks for the configured number of connections, and set it.",
    usage: &["tune check [--json] [OPTIONS]", "tune apply [--yes] [OPTIONS]", "tune undo [OPTIONS]"],
    words: &["check", "apply", "undo"],
    options: &[
        option("--connections", "N", "Judge for N connections [default: as many as the configuration lets in]"),
        switch("--json", "Print what check finds as JSON"),
        switch("--yes", "Apply without asking"),
        option("--root", "DIR", "Look at the system below DIR, and change that [default: /]")
            .completes(Completes::Folders),
    ],
    as_serve: true,
    notes: "\
check names each limit that bites below that number, the first one first, with the number of
connections at which it does and the remedy; then what the profile wants and is not so; then
advice. Exit status 0 if nothing is missing, else 1. It changes nothing and needs no root.
apply shows what it would change, asks, and notes the former values in
/var/lib/ringroom/tune-undo.json. It never lowers a value. Advice is never applied.
undo sets what apply changed to what it was; what somebody else changed since is left alone.

Options are those of `serve`, of which --config and --profile say most: what is wanted stands in
the profile's part [system]. docs/tuning.md tells of each setting why, with what effect, and how
to undo it.
",
};

pub static COMPLETIONS: Command = Command {
    name: "completions",
    about: "Print completions for a shell: bash, zsh or fish",
    intro: "Print completions for a shell.",
    usage: &["completions bash|zsh|fish"],
    words: &["bash", "zsh", "fish"],
    options: &[],
    as_serve: false,
    notes: "\
For this session of bash:
  source <(ringroom completions bash)
",
};
