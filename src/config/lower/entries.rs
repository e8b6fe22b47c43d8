//! Clients by address: networks, addresses and `"@list"`, as `allow`, `deny` and `exempt` name
//! them.

use std::collections::BTreeSet;

use crate::{
    config::text::{
        Code, Diagnostic, Diagnostics, Keys, Located, Reader, Span, Value, hint::expanded, table::closest,
    },
    policy::{Entries, ListName, host_bits, parse_net},
};

/// The most that one key may hold. Every mapping has a copy of what `[defaults]` says, so more
/// belongs into a list, which all of them share.
const MOST: usize = 1000;

/// Entries as they are written.
#[derive(Clone, Debug)]
pub(crate) struct EntriesText {
    /// What could be read of them.
    pub(crate) entries: Entries,
    /// The lists again, with their places.
    lists: Vec<Located<ListName>>,
}

impl EntriesText {
    /// Takes a key with one entry or a list of them.
    pub(crate) fn read(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>, key: &'static str) -> Option<Self> {
        let (at, value) = keys.entry(reader, key)?;
        let texts = reader.texts(key, at, value);
        let (mut nets, mut lists) = (Vec::new(), Vec::new());
        if texts.items.len() > MOST {
            reader
                .diagnostics
                .problem(Code::TooMany, at, format!("`{key}` has more than {MOST} entries"))
                .hint("put them into a list, as in [lists] many = { file = \"many.txt\" }, and name that: \"@many\"");
            return None;
        }
        for text in texts.items {
            if reader.diagnostics.is_full() {
                break;
            }
            let span = text.span();
            if let Some(name) = text.value.strip_prefix('@') {
                let name = ListName(name.into());
                lists.push(Located { value: name, span });
                continue;
            }
            match parse_net(&text.value) {
                Ok(net) => {
                    nets.push(net);
                    warn_of_host_bits(reader.diagnostics, span, &text.value);
                }
                Err(message) => {
                    let note = refuse(reader.diagnostics, span, message).text(&text.value);
                    if let Some(value) = expanded(&text) {
                        note.add_to_hint(&value);
                    }
                }
            }
        }
        let names = lists.iter().map(|list| list.value.clone()).collect();
        Some(Self { entries: Entries { nets: nets.into(), lists: names }, lists })
    }

    /// Notes every list that there is not.
    pub(crate) fn refuse_unknown(&self, known: &BTreeSet<ListName>, diagnostics: &mut Diagnostics) {
        for Located { value, span } in self.lists.iter().filter(|list| !known.contains(&list.value)) {
            let name = &*value.0;
            let names: Vec<&str> = known.iter().map(|known| &*known.0).collect();
            let hint = match closest(name, &names) {
                Some(near) => format!("did you mean \"@{near}\"?"),
                None if names.is_empty() => "name one in [lists], as in office = [\"203.0.113.0/24\"]".into(),
                None => format!("the lists are {}", names.join(", ")),
            };
            diagnostics
                .problem(Code::UnknownList, *span, format!("unknown list `@{name}`"))
                .text(format!("@{name}"))
                .hint(hint);
        }
    }
}

/// Notes what [`parse_net`] says: behind the last colon, what would be right.
pub(crate) fn refuse(diagnostics: &mut Diagnostics, span: Span, message: String) -> &mut Diagnostic {
    diagnostics.problem(Code::InvalidEntry, span, message).split_hint()
}

/// Warns of an entry that has bits beyond its prefix.
pub(crate) fn warn_of_host_bits(diagnostics: &mut Diagnostics, span: Span, entry: &str) {
    if let Some(message) = host_bits(entry) {
        warn(diagnostics, span, message).text(entry);
    }
}

/// Notes what [`host_bits`] says: behind the last colon, what would be right.
pub(crate) fn warn(diagnostics: &mut Diagnostics, span: Span, message: String) -> &mut Diagnostic {
    diagnostics.warning(Code::BroadEntry, span, message).split_hint()
}

/// Takes `allow`. It refuses all other clients, so it must not be empty.
pub(crate) fn allow(reader: &mut Reader<'_>, keys: &mut Keys<'_, '_>) -> Option<EntriesText> {
    refuse_empty(reader, keys, "allow", "name an address that may enter; without `allow`, every address may");
    EntriesText::read(reader, keys, "allow")
}

/// Refuses an empty list that would refuse every client.
pub(crate) fn refuse_empty(
    reader: &mut Reader<'_>,
    keys: &mut Keys<'_, '_>,
    key: &'static str,
    hint: &'static str,
) {
    if let Some(value) = keys.get(key)
        && is_empty(value)
    {
        let span = reader.span(value.span());
        reader
            .diagnostics
            .problem(Code::Empty, span, format!("`{key}` is empty: no client could enter"))
            .hint(hint);
    }
}

fn is_empty(value: &Value<'_>) -> bool {
    value.get_ref().as_array().is_some_and(|items| items.is_empty())
}
