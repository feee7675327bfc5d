//! Match rules made ready: compiled once, because every call asks them.
//!
//! As in genai-prices, names and literals are compared in lower case; a regular expression sees the lower-cased name.

use regex::Regex;

use super::ModelMatch;

/// A [`ModelMatch`] with its literals in lower case and its regular expressions compiled.
#[derive(Debug)]
pub(super) enum Matcher {
    Equals(String),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Regex(Regex),
    Or(Vec<Matcher>),
    And(Vec<Matcher>),
}

impl Matcher {
    pub(super) fn new(rule: &ModelMatch) -> Result<Self, regex::Error> {
        let all = |rules: &[ModelMatch]| rules.iter().map(Self::new).collect::<Result<Vec<_>, _>>();
        Ok(match rule {
            ModelMatch::Equals(text) => Self::Equals(text.to_lowercase()),
            ModelMatch::StartsWith(text) => Self::StartsWith(text.to_lowercase()),
            ModelMatch::EndsWith(text) => Self::EndsWith(text.to_lowercase()),
            ModelMatch::Contains(text) => Self::Contains(text.to_lowercase()),
            ModelMatch::Regex(pattern) => Self::Regex(Regex::new(pattern)?),
            ModelMatch::Or(rules) => Self::Or(all(rules)?),
            ModelMatch::And(rules) => Self::And(all(rules)?),
        })
    }

    /// Whether a name, already in lower case, is meant.
    pub(super) fn is_match(&self, name: &str) -> bool {
        match self {
            Self::Equals(text) => name == text,
            Self::StartsWith(text) => name.starts_with(text),
            Self::EndsWith(text) => name.ends_with(text),
            Self::Contains(text) => name.contains(text),
            Self::Regex(pattern) => pattern.is_match(name),
            Self::Or(rules) => rules.iter().any(|rule| rule.is_match(name)),
            Self::And(rules) => rules.iter().all(|rule| rule.is_match(name)),
        }
    }

    /// Names it matches by themselves, for an index.
    pub(super) fn exact_names<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Equals(text) => names.push(text),
            Self::Or(rules) => rules.iter().for_each(|rule| rule.exact_names(names)),
            _ => {}
        }
    }

    /// Whether it may match anything beyond its [`exact_names`](Self::exact_names).
    pub(super) fn is_pattern(&self) -> bool {
        match self {
            Self::Equals(_) => false,
            Self::Or(rules) => rules.iter().any(Self::is_pattern),
            _ => true,
        }
    }
}
