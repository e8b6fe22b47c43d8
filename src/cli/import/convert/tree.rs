//! YAML, JSON and TOML as one tree with lines.
//!
//! Owns the bounds of what a file may hold: depth and size of the tree. Aliases of YAML share what
//! they stand for, so that a small file makes no large tree. Knows no kind of file.

use std::{collections::HashMap, rc::Rc};

use saphyr_parser::{Event, Parser, ScalarStyle};
use toml::de::{DeTable, DeValue};

/// How deep a tree may go.
const DEEPEST: usize = 64;

/// A value, and the line where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The line, from 1.
    pub(super) line: usize,
    /// What stands there.
    pub(super) tree: Tree,
    /// How deep it is.
    depth: usize,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Tree {
    /// A scalar, as text.
    Text(Rc<str>),
    /// A list.
    List(Rc<[Node]>),
    /// A table, in its order.
    Table(Rc<[(String, Node)]>),
}

impl Node {
    /// The value of a key; also of a merged table (`<<`).
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.merged(key, 0)
    }

    fn merged(&self, key: &str, depth: usize) -> Option<&Self> {
        /// How deep tables may be merged, and how many into one: each look takes time.
        const MOST: usize = 8;
        let Tree::Table(entries) = &self.tree else { return None };
        let of = |key: &str| entries.iter().find(|(known, _)| known == key).map(|(_, value)| value);
        of(key).or_else(|| {
            let merged = of("<<").filter(|_| depth < MOST / 2)?;
            match &merged.tree {
                Tree::List(list) => list.iter().take(MOST).find_map(|node| node.merged(key, depth + 1)),
                _ => merged.merged(key, depth + 1),
            }
        })
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        if let Tree::Text(text) = &self.tree { Some(text) } else { None }
    }

    /// The text below a key.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// The items of a list; none where it is not a list.
    pub(super) fn items(&self) -> &[Self] {
        if let Tree::List(items) = &self.tree { items } else { &[] }
    }

    /// The entries of a table; none where it is no table.
    pub(super) fn entries(&self) -> &[(String, Self)] {
        if let Tree::Table(entries) = &self.tree { entries } else { &[] }
    }
}

/// Reads YAML, of which JSON is a part: the first document.
///
/// # Errors
/// The line and what is wrong there.
pub(super) fn yaml(text: &str) -> Result<Node, (usize, String)> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (error.marker().line(), error.info().to_owned()))?;
        if let Some(root) = builder.take(event, span.start.line())? {
            return Ok(root);
        }
    }
    Err((1, "nothing is in it".to_owned()))
}

/// A list or a table that is not at its end.
struct Open {
    line: usize,
    anchor: usize,
    is_table: bool,
    key: Option<String>,
    items: Vec<Node>,
    entries: Vec<(String, Node)>,
}

/// The tree as far as it is read.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
}

impl Builder {
    /// Takes an event; the tree, at its end.
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<Option<Node>, (usize, String)> {
        let (node, anchor) = match event {
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                if self.open.len() >= DEEPEST {
                    return Err((line, format!("it is nested deeper than {DEEPEST}")));
                }
                let is_table = matches!(event, Event::MappingStart(..));
                let (items, entries) = (Vec::new(), Vec::new());
                self.open.push(Open { line, anchor, is_table, key: None, items, entries });
                return Ok(None);
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(done) = self.open.pop() else { return Ok(None) };
                let inner = done.items.iter().chain(done.entries.iter().map(|(_, node)| node));
                let depth = 1 + inner.map(|node| node.depth).max().unwrap_or(0);
                let tree = if done.is_table {
                    Tree::Table(done.entries.into())
                } else {
                    Tree::List(done.items.into())
                };
                (Node { line: done.line, tree, depth }, done.anchor)
            }
            Event::Scalar(text, style, anchor, _) => {
                let is_null = style == ScalarStyle::Plain && matches!(&*text, "~" | "null");
                let text: Rc<str> = if is_null { "".into() } else { (&*text).into() };
                (Node { line, tree: Tree::Text(text), depth: 0 }, anchor)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) if self.open.len() + node.depth <= DEEPEST => (node.clone(), 0),
                Some(_) => return Err((line, format!("it is nested deeper than {DEEPEST}"))),
                None => return Err((line, "an alias stands for nothing".to_owned())),
            },
            Event::DocumentEnd | Event::StreamEnd => return Err((line, "nothing is in it".to_owned())),
            _ => return Ok(None),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(self.put(node))
    }

    /// Puts a value where it belongs; gives back the root.
    fn put(&mut self, node: Node) -> Option<Node> {
        let Some(open) = self.open.last_mut() else { return Some(node) };
        if !open.is_table {
            open.items.push(node);
        } else if let Some(key) = open.key.take() {
            open.entries.push((key, node));
        } else {
            open.key = Some(node.text().unwrap_or_default().to_owned());
        }
        None
    }
}

/// Reads TOML.
///
/// # Errors
/// The line and what is wrong there.
pub(super) fn toml(text: &str) -> Result<Node, (usize, String)> {
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
    let line = |at: usize| ends.partition_point(|end| *end < at) + 1;
    match DeTable::parse(text) {
        Ok(table) => Ok(of_table(table.get_ref(), 1, &line, 0)),
        Err(error) => {
            let at = error.span().map_or(1, |span| line(span.start));
            Err((at, error.message().to_owned()))
        }
    }
}

fn of_table(table: &DeTable<'_>, at: usize, line: &dyn Fn(usize) -> usize, depth: usize) -> Node {
    if depth >= DEEPEST {
        return Node { line: at, tree: Tree::Text("".into()), depth };
    }
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
        let at = line(key.span().start);
        (key.get_ref().to_string(), of_value(value.get_ref(), at, line, depth + 1))
    };
    Node { line: at, tree: Tree::Table(entries.into_iter().map(entry).collect()), depth }
}

fn of_value(value: &DeValue<'_>, at: usize, line: &dyn Fn(usize) -> usize, depth: usize) -> Node {
    let text = |text: &str| Tree::Text(text.into());
    let tree = match value {
        DeValue::String(string) => text(string),
        DeValue::Integer(number) => text(&number.to_string()),
        DeValue::Float(number) => text(&number.to_string()),
        DeValue::Boolean(flag) => text(&flag.to_string()),
        DeValue::Datetime(time) => text(&time.to_string()),
        DeValue::Array(items) if depth < DEEPEST => Tree::List(
            items
                .iter()
                .map(|item| of_value(item.get_ref(), line(item.span().start), line, depth + 1))
                .collect(),
        ),
        DeValue::Array(_) => text(""),
        DeValue::Table(table) => return of_table(table, at, line, depth),
    };
    Node { line: at, tree, depth }
}
