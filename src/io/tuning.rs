//! What a profile sets: how the edge of a shard trades delay against throughput and memory.
//! Invariant: once [`Tuning::check`] has passed, every value lies within its bounds, and whatever
//! they are, the same messages arrive in the same order.

use crate::base::limits::{
    BUSY_POLL_MAX, COALESCE_MAX, CROWD_WRITES_PER_TURN, READ_BYTES_PER_TURN, READ_BYTES_PER_TURN_MAX,
    READ_BYTES_PER_TURN_MIN, READS_PER_TURN, READS_PER_TURN_MAX, WRITES_PER_TURN, WRITES_PER_TURN_MAX,
};
use crate::io::socket::SocketOptions;
use std::fmt::{self, Display, Formatter};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The default suits a machine that has other work too.
#[derive(Clone, PartialEq, Debug)]
pub struct Tuning {
    /// How long a shard goes on looking for work, without sleeping, after the last that it had. Zero:
    /// it sleeps at once. Spares the messages of a busy shard the way through the scheduler, and costs
    /// a processor for that long; a shard without any work sleeps whatever this is.
    pub busy_poll: Duration,
    /// Connections read from before others have their turn, each once.
    pub reads_per_turn: usize,
    /// Connections written to before others have their turn, and of them those that one message to a
    /// crowd made so. Smaller: others wait less for a large room. Larger: fewer looks.
    pub writes_per_turn: usize,
    pub crowd_writes_per_turn: usize,
    /// What one read takes of a connection: the size of the shard's one buffer, bytes.
    pub read_bytes_per_turn: usize,
    /// How long the writes to a crowd wait for more that could leave with them; whole milliseconds
    /// while the shard is otherwise idle. Zero: not at all. Small rooms, and replies to whom no crowd
    /// is to hear, never wait.
    pub coalesce: Duration,
    pub sockets: SocketOptions,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            busy_poll: Duration::ZERO,
            reads_per_turn: READS_PER_TURN,
            writes_per_turn: WRITES_PER_TURN,
            crowd_writes_per_turn: CROWD_WRITES_PER_TURN,
            read_bytes_per_turn: READ_BYTES_PER_TURN,
            coalesce: Duration::ZERO,
            sockets: SocketOptions::default(),
        }
    }
}

/// A value that the edge cannot serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutOfBounds {
    /// The name of its field.
    pub name: &'static str,
    /// What is allowed.
    pub allowed: String,
}

impl Display for OutOfBounds {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "{}: allowed is {}", self.name, self.allowed)
    }
}

impl Tuning {
    /// Names the first value that is out of bounds.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let crowd_max = self.writes_per_turn.saturating_sub(1).max(1);
        number("reads_per_turn", self.reads_per_turn, 1..=READS_PER_TURN_MAX)?;
        number("writes_per_turn", self.writes_per_turn, 2..=WRITES_PER_TURN_MAX)?;
        number("crowd_writes_per_turn", self.crowd_writes_per_turn, 1..=crowd_max)?;
        number("read_bytes_per_turn", self.read_bytes_per_turn, READ_BYTES_PER_TURN_MIN..=READ_BYTES_PER_TURN_MAX)?;
        time("busy_poll", self.busy_poll, BUSY_POLL_MAX)?;
        time("coalesce", self.coalesce, COALESCE_MAX)
    }
}

fn number(name: &'static str, value: usize, allowed: RangeInclusive<usize>) -> Result<(), OutOfBounds> {
    let (least, most) = (allowed.start(), allowed.end());
    match allowed.contains(&value) {
        true => Ok(()),
        false => Err(OutOfBounds { name, allowed: format!("{least} to {most}") }),
    }
}

fn time(name: &'static str, value: Duration, most: Duration) -> Result<(), OutOfBounds> {
    match value <= most {
        true => Ok(()),
        false => Err(OutOfBounds { name, allowed: format!("0 to {} us", most.as_micros()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_within_bounds() {
        assert_eq!(Tuning::default().check(), Ok(()));
    }

    #[test]
    fn a_value_out_of_bounds_is_named_with_what_is_allowed() {
        let refused = |change: fn(&mut Tuning)| {
            let mut tuning = Tuning::default();
            change(&mut tuning);
            tuning.check().unwrap_err().to_string()
        };
        assert_eq!(refused(|tuning| tuning.reads_per_turn = 0), "reads_per_turn: allowed is 1 to 4096");
        assert_eq!(refused(|tuning| tuning.writes_per_turn = 1), "writes_per_turn: allowed is 2 to 4096");
        assert_eq!(refused(|tuning| tuning.crowd_writes_per_turn = 256), "crowd_writes_per_turn: allowed is 1 to 255");
        assert_eq!(refused(|tuning| tuning.read_bytes_per_turn = 1), "read_bytes_per_turn: allowed is 4096 to 1048576");
        assert_eq!(refused(|tuning| tuning.busy_poll = Duration::from_secs(1)), "busy_poll: allowed is 0 to 10000 us");
        assert_eq!(refused(|tuning| tuning.coalesce = Duration::from_secs(1)), "coalesce: allowed is 0 to 20000 us");
    }
}
