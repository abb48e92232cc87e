//! The reader, two tasks per shard: one notes which sockets became ready, the other reads them, those
//! whose handshake is under way among them, and none waits for a socket of its own, so an idle connection costs its row and nothing else.
//! Invariant: whatever is ready is read in the order it became so, at most `read_bytes_per_turn` of
//! each connection and `reads_per_turn` connections before others have their turn.

use crate::io::edge::Edge;
use crate::io::{engine, handshake, turn};
use std::io;
use std::rc::Rc;

/// Waits for any socket; ends only with an error of the driver.
pub async fn watch(edge: Rc<Edge>) -> io::Result<()> {
    let ready = turn::waitable(edge.readiness()?)?;
    loop {
        ready.readable(false).await?;
        edge.look();
        if !edge.driver.is_ring() {
            // The ring is asked by the next wait; epoll would answer it from memory.
            edge.turn.next().await;
        }
    }
}

pub async fn run(edge: Rc<Edge>) {
    loop {
        edge.reading.wait().await;
        // All: neither connections nor newcomers nor who polls wait until the others have nothing.
        while edge.read() | handshake::hear_some(&edge) | engine::hear_some(&edge) {
            edge.turn.next().await;
        }
    }
}
