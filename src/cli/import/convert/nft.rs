//! Rules of nftables that change the destination, as `nft list ruleset` and `nft -j list ruleset`
//! print them.
//!
//! All other rules are no port mappings: they are passed over in silence.

use std::collections::HashMap;

use super::{
    dnat::Dnat,
    model::{File, Imported, Loss, Place},
    tree::{self, Node},
    words::network,
};

/// A condition that an address of portway stands for.
const INTERFACE: &str = "listen on the address of an interface, to listen there alone";
const NO_CONDITION: &str = "portway has no such condition";

/// Reads the rules.
pub(super) fn read(file: File<'_>, into: &mut Imported) {
    if file.text.trim_start().starts_with('{') {
        match tree::yaml(file.text) {
            Ok(root) => json(file, &root, into),
            Err((line, error)) => into.lose(file.at(line), "", error),
        }
        return;
    }
    let mut defined = Defined::default();
    for (place, line) in rules(file) {
        let Some(words) = defined.expanded(tokens(&line)) else { continue };
        // `ct status dnat` is a condition.
        let is_rule = words.iter().enumerate().any(|(at, word)| {
            ["dnat", "redirect"].contains(&word.as_str()) && (at == 0 || words[at - 1] != "status")
        });
        if is_rule && !["chain", "map", "set", "elements"].contains(&words[0].as_str()) {
            text(place, &line, &words, into);
        }
    }
}

/// The lines without comments, those with a set that goes on joined with the next ones.
fn rules(file: File<'_>) -> Vec<(Place, String)> {
    let mut lines: Vec<(Place, String)> = Vec::new();
    let mut depth = 0_usize;
    for (place, line) in file.lines() {
        let line = uncommented(line).trim();
        if line.is_empty() {
            continue;
        }
        let is_block = ["table ", "chain ", "map ", "set "].iter().any(|word| line.starts_with(word));
        match lines.last_mut().filter(|_| depth > 0) {
            Some((_, whole)) => {
                whole.push(' ');
                whole.push_str(line);
            }
            None => lines.push((place, line.to_owned())),
        }
        if depth > 0 || !is_block {
            depth += line.matches('{').count();
            depth = depth.saturating_sub(line.matches('}').count());
        }
    }
    lines
}

/// A line without its comment: a `#` at the start of a word, unless in quotes.
fn uncommented(line: &str) -> &str {
    let (mut is_quoted, mut before) = (false, ' ');
    for (at, c) in line.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted && before.is_whitespace() => return &line[..at],
            _ => {}
        }
        before = c;
    }
    line
}

/// What `define` has defined.
#[derive(Default)]
struct Defined(HashMap<String, Vec<String>>);

impl Defined {
    /// The longest line with values in place, in words: values may hold each other.
    const LONGEST: usize = 1000;
    /// The most values.
    const MOST: usize = 1000;

    /// A line with values in place of `$NAME`. `None` where it defines one.
    fn expanded(&mut self, words: Vec<String>) -> Option<Vec<String>> {
        let mut all = Vec::new();
        for word in words {
            match word.strip_prefix('$').and_then(|name| self.0.get(name)) {
                Some(value) if all.len() + value.len() <= Self::LONGEST => all.extend_from_slice(value),
                _ => all.push(word),
            }
        }
        match &*all {
            [word, name, sign, value @ ..]
                if ["define", "redefine"].contains(&word.as_str()) && sign == "=" =>
            {
                if self.0.len() < Self::MOST && value.len() <= Self::LONGEST {
                    self.0.insert(name.clone(), value.to_vec());
                }
                None
            }
            _ => Some(all),
        }
    }
}

/// Words, texts in quotes, and the signs that stand alone.
fn tokens(line: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '"' => rest[1..].find('"').map_or(rest.len(), |at| at + 2),
            '{' | '}' | ',' | ';' => 1,
            _ => rest.find(|c: char| c.is_whitespace() || "{},;".contains(c)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..end].trim_matches('"').to_owned());
        rest = rest[end..].trim_start();
    }
    tokens
}

/// The tokens of a rule, one after the other.
struct Tokens<'t> {
    words: &'t [String],
}

impl<'t> Tokens<'t> {
    fn next(&mut self) -> Option<&'t str> {
        let (first, rest) = self.words.split_first()?;
        self.words = rest;
        Some(first)
    }

    fn takes(&mut self, word: &str) -> bool {
        let takes = self.words.first().is_some_and(|next| next == word);
        if takes {
            self.words = &self.words[1..];
        }
        takes
    }

    /// A value, or those of a set in braces; and whether they are excluded.
    fn values(&mut self) -> (bool, Vec<&'t str>) {
        let is_not = self.takes("!=");
        self.takes("==");
        if !self.takes("{") {
            return (is_not, self.next().into_iter().collect());
        }
        let mut values = Vec::new();
        while let Some(word) = self.next().filter(|word| *word != "}") {
            if word != "," {
                values.push(word);
            }
        }
        (is_not, values)
    }
}

fn text(place: Place, line: &str, words: &[String], into: &mut Imported) {
    let mut rule = Dnat::default();
    let mut words = Tokens { words };
    let (mut map, mut others) = (Vec::new(), Vec::new());
    while let Some(word) = words.next() {
        match word {
            "iif" | "iifname" => {
                let (is_not, names) = words.values();
                if !is_not {
                    rule.losses.push(Loss::new(place, format!("{word} {}", names.join(" ")), INTERFACE));
                }
            }
            "ip" | "ip6" if words.takes("saddr") => {
                let (is_not, values) = words.values();
                clients(&mut rule, place, is_not, &values);
            }
            "ip" | "ip6" if words.takes("daddr") => destination(&mut rule, place, &words.values()),
            "ip" if words.takes("protocol") => protocols(&mut rule, &words.values().1),
            "meta" if words.takes("l4proto") => protocols(&mut rule, &words.values().1),
            "tcp" | "udp" | "th" if words.takes("dport") => {
                protocols(&mut rule, &[word]);
                let (is_not, ports) = words.values();
                if !is_not {
                    rule.ports.extend(ports.into_iter().map(str::to_owned));
                }
            }
            "counter" => {
                for name in ["packets", "bytes"] {
                    if words.takes(name) {
                        words.next();
                    }
                }
            }
            "comment" => rule.comment = words.next().unwrap_or_default().to_owned(),
            "dnat" | "redirect" => match to(&mut rule, &mut words, word == "redirect") {
                Some(entries) => map = entries,
                None => return into.lose(place, line, "portway has no such map"),
            },
            "fib" => while words.next().is_some_and(|word| word != "local") {},
            "add" | "insert" | "rule" | "handle" | "#" | ";" | "}" | "persistent" | "random" | "accept" => {}
            // `add rule ip nat prerouting …`: the table and the chain.
            "ip" | "ip6" | "inet" | "nat" | "prerouting" | "PREROUTING" => {}
            word if word.chars().all(|c| c.is_ascii_digit()) => {}
            word => {
                // The names of table and chain stand before the first condition.
                let has_begun = !rule.ports.is_empty() || rule.tcp || rule.udp;
                if has_begun || !line.contains("add ") {
                    others.push(word);
                }
            }
        }
    }
    if !others.is_empty() {
        rule.losses.push(Loss::new(place, others.join(" "), NO_CONDITION));
    }
    finish(rule, map, place, line, into);
}

/// A rule, or one for each entry of its map.
fn finish(rule: Dnat, map: Entries, place: Place, line: &str, into: &mut Imported) {
    if map.is_empty() {
        return rule.add(place, line, into);
    }
    for (port, to, to_port) in map {
        let rule = Dnat { ports: vec![port], to: Some(to), to_ports: to_port, ..rule.clone() };
        rule.add(place, line, into);
    }
}

fn protocols(rule: &mut Dnat, words: &[&str]) {
    rule.tcp |= words.iter().any(|word| ["tcp", "6"].contains(word));
    rule.udp |= words.iter().any(|word| ["udp", "17"].contains(word));
}

fn clients(rule: &mut Dnat, place: Place, is_not: bool, values: &[&str]) {
    match values.iter().map(|value| network(value)).collect::<Option<Vec<_>>>() {
        Some(nets) if is_not => rule.deny.extend(nets),
        Some(nets) => rule.allow.extend(nets),
        None => {
            rule.losses.push(Loss::new(
                place,
                format!("saddr {}", values.join(" ")),
                "write it into `allow`",
            ));
        }
    }
}

fn destination(rule: &mut Dnat, place: Place, (is_not, values): &(bool, Vec<&str>)) {
    let net = match &**values {
        [one] if !is_not => network(one).filter(|net| !net.contains('/')),
        _ => None,
    };
    if net.is_none() {
        let why = "portway listens on one address or on every one";
        rule.losses.push(Loss::new(place, format!("daddr {}", values.join(" ")), why));
    }
    rule.destination = net;
}

/// Entries of a map: the port, the address, and the port there if it is another one.
type Entries = Vec<(String, String, Option<String>)>;

/// What follows `dnat` and `redirect`; the entries of a map by port. `None` for any other map.
fn to(rule: &mut Dnat, words: &mut Tokens<'_>, is_redirect: bool) -> Option<Entries> {
    while ["ip", "ip6", "inet", "addr", "port", "."].iter().any(|word| words.takes(word)) {}
    if !words.takes("to") {
        return Some(Vec::new());
    }
    if words.words.iter().any(|word| word == "map") {
        let is_by_port = words.words.get(1).is_some_and(|word| word == "dport")
            && words.words.get(2).is_some_and(|word| word == "map")
            && words.words.get(3).is_some_and(|word| word == "{");
        if !is_by_port {
            return None;
        }
        protocols(rule, &[words.next()?]);
        words.words = &words.words[2..];
        return Some(map(words));
    }
    let text = words.next()?;
    if is_redirect || text.starts_with(':') {
        rule.to_ports = Some(text.trim_start_matches(':').to_owned());
        return Some(Vec::new());
    }
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => match text.rsplit_once(':').filter(|(host, _)| !host.contains(':')) {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    rule.to = Some(host.to_owned());
    rule.to_ports = port.map(str::to_owned);
    Some(Vec::new())
}

/// `{ 80 : 10.0.0.5, 443 : 10.0.0.6 . 8443 }`.
fn map(words: &mut Tokens<'_>) -> Entries {
    let mut entries = Vec::new();
    words.takes("{");
    while let Some(port) = words.next().filter(|word| *word != "}") {
        if port == "," {
            continue;
        }
        words.takes(":");
        let Some(to) = words.next() else { break };
        let to_port = if words.takes(".") { words.next().map(str::to_owned) } else { None };
        entries.push((port.to_owned(), to.to_owned(), to_port));
    }
    entries
}

fn json(file: File<'_>, root: &Node, into: &mut Imported) {
    for object in root.get("nftables").map_or(&[][..], Node::items) {
        let Some(rule) = object.get("rule") else { continue };
        let parts = rule.get("expr").map_or(&[][..], Node::items);
        if parts.iter().any(|part| part.get("dnat").is_some() || part.get("redirect").is_some()) {
            rule_of_json(file, rule, parts, into);
        }
    }
}

fn rule_of_json(file: File<'_>, node: &Node, parts: &[Node], into: &mut Imported) {
    let place = file.at(node.line);
    let mut rule =
        Dnat { comment: node.text_of("comment").unwrap_or_default().to_owned(), ..Dnat::default() };
    for part in parts {
        if let Some(condition) = part.get("match") {
            condition_of_json(&mut rule, place, condition);
        }
        let Some(to) = part.get("dnat").or_else(|| part.get("redirect")) else { continue };
        let addresses = to.get("addr");
        if let Some(addr) = addresses {
            match addr.text() {
                Some(addr) => rule.to = Some(addr.to_owned()),
                None => {
                    return into.lose(
                        place,
                        "dnat to a map",
                        "not understood: import the text of `nft list ruleset`",
                    );
                }
            }
        }
        rule.to_ports = to.get("port").and_then(port_of_json);
    }
    let chain = node.text_of("chain").unwrap_or_default();
    let handle = node.text_of("handle").unwrap_or_default();
    rule.add(place, &format!("rule of chain {chain}, handle {handle}"), into);
}

fn condition_of_json(rule: &mut Dnat, place: Place, condition: &Node) {
    let is_not = condition.text_of("op") == Some("!=");
    let (Some(left), Some(right)) = (condition.get("left"), condition.get("right")) else { return };
    let right = values_of_json(right);
    let values: Vec<&str> = right.iter().map(String::as_str).collect();
    let of =
        |table: &str, key: &str| left.get(table).and_then(|table| table.text_of(key)).unwrap_or_default();
    match (of("payload", "protocol"), of("payload", "field"), of("meta", "key")) {
        (protocol, "dport", _) if !is_not => {
            protocols(rule, &[protocol]);
            rule.ports.extend(right);
        }
        (_, "saddr", _) => clients(rule, place, is_not, &values),
        (_, "daddr", _) => destination(rule, place, &(is_not, values)),
        (_, _, "l4proto") | ("ip", "protocol", _) => protocols(rule, &values),
        (_, _, "iifname" | "iif") => {
            if !is_not {
                rule.losses.push(Loss::new(place, format!("iifname {}", values.join(" ")), INTERFACE));
            }
        }
        _ if left.get("fib").is_some() => {}
        _ => {
            let what = left.entries().first().map(|(kind, of)| {
                let key = of.text_of("key").or_else(|| of.text_of("field")).unwrap_or_default();
                format!("{kind} {key}")
            });
            rule.losses.push(Loss::new(place, what.unwrap_or_default(), NO_CONDITION));
        }
    }
}

/// A value, those of a set, a range, or a network.
fn values_of_json(node: &Node) -> Vec<String> {
    if let Some(set) = node.get("set") {
        return set.items().iter().flat_map(values_of_json).collect();
    }
    if let Some(prefix) = node.get("prefix") {
        let part = |key| prefix.text_of(key).unwrap_or_default();
        return vec![format!("{}/{}", part("addr"), part("len"))];
    }
    port_of_json(node).into_iter().collect()
}

fn port_of_json(node: &Node) -> Option<String> {
    match node.get("range").map(Node::items) {
        Some([first, last]) => Some(format!("{}-{}", first.text()?, last.text()?)),
        _ => node.text().map(str::to_owned),
    }
}
