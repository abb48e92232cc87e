//! A listener of one shard: takes sockets and begins their handshakes.
//! Invariant: no error of one socket ends the loop; want of descriptors costs whoever waits longest
//! its own, and where nobody waits, as for want of memory, the loop pauses.

use crate::base::limits::ACCEPTS_PER_TURN;
use crate::io::edge::Edge;
use crate::io::signal::Signal;
use crate::io::stream::Stream;
use crate::io::{handshake, socket};
use monoio::net::TcpListener;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// When the process has no descriptor left: others must close theirs first.
const PAUSE: Duration = Duration::from_millis(100);

/// Listens from the call on: a drain, or a question whether anybody listens, may come before the first turn of
/// what is given back. `is_secured`: whoever comes speaks TLS.
pub fn run(edge: Rc<Edge>, listener: std::net::TcpListener, is_secured: bool) -> impl Future<Output = io::Result<()>> {
    let leaving = Rc::new(Signal::default());
    edge.leaving.borrow_mut().push(Rc::clone(&leaving));
    async move {
        let listener = TcpListener::from_std(listener)?;
        // Waiting and taking apart: the socket of an accept in the ring would come without
        // close-on-exec, and one that was given up could have taken a connection with it.
        while is_waited_for(&listener, &leaving).await? {
            match take(&edge, &listener, is_secured) {
                Ok(()) => edge.turn.next().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if is_want_of_descriptors(&error) && handshake::spare_a_descriptor(&edge) => {
                    edge.turn.next().await;
                }
                Err(error) => {
                    edge.count(|counters| counters.accept_failures += 1);
                    log::warn!("shard {}: cannot accept: {error}; trying again in {PAUSE:?}", edge.id.0);
                    monoio::time::sleep(PAUSE).await;
                }
            }
        }
        Ok(())
    }
}

/// Waits for a connection; false: none is to be taken any more.
async fn is_waited_for(listener: &TcpListener, leaving: &Signal) -> io::Result<bool> {
    let mut ready = pin!(listener.readable(false));
    poll_fn(|context| match leaving.poll_wait(context) {
        Poll::Ready(()) => Poll::Ready(Ok(false)),
        Poll::Pending => ready.as_mut().poll(context).map_ok(|()| true),
    })
    .await
}

/// Takes a bounded number of sockets; an error when there is none or none can be had.
fn take(edge: &Rc<Edge>, listener: &TcpListener, is_secured: bool) -> io::Result<()> {
    for _ in 0..ACCEPTS_PER_TURN {
        match socket::accept(listener.as_raw_fd()) {
            Ok((socket, peer)) => {
                edge.count(|counters| counters.accepted += 1);
                edge.worked.raise();
                let socket = match (is_secured, &*edge.tls.borrow()) {
                    (false, _) => socket.into(),
                    (true, Some(served)) => Stream::secured(socket, served),
                    (true, None) => unreachable!("who listens for TLS has something to speak it with"),
                };
                handshake::begin(edge, socket, peer);
            }
            Err(error) if is_of_one_socket(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Errors that `accept(2)` hands on from a connection that died in the queue.
fn is_of_one_socket(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::edge::sample::{edge, on_each_driver};
    use crate::shard::DrainPace;

    #[test]
    fn a_listener_listens_and_can_be_told_to_go_before_its_first_turn() {
        on_each_driver(async |driver| {
            let edge = edge(driver);
            assert_eq!(edge.report().edge.listening, 0);
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let running = run(Rc::clone(&edge), listener, false);
            assert_eq!(edge.report().edge.listening, 1);
            edge.drain(DrainPace { conns_per_s: 1, over: Duration::ZERO, retry: Duration::ZERO });
            running.await.unwrap();
        });
    }
}
