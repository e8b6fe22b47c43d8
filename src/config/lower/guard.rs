//! `[guard]`: automatic bans, and the decoy ports that earn one.

use std::{num::NonZeroU32, path::Path, time::Duration};

use crate::{
    config::{
        host::HostView,
        lower::{declared::Declared, entries::EntriesText, own_paths},
        text::{
            Code, Diagnostics, Keys, Kind, Pace, Reader, Refusal, Span, Text, Value,
            amount::{self},
            cure::{self},
            duration::{self, DURATION},
            read::absolute,
        },
    },
    mapping::Timeout,
    policy::{GuardSpec, Rate},
};

/// The longest ban.
const LONGEST_BAN: Duration = Duration::from_secs(30 * 86_400);
/// The file of the bans in the directory that systemd gives to the service.
const STATE_FILE: &str = "bans.json";

/// `[guard]` as it is written.
#[derive(Clone)]
pub(crate) struct GuardText {
    span: Span,
    refusals: Rate,
    ban: Duration,
    /// The listen specs of the decoys.
    pub(crate) trap: Vec<Text>,
    exempt: Option<EntriesText>,
    state: Option<Text>,
}

impl GuardText {
    /// Reads `[guard]`.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>, span: Span) -> Self {
        Self {
            span,
            refusals: keys.get("refusals").and_then(|v| refusals(reader, v)).unwrap_or_else(usual_refusals),
            ban: keys.get("ban").and_then(|v| ban(reader, v)).unwrap_or(Duration::from_secs(3600)),
            trap: trap(reader, keys),
            exempt: EntriesText::read(reader, keys, "exempt"),
            state: keys.get("state").and_then(|v| reader.path("state", v)),
        }
    }

    /// Notes the lists that there are not.
    pub(crate) fn check(&self, known: &Declared, diagnostics: &mut Diagnostics) {
        if let Some(exempt) = &self.exempt {
            known.refuse_unknown_lists(exempt, diagnostics);
        }
    }

    /// The guard's terms. A relative path begins at `directory`.
    pub(crate) fn spec(
        &self,
        directory: &Path,
        host: &dyn HostView,
        diagnostics: &mut Diagnostics,
    ) -> GuardSpec {
        let said = self.state.as_ref().map(|text| directory.join(&text.value));
        let state = said.or_else(|| own_paths::state(STATE_FILE, |name| host.env(name).map(Into::into)));
        let state = state.as_deref().map(absolute);
        if state.is_none() {
            let message = "bans are kept in memory only, and forgotten when portway ends";
            diagnostics.warning(Code::NotPersisted, self.span, message).hint(
                "name a file that portway may write, as in state = \"/var/lib/portway/bans.json\" \
                     (as a service, systemd gives a place)",
            );
        }
        let exempt = self.exempt.as_ref().map(|text| text.entries.clone()).unwrap_or_default();
        GuardSpec { refusals: self.refusals, ban: self.ban, exempt, state }
    }
}

/// Ten a minute.
fn usual_refusals() -> Rate {
    let count = NonZeroU32::new(10).expect("10 is not 0");
    Rate { count, per: Duration::from_secs(60), burst: count }
}

fn refusals(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Rate> {
    const FORMS: &str = "say after how many a client is banned, as in \"10/min\"; without [guard] there are no automatic bans";
    let Pace { count, per } = amount::limiting_rate(reader, "refusals", value, FORMS)?;
    Some(Rate { count, per, burst: count })
}

fn ban(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Duration> {
    const FORMS: &str = "use a time such as \"1h\", up to \"30d\"; each repeat doubles it";
    cure::read(reader, "ban", value, &Kind { forms: FORMS, ..DURATION }, |text| match duration::parse(text) {
        Ok(Timeout::After(ban)) if ban <= LONGEST_BAN => Ok(ban),
        Ok(Timeout::After(_)) => Err(Refusal::new(format!("`{text}` is more than 30 days"), FORMS)),
        Ok(Timeout::Never) => Err(Refusal::new("`ban` cannot be \"never\": addresses change hands", FORMS)),
        Err(refusal) => Err(Refusal { hint: FORMS.into(), ..refusal }),
    })
}

fn trap(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Vec<Text> {
    keys.entry(reader, "trap").map(|(at, value)| reader.texts("trap", at, value).items).unwrap_or_default()
}
