//! A WebSocket echo at `/echo`, as a program of one's own around the gateway: each message comes back as
//! it was, text as text and binary as binary, compressed where the client offers that.
//!
//!     cargo run --release --example echo -- --listen 127.0.0.1:3005
//!
//! `--max-message BYTES` and `--max-fragments NUMBER` bound one message. Once clients can connect, a line
//! that begins with `ready data=` says where.

use ringroom::{App, Client, Endpoint, EndpointLimits, Message, Options};
use std::process::ExitCode;

struct Echo;

impl Endpoint for Echo {
    fn on_message(&mut self, client: &mut Client<'_>, message: Message<'_>) {
        client.send(message);
    }
}

fn main() -> ExitCode {
    let (options, limits) = match arguments() {
        Ok(arguments) => arguments,
        Err(wrong) => {
            eprintln!("echo: {wrong}");
            return ExitCode::from(2);
        }
    };
    match App::new().endpoint("/echo", limits, || Echo).serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("echo: {failed}");
            ExitCode::from(failed.exit)
        }
    }
}

fn arguments() -> Result<(Options, EndpointLimits), lexopt::Error> {
    use lexopt::prelude::*;
    // Two of them on one machine should not meet at the operators' port.
    let mut options = Options { ops: Some("127.0.0.1:0".into()), ..Options::default() };
    let mut limits = EndpointLimits { rate: None, ..EndpointLimits::default() };
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("listen") => options.listen = Some(arguments.value()?.string()?),
            Long("max-message") => limits.message_bytes = arguments.value()?.parse()?,
            Long("max-fragments") => limits.fragments = arguments.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok((options, limits))
}
