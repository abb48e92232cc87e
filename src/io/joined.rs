//! Frames that one connection after another is to get, joined once for all of them: members of a
//! room often have the same few waiting, and the kernel takes one piece faster than several.
//! Invariant: what was joined stays where it is, as it is, until [`Joined::clear`].

use crate::base::limits::JOINED_BYTES_MAX;
use std::ops::Range;

pub struct Joined {
    space: Box<[u8]>,
    used: usize,
    /// Addresses and lengths of the pieces that came last.
    last: Vec<(usize, usize)>,
    /// Where they are joined, if they are.
    place: Option<Range<usize>>,
}

impl Default for Joined {
    fn default() -> Self {
        Joined { space: vec![0; JOINED_BYTES_MAX].into(), used: 0, last: Vec::new(), place: None }
    }
}

impl Joined {
    /// `pieces` as one, if they are those that came before them and there is space. All that came
    /// since the last [`Joined::clear`] must still be where it was: that is what makes the same
    /// addresses the same bytes.
    pub fn join(&mut self, pieces: &[&[u8]]) -> Option<&[u8]> {
        if pieces.len() < 2 {
            return None;
        }
        let name = |piece: &&[u8]| (piece.as_ptr() as usize, piece.len());
        if self.last.len() != pieces.len() || !self.last.iter().copied().eq(pieces.iter().map(name)) {
            self.last.clear();
            self.last.extend(pieces.iter().map(name));
            self.place = None;
            return None;
        }
        if self.place.is_none() {
            let start = self.used;
            let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
            if bytes > self.space.len() - start {
                return None;
            }
            for piece in pieces {
                self.space[self.used..][..piece.len()].copy_from_slice(piece);
                self.used += piece.len();
            }
            self.place = Some(start..self.used);
        }
        self.place.clone().map(|place| &self.space[place])
    }

    /// Forgets all pieces, and uses the space again.
    pub fn clear(&mut self) {
        self.used = 0;
        self.last.clear();
        self.place = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_pieces_in_a_row_are_joined_and_once_for_all() {
        let (one, two) = (b"one".to_vec(), b"two".to_vec());
        let equal = one.clone();
        let mut joined = Joined::default();
        assert_eq!(joined.join(&[&one, &two]), None, "nobody shares them yet");
        let first = joined.join(&[&one, &two]).map(|all| (all.to_vec(), all.as_ptr()));
        let second = joined.join(&[&one, &two]).map(|all| (all.to_vec(), all.as_ptr()));
        assert_eq!(first.as_ref().map(|(all, _)| &all[..]), Some(&b"onetwo"[..]));
        assert_eq!(first, second);
        assert_eq!(joined.join(&[&equal, &two]), None, "the same bytes elsewhere are not looked at");
        assert_eq!(joined.join(&[&one[1..], &two]), None);
        assert_eq!(joined.join(&[&one[1..], &two]), Some(&b"netwo"[..]), "a run of its own");
        assert_eq!(joined.join(&[&one[1..], &two[..2]]), None);
        assert_eq!(joined.join(&[&one[1..]]), None, "one piece is one already");
        assert_eq!(joined.join(&[&one[1..]]), None);
    }

    #[test]
    fn runs_do_not_overwrite_each_other_and_a_full_space_is_no_error() {
        let large = vec![7u8; JOINED_BYTES_MAX / 2];
        let mut joined = Joined::default();
        let mut twice = |pieces: &[&[u8]]| {
            joined.join(pieces);
            joined.join(pieces).map(|all| (all.as_ptr() as usize, all.to_vec()))
        };
        let (place, all) = twice(&[b"a", b"b"]).unwrap();
        let (next, _) = twice(&[&large, b"c"]).unwrap();
        assert_eq!((all, next), (b"ab".to_vec(), place + 2));
        assert_eq!(twice(&[&large, b"d"]), None);
        assert!(twice(&[b"e", b"f"]).is_some(), "what fits still does");
        joined.clear();
        assert_eq!(joined.join(&[b"a", b"b"]), None);
        let again = joined.join(&[b"a", b"b"]).map(|all| all.as_ptr() as usize);
        assert_eq!(again, Some(place));
    }
}
