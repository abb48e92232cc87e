//! The flusher, one task per shard: at the end of a turn it rings the bells of other shards and
//! writes what the turn queued, one gathered write per connection. It is woken by the first effect
//! and runs behind the reads that are ready with it, so what several of them queue for one
//! connection leaves in one write. Invariant: at most `writes_per_turn` writes between two looks at
//! completions, so a large room does not hold up who is read from.

use crate::base::limits::MAILS_PER_TURN;
use crate::io::edge::Edge;
use crate::io::egress::{Direct, Egress};
use crate::io::process;
use crate::io::ring::Ring;
use std::rc::Rc;

pub async fn run(edge: Rc<Edge>) {
    if edge.driver.is_ring() {
        match Ring::new(edge.tuning.writes_per_turn) {
            Ok(ring) => return flush(edge, ring).await,
            Err(error) => log::warn!("a system call for each write: {error}"),
        }
    }
    flush(edge, Direct::default()).await;
}

async fn flush(edge: Rc<Edge>, mut egress: impl Egress) {
    loop {
        edge.flush.wait().await;
        loop {
            edge.exchange();
            if edge.sharers > 1 && edge.is_crowd_due() {
                // The others of this processor go on now, or their part of the same messages comes
                // too late to leave with ours. What that makes for them is rung for when we give way
                // again: sooner, it would only interrupt us.
                process::give_way();
                edge.take_mail(MAILS_PER_TURN);
            }
            if !edge.flush(&mut egress) {
                break;
            }
            edge.turn.next().await;
        }
    }
}

/// Lets each crowd go that waited for more to join its writes: a task of its own, so that nobody else
/// waits with it.
pub async fn release(edge: Rc<Edge>) {
    loop {
        edge.held.wait().await;
        while let Some(left) = edge.until_let_go() {
            monoio::time::sleep(left).await;
            edge.let_go();
        }
    }
}
