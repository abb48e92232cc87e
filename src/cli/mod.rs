//! Floor 9: arguments and commands.
//! Invariant: what a command has to say to programs goes to standard output, everything else to
//! standard error, and the exit status is one of `Failed`'s.

mod arguments;
mod client;
mod config;
mod declared;
mod health;
mod pages;
mod secured;
mod token;
mod tune;

use arguments::Command;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the command that `args` name, the program's own name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = arguments::parse(args).and_then(|command| match command {
        Command::Serve(options) => Ok(crate::host::App::new().serve(options)?),
        Command::Config(action) => config::run(action),
        Command::Tune(options) => tune::run(options),
        Command::Token(options) => token::run(&options),
        Command::Client(options) => client::run(options),
        Command::Health(options) => health::run(&options),
        Command::Log(options) => health::log(&options),
        Command::Help(text) => {
            print!("{text}");
            Ok(())
        }
        Command::Version => {
            println!("ringroom {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("ringroom: {}", failed.message);
            ExitCode::from(failed.exit)
        }
    }
}

/// Why a command did not do its work, and the status it exits with.
struct Failed {
    message: String,
    exit: u8,
}

impl From<crate::host::Failed> for Failed {
    fn from(failed: crate::host::Failed) -> Failed {
        Failed { message: failed.message, exit: failed.exit }
    }
}

impl Failed {
    fn failure(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), exit: 1 }
    }

    fn usage(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), exit: 2 }
    }

    /// `EX_CONFIG` of sysexits.
    fn configuration(message: impl Into<String>) -> Failed {
        Failed { message: message.into(), exit: 78 }
    }
}
