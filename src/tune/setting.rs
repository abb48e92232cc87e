//! What a profile may ask of the system, once: parser, check, apply and docs/tuning.md read it here.
//! Invariant: a setting that cannot be judged on this machine asks for nothing.

use super::advice::{self, Advised};
use super::machine::Machine;
use super::profile::Value;
use super::{FILES_BESIDE, Needs, TCP_PAGES_PER_CONNECTION, TRACKED_BESIDE, tcp_pages_max, unit};
use std::fmt;

pub struct Setting {
    /// As a profile calls it.
    pub name: &'static str,
    pub place: Place,
    pub takes: Takes,
    pub why: &'static str,
    pub effect: &'static str,
    pub undo: &'static str,
}

pub enum Place {
    /// Below `/proc/sys`, by its name.
    Sysctl,
    /// A file of the kernel's that shows all words and brackets the one that holds.
    Choice(&'static str),
    /// The service's limit on open files.
    Descriptors,
    /// Only told.
    Advice(fn(&Machine, &Needs, &Value) -> Vec<Advised>),
}

pub enum Takes {
    /// A least number, and what the connections need where a profile says `auto`.
    AtLeast(Option<fn(&Needs) -> u64>),
    /// The third of three numbers, pages.
    PagesAtLeast(fn(&Needs) -> u64),
    AtMost,
    OneOf(&'static [&'static str]),
}

/// How a setting stands.
#[derive(PartialEq, Eq, Debug)]
pub enum State {
    Serves,
    /// What is, what would serve as people read it, and what to write.
    Lacks {
        is: String,
        wanted: String,
        write: String,
    },
    /// This kernel or container has no such thing.
    Absent,
    Unreadable(String),
}

const UNDO: &str = "`ringroom tune undo`, or write the former value with sysctl -w";

pub static SETTINGS: &[Setting] = &[
    Setting {
        name: "limits.nofile",
        place: Place::Descriptors,
        takes: Takes::AtLeast(Some(Needs::descriptors)),
        why: "each connection is an open file of the process",
        effect: "the service may hold that many; the table of them takes 8 bytes each once it is used",
        undo: "`ringroom tune undo`, which removes the drop-in; then systemctl daemon-reload",
    },
    Setting {
        name: "fs.nr_open",
        place: Place::Sysctl,
        takes: Takes::AtLeast(Some(Needs::descriptors)),
        why: "no process can be allowed more open files than this",
        effect: "only raises what limits may say; a LimitNOFILE above it keeps the service from starting",
        undo: UNDO,
    },
    Setting {
        name: "fs.file-max",
        place: Place::Sysctl,
        takes: Takes::AtLeast(Some(|needs| needs.descriptors() + FILES_BESIDE)),
        why: "all processes together may have this many files open",
        effect: "accepting goes on (no ENFILE) until memory ends",
        undo: UNDO,
    },
    Setting {
        name: "net.ipv4.tcp_mem",
        place: Place::Sysctl,
        takes: Takes::PagesAtLeast(|needs| needs.connections * TCP_PAGES_PER_CONNECTION),
        why: "above the third number of pages TCP drops what arrives; one message under way is a page",
        effect: "socket buffers of all connections may take that much memory in a burst",
        undo: UNDO,
    },
    Setting {
        name: "net.netfilter.nf_conntrack_max",
        place: Place::Sysctl,
        takes: Takes::AtLeast(Some(|needs| needs.connections + TRACKED_BESIDE)),
        why: "where the firewall tracks connections, packets of those that find no entry are dropped",
        effect: "about 320 bytes of memory for each tracked connection",
        undo: UNDO,
    },
    Setting {
        name: "net.core.somaxconn",
        place: Place::Sysctl,
        takes: Takes::AtLeast(None),
        why: "sockets.backlog is cut to this; when all clients come back at once the rest waits a second or more",
        effect: "that many connections wait for each shard until it accepts them",
        undo: UNDO,
    },
    Setting {
        name: "net.ipv4.tcp_max_syn_backlog",
        place: Place::Sysctl,
        takes: Takes::AtLeast(None),
        why: "handshakes of TCP that are under way; beyond them the system answers with cookies or not at all",
        effect: "about 300 bytes of memory for each handshake under way",
        undo: UNDO,
    },
    Setting {
        name: "net.ipv4.tcp_syncookies",
        place: Place::Sysctl,
        takes: Takes::AtLeast(None),
        why: "without cookies a flood of SYNs shuts good clients out",
        effect: "nothing until the queue of handshakes is full; then they cost no memory",
        undo: UNDO,
    },
    Setting {
        name: "net.ipv4.tcp_slow_start_after_idle",
        place: Place::Sysctl,
        takes: Takes::OneOf(&["0", "1"]),
        why: "a connection that was quiet sends its next large message in several round trips",
        effect: "with 0 it goes on with the window that it had",
        undo: UNDO,
    },
    Setting {
        name: "net.core.netdev_max_backlog",
        place: Place::Sysctl,
        takes: Takes::AtLeast(None),
        why: "packets that wait for a processor, on loopback and where RPS spreads them; the rest is dropped",
        effect: "longer bursts are taken, up to that many packets for each processor",
        undo: UNDO,
    },
    Setting {
        name: "net.core.wmem_max",
        place: Place::Sysctl,
        takes: Takes::AtLeast(Some(|needs| needs.send_buffer_bytes.unwrap_or(0))),
        why: "sockets.send_buffer_bytes is cut to this",
        effect: "none on sockets that the system sizes",
        undo: UNDO,
    },
    Setting {
        name: "net.core.rmem_max",
        place: Place::Sysctl,
        takes: Takes::AtLeast(Some(|needs| needs.receive_buffer_bytes.unwrap_or(0))),
        why: "sockets.receive_buffer_bytes is cut to this",
        effect: "none on sockets that the system sizes",
        undo: UNDO,
    },
    Setting {
        name: "transparent_hugepage",
        place: Place::Choice("/sys/kernel/mm/transparent_hugepage/enabled"),
        takes: Takes::OneOf(&["always", "madvise", "never"]),
        why: "with `always`, rows of connections that have gone keep whole pages of 2 MiB resident",
        effect: "with `madvise`, memory follows the connections; programs that ask for huge pages still get them",
        undo: "`ringroom tune undo`, or write the former word to /sys/kernel/mm/transparent_hugepage/enabled",
    },
    Setting {
        name: "io_uring",
        place: Place::Advice(advice::io_uring),
        takes: Takes::OneOf(&["allowed"]),
        why: "without io_uring ringroom serves on epoll, with more system calls for the same messages",
        effect: "lets processes use io_uring: all (0), or those of kernel.io_uring_group (1)",
        undo: "sysctl -w kernel.io_uring_disabled=2",
    },
    Setting {
        name: "nic.queues",
        place: Place::Advice(advice::queues),
        takes: Takes::OneOf(&["shards"]),
        why: "each queue of the network card interrupts one processor; too few, and one is full before the others work",
        effect: "packets arrive on as many processors as there are shards",
        undo: "ethtool -L with the former number",
    },
    Setting {
        name: "nic.rps",
        place: Place::Advice(advice::rps),
        takes: Takes::OneOf(&["on"]),
        why: "where the card has fewer queues than there are shards, the system can spread packets itself",
        effect: "one more hand-over for each packet, and all processors share the work",
        undo: "write 0 to the same rps_cpus",
    },
    Setting {
        name: "nic.irqbalance",
        place: Place::Advice(advice::irqbalance),
        takes: Takes::OneOf(&["off"]),
        why: "irqbalance moves interrupts between processors while shards stay where they are",
        effect: "a queue's packets stay warm in one processor's cache",
        undo: "systemctl enable --now irqbalance",
    },
    Setting {
        name: "nic.rings",
        place: Place::Advice(advice::rings),
        takes: Takes::OneOf(&["largest"]),
        why: "a burst that is larger than the card's ring is lost and sent again",
        effect: "longer bursts are taken; a little more memory and cache",
        undo: "ethtool -G with the former numbers",
    },
    Setting {
        name: "nic.offloads",
        place: Place::Advice(advice::offloads),
        takes: Takes::OneOf(&["on"]),
        why: "segments are cut and joined by the card instead of the processor",
        effect: "fewer cycles for large messages; GRO may hold small ones for a few microseconds",
        undo: "ethtool -K with off",
    },
    Setting {
        name: "cpu.governor",
        place: Place::Advice(advice::governor),
        takes: Takes::OneOf(&["performance"]),
        why: "a processor that clocks down between messages answers the next one slowly",
        effect: "full clock at all times, and its power",
        undo: "write the former word to the same scaling_governor",
    },
    Setting {
        name: "cpu.idle_exit_us",
        place: Place::Advice(advice::idle),
        takes: Takes::AtMost,
        why: "waking from a deep sleep takes the processor longer than a message takes ringroom",
        effect: "idle processors sleep less deeply and take more power",
        undo: "write 0 to the same disable files",
    },
    Setting {
        name: "cpu.isolated",
        place: Place::Advice(advice::isolated),
        takes: Takes::OneOf(&["shards"]),
        why: "whatever else the scheduler puts on a shard's processor delays all of its connections",
        effect: "only shards run there; everything else shares what is left",
        undo: "take the words out of the kernel's command line and start anew",
    },
    Setting {
        name: "net.ipv4.ip_local_port_range",
        place: Place::Advice(advice::ports),
        takes: Takes::AtLeast(None),
        why: "a machine that makes load, or a proxy in front, has so many ports to one address of ringroom",
        effect: "more connections from one address to one address; listeners above 1024 may be in their way",
        undo: "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"",
    },
];

impl Setting {
    pub fn path(&self) -> Option<String> {
        match self.place {
            Place::Sysctl => Some(format!("/proc/sys/{}", self.name.replace('.', "/"))),
            Place::Choice(path) => Some(path.into()),
            Place::Descriptors | Place::Advice(_) => None,
        }
    }

    /// What the machine has there. `Ok(None)`: no such thing.
    pub fn found(&self, machine: &Machine) -> Result<Option<String>, String> {
        if matches!(self.place, Place::Descriptors) {
            return Ok(unit::unit(machine).map(|unit| unit.descriptors.to_string()));
        }
        let Some(path) = self.path() else { return Ok(None) };
        let text = machine.read(&path).map_err(|error| error.to_string())?;
        Ok(text.map(|text| spoken(&text)))
    }

    /// Whether `value` is met.
    pub fn judge(&self, machine: &Machine, needs: &Needs, value: &Value) -> State {
        let is = match self.found(machine) {
            Ok(Some(is)) => is,
            Ok(None) => return State::Absent,
            Err(error) => return State::Unreadable(error),
        };
        let unreadable = |is: &str| State::Unreadable(format!("it holds {is:?}, which is no number"));
        match (&self.takes, value) {
            (Takes::OneOf(_), Value::Word(word)) if is == *word => State::Serves,
            (Takes::OneOf(_), Value::Word(word)) => State::Lacks { is, wanted: (*word).into(), write: (*word).into() },
            (Takes::AtLeast(auto), value) => {
                let wanted = wanted(value, *auto, needs);
                match is.parse::<u64>() {
                    Ok(number) if number >= wanted => State::Serves,
                    Ok(_) => State::Lacks { is, wanted: format!("at least {wanted}"), write: wanted.to_string() },
                    Err(_) => unreadable(&is),
                }
            }
            (Takes::PagesAtLeast(auto), value) => {
                let wanted = match (value, machine.memory_bytes()) {
                    (Value::Auto, Some(bytes)) => auto(needs).min(tcp_pages_max(bytes)),
                    _ => wanted(value, Some(*auto), needs),
                };
                let numbers: Option<Vec<u64>> = is.split(' ').map(|number| number.parse().ok()).collect();
                match numbers.as_deref() {
                    Some([_, _, most]) if *most >= wanted => State::Serves,
                    Some([low, pressure, _]) => {
                        let write = format!("{} {} {wanted}", (wanted / 2).max(*low), (wanted / 4 * 3).max(*pressure));
                        State::Lacks { is, wanted: format!("at least {wanted} as its third"), write }
                    }
                    _ => State::Unreadable(format!("it holds {is:?}, which is not three numbers")),
                }
            }
            _ => State::Absent,
        }
    }
}

fn wanted(value: &Value, auto: Option<fn(&Needs) -> u64>, needs: &Needs) -> u64 {
    match (value, auto) {
        (Value::Number(number), _) => *number,
        (Value::Auto, Some(auto)) => auto(needs),
        _ => 0,
    }
}

/// What a file of the kernel's says: numbers with one space between, or the word in brackets.
pub fn spoken(text: &str) -> String {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(word, _)| word);
    chosen.map_or_else(|| text.split_whitespace().collect::<Vec<_>>().join(" "), str::to_owned)
}

impl fmt::Display for Takes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Takes::AtLeast(None) => out.write_str("a whole number, the least that serves"),
            Takes::AtLeast(Some(_)) => {
                out.write_str("a whole number, the least that serves, or \"auto\": what the connections need")
            }
            Takes::PagesAtLeast(_) => {
                out.write_str("a whole number of pages, the least that serves, or \"auto\": what the connections need")
            }
            Takes::AtMost => out.write_str("a whole number, the most that serves"),
            Takes::OneOf(words) => {
                let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
                let written =
                    words.iter().map(|word| if is_number(word) { (*word).into() } else { format!("{word:?}") });
                out.write_str(&written.collect::<Vec<String>>().join(" or "))
            }
        }
    }
}

/// The part of docs/tuning.md that names every setting.
#[cfg(test)]
fn manual() -> String {
    let mut page = String::new();
    for setting in SETTINGS {
        let told = if matches!(setting.place, Place::Advice(_)) { ", advice" } else { "" };
        let Setting { name, takes, why, effect, undo, .. } = setting;
        page.push_str(&format!(
            "### {name}{told}\n\n- takes {takes}\n- why: {why}\n- effect: {effect}\n- undo: {undo}\n\n"
        ));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{Scratch, needs};
    use super::*;

    fn setting(name: &str) -> &'static Setting {
        SETTINGS.iter().find(|setting| setting.name == name).unwrap()
    }

    #[test]
    fn the_page_names_every_setting() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tuning.md")).unwrap();
        assert!(page.contains(manual().trim_end()), "docs/tuning.md names other settings:\n\n{}", manual());
    }

    #[test]
    fn a_value_that_is_higher_serves_and_one_that_is_lower_is_told_with_what_to_write() {
        let scratch = Scratch::small();
        let judge =
            |number| setting("net.core.somaxconn").judge(&scratch.machine(), &needs(100_000), &Value::Number(number));
        assert_eq!(judge(128), State::Serves);
        let lacks = State::Lacks { is: "128".into(), wanted: "at least 129".into(), write: "129".into() };
        assert_eq!(judge(129), lacks);
    }

    #[test]
    fn pages_are_raised_without_lowering_any_of_the_three() {
        let scratch = Scratch::small();
        let judge = || setting("net.ipv4.tcp_mem").judge(&scratch.machine(), &needs(100_000), &Value::Auto);
        let State::Lacks { is, write, .. } = judge() else { panic!() };
        assert_eq!((is.as_str(), write.as_str()), ("1024 2048 4096", "50000 75000 100000"));
        scratch.put("/proc/sys/net/ipv4/tcp_mem", "60000 70000 99999");
        let State::Lacks { write, .. } = judge() else { panic!() };
        assert_eq!(write, "60000 75000 100000");
        // No more than half of the machine's memory.
        scratch.put("/proc/meminfo", "MemTotal: 561152 kB");
        assert_eq!(judge(), State::Serves);
        scratch.put("/proc/sys/net/ipv4/tcp_mem", "60000 70000 70001");
        assert!(matches!(judge(), State::Lacks { write, .. } if write == "60000 70000 70144"));
        scratch.put("/proc/sys/net/ipv4/tcp_mem", "1 2");
        assert!(matches!(judge(), State::Unreadable(_)));
    }

    #[test]
    fn a_choice_of_the_kernel_is_the_word_in_brackets() {
        assert_eq!(spoken("always [madvise] never\n"), "madvise");
        assert_eq!(spoken(" 1\t2  3\n"), "1 2 3");
        let scratch = Scratch::new();
        let huge = setting("transparent_hugepage");
        let judge = || huge.judge(&scratch.machine(), &needs(1), &Value::Word("madvise"));
        assert_eq!(judge(), State::Absent);
        scratch.put("/sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n");
        assert!(matches!(judge(), State::Lacks { write, .. } if write == "madvise"));
    }

    #[test]
    fn what_is_not_there_or_cannot_be_read_is_told_apart() {
        let scratch = Scratch::small();
        let judge = |name| setting(name).judge(&scratch.machine(), &needs(1), &Value::Auto);
        assert_eq!(judge("net.netfilter.nf_conntrack_max"), State::Absent);
        scratch.put("/proc/sys/net/netfilter/nf_conntrack_max", "plenty");
        assert!(matches!(judge("net.netfilter.nf_conntrack_max"), State::Unreadable(_)));
        std::fs::create_dir_all(scratch.path("/proc/sys/net/core/wmem_max")).unwrap();
        assert!(matches!(judge("net.core.wmem_max"), State::Unreadable(_)));
    }
}
