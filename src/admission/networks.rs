//! Networks: lists of address ranges, as an operator writes them. Invariant: an address that reaches
//! us as IPv6 but is an IPv4 one (`::ffff:192.0.2.1`) is judged as the IPv4 address that it is.

use std::net::IpAddr;

/// Addresses that begin with the same bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    first: IpAddr,
    bits: u8,
}

impl Network {
    /// `192.0.2.0/24`, `2001:db8::/32`, or one address. Bits behind the prefix have to be zero: who
    /// wrote them meant something else.
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = width(address);
        let bits = match bits {
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => width,
        };
        let first = address.to_canonical();
        // A network of IPv4 addresses in IPv6's words.
        let bits = if width == self::width(first) { bits } else { bits.checked_sub(96)? };
        let network = Network { first, bits };
        (bits <= self::width(first) && network.prefix(first) == number(first)).then_some(network)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && self.prefix(address) == number(self.first)
    }

    /// The address as a number, without what stands behind the prefix.
    fn prefix(&self, address: IpAddr) -> u128 {
        let behind = u32::from(width(address).saturating_sub(self.bits));
        number(address).checked_shr(behind).and_then(|kept| kept.checked_shl(behind)).unwrap_or(0)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Several networks. Few: they are looked through.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Networks(Box<[Network]>);

impl Networks {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Networks(networks.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn contains(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (network, inside, outside) in [
            ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("128.0.0.0/1", "255.255.255.255", "127.255.255.255"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("192.0.2.0/24", "::ffff:192.0.2.1", "::ffff:192.0.3.1"),
            ("::ffff:192.0.2.0/120", "192.0.2.1", "192.0.3.1"),
        ] {
            assert!(contains(network, inside) && !contains(network, outside), "{network}");
        }
    }

    #[test]
    fn everything_of_one_kind_of_address_is_nothing_of_the_other() {
        assert!(contains("0.0.0.0/0", "255.0.0.1") && contains("::/0", "2001:db8::1"));
        assert!(!contains("0.0.0.0/0", "2001:db8::1") && !contains("::/0", "192.0.2.1"));
        assert!(!contains("::/0", "::ffff:192.0.2.1"), "it is an IPv4 address");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for wrong in [
            "",
            "/",
            "192.0.2.0/",
            "192.0.2.0/33",
            "192.0.2.1/24",
            "192.0.2/24",
            "192.0.2.0/+8",
            "192.0.2.0/-1",
            "192.0.2.0/24/8",
            "2001:db8::/129",
            "::ffff:192.0.2.0/24",
            "[2001:db8::1]",
            "192.0.2.0:80",
            "localhost",
            "*",
        ] {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_network_agrees_with_a_comparison_of_bits(first: u128, bits in 0u8..=128, other: u128, shared in 0u32..=128) {
            let mask = (!0u128).checked_shl(128 - u32::from(bits)).unwrap_or(0);
            let first = first & mask;
            let other = first ^ other.checked_shr(shared).unwrap_or(0);
            let is_v4 = |bits: u128| Ipv6Addr::from_bits(bits).to_ipv4_mapped().is_some();
            prop_assume!(!is_v4(first) && !is_v4(other));
            let network = Network::parse(&format!("{}/{bits}", Ipv6Addr::from_bits(first))).unwrap();
            prop_assert_eq!(network.contains(Ipv6Addr::from_bits(other).into()), other & mask == first);
        }

        #[test]
        fn so_does_one_of_the_older_kind(first: u32, bits in 0u8..=32, other: u32) {
            let mask = (!0u32).checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let network = Network::parse(&format!("{}/{bits}", Ipv4Addr::from_bits(first & mask))).unwrap();
            prop_assert_eq!(network.contains(Ipv4Addr::from_bits(other).into()), other & mask == first & mask);
        }
    }
}
