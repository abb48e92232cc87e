//! A word from one task of a shard to another of the same thread.
//! Invariant: a signal that is raised is seen once by the next wait, also when nobody waits yet.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    pub fn raise(&self) {
        self.raised.set(true);
        // Taken out first: a waker may run code of the scheduler, never under our borrow.
        let waiting = self.waiting.borrow_mut().take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Waits for the signal and lowers it. One task waits for a signal.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn a_signal_raised_before_the_wait_is_not_lost_and_counts_once() {
        let signal = Signal::default();
        let mut context = Context::from_waker(Waker::noop());
        signal.raise();
        signal.raise();
        assert!(pin!(signal.wait()).poll(&mut context).is_ready());
        let mut second = pin!(signal.wait());
        assert!(second.as_mut().poll(&mut context).is_pending());
        signal.raise();
        assert!(second.poll(&mut context).is_ready());
    }
}
