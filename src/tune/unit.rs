//! What the service's unit allows. Invariant: files are read in the order in which systemd lays them
//! over one another, so the last value of a key is the one that counts.

use super::Machine;

/// Where units are looked for, the most important folder first.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const NAME: &str = "ringroom.service";
/// What systemd gives a service that says nothing.
const DESCRIPTORS_DEFAULT: u64 = 524_288;

pub struct Unit {
    /// The hard limit on open files; the gateway raises the soft one itself.
    pub descriptors: u64,
    pub memory_bytes: Option<u64>,
    pub tasks: Option<u64>,
}

/// The unit of this machine, if the service is installed.
pub fn unit(machine: &Machine) -> Option<Unit> {
    let main = FOLDERS.iter().map(|folder| format!("{folder}/{NAME}")).find(|path| machine.exists(path))?;
    let mut drop_ins: Vec<(String, String)> = Vec::new();
    for folder in FOLDERS {
        let folder = format!("{folder}/{NAME}.d");
        for name in machine.names(&folder) {
            // A file hides those of the same name in less important folders.
            if name.ends_with(".conf") && !drop_ins.iter().any(|(known, _)| *known == name) {
                drop_ins.push((name.clone(), format!("{folder}/{name}")));
            }
        }
    }
    drop_ins.sort();
    let mut unit = Unit { descriptors: DESCRIPTORS_DEFAULT, memory_bytes: None, tasks: None };
    for path in std::iter::once(main).chain(drop_ins.into_iter().map(|(_, path)| path)) {
        for line in machine.text(&path).unwrap_or_default().lines() {
            match line.trim().split_once('=') {
                Some(("LimitNOFILE", value)) => {
                    // `soft:hard`, or one for both.
                    let hard = value.rsplit(':').next().unwrap_or(value);
                    unit.descriptors = amount(hard).unwrap_or(u64::MAX);
                }
                Some(("MemoryMax", value)) => unit.memory_bytes = amount(value),
                Some(("TasksMax", value)) => unit.tasks = amount(value),
                _ => {}
            }
        }
    }
    Some(unit)
}

/// `64M` as a number. `None`: no limit, or one that is a share of the machine.
fn amount(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn a_unit_is_read_with_its_drop_ins_and_the_last_value_counts() {
        let scratch = Scratch::new();
        assert!(unit(&scratch.machine()).is_none());
        scratch.put("/usr/lib/systemd/system/ringroom.service", "[Service]\nLimitNOFILE=1024:65536\nMemoryMax=2G\n");
        let read = || unit(&scratch.machine()).unwrap();
        assert_eq!((read().descriptors, read().memory_bytes, read().tasks), (65_536, Some(2 << 30), None));
        scratch.put("/usr/lib/systemd/system/ringroom.service.d/50-a.conf", "[Service]\nLimitNOFILE=70000\n");
        scratch.put("/etc/systemd/system/ringroom.service.d/60-b.conf", "[Service]\nLimitNOFILE=80000\nTasksMax=64\n");
        assert_eq!((read().descriptors, read().tasks), (80_000, Some(64)));
        scratch.put("/etc/systemd/system/ringroom.service.d/50-a.conf", "# hides the other\n");
        scratch.put("/etc/systemd/system/ringroom.service.d/60-b.conf", "[Service]\nMemoryMax=infinity\n");
        assert_eq!((read().descriptors, read().memory_bytes), (65_536, None));
    }
}
