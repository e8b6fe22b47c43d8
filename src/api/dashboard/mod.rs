//! The dashboard: one page, embedded in the program.
//!
//! This module owns the files of the page. It knows nothing of the daemon: the page reads the same
//! routes as every other client. The files are served as they stand here, with no build step. They
//! hold no data, so they need no login; the login form is part of the page.
//!
//! The page loads nothing from elsewhere and has no script or style in its markup. [`POLICY`]
//! forbids both. Text from outside reaches the page through `textContent` alone.
//!
//! `app.js` has the loop that asks the daemon. `mappings.js`, `sessions.js` and `lists.js` draw one
//! section each. `forms.js` has the two larger dialogs, and `outside.js` the proof from outside.
//! `graph.js` keeps and draws the rates. These share `dom.js`, `format.js` and `api.js`.

/// The `Content-Security-Policy` of every answer.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// The files: path, media type, text.
const FILES: [(&str, &str, &str); 13] = [
    ("/", HTML, include_str!("index.html")),
    ("/style.css", STYLE, include_str!("style.css")),
    ("/icon.svg", PICTURE, include_str!("icon.svg")),
    ("/app.js", SCRIPT, include_str!("app.js")),
    ("/api.js", SCRIPT, include_str!("api.js")),
    ("/dom.js", SCRIPT, include_str!("dom.js")),
    ("/format.js", SCRIPT, include_str!("format.js")),
    ("/forms.js", SCRIPT, include_str!("forms.js")),
    ("/graph.js", SCRIPT, include_str!("graph.js")),
    ("/lists.js", SCRIPT, include_str!("lists.js")),
    ("/mappings.js", SCRIPT, include_str!("mappings.js")),
    ("/outside.js", SCRIPT, include_str!("outside.js")),
    ("/sessions.js", SCRIPT, include_str!("sessions.js")),
];

/// The file at a path: its media type and its bytes.
pub(super) fn file(path: &str) -> Option<(&'static str, &'static [u8])> {
    let (_, kind, text) = FILES.into_iter().find(|(known, _, _)| *known == path)?;
    Some((kind, text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/dashboard");
        for entry in fs::read_dir(here).expect("the page's directory") {
            let path = entry.expect("a file of the page").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
            let served = match name {
                "mod.rs" => continue,
                "index.html" => "/".to_owned(),
                name => format!("/{name}"),
            };
            let (_, bytes) = file(&served).unwrap_or_else(|| panic!("{name} is not served"));
            assert_eq!(bytes, fs::read(&path).expect("a file of the page"), "{name}");
        }
    }

    #[test]
    fn the_page_needs_nothing_that_a_strict_policy_forbids() {
        let text = |path| {
            let (_, bytes) = file(path).expect("a file of the page");
            std::str::from_utf8(bytes).expect("text")
        };
        let page = text("/");
        assert!(!page.contains("<script>") && !page.contains("<style") && !page.contains(" style="));
        for path in ["/", "/style.css", "/app.js"] {
            assert!(!text(path).contains("http://") && !text(path).contains("https://"), "{path}");
        }
        for path in
            ["/app.js", "/dom.js", "/mappings.js", "/sessions.js", "/lists.js", "/forms.js", "/outside.js"]
        {
            for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!text(path).contains(way), "{path} uses {way}");
            }
        }
    }
}
