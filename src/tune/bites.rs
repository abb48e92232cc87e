//! At how many connections each limit ends it. Invariant: a limit that cannot be read ends nothing,
//! and what a limit needs is what makes it end nothing below the connections asked for.

use super::cgroup::{MEMORY, allowed_by_groups};
use super::machine::Machine;
use super::unit::unit;
use super::{
    FILES_BESIDE, Needs, OWN_BYTES_PER_CONNECTION, SYSTEM_BYTES_PER_CONNECTION, TCP_PAGES_PER_CONNECTION,
    TRACKED_BESIDE, tcp_pages_max,
};
use serde::Serialize;

/// A limit, and the number of connections that it ends at.
#[derive(Serialize, Debug)]
pub struct Bite {
    pub connections: u64,
    /// As a profile or the configuration calls it, where one does.
    pub name: &'static str,
    pub is: String,
    pub needed: String,
    pub why: &'static str,
    /// One command or one change.
    pub remedy: String,
}

const APPLY: &str = "ringroom tune apply";
const BYTES_PER_CONNECTION: u64 = SYSTEM_BYTES_PER_CONNECTION + OWN_BYTES_PER_CONNECTION;

/// The limits that bite below `needs.connections`, in the order in which they do.
pub fn bites(machine: &Machine, needs: &Needs) -> Vec<Bite> {
    let readers: [fn(&Machine, &Needs) -> Option<Bite>; 8] =
        [own, descriptors, nr_open, file_max, memory, cgroup_memory, tcp_memory, tracked];
    let all = readers.into_iter().filter_map(|read| read(machine, needs));
    let mut biting: Vec<Bite> = all.filter(|bite| bite.connections < needs.connections).collect();
    biting.sort_by_key(|bite| bite.connections);
    biting
}

fn own(_: &Machine, needs: &Needs) -> Option<Bite> {
    Some(Bite {
        connections: needs.connections_max,
        name: "limits.conns_per_shard",
        is: format!("{} on {} shards", needs.connections_max / needs.shards.max(1), needs.shards),
        needed: needs.connections.div_ceil(needs.shards.max(1)).to_string(),
        why: "the configuration lets no more in",
        remedy: "raise limits.conns_per_shard, or server.shards".into(),
    })
}

fn descriptors(machine: &Machine, needs: &Needs) -> Option<Bite> {
    let (limit, remedy) = match unit(machine) {
        Some(unit) => (unit.descriptors, APPLY.to_owned()),
        // Without a service it is started from a shell such as this one.
        None => (hard_limit(machine)?, format!("ulimit -Hn {}", needs.descriptors())),
    };
    Some(Bite {
        connections: limit.saturating_sub(needs.descriptors_beside()),
        name: "limits.nofile",
        is: limit.to_string(),
        needed: needs.descriptors().to_string(),
        why: "each connection is an open file of the process",
        remedy,
    })
}

/// The hard limit on open files of this process. `None`: it is not shown, or there is none.
fn hard_limit(machine: &Machine) -> Option<u64> {
    let limits = machine.text("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn nr_open(machine: &Machine, needs: &Needs) -> Option<Bite> {
    let most = machine.number("/proc/sys/fs/nr_open")?;
    Some(Bite {
        connections: most.saturating_sub(needs.descriptors_beside()),
        name: "fs.nr_open",
        is: most.to_string(),
        needed: needs.descriptors().to_string(),
        why: "no process can be allowed more open files than this",
        remedy: format!("sysctl -w fs.nr_open={}", needs.descriptors()),
    })
}

fn file_max(machine: &Machine, needs: &Needs) -> Option<Bite> {
    let most = machine.number("/proc/sys/fs/file-max")?;
    let needed = needs.descriptors() + FILES_BESIDE;
    Some(Bite {
        connections: most.saturating_sub(needs.descriptors_beside() + FILES_BESIDE),
        name: "fs.file-max",
        is: most.to_string(),
        needed: needed.to_string(),
        why: "all processes together may have this many files open",
        remedy: format!("sysctl -w fs.file-max={needed}"),
    })
}

fn memory(machine: &Machine, needs: &Needs) -> Option<Bite> {
    let bytes = machine.memory_bytes()?;
    Some(of_memory("MemTotal", "this is all of the machine's memory", bytes, needs))
}

fn cgroup_memory(machine: &Machine, needs: &Needs) -> Option<Bite> {
    let bytes = match unit(machine) {
        Some(unit) => unit.memory_bytes?,
        None => allowed_by_groups(machine, &MEMORY)?,
    };
    Some(of_memory("MemoryMax", "beyond it the system kills the service", bytes, needs))
}

fn of_memory(name: &'static str, why: &'static str, bytes: u64, needs: &Needs) -> Bite {
    let needed = needs.connections.saturating_mul(BYTES_PER_CONNECTION).saturating_add(needs.bytes_beside());
    Bite {
        connections: bytes.saturating_sub(needs.bytes_beside()) / BYTES_PER_CONNECTION,
        name,
        is: mebibytes(bytes),
        needed: mebibytes(needed),
        why,
        remedy: format!(
            "give it {}, or lower memory.budget_bytes ({} a shard are reserved for readers that fall behind)",
            mebibytes(needed),
            mebibytes(needs.budget_bytes)
        ),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn tcp_memory(machine: &Machine, needs: &Needs) -> Option<Bite> {
    let numbers = machine.text("/proc/sys/net/ipv4/tcp_mem")?;
    let most: u64 = numbers.split_whitespace().nth(2)?.parse().ok()?;
    let needed = needs.connections * TCP_PAGES_PER_CONNECTION;
    let can_have = machine.memory_bytes().is_none_or(|bytes| needed <= tcp_pages_max(bytes));
    let (low, pressure) = (needed / 2, needed / 4 * 3);
    Some(Bite {
        connections: most / TCP_PAGES_PER_CONNECTION,
        name: "net.ipv4.tcp_mem",
        is: format!("{most} pages"),
        needed: format!("{needed} pages"),
        why: "with one message under way on each, TCP has no more memory and drops what arrives",
        remedy: match can_have {
            true => format!("sysctl -w net.ipv4.tcp_mem=\"{low} {pressure} {needed}\""),
            false => "add memory: that many pages are more than half of what there is".into(),
        },
    })
}

fn tracked(machine: &Machine, needs: &Needs) -> Option<Bite> {
    let most = machine.number("/proc/sys/net/netfilter/nf_conntrack_max")?;
    let needed = needs.connections + TRACKED_BESIDE;
    Some(Bite {
        connections: most.saturating_sub(TRACKED_BESIDE),
        name: "net.netfilter.nf_conntrack_max",
        is: most.to_string(),
        needed: needed.to_string(),
        why: "the firewall tracks connections and drops packets of those that find no entry",
        remedy: format!("sysctl -w net.netfilter.nf_conntrack_max={needed}"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{Scratch, needs};
    use super::*;

    fn of(scratch: &Scratch, connections: u64) -> Vec<(&'static str, u64)> {
        let found = bites(&scratch.machine(), &needs(connections));
        found.into_iter().map(|bite| (bite.name, bite.connections)).collect()
    }

    #[test]
    fn limits_come_in_the_order_in_which_they_bite_and_only_below_the_connections_asked_for() {
        let scratch = Scratch::small();
        let all =
            [("net.ipv4.tcp_mem", 4_096), ("limits.nofile", 8_848), ("fs.nr_open", 18_848), ("fs.file-max", 23_312)];
        assert_eq!(of(&scratch, 100_000), all);
        assert_eq!(of(&scratch, 20_000), all[..3]);
        assert_eq!(of(&scratch, 4_097), all[..1]);
        assert_eq!(of(&scratch, 4_096), []);
    }

    #[test]
    fn what_a_limit_needs_is_just_enough() {
        let scratch = Scratch::small();
        for connections in [1, 5_000, 100_000, 2_000_000] {
            let needs = needs(connections);
            let value = |numbers: u64| format!("{numbers}\n");
            scratch.put("/proc/sys/fs/nr_open", &value(needs.descriptors()));
            scratch.put("/proc/sys/fs/file-max", &value(needs.descriptors() + FILES_BESIDE));
            scratch.put("/proc/sys/net/netfilter/nf_conntrack_max", &value(connections + TRACKED_BESIDE));
            scratch.put("/proc/sys/net/ipv4/tcp_mem", &format!("1 2 {connections}"));
            scratch.put("/proc/self/limits", &format!("Max open files 1 {} files", needs.descriptors()));
            assert_eq!(of(&scratch, connections), [], "{connections}");
        }
    }

    #[test]
    fn our_own_limit_and_memory_bite_too() {
        let scratch = Scratch::new();
        assert_eq!(of(&scratch, 3_000_000), [("limits.conns_per_shard", 1 << 21)]);
        scratch.put("/proc/meminfo", "MemTotal: 2097152 kB");
        assert_eq!(of(&scratch, 100_000), [("MemTotal", ((2 << 30) - (64 << 20) - (1 << 30)) / 11_264)]);
        // Less than what is reserved for readers.
        scratch.put("/proc/meminfo", "MemTotal: 65536 kB");
        assert_eq!(of(&scratch, 1), [("MemTotal", 0)]);
    }

    #[test]
    fn memory_is_that_of_the_unit_or_of_the_tightest_group_above() {
        let scratch = Scratch::new();
        scratch.put("/proc/self/cgroup", "9:memory:/a\n0::/x/y\n");
        scratch.put("/sys/fs/cgroup/x/memory.max", "1073741824\n");
        scratch.put("/sys/fs/cgroup/x/y/memory.max", "max\n");
        scratch.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(of(&scratch, 10), [("MemoryMax", 0)]);
        scratch.put("/etc/systemd/system/ringroom.service", "[Service]\nMemoryMax=64G\n");
        assert_eq!(of(&scratch, 100_000), []);
    }

    #[test]
    fn the_unit_counts_instead_of_the_shell_once_it_is_there() {
        let scratch = Scratch::new();
        scratch.put("/proc/self/limits", "Max open files 1024 4096 files");
        let bite = &bites(&scratch.machine(), &needs(10_000))[0];
        assert_eq!((bite.connections, bite.remedy.as_str()), (2_944, "ulimit -Hn 11152"));
        scratch.put("/usr/lib/systemd/system/ringroom.service", "[Service]\nLimitNOFILE=8192\n");
        let bite = &bites(&scratch.machine(), &needs(10_000))[0];
        assert_eq!((bite.connections, bite.remedy.as_str()), (7_040, APPLY));
        scratch.put("/proc/self/limits", "Max open files 1024 unlimited files");
        assert_eq!(hard_limit(&scratch.machine()), None);
    }
}
