//! Turns: how a task that has more to do lets completions be looked at first.
//! A monoio task that wakes itself runs again at once, before everything else, so it must not; and
//! the driver is looked at only once the run queue is empty. So one task, the keeper, waits for an
//! operation that is ready as soon as the driver is asked, and then wakes all who wait for the turn.
//! Invariant: between [`Turn::next`] and its return every task that was ready has run and the
//! driver has been asked once.

use crate::io::runtime::Driver;
use crate::io::signal::Signal;
use crate::io::socket;
use monoio::net::TcpStream;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::pin;
use std::task::{Poll, Waker};

#[derive(Default)]
pub struct Turn {
    number: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    wanted: Signal,
}

impl Turn {
    pub async fn next(&self) {
        let asked_in = self.number.get();
        poll_fn(|context| {
            if self.number.get() != asked_in {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            self.wanted.raise();
            Poll::Pending
        })
        .await
    }

    /// The keeper's work; ends only with the runtime or with an error of the driver.
    pub async fn keep(&self, driver: Driver) -> io::Result<()> {
        let event = socket::event()?;
        let handle = event.try_clone()?;
        let waited = waitable(handle)?;
        if driver.is_ring() {
            socket::event_raise(&event);
        }
        let mut woken = Vec::new();
        loop {
            self.wanted.wait().await;
            if driver.is_ring() {
                // The event stays raised: the poll completes when the ring is entered.
                waited.readable(false).await?;
            } else {
                become_ready_at_next_look(&waited, &event).await?;
            }
            self.number.set(self.number.get() + 1);
            std::mem::swap(&mut woken, &mut *self.waiting.borrow_mut());
            woken.drain(..).for_each(Waker::wake);
        }
    }
}

/// The epoll driver answers from what it remembers and looks at the kernel only when nobody can
/// run. So: wait first, raise then, and the edge is found at the next look.
async fn become_ready_at_next_look(waited: &TcpStream, event: &OwnedFd) -> io::Result<()> {
    let mut ready = pin!(waited.readable(false));
    let mut raised = false;
    poll_fn(|context| {
        let polled = ready.as_mut().poll(context);
        if polled.is_pending() && !raised {
            raised = true;
            socket::event_raise(event);
        }
        polled
    })
    .await?;
    socket::event_clear(event.as_raw_fd());
    Ok(())
}

/// Any descriptor as something to wait for. Only readiness is ever asked of it: monoio has no type
/// for a bare descriptor, and its streams look at nothing but the number for that.
pub fn waitable(fd: OwnedFd) -> io::Result<TcpStream> {
    TcpStream::from_std(std::net::TcpStream::from(fd))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::runtime;
    use std::rc::Rc;

    #[test]
    fn others_run_and_completions_are_seen_between_two_turns() {
        for driver in runtime::usable() {
            runtime::block_on(driver, async move {
                let turn = Rc::new(Turn::default());
                monoio::spawn({
                    let turn = Rc::clone(&turn);
                    async move { turn.keep(driver).await }
                });
                // A socket that becomes readable while a busy task takes turn after turn.
                let (mine, yours) = std::os::unix::net::UnixStream::pair().unwrap();
                let seen = Rc::new(Cell::new(false));
                monoio::spawn({
                    let seen = Rc::clone(&seen);
                    let mine = waitable(mine.into()).unwrap();
                    async move {
                        mine.readable(false).await.unwrap();
                        seen.set(true);
                    }
                });
                turn.next().await;
                assert!(!seen.get());
                socket::send(yours.as_raw_fd(), b"x").unwrap();
                // One look to find the completion, one more for the task to have run.
                turn.next().await;
                turn.next().await;
                assert!(seen.get(), "{driver:?}");
            })
            .unwrap();
        }
    }
}
