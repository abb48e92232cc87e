//! The header that a proxy writes before a client's first byte, to say whose connection it is: the PROXY
//! protocol, version 1 (a line of text) and 2 (binary), as HAProxy's specification of it has them
//! (`doc/proxy-protocol.txt`). Invariant: while [`parse`] asks for more, every byte that it was given is of
//! the header; so whoever reads on takes nothing of what stands behind.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// A line of version 1, its end included: what the longest addresses need.
pub const LINE_BYTES_MAX: usize = 107;
/// What each header of version 2 has: signature, command, family and length.
const FIXED_BYTES: usize = 16;
/// What may stand behind it: the addresses, and fields of which we read two.
pub const VARIABLE_BYTES_MAX: usize = 4_096;
pub const HEADER_BYTES_MAX: usize = FIXED_BYTES + VARIABLE_BYTES_MAX;

/// What is no header, or one that contradicts itself or is too long. Nobody can say where the client's
/// bytes begin: the connection is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Header {
    /// The proxy speaks for itself (it asks whether we live), or does not know the client by an address.
    Itself,
    Client {
        /// In its canonical form: one of IPv4 inside IPv6 is of IPv4.
        address: IpAddr,
        /// Whether it spoke TLS to the proxy; `None`: nothing is said of that.
        is_tls: Option<bool>,
    },
}

/// Reads the header that `bytes` begin with, and says how long it is. `None`: it has not ended.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    match bytes.first() {
        None => Ok(None),
        Some(b'P') if begins(WORD) => line(bytes),
        Some(_) if begins(SIGNATURE) => binary(bytes),
        Some(_) => Err(Malformed),
    }
}

/// Section 2.1.
fn line(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(LINE_BYTES_MAX)]) else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(Malformed) };
    };
    let text = bytes[WORD.len()..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let (family, rest) = match text.iter().position(|byte| *byte == b' ') {
        Some(space) => (&text[..space], &text[space + 1..]),
        None => (text, &b""[..]),
    };
    let header = match family {
        // Whatever follows.
        b"UNKNOWN" => Header::Itself,
        b"TCP4" => client_of_line::<Ipv4Addr>(rest)?,
        b"TCP6" => client_of_line::<Ipv6Addr>(rest)?,
        _ => return Err(Malformed),
    };
    Ok(Some((header, end + 1)))
}

/// Source, destination and their ports, with one space between.
fn client_of_line<Address: FromStr + Into<IpAddr>>(rest: &[u8]) -> Result<Header, Malformed> {
    let mut words = std::str::from_utf8(rest).map_err(|_| Malformed)?.split(' ');
    let mut address = || words.next().and_then(|word| word.parse::<Address>().ok()).ok_or(Malformed);
    let (source, _) = (address()?, address()?);
    let mut is_port = || words.next().is_some_and(is_port);
    if !is_port() || !is_port() || words.next().is_some() {
        return Err(Malformed);
    }
    Ok(Header::Client { address: source.into().to_canonical(), is_tls: None })
}

/// Nothing but digits, and none of them a zero that means nothing.
fn is_port(word: &str) -> bool {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    is_number && word.parse::<u16>().is_ok()
}

/// Section 2.2.
fn binary(bytes: &[u8]) -> Result<Option<(Header, usize)>, Malformed> {
    // As soon as it cannot be one, so that nobody waits for what will not help.
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => Command::Local,
        Some(0x21) => Command::Proxy,
        Some(_) => return Err(Malformed),
    };
    let (Some(family), Some(length)) = (bytes.get(13), bytes.get(14..FIXED_BYTES)) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > VARIABLE_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(whole) = bytes.get(..FIXED_BYTES + length) else { return Ok(None) };
    let header = match (command, family) {
        // What a proxy says of itself, and where it names no family, is to be skipped unread.
        (Command::Local, _) | (Command::Proxy, 0x00) => Header::Itself,
        // What the client spoke to the proxy, TCP or UDP (QUIC), says nothing of where it is.
        (Command::Proxy, 0x11 | 0x12) => {
            let (source, fields) = source::<4>(whole)?;
            Header::Client { address: IpAddr::from(source), is_tls: fields_of(whole, fields)? }
        }
        (Command::Proxy, 0x21 | 0x22) => {
            let (source, fields) = source::<16>(whole)?;
            Header::Client { address: IpAddr::from(source).to_canonical(), is_tls: fields_of(whole, fields)? }
        }
        // A client by a socket of the proxy's machine has a path of 108 bytes, as the proxy has.
        (Command::Proxy, 0x31 | 0x32) => {
            fields_of(whole, FIXED_BYTES + 216)?;
            Header::Itself
        }
        _ => return Err(Malformed),
    };
    Ok(Some((header, whole.len())))
}

enum Command {
    Local,
    Proxy,
}

/// The source of addresses of so many bytes, and where the fields behind them begin: source, destination, two ports.
fn source<const BYTES: usize>(whole: &[u8]) -> Result<([u8; BYTES], usize), Malformed> {
    let fields = FIXED_BYTES + 2 * BYTES + 4;
    let source = whole.get(FIXED_BYTES..fields).and_then(|block| block.first_chunk());
    source.map(|source| (*source, fields)).ok_or(Malformed)
}

/// A sum over the whole header.
const FIELD_CRC32C: u8 = 0x03;
/// How the client spoke to the proxy, if it was TLS.
const FIELD_SSL: u8 = 0x20;
/// Of its first byte: the client spoke TLS.
const SSL_CLIENT: u8 = 0x01;

/// Looks through the fields from `at` on: whether the client spoke TLS, where one says so. They have to fill the
/// header exactly, and the sum has to be right where there is one.
fn fields_of(whole: &[u8], mut at: usize) -> Result<Option<bool>, Malformed> {
    let mut rest = whole.get(at..).ok_or(Malformed)?;
    let (mut is_tls, mut has_sum) = (None, false);
    while let [kind, high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = behind.get(..length).ok_or(Malformed)?;
        at += 3;
        match *kind {
            FIELD_CRC32C => {
                let sum = u32::from_be_bytes(value.try_into().map_err(|_| Malformed)?);
                if has_sum || sum != sum_without(whole, at) {
                    return Err(Malformed);
                }
                has_sum = true;
            }
            FIELD_SSL => {
                // Behind it are what the certificate was found to be, and fields of its own.
                let [client, _, _, _, _, ..] = value else { return Err(Malformed) };
                if is_tls.replace(client & SSL_CLIENT != 0).is_some() {
                    return Err(Malformed);
                }
            }
            _ => {}
        }
        at += length;
        rest = &behind[length..];
    }
    if rest.is_empty() { Ok(is_tls) } else { Err(Malformed) }
}

/// The sum of a header, as it is before its four bytes at `at` are filled in.
fn sum_without(whole: &[u8], at: usize) -> u32 {
    let sum = crc32c(u32::MAX, &whole[..at]);
    let sum = crc32c(sum, &[0; 4]);
    !crc32c(sum, &whole[at + 4..])
}

/// `RFC 3720` appendix B.4, with its bits reversed. Without a table: headers are short, and come once a connection.
fn crc32c(sum: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(sum, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(address: &str) -> Result<Header, Malformed> {
        Ok(Header::Client { address: address.parse().expect("an address"), is_tls: None })
    }

    /// What the header is that `bytes` are, all of them.
    fn whole(bytes: &[u8]) -> Result<Header, Malformed> {
        parse(bytes).map(|parsed| {
            let (header, len) = parsed.expect("it is whole");
            assert_eq!(len, bytes.len());
            header
        })
    }

    fn version_2(command: u8, family: u8, behind: &[u8]) -> Vec<u8> {
        [SIGNATURE, &[command, family][..], &(behind.len() as u16).to_be_bytes(), behind].concat()
    }

    fn field(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 7, 0x12, 0x67, 0x01, 0xBB];

    fn with_fields(fields: &[u8]) -> Result<Header, Malformed> {
        whole(&version_2(0x21, 0x11, &[&FOUR[..], fields].concat()))
    }

    fn with_sum(mut header: Vec<u8>) -> Vec<u8> {
        let length = (header.len() - FIXED_BYTES + 7) as u16;
        header[14..16].copy_from_slice(&length.to_be_bytes());
        header.extend([FIELD_CRC32C, 0, 4, 0, 0, 0, 0]);
        let sum = !crc32c(u32::MAX, &header);
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum.to_be_bytes());
        header
    }

    #[test]
    fn a_line_names_the_client() {
        for (line, client) in [
            ("TCP4 192.0.2.1 10.0.0.7 4711 443", of("192.0.2.1")),
            ("TCP4 255.255.255.255 255.255.255.255 65535 65535", of("255.255.255.255")),
            ("TCP4 0.0.0.0 0.0.0.0 0 0", of("0.0.0.0")),
            ("TCP6 2001:db8::1 2001:DB8::2 4711 443", of("2001:db8::1")),
            ("TCP6 ::ffff:192.0.2.1 ::ffff:10.0.0.7 4711 443", of("192.0.2.1")),
            ("UNKNOWN", Ok(Header::Itself)),
            ("UNKNOWN ffff::1 whatever\u{ff}  follows", Ok(Header::Itself)),
        ] {
            assert_eq!(whole(format!("PROXY {line}\r\n").as_bytes()), client, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_not_as_it_has_to_be_is_none() {
        for line in [
            "",
            " ",
            "UDP4 192.0.2.1 10.0.0.7 4711 443",
            "tcp4 192.0.2.1 10.0.0.7 4711 443",
            "UNKNOWNX",
            "TCP4",
            "TCP4 192.0.2.1 10.0.0.7 4711",
            "TCP4 192.0.2.1 10.0.0.7 4711 443 ",
            "TCP4 192.0.2.1 10.0.0.7 4711 443 1",
            "TCP4  192.0.2.1 10.0.0.7 4711 443",
            "TCP4\t192.0.2.1 10.0.0.7 4711 443",
            "TCP4 192.0.2.1 10.0.0.7 04711 443",
            "TCP4 192.0.2.1 10.0.0.7 +4711 443",
            "TCP4 192.0.2.1 10.0.0.7 4711 65536",
            "TCP4 192.0.2.1 10.0.0.7 4711 ",
            "TCP4 192.0.2.01 10.0.0.7 4711 443",
            "TCP4 192.0.2 10.0.0.7 4711 443",
            "TCP4 192.0.2.1 nobody 4711 443",
            "TCP4 2001:db8::1 2001:db8::2 4711 443",
            "TCP6 192.0.2.1 10.0.0.7 4711 443",
            "TCP6 [2001:db8::1] [2001:db8::2] 4711 443",
            "TCP6 fe80::1%eth0 fe80::2 4711 443",
            "TCP4 192.0.2.1 10.0.0.7 4711 443\r",
            "TCP4 192.0.2.1\0 10.0.0.7 4711 443",
        ] {
            assert_eq!(parse(format!("PROXY {line}\r\n").as_bytes()), Err(Malformed), "{line:?}");
        }
        assert_eq!(parse(b"PROXY TCP4 192.0.2.1 10.0.0.7 4711 443\n"), Err(Malformed), "a line without its CR");
        assert_eq!(parse(b"PROXY TCP4 192.0.2.1 10.0.0.\xFF 4711 443\r\n"), Err(Malformed));
    }

    #[test]
    fn a_line_ends_within_its_bound() {
        let filled = |len: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(len - 16));
        assert_eq!(whole(filled(LINE_BYTES_MAX).as_bytes()), Ok(Header::Itself));
        assert_eq!(parse(filled(LINE_BYTES_MAX + 1).as_bytes()), Err(Malformed));
        let endless = filled(2 * LINE_BYTES_MAX);
        assert_eq!(parse(&endless.as_bytes()[..LINE_BYTES_MAX - 1]), Ok(None));
        assert_eq!(parse(&endless.as_bytes()[..LINE_BYTES_MAX]), Err(Malformed));
    }

    #[test]
    fn version_2_names_the_client() {
        let six = [&[0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 16], &[0; 4]].concat();
        let mapped = [&Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets()[..], &[0; 20]].concat();
        for (family, behind, client) in [
            (0x11, &FOUR[..], of("192.0.2.1")),
            (0x12, &FOUR, of("192.0.2.1")),
            (0x21, &six, of("2001:db8::1")),
            (0x22, &six, of("2001:db8::1")),
            (0x21, &mapped, of("192.0.2.1")),
            (0x00, b"", Ok(Header::Itself)),
            (0x00, b"whatever is here", Ok(Header::Itself)),
            (0x31, &[b'/'; 216], Ok(Header::Itself)),
            (0x32, &[b'/'; 216], Ok(Header::Itself)),
            // Too short for its family, or of none.
            (0x11, &FOUR[..11], Err(Malformed)),
            (0x21, &six[..35], Err(Malformed)),
            (0x31, &[b'/'; 215], Err(Malformed)),
            (0x10, &FOUR, Err(Malformed)),
            (0x13, &FOUR, Err(Malformed)),
            (0x41, &FOUR, Err(Malformed)),
            (0x01, &FOUR, Err(Malformed)),
        ] {
            assert_eq!(whole(&version_2(0x21, family, behind)), client, "{family:#x}, {} bytes", behind.len());
        }
        for command in [0x00, 0x10, 0x11, 0x22, 0x2F, 0x30, 0x31] {
            assert_eq!(parse(&version_2(command, 0x11, &FOUR)), Err(Malformed), "{command:#x}");
        }
    }

    #[test]
    fn what_a_proxy_says_of_itself_is_skipped_unread() {
        for (family, behind) in [(0x00, &b""[..]), (0x11, &FOUR), (0x11, b"short"), (0xEE, b"of no family")] {
            assert_eq!(whole(&version_2(0x20, family, behind)), Ok(Header::Itself));
        }
    }

    #[test]
    fn a_header_of_version_2_is_bounded_before_it_has_come() {
        let longest = version_2(0x20, 0, &[0; VARIABLE_BYTES_MAX]);
        assert_eq!((whole(&longest), longest.len()), (Ok(Header::Itself), HEADER_BYTES_MAX));
        let longer = version_2(0x20, 0, &[0; VARIABLE_BYTES_MAX + 1]);
        assert_eq!(parse(&longer[..FIXED_BYTES]), Err(Malformed));
        assert_eq!(parse(&longer[..FIXED_BYTES - 1]), Ok(None));
    }

    #[test]
    fn fields_fill_the_header_exactly() {
        assert_eq!(
            with_fields(&[field(0x04, b"pad"), field(0xE0, b""), field(0x02, b"chat.example")].concat()),
            of("192.0.2.1")
        );
        let longest = field(0x04, &[0; VARIABLE_BYTES_MAX - FOUR.len() - 3]);
        assert_eq!(with_fields(&longest), of("192.0.2.1"));
        for fields in [&[0x04][..], &[0x04, 0], &[0x04, 0, 1], &[0x04, 0, 0, 0x04], &[0x04, 0xFF, 0xFF, 1, 2]] {
            assert_eq!(with_fields(fields), Err(Malformed), "{fields:?}");
        }
        let path = [&[b'/'; 216][..], &[0x04, 0, 9]].concat();
        assert_eq!(whole(&version_2(0x21, 0x31, &path)), Err(Malformed));
    }

    #[test]
    fn a_field_says_whether_the_client_spoke_tls() {
        for (client, is_tls) in [(0b001, true), (0b111, true), (0b000, false), (0b110, false)] {
            let said = with_fields(&field(FIELD_SSL, &[client, 0, 0, 0, 0, 0x21, 0, 3, b'1', b'.', b'3']));
            let expected = Header::Client { address: [192, 0, 2, 1].into(), is_tls: Some(is_tls) };
            assert_eq!(said, Ok(expected), "{client:#b}");
        }
        assert_eq!(with_fields(&field(FIELD_SSL, &[1, 0, 0, 0])), Err(Malformed), "too short");
        let twice = field(FIELD_SSL, &[1, 0, 0, 0, 0]).repeat(2);
        assert_eq!(with_fields(&twice), Err(Malformed), "two of them");
    }

    #[test]
    fn a_sum_is_that_of_the_standard_and_has_to_be_right() {
        assert_eq!(!crc32c(u32::MAX, b"123456789"), 0xE306_9283);
        let header = with_sum(version_2(0x21, 0x11, &[&FOUR[..], &field(0x04, b"pad")].concat()));
        assert_eq!(whole(&header), of("192.0.2.1"));
        for bit in 8 * FIXED_BYTES..8 * header.len() {
            let mut changed = header.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            // Where the bit makes another field of the sum, nothing is left that could be wrong.
            let is_sum_still = changed.len() < 7 || changed[changed.len() - 7..][..3] == [FIELD_CRC32C, 0, 4];
            let pad = FIXED_BYTES + FOUR.len();
            let is_pad_still = changed[pad + 1..pad + 3] == [0, 3];
            if is_sum_still && is_pad_still {
                assert_eq!(parse(&changed), Err(Malformed), "bit {bit}");
            }
        }
        assert_eq!(parse(&with_sum(header)), Err(Malformed), "two sums");
        assert_eq!(with_fields(&field(FIELD_CRC32C, &[0; 3])), Err(Malformed));
    }

    #[test]
    fn what_is_no_header_is_known_by_its_first_wrong_byte() {
        for (bytes, known) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], 1),
            (b"\x16\x03\x01\x02\x00", 1),
            (b"POST /emit HTTP/1.1\r\n", 2),
            (b"PROXY4 ", 6),
            (b"\r\nGET / HTTP/1.1\r\n", 3),
            (b"\r\n\r\n\0\r\nQUIT\r", 12),
            (b"proxy TCP4", 1),
        ] {
            assert_eq!(parse(&bytes[..known - 1]), Ok(None), "{}", bytes.escape_ascii());
            assert_eq!(parse(&bytes[..known]), Err(Malformed), "{}", bytes.escape_ascii());
        }
    }

    /// Headers that are right, with what they say.
    fn headers() -> impl Strategy<Value = (Vec<u8>, Header)> {
        let fields = prop::collection::vec((0x30u8.., prop::collection::vec(any::<u8>(), 0..20)), 0..4);
        (any::<[u8; 16]>(), any::<(bool, bool, bool, u16)>(), prop::option::of(any::<bool>()), fields).prop_map(
            |(octets, (is_text, is_four, has_sum, port), is_tls, fields)| {
                let source = match is_four {
                    true => IpAddr::from(*octets.first_chunk::<4>().expect("four of sixteen")),
                    false => IpAddr::from(octets),
                };
                let address = source.to_canonical();
                if is_text {
                    let word = if is_four { "TCP4" } else { "TCP6" };
                    let line = format!("PROXY {word} {source} {source} {port} 443\r\n");
                    return (line.into_bytes(), Header::Client { address, is_tls: None });
                }
                let mut behind = match source {
                    IpAddr::V4(source) => source.octets().repeat(2),
                    IpAddr::V6(source) => source.octets().repeat(2),
                };
                behind.extend(port.to_be_bytes().repeat(2));
                fields.iter().for_each(|(kind, value)| behind.extend(field(*kind, value)));
                is_tls.iter().for_each(|is_tls| behind.extend(field(FIELD_SSL, &[u8::from(*is_tls), 0, 0, 0, 0])));
                let header = version_2(0x21, if is_four { 0x11 } else { 0x21 }, &behind);
                (if has_sum { with_sum(header) } else { header }, Header::Client { address, is_tls })
            },
        )
    }

    proptest! {
        #[test]
        fn a_header_ends_where_it_ends_whatever_follows((header, says) in headers(), behind: Vec<u8>) {
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(None));
            }
            let followed = [&header[..], &behind].concat();
            prop_assert_eq!(parse(&followed), Ok(Some((says, header.len()))));
        }

        #[test]
        fn while_more_is_asked_for_nothing_of_what_follows_was_given(
            (header, _) in headers(), noise: Vec<u8>, keep: prop::sample::Index, spoil: (prop::sample::Index, u8),
        ) {
            let mut bytes = header;
            let spoilt = spoil.0.index(bytes.len());
            bytes[spoilt] ^= spoil.1;
            bytes.truncate(keep.index(bytes.len() + 1));
            bytes.extend(noise);
            let all = parse(&bytes);
            for cut in 0..bytes.len() {
                match parse(&bytes[..cut]) {
                    Ok(None) => prop_assert!(all.is_err() || all.is_ok_and(|all| all.is_none_or(|(_, len)| len > cut))),
                    decided => prop_assert_eq!(decided, all),
                }
                prop_assert!(cut < HEADER_BYTES_MAX || parse(&bytes[..cut]) != Ok(None));
            }
        }
    }
}
