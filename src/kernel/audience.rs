//! Which shards have members of a room, and which dialects those speak: what the home encodes and
//! where it mails to.
//! Invariant: a shard is listed while it has members; a dialect while a member there speaks it.

use crate::kernel::ids::ShardId;
use crate::wire::dialect::{DialectId, DialectSet};

pub struct Listener {
    pub shard: ShardId,
    /// The dialect of some members, and how many they are.
    dialect: DialectId,
    conns: u32,
    /// How many speak each of the others. None where all speak one.
    #[allow(clippy::box_collection, reason = "a pointer where three would be paid for by every room")]
    others: Option<Box<Vec<(DialectId, u32)>>>,
    /// The held run of entries (see `lanes`) that the room's next entry for this shard may extend.
    pub open_run: Option<u64>,
}

impl Listener {
    fn others(&self) -> &[(DialectId, u32)] {
        self.others.as_ref().map_or(&[], |others| others)
    }

    fn add(&mut self, dialect: DialectId) {
        if dialect == self.dialect {
            self.conns += 1;
            return;
        }
        let others = self.others.get_or_insert_default();
        match others.iter_mut().find(|(spoken, _)| *spoken == dialect) {
            Some((_, conns)) => *conns += 1,
            None => others.push((dialect, 1)),
        }
    }

    /// False when nobody is left.
    fn remove(&mut self, dialect: DialectId) -> bool {
        if dialect == self.dialect {
            self.conns -= 1;
        } else {
            let mut others = self.others.iter_mut().flat_map(|others| others.iter_mut());
            let conns = others.find(|(spoken, _)| *spoken == dialect).map(|(_, conns)| conns);
            *conns.expect("a member's dialect is listed") -= 1;
        }
        if let Some(others) = &mut self.others {
            others.retain(|(_, conns)| *conns > 0);
            if self.conns == 0
                && let Some(next) = others.pop()
            {
                (self.dialect, self.conns) = next;
            }
            if others.is_empty() {
                self.others = None;
            }
        }
        self.conns > 0
    }
}

/// Nearly every room is heard on one shard.
#[derive(Default)]
enum Listeners {
    #[default]
    Nowhere,
    On(Listener),
    #[allow(clippy::box_collection, reason = "a pointer where three would be paid for by every room")]
    OnSeveral(Box<Vec<Listener>>),
}

#[derive(Default)]
pub struct Audience(Listeners);

// One per room, and nearly every connection brings a room of its own.
const _: () = assert!(size_of::<Audience>() <= 32);

impl Audience {
    pub fn is_empty(&self) -> bool {
        self.shards().is_empty()
    }

    fn shards(&self) -> &[Listener] {
        match &self.0 {
            Listeners::Nowhere => &[],
            Listeners::On(one) => std::slice::from_ref(one),
            Listeners::OnSeveral(list) => list,
        }
    }

    fn slice_mut(&mut self) -> &mut [Listener] {
        match &mut self.0 {
            Listeners::Nowhere => &mut [],
            Listeners::On(one) => std::slice::from_mut(one),
            Listeners::OnSeveral(list) => list,
        }
    }

    pub fn add(&mut self, shard: ShardId, dialect: DialectId) {
        if let Some(listener) = self.shard_mut(shard) {
            return listener.add(dialect);
        }
        let new = Listener { shard, dialect, conns: 1, others: None, open_run: None };
        self.0 = match std::mem::take(&mut self.0) {
            Listeners::Nowhere => Listeners::On(new),
            Listeners::On(one) => Listeners::OnSeveral(Box::new(vec![one, new])),
            Listeners::OnSeveral(mut list) => {
                list.push(new);
                Listeners::OnSeveral(list)
            }
        };
    }

    /// Takes back one [`Audience::add`] with the same arguments.
    pub fn remove(&mut self, shard: ShardId, dialect: DialectId) {
        let listener = self.shard_mut(shard).expect("a member's shard is listed");
        if listener.remove(dialect) {
            return;
        }
        if let Listeners::OnSeveral(list) = &mut self.0 {
            list.retain(|listener| listener.shard != shard);
            if !list.is_empty() {
                return;
            }
        }
        self.0 = Listeners::Nowhere;
    }

    pub fn dialects(&self) -> DialectSet {
        let mut set = DialectSet::default();
        for listener in self.shards() {
            set.insert(listener.dialect);
            listener.others().iter().for_each(|(dialect, _)| set.insert(*dialect));
        }
        set
    }

    pub fn shards_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.slice_mut().iter_mut()
    }

    pub fn shard_mut(&mut self, shard: ShardId) -> Option<&mut Listener> {
        self.shards_mut().find(|listener| listener.shard == shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::DIALECTS_MAX;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_audience_agrees_with_a_plain_list(moves in proptest::collection::vec((any::<bool>(), 0u8..4, 0u8..5), 0..100)) {
            let mut audience = Audience::default();
            let mut model: Vec<(ShardId, DialectId)> = Vec::new();
            for (add, shard, dialect) in moves {
                let one = (ShardId(shard), DialectId(dialect));
                if add {
                    audience.add(one.0, one.1);
                    model.push(one);
                } else if let Some(place) = model.iter().position(|other| *other == one) {
                    audience.remove(one.0, one.1);
                    model.swap_remove(place);
                }
                for shard in 0..4 {
                    let listed = audience.shard_mut(ShardId(shard)).is_some();
                    prop_assert_eq!(listed, model.iter().any(|one| one.0 == ShardId(shard)));
                }
                for dialect in 0..DIALECTS_MAX as u8 {
                    let spoken = audience.dialects().contains(DialectId(dialect));
                    prop_assert_eq!(spoken, model.iter().any(|one| one.1 == DialectId(dialect)));
                }
                prop_assert_eq!(audience.is_empty(), model.is_empty());
            }
        }
    }
}
