//! What is in front of the home router: whether its address is one of the internet.
//!
//! From inside, a public address is all that can be seen: the proof is a try from outside, which
//! another portway makes. Where the router tells no address, [`look()`] asks what is behind it;
//! [`judge`] is pure.

mod look;

use std::net::Ipv4Addr;

pub(super) use look::look;

use super::{
    finding::{Hop, Judged, Verdict},
    outside::Seen,
    router::is_public,
    subject::Subject,
};
use crate::{
    gateway::{Survey, Verdict as External},
    probe::Way,
    text::clean,
};

/// How to prove it.
const TRY: &str = "try it from outside, such as over mobile data and not from your own Wi-Fi: many routers \
                   do not lead their own external address back inside; or let another portway try it: \
                   `portway doctor --from URL`";

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

/// What the hops before this one have shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Before {
    /// What is behind the router.
    pub(super) beyond: Beyond,
    /// The verdict about the router.
    pub(super) router: Verdict,
    /// The first hop behind the targets that fails.
    pub(super) failing: Option<Hop>,
}

/// Judges a mapping; `survey` is `None` where there is no way to the router, and `tries` is empty
/// where nothing was tried from outside.
pub(super) fn judge(subject: &Subject, survey: Option<&Survey>, before: Before, tries: &[Seen]) -> Judged {
    let inside = from_inside(subject, survey, before.beyond, before.router);
    if tries.is_empty() {
        return inside;
    }
    Judged::of_parts(tries.iter().map(|seen| tried(subject, survey, before, &inside, seen)).collect())
}

/// Judges a try from outside. What can be seen from inside explains one that failed.
fn tried(
    subject: &Subject,
    survey: Option<&Survey>,
    before: Before,
    inside: &Judged,
    Seen { told, address }: &Seen,
) -> Judged {
    let evidence = &*told.evidence;
    let external = survey.and_then(Survey::public);
    match (told.way, before.failing) {
        (Way::Open, _) => Judged::ok(evidence),
        _ if inside.verdict == Verdict::Fail => inside.clone(),
        (Way::Unknown, _) => Judged::unknown(evidence, &*told.cure),
        (Way::Closed, Some(hop)) => Judged::unknown(format!("{evidence}: see {}", hop.as_str()), ""),
        (Way::Closed, None) if subject.term("knock").is_some_and(|knock| knock.as_bool() == Some(true)) => {
            Judged::unknown(
                format!("{evidence}: it opens for clients that knocked"),
                "knock, and try it yourself",
            )
        }
        (Way::Closed, None) => match (address, external) {
            (Some(seen), Some(external)) if seen.is_ipv4() && *seen != external => Judged::fail(
                format!("{evidence}; the router's external address is {external}: another one is before it"),
                "forward the port on the router or provider's NAT before this one, too; if a VPN is on, clients \
                 have to come in by the router's address: ask without the VPN",
            ),
            _ => Judged::fail(evidence, &*told.cure),
        },
    }
}

/// Judges what can be seen from inside.
fn from_inside(subject: &Subject, survey: Option<&Survey>, beyond: Beyond, router: Verdict) -> Judged {
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
