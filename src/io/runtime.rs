//! The runtime of a shard: which driver this machine allows, and a thread's event loop on it.
//! Invariant: a ring is made on the thread that uses it, as `SINGLE_ISSUER` demands.
//!
//! `DEFER_TASKRUN` is absent on purpose: completions would wait for the thread to ask, and monoio
//! asks only when its run queue is empty.

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use std::future::Future;
use std::io;

/// Submission entries of one ring; more are submitted early.
const RING_ENTRIES: u32 = 4_096;

/// What the configuration asks for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Choice {
    /// The best that works.
    #[default]
    Auto,
    IoUring,
    Epoll,
}

/// What is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    /// io_uring with `SINGLE_ISSUER` and `COOP_TASKRUN`: no interrupts between processors.
    Ring,
    /// io_uring as any kernel has it.
    PlainRing,
    Epoll,
}

impl Driver {
    pub const fn name(self) -> &'static str {
        match self {
            Driver::Ring | Driver::PlainRing => "io_uring",
            Driver::Epoll => "epoll",
        }
    }

    pub const fn is_ring(self) -> bool {
        !matches!(self, Driver::Epoll)
    }
}

/// A choice that this machine does not allow.
#[derive(Debug)]
pub struct Refused {
    /// What failed and what to allow.
    pub message: String,
}

/// Finds the driver for `choice`, with one line to log when it is not the best there is.
pub fn probe(choice: Choice) -> Result<(Driver, Option<String>), Refused> {
    if choice == Choice::Epoll {
        return Ok((Driver::Epoll, None));
    }
    let Err(with_flags) = try_ring(&flags(Driver::Ring)) else {
        return Ok((Driver::Ring, None));
    };
    let Err(plain) = try_ring(&flags(Driver::PlainRing)) else {
        let line =
            format!("io_uring is used without SINGLE_ISSUER and COOP_TASKRUN ({with_flags}); Linux 6.0 has them");
        return Ok((Driver::PlainRing, Some(line)));
    };
    let line = format!("io_uring is refused ({plain}): {}", remedy(&plain));
    match choice {
        Choice::IoUring => Err(Refused { message: line }),
        _ => Ok((Driver::Epoll, Some(format!("{line}; epoll is used instead")))),
    }
}

/// What an operator has to allow.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp profile, \
             and set kernel.io_uring_disabled=0"
        }
        Some(libc::ENOSYS) => "it needs Linux 5.6 or later with CONFIG_IO_URING",
        Some(libc::ENOMEM) => "raise the limit on locked memory (LimitMEMLOCK=, ulimit -l)",
        Some(libc::EMFILE | libc::ENFILE) => "raise the limit on open files (LimitNOFILE=, ulimit -n)",
        _ => "see the kernel's log",
    }
}

fn flags(driver: Driver) -> io_uring::Builder {
    let mut builder = io_uring::IoUring::builder();
    if driver == Driver::Ring {
        builder.setup_single_issuer().setup_coop_taskrun();
    }
    builder
}

/// Makes a small ring and asks for what monoio and we submit. On a thread of its own: the kernel takes
/// a ring apart later and interrupts the thread that made it, whose next wait would end with `EINTR`.
fn try_ring(builder: &io_uring::Builder) -> io::Result<()> {
    std::thread::scope(|scope| scope.spawn(|| ask_ring(builder)).join()).expect("asking a ring does not panic")
}

fn ask_ring(builder: &io_uring::Builder) -> io::Result<()> {
    use io_uring::opcode::{AsyncCancel, Close, PollAdd, Timeout};
    let ring: io_uring::IoUring = builder.build(8)?;
    let mut probe = io_uring::Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [AsyncCancel::CODE, Close::CODE, PollAdd::CODE, Timeout::CODE];
    match needed.iter().all(|code| probe.is_supported(*code)) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
    }
}

/// Runs `future` and all that it spawns on this thread, until `future` ends.
pub fn block_on<F: Future>(driver: Driver, future: F) -> io::Result<F::Output> {
    match driver {
        Driver::Ring | Driver::PlainRing => {
            let builder = RuntimeBuilder::<IoUringDriver>::new();
            let builder = builder.with_entries(RING_ENTRIES).uring_builder(flags(driver));
            Ok(builder.enable_timer().build()?.block_on(future))
        }
        Driver::Epoll => {
            let builder = RuntimeBuilder::<LegacyDriver>::new();
            Ok(builder.enable_timer().build()?.block_on(future))
        }
    }
}

/// The drivers that this machine allows, for tests that must hold on each.
#[cfg(test)]
pub fn usable() -> Vec<Driver> {
    let ring = probe(Choice::IoUring).map(|(driver, _)| driver).ok();
    ring.into_iter().chain([Driver::Epoll]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An application that starts a gateway and then waits for something of its own.
    #[test]
    fn a_probe_does_not_interrupt_what_its_caller_waits_for_next() {
        let (reading, _writing) = std::os::unix::net::UnixStream::pair().unwrap();
        reading.set_read_timeout(Some(std::time::Duration::from_millis(20))).unwrap();
        for _ in 0..25 {
            let _ = probe(Choice::Auto).unwrap();
            let waited = io::Read::read(&mut &reading, &mut [0; 1]).unwrap_err();
            assert_eq!(waited.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn epoll_can_always_be_had_and_says_nothing() {
        let (driver, line) = probe(Choice::Epoll).unwrap();
        assert_eq!((driver, line), (Driver::Epoll, None));
        assert_eq!(block_on(Driver::Epoll, async { 7 }).unwrap(), 7);
    }

    #[test]
    fn every_usable_driver_waits_for_time() {
        for driver in usable() {
            let ended = block_on(driver, async {
                monoio::time::sleep(std::time::Duration::from_millis(2)).await;
                true
            });
            assert!(ended.unwrap(), "{driver:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_allow() {
        let remedy_of = |code| remedy(&io::Error::from_raw_os_error(code));
        assert!(remedy_of(libc::EPERM).contains("seccomp"));
        assert!(remedy_of(libc::ENOMEM).contains("locked memory"));
    }
}
