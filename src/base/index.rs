//! An index over a table: finds a row by what the row itself holds, so no key is stored twice.
//! Keyed, because clients choose the names.

use crate::base::hash::Keyed;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hash};

pub struct Index<T> {
    places: HashTable<T>,
    keyed: Keyed,
}

impl<T: Copy + PartialEq> Index<T> {
    pub fn new(keyed: Keyed) -> Self {
        Index { places: HashTable::new(), keyed }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place whose row `is_it`, among those whose key hashes like `key`.
    pub fn find<K: Hash + ?Sized>(&self, key: &K, mut is_it: impl FnMut(T) -> bool) -> Option<T> {
        self.places.find(self.keyed.hash_one(key), |place| is_it(*place)).copied()
    }

    /// Adds `place`; `key_of` reads the key of any place in the index, for when it grows.
    pub fn insert<K: Hash>(&mut self, key: &K, place: T, key_of: impl Fn(T) -> K) {
        let keyed = self.keyed;
        self.places.insert_unique(keyed.hash_one(key), place, |place| keyed.hash_one(key_of(*place)));
    }

    pub fn remove<K: Hash + ?Sized>(&mut self, key: &K, place: T) {
        if let Ok(found) = self.places.find_entry(self.keyed.hash_one(key), |other| *other == place) {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_index_finds_exactly_the_rows_that_are_there(names in proptest::collection::vec("[a-c]{0,3}", 0..60)) {
            let mut index = Index::new(Keyed::new([1, 2]));
            let mut rows: Vec<Option<String>> = Vec::new();
            for name in names {
                let found = index.find(name.as_str(), |place: usize| rows[place].as_deref() == Some(&name));
                prop_assert_eq!(found, rows.iter().position(|row| row.as_deref() == Some(&name)));
                match found {
                    Some(place) => {
                        index.remove(name.as_str(), place);
                        rows[place] = None;
                    }
                    None => {
                        rows.push(Some(name.clone()));
                        let key_of = |place: usize| rows[place].as_deref().unwrap_or_default();
                        index.insert(&name.as_str(), rows.len() - 1, key_of);
                    }
                }
                prop_assert_eq!(index.len(), rows.iter().flatten().count());
            }
        }
    }
}
