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
    place: Place<T>,
}

enum Place<T> {
    Taken(T),
    /// The next free slot, or [`NONE`].
    Free(u32),
}

const NONE: u32 = u32::MAX;

pub struct Table<T> {
    rows: Pages<Row<T>>,
    /// The slot that was freed last leads to the one before, so that a list of them costs nothing.
    free: u32,
    len: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { rows: Pages::default(), free: NONE, len: 0 }
    }
}

impl<T> Table<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        let slot = self.free;
        if slot == NONE {
            self.rows.push(Row { generation: 0, place: Place::Taken(value) });
            return Key { slot: (self.rows.len() - 1) as u32, generation: 0 };
        }
        let row = &mut self.rows[slot as usize];
        let Place::Free(next) = row.place else { unreachable!("a free slot holds nothing") };
        self.free = next;
        row.place = Place::Taken(value);
        Key { slot, generation: row.generation }
    }

    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let row = &mut self.rows[key.slot as usize];
        let Place::Taken(value) = std::mem::replace(&mut row.place, Place::Free(self.free)) else { return None };
        row.generation = row.generation.wrapping_add(1);
        self.free = key.slot;
        self.len -= 1;
        Some(value)
    }

    pub fn get(&self, key: Key) -> Option<&T> {
        let row = self.rows.get(key.slot as usize)?;
        match &row.place {
            Place::Taken(value) if row.generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let row = self.rows.get_mut(key.slot as usize)?;
        match &mut row.place {
            Place::Taken(value) if row.generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The row in `slot` now, whoever it is.
    pub fn at(&self, slot: u32) -> Option<(Key, &T)> {
        let row = self.rows.get(slot as usize)?;
        let Place::Taken(value) = &row.place else { return None };
        Some((Key { slot, generation: row.generation }, value))
    }

    pub fn at_mut(&mut self, slot: u32) -> Option<&mut T> {
        match &mut self.rows.get_mut(slot as usize)?.place {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    /// Slots ever used.
    pub fn slots(&self) -> u32 {
        self.rows.len() as u32
    }

    /// Bytes of one slot: for the assertions of those who count them.
    pub const fn slot_bytes() -> usize {
        size_of::<Row<T>>()
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0..self.rows.len() as u32).filter_map(|slot| self.at(slot))
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
