//! A table: rows with stable slots, freed slots reused, each use told apart by a generation.
//! Invariant: a [`Key`] finds its row or nothing, never a later tenant of the same slot.

use crate::base::pages::Pages;

/// Names one row of one table for as long as it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    pub slot: u32,
    pub generation: u32,
}

struct Row<T> {
    generation: u32,
    value: Option<T>,
}

pub struct Table<T> {
    rows: Pages<Row<T>>,
    free: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: Pages::default(), free: Vec::new() }
    }
}

impl<T> Table<T> {
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn insert(&mut self, value: T) -> Key {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.rows.push(Row { generation: 0, value: None });
                (self.rows.len() - 1) as u32
            }
        };
        let row = &mut self.rows[slot as usize];
        assert!(row.value.is_none(), "a free slot holds nothing");
        row.value = Some(value);
        Key { slot, generation: row.generation }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        let row = self.rows.get_mut(key.slot as usize)?;
        if row.generation != key.generation {
            return None;
        }
        let value = row.value.take()?;
        row.generation = row.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(value)
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let row = self.rows.get(key.slot as usize)?;
        if row.generation == key.generation { row.value.as_ref() } else { None }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let row = self.rows.get_mut(key.slot as usize)?;
        if row.generation == key.generation { row.value.as_mut() } else { None }
    }

    /// The row in `slot` now, whoever it is.
    pub fn at(&self, slot: u32) -> Option<(Key, &T)> {
        let row = self.rows.get(slot as usize)?;
        let value = row.value.as_ref()?;
        Some((Key { slot, generation: row.generation }, value))
    }

    /// Slots ever used: an upper bound for walking with [`Table::at`].
    pub fn slots(&self) -> u32 {
        self.rows.len() as u32
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..self.slots()).filter_map(|slot| self.at(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn an_old_key_does_not_find_the_next_tenant_of_its_slot() {
        let mut table = Table::default();
        let old = table.insert('a');
        assert_eq!(table.remove(old), Some('a'));
        let new = table.insert('b');
        assert_eq!(old.slot, new.slot);
        assert_eq!(table.get(old), None);
        assert_eq!(table.remove(old), None);
        assert_eq!(table.get(new), Some(&'b'));
    }

    proptest! {
        #[test]
        fn a_table_agrees_with_a_plain_map(moves: Vec<(bool, u8)>) {
            let mut table = Table::default();
            let mut model: BTreeMap<Key, u8> = BTreeMap::new();
            for (insert, value) in moves {
                if insert || model.is_empty() {
                    let key = table.insert(value);
                    prop_assert!(model.insert(key, value).is_none());
                } else {
                    let key = *model.keys().nth(value as usize % model.len()).expect("not empty");
                    prop_assert_eq!(table.remove(key), model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
                for (key, value) in &model {
                    prop_assert_eq!(table.get(*key), Some(value));
                }
            }
        }
    }
}
