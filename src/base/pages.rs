//! A list that grows by pages: what is in it never moves, and no growth copies more than a page's
//! address. A list that doubles would stall a turn for as long as copying it takes.

use std::ops::{Index, IndexMut};

const PAGE_BITS: usize = 8;
const PAGE: usize = 1 << PAGE_BITS;

pub struct Pages<T> {
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
        if self.len.is_multiple_of(PAGE) {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        self.pages[self.len >> PAGE_BITS].push(value);
        self.len += 1;
    }

    pub fn get(&self, place: usize) -> Option<&T> {
        self.pages.get(place >> PAGE_BITS)?.get(place & (PAGE - 1))
    }

    pub fn get_mut(&mut self, place: usize) -> Option<&mut T> {
        self.pages.get_mut(place >> PAGE_BITS)?.get_mut(place & (PAGE - 1))
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
pub fn push_small<T>(list: &mut Vec<T>, value: T) {
    if list.len() < 4 {
        list.reserve_exact(1);
    }
    list.push(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_found_and_stays_where_it_is() {
        let mut pages = Pages::default();
        assert_eq!(pages.get(0), None);
        pages.push(0);
        let first: *const usize = &pages[0];
        (1..3 * PAGE + 1).for_each(|n| pages.push(n));
        assert_eq!(pages.len(), 3 * PAGE + 1);
        assert!((0..pages.len()).all(|n| pages[n] == n));
        assert_eq!(pages.get(pages.len()), None);
        assert_eq!(first, &pages[0]);
    }
}
