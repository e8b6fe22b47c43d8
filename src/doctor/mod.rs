//! Finds the hop where a mapping cannot be reached from the internet.
//!
//! A mapping is reached over six hops: target, listener, firewall, lan, router, internet. Each hop
//! has a file. Its pure part judges facts and gives a [`Finding`]: a verdict, the evidence and the
//! cure. Its other part (`look`) gathers the facts, each within a limit of time. A hop that only
//! suffers from an earlier one is `unknown`. So the hop that fails is the one to mend.
//!
//! Owns nothing that runs, and changes nothing on this machine or on the router. What it is given
//! about a mapping is a [`Subject`], from the daemon or from the configuration. It must not know
//! where that came from, or how a finding is printed. It ends when every hop has its finding.

mod finding;
mod firewall;
mod internet;
mod lan;
mod listener;
mod outside;
mod program;
mod router;
mod subject;
mod target;

use std::net::{IpAddr, Ipv4Addr};

pub(crate) use finding::{Finding, Hop, Verdict};
pub(crate) use outside::Outside;
pub(crate) use subject::Subject;

use crate::gateway::{self, RouterSettings, Survey, Wanted};

/// A client somewhere on the internet, as the firewall would see it.
const A_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

/// What holds for all mappings.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// How the router is asked.
    pub(crate) settings: RouterSettings,
    /// Whether a daemon answers, or why not.
    pub(crate) daemon: Daemon,
    /// What tries the ports from outside, if anything does.
    pub(crate) outside: Option<Outside>,
}

/// What is known of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Daemon {
    /// It answers.
    Runs,
    /// None runs, as far as can be seen.
    Absent,
    /// It cannot be asked, for this reason.
    Hidden(String),
}

/// Walks the way of each mapping, or of the one with this name, from its targets to the internet:
/// six findings a mapping. `all` are the mappings of this machine.
pub(crate) async fn examine(all: &[Subject], name: Option<&str>, around: &Surroundings) -> Vec<Finding> {
    let subjects: Vec<&Subject> =
        all.iter().filter(|subject| name.is_none_or(|name| subject.name == name)).collect();
    let mut lan = lan::look(&around.settings).await;
    let rules = firewall::look().await;
    let wanted: Vec<Wanted> = subjects.iter().flat_map(|subject| subject.wanted()).collect();
    let survey = match &lan.way {
        Ok(_) => Some(gateway::survey(&around.settings, &wanted).await),
        Err(_) => None,
    };
    if survey.as_ref().is_some_and(|survey| survey.router.is_ok()) {
        lan.confirm_router();
    }
    let beyond = internet::look(survey.as_ref()).await;
    let back = target::Back { all, external: survey.as_ref().and_then(|survey| survey.external) };
    let mut findings = Vec::new();
    for subject in subjects {
        let name = &*subject.name;
        let targets = target::look(subject, &back).await;
        let listener = listener::judge(subject, &around.daemon, &listener::look(subject));
        let firewall = firewall::judge(subject, &rules, lan.interface(), lan.own(), A_CLIENT);
        let lan = lan::judge(&lan, subject);
        let target = target::judge(subject, &targets, lan.verdict == Verdict::Fail);
        let listens = listener.verdict != Verdict::Fail;
        let seen = survey.as_ref().filter(|_| lan.verdict != Verdict::Fail);
        let router = router::judge(subject, seen, listens, &around.daemon);
        let tries = match &around.outside {
            Some(outside) if lan.verdict != Verdict::Fail => {
                outside::look(subject, outside, seen.and_then(Survey::public)).await
            }
            _ => Vec::new(),
        };
        let hops = [
            (Hop::Target, target),
            (Hop::Listener, listener),
            (Hop::Firewall, firewall),
            (Hop::Lan, lan),
            (Hop::Router, router),
        ];
        let before = internet::Before {
            beyond,
            router: hops[4].1.verdict,
            // The listener accepts whether its target works or not.
            failing: hops[1..]
                .iter()
                .find(|(_, judged)| judged.verdict == Verdict::Fail)
                .map(|(hop, _)| *hop),
        };
        let internet = internet::judge(subject, seen, before, &tries);
        findings.extend(hops.map(|(hop, judged)| judged.of(name, hop)));
        findings.push(internet.of(name, Hop::Internet));
    }
    findings
}
