//! Going away: every client is asked to come back, at a pace, and waited for.
//! Invariant: it is over at the time-out, whatever clients and shards do.

use crate::host::systemd::Notifier;
use crate::host::watch::{self, Left};
use crate::io::gateway::Gateway;
use crate::shard::DrainPace;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How often to look whether all have gone, and to say how many are left.
const LOOK: Duration = Duration::from_millis(20);
const TELL: Duration = Duration::from_secs(1);
/// At the end of the time: for clients to take what is queued for them, and the close.
const FLUSH_MAX: Duration = Duration::from_secs(2);
/// For who has not yet asked for anything when the last client has gone.
const STRANGERS: Duration = Duration::from_millis(500);
/// Between the end of a drain and the end of the process, generously.
const EXIT_MAX: Duration = Duration::from_secs(5);

/// How to go away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DrainSettings {
    pub conns_per_s: u32,
    pub time_out: Duration,
    pub retry: Duration,
}

impl DrainSettings {
    /// What shards are told: the last to be asked have a part of the time to go.
    fn pace(self) -> DrainPace {
        let over = self.time_out - FLUSH_MAX.min(self.time_out / 4);
        DrainPace { conns_per_s: self.conns_per_s, over, retry: self.retry }
    }
}

/// Returns how many connections are left; `None`: a shard did not say.
pub async fn drain(gateway: &Gateway, settings: DrainSettings, notifier: &Notifier) -> Option<u64> {
    notifier.stopping("draining", settings.time_out + EXIT_MAX);
    let began = Instant::now();
    gateway.drain(settings.pace());
    let mut left = None;
    let mut told = began;
    let mut alone_since = None;
    let gone = async {
        loop {
            let now = watch::left(gateway).await;
            left = now.map(|left| left.connections);
            if let Some(Left { connections: 0, handshakes }) = now
                && (handshakes == 0 || alone_since.get_or_insert_with(Instant::now).elapsed() >= STRANGERS)
            {
                return;
            }
            if let Some(left) = left.filter(|_| told.elapsed() >= TELL) {
                told = Instant::now();
                notifier.status(&format!("draining: {left} connections are left"));
            }
            sleep(LOOK).await;
        }
    };
    // What is left then is in `left`.
    let _ = timeout_at(began + settings.time_out, gone).await;
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_be_asked_have_time_to_go() {
        let over = |time_out_ms| {
            let time_out = Duration::from_millis(time_out_ms);
            DrainSettings { conns_per_s: 1, time_out, retry: Duration::ZERO }.pace().over.as_millis()
        };
        assert_eq!((over(30_000), over(8_000), over(1_000), over(0)), (28_000, 6_000, 750, 0));
    }
}
