//! What senders have left of the limits on how much may be asked. A connection's own bucket lies in its
//! row. Those of users, and of connections that were refused, lie here.
//! Invariants: a row is here because its bucket was not full when it was last looked at, and full ones go
//! a few at a time; there are at most [`BUCKETS_MAX`], beyond which one is let go of for each new one.

use crate::admission::names::User;
use crate::admission::rates::{Allowance, Bucket, Charge, EventRate, Meter, Paid, Rates, TOKEN, Whose, pay};
use crate::admission::rights::Rate;
use crate::base::hash::Keyed;
use crate::base::index::Index;
use crate::base::limits::{BUCKETS_MAX, BUCKETS_PER_INSERT, BUCKETS_PER_TICK, REFUSALS_MAX, REFUSALS_TIME};
use crate::base::table::Table;
use crate::base::time::{Instant, Now};
use crate::kernel::Kernel;
use crate::kernel::effects::Effects;
use crate::kernel::feature::Declared;
use crate::kernel::ids::ConnId;
use crate::kernel::reasons::CloseReason;
use crate::wire::codes::{ErrorCode, Limit, WireError};
use smallvec::SmallVec;

const REFUSALS: Allowance = Allowance { burst: REFUSALS_MAX, tokens: REFUSALS_MAX, period: REFUSALS_TIME };

/// What a request is charged by.
#[derive(Clone, Copy)]
pub struct Price<'a> {
    /// Where it is one that a feature declares.
    pub event: Option<&'a str>,
    pub rate: Rate,
    /// As many as it names; what names none counts as one.
    pub rooms: u32,
}

impl Price<'_> {
    /// Of what is no request: that of the dearest.
    pub const RUBBISH: Price<'static> = Price { event: None, rate: Rate::Heavy, rooms: 1 };

    pub fn of(declared: &Declared, rooms: u32) -> Price<'_> {
        Price { event: Some(declared.event), rate: declared.rate, rooms }
    }

    /// What it takes of a connection's bucket, in quarters of a token.
    fn units(self) -> u32 {
        self.rate.units() * self.rooms
    }
}

/// A meter whose buckets lie in the table. Numbers are not used twice, so what an operator took back is
/// told from what came in its place.
struct Numbered {
    number: u32,
    meter: Meter,
}

/// The limits in force, and all buckets but those of connections.
pub struct Meters {
    rates: Rates,
    conn: Option<Meter>,
    user: Option<Numbered>,
    /// Of `rates.events`, in their order.
    events: Vec<Numbered>,
    refusals: Numbered,
    next_number: u32,
    buckets: Buckets,
}

impl Meters {
    pub fn new(rates: Rates, keyed: Keyed, now: Instant) -> Meters {
        let mut meters = Meters {
            rates: Rates::default(),
            conn: None,
            user: None,
            events: Vec::new(),
            refusals: Numbered { number: 0, meter: Meter::new(REFUSALS, now, None) },
            next_number: 1,
            buckets: Buckets::new(keyed),
        };
        meters.change(rates, now);
        meters
    }

    /// Keeps to `rates` from now on. Where a limit has changed, everybody begins with a full bucket.
    pub fn change(&mut self, rates: Rates, now: Instant) {
        if rates.conn != self.rates.conn {
            // Without a limit the meter stays for the next one to begin where its buckets are full.
            let allowance = rates.conn.or(self.rates.conn);
            self.conn = allowance.map(|allowance| Meter::new(allowance, now, self.conn.as_mut()));
        }
        if rates.user != self.rates.user {
            self.user = rates.user.map(|allowance| self.number(allowance, now));
        }
        let mut before: Vec<_> =
            std::mem::take(&mut self.rates.events).into_iter().zip(self.events.drain(..)).collect();
        let same = |rate: &EventRate| {
            let at = before.iter().position(|(old, _)| old == rate)?;
            Some(before.swap_remove(at).1)
        };
        let kept: Vec<_> = rates.events.iter().map(same).collect();
        let numbered = |(rate, kept): (&EventRate, Option<Numbered>)| match kept {
            Some(kept) => kept,
            None => self.number(rate.allowance, now),
        };
        let events = rates.events.iter().zip(kept).map(numbered).collect();
        self.events = events;
        self.rates = rates;
    }

    fn number(&mut self, allowance: Allowance, now: Instant) -> Numbered {
        let number = self.next_number;
        self.next_number += 1;
        Numbered { number, meter: Meter::new(allowance, now, None) }
    }

    /// What a new connection begins with.
    pub fn full(&mut self, now: Instant) -> Bucket {
        self.conn.as_mut().map_or_else(Bucket::default, |meter| meter.full(now))
    }

    /// Rows of the table.
    pub fn len(&self) -> usize {
        self.buckets.table.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes of everything that limits this request, or of nothing.
    #[inline]
    fn pay(&mut self, now: Instant, own: &mut Bucket, user: &User, price: Price<'_>) -> Result<Paid, (Limit, u64)> {
        if self.user.is_some() || !self.events.is_empty() {
            return self.pay_for_user(now, own, user, price);
        }
        // Nearly everywhere this is the only limit: nothing is looked up for it.
        let Some(meter) = self.conn.as_mut().filter(|_| self.rates.conn.is_some()) else {
            return Ok(Paid::unlimited());
        };
        pay(&mut [Charge { whose: Whose::Conn, meter, bucket: own, units: price.units() }], now)
            .map_err(|unpaid| (Limit::Conn, unpaid.retry_after_ms))
    }

    fn pay_for_user(
        &mut self,
        now: Instant,
        own: &mut Bucket,
        user: &User,
        price: Price<'_>,
    ) -> Result<Paid, (Limit, u64)> {
        let rule = price.event.and_then(|event| self.rates.events.iter().position(|rate| rate.covers(event)));
        let buckets = &self.buckets;
        let find = |limit: &mut Numbered| buckets.find(Of::User(user), &mut *limit, now);
        let mut of_user = self.user.as_mut().map(|limit| (find(limit), limit));
        let mut of_event = rule.map(|rule| &mut self.events[rule]).map(|limit| (find(limit), limit));

        let mut charges: SmallVec<[Charge<'_>; 3]> = SmallVec::new();
        if let Some(meter) = self.conn.as_mut().filter(|_| self.rates.conn.is_some()) {
            charges.push(Charge { whose: Whose::Conn, meter, bucket: own, units: price.units() });
        }
        for (whose, of) in [(Whose::User, &mut of_user), (Whose::Event, &mut of_event)] {
            if let Some((found, limit)) = of {
                let (meter, bucket) = (&mut limit.meter, &mut found.bucket);
                charges.push(Charge { whose, meter, bucket, units: TOKEN * price.rooms });
            }
        }
        let paid = pay(&mut charges, now);
        drop(charges);
        let taken = [of_user, of_event].map(|of| of.map(|(found, _)| found));
        match paid {
            Ok(paid) => {
                taken.into_iter().flatten().for_each(|found| self.keep(Of::User(user), found, now));
                Ok(paid)
            }
            Err(unpaid) => {
                let limit = match (unpaid.whose, rule) {
                    (Whose::Conn, _) => Limit::Conn,
                    (Whose::Event, Some(rule)) => Limit::Event(self.rates.events[rule].pattern().clone()),
                    (Whose::User | Whose::Event, _) => Limit::User,
                };
                Err((limit, unpaid.retry_after_ms))
            }
        }
    }

    /// Counts a refusal of a connection; true when it is one too many.
    fn note_refusal(&mut self, now: Instant, conn: ConnId) -> bool {
        let mut found = self.buckets.find(Of::Conn(conn), &mut self.refusals, now);
        let (meter, bucket) = (&mut self.refusals.meter, &mut found.bucket);
        let is_too_many = pay(&mut [Charge { whose: Whose::Conn, meter, bucket, units: TOKEN }], now).is_err();
        self.keep(Of::Conn(conn), found, now);
        is_too_many
    }

    /// Notes what a bucket has now.
    fn keep(&mut self, of: Of<'_>, found: Found, now: Instant) {
        if let Some(slot) = found.slot {
            return self.buckets.set(slot, found.bucket);
        }
        self.sweep(now, BUCKETS_PER_INSERT);
        self.buckets.insert(of, found);
    }

    /// Looks at the next few rows, and drops those that say nothing any more.
    pub fn sweep(&mut self, now: Instant, count: usize) {
        for _ in 0..count.min(self.buckets.table.slots() as usize) {
            let Some((slot, number, bucket)) = self.buckets.next() else { continue };
            let limits = self.user.iter_mut().chain(&mut self.events).chain([&mut self.refusals]);
            let mut limit = limits.filter(|limit| limit.number == number);
            if limit.next().is_none_or(|limit| limit.meter.is_full(now, bucket)) {
                self.buckets.remove(slot);
            }
        }
    }
}

/// Whose a bucket of the table is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Of<'a> {
    User(&'a User),
    Conn(ConnId),
    Nobody,
}

enum Owner {
    User(User),
    Conn(ConnId),
}

struct Row {
    owner: Owner,
    /// Of the limit.
    number: u32,
    bucket: Bucket,
}

impl Row {
    fn key(&self) -> (Of<'_>, u32) {
        let of = match &self.owner {
            Owner::User(user) => Of::User(user),
            Owner::Conn(conn) => Of::Conn(*conn),
        };
        (of, self.number)
    }
}

/// A bucket, and where it lies if it does.
struct Found {
    number: u32,
    slot: Option<u32>,
    bucket: Bucket,
}

struct Buckets {
    table: Table<Row>,
    index: Index,
    /// Where the sweep goes on.
    hand: u32,
}

const _: () = assert!(Table::<Row>::slot_bytes() <= 32);

impl Buckets {
    fn new(keyed: Keyed) -> Buckets {
        Buckets { table: Table::default(), index: Index::new(keyed), hand: 0 }
    }

    fn find(&self, of: Of<'_>, limit: &mut Numbered, now: Instant) -> Found {
        let key = (of, limit.number);
        let is_it = |slot| self.table.at(slot).is_some_and(|(_, row)| row.key() == key);
        let slot = self.index.find(&key, is_it);
        let row = slot.and_then(|slot| self.table.at(slot));
        let bucket = row.map_or_else(|| limit.meter.full(now), |(_, row)| row.bucket);
        Found { number: limit.number, slot, bucket }
    }

    fn set(&mut self, slot: u32, bucket: Bucket) {
        if let Some(row) = self.table.at_mut(slot) {
            row.bucket = bucket;
        }
    }

    fn insert(&mut self, of: Of<'_>, found: Found) {
        while self.table.len() >= BUCKETS_MAX {
            // The next one begins full again.
            if let Some((slot, ..)) = self.next() {
                self.remove(slot);
            }
        }
        let owner = match of {
            Of::User(user) => Owner::User(user.clone()),
            Of::Conn(conn) => Owner::Conn(conn),
            Of::Nobody => unreachable!("nobody has a bucket"),
        };
        let number = found.number;
        let key = self.table.insert(Row { owner, number, bucket: found.bucket });
        let table = &self.table;
        let key_at = |slot| table.at(slot).map_or((Of::Nobody, 0), |(_, row)| row.key());
        self.index.insert(&(of, number), key.slot, key_at);
    }

    /// The next slot, if it holds a row.
    fn next(&mut self) -> Option<(u32, u32, Bucket)> {
        self.hand = if self.hand + 1 < self.table.slots() { self.hand + 1 } else { 0 };
        let (key, row) = self.table.at(self.hand)?;
        Some((key.slot, row.number, row.bucket))
    }

    fn remove(&mut self, slot: u32) {
        let Some((key, row)) = self.table.at(slot) else { return };
        self.index.remove(&row.key(), slot);
        self.table.remove(key);
    }
}

impl Kernel {
    /// Counts a request of a connection against all limits on how much it may ask, or says which one is used
    /// up.
    pub fn pay(&mut self, now: Now, conn: ConnId, price: Price<'_>) -> Result<Paid, WireError> {
        let cold = self.conns.cold_mut(conn).expect("a request comes from an open connection");
        let (limit, retry_after_ms) = match self.meters.pay(now.at, &mut cold.bucket, &cold.identity.user, price) {
            Ok(paid) => return Ok(paid),
            Err(refused) => refused,
        };
        if let Some(paid) = Paid::exempt(&cold.identity, &self.meters.rates.unlimited_roles) {
            return Ok(paid);
        }
        let what = match &limit {
            Limit::User => "your user, over all its connections,",
            Limit::Event(_) => "your user",
            _ => "this connection",
        };
        let message = format!("{what} asks for too much; nothing was done, send it again after retry_after_ms");
        let error = WireError::new(ErrorCode::RateLimited, message);
        Err(WireError { limit: Some(limit), retry_after_ms: Some(retry_after_ms), ..error })
    }

    /// Closes a connection that goes on asking after it was refused.
    pub fn note_rate_refusal(&mut self, now: Now, conn: ConnId, effects: &mut Effects) {
        if self.meters.note_refusal(now.at, conn) {
            self.close_for(now, conn, CloseReason::AskedOn, effects);
        }
    }

    pub fn sweep_buckets(&mut self, now: Now) {
        self.meters.sweep(now.at, BUCKETS_PER_TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn rates(user: Option<Allowance>, events: &[&str]) -> Rates {
        let events = events.iter().map(|text| EventRate::parse(text).unwrap()).collect();
        Rates { user, events, ..Rates::default() }
    }

    fn allowance(burst: u32) -> Allowance {
        Allowance { burst, tokens: burst, period: Duration::from_secs(1) }
    }

    fn user(name: &str) -> User {
        User::new("acme".into(), name)
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO.after(Duration::from_secs(1_000) + Duration::from_millis(ms))
    }

    fn ask(meters: &mut Meters, ms: u64, user: &User, event: &str) -> Result<(), (Limit, u64)> {
        let mut own = meters.full(at(ms));
        meters.pay(at(ms), &mut own, user, Price { event: Some(event), rate: Rate::Heavy, rooms: 1 }).map(|_| ())
    }

    fn meters(rates: Rates) -> Meters {
        Meters::new(rates, Keyed::new([1, 2]), at(0))
    }

    #[test]
    fn users_have_buckets_of_their_own_whatever_their_tenant_calls_them() {
        let mut meters = meters(rates(Some(allowance(2)), &[]));
        let (ada, bob, other) = (user("ada"), user("bob"), User::new("other".into(), "ada"));
        for who in [&ada, &bob, &other] {
            assert_eq!(ask(&mut meters, 0, who, "ping"), Ok(()));
            assert_eq!(ask(&mut meters, 0, who, "ping"), Ok(()));
            assert_eq!(ask(&mut meters, 0, who, "ping"), Err((Limit::User, 500)));
        }
        assert_eq!(ask(&mut meters, 500, &user("ada"), "ping"), Ok(()), "found by what it is called");
    }

    #[test]
    fn the_first_rule_that_covers_an_event_decides_and_each_has_its_own_bucket() {
        let mut meters = meters(rates(None, &["room:publish 1/1s", "room:* 2/1s"]));
        let ada = user("ada");
        assert_eq!(ask(&mut meters, 0, &ada, "room:publish"), Ok(()));
        assert_eq!(ask(&mut meters, 0, &ada, "room:publish"), Err((Limit::Event("room:publish".into()), 1_000)));
        assert_eq!(ask(&mut meters, 0, &ada, "room:join"), Ok(()));
        assert_eq!(ask(&mut meters, 0, &ada, "room:leave"), Ok(()));
        assert_eq!(ask(&mut meters, 0, &ada, "room:list"), Err((Limit::Event("room:*".into()), 500)));
        for _ in 0..10 {
            assert_eq!(ask(&mut meters, 0, &ada, "ping"), Ok(()));
        }
        assert_eq!(meters.len(), 2);
    }

    #[test]
    fn rows_go_once_their_buckets_are_full() {
        let mut meters = meters(rates(Some(allowance(10)), &["ping 5/1s"]));
        for nth in 0..1_000 {
            assert_eq!(ask(&mut meters, 0, &user(&format!("u{nth}")), "ping"), Ok(()));
        }
        assert!(meters.note_refusal(at(0), ConnId(crate::base::table::Key { slot: 0, generation: 0 })).eq(&false));
        assert_eq!(meters.len(), 2_001);
        meters.sweep(at(10), 10_000);
        assert_eq!(meters.len(), 2_001, "not full yet");
        meters.sweep(at(1_000), 10_000);
        assert!(meters.is_empty());
        assert_eq!(meters.buckets.index.len(), 0);
    }

    #[test]
    fn users_that_come_and_go_leave_nothing_behind() {
        let mut meters = meters(rates(Some(allowance(10)), &[]));
        for nth in 0..20_000 {
            // Full again a tenth of a second later: a hundred users at a time are not.
            assert_eq!(ask(&mut meters, nth, &user(&format!("u{nth}")), "ping"), Ok(()));
            assert!(meters.len() <= 300, "{} rows", meters.len());
        }
    }

    #[test]
    fn there_are_never_more_rows_than_the_bound() {
        let mut meters = meters(rates(Some(allowance(1)), &[]));
        for nth in 0..BUCKETS_MAX + 1_000 {
            assert_eq!(ask(&mut meters, 0, &user(&format!("u{nth}")), "ping"), Ok(()));
        }
        assert_eq!(meters.len(), BUCKETS_MAX);
        assert_eq!(meters.buckets.index.len(), BUCKETS_MAX);
    }

    #[test]
    fn a_rule_that_stays_keeps_its_buckets_and_one_that_goes_takes_them_along() {
        let mut meters = meters(rates(Some(allowance(1)), &["ping 1/1h", "room:join 1/1h"]));
        let ada = user("ada");
        assert_eq!(ask(&mut meters, 0, &ada, "ping"), Ok(()));
        assert_eq!(ask(&mut meters, 1_000, &ada, "room:join"), Ok(()));
        meters.change(rates(None, &["room:join 2/1h", "ping 1/1h"]), at(1_000));
        assert_eq!(ask(&mut meters, 1_000, &ada, "ping"), Err((Limit::Event("ping".into()), 3_599_000)));
        assert_eq!(ask(&mut meters, 1_000, &ada, "room:join"), Ok(()));
        assert_eq!(ask(&mut meters, 1_000, &ada, "room:join"), Ok(()));
        assert!(ask(&mut meters, 1_000, &ada, "room:join").is_err());
        meters.sweep(at(1_000), 100);
        assert_eq!(meters.len(), 2, "the user's and the old rule's are gone");
    }

    #[test]
    fn a_connection_keeps_its_bucket_unless_the_limit_changes() {
        let with = |conn| Rates { conn, ..Rates::default() };
        let mut meters = meters(with(Some(allowance(1))));
        let ada = user("ada");
        let mut own = meters.full(at(0));
        let mut ask = |meters: &mut Meters| meters.pay(at(0), &mut own, &ada, Price::RUBBISH).map(|_| ());
        assert_eq!((ask(&mut meters), ask(&mut meters)), (Ok(()), Err((Limit::Conn, 1_000))));
        meters.change(with(Some(allowance(1))), at(0));
        assert!(ask(&mut meters).is_err());
        meters.change(with(None), at(0));
        assert_eq!((ask(&mut meters), ask(&mut meters)), (Ok(()), Ok(())));
        meters.change(with(Some(allowance(1))), at(0));
        assert_eq!((ask(&mut meters), ask(&mut meters)), (Ok(()), Err((Limit::Conn, 1_000))));
    }

    #[test]
    fn refusals_are_forgiven_with_time_and_too_many_at_once_are_not() {
        let mut meters = meters(Rates::default());
        let conn = |slot| ConnId(crate::base::table::Key { slot, generation: 0 });
        assert!((0..REFUSALS_MAX).all(|_| !meters.note_refusal(at(0), conn(1))));
        assert!(meters.note_refusal(at(0), conn(1)));
        assert!(!meters.note_refusal(at(0), conn(2)));
        let patient = (0..10 * REFUSALS_MAX as u64).map(|nth| at(nth * 20));
        assert!(patient.into_iter().all(|when| !meters.note_refusal(when, conn(3))));
    }
}
