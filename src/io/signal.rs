//! A word from one task of a shard to another of the same thread.
//! Invariant: a signal that is raised is seen once by the next wait, also when nobody waits yet.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
    /// Whoever waited was woken and has not run.
    is_woken: Cell<bool>,
}

impl Signal {
    pub fn raise(&self) {
        self.raised.set(true);
        // Taken out first: a waker may run code of the scheduler, never under our borrow.
        let waiting = self.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            self.is_woken.set(true);
            waker.wake();
        }
    }

    /// Waits for the signal and lowers it. One task waits for a signal.
    pub async fn wait(&self) {
        poll_fn(|context| self.poll_wait(context)).await
    }

    /// The same, for a future of one's own.
    pub fn poll_wait(&self, context: &mut Context<'_>) -> Poll<()> {
        self.is_woken.set(false);
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// Whether somebody was woken and has not run since.
    pub fn is_woken(&self) -> bool {
        self.is_woken.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;

    #[test]
    fn a_signal_raised_before_the_wait_is_not_lost_and_counts_once() {
        let signal = Signal::default();
        let mut context = Context::from_waker(Waker::noop());
        signal.raise();
        signal.raise();
        assert!(pin!(signal.wait()).poll(&mut context).is_ready());
        let mut second = pin!(signal.wait());
        assert!(second.as_mut().poll(&mut context).is_pending());
        assert!(!signal.is_woken());
        signal.raise();
        assert!(signal.is_woken());
        assert!(second.poll(&mut context).is_ready());
        assert!(!signal.is_woken());
    }
}
