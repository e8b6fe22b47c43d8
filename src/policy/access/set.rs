//! Sets of addresses, and the longest prefix in them.
//!
//! Owns [`IpSet`] and the form of a list file. A set is made once and never changed; a changed list
//! is a new set. Knows nothing of files, nor of what a set is good for.

use std::{fmt, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixSet;

use super::entry::{canonical_net, host_bits, parse_net};
use crate::mapping::canonical;

/// How many bad lines of a list file are reported one by one.
const REPORTED: usize = 20;

/// A set of networks, for look-ups by the longest prefix.
#[derive(Clone, Default, PartialEq)]
pub struct IpSet {
    v4: PrefixSet<Ipv4Net>,
    v6: PrefixSet<Ipv6Net>,
}

/// A line of a list file that is not an entry, or one to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl IpSet {
    /// Reads a list file: one CIDR or address a line, comments from `#` (or `;`, as public block
    /// lists have it) to the end of a line, blank lines. A byte order mark and carriage returns of
    /// other systems do not hurt.
    ///
    /// # Errors
    /// The first twenty lines that are none of that; a last error tells how many more there are.
    pub fn parse(text: &str) -> Result<Self, Vec<ListError>> {
        let mut set = Self::default();
        let mut errors = Vec::new();
        let (mut more, mut last) = (0_usize, 0);
        for (line, entry) in entries(text) {
            match parse_net(entry) {
                Ok(net) => set.insert(net),
                Err(message) if errors.len() < REPORTED => errors.push(ListError { line, message }),
                Err(_) => (more, last) = (more + 1, line),
            }
        }
        if more > 0 {
            let message = format!("this is the last of {more} more lines that are no entries");
            errors.push(ListError { line: last, message });
        }
        if errors.is_empty() { Ok(set) } else { Err(errors) }
    }

    /// The entries of a list file that stand for a whole network although they have bits beyond
    /// their prefix: the first twenty; a last item tells how many more there are.
    pub fn with_host_bits(text: &str) -> Vec<ListError> {
        let mut all = entries(text).filter_map(|(line, entry)| Some((line, host_bits(entry)?)));
        let first = all.by_ref().take(REPORTED);
        let mut found: Vec<_> = first.map(|(line, message)| ListError { line, message }).collect();
        if let Some((more, (last, _))) = (1_usize..).zip(all).last() {
            let message = format!("this is the last of {more} more lines with bits beyond their prefix");
            found.push(ListError { line: last, message });
        }
        found
    }

    /// The length of the longest prefix that has `ip` (canonical), or `None`.
    pub fn longest(&self, ip: IpAddr) -> Option<u8> {
        match canonical(ip) {
            IpAddr::V4(ip) => self.v4.get_lpm(&ip.into()).map(|net| net.prefix_len()),
            IpAddr::V6(ip) => self.v6.get_lpm(&ip.into()).map(|net| net.prefix_len()),
        }
    }

    /// How many entries it has; one that is written twice counts once.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn insert(&mut self, net: IpNet) {
        match canonical_net(net) {
            IpNet::V4(net) => self.v4.insert(net),
            IpNet::V6(net) => self.v6.insert(net),
        };
    }
}

/// The entries of a list file, each with the number of its line.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let entries = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default().trim());
    (1..).zip(entries).filter(|(_, entry)| !entry.is_empty())
}

impl FromIterator<IpNet> for IpSet {
    fn from_iter<T: IntoIterator<Item = IpNet>>(nets: T) -> Self {
        let mut set = Self::default();
        nets.into_iter().for_each(|net| set.insert(net));
        set
    }
}

impl fmt::Debug for IpSet {
    /// The number of its entries: there may be a hundred thousand.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IpSet({} entries)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> IpSet {
        IpSet::parse(text).expect("a list")
    }

    #[test]
    fn a_list_file_is_read_with_any_line_ends() {
        let text = "\u{feff}# the office\r\n203.0.113.0/24\r\n\r\n  2001:db8:7::/48\t# and its IPv6\r\n192.0.2.7#x\n198.51.100.0/24 ; SBL1\n203.0.113.0/24";
        let set = set(text);
        assert_eq!(set.len(), 4);
        assert_eq!(set.longest("203.0.113.9".parse().unwrap()), Some(24));
        assert_eq!(set.longest("2001:db8:7::9".parse().unwrap()), Some(48));
        assert_eq!(set.longest("192.0.2.7".parse().unwrap()), Some(32));
        assert_eq!(set.longest("192.0.2.8".parse().unwrap()), None);
        assert!(IpSet::parse("").unwrap().is_empty());
    }

    #[test]
    fn a_mapped_client_is_its_ipv4_address_and_a_mapped_entry_too() {
        let mapped = "::ffff:10.1.2.3".parse().unwrap();
        assert_eq!(set("10.0.0.0/8").longest(mapped), Some(8));
        assert_eq!(set("::ffff:10.0.0.0/104").longest("10.1.2.3".parse().unwrap()), Some(8));
        assert_eq!(set("::/0").longest(mapped), None, "an IPv6 entry has no IPv4 client");
    }

    #[test]
    fn every_bad_line_is_told_by_its_number_up_to_a_bound() {
        let errors = IpSet::parse("10.0.0.0/8\n\nnonsense\r\n10.0.0.0/33 # x").unwrap_err();
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [3, 4]);
        assert!(errors[0].message.starts_with("`nonsense` is not an address"), "{errors:?}");

        let errors = IpSet::parse(&"nonsense\n".repeat(1000)).unwrap_err();
        assert_eq!(errors.len(), REPORTED + 1);
        assert_eq!(errors[REPORTED].line, 1000);
        assert!(errors[REPORTED].message.contains("980 more"), "{errors:?}");
    }

    #[test]
    fn entries_with_host_bits_are_told_by_their_lines_up_to_a_bound() {
        let found = IpSet::with_host_bits("10.0.0.0/8\n\n192.168.1.5/24 # me\nbad/24\n2001:db8::1/32\n");
        assert_eq!(found.iter().map(|e| e.line).collect::<Vec<_>>(), [3, 5]);
        let found = IpSet::with_host_bits(&"10.0.0.1/8\n".repeat(1000));
        assert_eq!((found.len(), found[REPORTED].line), (REPORTED + 1, 1000));
        assert!(found[REPORTED].message.contains("980 more"), "{found:?}");
    }

    #[test]
    fn a_hundred_thousand_entries_are_read_whole() {
        let lines = (0..100_000_u32).map(|n| format!("{}/32\n", Ipv4Addr::from(n.wrapping_mul(0x9E37_79B1))));
        let set = set(&lines.collect::<String>());
        assert_eq!(set.len(), 100_000);
        assert!(
            (0..100_000_u32)
                .all(|n| { set.longest(Ipv4Addr::from(n.wrapping_mul(0x9E37_79B1)).into()) == Some(32) })
        );
        let bytes = set.v4.mem_size();
        assert!(bytes < 16 << 20, "{bytes} bytes for 100,000 single addresses");
    }

    /// Addresses that share bits with one another, so that they meet the networks.
    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (any::<u8>(), 0_u8..4).prop_map(|(low, high)| Ipv4Addr::new(10, high, 0, low).into()),
            any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
            (any::<u16>(), 0_u16..4)
                .prop_map(|(low, high)| Ipv6Addr::new(0x2001, 0xdb8, high, 0, 0, 0, 0, low).into()),
            any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).to_ipv6_mapped().into()),
        ]
    }

    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        let net = (addresses(), 0_u8..=128)
            .prop_map(|(ip, bits)| IpNet::new(ip, if ip.is_ipv4() { bits.min(32) } else { bits }).unwrap());
        proptest::collection::vec(net, 0..40)
    }

    proptest! {
        #[test]
        fn the_longest_prefix_is_what_a_walk_over_all_entries_finds(
            nets in nets(),
            clients in proptest::collection::vec(addresses(), 1..40),
        ) {
            let entries: Vec<IpNet> = nets.iter().map(|net| parse_net(&net.to_string()).unwrap()).collect();
            let set: IpSet = nets.into_iter().collect();
            for client in clients {
                let walked =
                    entries.iter().filter(|net| net.contains(&canonical(client))).map(IpNet::prefix_len).max();
                prop_assert_eq!(set.longest(client), walked, "{}", client);
            }
        }

        #[test]
        fn no_text_is_too_strange_to_be_read(text in any::<String>()) {
            let _ = IpSet::parse(&text);
        }
    }
}
