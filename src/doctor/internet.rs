//! What is in front of the home router: whether its address is one of the internet.
//!
//! From inside, a public address is all that can be seen: the proof is a try from outside. Where
//! the router tells no address, [`look()`] asks what is behind it; [`judge`] is pure.

mod look;

use std::net::Ipv4Addr;

pub(super) use look::look;

use super::{
    finding::{Judged, Verdict},
    router::is_public,
    subject::Subject,
};
use crate::{
    gateway::{Survey, Verdict as External},
    text::clean,
};

/// How to prove it.
const TRY: &str = "try it from outside, such as over mobile data and not from your own Wi-Fi: many routers \
                   do not lead their own external address back inside";

/// What is behind a router that has no address to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beyond {
    /// It was not looked for, or does not answer.
    Unknown,
    /// The next router on the way to the internet.
    Router(Ipv4Addr),
    /// The router itself says that there is no way on.
    Nothing,
}

impl Beyond {
    /// What that says in place of the router's address, and about which address.
    fn verdict(self) -> Option<(External, Ipv4Addr)> {
        let Self::Router(next) = self else { return None };
        let verdict = External::of(Some(next.into()));
        matches!(verdict, External::SecondNat | External::CarrierNat).then_some((verdict, next))
    }
}

/// Judges a mapping; `survey` is `None` where there is no way to the router.
pub(super) fn judge(subject: &Subject, survey: Option<&Survey>, beyond: Beyond, router: Verdict) -> Judged {
    let Some(survey) = survey else {
        return Judged::unknown("it was not reached: see lan", "");
    };
    let own = survey.way.own;
    if is_public(own) {
        return Judged::unknown(format!("{own} is a public address; nothing was tried from outside"), TRY);
    }
    if let (Some(External::NoAddress), None) = (survey.verdict, survey.external) {
        return without_address(beyond);
    }
    let external = survey.external.map_or_else(|| "none".to_owned(), |ip| ip.to_string());
    let words = match survey.verdict {
        None | Some(External::Public) => None,
        Some(External::SecondNat) => Some(format!("{external} is a private address: a second NAT")),
        Some(External::CarrierNat) => Some(format!("{external} is an address of the provider's NAT (CGNAT)")),
        Some(External::NoAddress) => Some(format!("{external} is not an address of the internet")),
    };
    if let (Some(words), Some(verdict)) = (words, survey.verdict) {
        return Judged::fail(format!("the external address of the router: {words}"), verdict.advice());
    }
    let has_pinhole = subject.openings.iter().any(|opening| {
        opening.state == "open" && opening.external.as_ref().is_some_and(|to| to.starts_with('['))
    });
    let refused = subject.openings.iter().find(|opening| ["denied", "failed"].contains(&&*opening.state));
    if let (Verdict::Ok, true, false, Some(opening)) = (router, subject.wants_ipv6(), has_pinhole, refused) {
        let why = clean(opening.error.as_deref().unwrap_or("it does not say why"));
        return Judged::fail(
            format!("the router lets no IPv6 client in: {why}"),
            "let this machine open IPv6 ports on the router's own pages",
        );
    }
    match survey.external {
        Some(ip) => Judged::unknown(format!("{ip} is a public address; nothing was tried from outside"), TRY),
        None => Judged::unknown("the router's external address is not known", TRY),
    }
}

/// A router that tells no address. Many tell none where it is not a public one.
fn without_address(beyond: Beyond) -> Judged {
    const NONE: &str = "the external address of the router: it has none";
    match (beyond.verdict(), beyond) {
        (Some((verdict, next)), _) => {
            let of = if verdict == External::CarrierNat {
                "in the provider's NAT (CGNAT)"
            } else {
                "a second NAT"
            };
            Judged::fail(format!("{NONE}, and the next router is {next}, {of}"), verdict.advice())
        }
        (None, Beyond::Nothing) => Judged::fail(
            format!("{NONE}, and it says that it has no way to the internet"),
            "look whether the router is online: its cable, its login at the provider, and the provider itself",
        ),
        (None, _) => Judged::fail(NONE, External::NoAddress.advice()),
    }
}

#[cfg(test)]
mod tests;
