//! Who is in a room, at its home: connections one by one (a lost or repeated leave must not count
//! twice), users with how many connections each.
//! Invariant: a user is listed while one of its connections is in; `conns` and `users` change
//! together, in [`Directory::add`] and [`Directory::remove`].

use crate::admission::names::User;
use crate::base::hash::Keyed;
use crate::base::index::Index;
use crate::base::pages::Pages;
use crate::kernel::ids::{ConnAt, ConnId, ShardId};
use crate::wire::dialect::DialectId;

/// Rows from which on they are found by index instead of by looking at each.
const INDEXED_FROM: usize = 9;

#[derive(Default)]
pub struct Directory(Size);

/// Nearly every connection brings its user's inbox, a room of one.
#[derive(Default)]
enum Size {
    #[default]
    Empty,
    One {
        user: User,
        at: ConnAt,
        dialect: DialectId,
    },
    /// A room that had more than one keeps this until it is empty.
    Many(Box<Many>),
}

// One per room, and nearly every connection brings a room of its own.
const _: () = assert!(size_of::<Directory>() <= 24);

/// Whom a connection of a room speaks for, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub user: User,
    pub dialect: DialectId,
}

/// What a join or a leave changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The connection was there already.
    Nothing,
    /// One more or less connection of a user who stays listed.
    Conn,
    /// The user's first connection came, or the last one went.
    User,
}

impl Directory {
    pub fn conns(&self) -> usize {
        match &self.0 {
            Size::Empty => 0,
            Size::One { .. } => 1,
            Size::Many(many) => many.conns.len(),
        }
    }

    pub fn users(&self) -> usize {
        match &self.0 {
            Size::Empty => 0,
            Size::One { .. } => 1,
            Size::Many(many) => many.users_listed,
        }
    }

    pub fn contains(&self, at: ConnAt) -> bool {
        match &self.0 {
            Size::Empty => false,
            Size::One { at: one, .. } => *one == at,
            Size::Many(many) => many.place_of(at).is_some(),
        }
    }

    /// Adds a connection of `user`. `keyed`: the hasher of the index, should the room grow one.
    pub fn add(&mut self, at: ConnAt, user: &User, dialect: DialectId, keyed: Keyed) -> Change {
        if self.contains(at) {
            return Change::Nothing;
        }
        if let Size::Empty = self.0 {
            self.0 = Size::One { user: user.clone(), at, dialect };
            return Change::User;
        }
        self.many().add(at, user, dialect, keyed)
    }

    /// The room as one of many, which it becomes.
    fn many(&mut self) -> &mut Many {
        if !matches!(self.0, Size::Many(_)) {
            let mut many = Box::<Many>::default();
            if let Size::One { user, at, dialect } = std::mem::take(&mut self.0) {
                let place = many.add_user(&user);
                many.add_conn(at, place, dialect);
            }
            self.0 = Size::Many(many);
        }
        let Size::Many(many) = &mut self.0 else { unreachable!("made so above") };
        many
    }

    /// What the connection was in the room as, and what its leaving changed. `None`: it was not.
    pub fn remove(&mut self, at: ConnAt) -> Option<(Member, Change)> {
        if !self.contains(at) {
            return None;
        }
        if let Size::Many(many) = &mut self.0 {
            let gone = many.remove(at);
            if many.conns.is_empty() {
                self.0 = Size::Empty;
            }
            return gone;
        }
        match std::mem::take(&mut self.0) {
            Size::One { user, dialect, .. } => Some((Member { user, dialect }, Change::User)),
            _ => unreachable!("it contains the connection"),
        }
    }

    /// Users from row `from` on, at most `limit`, and the row to go on from. A user who is in the
    /// room all the while is seen exactly once.
    pub fn page(&self, from: u32, limit: usize) -> (Vec<User>, Option<u32>) {
        match &self.0 {
            Size::One { user, .. } if from == 0 => (vec![user.clone()], None),
            Size::Many(many) => many.page(from, limit),
            Size::Empty | Size::One { .. } => (Vec::new(), None),
        }
    }
}

#[derive(Default)]
struct Many {
    /// Rows never move while taken, so a row's number is a cursor for paging.
    users: Pages<UserRow>,
    /// The row that was freed last.
    users_free: Option<u32>,
    users_listed: usize,
    conns: Pages<Conn>,
    /// None while the room is small.
    indexes: Option<Box<Indexes>>,
}

enum UserRow {
    Listed {
        user: User,
        conns: u32,
    },
    /// Leads to the row that was freed before.
    Free(Option<u32>),
}

struct Conn {
    conn: ConnId,
    /// The row of its user.
    user: u32,
    shard: ShardId,
    dialect: DialectId,
}

// One of each per connection in the room.
const _: () = assert!(size_of::<Conn>() == 16);
const _: () = assert!(size_of::<UserRow>() == 16);

struct Indexes {
    users: Index,
    conns: Index,
}

impl Conn {
    fn at(&self) -> ConnAt {
        ConnAt { shard: self.shard, conn: self.conn }
    }
}

impl Many {
    fn place_of(&self, at: ConnAt) -> Option<u32> {
        let is_it = |place: u32| self.conns[place as usize].at() == at;
        match &self.indexes {
            Some(indexes) => indexes.conns.find(&at, is_it),
            None => (0..self.conns.len() as u32).find(|place| is_it(*place)),
        }
    }

    fn user_of(&self, id: &User) -> Option<u32> {
        let is_it = |place: u32| matches!(&self.users[place as usize], UserRow::Listed { user, .. } if user == id);
        match &self.indexes {
            Some(indexes) => indexes.users.find(id, is_it),
            None => (0..self.users.len() as u32).find(|place| is_it(*place)),
        }
    }

    fn add(&mut self, at: ConnAt, user: &User, dialect: DialectId, keyed: Keyed) -> Change {
        let known = self.user_of(user);
        let place = known.unwrap_or_else(|| self.add_user(user));
        self.add_conn(at, place, dialect);
        if self.indexes.is_none() && self.conns.len() == INDEXED_FROM {
            self.index(keyed);
        }
        if known.is_some() { Change::Conn } else { Change::User }
    }

    fn add_user(&mut self, user: &User) -> u32 {
        let row = UserRow::Listed { user: user.clone(), conns: 0 };
        let place = match self.users_free {
            Some(place) => {
                let UserRow::Free(next) = self.users[place as usize] else { unreachable!("a free row lists nobody") };
                self.users_free = next;
                self.users[place as usize] = row;
                place
            }
            None => {
                self.users.push(row);
                (self.users.len() - 1) as u32
            }
        };
        self.users_listed += 1;
        let users = &self.users;
        if let Some(indexes) = &mut self.indexes {
            indexes.users.insert(&user, place, |place| user_at(users, place));
        }
        place
    }

    fn add_conn(&mut self, at: ConnAt, user: u32, dialect: DialectId) {
        let UserRow::Listed { conns, .. } = &mut self.users[user as usize] else {
            unreachable!("a connection's user is listed")
        };
        *conns += 1;
        self.conns.push(Conn { conn: at.conn, user, shard: at.shard, dialect });
        let conns = &self.conns;
        if let Some(indexes) = &mut self.indexes {
            indexes.conns.insert(&at, (conns.len() - 1) as u32, |place| conns[place as usize].at());
        }
    }

    /// Builds the indexes of a room that is no longer small; it keeps them.
    fn index(&mut self, keyed: Keyed) {
        let mut indexes = Indexes { users: Index::new(keyed), conns: Index::new(keyed) };
        let (users, conns) = (&self.users, &self.conns);
        for (place, conn) in conns.iter().enumerate() {
            indexes.conns.insert(&conn.at(), place as u32, |place| conns[place as usize].at());
        }
        for (place, row) in users.iter().enumerate() {
            if let UserRow::Listed { user, .. } = row {
                indexes.users.insert(&user, place as u32, |place| user_at(users, place));
            }
        }
        self.indexes = Some(Box::new(indexes));
    }

    fn remove(&mut self, at: ConnAt) -> Option<(Member, Change)> {
        let place = self.place_of(at)?;
        let gone = self.conns.swap_remove(place as usize);
        if let Some(indexes) = &mut self.indexes {
            indexes.conns.remove(&at, place);
            if let Some(moved) = self.conns.get(place as usize) {
                let (moved, from) = (moved.at(), self.conns.len() as u32);
                indexes.conns.remove(&moved, from);
                let conns = &self.conns;
                indexes.conns.insert(&moved, place, |place| conns[place as usize].at());
            }
        }
        let row = &mut self.users[gone.user as usize];
        let UserRow::Listed { user, conns } = row else { unreachable!("a connection's user is listed") };
        *conns -= 1;
        let member = Member { user: user.clone(), dialect: gone.dialect };
        if *conns > 0 {
            return Some((member, Change::Conn));
        }
        *row = UserRow::Free(self.users_free);
        self.users_free = Some(gone.user);
        self.users_listed -= 1;
        if let Some(indexes) = &mut self.indexes {
            indexes.users.remove(&member.user, gone.user);
        }
        Some((member, Change::User))
    }

    fn page(&self, from: u32, limit: usize) -> (Vec<User>, Option<u32>) {
        let mut page = Vec::new();
        for place in from as usize..self.users.len() {
            let UserRow::Listed { user, .. } = &self.users[place] else { continue };
            if page.len() == limit {
                return (page, Some(place as u32));
            }
            page.push(user.clone());
        }
        (page, None)
    }
}

fn user_at(users: &Pages<UserRow>, place: u32) -> &User {
    match &users[place as usize] {
        UserRow::Listed { user, .. } => user,
        UserRow::Free(_) => unreachable!("a free row is not indexed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::table::Key;
    use crate::wire::dialect::NATIVE_JSON;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn conn(n: u32) -> ConnAt {
        ConnAt { shard: ShardId((n % 3) as u8), conn: ConnId(Key { slot: n, generation: 0 }) }
    }

    proptest! {
        #[test]
        fn a_directory_agrees_with_a_plain_map(moves in proptest::collection::vec((any::<bool>(), 0u32..30, 0u8..6), 1..200)) {
            let mut directory = Directory::default();
            let mut model: BTreeMap<ConnAt, User> = BTreeMap::new();
            for (add, n, user) in moves {
                let id: User = User::new("t".into(), &format!("u{user}"));
                let listed = |model: &BTreeMap<ConnAt, User>, id: &User| model.values().any(|user| user == id);
                if add {
                    let want = match (model.contains_key(&conn(n)), listed(&model, &id)) {
                        (true, _) => Change::Nothing,
                        (false, true) => Change::Conn,
                        (false, false) => Change::User,
                    };
                    prop_assert_eq!(directory.add(conn(n), &id, NATIVE_JSON, Keyed::new([3, 4])), want);
                    model.entry(conn(n)).or_insert(id);
                } else {
                    let gone = model.remove(&conn(n));
                    let want = gone.map(|user| {
                        let change = if listed(&model, &user) { Change::Conn } else { Change::User };
                        (Member { user, dialect: NATIVE_JSON }, change)
                    });
                    prop_assert_eq!(directory.remove(conn(n)), want);
                }
                let users: BTreeSet<String> = model.values().map(|user| user.to_string()).collect();
                prop_assert_eq!((directory.conns(), directory.users()), (model.len(), users.len()));
                let (mut seen, mut from) = (Vec::new(), Some(0));
                while let Some(place) = from {
                    let (page, next) = directory.page(place, 2);
                    prop_assert!(page.len() <= 2);
                    seen.extend(page.iter().map(|user| user.to_string()));
                    from = next;
                }
                prop_assert_eq!(seen.len(), users.len());
                prop_assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), users);
            }
        }
    }
}
