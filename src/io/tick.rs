//! The tick, one task per shard: time passes for the core and for sockets that say nothing.
//! Invariant: an idle shard turns at least once a second.

use crate::io::edge::Edge;
use crate::io::engine;
use crate::shard::Input;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

pub async fn run(edge: Rc<Edge>) {
    loop {
        let mut time = pin!(monoio::time::sleep(edge.until_tick()));
        // Whoever comes first, to an idle shard, may need it sooner than nobody did.
        poll_fn(|context| match edge.sooner.poll_wait(context) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => time.as_mut().poll(context),
        })
        .await;
        edge.clock.anchor();
        let over = edge.waiting.borrow_mut().sweep(edge.clock.now().at);
        for _ in 0..over {
            edge.refuse("handshake_time");
        }
        engine::sweep(&edge);
        edge.step(Input::Tick);
    }
}
