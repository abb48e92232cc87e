//! Busy polling, one task per shard: after work it looks for more for a while - lanes, controls,
//! sockets - before the thread may sleep, so the next message need not wake it. Invariant: it lasts
//! [`Tuning::busy_poll`](crate::io::tuning::Tuning::busy_poll) beyond the last work and no longer, and
//! when it ends the bell is armed and nothing lies unseen.

use crate::base::limits::MAILS_PER_TURN;
use crate::io::arrivals;
use crate::io::edge::Edge;
use std::rc::Rc;

pub async fn run(edge: Rc<Edge>) {
    if edge.tuning.busy_poll.is_zero() {
        return;
    }
    let bell = edge.doors[edge.id.index()].bell();
    loop {
        edge.worked.wait().await;
        // Whoever leaves something now need not ring: we look.
        bell.disarm();
        look(&edge).await;
        bell.arm();
        if edge.has_arrivals() {
            // Looks again.
            edge.worked.raise();
        }
    }
}

/// Turn after turn, until there was no work for as long as the tuning says.
async fn look(edge: &Rc<Edge>) {
    let mut work = edge.work();
    let mut until = edge.clock.now().at.after(edge.tuning.busy_poll);
    loop {
        edge.turn.next().await;
        edge.count(|counters| counters.polls += 1);
        edge.take_mail(MAILS_PER_TURN);
        arrivals::take_controls(edge);
        let now = edge.clock.now().at;
        if edge.work() != work {
            work = edge.work();
            until = now.after(edge.tuning.busy_poll);
        } else if now >= until {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::control::Control;
    use crate::io::edge::sample::{PONG, edge_tuned, on_each_driver, open, turning};
    use crate::io::runtime::Driver;
    use crate::io::socket;
    use crate::io::tuning::Tuning;
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    fn start(driver: Driver, busy_poll: Duration) -> Rc<Edge> {
        let edge = turning(edge_tuned(driver, Tuning { busy_poll, ..Tuning::default() }));
        monoio::spawn(run(Rc::clone(&edge)));
        edge
    }

    fn polls(edge: &Edge) -> u64 {
        edge.counters.borrow().polls
    }

    #[test]
    fn a_shard_looks_on_after_work_and_then_sleeps() {
        on_each_driver(async |driver| {
            let edge = start(driver, Duration::from_millis(1));
            for _ in 0..100 {
                edge.turn.next().await;
            }
            assert_eq!(polls(&edge), 0, "{driver:?}: nothing has happened yet");
            let (_, peer) = open(&edge, "alice");
            socket::send(peer.as_raw_fd(), &PONG).unwrap();
            // It ends: else this never does. Then the bell is armed, so a ring is heard.
            let bell = edge.doors[0].bell();
            while polls(&edge) == 0 || !bell.ring() {
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            let before = polls(&edge);
            monoio::time::sleep(Duration::from_millis(20)).await;
            assert_eq!(polls(&edge), before, "{driver:?}: it sleeps");
            assert_eq!(edge.counters.borrow().reads, 1);
        });
    }

    #[test]
    fn what_is_left_while_a_shard_looks_is_found_without_a_ring() {
        on_each_driver(async |driver| {
            let edge = start(driver, Duration::from_secs(3_600));
            let _peer = open(&edge, "alice");
            while polls(&edge) == 0 {
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            let door = &edge.doors[0];
            assert!(!door.bell().ring(), "{driver:?}: nobody sleeps");
            let (sender, answers) = std::sync::mpsc::channel();
            let left = door.try_leave(Control::Report(Box::new(move |report| drop(sender.send(report)))));
            assert!(left.is_ok());
            while answers.try_recv().is_err() {
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }

    #[test]
    fn without_busy_polling_nobody_looks() {
        on_each_driver(async |driver| {
            let edge = start(driver, Duration::ZERO);
            let (_, peer) = open(&edge, "alice");
            socket::send(peer.as_raw_fd(), &PONG).unwrap();
            while edge.counters.borrow().reads == 0 {
                monoio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(polls(&edge), 0, "{driver:?}");
        });
    }
}
