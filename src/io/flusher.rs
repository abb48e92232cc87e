//! The flusher, one task per shard: at the end of a turn it rings the bells of other shards and
//! writes what the turn queued, one gathered write per connection. It is woken by the first effect
//! and runs behind the reads that are ready with it, so what several of them queue for one
//! connection leaves in one write. Invariant: at most `WRITES_PER_TURN` writes between two looks at
//! completions, so a large room does not hold up who writes to a small one.

use crate::io::edge::Edge;
use crate::io::egress::Direct;
use std::rc::Rc;

pub async fn run(edge: Rc<Edge>) {
    let mut egress = Direct::default();
    loop {
        edge.flush.wait().await;
        loop {
            edge.exchange();
            if !edge.flush(&mut egress) {
                break;
            }
            edge.turn.next().await;
        }
    }
}
