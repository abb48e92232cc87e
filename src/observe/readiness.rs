//! Whether to send clients here (`/ready`), and whether a restart would help (`/health`).
//! Invariant: both answer from what is known and wait for nobody, so no probe hangs with a shard.

use super::collector::Seen;
use crate::io::counters::Report;
use serde_json::{Value, json};

/// Why no clients should come; each with what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lack {
    Draining,
    /// Shards that did not answer the last question.
    Silent(Vec<usize>),
    NotListening(Vec<usize>),
    NoKeys,
    /// Shards that refuse publishes for want of memory.
    MemoryFull(Vec<usize>),
    /// No certificate that TLS is served with is good any more.
    Expired,
    /// Every shard has all the connections that it may.
    Full,
}

/// All that speaks against sending clients here. `admits`: there is a key to check tokens with, or
/// none is needed.
pub fn lacks(seen: &Seen, draining: bool, admits: bool) -> Vec<Lack> {
    let of = |is_so: fn(&Report) -> bool| -> Vec<usize> {
        seen.fresh().filter(|report| is_so(report)).map(|report| report.shard.into()).collect()
    };
    let mut lacks = Vec::new();
    if draining {
        lacks.push(Lack::Draining);
    }
    let silent = seen.silent();
    let is_full =
        silent.is_empty() && seen.fresh().all(|report| report.core.connections >= report.core.connections_max);
    if !silent.is_empty() {
        lacks.push(Lack::Silent(silent));
    }
    let deaf = of(|report| report.edge.listening == 0);
    if !deaf.is_empty() && !draining {
        lacks.push(Lack::NotListening(deaf));
    }
    if !admits {
        lacks.push(Lack::NoKeys);
    }
    let refusing = of(|report| report.core.memory_full > 0);
    if !refusing.is_empty() {
        lacks.push(Lack::MemoryFull(refusing));
    }
    if is_full {
        lacks.push(Lack::Full);
    }
    lacks
}

impl Lack {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Lack::Draining => "draining",
            Lack::Silent(_) => "shards_silent",
            Lack::NotListening(_) => "not_listening",
            Lack::NoKeys => "no_keys",
            Lack::MemoryFull(_) => "memory_full",
            Lack::Expired => "certificates_expired",
            Lack::Full => "connections_full",
        }
    }

    /// For people.
    pub fn what(&self) -> String {
        match self {
            Lack::Draining => "the process was told to go and takes no new connections".into(),
            Lack::Silent(shards) => format!("{} did not answer within a second", named(shards)),
            Lack::NotListening(shards) => format!("{} takes no new sockets", named(shards)),
            Lack::NoKeys => "there is no key to check tokens with, so nobody is let in".into(),
            Lack::MemoryFull(shards) => format!("{} refuses publishes for want of memory", named(shards)),
            Lack::Expired => "the certificates that TLS is served with have expired".into(),
            Lack::Full => "every shard has as many connections as it may".into(),
        }
    }

    pub fn advice(&self) -> &'static str {
        match self {
            Lack::Draining => "nothing: it ends by itself once its clients have gone; send new ones elsewhere",
            Lack::Silent(_) => {
                "wait, a turn may be long: ringroom_step_longest_seconds says what was; after ten seconds /health fails \
                 and a restart helps"
            }
            Lack::NotListening(_) => "look into the log for errors of the listener, then restart",
            Lack::NoKeys => {
                "look into the log for why the key set was not loaded: the address in jwt.jwks_url, its certificate"
            }
            Lack::MemoryFull(_) => {
                "raise memory.budget_bytes and restart, or spread the load; see ringroom_memory_used_bytes"
            }
            Lack::Expired => {
                "put newer ones into the files of tls.certificate_file and tls.key_file; they are followed"
            }
            Lack::Full => "raise limits.conns_per_shard and reload, or send clients elsewhere",
        }
    }
}

fn named(shards: &[usize]) -> String {
    let numbers: Vec<String> = shards.iter().map(usize::to_string).collect();
    format!("shard {}", numbers.join(", "))
}

/// The body of `/ready`.
pub fn body(lacks: &[Lack]) -> Value {
    let reason = |lack: &Lack| json!({"code": lack.code(), "what": lack.what(), "advice": lack.advice()});
    json!({"ready": lacks.is_empty(), "reasons": lacks.iter().map(reason).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::counters::Report;

    fn well(shard: u8) -> Report {
        let mut report =
            Report { shard, edge: Default::default(), core: Default::default(), times: Default::default() };
        report.edge.listening = 1;
        report.core.connections_max = 10;
        report
    }

    fn codes(reports: Vec<Report>, draining: bool, admits: bool) -> Vec<&'static str> {
        lacks(&Seen::nothing(2).after(reports), draining, admits).iter().map(Lack::code).collect()
    }

    #[test]
    fn clients_may_come_where_nothing_is_lacking() {
        assert!(codes(vec![well(0), well(1)], false, true).is_empty());
        assert_eq!(body(&[]), json!({"ready": true, "reasons": []}));
    }

    #[test]
    fn every_lack_is_named_with_what_to_do() {
        assert_eq!(codes(vec![well(0)], false, true), ["shards_silent"]);
        assert_eq!(codes(vec![well(0), well(1)], false, false), ["no_keys"]);
        let mut deaf = well(1);
        deaf.edge.listening = 0;
        assert_eq!(codes(vec![well(0), deaf.clone()], false, true), ["not_listening"]);
        assert_eq!(codes(vec![well(0), deaf], true, true), ["draining"], "a drain closes the listener");
        let mut short = well(0);
        short.core.memory_full = 1;
        assert_eq!(codes(vec![short, well(1)], false, true), ["memory_full"]);
        let full = |shard| {
            let mut full = well(shard);
            full.core.connections = 10;
            full
        };
        assert!(codes(vec![full(0), well(1)], false, true).is_empty(), "another shard has room");
        assert_eq!(codes(vec![full(0), full(1)], false, true), ["connections_full"]);
        for lack in [
            Lack::Draining,
            Lack::Silent(vec![1, 2]),
            Lack::NoKeys,
            Lack::MemoryFull(vec![0]),
            Lack::Expired,
            Lack::Full,
        ] {
            let told = body(std::slice::from_ref(&lack));
            assert_eq!(told["ready"], false);
            assert!(told["reasons"][0]["advice"].as_str().is_some_and(|advice| !advice.is_empty()));
        }
        assert_eq!(Lack::Silent(vec![1, 2]).what(), "shard 1, 2 did not answer within a second");
    }
}
