//! Why a client was refused.

/// Why a client was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is banned.
    Banned,
    /// A `deny` entry matches it, or `allow` entries exist and none does.
    Denied,
    /// Its country is denied, or not among those allowed.
    Country,
    /// It has not knocked, and the mapping is open only to clients that have.
    NoKnock,
    /// The mapping takes no more new sessions for the moment.
    Rate,
    /// The client has started too many sessions in too short a time.
    ClientRate,
    /// The mapping has as many sessions as it may.
    Full,
    /// The client has as many sessions as it may.
    ClientFull,
    /// The client sends too many datagrams.
    DatagramRate,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Banned,
        Self::Denied,
        Self::Country,
        Self::NoKnock,
        Self::Rate,
        Self::ClientRate,
        Self::Full,
        Self::ClientFull,
        Self::DatagramRate,
    ];

    /// The word of log lines and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Denied => "denied",
            Self::Country => "country",
            Self::NoKnock => "no-knock",
            Self::Rate => "rate",
            Self::ClientRate => "client-rate",
            Self::Full => "full",
            Self::ClientFull => "client-full",
            Self::DatagramRate => "datagram-rate",
        }
    }

    /// Whether the client itself caused it. Then it counts as an offence if it comes from a
    /// connection, whose source is not forged. A full mapping is not an offence.
    pub const fn is_offence(self) -> bool {
        matches!(self, Self::Denied | Self::Country | Self::ClientRate | Self::ClientFull)
    }
}
