//! Loads one server over TLS or without it: handshakes, a room, or connections that rest.
//!
//!     tls-load handshakes TO TLS SECONDS [concurrency=16]
//!     tls-load room TO TLS SECONDS dialect=ringroom tokens=FILE [members=1000] [publishers=4] [rate=50]
//!     tls-load rest TO TLS SECONDS dialect=ringroom tokens=FILE [members=1000]
//!
//! TLS is words with `+`: `none`, or `1.2` or `1.3`, and `resumed` (tickets are shown), `mlkem` (ML-KEM and X25519 as
//! browsers do; otherwise X25519). Prints `ready` once all are in (or have done it once), begins with a line on
//! standard input, and prints a line of JSON. Whatever is wrong ends it with status 1.

mod dialect;
mod handshakes;
mod link;
mod room;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dialect::Dialect;
use handshakes::Handshakes;
use link::{Outcome, Speech};
use room::Room;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Long enough for every slot to have a ticket.
const WARM_UP: Duration = Duration::from_millis(500);

fn speech(words: &str) -> Outcome<Option<Speech>> {
    let words: Vec<&str> = words.split('+').collect();
    if words == ["none"] {
        return Ok(None);
    }
    let version = match words[0] {
        "1.2" => &rustls::version::TLS12,
        "1.3" => &rustls::version::TLS13,
        other => return Err(format!("no such version: {other}").into()),
    };
    Ok(Some(Speech { version, resumes: words.contains(&"resumed"), post_quantum: words.contains(&"mlkem") }))
}

/// Seconds that this thread ran.
fn cpu() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns: f64 = stat.split(' ').next().unwrap_or_default().parse()?;
    Ok(ns / 1e9)
}

fn begin() -> Outcome<(Instant, f64)> {
    println!("ready");
    std::io::stdin().read_line(&mut String::new())?;
    Ok((Instant::now(), cpu()?))
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [what, to, tls, seconds, more @ ..] = &arguments[..] else {
        return Err("tls-load WHAT TO TLS SECONDS [NAME=VALUE]".into());
    };
    let more: HashMap<&str, &str> = more.iter().filter_map(|word| word.split_once('=')).collect();
    let number = |name: &str, default: usize| more.get(name).map_or(Ok(default), |text| text.parse());
    let (to, speech) = (to.parse()?, speech(tls)?);
    let time = Duration::from_secs_f64(seconds.parse()?);

    if what == "handshakes" {
        let mut handshakes = Handshakes::begin(to, speech.as_ref(), number("concurrency", 16)?)?;
        handshakes.run(WARM_UP)?;
        let (began, before) = begin()?;
        let done = handshakes.run(time)?;
        let took = began.elapsed().as_secs_f64();
        let (busy, suite) = ((cpu()? - before) / took, done.suite.as_deref().unwrap_or_default());
        let (total, resumed) = (done.total, done.resumed);
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|quantile| done.quantile_ms(quantile));
        let times = format!(r#""p50_ms":{p50:.3},"p99_ms":{p99:.3},"max_ms":{max:.3}"#);
        println!(
            r#"{{"handshakes":{total},"resumed":{resumed},"took_s":{took:.6},"load_busy":{busy:.4},{times},"suite":"{suite}"}}"#
        );
        return Ok(());
    }
    let dialect = match more.get("dialect") {
        Some(&"ringroom") => Dialect::Ringroom,
        Some(&"raw") => Dialect::Raw,
        _ => return Err("dialect=ringroom or dialect=raw".into()),
    };
    let tokens = match more.get("tokens") {
        Some(path) => std::fs::read_to_string(path)?.lines().map(str::to_owned).collect(),
        None => Vec::new(),
    };
    let (members, publishers) = (number("members", 1_000)?, number("publishers", 4)?);
    let mut room = Room::fill(to, dialect, speech.as_ref(), &tokens, members, publishers)?;
    let suite = room.suite().unwrap_or_default();
    match what.as_str() {
        "room" => {
            let rate = more.get("rate").map(|text| text.parse()).transpose()?;
            room.run(WARM_UP, rate)?;
            let (_, before) = begin()?;
            let ran = room.run(time, rate)?;
            let took = ran.took.as_secs_f64();
            let (busy, deliveries, messages) = ((cpu()? - before) / took, ran.deliveries, ran.messages);
            println!(
                r#"{{"deliveries":{deliveries},"messages":{messages},"took_s":{took:.6},"load_busy":{busy:.4},"suite":"{suite}"}}"#
            );
        }
        "rest" => {
            begin()?;
            room.rest(time)?;
            println!(r#"{{"members":{members},"suite":"{suite}"}}"#);
        }
        other => return Err(format!("no such load: {other}").into()),
    }
    Ok(())
}
