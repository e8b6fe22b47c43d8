//! Names in a log line: the mappings that a reload changed, and the targets of a listener. A line
//! shows the first ten.

use std::{
    collections::BTreeSet,
    fmt::{Display, Write as _},
};

use crate::{
    config::{Plan, PlanDiff},
    mapping::{ListenerKey, MappingName},
};

/// How many names a line has.
const SHOWN: usize = 10;

/// The names of the mappings that a reload opened, closed and changed. Each field has the first ten
/// and the number of the others. It is `None` if there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedNames {
    /// With listeners that are new.
    pub opened: Option<String>,
    /// With listeners that are gone.
    pub closed: Option<String>,
    /// With listeners that changed in place, or opened in the place of others.
    pub changed: Option<String>,
}

impl ChangedNames {
    /// The names of what differs between `old` and `new`.
    pub(super) fn of(diff: &PlanDiff, old: &Plan, new: &Plan) -> Self {
        let opened = names(new, diff.open.iter());
        let changed = names(new, diff.retune.iter().chain(diff.replace.iter().flat_map(|r| &r.open)));
        let mut closed = names(old, diff.close.iter());
        let replaced = names(old, diff.replace.iter().flat_map(|r| &r.close));
        closed.extend(replaced.difference(&changed));
        let few = |names: BTreeSet<&MappingName>| few(names.into_iter());
        Self { opened: few(opened), closed: few(closed), changed: few(changed) }
    }
}

fn names<'p>(plan: &'p Plan, keys: impl Iterator<Item = &'p ListenerKey>) -> BTreeSet<&'p MappingName> {
    keys.filter_map(|key| Some(&plan.listeners.get(key)?.name)).collect()
}

/// `a, b, c`, or `a, b, … and 5 more`; `None` of nothing.
pub(super) fn few(mut all: impl Iterator<Item = impl Display>) -> Option<String> {
    let mut text = all.next()?.to_string();
    for one in all.by_ref().take(SHOWN - 1) {
        // Writing into a string does not fail.
        let _ = write!(text, ", {one}");
    }
    match all.count() {
        0 => Some(text),
        more => Some(format!("{text} and {more} more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_are_shown_and_the_others_counted() {
        assert_eq!(few(0..0), None);
        assert_eq!(few(1..=2).as_deref(), Some("1, 2"));
        assert_eq!(few(1..=12).as_deref(), Some("1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"));
    }
}
