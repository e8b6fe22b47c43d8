//! What holds for all mappings: `[lists]`, `[geoip]`, `[guard]` and `[knock]`, and what their files
//! hold.

use std::{path::Path, sync::Arc};

use crate::{
    config::{
        host::HostView,
        keys,
        lower::{declared::Declared, guard::GuardText, knock::KnockText, lists::ListText},
        text::{
            Code, Diagnostics, Keys, Reader, SourceMap, Text, Value,
            read::{CLOSED, absolute},
        },
    },
    policy::{Countries, GateInput},
    state::files,
};

const MAXMIND: &str = "name a file in MaxMind's format, such as GeoLite2-Country.mmdb";

/// The tables as they are written.
#[derive(Clone, Default)]
pub(crate) struct GateText {
    /// Those of all files; the other tables stand in the main file only.
    pub(crate) lists: Vec<ListText>,
    /// `[geoip]`, and its database where that could be read.
    geoip: Option<Option<Text>>,
    guard: Option<GuardText>,
    knock: Option<KnockText>,
}

impl GateText {
    /// Takes the tables out of the main file, but for the lists.
    pub(crate) fn read(reader: &mut Reader<'_>, top: &mut Keys<'_, '_>) -> Self {
        let guard = top.table(reader, "guard", GuardText::read);
        let geoip = top.get("geoip").map(|v| geoip(reader, v));
        let knock = top.table(reader, "knock", KnockText::read);
        Self { lists: Vec::new(), geoip, guard, knock }
    }

    /// The listen specs of the decoys.
    pub(crate) fn traps(&self) -> &[Text] {
        self.guard.as_ref().map_or(&[], |guard| &guard.trap)
    }

    /// The ports of knocks.
    pub(crate) fn knock(&self) -> Option<&KnockText> {
        self.knock.as_ref()
    }

    /// What a mapping may refer to. Where the main file, or any of the files, is broken, what seems
    /// to be missing there is not missed.
    pub(crate) fn known(&self, is_main_broken: bool, is_any_broken: bool) -> Declared {
        let lists = (!is_any_broken).then(|| self.lists.iter().map(|list| list.name.clone()).collect());
        Declared {
            lists,
            has_countries: is_main_broken || self.geoip.is_some(),
            has_knock: is_main_broken || self.knock.is_some(),
            knock: self.knock.as_ref().map(|knock| knock.span),
        }
    }

    /// Reads the files, and puts all together. Relative paths of the main file begin at
    /// `directory`.
    pub(crate) fn load(
        self,
        directory: &Path,
        known: &Declared,
        host: &dyn HostView,
        sources: &mut SourceMap,
        diagnostics: &mut Diagnostics,
    ) -> GateInput {
        let mut input = GateInput::default();
        if let Some(guard) = &self.guard {
            guard.check(known, diagnostics);
            input.spec.guard = Some(guard.spec(directory, host, diagnostics));
        }
        if let Some(knock) = &self.knock {
            input.spec.knock = Some(knock.spec(directory, host, diagnostics));
        }
        if let Some(database) = self.geoip.flatten() {
            let path = directory.join(&database.value);
            match Countries::open(&path) {
                Ok(countries) => input.countries = Some(Arc::new(countries)),
                Err(message) => {
                    let message = format!("the database of countries cannot be used: {message}");
                    diagnostics
                        .problem(Code::UnreadableFile, database.span(), message)
                        .text(&database.value)
                        .hint(if files::is_closed(&path) { CLOSED } else { MAXMIND });
                }
            }
            input.spec.geoip = Some(absolute(&path));
        }
        for list in self.lists {
            let name = list.name.clone();
            if let Some((spec, set)) = list.load(sources, diagnostics) {
                input.spec.lists.insert(name.clone(), spec);
                input.lists.insert(name, set);
            }
        }
        input
    }
}

/// Reads `[geoip]`; it is the database.
fn geoip(reader: &mut Reader<'_>, value: &Value<'_>) -> Option<Text> {
    let table = reader.table("geoip", value)?;
    if table.is_empty() {
        let span = reader.span(value.span());
        reader
            .diagnostics
            .problem(Code::MissingKey, span, "[geoip] without a `database`")
            .hint("as in database = \"/var/lib/GeoIP/GeoLite2-Country.mmdb\"");
    }
    let mut keys = Keys::of(table, &keys::GEOIP);
    let path = database(reader, &mut keys);
    keys.refuse_others(reader, "in [geoip]");
    path
}

/// Reads the key of `[geoip]`.
pub(crate) fn database(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<Text> {
    reader.path("database", keys.get("database")?)
}
