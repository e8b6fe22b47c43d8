//! What must hold for any text: the claims of the tests, and of the fuzz target.
#![allow(unreachable_pub, reason = "the fuzz targets are outside of the library")]
#![allow(clippy::missing_panics_doc, reason = "a claim that does not hold panics, and that is its use")]

use super::{Kind, read, sorted, told, written};

/// A name that could do harm in a comment or on a terminal.
const NAME: &str = "x\u{1b}\n.yml";

/// Any text as the configuration of each tool.
pub fn import(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let texts = [(NAME.to_owned(), text)];
    for kind in Kind::ALL.into_iter().map(Some).chain([None]) {
        let (files, unknown) = sorted(&texts, kind);
        assert_eq!(files.len() + unknown.len(), 1, "the file has one kind, or none");
        let imported = read(&files);
        let outcome = written(&imported, &[NAME], "# head\n");
        let table = outcome.text.parse::<toml::Table>();
        let table = table.unwrap_or_else(|error| panic!("{kind:?}: {error}\n{}", outcome.text));
        let mappings = table.get("mapping").and_then(toml::Value::as_array).map_or(0, Vec::len);
        assert_eq!((mappings, outcome.starts.len()), (imported.mappings.len(), imported.mappings.len()));
        let is_key = |key: &String| key == "mapping";
        assert!(table.keys().all(is_key), "{kind:?}: no text becomes a key\n{}", outcome.text);
        for loss in imported.all_losses() {
            assert!(!told(loss, &[NAME]).contains(['\n', '\u{1b}']), "{kind:?}: a loss is one plain line");
        }
    }
}
