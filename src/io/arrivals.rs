//! What other threads left for this shard: mail in the lanes, room in lanes that were full, and
//! controls. One task, woken by the shard's bell. Invariant: it sleeps only after it said so and
//! then found nothing, so whatever is left afterwards comes with a ring.

use crate::base::limits::MAILS_PER_TURN;
use crate::io::audit::Told;
use crate::io::bell::Bell;
use crate::io::control::Control;
use crate::io::edge::Edge;
use crate::io::engine;
use crate::io::socket;
use crate::io::{handshake, streams, turn};
use crate::kernel::ids::ShardId;
use crate::shard::Input;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;

pub async fn run(edge: Rc<Edge>, bell: &Bell) -> io::Result<()> {
    let heard = turn::waitable(bell.handle()?)?;
    loop {
        let is_more = edge.take_mail(MAILS_PER_TURN);
        take_controls(&edge);
        if is_more {
            edge.turn.next().await;
            continue;
        }
        bell.arm();
        if edge.has_arrivals() {
            bell.disarm();
            edge.turn.next().await;
            continue;
        }
        heard.readable(false).await?;
        socket::event_clear(heard.as_raw_fd());
    }
}

pub fn take_controls(edge: &Rc<Edge>) {
    // The queue is bounded, and each control is small work.
    while let Some(control) = edge.controls.take() {
        match control {
            Control::HandOff(newcomer) => handshake::take_over(edge, *newcomer),
            Control::Asks(asking) => engine::take_over(edge, *asking),
            Control::Emits(emitting) => streams::take_over(edge, *emitting),
            Control::Entrance(entrance) => *edge.entrance.borrow_mut() = entrance,
            Control::Tls(served) => *edge.tls.borrow_mut() = Some(served),
            Control::Limits(limits) => edge.step(Input::Limits(limits)),
            Control::Drain(pace) => edge.drain(pace),
            Control::Verifier(verifier) => edge.step(Input::Verifier(verifier)),
            Control::Policy(policy) => edge.step(Input::Policy(policy)),
            Control::Revoke(revocations) => {
                // All shards are told the same; one of them tells of it.
                if edge.id == ShardId(0) {
                    edge.audit.tell(edge.clock.now(), || Told::Revoked(Arc::clone(&revocations)));
                }
                edge.step(Input::Revoke { revocations: &revocations });
            }
            Control::Report(reply) => reply(edge.report()),
            Control::Stop => edge.stop.raise(),
        }
    }
}
