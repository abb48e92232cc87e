//! Time as the core sees it: told, never asked for.

use std::time::Duration;

/// A point on the monotonic clock of the process, nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    pub const ZERO: Instant = Instant(0);
    /// Later than anything that happens: 584 years of nanoseconds.
    pub const NEVER: Instant = Instant(u64::MAX);

    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `self - earlier`, or zero when `earlier` is the later one.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Stops at [`Instant::NEVER`] instead of wrapping.
    pub const fn after(self, wait: Duration) -> Self {
        let nanos = wait.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Instant(self.0.saturating_add(nanos))
    }

    /// Stops at [`Instant::ZERO`].
    pub const fn before(self, wait: Duration) -> Self {
        let nanos = wait.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Instant(self.0.saturating_sub(nanos))
    }
}

/// Both clocks, read together once a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For intervals and time-outs.
    pub at: Instant,
    /// Wall clock, milliseconds since 1970, for `ts`, `mid` and token expiry. May jump.
    pub unix_ms: u64,
}
