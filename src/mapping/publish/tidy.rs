//! A spec as other programs, editors and shells write it, turned into the characters and the order
//! of this grammar.
//!
//! Each step is a guess about one habit: quotes inside quotes, `0.0.0.0:8080->80/tcp` of
//! `docker ps`, a URL, a dash that an editor made longer, a protocol in front. Nothing here decides
//! what is offered: the grammar reads every outcome first.

use super::Protocols;

/// What separates a protocol from the rest, wherever it stands.
const AROUND_PROTOCOL: [char; 9] = ['/', ':', '|', '+', ',', '&', ' ', '\t', '('];

/// A tidied text and the protocols that it named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tidy {
    pub(super) text: String,
    pub(super) protocols: Option<Protocols>,
}

/// One spec, or what was meant as one.
pub(super) fn tidy(text: &str) -> Tidy {
    let text = without_comment(text);
    let text = without_option(unquoted(text));
    let text = plain(unquoted(text));
    let text = joined(&text);
    let (text, protocols) = without_protocols(&text);
    let (text, scheme) = without_schemes(&text);
    Tidy { text: separators(&joined(&text)), protocols: protocols.or(scheme) }
}

/// A text without the quotes and spaces around it.
pub(super) fn unquoted(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || c.is_control() || is_quote(c) || matches!(c, ',' | ';' | '\u{feff}' | '\u{200b}')
    })
}

fn is_quote(c: char) -> bool {
    matches!(c, '"' | '\'' | '`' | '«' | '»' | '‹' | '›' | '\u{2018}'..='\u{201f}' | '\u{2032}' | '\u{2033}')
}

fn without_comment(text: &str) -> &str {
    text.split_once(" #").map_or(text, |(spec, _)| spec)
}

/// Takes `-p` or `--publish` off the front.
fn without_option(text: &str) -> &str {
    let rest = text.strip_prefix("--publish").or_else(|| text.strip_prefix("-p"));
    rest.map_or(text, |rest| rest.trim_start_matches([' ', '=']))
}

/// Characters that only look like those of the grammar, and arrows.
fn plain(text: &str) -> String {
    let text: String = text
        .chars()
        .filter(|c| !matches!(c, '\r' | '\u{200b}'..='\u{200f}' | '\u{feff}') && !is_quote(*c))
        .map(|c| match c {
            '\u{2010}'..='\u{2015}' | '\u{2212}' => '-',
            '\u{ff1a}' | '\u{2192}' | '\u{21d2}' => ':',
            c if c.is_whitespace() => ' ',
            c => c,
        })
        .collect();
    let text = text.replace("->", ":").replace("=>", ":").replace('\u{2026}', "..");
    ranges(&text)
}

/// Writes `6970..6977` as `6970-6977`.
fn ranges(text: &str) -> String {
    let Some((before, after)) = text.split_once("..") else { return text.to_owned() };
    let after = after.trim_start_matches(['.', '=']);
    let is_range =
        before.ends_with(|c: char| c.is_ascii_digit()) && after.starts_with(|c: char| c.is_ascii_digit());
    let between = if is_range { "-" } else { ".." };
    format!("{before}{between}{}", ranges(after))
}

/// Takes out the spaces around what separates parts.
fn joined(text: &str) -> String {
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
    let mut joined = String::with_capacity(text.len());
    for word in words {
        let glues = |c: char| matches!(c, ':' | '-' | '/' | '=' | '|' | '>');
        if !joined.is_empty() && !joined.ends_with(glues) && !word.starts_with(glues) {
            joined.push(' ');
        }
        joined.push_str(word);
    }
    joined
}

/// Takes every word for a protocol out, with what separated it.
fn without_protocols(text: &str) -> (String, Option<Protocols>) {
    let mut rest = text.to_ascii_lowercase();
    let mut found = None;
    let mut kept = text.to_owned();
    for (word, protocols) in [
        ("tcp+udp", Protocols::Both),
        ("udp+tcp", Protocols::Both),
        ("tcpudp", Protocols::Both),
        ("both", Protocols::Both),
        ("any", Protocols::Both),
        ("tcp", Protocols::Tcp),
        ("udp", Protocols::Udp),
    ] {
        while let Some((from, to)) = standing_alone(&rest, word) {
            rest.replace_range(from..to, "");
            kept.replace_range(from..to, "");
            found =
                Some(if found.is_none_or(|found| found == protocols) { protocols } else { Protocols::Both });
        }
    }
    (kept, found)
}

/// Where `word` stands between separators, with the one that sets it off.
fn standing_alone(text: &str, word: &str) -> Option<(usize, usize)> {
    text.match_indices(word).find_map(|(from, _)| {
        let to = from + word.len();
        let before = text[..from].chars().next_back();
        let after = text[to..].chars().next();
        let is_glued = before.is_some_and(|c| c.is_ascii_digit()) && after.is_none();
        let is_set_off = before.is_none_or(|c| AROUND_PROTOCOL.contains(&c))
            && after.is_none_or(|c| AROUND_PROTOCOL.contains(&c) || c == ')');
        // The scheme of a URL is looked at with the URL.
        let is_scheme = text[to..].starts_with("://");
        match (before, after) {
            _ if is_scheme => None,
            (None, Some(_)) if is_set_off => Some((from, to + 1)),
            (Some(_), _) if is_set_off => Some((from - 1, to)),
            _ if is_glued => Some((from, to)),
            _ => None,
        }
    })
}

/// Takes the schemes of URLs out, and the paths behind them; `http` and `https` say a port where
/// there is none.
fn without_schemes(text: &str) -> (String, Option<Protocols>) {
    let Some((before, url)) = text.split_once("://") else {
        return (text.trim_end_matches('/').to_owned(), None);
    };
    let from = before.rfind(|c: char| !c.is_ascii_alphanumeric()).map_or(0, |at| at + 1);
    let (before, scheme) = before.split_at(from);
    let host = url.split(['/', '?', '#']).next().unwrap_or(url);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let (port, protocols) = match scheme.to_ascii_lowercase().as_str() {
        "http" | "ws" if !has_port => (":80", None),
        "https" | "wss" if !has_port => (":443", None),
        "tcp" => ("", Some(Protocols::Tcp)),
        "udp" => ("", Some(Protocols::Udp)),
        _ => ("", None),
    };
    (format!("{before}{host}{port}"), protocols)
}

/// Another mark between two ports: `8080=80`, `8080/80`.
fn separators(text: &str) -> String {
    let Some((before, after)) = text.rsplit_once(['=', '/', '|', '>', ';']) else { return text.to_owned() };
    let is_port = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    if is_port(after) && before.ends_with(|c: char| c.is_ascii_digit()) {
        format!("{before}:{after}")
    } else {
        text.to_owned()
    }
}
