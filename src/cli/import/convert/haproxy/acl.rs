//! Conditions of HAProxy, as far as portway has something for them: the client's address, and the
//! name in TLS or in the Host header.

use std::collections::HashMap;

use super::super::model::Place;

/// What a condition looks at, with the values that fulfil it.
#[derive(Clone, Debug)]
pub(super) enum Test {
    /// The client's address.
    Source(Vec<String>),
    /// The name in TLS.
    Sni(Vec<String>),
    /// The name in the Host header.
    Host(Vec<String>),
}

/// The named conditions of a section.
pub(super) struct Acls(HashMap<String, Option<Test>>);

impl Acls {
    /// Those of the lines of `acl`.
    pub(super) fn of<'t>(lines: impl Iterator<Item = (Place, &'t [String])>) -> Self {
        let mut acls: HashMap<String, Option<Test>> = HashMap::new();
        for (_, words) in lines {
            let [name, test @ ..] = words else { continue };
            let test = read(test);
            let merged = match (acls.remove(name), test) {
                (None, test) => test,
                // One name on several lines: any of them.
                (Some(Some(first)), Some(second)) => joined(first, second),
                _ => None,
            };
            acls.insert(name.clone(), merged);
        }
        Self(acls)
    }

    /// The names that a condition asks for, and where clients say them; `None` where it asks for
    /// something else.
    pub(super) fn names(&self, condition: &[String]) -> Option<(&'static str, Vec<String>)> {
        let (test, is_not) = self.condition(condition)?;
        match test {
            Test::Sni(names) if !is_not => Some(("tls-sni", names)),
            Test::Host(names) if !is_not => Some(("http-host", names)),
            _ => None,
        }
    }

    /// The clients that a condition (behind its `if`) is about, and whether it is about all others.
    pub(super) fn clients(&self, condition: &[String]) -> Option<(Vec<String>, bool)> {
        match self.terms(condition)? {
            (Test::Source(nets), is_not) => Some((nets, is_not)),
            _ => None,
        }
    }

    fn condition(&self, words: &[String]) -> Option<(Test, bool)> {
        let (first, terms) = words.split_first()?;
        if first == "if" { self.terms(terms) } else { None }
    }

    /// Terms joined by `or`, all about one thing.
    fn terms(&self, words: &[String]) -> Option<(Test, bool)> {
        let terms = words.split(|word| word == "or" || word == "||").map(|term| self.term(term));
        let terms = terms.collect::<Option<Vec<_>>>()?;
        let mut terms = terms.into_iter();
        let first = terms.next()?;
        terms.try_fold(first, |(test, is_not), (other, other_not)| {
            (!is_not && !other_not).then(|| joined(test, other)).flatten().map(|test| (test, false))
        })
    }

    fn term(&self, words: &[String]) -> Option<(Test, bool)> {
        let (is_not, words) = match words.split_first() {
            Some((first, rest)) if first == "!" => (true, rest),
            _ => (false, words),
        };
        match words {
            [open, inside @ .., close] if open == "{" && close == "}" => Some((read(inside)?, is_not)),
            [name] => match name.strip_prefix('!') {
                Some(name) => Some((self.0.get(name)?.clone()?, !is_not)),
                None => Some((self.0.get(name)?.clone()?, is_not)),
            },
            _ => None,
        }
    }
}

fn joined(first: Test, second: Test) -> Option<Test> {
    let both = |mut first: Vec<String>, second: Vec<String>| {
        first.extend(second);
        first
    };
    match (first, second) {
        (Test::Source(a), Test::Source(b)) => Some(Test::Source(both(a, b))),
        (Test::Sni(a), Test::Sni(b)) => Some(Test::Sni(both(a, b))),
        (Test::Host(a), Test::Host(b)) => Some(Test::Host(both(a, b))),
        _ => None,
    }
}

/// A test such as `req.ssl_sni -i -m end .example.org`.
fn read(words: &[String]) -> Option<Test> {
    let (fetch, rest) = words.split_first()?;
    let mut values = Vec::new();
    let mut method = "";
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-i" | "--" => {}
            "-m" => method = rest.next()?,
            flag if flag.starts_with('-') => return None,
            value => values.push(value.to_owned()),
        }
    }
    let fetch = fetch.to_ascii_lowercase();
    let (base, method) = match fetch.as_str() {
        "src" => return Some(Test::Source(values)),
        "req_ssl_sni" | "req.ssl_sni" | "ssl_fc_sni" => ("sni", method),
        "req_ssl_sni_end" => ("sni", "end"),
        "ssl_fc_sni_end" => ("sni", "end"),
        "hdr(host)" | "req.hdr(host)" => ("host", method),
        "hdr_end(host)" => ("host", "end"),
        "hdr_dom(host)" => ("host", "dom"),
        _ => return None,
    };
    let names = match method {
        "" | "str" => values,
        // Without a dot before it, it is the name itself, too.
        "end" => values
            .iter()
            .flat_map(|value| match value.strip_prefix('.') {
                Some(rest) => vec![format!("*.{rest}")],
                None => vec![value.clone(), format!("*.{value}")],
            })
            .collect(),
        "dom" => values
            .iter()
            .filter(|value| value.contains('.'))
            .flat_map(|value| [value.clone(), format!("*.{value}")])
            .collect(),
        _ => return None,
    };
    if names.is_empty() {
        return None;
    }
    Some(if base == "sni" { Test::Sni(names) } else { Test::Host(names) })
}
