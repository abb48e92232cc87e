//! Beside the floors: what the system must allow so that ringroom does what it is configured to.
//! `setting` declares what a profile may ask of the system, `bites` knows at how many connections
//! which limit ends it, `change` changes the system and takes the changes back.
//! Invariant: a value that serves already is never touched, and nothing is changed before its former
//! value is on disk.

mod advice;
mod bites;
mod cgroup;
mod change;
mod check;
mod machine;
mod profile;
mod setting;
mod unit;

pub use change::{Outcome, Plan, RECORD, apply, plan, undo};
pub use check::{Report, check};
pub use machine::Machine;
pub use profile::{Wanted, parse};
pub use setting::Setting;

/// What the gateway is configured to do, as far as the system is concerned.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The name of the profile.
    pub profile: String,
    /// For how many connections the system is judged.
    pub connections: u64,
    /// How many the configuration lets in.
    pub connections_max: u64,
    pub shards: u64,
    /// What one shard holds for readers at most, bytes.
    pub budget_bytes: u64,
    /// Fixed buffers of sockets, bytes.
    pub send_buffer_bytes: Option<u64>,
    pub receive_buffer_bytes: Option<u64>,
    /// Whether io_uring must work, and whether epoll is what was asked for.
    pub io: Io,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    Auto,
    IoUring,
    Epoll,
}

/// Descriptors of a gateway beside those of its connections: listeners, rings, bells, the ops port's
/// own clients, and the handshakes that end as no connection.
const DESCRIPTORS_BESIDE: u64 = 1_024;
const DESCRIPTORS_PER_SHARD: u64 = 64;
/// Open files of everything else on the machine.
const FILES_BESIDE: u64 = 65_536;
/// Tracked connections of everything else on the machine.
const TRACKED_BESIDE: u64 = 4_096;
/// Memory of one connection at rest, bytes: the system's socket with its file and its place in epoll
/// and tables, then ours (docs/benchmarks.md has both as they were measured).
const SYSTEM_BYTES_PER_CONNECTION: u64 = 10 * 1_024;
const OWN_BYTES_PER_CONNECTION: u64 = 1_024;
/// Memory of the process without connections, bytes.
const OWN_BYTES: u64 = 64 << 20;
/// Pages of socket buffers (`tcp_mem`) that one connection has in use: one message under way.
const TCP_PAGES_PER_CONNECTION: u64 = 1;

/// Pages that socket buffers may have of a machine with that much memory: half of it. Connections at
/// rest take more than the other half before they need these, so it is never what bites first.
fn tcp_pages_max(memory_bytes: u64) -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    memory_bytes / 2 / PAGE_BYTES
}

impl Needs {
    fn descriptors_beside(&self) -> u64 {
        DESCRIPTORS_BESIDE + self.shards * DESCRIPTORS_PER_SHARD
    }

    /// Descriptors of the process.
    fn descriptors(&self) -> u64 {
        self.connections + self.descriptors_beside()
    }

    /// Bytes that do not depend on connections: the process, and what shards hold for readers.
    fn bytes_beside(&self) -> u64 {
        OWN_BYTES.saturating_add(self.budget_bytes.saturating_mul(self.shards))
    }
}

/// A folder that stands for the whole system.
#[cfg(test)]
pub(crate) mod scratch {
    use super::{Io, Machine, Needs};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};

    pub struct Scratch(pub PathBuf);

    impl Scratch {
        pub fn new() -> Scratch {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("ringroom-tune-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }

        /// A machine whose limits are all too low for 100,000 connections, but for what is left out.
        pub fn small() -> Scratch {
            let scratch = Scratch::new();
            for (path, text) in [
                ("/proc/sys/net/core/somaxconn", "128\n"),
                ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "512\n"),
                ("/proc/sys/net/ipv4/tcp_syncookies", "1\n"),
                ("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "1\n"),
                ("/proc/sys/net/ipv4/tcp_mem", "1024\t2048\t4096\n"),
                ("/proc/sys/fs/file-max", "90000\n"),
                ("/proc/sys/fs/nr_open", "20000\n"),
                ("/proc/meminfo", "MemTotal:       65536000 kB\nMemFree: 1 kB\n"),
                ("/proc/self/limits", "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  10000  files\n"),
            ] {
                scratch.put(path, text);
            }
            scratch
        }

        pub fn machine(&self) -> Machine {
            Machine::at(&self.0)
        }

        pub fn path(&self, path: &str) -> PathBuf {
            self.0.join(path.trim_start_matches('/'))
        }

        pub fn put(&self, path: &str, text: &str) {
            let path = self.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        pub fn get(&self, path: &str) -> String {
            std::fs::read_to_string(self.path(path)).unwrap()
        }

        /// Every file and what it holds.
        pub fn all(&self) -> Vec<(PathBuf, String)> {
            fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
                for entry in std::fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    match path.is_dir() {
                        true => walk(&path, found),
                        false => found.push((path.clone(), std::fs::read_to_string(&path).unwrap())),
                    }
                }
            }
            let mut found = Vec::new();
            walk(&self.0, &mut found);
            found.sort();
            found
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    pub fn needs(connections: u64) -> Needs {
        Needs {
            profile: "default".into(),
            connections,
            connections_max: 1 << 21,
            shards: 2,
            budget_bytes: 512 << 20,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            io: Io::Auto,
        }
    }
}
