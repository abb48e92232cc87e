//! Bells: how one thread wakes another that sleeps in its driver. One per shard, an eventfd that a
//! task of the shard waits for like for any socket.
//! Invariant: whoever puts something where the sleeper looks and then rings, wakes it or finds it
//! awake and about to look. A bell that nobody waits for costs a fence and a load, no system call.
//!
//! Why no wake-up is lost. The sleeper arms (store), fences, looks. The ringer puts (store), fences,
//! takes the arm (swap). Both fences are SeqCst, so one comes first. If the sleeper's is first, the
//! ringer sees the bell armed and writes. If the ringer's is first, the sleeper's look sees what was
//! put, and it does not sleep. (Both may happen: then one ring is for nothing.)

use crate::io::socket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

// Its own cache line: ringers look at it in every turn.
#[repr(align(64))]
pub struct Bell {
    armed: AtomicBool,
    event: OwnedFd,
}

impl Bell {
    pub fn new() -> io::Result<Bell> {
        Ok(Bell { armed: AtomicBool::new(false), event: socket::event()? })
    }

    /// The sleeper says that it is about to look for the last time before it sleeps.
    pub fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The sleeper says that it will not sleep. A ring that is already under way wakes it once more.
    pub fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }

    /// Wakes the sleeper if it sleeps or is about to: after putting something where it looks.
    /// Returns whether a system call was needed.
    pub fn ring(&self) -> bool {
        fence(Ordering::SeqCst);
        // The load first: a swap takes the line for writing although almost always nobody sleeps.
        if !self.armed.load(Ordering::Relaxed) || !self.armed.swap(false, Ordering::Relaxed) {
            return false;
        }
        socket::event_raise(&self.event);
        true
    }

    /// The descriptor that turns readable, a second handle that the waiting side owns.
    pub fn handle(&self) -> io::Result<OwnedFd> {
        self.event.try_clone()
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    /// Long enough that only a lost wake-up reaches it.
    const LOST_MS: i32 = 30_000;

    fn sleep(bell: &Bell) -> bool {
        let mut event = libc::pollfd { fd: bell.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one entry, on the stack.
        let ready = unsafe { libc::poll(&mut event, 1, LOST_MS) };
        socket::event_clear(bell.as_fd().as_raw_fd());
        ready == 1
    }

    #[test]
    fn a_bell_that_nobody_waits_for_makes_no_call() {
        let bell = Bell::new().unwrap();
        assert!(!bell.ring());
        bell.arm();
        assert!(bell.ring());
        assert!(!bell.ring(), "one ring wakes");
        bell.arm();
        bell.disarm();
        assert!(!bell.ring());
    }

    #[test]
    fn no_wakeup_is_lost_between_two_threads() {
        const ITEMS: u32 = 200_000;
        let bell = Arc::new(Bell::new().unwrap());
        let (mut producer, mut consumer) = rtrb::RingBuffer::<u32>::new(ITEMS as usize);
        let ringer = std::thread::spawn({
            let bell = Arc::clone(&bell);
            move || {
                for item in 0..ITEMS {
                    producer.push(item).expect("the ring holds them all");
                    bell.ring();
                    // Pauses of many lengths meet the sleeper at every step of its way to sleep.
                    for _ in 0..item % 61 {
                        std::hint::spin_loop();
                    }
                }
            }
        });
        let mut next = 0;
        while next < ITEMS {
            while let Ok(item) = consumer.pop() {
                assert_eq!(item, next);
                next += 1;
            }
            bell.arm();
            if consumer.is_empty() && next < ITEMS {
                assert!(sleep(&bell), "a wake-up was lost before item {next}");
            } else {
                bell.disarm();
            }
        }
        ringer.join().unwrap();
    }
}
