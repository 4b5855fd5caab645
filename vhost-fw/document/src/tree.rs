//! Text to a tree of values, each with its line.
//!
//! Knows YAML, without what makes its meaning depend on another place (anchors, aliases, tags, merge keys). Never
//! knows which keys a file has.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, StrInput};

use crate::problems::Problems;

/// Deepest nesting; rules files need five levels.
const DEPTH_MAX: usize = 16;

/// Most values of one file: a million bound set members take three each.
const VALUES_MAX: usize = 6_000_000;

/// A value and the line it starts on, counted from 1.
#[derive(Debug)]
pub struct Node<'t> {
    /// The line.
    pub line: usize,
    /// The value.
    pub value: Value<'t>,
}

/// What a value is.
#[derive(Debug)]
pub enum Value<'t> {
    /// Left out, or `null`.
    Nothing,
    /// Written without quotes: may be read as a number or a truth value.
    Plain(Cow<'t, str>),
    /// Written with quotes: always text.
    Quoted(Cow<'t, str>),
    /// A list.
    List(Vec<Node<'t>>),
    /// A mapping, in the order it is written.
    Map(Vec<Entry<'t>>),
}

/// One `key: value` of a mapping.
#[derive(Debug)]
pub struct Entry<'t> {
    /// The line of its key.
    pub line: usize,
    /// The key.
    pub key: Cow<'t, str>,
    /// The value.
    pub value: Node<'t>,
}

impl fmt::Display for Node<'_> {
    /// As "found …" names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::Nothing => f.write_str("nothing"),
            Value::Plain(text) => write!(f, "`{}`", Shown(text)),
            Value::Quoted(text) => write!(f, "the text \"{}\"", Shown(text)),
            Value::List(_) => f.write_str("a list"),
            Value::Map(_) => f.write_str("a mapping"),
        }
    }
}

/// Letters of foreign text a message shows.
const SHOWN_MAX: usize = 200;

/// Foreign text as a message shows it: one short printable line.
pub struct Shown<'a>(
    /// The text.
    pub &'a str,
);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars().take(SHOWN_MAX) {
            if letter.is_control() {
                write!(f, "{}", letter.escape_default())?
            } else {
                write!(f, "{letter}")?
            }
        }
        if self.0.chars().nth(SHOWN_MAX).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

/// Reads the one document of `text`. Duplicate keys go to `problems`; a text that cannot be read any further leaves
/// its problem there and gives `None`.
pub fn read<'t>(text: &'t str, problems: &mut Problems) -> Option<Node<'t>> {
    read_documents(text, Documents::One, problems)?.into_iter().next()
}

/// As [`read`], for a text of several documents between lines of `---`; empty ones are left out.
pub fn read_all<'t>(text: &'t str, problems: &mut Problems) -> Option<Vec<Node<'t>>> {
    read_documents(text, Documents::Several, problems)
}

/// How many documents a text may have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Documents {
    One,
    Several,
}

fn read_documents<'t>(text: &'t str, may: Documents, problems: &mut Problems) -> Option<Vec<Node<'t>>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut growing = Growing::default();
    match grow(&mut parser, may, &mut growing, problems) {
        Ok(()) if growing.roots.is_empty() => {
            problems.add(1, "the file is empty; expected a mapping");
        }
        Ok(()) => return Some(growing.roots),
        Err(stop) => problems.add(stop.line, stop.message),
    }
    None
}

/// Why reading stopped.
struct Stop {
    line: usize,
    message: String,
}

impl From<ScanError> for Stop {
    fn from(error: ScanError) -> Self {
        Self { line: error.marker().line(), message: format!("not YAML: {}", error.info()) }
    }
}

fn stop<T>(line: usize, message: impl Into<String>) -> Result<T, Stop> {
    Err(Stop { line, message: message.into() })
}

/// A collection that is not closed yet.
enum Open<'t> {
    List { line: usize, items: Vec<Node<'t>> },
    Map { line: usize, entries: Vec<Entry<'t>>, key: Option<(Cow<'t, str>, usize)> },
}

#[derive(Default)]
struct Growing<'t> {
    roots: Vec<Node<'t>>,
    open: Vec<Open<'t>>,
    values: usize,
    documents: usize,
}

fn grow<'t>(
    parser: &mut Parser<'t, StrInput<'t>>,
    may: Documents,
    growing: &mut Growing<'t>,
    problems: &mut Problems,
) -> Result<(), Stop> {
    while let Some(event) = parser.next_event() {
        let (event, span) = event?;
        let line = span.start.line();
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(..) => {
                growing.documents += 1;
                if growing.documents > 1 && may == Documents::One {
                    return stop(line, "a second document starts here; expected one per file");
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) | Event::Anchor(..) => return refuse_alias(line),
            Event::Scalar(text, style, anchor, tag) => {
                plain_node(line, anchor, tag.is_some())?;
                growing.add(Node { line, value: scalar(text, style) })?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                plain_node(line, anchor, tag.is_some())?;
                growing.start(Open::List { line, items: Vec::new() }, line)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                plain_node(line, anchor, tag.is_some())?;
                growing.start(Open::Map { line, entries: Vec::new(), key: None }, line)?;
            }
            Event::SequenceEnd | Event::MappingEnd => growing.end(problems)?,
            Event::StreamStart | Event::DocumentEnd => {}
            _ => return stop(line, "this kind of YAML is not supported"),
        }
    }
    Ok(())
}

fn refuse_alias<T>(line: usize) -> Result<T, Stop> {
    stop(line, "anchors and aliases are not supported; write the value out")
}

fn plain_node(line: usize, anchor: usize, tagged: bool) -> Result<(), Stop> {
    if anchor != 0 {
        return refuse_alias(line);
    }
    if tagged { stop(line, "tags are not supported; write the plain value") } else { Ok(()) }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Value<'_> {
    match style {
        ScalarStyle::Plain if matches!(&*text, "" | "~" | "null" | "Null" | "NULL") => Value::Nothing,
        ScalarStyle::Plain => Value::Plain(text),
        ScalarStyle::SingleQuoted
        | ScalarStyle::DoubleQuoted
        | ScalarStyle::Literal
        | ScalarStyle::Folded => Value::Quoted(text),
    }
}

impl<'t> Growing<'t> {
    fn start(&mut self, open: Open<'t>, line: usize) -> Result<(), Stop> {
        if self.open.len() >= DEPTH_MAX {
            return stop(line, format!("nested deeper than {DEPTH_MAX} levels"));
        }
        if let Some(Open::Map { key: None, .. }) = self.open.last() {
            return stop(line, "expected a name before the colon, found a list or mapping");
        }
        self.open.push(open);
        Ok(())
    }

    fn end(&mut self, problems: &mut Problems) -> Result<(), Stop> {
        match self.open.pop() {
            Some(Open::List { line, items }) => self.add(Node { line, value: Value::List(items) }),
            Some(Open::Map { line, entries, .. }) => {
                report_duplicates(&entries, problems);
                self.add(Node { line, value: Value::Map(entries) })
            }
            None => Ok(()),
        }
    }

    fn add(&mut self, node: Node<'t>) -> Result<(), Stop> {
        self.values += 1;
        if self.values > VALUES_MAX {
            return stop(node.line, format!("more than {VALUES_MAX} values"));
        }
        match self.open.last_mut() {
            None if self.documents > 1 && matches!(node.value, Value::Nothing) => {}
            None => self.roots.push(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match (key.take(), node.value) {
                (Some((key, line)), value) => {
                    entries.push(Entry { line, key, value: Node { line: node.line, value } });
                }
                (None, Value::Plain(text) | Value::Quoted(text)) => *key = Some((text, node.line)),
                (None, _) => return stop(node.line, "expected a name before the colon"),
            },
        }
        Ok(())
    }
}

fn report_duplicates(entries: &[Entry<'_>], problems: &mut Problems) {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(entries.len());
    for entry in entries {
        if let Some(first) = seen.insert(&entry.key, entry.line) {
            problems
                .add(entry.line, format!("`{}` stands here twice; first on line {first}", Shown(&entry.key)));
        }
    }
}
