//! What a certificate says of itself: for which hosts it is and how long (`RFC 5280` section 4.1). Only what
//! a server has to know of its own is read, and nothing is verified here.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
/// 2.5.29.17, names of the subject (`RFC 5280` section 4.2.1.6).
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
const DAY: u64 = 24 * 3_600;

/// What matters of a certificate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Hosts by name, small letters; `*.` before one stands for any one label.
    pub names: Vec<String>,
    pub begins: SystemTime,
    pub ends: SystemTime,
}

impl Facts {
    /// `None`: it is no certificate.
    pub fn of(certificate: &[u8]) -> Option<Facts> {
        let mut whole = Reader(Reader(certificate).take(SEQUENCE)?);
        let mut signed = Reader(whole.take(SEQUENCE)?);
        let (mut begins, mut ends, mut names) = (None, None, Vec::new());
        while let Some((tag, value)) = signed.next() {
            match tag {
                // Of its sequences the validity alone begins with a time.
                SEQUENCE if ends.is_none() && matches!(value.first(), Some(&UTC_TIME | &GENERALIZED_TIME)) => {
                    let mut times = Reader(value);
                    begins = times.next().and_then(time);
                    ends = times.next().and_then(time);
                }
                EXTENSIONS => names = names_of(value).unwrap_or_default(),
                _ => {}
            }
        }
        Some(Facts { names, begins: begins?, ends: ends? })
    }
}

fn names_of(extensions: &[u8]) -> Option<Vec<String>> {
    let mut extensions = Reader(Reader(extensions).take(SEQUENCE)?);
    while let Some((SEQUENCE, extension)) = extensions.next() {
        let mut parts = Reader(extension);
        if parts.take(OBJECT)? != ALTERNATIVE_NAMES {
            continue;
        }
        // What is critical says so in between.
        let octets = std::iter::from_fn(|| parts.next()).find(|(tag, _)| *tag == OCTETS)?.1;
        let mut names = Reader(Reader(octets).take(SEQUENCE)?);
        let names = std::iter::from_fn(|| names.next()).filter(|(tag, _)| *tag == DNS_NAME);
        let names = names.filter_map(|(_, name)| std::str::from_utf8(name).ok());
        return Some(names.map(str::to_ascii_lowercase).collect());
    }
    None
}

/// `UTCTime` has two digits for the year, which stand for 1950 to 2049.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: u64 = year.parse().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let (month, day, hour, minute, second) = (part(0)?, part(2)?, part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 || year < 1_950
    {
        return None;
    }
    // Days since 1970 of the Gregorian calendar, in years that begin with March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = (days * DAY + hour * 3_600 + minute * 60 + second) as i64 - 719_468 * DAY as i64;
    match u64::try_from(seconds) {
        Ok(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
        Err(_) => Some(SystemTime::UNIX_EPOCH),
    }
}

/// Values of DER (`X.690`), one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tls::sample::Authority;
    use proptest::prelude::*;

    fn seconds(time: SystemTime) -> u64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn a_certificate_says_for_whom_and_how_long() {
        let issued = Authority::shared().issue(&["Chat.example", "*.chat.example", "192.0.2.1"]);
        let facts = Facts::of(&issued.chain()[0]).unwrap();
        assert_eq!(facts.names, ["chat.example", "*.chat.example"], "addresses are no names");
        // As rcgen has it where nothing else is said.
        assert_eq!(seconds(facts.begins), 157_766_400);
        assert_eq!(seconds(facts.ends), 67_090_118_400);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let of = |tag, text: &str| time((tag, text.as_bytes())).map(seconds);
        assert_eq!(of(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(of(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(of(UTC_TIME, "500101000000Z"), Some(0), "before 1970 all is over");
        assert_eq!(of(GENERALIZED_TIME, "20240229120000Z"), Some(1_709_208_000));
        assert_eq!(of(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        for wrong in ["", "Z", "240229120000", "2402291200Z", "241329120000Z", "24022912000aZ", "+4022912000+Z"] {
            assert_eq!(of(UTC_TIME, wrong), None, "{wrong}");
        }
        assert_eq!(of(OCTETS, "240229120000Z"), None);
    }

    proptest! {
        #[test]
        fn whatever_is_no_certificate_is_none_and_nothing_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..2_000, at in 0usize..2_000, byte: u8,
        ) {
            let _ = Facts::of(&bytes);
            let good = &Authority::shared().issue(&["chat.example"]).chain()[0].to_vec();
            prop_assert_eq!(Facts::of(&good[..cut.min(good.len() - 1)]), None);
            let mut bent = good.clone();
            bent[at % good.len()] = byte;
            let _ = Facts::of(&bent);
        }
    }
}
