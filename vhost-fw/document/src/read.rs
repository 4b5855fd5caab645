//! One value of a mapping, checked: the right kind, in range, a known word.
//!
//! Knows how to say what was expected and what was found. Never knows what a value is for.

use std::fmt::Display;
use std::str::FromStr;

use crate::problems::Problems;
use crate::tree::{Entry, Node, Shown, Value};

/// A mapping whose keys are all known.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'n, 't> {
    /// The line it starts on.
    pub line: usize,
    what: &'static str,
    entries: &'n [Entry<'t>],
}

impl<'n, 't> Fields<'n, 't> {
    /// The mapping `node`, called `what` in messages; `None` if it is none. Unknown keys are problems.
    pub fn read(
        node: &'n Node<'t>,
        what: &'static str,
        known: &[&'static str],
        problems: &mut Problems,
    ) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            problems
                .add(node.line, format!("{what}: expected a mapping with {}, found {node}", listed(known)));
            return None;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let nearest = suggestion(&entry.key, known);
            let key = Shown(&entry.key);
            problems.add(entry.line, format!("unknown key `{key}`{nearest} ({what} has {})", listed(known)));
        }
        Some(Self { line: node.line, what, entries })
    }

    /// The value of `key`, if it is written.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// As [`Self::get`], and a problem if it is not there.
    pub fn need(&self, key: &str, problems: &mut Problems) -> Option<&'n Node<'t>> {
        let found = self.get(key);
        if found.is_none() {
            problems.add(self.line, format!("{} needs `{key}`", self.what));
        }
        found
    }
}

/// The items of a list.
pub fn list<'n, 't>(
    node: &'n Node<'t>,
    key: &str,
    example: &str,
    problems: &mut Problems,
) -> Option<&'n [Node<'t>]> {
    let Value::List(items) = &node.value else {
        problems.add(node.line, format!("`{key}`: expected a list such as {example}, found {node}"));
        return None;
    };
    Some(items)
}

/// The items of a list that must not be empty, because an absent one means any.
pub fn some_list<'n, 't>(
    node: &'n Node<'t>,
    key: &str,
    example: &str,
    problems: &mut Problems,
) -> Option<&'n [Node<'t>]> {
    let items = list(node, key, example, problems)?;
    if items.is_empty() {
        problems.add(node.line, format!("`{key}`: an empty list matches nobody; leave it out for any"));
        return None;
    }
    Some(items)
}

/// One of these words.
pub fn word<T: Clone>(node: &Node<'_>, key: &str, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
    let text = text(node);
    let found = text.and_then(|text| words.iter().find(|(word, _)| *word == text));
    if found.is_none() {
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let nearest = text.map(|text| suggestion(text, &names)).unwrap_or_default();
        problems.add(node.line, format!("`{key}`: expected {}, found {node}{nearest}", listed_or(&names)));
    }
    found.map(|(_, value)| value.clone())
}

/// `true` or `false`.
pub fn boolean(node: &Node<'_>, key: &str, problems: &mut Problems) -> Option<bool> {
    match &node.value {
        Value::Plain(text) if text == "true" => return Some(true),
        Value::Plain(text) if text == "false" => return Some(false),
        Value::Nothing | Value::Plain(_) | Value::Quoted(_) | Value::List(_) | Value::Map(_) => {}
    }
    problems.add(node.line, format!("`{key}`: expected true or false, found {node}"));
    None
}

/// A whole number from `min` to `max`, written in digits alone.
pub fn number<T>(node: &Node<'_>, key: &str, min: T, max: T, problems: &mut Problems) -> Option<T>
where
    T: Copy + Ord + Display + TryFrom<u64>,
{
    let found = match &node.value {
        Value::Plain(text) => digits(text).and_then(|number| T::try_from(number).ok()),
        Value::Nothing | Value::Quoted(_) | Value::List(_) | Value::Map(_) => None,
    };
    let found = found.filter(|number| (min..=max).contains(number));
    if found.is_none() {
        problems.add(node.line, format!("`{key}`: expected a number from {min} to {max}, found {node}"));
    }
    found
}

/// A decimal number without sign, and without leading zeros, which older YAML reads as octal.
pub fn digits(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Text of a form whose own error says what is wrong.
pub fn parsed<T>(node: &Node<'_>, key: &str, expected: &str, problems: &mut Problems) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    let Some(text) = text(node) else {
        problems.add(node.line, format!("`{key}`: expected {expected}, found {node}"));
        return None;
    };
    text.parse()
        .map_err(|error| problems.add(node.line, format!("`{key}`: {}", Shown(&format!("{error}")))))
        .ok()
}

/// A scalar's text, quoted or not; `null` is none.
pub fn text<'n>(node: &'n Node<'_>) -> Option<&'n str> {
    match &node.value {
        Value::Plain(text) | Value::Quoted(text) => Some(text),
        Value::Nothing | Value::List(_) | Value::Map(_) => None,
    }
}

/// "; did you mean `x`?" where a known name is near enough.
pub fn suggestion(found: &str, known: &[&str]) -> String {
    let near = |name: &&&str| strsim::damerau_levenshtein(found, name) <= (found.len() / 3).max(1);
    let distance = |name: &&&str| strsim::damerau_levenshtein(found, name);
    // Measuring takes the length squared for every name: not worth it for long or very many names.
    let worth = found.len() <= 64 && known.len() <= 1000;
    let nearest = if worth { known.iter().filter(near).min_by_key(distance) } else { None };
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn listed(names: &[&str]) -> String {
    names.join(", ")
}

fn listed_or(names: &[&str]) -> String {
    match names {
        [start @ .., last] if !start.is_empty() => format!("{} or {last}", start.join(", ")),
        _ => names.join(""),
    }
}
