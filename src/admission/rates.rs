//! How much a sender may ask for: token buckets, each one integer (the generic cell rate algorithm).
//!
//! A [`Meter`] is one limit: it counts what flows in since it was made, in quarters of a token, which no
//! rounding touches. A [`Bucket`] is what one sender has of it: the count at which it will be full again.
//! Invariants: who is refused has taken nothing; who waits as long as it was told to passes, if nobody took
//! more meanwhile, and who waits a millisecond less does not. The gate asks for a [`Paid`], which is made
//! here only, so no request is let through without a thought of what it costs.

use super::identity::Identity;
use super::rights::Rate;
use crate::base::limits::{BURST_MAX, EVENT_BYTES_MAX, RATE_PERIOD_MAX, ROOMS_PER_REQUEST_MAX};
use crate::base::time::Instant;
use crate::wire::envelope::is_event_name;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Units of one token.
pub const TOKEN: u32 = 4;

/// The most that one request costs.
const COST_MAX: u32 = ROOMS_PER_REQUEST_MAX as u32 * TOKEN;

// What a bucket lacks is told from what lies behind by the sign of 32 bits.
const _: () = assert!(BURST_MAX as u64 * (TOKEN as u64) < 1 << 31);
// A period and what flows in it, multiplied.
const _: () = assert!(RATE_PERIOD_MAX.as_micros() < 1 << 37 && BURST_MAX as u64 * (TOKEN as u64) < 1 << 26);

impl Rate {
    /// What a request of this class costs its connection, for each room that it names. A user's requests
    /// are counted, not weighed: each costs a token, so that an operator's number is one of requests.
    pub const fn units(self) -> u32 {
        match self {
            Rate::Light => TOKEN / 4,
            Rate::Normal => TOKEN / 2,
            Rate::Heavy => TOKEN,
        }
    }
}

/// `burst` tokens at once, and `tokens` more in every `period`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowance {
    pub burst: u32,
    pub tokens: u32,
    pub period: Duration,
}

/// What an operator allows. `None` and empty: anything.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Rates {
    /// Of each connection.
    pub conn: Option<Allowance>,
    /// Of each user, over its connections on one shard.
    pub user: Option<Allowance>,
    /// Of each user, for some events; the first that covers an event counts.
    pub events: Vec<EventRate>,
    /// Roles that are counted and never refused.
    pub unlimited_roles: Vec<Box<str>>,
}

/// `room:publish 50/1s`: how much of an event, or with a `*` at the end of all that begin so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRate {
    pattern: Arc<str>,
    pub allowance: Allowance,
}

impl EventRate {
    pub fn parse(text: &str) -> Option<EventRate> {
        let (pattern, rate) = text.trim().split_once(' ')?;
        let (tokens, period) = rate.trim().split_once('/')?;
        let name = pattern.strip_suffix('*').unwrap_or(pattern);
        let is_pattern = is_event_name(name) || (name.is_empty() && pattern == "*");
        let tokens: u32 = number(tokens).filter(|tokens| (1..=BURST_MAX).contains(tokens))?;
        let period = period_of(period).filter(|period| !period.is_zero() && *period <= RATE_PERIOD_MAX)?;
        let allowance = Allowance { burst: tokens, tokens, period };
        (is_pattern && pattern.len() <= EVENT_BYTES_MAX).then(|| EventRate { pattern: pattern.into(), allowance })
    }

    pub fn covers(&self, event: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(start) => event.starts_with(start),
            None => *self.pattern == *event,
        }
    }

    /// As it was written, for those who are refused by it.
    pub fn pattern(&self) -> &Arc<str> {
        &self.pattern
    }
}

/// Digits alone: no sign, no space.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// `1s`, `500ms`, `10m`, `1h`; without a number, one of them.
fn period_of(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let count = u64::from(if count.is_empty() { 1 } else { number(count)? });
    Some(match unit {
        "ms" => Duration::from_millis(count),
        "s" => Duration::from_secs(count),
        "m" => Duration::from_secs(count * 60),
        "h" => Duration::from_secs(count * 3_600),
        _ => return None,
    })
}

/// What one sender has of a meter: the count, its lower bits, at which it will be full.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Bucket(u32);

/// One limit.
#[derive(Debug)]
pub struct Meter {
    /// What a bucket holds, units.
    burst: u32,
    /// The most that a bucket may lack: one request may cost more than a bucket holds, and leaves it in debt.
    lack_max: u32,
    /// So many units flow in a period.
    units: u64,
    period_us: u64,
    /// When the count began, and where.
    since: Instant,
    from: u32,
    /// Counted last, and what it came to: many requests come at one moment.
    read_at: Instant,
    read: u64,
}

impl Meter {
    /// A meter for `allowance`, within its bounds, of which `before` is the one whose buckets go on with this
    /// one: they are all full then.
    pub fn new(allowance: Allowance, now: Instant, before: Option<&mut Meter>) -> Meter {
        let from = before.map_or(0, |meter| meter.count(now).wrapping_add(meter.lack_max));
        let burst = allowance.burst.min(BURST_MAX) * TOKEN;
        Meter {
            burst,
            lack_max: burst.max(COST_MAX),
            units: u64::from(allowance.tokens.min(BURST_MAX)) * u64::from(TOKEN),
            period_us: (allowance.period.min(RATE_PERIOD_MAX).as_micros() as u64).max(1),
            since: now,
            from,
            read_at: now,
            read: 0,
        }
    }

    /// A bucket that lacks nothing.
    pub fn full(&mut self, now: Instant) -> Bucket {
        Bucket(self.count(now))
    }

    pub fn is_full(&mut self, now: Instant, bucket: Bucket) -> bool {
        self.lack(now, bucket) == 0
    }

    fn count(&mut self, now: Instant) -> u32 {
        if now != self.read_at {
            let us = now.since(self.since).as_nanos() as u64 / 1_000;
            self.read_at = now;
            self.read = us / self.period_us * self.units + us % self.period_us * self.units / self.period_us;
        }
        self.from.wrapping_add(self.read as u32)
    }

    /// Units that the bucket lacks. A count that lies behind is a full bucket's, and so is one too far ahead:
    /// it lies so far behind that its bits came round.
    fn lack(&mut self, now: Instant, bucket: Bucket) -> u32 {
        let ahead = bucket.0.wrapping_sub(self.count(now));
        if ahead <= self.lack_max { ahead } else { 0 }
    }

    /// Units that must still flow in before `units` can be taken. What costs more than a bucket holds takes a
    /// full one, and leaves it in debt.
    fn missing(&mut self, now: Instant, bucket: Bucket, units: u32) -> u32 {
        (self.lack(now, bucket) + units.min(self.burst)).saturating_sub(self.burst)
    }

    /// Milliseconds until `units` more will have flowed in.
    #[cold]
    fn wait_ms(&mut self, now: Instant, units: u32) -> u64 {
        self.count(now);
        let wanted = u128::from(self.read) + u128::from(units);
        let at_us = (wanted * u128::from(self.period_us)).div_ceil(u128::from(self.units));
        let at_ns = u128::from(self.since.as_nanos()) + at_us * 1_000;
        let wait_ns = at_ns.saturating_sub(u128::from(now.as_nanos()));
        u64::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Whose bucket is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    Conn,
    User,
    /// The user's, for one event.
    Event,
}

/// What one limit is asked for.
pub struct Charge<'a> {
    pub whose: Whose,
    pub meter: &'a mut Meter,
    pub bucket: &'a mut Bucket,
    pub units: u32,
}

/// Proof that a request was counted against the limits on how much may be asked.
#[derive(Clone, Copy, Debug)]
pub struct Paid(());

impl Paid {
    /// Where there is no limit.
    pub fn unlimited() -> Paid {
        Paid(())
    }

    /// For who has one of `roles`.
    pub fn exempt(identity: &Identity, roles: &[Box<str>]) -> Option<Paid> {
        roles.iter().any(|role| identity.has_role(role)).then_some(Paid(()))
    }
}

/// Refused: nothing was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unpaid {
    /// By which; of several the one that takes longest to wait for.
    pub whose: Whose,
    pub retry_after_ms: u64,
}

/// Takes from all buckets, or nothing from any.
#[inline]
pub fn pay(charges: &mut [Charge<'_>], now: Instant) -> Result<Paid, Unpaid> {
    let mut refused: Option<Unpaid> = None;
    for charge in charges.iter_mut() {
        debug_assert!((1..=COST_MAX).contains(&charge.units));
        let missing = charge.meter.missing(now, *charge.bucket, charge.units);
        if missing > 0 {
            let retry_after_ms = charge.meter.wait_ms(now, missing);
            if refused.is_none_or(|longest| longest.retry_after_ms < retry_after_ms) {
                refused = Some(Unpaid { whose: charge.whose, retry_after_ms });
            }
        }
    }
    if let Some(unpaid) = refused {
        return Err(unpaid);
    }
    for Charge { meter, bucket, units, .. } in charges {
        let lack = meter.lack(now, **bucket);
        **bucket = Bucket(meter.count(now).wrapping_add(lack + *units));
    }
    Ok(Paid(()))
}

impl fmt::Display for EventRate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}/{}ms", self.pattern, self.allowance.tokens, self.allowance.period.as_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Instant = Instant::from_nanos(5_000_000_123);

    fn at(us: u64) -> Instant {
        START.after(Duration::from_micros(us))
    }

    fn allowance(burst: u32, tokens: u32, period_ms: u64) -> Allowance {
        Allowance { burst, tokens, period: Duration::from_millis(period_ms) }
    }

    fn take(meter: &mut Meter, bucket: &mut Bucket, now: Instant, units: u32) -> Result<(), u64> {
        let paid = pay(&mut [Charge { whose: Whose::Conn, meter, bucket, units }], now);
        paid.map(|_| ()).map_err(|unpaid| unpaid.retry_after_ms)
    }

    #[test]
    fn a_hundred_at_once_and_then_ten_a_second() {
        let mut meter = Meter::new(allowance(100, 10, 1_000), at(0), None);
        let mut bucket = meter.full(at(0));
        for nth in 0..100 {
            assert_eq!(take(&mut meter, &mut bucket, at(0), TOKEN), Ok(()), "{nth}");
        }
        assert_eq!(take(&mut meter, &mut bucket, at(0), TOKEN), Err(100));
        assert_eq!(take(&mut meter, &mut bucket, at(99_999), TOKEN), Err(1));
        assert_eq!(take(&mut meter, &mut bucket, at(100_000), TOKEN), Ok(()));
        assert_eq!(take(&mut meter, &mut bucket, at(100_000), Rate::Light.units()), Err(25));
    }

    #[test]
    fn a_bucket_that_was_left_alone_is_full_however_long_ago() {
        let mut meter = Meter::new(allowance(100, 1_000_000, 1_000), at(0), None);
        let mut bucket = meter.full(at(0));
        assert_eq!(take(&mut meter, &mut bucket, at(0), 100 * TOKEN), Ok(()));
        // Four million units a second come round after eighteen minutes.
        for seconds in [1, 600, 1_000, 1_800, 86_400, 31_536_000] {
            assert!(meter.is_full(at(seconds * 1_000_000), bucket), "{seconds} s");
        }
    }

    #[test]
    fn one_request_may_cost_more_than_a_bucket_holds_and_takes_a_full_one() {
        let mut meter = Meter::new(allowance(10, 10, 1_000), at(0), None);
        let mut bucket = meter.full(at(0));
        assert_eq!(take(&mut meter, &mut bucket, at(0), 100 * TOKEN), Ok(()));
        assert_eq!(take(&mut meter, &mut bucket, at(0), TOKEN), Err(9_100), "ninety in debt");
        assert_eq!(take(&mut meter, &mut bucket, at(9_100_000), TOKEN), Ok(()));
        assert_eq!(take(&mut meter, &mut bucket, at(9_100_000), 100 * TOKEN), Err(1_000));
    }

    #[test]
    fn who_is_refused_by_one_limit_takes_nothing_of_the_others_and_waits_for_the_slowest() {
        let mut fast = Meter::new(allowance(5, 10, 1_000), at(0), None);
        let mut slow = Meter::new(allowance(2, 2, 10_000), at(0), None);
        let mut wide = Meter::new(allowance(100, 10, 1_000), at(0), None);
        let (mut a, mut b, mut c) = (fast.full(at(0)), slow.full(at(0)), wide.full(at(0)));
        let mut ask = |now| {
            let charges = &mut [
                Charge { whose: Whose::Conn, meter: &mut fast, bucket: &mut a, units: TOKEN },
                Charge { whose: Whose::User, meter: &mut slow, bucket: &mut b, units: TOKEN },
                Charge { whose: Whose::Event, meter: &mut wide, bucket: &mut c, units: TOKEN },
            ];
            pay(charges, now).map(|_| ())
        };
        assert_eq!((ask(at(0)), ask(at(0))), (Ok(()), Ok(())));
        for _ in 0..10 {
            assert_eq!(ask(at(0)), Err(Unpaid { whose: Whose::User, retry_after_ms: 5_000 }));
        }
        assert!(ask(at(5_000_000)).is_ok());
        assert!(fast.missing(at(5_000_000), a, 4 * TOKEN) == 0 && wide.missing(at(5_000_000), c, 99 * TOKEN) == 0);
    }

    #[test]
    fn another_limit_begins_with_full_buckets() {
        let mut old = Meter::new(allowance(100, 10, 1_000), at(0), None);
        let mut bucket = old.full(at(0));
        assert_eq!(take(&mut old, &mut bucket, at(7), 100 * TOKEN), Ok(()));
        for tokens in [1, 9, 10, 11, 1_000] {
            let mut new = Meter::new(allowance(100, tokens, 1_000), at(7), Some(&mut old));
            assert!(new.is_full(at(7), bucket));
            assert!(new.is_full(at(100_000_000), bucket));
            assert_eq!(take(&mut new, &mut bucket.clone(), at(7), 100 * TOKEN), Ok(()));
        }
    }

    #[test]
    fn rates_of_events_are_a_pattern_a_count_and_a_time() {
        let rate = EventRate::parse(" room:publish  50/1s ").unwrap();
        assert_eq!(rate.allowance, allowance(50, 50, 1_000));
        assert!(rate.covers("room:publish") && !rate.covers("room:publish2") && !rate.covers("room:p"));
        let rate = EventRate::parse("message:* 100/60s").unwrap();
        assert!(rate.covers("message:send") && rate.covers("message:") && !rate.covers("message"));
        assert!(EventRate::parse("* 5/m").unwrap().covers("ping"));
        for (text, ms) in [("a 1/500ms", 500), ("a 1/s", 1_000), ("a 1/2m", 120_000), ("a 1/24h", 86_400_000)] {
            assert_eq!(EventRate::parse(text).unwrap().allowance.period, Duration::from_millis(ms), "{text}");
        }
        for wrong in [
            "",
            "a",
            "a 5",
            "a 5/",
            "a /1s",
            "a 0/1s",
            "a 5/0s",
            "a 5/1",
            "a 5/1d",
            "a 5/25h",
            "a -5/1s",
            "a +5/1s",
            "a 5/1s x",
            "a* * 5/1s",
            "a*b 5/1s",
            "** 5/1s",
            "é 5/1s",
            "a 1000001/1s",
            "a 99999999999/1s",
            "a 5/99999999999s",
            "5/1s",
        ] {
            assert_eq!(EventRate::parse(wrong), None, "{wrong}");
        }
    }

    /// What is promised, word for word: a bucket of whole units that are put in one by one.
    struct Naive {
        burst: i64,
        has: i64,
        poured: u64,
    }

    impl Naive {
        fn pour(&mut self, allowance: Allowance, us: u64) {
            let units = u128::from(us) * u128::from(allowance.tokens * TOKEN) / allowance.period.as_micros();
            while u128::from(self.poured) < units {
                self.poured += 1;
                self.has = self.burst.min(self.has + 1);
            }
        }

        fn take(&mut self, units: i64) -> bool {
            let fits = self.has >= units.min(self.burst);
            if fits {
                self.has -= units;
            }
            fits
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn a_bucket_agrees_with_one_of_whole_units(
            burst in 1u32..40, tokens in 1u32..60, period_ms in 1u64..5_000, uptime_us in 0u64..1 << 44,
            moves in proptest::collection::vec((0u64..700_000, 1u32..=COST_MAX, any::<bool>()), 1..60),
        ) {
            let allowance = allowance(burst, tokens, period_ms);
            let mut us = uptime_us;
            let mut meter = Meter::new(allowance, at(us), None);
            let mut bucket = meter.full(at(us));
            let full = i64::from(burst * TOKEN);
            let mut naive = Naive { burst: full, has: full, poured: 0 };
            for (wait, units, is_small) in moves {
                us += wait;
                let units = if is_small { units % 9 + 1 } else { units };
                naive.pour(allowance, us - uptime_us);
                let expected = naive.take(i64::from(units));
                let taken = take(&mut meter, &mut bucket, at(us), units);
                prop_assert_eq!(taken.is_ok(), expected);
                if let Err(wait_ms) = taken {
                    prop_assert!(wait_ms > 0);
                    let mut early = bucket;
                    prop_assert!(take(&mut meter, &mut early, at(us + (wait_ms - 1) * 1_000), units).is_err());
                    let mut patient = bucket;
                    prop_assert_eq!(take(&mut meter, &mut patient, at(us + wait_ms * 1_000), units), Ok(()));
                }
                prop_assert_eq!(meter.is_full(at(us), bucket), naive.has == naive.burst);
            }
        }

        #[test]
        fn no_text_breaks_the_reader_of_rates(text: String) {
            if let Some(rate) = EventRate::parse(&text) {
                prop_assert_eq!(EventRate::parse(&rate.to_string()), Some(rate));
            }
        }
    }
}
