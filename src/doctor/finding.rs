//! What was found about one hop: values only.

use serde::Serialize;

/// The hops of a mapping, from its targets outward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Hop {
    /// The targets.
    Target,
    /// The listeners.
    Listener,
    /// The firewall of this machine.
    Firewall,
    /// The local network.
    Lan,
    /// The home router.
    Router,
    /// What is in front of the router.
    Internet,
}

impl Hop {
    /// Its word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Listener => "listener",
            Self::Firewall => "firewall",
            Self::Lan => "lan",
            Self::Router => "router",
            Self::Internet => "internet",
        }
    }
}

/// Whether a hop works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// It works.
    Ok,
    /// It does not.
    Fail,
    /// That cannot be told from here.
    Unknown,
}

impl Verdict {
    /// Its word.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// What was found about one hop of one mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The mapping.
    pub(crate) mapping: String,
    /// The hop.
    pub(crate) hop: Hop,
    /// Whether it works.
    pub(crate) verdict: Verdict,
    /// What shows that.
    pub(crate) evidence: String,
    /// What helps; empty where nothing has to be done.
    pub(crate) cure: String,
}

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// Whether it works.
    pub(super) verdict: Verdict,
    /// What shows that.
    pub(super) evidence: String,
    /// What helps.
    pub(super) cure: String,
}

impl Judged {
    /// It works.
    pub(super) fn ok(evidence: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, evidence: evidence.into(), cure: String::new() }
    }

    /// It does not work.
    pub(super) fn fail(evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, evidence: evidence.into(), cure: cure.into() }
    }

    /// It cannot be told.
    pub(super) fn unknown(evidence: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unknown, evidence: evidence.into(), cure: cure.into() }
    }

    /// The finding about this hop of a mapping.
    pub(super) fn of(self, mapping: &str, hop: Hop) -> Finding {
        let Self { verdict, evidence, cure } = self;
        Finding { mapping: mapping.to_owned(), hop, verdict, evidence, cure }
    }

    /// One for several parts: the first that fails, else the first unknown one, else all of them.
    pub(super) fn of_parts(parts: Vec<Self>) -> Self {
        for verdict in [Verdict::Fail, Verdict::Unknown] {
            if let Some(part) = parts.iter().find(|part| part.verdict == verdict) {
                return part.clone();
            }
        }
        // Something that works may still be worth a change.
        let cure =
            parts.iter().map(|part| &part.cure).find(|cure| !cure.is_empty()).cloned().unwrap_or_default();
        let mut words: Vec<String> = Vec::new();
        for part in parts {
            if !words.contains(&part.evidence) {
                words.push(part.evidence);
            }
        }
        const SHOWN: usize = 4;
        let more = words.len().saturating_sub(SHOWN);
        words.truncate(SHOWN);
        if more > 0 {
            words.push(format!("and {more} more"));
        }
        Self { cure, ..Self::ok(words.join("; ")) }
    }
}
