//! A list that grows by pages: no growth copies more than half of one page, or a page's address for
//! each page. A list that doubles would stall a turn for as long as copying it takes, and half of
//! it would stand empty.
//! Invariant: all pages but the last that holds anything are full; behind it is one empty page at
//! most, so a list that swings about a page's end does not take and give that page each time.

use std::ops::{Index, IndexMut};

const PAGE_BITS: usize = 8;
/// Places of one page.
pub const PAGE: usize = 1 << PAGE_BITS;

pub struct Pages<T> {
    /// The first grows like any small list, the others are made whole.
    pages: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Pages { pages: Vec::new(), len: 0 }
    }
}

impl<T> Pages<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, value: T) {
        let nth = self.len >> PAGE_BITS;
        if nth == self.pages.len() {
            // Very many lists hold a few things, so nothing is taken beforehand.
            self.pages.reserve_exact(usize::from(nth < 4));
            self.pages.push(if nth == 0 { Vec::new() } else { Vec::with_capacity(PAGE) });
        }
        push_small(&mut self.pages[nth], value);
        self.len += 1;
    }

    pub fn pop(&mut self) -> Option<T> {
        self.len = self.len.checked_sub(1)?;
        let nth = self.len >> PAGE_BITS;
        self.pages.truncate(nth + 2);
        self.pages[nth].pop()
    }

    /// Takes a value out; the last one takes its place.
    pub fn swap_remove(&mut self, place: usize) -> T {
        let last = self.pop().expect("taken from a list that has something");
        if place == self.len { last } else { std::mem::replace(&mut self[place], last) }
    }

    pub fn get(&self, place: usize) -> Option<&T> {
        self.pages.get(place >> PAGE_BITS)?.get(place & (PAGE - 1))
    }

    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.pages.get_mut(place >> PAGE_BITS)?.get_mut(place & (PAGE - 1))
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten()
    }

    /// Page by page.
    pub fn pages(&self) -> std::slice::Iter<'_, Vec<T>> {
        self.pages.iter()
    }

    /// All that is in it, which is given back page by page.
    pub fn into_pages(self) -> impl Iterator<Item = Vec<T>> {
        self.pages.into_iter()
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;
    fn index(&self, place: usize) -> &T {
        &self.pages[place >> PAGE_BITS][place & (PAGE - 1)]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.pages[place >> PAGE_BITS][place & (PAGE - 1)]
    }
}

/// Appends to a list that is short for nearly all of its owners: the first few places are not
/// taken four at a time.
fn push_small<T>(list: &mut Vec<T>, value: T) {
    if list.len() < 4 {
        list.reserve_exact(1);
    }
    list.push(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_behind_the_first_page_stays_where_it_is() {
        let mut pages = Pages::default();
        (0..PAGE + 1).for_each(|n| pages.push(n));
        let first: *const usize = &pages[PAGE];
        (PAGE + 1..5 * PAGE).for_each(|n| pages.push(n));
        assert_eq!(first, &pages[PAGE]);
    }

    #[test]
    fn a_list_that_shrinks_gives_its_pages_back_but_for_one() {
        let mut pages = Pages::default();
        (0..3 * PAGE + 1).for_each(|n| pages.push(n));
        while pages.len() > PAGE / 2 {
            pages.pop();
        }
        assert_eq!(pages.pages.len(), 2);
    }

    proptest! {
        #[test]
        fn a_paged_list_agrees_with_a_plain_one(moves in proptest::collection::vec((0u8..8, 0usize..600), 1..40)) {
            let mut pages = Pages::default();
            let mut model = Vec::new();
            for (step, (kind, number)) in moves.into_iter().enumerate() {
                match kind {
                    0..5 => (0..number).for_each(|n| {
                        pages.push((step, n));
                        model.push((step, n));
                    }),
                    5 | 6 => (0..number).for_each(|_| assert_eq!(pages.pop(), model.pop())),
                    _ if model.is_empty() => {}
                    _ => prop_assert_eq!(pages.swap_remove(number % model.len()), model.swap_remove(number % model.len())),
                }
                prop_assert_eq!(pages.len(), model.len());
                prop_assert!(pages.iter().eq(&model));
                prop_assert_eq!(pages.get(model.len()), None);
                prop_assert!((0..model.len()).step_by(97).all(|place| pages[place] == model[place]));
            }
        }
    }
}
