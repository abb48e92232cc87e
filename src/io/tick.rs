//! The tick, one task per shard: time passes for the core and for sockets that say nothing.
//! Invariant: an idle shard turns at least once a second.

use crate::io::edge::Edge;
use crate::io::engine;
use crate::shard::Input;
use std::rc::Rc;

pub async fn run(edge: Rc<Edge>) {
    loop {
        monoio::time::sleep(edge.until_tick()).await;
        edge.clock.anchor();
        let over = edge.waiting.borrow_mut().sweep(edge.clock.now().at);
        for _ in 0..over {
            edge.refuse("handshake_time");
        }
        engine::sweep(&edge);
        edge.step(Input::Tick);
    }
}
