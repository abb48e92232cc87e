//! The PROXY protocol: what a proxy says before a client's first byte.

use super::choices::{Choices, ends};
use ringroom::wire::proxy::{HEADER_BYTES_MAX, Header, LINE_BYTES_MAX, Malformed, VARIABLE_BYTES_MAX, parse};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Input: cuts, whether to make the sum right, then what a proxy sends.
///
/// - However the bytes arrive, they are answered alike; nothing behind a header is taken while it comes.
/// - A header if and only if a naive reading says so, and it says the same.
pub fn proxy(input: &[u8]) {
    let mut choices = Choices(input);
    let cuts = choices.cuts();
    let is_summed = choices.byte() & 1 == 1;
    let mut bytes = choices.0.to_vec();
    if is_summed {
        make_sum_right(&mut bytes);
    }
    let whole = parse(&bytes);
    assert_eq!(whole, naive(&bytes), "{}", bytes.escape_ascii());
    let mut pieces = ends(&cuts, bytes.len()).into_iter();
    let in_pieces = pieces.find_map(|end| match parse(&bytes[..end]) {
        Ok(None) => {
            assert!(end < HEADER_BYTES_MAX, "it waits for more than there may be");
            assert!(whole.is_err() || whole.is_ok_and(|whole| whole.is_none_or(|(_, len)| len > end)));
            None
        }
        decided => Some(decided),
    });
    assert_eq!(in_pieces.unwrap_or(Ok(None)), whole);
}

type Read = Result<Option<(Header, usize)>, Malformed>;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn naive(bytes: &[u8]) -> Read {
    let is_part = |of: &[u8]| if bytes.len() < of.len() { of.starts_with(bytes) } else { bytes.starts_with(of) };
    if is_part(b"PROXY ") {
        naive_line(bytes)
    } else if is_part(SIGNATURE) {
        naive_binary(bytes)
    } else {
        Err(Malformed)
    }
}

fn naive_line(bytes: &[u8]) -> Read {
    let bounded = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = bounded.iter().position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    // What is no text is none of the words that count, but may follow UNKNOWN.
    let text = String::from_utf8_lossy(&bounded[..end]).into_owned();
    let text = text.strip_suffix('\r').ok_or(Malformed)?;
    let words: Vec<&str> = text.split(' ').collect();
    let port = |word: &str| word.parse::<u16>().is_ok_and(|port| port.to_string() == word);
    let header = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Header::Itself,
        ["PROXY", "TCP4", from, to, from_port, to_port] if port(from_port) && port(to_port) => {
            let (from, _): (Ipv4Addr, Ipv4Addr) = (parsed(from)?, parsed(to)?);
            Header::Client { address: from.into(), is_tls: None }
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] if port(from_port) && port(to_port) => {
            let (from, _): (Ipv6Addr, Ipv6Addr) = (parsed(from)?, parsed(to)?);
            Header::Client { address: from.to_canonical(), is_tls: None }
        }
        _ => return Err(Malformed),
    };
    Ok(Some((header, end + 1)))
}

fn parsed<T: std::str::FromStr>(word: &str) -> Result<T, Malformed> {
    word.parse().map_err(|_| Malformed)
}

fn naive_binary(bytes: &[u8]) -> Read {
    if bytes.get(12).is_some_and(|command| ![0x20, 0x21].contains(command)) {
        return Err(Malformed);
    }
    if bytes.len() < 16 {
        return Ok(None);
    }
    let len = 16 + usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    if len > 16 + VARIABLE_BYTES_MAX {
        return Err(Malformed);
    }
    if bytes.len() < len {
        return Ok(None);
    }
    let header = &bytes[..len];
    let said = match (header[12], header[13]) {
        (0x20, _) | (_, 0) => Header::Itself,
        (_, 0x11 | 0x12) if len >= 28 => {
            let address = IpAddr::from(<[u8; 4]>::try_from(&header[16..20]).expect("four"));
            Header::Client { address, is_tls: naive_fields(header, 28)? }
        }
        (_, 0x21 | 0x22) if len >= 52 => {
            let address = IpAddr::from(<[u8; 16]>::try_from(&header[16..32]).expect("sixteen"));
            Header::Client { address: address.to_canonical(), is_tls: naive_fields(header, 52)? }
        }
        (_, 0x31 | 0x32) if len >= 232 => {
            naive_fields(header, 232)?;
            Header::Itself
        }
        _ => return Err(Malformed),
    };
    Ok(Some((said, len)))
}

fn naive_fields(header: &[u8], from: usize) -> Result<Option<bool>, Malformed> {
    let fields = fields(header, from).ok_or(Malformed)?;
    let of_kind = |kind| fields.iter().filter(move |(found, _, _)| *found == kind).collect::<Vec<_>>();
    let is_tls = match of_kind(0x20)[..] {
        [] => None,
        [&(_, at, len)] if len >= 5 => Some(header[at] % 2 == 1),
        _ => return Err(Malformed),
    };
    match of_kind(0x03)[..] {
        [] => Ok(is_tls),
        [&(_, at, 4)] => {
            let mut bare = header.to_vec();
            let sum = bare[at..at + 4].to_vec();
            bare[at..at + 4].fill(0);
            if sum == crc32c(&bare).to_be_bytes() { Ok(is_tls) } else { Err(Malformed) }
        }
        _ => Err(Malformed),
    }
}

/// Kind, place of the value and its length, of all that there are.
fn fields(header: &[u8], mut at: usize) -> Option<Vec<(u8, usize, usize)>> {
    let mut fields = Vec::new();
    while at < header.len() {
        let len = usize::from(*header.get(at + 1)?) * 256 + usize::from(*header.get(at + 2)?);
        fields.push((header[at], at + 3, len));
        at += 3 + len;
    }
    (at == header.len()).then_some(fields)
}

/// Fills in the sum of a header that has a place for one: what no fuzzer guesses.
fn make_sum_right(bytes: &mut [u8]) {
    if bytes.len() < 16 || !bytes.starts_with(SIGNATURE) {
        return;
    }
    let len = 16 + usize::from(bytes[14]) * 256 + usize::from(bytes[15]);
    let from = match bytes[13] {
        0x11 | 0x12 => 28,
        0x21 | 0x22 => 52,
        _ => 232,
    };
    let Some(header) = bytes.get_mut(..len) else { return };
    let Some(fields) = fields(header, from) else { return };
    if let Some((_, at, 4)) = fields.into_iter().find(|(kind, _, _)| *kind == 0x03) {
        header[at..at + 4].fill(0);
        let sum = crc32c(header);
        header[at..at + 4].copy_from_slice(&sum.to_be_bytes());
    }
}

/// By long division of polynomials, the first bit of each byte the lowest.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x1EDC_6F41;
    let mut rest = u32::MAX;
    for bit in bytes.iter().flat_map(|byte| (0..8).map(move |bit| u32::from(byte >> bit & 1))) {
        let is_odd = (rest >> 31) ^ bit == 1;
        rest <<= 1;
        if is_odd {
            rest ^= POLYNOMIAL;
        }
    }
    (!rest).reverse_bits()
}
