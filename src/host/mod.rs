//! Floor 8: configuration, boot, pinning, drain.

mod config;
mod development;
mod journal;
mod jwks;
mod service;

/// What the command line says. The rest comes from the environment and from defaults.
#[derive(Clone, Default, Debug)]
pub struct Options {
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

impl Failed {
    fn failure(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), exit: 1 }
    }

    /// `EX_CONFIG` of sysexits.
    fn configuration(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), exit: 78 }
    }
}

/// Serves until SIGTERM or SIGINT, then drains.
pub fn serve(options: Options) -> Result<(), Failed> {
    let (config, notes) = config::Config::read(&options, std::env::vars_os())?;
    journal::start(config.log);
    for note in notes {
        log::warn!("{note}");
    }
    service::run(config)
}
