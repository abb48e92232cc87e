//! Watches over the shards: the service manager hears that all is well only while it is, and how many
//! clients there are. Invariant: nobody who hangs is waited for, so this goes on whatever shards do.

use crate::host::systemd::Notifier;
use crate::io::gateway::Gateway;
use crate::io::pulse::Silent;
use crate::observe::collector;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How long a shard may be silent where no watchdog says so, and at the least: an idle one looks at
/// the time once a second.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const SILENCE_MIN: Duration = Duration::from_millis(1_500);
/// How often the manager is told how many clients there are.
const STATUS_EVERY: Duration = Duration::from_secs(5);

/// How often to look and how long a shard may be silent. A shard that does one long thing is no worse
/// than late until then; the manager waits for twice as long.
fn rhythm(watchdog: Option<Duration>) -> (Duration, Duration) {
    let bound = watchdog.map_or(SILENCE_MAX, |watchdog| watchdog / 2).max(SILENCE_MIN);
    (watchdog.map_or(SILENCE_MAX, |watchdog| watchdog / 2) / 2, bound)
}

/// Ends only with the runtime.
pub async fn run(gateway: Arc<Gateway>, notifier: Arc<Notifier>, draining: Arc<AtomicBool>) {
    let (every, bound) = rhythm(notifier.watchdog);
    let mut look = tokio::time::interval(every.max(Duration::from_millis(1)));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut status = tokio::time::interval(STATUS_EVERY);
    status.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut were_silent = false;
    let mut told = String::new();
    loop {
        tokio::select! {
            _ = look.tick() => {
                let silent = gateway.silent(bound);
                if silent.is_empty() {
                    if notifier.watchdog.is_some() {
                        notifier.alive();
                    }
                    if were_silent {
                        log::warn!("all shards go on");
                    }
                } else if !were_silent {
                    silent.iter().for_each(|silent| log::error!("{}", complaint(silent, notifier.watchdog.is_some())));
                }
                were_silent = !silent.is_empty();
            }
            _ = status.tick(), if notifier.is_heard() && !draining.load(Ordering::Relaxed) => {
                let now = connections(&gateway).await;
                if now != told && !draining.load(Ordering::Relaxed) {
                    notifier.status(&now);
                    told = now;
                }
            }
        }
    }
}

fn complaint(silent: &Silent, has_watchdog: bool) -> String {
    let Silent { shard, since, did } = silent;
    let next = match has_watchdog {
        true => "the watchdog is not fed until it goes on",
        false => "its clients wait; if it does not go on, restart the gateway",
    };
    format!("shard {shard} has done nothing for {:.1} s, and did {did} last; {next}", since.as_secs_f64())
}

/// What the manager shows of a gateway that serves.
async fn connections(gateway: &Gateway) -> String {
    let reports = collector::answers(gateway, collector::PATIENCE).await;
    let open: u64 = reports.iter().map(|report| report.edge.clients_now()).sum();
    match gateway.shards() - reports.len() {
        0 => format!("serving {open} connections"),
        silent => format!("serving {open} connections; {silent} shards do not answer"),
    }
}

/// Who is there.
#[derive(Clone, Copy)]
pub struct Left {
    pub connections: u64,
    pub handshakes: u64,
}

/// `None`: a shard is silent.
pub async fn left(gateway: &Gateway) -> Option<Left> {
    let reports = collector::answers(gateway, collector::PATIENCE).await;
    let left = Left {
        connections: reports.iter().map(|report| report.edge.clients_now()).sum(),
        handshakes: reports.iter().map(|report| report.edge.handshakes_now).sum(),
    };
    (reports.len() == gateway.shards()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_complained_of_before_the_manager_has_waited_too_long() {
        for seconds in [4, 30, 3_600] {
            let watchdog = Duration::from_secs(seconds);
            let (every, bound) = rhythm(Some(watchdog));
            assert_eq!(bound, watchdog / 2);
            assert!(bound + every < watchdog, "a healthy shard is heard in time, even just before the bound");
        }
    }

    #[test]
    fn an_idle_shard_is_never_silent_however_impatient_the_manager() {
        for watchdog in [Some(Duration::from_millis(500)), Some(Duration::from_secs(2)), None] {
            assert!(rhythm(watchdog).1 > Duration::from_secs(1));
        }
        let (every, _) = rhythm(Some(Duration::from_millis(500)));
        assert!(every < Duration::from_millis(250));
    }

    #[test]
    fn a_complaint_names_the_shard_what_it_did_and_what_follows() {
        let silent = Silent { shard: 3, since: Duration::from_millis(15_250), did: "room:join" };
        let said = complaint(&silent, true);
        assert!(said.starts_with("shard 3 has done nothing for 15.2 s, and did room:join last; "), "{said}");
        assert!(said.contains("watchdog") && !complaint(&silent, false).contains("watchdog"));
    }
}
