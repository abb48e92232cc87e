//! Two hashes: a stable one that places names on shards and hosts, and a keyed one for maps,
//! because clients choose the names and must not be able to choose the collisions.

use siphasher::sip::SipHasher13;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};

/// A hash that is the same in every process and version: it decides where a name lives.
pub fn stable(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x7269_6e67, 0x726f_6f6d);
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hasher.write_u64(part.len() as u64);
        hasher.write(part);
    }
    hasher.finish()
}

/// The hasher of maps whose keys clients choose. The key is drawn at start.
#[derive(Clone, Copy, Debug)]
pub struct Keyed(u64, u64);

impl Keyed {
    pub const fn new(key: [u64; 2]) -> Self {
        Keyed(key[0], key[1])
    }
}

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

pub type KeyedMap<K, V> = HashMap<K, V, Keyed>;
pub type KeyedSet<K> = HashSet<K, Keyed>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stable_hash_never_changes() {
        // Homes of stored rooms depend on it: a new value here is a migration.
        assert_eq!(stable(&[b"tenant", b"room"]), 1_648_511_257_332_280_951);
        assert_ne!(stable(&[b"ab", b"c"]), stable(&[b"a", b"bc"]));
    }
}
