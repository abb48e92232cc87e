//! SIGHUP: the configuration is read again. Invariant: it is judged as a whole before anything
//! changes; a bad one changes nothing, and neither a good nor a bad one closes a connection.

use crate::host::config::{self, Config, Effective, Reloaded, Sources};
use crate::host::journal;
use crate::observe::audit::Audit;
use serde_json::json;

pub struct Reload {
    sources: Sources,
    /// What runs.
    effective: Effective,
    audit: Audit,
}

impl Reload {
    pub fn new(sources: Sources, effective: Effective) -> Reload {
        Reload { sources, effective, audit: Audit::default() }
    }

    /// Tells it to `audit` from now on, and has it open its file anew each time.
    pub fn audited(&mut self, audit: &Audit) {
        self.audit = audit.clone();
    }

    /// What to run with from now on; `None`: as before. The log says which, and why.
    pub fn read(&mut self) -> Option<Config> {
        // Before the outcome: whoever rotates logs with a broken configuration wants a new file too.
        self.audit.reopen();
        match self.try_read() {
            Ok(config) => Some(config),
            Err(refused) => {
                // A line each: the log keeps a message on one.
                for problem in &refused.0 {
                    log::error!("{problem}");
                }
                log::error!("not reloaded, for the errors above; what ran before runs on");
                self.audit.note("reloaded", json!({"outcome": "refused", "errors": refused.0.len()}));
                None
            }
        }
    }

    fn try_read(&mut self) -> Result<Config, config::Refused> {
        let loaded = config::load(&self.sources)?;
        let Reloaded { effective, changed, waiting } = self.effective.reload(loaded.effective);
        // New values together with those that wait for a restart may be what neither is alone.
        let config = config::judge(&effective, self.sources.options.dev)?;
        self.effective = effective;
        // A change of the level is told at the level that tells more.
        journal::start(config.log.max(log::max_level()), config.log_format);
        for note in &loaded.notes {
            log::warn!("{note}");
        }
        if !waiting.is_empty() {
            log::warn!("these changed and need a restart: {}", waiting.join(", "));
        }
        match changed.is_empty() {
            true => log::info!("reloaded: nothing has changed"),
            false => log::info!("reloaded: {}", changed.join(", ")),
        }
        self.audit.note("reloaded", json!({"outcome": "ok", "changed": changed, "waiting": waiting}));
        journal::start(config.log, config.log_format);
        Ok(config)
    }
}
