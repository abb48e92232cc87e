//! Which shards have members of a room, and which dialects those speak: what the home encodes and
//! where it mails to.
//! Invariant: a shard is listed while it has members; a dialect while a member there speaks it.

use crate::kernel::ids::ShardId;
use crate::wire::dialect::{DialectId, DialectSet};

pub struct Listener {
    pub shard: ShardId,
    /// How many members speak each.
    dialects: Vec<(DialectId, u32)>,
    /// The held run of entries (see `lanes`) that the room's next entry for this shard may extend.
    pub open_run: Option<u64>,
}

#[derive(Default)]
pub struct Audience {
    shards: Vec<Listener>,
}

impl Audience {
    pub fn is_empty(&self) -> bool {
        self.shards.is_empty()
    }

    pub fn add(&mut self, shard: ShardId, dialect: DialectId) {
        let place = self.shards.iter().position(|listener| listener.shard == shard).unwrap_or_else(|| {
            // Nearly every room is heard on one shard, in one dialect.
            self.shards.reserve_exact(1);
            self.shards.push(Listener { shard, dialects: Vec::with_capacity(1), open_run: None });
            self.shards.len() - 1
        });
        let listener = &mut self.shards[place];
        match listener.dialects.iter_mut().find(|(spoken, _)| *spoken == dialect) {
            Some((_, conns)) => *conns += 1,
            None => listener.dialects.push((dialect, 1)),
        }
    }

    /// Takes back one [`Audience::add`] with the same arguments.
    pub fn remove(&mut self, shard: ShardId, dialect: DialectId) {
        let place = self.shards.iter().position(|listener| listener.shard == shard);
        let place = place.expect("a member's shard is listed");
        let listener = &mut self.shards[place];
        let spoken = listener.dialects.iter().position(|(spoken, _)| *spoken == dialect);
        let spoken = spoken.expect("a member's dialect is listed");
        listener.dialects[spoken].1 -= 1;
        if listener.dialects[spoken].1 == 0 {
            listener.dialects.swap_remove(spoken);
        }
        if listener.dialects.is_empty() {
            self.shards.swap_remove(place);
        }
    }

    pub fn dialects(&self) -> DialectSet {
        let mut set = DialectSet::default();
        for (dialect, _) in self.shards.iter().flat_map(|listener| &listener.dialects) {
            set.insert(*dialect);
        }
        set
    }

    pub fn shards_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.shards.iter_mut()
    }

    pub fn shard_mut(&mut self, shard: ShardId) -> Option<&mut Listener> {
        self.shards.iter_mut().find(|listener| listener.shard == shard)
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
