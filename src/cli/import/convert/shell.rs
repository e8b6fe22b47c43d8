//! Command lines of a shell script, one after the other, with the variables that it sets itself.
//!
//! Owns as much of a shell as scripts with port forwards need: quotes, backslashes, comments,
//! redirections, the signs between commands, and variables whose value is in the file. Runs
//! nothing. What has no known value stays as it is written, with its `$`: the readers then say so.

use std::{collections::HashMap, iter::Peekable, str::Chars};

use super::model::{File, Place};

/// The longest value that is remembered: values may hold each other.
const LONGEST: usize = 256;
/// The most variables.
const MOST: usize = 1000;
/// How deep a default may hold a default.
const DEEPEST: usize = 8;

/// A command with its place.
pub(super) type Command = (Place, Vec<String>);

/// Variables and their values.
#[derive(Debug, Default)]
pub(super) struct Variables(HashMap<String, String>);

/// The commands of a script.
pub(super) fn commands(file: File<'_>) -> Vec<Command> {
    let mut variables = Variables::default();
    let mut all = Vec::new();
    for (place, line) in joined(file) {
        for words in variables.commands(&line) {
            if !variables.take(&words) {
                all.push((place, words));
            }
        }
    }
    all
}

/// The lines of a file, those that end in a backslash with the next one.
fn joined(file: File<'_>) -> Vec<(Place, String)> {
    let mut lines: Vec<(Place, String)> = Vec::new();
    let mut goes_on = false;
    for (place, line) in file.lines() {
        let (part, more) = match line.trim_end().strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match lines.last_mut().filter(|_| goes_on) {
            Some((_, whole)) => {
                whole.push(' ');
                whole.push_str(part.trim_start());
            }
            None => lines.push((place, part.to_owned())),
        }
        goes_on = more;
    }
    lines
}

impl Variables {
    /// Sets a variable.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if value.len() <= LONGEST && !value.contains(['$', '`']) && self.0.len() < MOST {
            self.0.insert(name.to_owned(), value.to_owned());
        } else {
            self.0.remove(name);
        }
    }

    /// Takes a command that only sets variables; says whether it is one.
    fn take(&mut self, words: &[String]) -> bool {
        let keyword = |word: &str| ["export", "readonly", "local", "declare", "typeset"].contains(&word);
        let start = usize::from(words.first().is_some_and(|word| keyword(word)));
        let words = words[start..].iter().filter(|word| start == 0 || !word.starts_with('-'));
        let pairs: Option<Vec<(&str, &str)>> = words.map(|word| assignment(word)).collect();
        let Some(pairs) = pairs.filter(|pairs| !pairs.is_empty()) else { return false };
        pairs.into_iter().for_each(|(name, value)| self.set(name, value));
        true
    }

    /// The commands of a line, each with its words.
    pub(super) fn commands(&self, line: &str) -> Vec<Vec<String>> {
        let mut reader =
            Reader { variables: self, chars: line.chars().peekable(), word: None, words: Vec::new() };
        reader.read()
    }
}

/// `NAME=VALUE`.
pub(super) fn assignment(word: &str) -> Option<(&str, &str)> {
    word.split_once('=').filter(|(name, _)| is_name(name))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A line that is read.
struct Reader<'v, 't> {
    variables: &'v Variables,
    chars: Peekable<Chars<'t>>,
    word: Option<String>,
    words: Vec<String>,
}

impl Reader<'_, '_> {
    fn read(&mut self) -> Vec<Vec<String>> {
        let mut commands = Vec::new();
        while let Some(c) = self.chars.next() {
            match c {
                '\'' => {
                    let word = self.word.get_or_insert_default();
                    word.extend(self.chars.by_ref().take_while(|c| *c != '\''));
                }
                '"' => self.quoted(),
                '\\' => {
                    let next = self.chars.next();
                    self.word.get_or_insert_default().extend(next);
                }
                '$' => self.variable(),
                '`' => self.copied('`'),
                '#' if self.word.is_none() => break,
                '>' | '<' => self.redirection(),
                '&' if self.chars.peek() == Some(&'>') => {
                    self.chars.next();
                    self.redirection();
                }
                ';' | '&' | '|' | '(' | ')' => {
                    self.words.extend(self.word.take());
                    commands.push(std::mem::take(&mut self.words));
                }
                c if c.is_whitespace() => self.words.extend(self.word.take()),
                c => self.word.get_or_insert_default().push(c),
            }
        }
        self.words.extend(self.word.take());
        commands.push(std::mem::take(&mut self.words));
        commands.retain(|words| !words.is_empty());
        commands
    }

    /// What stands between double quotes.
    fn quoted(&mut self) {
        self.word.get_or_insert_default();
        while let Some(c) = self.chars.next() {
            match c {
                '"' => return,
                '\\' => {
                    let next = self.chars.next();
                    let word = self.word.get_or_insert_default();
                    if !next.is_some_and(|c| "\"\\$`".contains(c)) {
                        word.push('\\');
                    }
                    word.extend(next);
                }
                '$' => self.variable(),
                c => self.word.get_or_insert_default().push(c),
            }
        }
    }

    /// What follows a `$`.
    fn variable(&mut self) {
        match self.chars.peek() {
            Some('{') => {
                self.chars.next();
                let inside = self.inside('{', '}');
                let value = self.value(&inside, 0);
                self.word.get_or_insert_default().push_str(&value);
            }
            // The output of a command is not known.
            Some('(') => {
                self.chars.next();
                let inside = self.inside('(', ')');
                self.word.get_or_insert_default().push_str(&format!("$({inside})"));
            }
            _ => {
                let mut name = String::new();
                while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
                let value = self.variables.0.get(&name).cloned().unwrap_or_else(|| format!("${name}"));
                self.word.get_or_insert_default().push_str(&value);
            }
        }
    }

    /// The value of `NAME`, `NAME-DEFAULT` or `NAME:-DEFAULT`, or the text as it is written.
    fn value(&self, inside: &str, depth: usize) -> String {
        let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
        let (name, rest) = inside.split_at(end);
        let default = rest.strip_prefix(":-").or_else(|| rest.strip_prefix('-'));
        match (self.variables.0.get(name), default) {
            (Some(value), Some(_)) => value.clone(),
            (Some(value), None) if rest.is_empty() => value.clone(),
            (None, Some(default)) => match default.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'))
            {
                Some(inner) if depth < DEEPEST => self.value(inner, depth + 1),
                _ => default.to_owned(),
            },
            _ => format!("${{{inside}}}"),
        }
    }

    /// What stands before a closing sign, which is taken, too.
    fn inside(&mut self, open: char, close: char) -> String {
        let (mut inside, mut depth) = (String::new(), 1_usize);
        for c in self.chars.by_ref() {
            if c == open {
                depth += 1;
            } else if c == close {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            inside.push(c);
        }
        inside
    }

    /// Copies up to a sign, with both of them.
    fn copied(&mut self, sign: char) {
        let inside: String = self.chars.by_ref().take_while(|c| *c != sign).collect();
        self.word.get_or_insert_default().push_str(&format!("{sign}{inside}{sign}"));
    }

    /// Leaves out a redirection: the number before it, and the file behind it.
    fn redirection(&mut self) {
        let number = self.word.take();
        self.words.extend(number.filter(|word| !word.chars().all(|c| c.is_ascii_digit())));
        while self.chars.next_if(|c| "><&|-".contains(*c)).is_some() {}
        while self.chars.next_if(|c| c.is_whitespace()).is_some() {}
        while let Some(c) = self.chars.next_if(|c| !c.is_whitespace() && !";&|()".contains(*c)) {
            match c {
                '\'' | '"' => drop(self.chars.by_ref().find(|other| *other == c)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let file = File { number: 0, name: "x.sh", text };
        commands(file)
            .into_iter()
            .map(|(place, words)| format!("{} {}", place.line, words.join("|")))
            .collect()
    }

    #[test]
    fn commands_end_at_their_signs_and_redirections_are_left_out() {
        let text =
            "a b;c 'd e' >/dev/null 2>&1 &\nf && g \"h;\\\" i\" >> \"x y\" | j &> k l # m\nn \\\n  o <<EOF";
        assert_eq!(read(text), ["1 a|b", "1 c|d e", "2 f", "2 g|h;\" i", "2 j|l", "3 n|o"]);
    }

    #[test]
    fn variables_of_the_file_have_their_values_and_others_stay() {
        let text = "export A=1 B='x y'\nC=$A$B\nD=${E:-7}\nrun $A ${B} ${C} ${F:-${G:-8}} ${H} $I $(date +%s) '$A' \"$A\"\n\
                    A=$H\nrun $A $1";
        assert_eq!(read(text), ["4 run|1|x y|1x y|8|${H}|$I|$(date +%s)|$A|1", "6 run|$A|$1"]);
        assert_eq!(read("run $D"), ["1 run|$D"]);
    }

    #[test]
    fn values_that_hold_each_other_stay_short() {
        let mut text = "A=xxxxxxxxxxxxxxxx\n".to_owned();
        text.push_str(&"A=$A$A\n".repeat(60));
        text.push_str("run $A");
        assert!(read(&text).concat().len() < 1000);
    }
}
