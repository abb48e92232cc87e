//! Floor 8: configuration, boot, pinning, drain.

mod config;
mod development;
mod drain;
mod journal;
mod jwks;
mod reload;
mod service;
mod systemd;
mod tls;
mod watch;

use crate::io::runtime::Choice;
use crate::kernel::endpoint::{Endpoint, EndpointLimits};
#[cfg(doc)]
use crate::kernel::mounts::SOCKET_IO_PATH;
use crate::kernel::mounts::{EngineSettings, SocketIo};
use crate::kernel::paths::Paths;
use config::Sources;
use std::fmt;
use std::sync::Arc;
use systemd::{Environment, Handed, Notifier};

/// What the command line says. The rest comes from a file, the environment and defaults.
#[derive(Clone, Default, Debug)]
pub struct Options {
    pub config: Option<String>,
    pub listen: Option<String>,
    pub ops: Option<String>,
    pub shards: Option<usize>,
    pub profile: Option<String>,
    /// Development mode even with a secret: tokens are printed.
    pub dev: bool,
}

/// Why the gateway does not serve.
#[derive(Debug)]
pub struct Failed {
    pub message: String,
    /// 1: a failure, 78: the configuration.
    pub exit: u8,
}

impl fmt::Display for Failed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl Failed {
    fn failure(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), exit: 1 }
    }

    /// `EX_CONFIG` of sysexits.
    fn configuration(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), exit: 78 }
    }
}

impl From<config::Refused> for Failed {
    fn from(refused: config::Refused) -> Failed {
        Failed::configuration(refused.to_string())
    }
}

/// The gateway as it is, or with what a program of one's own adds to it. All else is the gateway's:
/// configuration, tokens, limits, rooms at `/ws`, the ops port, the drain.
#[derive(Clone, Default)]
pub struct App {
    paths: Paths,
}

impl App {
    pub fn new() -> App {
        App::default()
    }

    /// Serves plain WebSocket messages at `path`; `make` is called once for each shard. At most six; what
    /// is wrong with one is said by [`App::serve`].
    pub fn endpoint<E: Endpoint + 'static>(
        mut self,
        path: &'static str,
        limits: EndpointLimits,
        make: impl Fn() -> E + Send + Sync + 'static,
    ) -> App {
        self.paths.endpoints.add(path, limits, Arc::new(move || Box::new(make())));
        self
    }

    /// Serves messages at `path` likewise, by Engine.IO, which begins with polling where a client wants that;
    /// `path` ends with a slash.
    pub fn engine<E: Endpoint + 'static>(
        mut self,
        path: &'static str,
        settings: EngineSettings,
        make: impl Fn() -> E + Send + Sync + 'static,
    ) -> App {
        self.paths.mounts.engine(path, settings, Arc::new(move || Box::new(make())));
        self
    }

    /// Serves namespaces of Socket.IO at `path`, which ends with a slash; at [`SOCKET_IO_PATH`] they stand in
    /// place of the gateway's own.
    pub fn socket_io(mut self, path: &'static str, settings: EngineSettings, namespaces: SocketIo) -> App {
        self.paths.mounts.socket_io(path, settings, namespaces);
        self
    }

    /// Serves until SIGTERM or SIGINT, then drains. Once clients can connect, standard output has the line
    /// `ready data=<address> ops=<address> shards=<number> io=<driver>`, and ` tls=<addresses>` behind it where TLS is
    /// spoken.
    pub fn serve(self, options: Options) -> Result<(), Failed> {
        serve(self.paths, options)
    }
}

fn serve(paths: Paths, options: Options) -> Result<(), Failed> {
    paths.check().map_err(Failed::configuration)?;
    let environment = Environment::of_process();
    // Before anything is opened, and before the configuration is judged: who may listen where.
    let handed = Handed::take(&environment)?;
    let sources = Sources { handed: handed.addresses(), ..Sources::of_process(options) };
    let loaded = config::load(&sources)?;
    journal::start(loaded.config.log, loaded.config.log_format);
    for note in &loaded.notes {
        log::warn!("{note}");
    }
    service::run(sources, loaded, paths, handed, Notifier::new(&environment))
}

/// Whether the configuration can be served: one line that says so, and what to know besides.
pub fn check_configuration(options: Options) -> Result<(String, Vec<String>), Failed> {
    let sources = Sources::of_process(options);
    let notes = config::check(&sources)?;
    let what = sources.file().map_or("no file is there; the rest".into(), |path| path.display().to_string());
    Ok((format!("{what} is free of errors"), notes))
}

/// What `serve` would run with, as TOML, and where each value comes from.
pub fn show_configuration(options: Options) -> Result<String, Failed> {
    Ok(config::show(&Sources::of_process(options))?)
}

/// What the configuration asks of the system.
pub struct SystemNeeds {
    pub profile: String,
    /// Names and texts of what the profile is made of; later ones say more.
    pub profile_texts: Vec<(String, String)>,
    pub connections_max: usize,
    pub shards: usize,
    pub budget_bytes: usize,
    pub send_buffer_bytes: Option<usize>,
    pub receive_buffer_bytes: Option<usize>,
    pub io: Choice,
}

/// What the machine has to offer for what is configured.
pub fn system_needs(options: Options) -> Result<SystemNeeds, Failed> {
    let config::Asked { config, profile, profile_texts } = config::asked(&Sources::of_process(options))?;
    Ok(SystemNeeds {
        profile,
        profile_texts,
        connections_max: config.limits.conns_max.saturating_mul(config.shards),
        shards: config.shards,
        budget_bytes: config.limits.memory_bytes,
        send_buffer_bytes: config.tuning.sockets.send_buffer_bytes,
        receive_buffer_bytes: config.tuning.sockets.receive_buffer_bytes,
        io: config.io,
    })
}

/// A configuration file that changes nothing and names everything.
pub fn configuration_sample() -> String {
    config::sample()
}

/// `docs/configuration.md`.
pub fn configuration_manual() -> String {
    config::manual()
}

/// `docs/metrics.md`.
pub fn metrics_manual() -> String {
    crate::observe::manual::manual()
}
