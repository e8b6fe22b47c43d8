//! What is in front of the home router: whether its address is one of the internet.
//!
//! Pure. From inside, a public address is all that can be seen: the proof is a try from outside.

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

/// Judges a mapping; `survey` is `None` where there is no way to the router.
pub(super) fn judge(subject: &Subject, survey: Option<&Survey>, router: Verdict) -> Judged {
    let Some(survey) = survey else {
        return Judged::unknown("it was not reached: see lan", "");
    };
    let own = survey.way.own;
    if is_public(own) {
        return Judged::unknown(format!("{own} is a public address; nothing was tried from outside"), TRY);
    }
    let external = survey.external.map_or_else(|| "none".to_owned(), |ip| ip.to_string());
    let words = match survey.verdict {
        None | Some(External::Public) => None,
        Some(External::SecondNat) => Some(format!("{external} is a private address: a second NAT")),
        Some(External::CarrierNat) => Some(format!("{external} is an address of the provider's NAT (CGNAT)")),
        Some(External::NoAddress) => Some(match survey.external {
            None => "it has none".to_owned(),
            Some(ip) => format!("{ip} is not an address of the internet"),
        }),
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

#[cfg(test)]
mod tests;
