//! What control groups allow. Invariant: a group allows no more than those above it.

use super::Machine;

/// Where one kind of limit stands, in both versions of control groups.
pub struct Limit {
    file: &'static str,
    controller_v1: &'static str,
    file_v1: &'static str,
}

pub const MEMORY: Limit = Limit { file: "memory.max", controller_v1: "memory", file_v1: "memory.limit_in_bytes" };
pub const TASKS: Limit = Limit { file: "pids.max", controller_v1: "pids", file_v1: "pids.max" };

/// The least that this process's group and those above it allow. `None`: no limit.
pub fn allowed_by_groups(machine: &Machine, limit: &Limit) -> Option<u64> {
    let groups = machine.text("/proc/self/cgroup")?;
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(mut path)) = (parts.next(), parts.next()) else { continue };
        let (folder, file) = match controllers {
            "" => ("/sys/fs/cgroup".to_owned(), limit.file),
            name if name == limit.controller_v1 => (format!("/sys/fs/cgroup/{name}"), limit.file_v1),
            _ => continue,
        };
        loop {
            path = path.trim_end_matches('/');
            let allowed = machine.number(&format!("{folder}{path}/{file}"));
            least = least.into_iter().chain(allowed).min();
            match path.rsplit_once('/') {
                Some((above, _)) => path = above,
                None => break,
            }
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn the_tightest_group_above_counts_in_either_version() {
        let scratch = Scratch::new();
        assert_eq!(allowed_by_groups(&scratch.machine(), &MEMORY), None);
        scratch.put("/proc/self/cgroup", "9:memory:/a\n8:pids:/a/b\n0::/x/y\nnonsense\n");
        scratch.put("/sys/fs/cgroup/x/memory.max", "1073741824\n");
        scratch.put("/sys/fs/cgroup/x/y/memory.max", "max\n");
        scratch.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        scratch.put("/sys/fs/cgroup/pids/a/pids.max", "100\n");
        scratch.put("/sys/fs/cgroup/pids/a/b/pids.max", "200\n");
        assert_eq!(allowed_by_groups(&scratch.machine(), &MEMORY), Some(1 << 30));
        assert_eq!(allowed_by_groups(&scratch.machine(), &TASKS), Some(100));
    }
}
