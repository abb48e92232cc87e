//! What the process asks of its system for its threads. Invariant: all of it is for speed or comfort;
//! whoever is refused goes on without.

use crate::base::limits::ACCEPTS_PER_TURN;
use crate::io::socket;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Descriptors that the system has places for from the start: eight bytes each of its memory.
const DESCRIPTORS_READY: u64 = 1 << 20;

/// Binds this thread to one processor.
pub fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: all zeroes is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu` lies inside the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the size is that of the set, and 0 names this thread.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The processors that this process may use.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: all zeroes is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the size is that of the set, and 0 names this thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every number lies inside the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect())
}

/// Lets threads run that wait for this processor, if any do.
pub fn give_way() {
    // SAFETY: takes nothing, and cannot fail here.
    unsafe { libc::sched_yield() };
}

/// Lets every other thread go first: for threads off the path of messages. Threads started later
/// from this one inherit it.
pub fn step_back() -> io::Result<()> {
    const NICENESS: i32 = 5;
    // SAFETY: takes three integers; 0 names this thread.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the soft limit on open files to the hard one and returns it: each connection is a
/// descriptor, and the soft limit is often 1,024.
pub fn raise_descriptors() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: one structure of ours, filled by the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the same structure, only read.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What the process takes of its system. What the system does not say is 0.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub cpu: Duration,
    pub resident_bytes: u64,
    /// Open descriptors, and how many there may be.
    pub files: u64,
    pub files_max: u64,
}

pub fn usage() -> Usage {
    // SAFETY: all zeroes is a valid value of both structures of plain numbers.
    let (mut used, mut limit): (libc::rusage, libc::rlimit) = unsafe { std::mem::zeroed() };
    // SAFETY: each call fills one structure of ours; on failure it stays zero.
    unsafe {
        libc::getrusage(libc::RUSAGE_SELF, &mut used);
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
    }
    // SAFETY: takes and gives an integer.
    let page_bytes = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0);
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1_000);
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|pages| pages.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    Usage {
        cpu: time(used.ru_utime) + time(used.ru_stime),
        resident_bytes: resident * page_bytes,
        files: files().unwrap_or(0),
        files_max: limit.rlim_cur,
    }
}

/// Open descriptors of this process.
fn files() -> io::Result<u64> {
    // Linux 6.2 and later say it at once; before, there are as many entries to walk.
    match fs::metadata("/proc/self/fd")?.len() {
        0 => Ok(fs::read_dir("/proc/self/fd")?.count() as u64),
        files => Ok(files),
    }
}

/// From which numbers on descriptors are few. Two shards that take many sockets at once do not get
/// from the first to the last number before either has looked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptors {
    /// Whoever waits longest goes for each newcomer.
    pub few_from: RawFd,
    /// Nobody comes any more: what is left is for the process itself.
    pub last_from: RawFd,
}

impl Descriptors {
    /// Of a process that may have `limit` and runs `shards`.
    pub fn of(limit: u64, shards: usize) -> Descriptors {
        let limit = RawFd::try_from(limit).unwrap_or(RawFd::MAX);
        let reserve = (ACCEPTS_PER_TURN * (shards + 1)) as RawFd;
        let reserve = reserve.min(limit / 16);
        Descriptors { few_from: limit - 2 * reserve, last_from: limit - reserve }
    }

    pub fn of_this_process(shards: usize) -> io::Result<Descriptors> {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: one structure of ours, filled by the call.
        match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } {
            0 => Ok(Descriptors::of(limit.rlim_cur, shards)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Has the system make its table of open files as large as it will ever be, at most
/// `DESCRIPTORS_READY`. Before other threads exist: later, each doubling of the table waits until
/// every processor has let go of the old one, and accepting stands still for tens of milliseconds.
pub fn widen_descriptors(limit: u64) -> io::Result<()> {
    let last = limit.min(DESCRIPTORS_READY).saturating_sub(1) as libc::c_int;
    let event = socket::event()?;
    // SAFETY: takes integers, and the descriptor is ours.
    let highest = unsafe { libc::fcntl(event.as_raw_fd(), libc::F_DUPFD_CLOEXEC, last) };
    if highest < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made it, and nobody else knows of it. The table stays as it is.
    drop(unsafe { OwnedFd::from_raw_fd(highest) });
    Ok(())
}

/// The system's clock that never goes back, microseconds: for who compares it with readings of its own.
pub fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: one structure of ours, filled by the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_bound_to_each_allowed_cpu() {
        for cpu in allowed_cpus().unwrap() {
            let bound = std::thread::spawn(move || {
                pin(cpu).unwrap();
                allowed_cpus().unwrap()
            });
            assert_eq!(bound.join().unwrap(), [cpu]);
        }
        assert!(pin(1 << 20).is_err());
    }

    #[test]
    fn the_monotonic_clock_goes_on() {
        let before = monotonic_us();
        std::thread::sleep(std::time::Duration::from_millis(2));
        assert!(monotonic_us() >= before + 2_000);
    }

    #[test]
    fn giving_way_comes_back() {
        give_way();
    }

    #[test]
    fn a_thread_may_always_step_back() {
        std::thread::spawn(|| step_back().unwrap()).join().unwrap();
    }

    #[test]
    fn what_the_process_takes_is_known() {
        let before = usage();
        let _file = fs::File::open("/proc/self/status").unwrap();
        let memory = vec![1u8; 8 << 20];
        while usage().cpu == before.cpu {}
        let after = usage();
        assert!(after.cpu > before.cpu && after.resident_bytes > 8 << 20, "{after:?} {}", memory.len());
        assert!((1..=after.files_max).contains(&after.files), "{after:?}");
    }

    #[test]
    fn the_soft_limit_on_files_becomes_the_hard_one() {
        assert_eq!(raise_descriptors().unwrap(), raise_descriptors().unwrap());
    }

    #[test]
    fn some_descriptors_are_kept_back() {
        let of = |limit, shards| {
            let Descriptors { few_from, last_from } = Descriptors::of(limit, shards);
            (few_from, last_from)
        };
        assert_eq!(of(20_000, 2), (20_000 - 384, 20_000 - 192));
        assert_eq!(of(64, 2), (56, 60));
        assert_eq!(of(u64::MAX, 1), (RawFd::MAX - 256, RawFd::MAX - 128));
        assert!(Descriptors::of_this_process(1).unwrap().few_from > 0);
    }

    #[test]
    fn the_table_of_files_is_as_large_as_the_limit() {
        let limit = raise_descriptors().unwrap();
        widen_descriptors(limit).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<u64>().unwrap() >= limit.min(DESCRIPTORS_READY));
    }
}
