//! An index over a table: finds a row by what the row itself holds, so no key is stored twice.
//! Keyed, because clients choose the names.
//!
//! It grows a little with each insert (linear hashing): places lie in segments, small tables each,
//! and one segment at a time is split in two, in a fixed order. One table for all would be copied
//! as a whole when it is full, and stall a turn.
//! Invariant: with `n` segments, a place lies in segment `hash mod 2^k`, where `2^k` is the first
//! power of two that is not below `n`, or, if there is no such segment yet, in `hash mod 2^(k-1)`,
//! which is split into the two when its turn comes.

use crate::base::hash::Keyed;
use crate::base::pages::Pages;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

/// Places a segment, on average, beyond which one is split. Smaller ones would waste, larger ones
/// would take longer to split.
const SPLIT_ABOVE: usize = 96;

pub struct Index {
    segments: Pages<HashTable<u32>>,
    /// `2^k - 1`.
    mask: usize,
    len: usize,
    keyed: Keyed,
}

impl Index {
    pub fn new(keyed: Keyed) -> Self {
        Index { segments: Pages::default(), mask: 0, len: 0, keyed }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which segment a hash belongs to. There is one at least.
    fn segment_of(&self, hash: u64) -> usize {
        // The tables inside use the lowest and the highest bits.
        let hash = (hash >> 20) as usize;
        let place = hash & self.mask;
        if place < self.segments.len() { place } else { hash & (self.mask >> 1) }
    }

    /// The place whose row `is_it`, among those whose key hashes like `key`.
    pub fn find<K: Hash + ?Sized>(&self, key: &K, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let hash = self.keyed.hash_one(key);
        self.segments[self.segment_of(hash)].find(hash, |place| is_it(*place)).copied()
    }

    /// Adds `place`; `key_of` reads the key of any place in the index, for when it grows.
    pub fn insert<K: Hash>(&mut self, key: &K, place: u32, key_of: impl Fn(u32) -> K) {
        let keyed = self.keyed;
        let hash_of = |place: &u32| keyed.hash_one(key_of(*place));
        if self.len >= self.segments.len() * SPLIT_ABOVE {
            self.split(&hash_of);
        }
        let hash = keyed.hash_one(key);
        let segment = self.segment_of(hash);
        self.segments[segment].insert_unique(hash, place, hash_of);
        self.len += 1;
    }

    /// Adds a segment and moves there what belongs there now: all of it comes from one other.
    fn split(&mut self, hash_of: &impl Fn(&u32) -> u64) {
        let new = self.segments.len();
        self.segments.push(HashTable::new());
        self.mask = self.segments.len().next_power_of_two() - 1;
        if new == 0 {
            return;
        }
        let old = new & !(1 << new.ilog2());
        let moving = std::mem::take(&mut self.segments[old]);
        for segment in [old, new] {
            self.segments[segment].reserve(moving.len() / 2, hash_of);
        }
        for place in moving {
            let hash = hash_of(&place);
            let segment = self.segment_of(hash);
            debug_assert!(segment == old || segment == new, "a split concerns two segments");
            self.segments[segment].insert_unique(hash, place, hash_of);
        }
    }

    pub fn remove<K: Hash + ?Sized>(&mut self, key: &K, place: u32) {
        if self.is_empty() {
            return;
        }
        let hash = self.keyed.hash_one(key);
        let segment = self.segment_of(hash);
        if let Ok(found) = self.segments[segment].find_entry(hash, |other| *other == place) {
            found.remove();
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// Places whose keys were read, that is hashed again and moved, by the costliest insert.
    fn most_moved(index: &mut Index, places: std::ops::Range<u32>) -> usize {
        let moved = Cell::new(0);
        let mut most = 0;
        for place in places {
            moved.set(0);
            index.insert(&place, place, |place| {
                moved.set(moved.get() + 1);
                place
            });
            most = most.max(moved.get());
        }
        most
    }

    #[test]
    fn no_insert_moves_more_than_a_few_segments_hold_however_large_the_index() {
        let mut index = Index::new(Keyed::new([1, 2]));
        for places in [0..1_000, 1_000..10_000, 10_000..100_000, 100_000..400_000] {
            let most = most_moved(&mut index, places.clone());
            println!("{places:?}: at most {most} moved by one insert");
            assert!(most <= 4 * SPLIT_ABOVE, "{most} places moved by one insert in {places:?}");
        }
        assert!((0..400_000).all(|place| index.find(&place, |found| found == place) == Some(place)));
        assert_eq!(index.find(&400_000, |found| found == 400_000), None);
    }

    #[test]
    fn a_small_index_has_one_segment_and_an_empty_one_none() {
        let mut index = Index::new(Keyed::new([1, 2]));
        assert_eq!(index.segments.len(), 0);
        most_moved(&mut index, 0..SPLIT_ABOVE as u32);
        assert_eq!(index.segments.len(), 1);
    }

    proptest! {
        #[test]
        fn an_index_finds_exactly_the_rows_that_are_there(names in proptest::collection::vec("[a-c]{0,3}", 0..60)) {
            let mut index = Index::new(Keyed::new([1, 2]));
            let mut rows: Vec<Option<String>> = Vec::new();
            for name in names {
                let found = index.find(name.as_str(), |place| rows[place as usize].as_deref() == Some(&name));
                let model = rows.iter().position(|row| row.as_deref() == Some(&name));
                prop_assert_eq!(found, model.map(|place| place as u32));
                match found {
                    Some(place) => {
                        index.remove(name.as_str(), place);
                        rows[place as usize] = None;
                    }
                    None => {
                        rows.push(Some(name.clone()));
                        let key_of = |place: u32| rows[place as usize].as_deref().unwrap_or_default();
                        index.insert(&name.as_str(), rows.len() as u32 - 1, key_of);
                    }
                }
                prop_assert_eq!(index.len(), rows.iter().flatten().count());
            }
        }

        #[test]
        fn an_index_of_many_segments_agrees_with_a_plain_map(moves in proptest::collection::vec((any::<bool>(), 0u32..2_000, 0u32..900), 1..12)) {
            let mut index = Index::new(Keyed::new([3, 4]));
            let mut model = std::collections::BTreeSet::new();
            for (insert, from, number) in moves {
                for place in from..from + number {
                    let key = place % 700;
                    if insert && model.insert(place) {
                        index.insert(&key, place, |place| place % 700);
                    } else if !insert && model.remove(&place) {
                        index.remove(&key, place);
                    }
                }
                prop_assert_eq!(index.len(), model.len());
                for place in 0..3_000 {
                    let found = index.find(&(place % 700), |found| found == place);
                    prop_assert_eq!(found, model.contains(&place).then_some(place));
                }
            }
        }
    }
}
