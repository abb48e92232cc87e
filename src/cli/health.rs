//! `ringroom health` and `ringroom log`: one question to the operators' port, for probes of
//! containers and units, and for people.

use super::Failed;
use super::arguments::{HealthOptions, LogOptions};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

pub fn run(options: &HealthOptions) -> Result<(), Failed> {
    let (path, not) = if options.ready { ("/ready", "not ready for clients") } else { ("/health", "not well") };
    asked(&options.ops, "GET", path, not)
}

/// Shows the level of the log, or changes it.
pub fn log(options: &LogOptions) -> Result<(), Failed> {
    match &options.level {
        None => asked(&options.ops, "GET", "/log", "of no help"),
        Some(level) => asked(&options.ops, "PUT", &format!("/log?level={level}"), "of no help"),
    }
}

/// Prints the answer. `not`: what a gateway is that does not answer with 200.
fn asked(ops: &str, method: &str, path: &str, not: &str) -> Result<(), Failed> {
    let answer = ask(ops, method, path).map_err(|error| {
        Failed::failure(format!("no answer from {ops}: {error}; is the gateway running with that --ops address?"))
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    println!("{}", body.trim());
    if is_ok(head) { Ok(()) } else { Err(Failed::failure(format!("the gateway at {ops} is {not}"))) }
}

fn is_ok(head: &str) -> bool {
    head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(1..)).is_some_and(|rest| rest.starts_with(" 200"))
}

fn ask(ops: &str, method: &str, path: &str) -> std::io::Result<String> {
    let address = ops.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("{method} {path} HTTP/1.1\r\nHost: {ops}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn asked_with_answer(answer: &'static str, ready: bool) -> Result<(), Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ops = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let outcome = run(&HealthOptions { ops, ready });
        let path = if ready { "/ready" } else { "/health" };
        assert!(server.join().unwrap().starts_with(&format!("GET {path} HTTP/1.1\r\n")));
        outcome
    }

    #[test]
    fn only_the_status_200_means_well() {
        assert!(asked_with_answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false).is_ok());
        assert_eq!(asked_with_answer("HTTP/1.1 503 Service Unavailable\r\n\r\n", true).err().unwrap().exit, 1);
        assert_eq!(asked_with_answer("", false).err().unwrap().exit, 1);
    }

    #[test]
    fn a_gateway_that_does_not_run_is_a_failure_that_says_so() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let failed = run(&HealthOptions { ops: free, ready: false }).err().unwrap();
        assert_eq!(failed.exit, 1);
        assert!(failed.message.contains("is the gateway running"));
    }
}
