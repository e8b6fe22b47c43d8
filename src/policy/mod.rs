//! Decides which clients may enter: by lists, countries, rates, caps and bans.
//!
//! Owns the rules of a mapping ([`Policy`], a plain value), the reasons of a refusal ([`Refusal`]),
//! and the decision. [`Admission`] decides for one mapping. [`Gate`] is what all mappings share:
//! the lists, the countries, and the [`Guard`] with its bans. Nothing here touches a socket. Every
//! client is known by its canonical address.
//!
//! A mapping may let in only clients that knocked ([`Knocks`], see `README.md` here).
//!
//! A datagram that proves a way from outside ([`Probes`]) is no client, and passes none of this.
//!
//! The checks run in this order: ban, lists and countries, knock, rates, caps. Only the first two
//! can end a live session ([`Admission::recheck`]).

mod access;
mod admission;
mod country;
mod gate;
mod grants;
mod guard;
mod knocks;
mod probes;
mod quota;
mod rate;
mod refusal;
mod shards;
mod spec;

pub(crate) use access::PartAccess;
pub use access::set::IpSet;
pub(crate) use access::{
    entry::{host_bits, parse_net},
    set::ListError,
};
pub use admission::Admission;
pub(crate) use admission::{RatesRecord, RefusalsRecord, Summary};
pub(crate) use country::Countries;
pub use gate::{Gate, GateInput};
pub(crate) use gate::{GateSpec, ListSpec};
pub(crate) use grants::Grant;
pub(crate) use guard::{Ban, BanReason, Guard, GuardRecord, GuardSnapshot, Restored};
pub(crate) use knocks::{False, KnockSnapshot, KnockSpec, Knocks, Port};
#[cfg(feature = "knock")]
pub(crate) use knocks::{KnockKey, ServerSecret};
#[cfg(feature = "api")]
pub(crate) use probes::{LENGTH as PROBE_LENGTH, Nonce, is_answer, question};
pub(crate) use probes::{Probes, Reply as ProbeReply};
pub(crate) use quota::Permit;
#[cfg(feature = "api")]
pub(crate) use rate::{ClientLimiter, Crowded};
pub use refusal::Refusal;
pub use spec::{AccessSpec, Caps, Entries, Limit, ListName, Policy, Rate, Rates};
pub(crate) use spec::{Country, GuardSpec, Refuse};
