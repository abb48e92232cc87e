//! What only an operator can decide: told with the command, never done.
//! Invariant: what this machine does not show (no card, no governor, a container) gives no advice.

use super::profile::Value;
use super::{Io, Machine, Needs};
use serde::Serialize;

#[derive(Serialize, PartialEq, Eq, Debug)]
pub struct Advised {
    pub what: String,
    /// One command.
    pub command: String,
}

fn advised(what: impl Into<String>, command: impl Into<String>) -> Advised {
    Advised { what: what.into(), command: command.into() }
}

const CPUS: &str = "/sys/devices/system/cpu";

pub fn io_uring(machine: &Machine, needs: &Needs, _: &Value) -> Vec<Advised> {
    let state = machine.number("/proc/sys/kernel/io_uring_disabled");
    match state.filter(|state| *state > 0 && needs.io != Io::Epoll) {
        Some(state) => {
            let what = format!(
                "kernel.io_uring_disabled is {state}: the gateway falls back to epoll, or does not start where server.io is \"io_uring\""
            );
            vec![advised(what, "sysctl -w kernel.io_uring_disabled=0")]
        }
        None => Vec::new(),
    }
}

/// Cards that are plugged in, and how many queues of packets that arrive each has.
fn cards(machine: &Machine) -> Vec<(String, u64)> {
    let cards = machine
        .names("/sys/class/net")
        .into_iter()
        .filter(|name| machine.exists(&format!("/sys/class/net/{name}/device")));
    let queues = |name: &String| {
        let queues = machine.names(&format!("/sys/class/net/{name}/queues"));
        queues.iter().filter(|queue| queue.starts_with("rx-")).count() as u64
    };
    cards.map(|name| (name.clone(), queues(&name))).filter(|(_, queues)| *queues > 0).collect()
}

pub fn queues(machine: &Machine, needs: &Needs, _: &Value) -> Vec<Advised> {
    let few = cards(machine).into_iter().filter(|(_, queues)| *queues < needs.shards);
    let advice = few.map(|(name, queues)| {
        let what = format!("{name} has {queues} queues for {} shards", needs.shards);
        advised(what, format!("ethtool -L {name} combined {}", needs.shards))
    });
    advice.collect()
}

pub fn rps(machine: &Machine, needs: &Needs, _: &Value) -> Vec<Advised> {
    let few = cards(machine).into_iter().filter(|(_, queues)| *queues < needs.shards);
    let without = few.filter(|(name, _)| {
        let mask = machine.text(&format!("/sys/class/net/{name}/queues/rx-0/rps_cpus"));
        mask.is_some_and(|mask| mask.chars().all(|digit| matches!(digit, '0' | ',')))
    });
    let advice = without.map(|(name, queues)| {
        let what = format!("{name} has {queues} queues for {} shards, and RPS is off", needs.shards);
        let mask = mask(needs.shards);
        advised(what, format!("for queue in /sys/class/net/{name}/queues/rx-*; do echo {mask} >$queue/rps_cpus; done"))
    });
    advice.collect()
}

/// The first processors, as the system writes sets of them: 32 in each group of digits.
fn mask(cpus: u64) -> String {
    let mut groups = Vec::new();
    let mut left = cpus.min(1_024);
    while left > 0 {
        let here = left.min(32);
        groups.push(format!("{:x}", u32::MAX >> (32 - here)));
        left -= here;
    }
    groups.reverse();
    groups.join(",")
}

pub fn irqbalance(machine: &Machine, _: &Needs, _: &Value) -> Vec<Advised> {
    let processes = machine.names("/proc").into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    let is_there = processes
        .into_iter()
        .any(|id| machine.text(&format!("/proc/{id}/comm")).is_some_and(|name| name == "irqbalance"));
    match is_there {
        true => vec![advised("irqbalance runs and moves interrupts about", "systemctl disable --now irqbalance")],
        false => Vec::new(),
    }
}

pub fn rings(machine: &Machine, _: &Needs, _: &Value) -> Vec<Advised> {
    let see =
        |name: &str| format!("see whether the rings of {name} are as large as they may be, and raise them with -G");
    cards(machine).into_iter().map(|(name, _)| advised(see(&name), format!("ethtool -g {name}"))).collect()
}

pub fn offloads(machine: &Machine, _: &Needs, _: &Value) -> Vec<Advised> {
    let see = |name: &str| format!("see that tso, gso and gro of {name} are on");
    cards(machine).into_iter().map(|(name, _)| advised(see(&name), format!("ethtool -k {name}"))).collect()
}

fn cpus(machine: &Machine) -> impl Iterator<Item = String> {
    let names = machine.names(CPUS).into_iter();
    let is_cpu = |name: &String| {
        name.strip_prefix("cpu").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    names.filter(is_cpu).map(|name| format!("{CPUS}/{name}"))
}

pub fn governor(machine: &Machine, _: &Needs, _: &Value) -> Vec<Advised> {
    let governors = cpus(machine).filter_map(|cpu| machine.text(&format!("{cpu}/cpufreq/scaling_governor")));
    let other: Vec<String> = governors.filter(|governor| governor != "performance").collect();
    match other.first() {
        Some(governor) => {
            let what = format!("{} processors follow the governor {governor}", other.len());
            let command =
                format!("for cpu in {CPUS}/cpu[0-9]*; do echo performance >$cpu/cpufreq/scaling_governor; done");
            vec![advised(what, command)]
        }
        None => Vec::new(),
    }
}

pub fn idle(machine: &Machine, _: &Needs, value: &Value) -> Vec<Advised> {
    let Value::Number(most) = value else { return Vec::new() };
    let Some(cpu) = cpus(machine).next() else { return Vec::new() };
    let states = machine.names(&format!("{cpu}/cpuidle")).into_iter();
    let deep: Vec<String> = states
        .filter(|state| {
            let of = |what: &str| machine.number(&format!("{cpu}/cpuidle/{state}/{what}"));
            of("latency").is_some_and(|latency| latency > *most) && of("disable") == Some(0)
        })
        .collect();
    match deep.first() {
        Some(first) => {
            let what =
                format!("processors sleep so deeply that waking takes more than {most} us ({})", deep.join(", "));
            let states = if deep.len() == 1 { first.clone() } else { format!("{{{}}}", deep.join(",")) };
            let command = format!("for file in {CPUS}/cpu[0-9]*/cpuidle/{states}/disable; do echo 1 >$file; done");
            vec![advised(what, command)]
        }
        None => Vec::new(),
    }
}

pub fn isolated(machine: &Machine, needs: &Needs, _: &Value) -> Vec<Advised> {
    let present = cpus(machine).count() as u64;
    let is_isolated = machine.text(&format!("{CPUS}/isolated")).is_none_or(|isolated| !isolated.is_empty());
    if is_isolated || present <= needs.shards {
        // With a shard on each there is nowhere else to go.
        return Vec::new();
    }
    let of = format!("{}-{}", present - needs.shards, present - 1);
    let what =
        format!("no processor is kept for shards; give them {of} (server.cpus = \"{of}\") and boot with these words");
    vec![advised(what, format!("isolcpus={of} nohz_full={of} rcu_nocbs={of}"))]
}

pub fn ports(machine: &Machine, needs: &Needs, value: &Value) -> Vec<Advised> {
    let Value::Number(least) = value else { return Vec::new() };
    let Some(ports) = machine.text("/proc/sys/net/ipv4/ip_local_port_range").and_then(|text| count(&text)) else {
        return Vec::new();
    };
    if ports >= needs.connections.min(*least) {
        return Vec::new();
    }
    let what = format!(
        "a proxy or a load tester on this machine has {ports} ports for each pair of addresses; more connections than that need \
         more ports, then more addresses"
    );
    vec![advised(what, "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"")]
}

fn count(range: &str) -> Option<u64> {
    let mut ends = range.split_whitespace().map(str::parse::<u64>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    last.checked_sub(first).map(|span| span + 1)
}

#[cfg(test)]
mod tests {
    use super::super::scratch::{Scratch, needs};
    use super::*;

    #[test]
    fn an_empty_machine_gives_no_advice() {
        let scratch = Scratch::new();
        let (machine, needs) = (scratch.machine(), needs(100_000));
        for advise in [io_uring, queues, rps, irqbalance, rings, offloads, governor, idle, isolated, ports] {
            assert_eq!(advise(&machine, &needs, &Value::Number(50)), []);
        }
    }

    #[test]
    fn a_card_with_few_queues_is_named_and_a_bridge_is_not() {
        let scratch = Scratch::new();
        scratch.put("/sys/class/net/eth0/device/vendor", "0x1af4");
        scratch.put("/sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n");
        scratch.put("/sys/class/net/br0/queues/rx-0/rps_cpus", "0\n");
        let (machine, needs) = (scratch.machine(), needs(1));
        let said = queues(&machine, &needs, &Value::Auto);
        assert_eq!((said.len(), said[0].command.as_str()), (1, "ethtool -L eth0 combined 2"));
        assert!(rps(&machine, &needs, &Value::Auto)[0].command.contains("echo 3 >"));
        scratch.put("/sys/class/net/eth0/queues/rx-0/rps_cpus", "3\n");
        assert_eq!(rps(&machine, &needs, &Value::Auto), []);
        scratch.put("/sys/class/net/eth0/queues/rx-1/rps_cpus", "0\n");
        assert_eq!(queues(&machine, &needs, &Value::Auto), []);
        assert_eq!(rings(&machine, &needs, &Value::Auto).len(), 1);
    }

    #[test]
    fn sets_of_processors_are_written_in_groups_of_32() {
        assert_eq!([1, 4, 32, 33, 64].map(mask), ["1", "f", "ffffffff", "1,ffffffff", "ffffffff,ffffffff"]);
    }

    #[test]
    fn processors_are_looked_at_for_clock_sleep_and_company() {
        let scratch = Scratch::new();
        for cpu in 0..4 {
            scratch.put(&format!("{CPUS}/cpu{cpu}/cpufreq/scaling_governor"), "powersave\n");
        }
        scratch.put(&format!("{CPUS}/cpufreq/unrelated"), "");
        scratch.put(&format!("{CPUS}/isolated"), "\n");
        for (state, latency) in [("state0", "0"), ("state1", "2"), ("state2", "133")] {
            scratch.put(&format!("{CPUS}/cpu0/cpuidle/{state}/latency"), latency);
            scratch.put(&format!("{CPUS}/cpu0/cpuidle/{state}/disable"), "0");
        }
        let (machine, needs) = (scratch.machine(), needs(1));
        assert!(governor(&machine, &needs, &Value::Auto)[0].what.starts_with("4 processors"));
        let asleep = idle(&machine, &needs, &Value::Number(50));
        assert!(asleep[0].what.contains("(state2)") && asleep[0].command.contains("/state2/disable"), "{asleep:?}");
        assert!(isolated(&machine, &needs, &Value::Auto)[0].command.contains("isolcpus=2-3"));
        scratch.put(&format!("{CPUS}/isolated"), "2-3\n");
        assert_eq!(isolated(&machine, &needs, &Value::Auto), []);
    }

    #[test]
    fn io_uring_that_is_switched_off_is_told_to_those_who_would_use_it() {
        let scratch = Scratch::new();
        scratch.put("/proc/sys/kernel/io_uring_disabled", "2\n");
        let mut needs = needs(1);
        assert_eq!(io_uring(&scratch.machine(), &needs, &Value::Auto).len(), 1);
        needs.io = Io::Epoll;
        assert_eq!(io_uring(&scratch.machine(), &needs, &Value::Auto), []);
    }
}
