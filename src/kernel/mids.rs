//! Makes message ids. Invariant: each is greater than the one before, whatever the clock does.

use crate::kernel::ids::{Mid, ShardId};

pub struct Mids {
    origin: u32,
    shard: ShardId,
    last_ms: u64,
    count: u64,
}

impl Mids {
    /// `origin`: 24 bits that name this incarnation of the host.
    pub fn new(origin: u32, shard: ShardId) -> Self {
        assert!(origin < 1 << 24, "an origin has 24 bits");
        Mids { origin, shard, last_ms: 0, count: 0 }
    }

    pub fn next(&mut self, unix_ms: u64) -> Mid {
        self.last_ms = self.last_ms.max(unix_ms & 0xffff_ffff_ffff);
        self.count += 1;
        let place =
            (self.origin as u128) << 56 | (self.shard.0 as u128) << 48 | (self.count as u128 & 0xffff_ffff_ffff);
        Mid((self.last_ms as u128) << 80 | place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mids_grow_even_when_the_clock_goes_back() {
        let mut mids = Mids::new(0xabcdef, ShardId(3));
        let made: Vec<Mid> = [5_000, 5_000, 4_000, 6_000].map(|ms| mids.next(ms)).into();
        assert!(made.is_sorted_by(|a, b| a < b));
        assert_eq!(made[2].0 >> 80, 5_000);
        assert_eq!(made[0].0 >> 56 & 0xff_ffff, 0xabcdef);
        assert_eq!(made[0].0 >> 48 & 0xff, 3);
    }
}
