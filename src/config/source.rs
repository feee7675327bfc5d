//! What the user typed, in the file and in the environment, as one tree that knows where each value comes from.
//!
//! `${NAME}` and `TOLLGATE__SECTION__KEY` are resolved here, so that nothing after it has to ask the environment.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::error::{ConfigError, Problem};

const OVERRIDE: &str = "TOLLGATE__";

/// Environment variables, by name.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// This process's. Variables that are not Unicode are left out: they count as not set.
    pub fn of_process() -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(unicode).collect())
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let owned = |(name, value): (N, V)| (name.into(), value.into());
        Self(variables.into_iter().map(owned).collect())
    }
}

/// Where a value was set.
enum Origin {
    Line(usize),
    Variable(String),
}

/// A configuration as it was typed.
pub(super) struct Source<'a> {
    file: &'a Path,
    text: &'a str,
    environment: &'a Environment,
    /// By path, as in `route[0].prefix`.
    origins: BTreeMap<String, Origin>,
    root: Table,
}

impl<'a> Source<'a> {
    pub(super) fn read(
        file: &'a Path,
        text: &'a str,
        environment: &'a Environment,
    ) -> Result<Self, ConfigError> {
        let mut source = Self {
            file,
            text,
            environment,
            origins: BTreeMap::new(),
            root: Table::new(),
        };
        let tree = DeTable::parse(text).map_err(|error| ConfigError {
            file: Some(file.to_owned()),
            line: error.span().map(|span| source.line(&span)),
            variable: None,
            key: None,
            message: error.message().to_owned(),
        })?;
        source.root = source
            .table("", tree.into_inner())
            .map_err(|problem| source.place(problem))?;
        source.overlay().map_err(|problem| source.place(problem))?;
        Ok(source)
    }

    /// Reads the tree into its type; the values of unusable settings are not shown.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        serde_path_to_error::deserialize(Value::Table(self.root.clone())).map_err(|error| {
            let key = error.path().to_string();
            let message = without_value(error.inner().message());
            self.place(Problem { key, message })
        })
    }

    /// Says where a problem's key was set; where it was not, where the section around it was.
    pub(super) fn place(&self, problem: Problem) -> ConfigError {
        let (line, variable) = match self.origin(&problem.key) {
            Some(Origin::Line(line)) => (Some(*line), None),
            Some(Origin::Variable(name)) => (None, Some(name.clone())),
            None => (None, None),
        };
        ConfigError {
            file: Some(self.file.to_owned()),
            line,
            variable,
            key: Some(problem.key),
            message: problem.message,
        }
    }

    fn origin(&self, key: &str) -> Option<&Origin> {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return Some(origin);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        1 + memchr::memchr_iter(b'\n', before).count()
    }

    fn table(&mut self, path: &str, tree: DeTable<'_>) -> Result<Table, Problem> {
        let mut table = Table::new();
        for (key, value) in tree {
            let path = join(path, key.get_ref());
            let line = self.line(&key.span());
            self.origins.insert(path.clone(), Origin::Line(line));
            let value = self.value(&path, value)?;
            table.insert(key.into_inner().into_owned(), value);
        }
        Ok(table)
    }

    fn array(&mut self, path: &str, items: DeArray<'_>) -> Result<Value, Problem> {
        let item = |(index, item): (usize, Spanned<DeValue<'_>>)| {
            let path = format!("{path}[{index}]");
            let line = self.line(&item.span());
            self.origins.insert(path.clone(), Origin::Line(line));
            self.value(&path, item)
        };
        let items: Result<Vec<Value>, Problem> = items.into_iter().enumerate().map(item).collect();
        items.map(Value::Array)
    }

    fn value(&mut self, path: &str, value: Spanned<DeValue<'_>>) -> Result<Value, Problem> {
        Ok(match value.into_inner() {
            DeValue::String(text) => {
                let text = self.interpolate(&text);
                Value::String(text.map_err(|message| Problem::new(path, message))?)
            }
            DeValue::Integer(number) => Value::Integer(
                integer(&number).ok_or_else(|| Problem::new(path, "the number is too large"))?,
            ),
            // Kept as text, which no setting takes for a number: money and floats do not meet.
            DeValue::Float(number) => {
                let message = format!("write fractions in quotes: \"{}\"", number.as_str());
                return Err(Problem::new(path, message));
            }
            DeValue::Boolean(truth) => Value::Boolean(truth),
            DeValue::Datetime(moment) => Value::Datetime(moment),
            DeValue::Array(items) => self.array(path, items)?,
            DeValue::Table(table) => Value::Table(self.table(path, table)?),
        })
    }

    /// Replaces each `${NAME}`; `$${` stands for a literal `${`.
    fn interpolate(&self, text: &str) -> Result<String, String> {
        let mut whole = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                whole.push_str(before);
                whole.push_str("${");
                rest = &from[2..];
                continue;
            }
            let end = from.find('}').ok_or("`${` without `}`")?;
            let name = &from[2..end];
            let value = self.environment.0.get(name);
            whole.push_str(before);
            whole.push_str(
                value.ok_or_else(|| format!("the environment variable `{name}` is not set"))?,
            );
            rest = &from[end + 1..];
        }
        whole.push_str(rest);
        Ok(whole)
    }

    /// Lays `TOLLGATE__SECTION__KEY` over the file. The values are taken as text, whatever is in them.
    fn overlay(&mut self) -> Result<(), Problem> {
        let environment = self.environment;
        let mut overrides: Vec<(Vec<Step>, &String, &String)> = environment
            .0
            .iter()
            .filter_map(|(name, value)| {
                let steps = name.strip_prefix(OVERRIDE)?.split("__").map(Step::from);
                Some((steps.collect(), name, value))
            })
            .collect();
        // By number where there is one, so that the second route comes before the eleventh.
        overrides.sort();
        for (steps, name, value) in overrides {
            let mut path = String::new();
            let mut root = Value::Table(std::mem::take(&mut self.root));
            let mut place = &mut root;
            for step in &steps {
                path = step.path(&path);
                // Whatever is missing in what it makes, this variable is what brought it in.
                let origin = || Origin::Variable(name.clone());
                self.origins.entry(path.clone()).or_insert_with(origin);
                place = match step.enter(place) {
                    Ok(entered) => entered,
                    Err(message) => {
                        self.origins.insert(path.clone(), origin());
                        return Err(Problem { key: path, message });
                    }
                };
            }
            *place = Value::String(value.clone());
            self.origins.insert(path, Origin::Variable(name.clone()));
            if let Value::Table(table) = root {
                self.root = table;
            }
        }
        Ok(())
    }
}

/// One part of an override's name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Index(usize),
    Key(String),
}

impl From<&str> for Step {
    fn from(text: &str) -> Self {
        match text.parse() {
            Ok(index) => Self::Index(index),
            Err(_) => Self::Key(text.to_ascii_lowercase()),
        }
    }
}

impl Step {
    fn path(&self, parent: &str) -> String {
        match self {
            Self::Index(index) => format!("{parent}[{index}]"),
            Self::Key(key) => join(parent, key),
        }
    }

    /// Goes one step down, making what is not there yet.
    fn enter<'v>(&self, place: &'v mut Value) -> Result<&'v mut Value, String> {
        // What has just been made is an empty text until the next step says what it holds.
        let empty = matches!(place, Value::String(text) if text.is_empty());
        match self {
            Self::Index(index) => {
                if empty {
                    *place = Value::Array(Vec::new());
                }
                let items = place.as_array_mut().ok_or("this setting is not a list")?;
                if *index > items.len() {
                    let next = items.len();
                    return Err(format!(
                        "the list has {next} entries, so the next is {next}"
                    ));
                }
                if *index == items.len() {
                    items.push(Value::String(String::new()));
                }
                Ok(&mut items[*index])
            }
            Self::Key(key) => {
                if empty {
                    *place = Value::Table(Table::new());
                }
                let table = place
                    .as_table_mut()
                    .ok_or("this setting is not a section")?;
                let fresh = || Value::String(String::new());
                Ok(table.entry(key.clone()).or_insert_with(fresh))
            }
        }
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() {
        key.to_owned()
    } else {
        format!("{parent}.{key}")
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Cuts the value out of serde's messages and leaves what was expected in its place.
// holds: 9, blind
fn without_value(message: &str) -> String {
    let shows_it = ["invalid type:", "invalid value:", "unknown variant"];
    if !shows_it.iter().any(|start| message.starts_with(start)) {
        return message.to_owned();
    }
    let expected = message.rsplit_once(", expected ").map(|(_, what)| what);
    format!("expected {}", expected.unwrap_or("something else"))
}
