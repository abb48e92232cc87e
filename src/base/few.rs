//! A list for rows of which there are very many: nothing or one thing lies in the row itself, and
//! more of them in pages of their own, so a long one never moves as a whole.
//! Invariant: a list that became long stays in pages until it is empty, so that one that swings
//! between one thing and two does not take and give memory each time.

use crate::base::pages::Pages;
use std::ops::{Index, IndexMut};

#[derive(Default)]
pub enum Few<T> {
    #[default]
    Nothing,
    One(T),
    Many(Box<Pages<T>>),
}

impl<T> Few<T> {
    pub fn len(&self) -> usize {
        match self {
            Few::Nothing => 0,
            Few::One(_) => 1,
            Few::Many(list) => list.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn push(&mut self, value: T) {
        match self {
            Few::Nothing => *self = Few::One(value),
            Few::Many(list) => list.push(value),
            Few::One(_) => {
                let mut list = Pages::default();
                if let Few::One(first) = std::mem::take(self) {
                    list.push(first);
                }
                list.push(value);
                *self = Few::Many(Box::new(list));
            }
        }
    }

    /// Takes a value out; the last one takes its place.
    pub fn swap_remove(&mut self, place: usize) -> T {
        if let Few::Many(list) = self {
            let value = list.swap_remove(place);
            if list.is_empty() {
                *self = Few::Nothing;
            }
            return value;
        }
        match std::mem::take(self) {
            Few::One(value) if place == 0 => value,
            _ => panic!("taken from a place that holds nothing"),
        }
    }

    pub fn get(&self, place: usize) -> Option<&T> {
        match self {
            Few::One(value) if place == 0 => Some(value),
            Few::Many(list) => list.get(place),
            _ => None,
        }
    }

    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        match self {
            Few::One(value) if place == 0 => Some(value),
            Few::Many(list) => list.get_mut(place),
            _ => None,
        }
    }

    pub fn iter(&self) -> Iter<'_, T> {
        let (front, pages) = match self {
            Few::Nothing => (Default::default(), Default::default()),
            Few::One(value) => (std::slice::from_ref(value).iter(), Default::default()),
            Few::Many(list) => (Default::default(), list.pages()),
        };
        Iter { front, pages }
    }
}

/// Page by page: the pace of a slice.
pub struct Iter<'a, T> {
    front: std::slice::Iter<'a, T>,
    pages: std::slice::Iter<'a, Vec<T>>,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;
    #[inline]
    fn next(&mut self) -> Option<&'a T> {
        match self.front.next() {
            Some(value) => Some(value),
            None => self.turn_page(),
        }
    }
}

impl<'a, T> Iter<'a, T> {
    #[cold]
    fn turn_page(&mut self) -> Option<&'a T> {
        // Only what holds nothing more comes behind an empty page.
        self.front = self.pages.next()?.iter();
        self.front.next()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> Index<usize> for Few<T> {
    type Output = T;
    fn index(&self, place: usize) -> &T {
        self.get(place).expect("a place of the list")
    }
}

impl<T> IndexMut<usize> for Few<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        self.get_mut(place).expect("a place of the list")
    }
}

const _: () = assert!(size_of::<Few<[u32; 2]>>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_short_list_agrees_with_a_plain_one(moves in proptest::collection::vec((0u8..5, 0usize..700), 1..60)) {
            let mut few = Few::default();
            let mut model = Vec::new();
            for (step, (kind, number)) in moves.into_iter().enumerate() {
                match kind {
                    0 | 1 => {
                        few.push(step);
                        model.push(step);
                    }
                    2 if number > 600 => (0..number).for_each(|n| {
                        few.push(n);
                        model.push(n);
                    }),
                    3 => while let Some(last) = model.len().checked_sub(1).filter(|_| number > 300) {
                        prop_assert_eq!(few.swap_remove(last), model.swap_remove(last));
                    },
                    _ if model.is_empty() => {}
                    _ => prop_assert_eq!(few.swap_remove(number % model.len()), model.swap_remove(number % model.len())),
                }
                prop_assert_eq!(few.len(), model.len());
                prop_assert!(few.iter().eq(&model));
                prop_assert_eq!(few.get(model.len()), None);
                prop_assert_eq!(few.get_mut(0).copied(), model.first().copied());
            }
        }
    }
}
