//! `ringroom config`: whether a configuration can be served, what it comes to, and the manual.

use super::{Failed, tune};
use crate::host::{self, Options};

pub enum Action {
    Check(Options),
    Show(Options),
    /// A file to begin with.
    Sample,
    /// For those who build ringroom: `docs/configuration.md`.
    Docs,
    /// `docs/metrics.md`.
    MetricsDocs,
}

pub fn run(action: Action) -> Result<(), Failed> {
    match action {
        Action::Check(options) => {
            let (verdict, notes) = host::check_configuration(options.clone())?;
            tune::check_profile(options)?;
            for note in notes {
                eprintln!("note: {note}");
            }
            println!("{verdict}");
        }
        Action::Show(options) => print!("{}", host::show_configuration(options)?),
        Action::Sample => print!("{}", host::configuration_sample()),
        Action::Docs => print!("{}", host::configuration_manual()),
        Action::MetricsDocs => print!("{}", host::metrics_manual()),
    }
    Ok(())
}
