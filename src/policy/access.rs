//! Sets of addresses, and the longest prefix in them.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of networks, for look-ups by the longest prefix.
#[derive(Clone, Debug, Default)]
pub struct IpSet {
    nets: Vec<IpNet>,
}

/// A line of a list file that is no entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListError {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl IpSet {
    /// Reads a list file: one CIDR or address a line, `#` comments, blank lines.
    ///
    /// # Errors
    /// Every line that is none of that.
    pub fn parse(_text: &str) -> Result<Self, Vec<ListError>> {
        Ok(Self::default())
    }

    /// The length of the longest prefix that has `ip` (canonical), or `None`.
    pub fn longest(&self, ip: IpAddr) -> Option<u8> {
        self.nets.iter().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max()
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.nets.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }
}

impl FromIterator<IpNet> for IpSet {
    fn from_iter<T: IntoIterator<Item = IpNet>>(nets: T) -> Self {
        Self { nets: nets.into_iter().collect() }
    }
}

/// One entry as it is written: a CIDR (host bits are masked off) or a single address. An IPv4-mapped one is IPv4.
///
/// # Errors
/// What is wrong with it, and what would be right.
pub fn parse_net(text: &str) -> Result<IpNet, String> {
    text.parse()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is no address"))
}
