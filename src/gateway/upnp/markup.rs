//! Reading single elements out of a router's XML.
//!
//! Owns a scanner that finds elements by their local name, wherever they stand and whatever prefix
//! they have. Knows nothing of what they mean. It is deliberately less than an XML parser. It
//! allocates only what it returns, reads every byte about once, has no nesting to exceed, follows
//! no entity, and finds values in a document that a router cut short. Elements that hold an element
//! of their own name are not for it.

/// The texts of all elements of that name, as they stand in the document; an element without an end
/// tag (`<a/>`) has the empty text.
pub(super) fn contents<'a>(document: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = document;
    std::iter::from_fn(move || {
        loop {
            let tag = next_tag(rest)?;
            rest = tag.after;
            if tag.is_whole(name) {
                return Some("");
            }
            if !tag.opens(name) {
                continue;
            }
            let from = rest;
            loop {
                // Without an end tag the search ends: the rest of the document is not the element's
                // text.
                let tag = next_tag(rest)?;
                rest = tag.after;
                if tag.closes(name) {
                    return Some(&from[..from.len() - tag.from.len()]);
                }
            }
        }
    })
}

/// The text of the first element of that name, with references resolved, without white space around
/// it.
pub(super) fn text(document: &str, name: &str) -> Option<String> {
    contents(document, name).next().map(unescape)
}

/// One tag: where it starts, what is between its brackets, and what comes after it.
struct Tag<'a> {
    from: &'a str,
    inside: &'a str,
    after: &'a str,
}

impl Tag<'_> {
    fn opens(&self, name: &str) -> bool {
        !self.inside.starts_with('/') && !self.inside.ends_with('/') && local_name(self.inside) == name
    }

    fn is_whole(&self, name: &str) -> bool {
        !self.inside.starts_with('/') && self.inside.ends_with('/') && local_name(self.inside) == name
    }

    fn closes(&self, name: &str) -> bool {
        self.inside.strip_prefix('/').is_some_and(|inside| local_name(inside) == name)
    }
}

fn local_name(inside: &str) -> &str {
    let end = inside.find(|c: char| c.is_ascii_whitespace() || c == '/').unwrap_or(inside.len());
    let name = &inside[..end];
    name.rsplit_once(':').map_or(name, |(_, local)| local)
}

/// The next tag; comments and sections of plain text count as one.
fn next_tag(text: &str) -> Option<Tag<'_>> {
    let from = &text[text.find('<')?..];
    let (end, skip) = if from.starts_with("<!--") {
        (from.find("-->")?, 3)
    } else if from.starts_with(CDATA) {
        (from.find(CDATA_END)?, CDATA_END.len())
    } else {
        (from.find('>')?, 1)
    };
    Some(Tag { from, inside: &from[1..end], after: &from[end + skip..] })
}

const CDATA: &str = "<![CDATA[";
const CDATA_END: &str = "]]>";

fn unescape(raw: &str) -> String {
    let raw = raw.trim();
    if let Some(plain) = raw.strip_prefix(CDATA).and_then(|raw| raw.strip_suffix(CDATA_END)) {
        return plain.trim().to_owned();
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('&') {
        text.push_str(before);
        let reference = after.split_once(';').and_then(|(name, after)| Some((referred(name)?, after)));
        rest = match reference {
            Some((c, after)) => {
                text.push(c);
                after
            }
            None => {
                text.push('&');
                after
            }
        };
    }
    text.push_str(rest);
    text
}

fn referred(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all<'a>(document: &'a str, name: &'a str) -> Vec<&'a str> {
        contents(document, name).collect()
    }

    #[test]
    fn an_element_is_found_by_its_local_name() {
        let document =
            "<?xml version='1.0'?><s:a x='1'><u:b>1</u:b><B>2</B><b y=''>3</b><b/><b >4</b ></s:a>";
        assert_eq!(all(document, "b"), ["1", "3", "", "4"]);
        assert_eq!(text(document, "B").as_deref(), Some("2"));
        assert_eq!(text(document, "c"), None);
    }

    #[test]
    fn references_and_plain_sections_are_resolved() {
        let texts = [
            ("<a> /ctl?x=1&amp;y=2 </a>", "/ctl?x=1&y=2"),
            ("<a>&#65;&#x42;&#xffffffff;&nothing;&</a>", "AB&#xffffffff;&nothing;&"),
            ("<a><![CDATA[ <b> & ]]></a>", "<b> &"),
            ("<a><!-- </a> -->1</a>", "<!-- </a> -->1"),
        ];
        for (document, expected) in texts {
            assert_eq!(text(document, "a").as_deref(), Some(expected), "{document}");
        }
    }

    #[test]
    fn what_stands_in_a_comment_is_not_there() {
        assert_eq!(all("<!-- <a>1</a> --><a>2</a><!-- <a>3</a>", "a"), ["2"]);
    }

    #[test]
    fn a_document_that_is_cut_short_gives_what_is_whole() {
        assert_eq!(all("<a>1</a><a>2</", "a"), ["1"]);
        assert_eq!(all("<a>1</a><a", "a"), ["1"]);
        assert_eq!(all("<a><a><a>", "a"), [""; 0]);
    }

    proptest! {
        #[test]
        fn no_document_is_too_odd(document in "(<|>|/|a|:|!--|-->|&|;|#x?|\\[CDATA\\[|\\]\\]>|é| ){0,60}") {
            for content in contents(&document, "a") {
                prop_assert!(document.contains(content));
                unescape(content);
            }
        }
    }
}
