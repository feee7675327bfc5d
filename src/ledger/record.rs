//! The detail of a usage record: what the sidecar knows of a call and the store carries without reading it.
//!
//! The proxy writes it at the edge; the ledger reads it when the entry arrives. It may have travelled through another
//! version or a broken process, so reading it never fails: what cannot be read is recorded as just that (invariant 5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::money::{MAX_AMOUNT, Nanos};
use crate::quota::{Cut, Detail, EndedEntry, MAX_DETAIL_BYTES};

/// The longest text of one field.
const MAX_TEXT_BYTES: usize = 256;
/// The longest name or value of a tag: a call may have many.
const MAX_TAG_BYTES: usize = 128;
/// The most tags of one call.
const MAX_TAGS: usize = 16;
/// How deep the provider's usage may be nested: far more than any, far less than what exhausts a parser's stack.
const MAX_DEPTH: usize = 32;

/// What a usage record says beside who, how and how much.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordDetail {
    /// The route's prefix.
    pub route: String,
    /// Whose prices.
    pub provider: String,
    /// The model that answered, or was asked for.
    pub model: String,
    /// All input, cache reads and writes included.
    pub input_tokens: i64,
    /// All output, reasoning included.
    pub output_tokens: i64,
    /// Part of the input.
    pub cache_read_tokens: i64,
    /// Part of the input.
    pub cache_write_tokens: i64,
    /// Before markup, in nanos of a credit.
    #[serde(rename = "cost_nanos")]
    pub cost: Nanos,
    /// Which price it was charged by.
    pub price_id: Option<i64>,
    /// Which key called.
    pub api_key_id: Option<Uuid>,
    /// Which user, as the caller says.
    pub user_ref: Option<String>,
    /// Which project, as the caller says.
    pub project_ref: Option<String>,
    /// Tags, as the caller says.
    pub tags: BTreeMap<String, String>,
    /// All that the provider reported, as it came.
    pub usage: Option<Box<RawValue>>,
    /// Whatever else there is to say, such as why a usage had to be counted here.
    pub properties: Map<String, Value>,
}

/// The numbers of a detail, which a correction records as differences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// All input.
    pub input_tokens: i64,
    /// All output.
    pub output_tokens: i64,
    /// Input read from a cache.
    pub cache_read_tokens: i64,
    /// Input written to a cache.
    pub cache_write_tokens: i64,
    /// Before markup.
    pub cost: Nanos,
}

impl RecordDetail {
    /// The text that the store carries: clean, and never longer than [`MAX_DETAIL_BYTES`]. What does not fit is left
    /// out, and the properties say so.
    pub fn to_detail(mut self) -> Detail {
        self.clean();
        let mut text = self.to_json();
        if text.len() > MAX_DETAIL_BYTES {
            if let Some(usage) = self.usage.take() {
                self.note("usage_left_out_bytes", json!(usage.get().len()));
            }
            text = self.to_json();
        }
        if text.len() > MAX_DETAIL_BYTES {
            self.properties = Map::new();
            self.note("properties_left_out_bytes", json!(text.len()));
            text = self.to_json();
        }
        text.into()
    }

    /// Reads what the store carried, whatever it is.
    pub fn read(detail: &str) -> Self {
        let unreadable = |why: String| {
            let mut read = Self::default();
            read.note("detail_unreadable", json!(why));
            read.note("detail_bytes", json!(detail.len()));
            read
        };
        match serde_json::from_str::<Self>(detail) {
            // The parser's own words would quote the text, which may be anything.
            Err(error) => unreadable(format!(
                "{:?} error at column {}",
                error.classify(),
                error.column()
            )),
            Ok(read) if !read.numbers().are_bounded() => {
                unreadable("a number is out of bounds".to_owned())
            }
            Ok(mut read) => {
                read.clean();
                read
            }
        }
    }

    /// Reads the detail of an ending, and notes what the store could not take of it.
    // holds: 5, never silent
    pub fn of(ended: &EndedEntry) -> Self {
        let mut detail = Self::read(&ended.detail);
        if !ended.cut.is_nothing() {
            let Cut { charge, counts } = &ended.cut;
            let counts = counts.iter();
            let counts = counts.map(|count| (count.key.to_string(), json!(count.amount)));
            let counts: Map<String, Value> = counts.collect();
            let cut = json!({"charge_nanos": charge, "counts": counts});
            tracing::error!(id = %ended.id, %cut, "more was used than a balance can hold: see to the upstream");
            detail.note("cut", cut);
        }
        detail
    }

    /// Its numbers.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cache_read_tokens: self.cache_read_tokens,
            cache_write_tokens: self.cache_write_tokens,
            cost: self.cost,
        }
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a detail has string keys only")
    }

    fn note(&mut self, name: &str, value: Value) {
        self.properties.insert(name.to_owned(), value);
    }

    /// Makes every text one that any ledger can keep: bounded, and without control characters (NUL breaks a text
    /// column, and jsonb).
    fn clean(&mut self) {
        let of_user = [&mut self.user_ref, &mut self.project_ref];
        let of_user = of_user.into_iter().filter_map(Option::as_mut);
        for text in [&mut self.route, &mut self.provider, &mut self.model]
            .into_iter()
            .chain(of_user)
        {
            if !is_clean(text) {
                *text = clean_text(text);
            }
        }
        if self.tags.len() > MAX_TAGS {
            let left_out = self.tags.len() - MAX_TAGS;
            self.note("tags_left_out", json!(left_out));
        }
        let tags = std::mem::take(&mut self.tags);
        self.tags = tags
            .iter()
            .take(MAX_TAGS)
            .map(|(name, value)| {
                (
                    clean_to(name, MAX_TAG_BYTES),
                    clean_to(value, MAX_TAG_BYTES),
                )
            })
            .collect();
        self.properties = clean_members(&self.properties);
        if let Some(usage) = self.usage.take_if(|usage| depth(usage.get()) > MAX_DEPTH) {
            self.note("usage_too_deep_bytes", json!(usage.get().len()));
        }
    }
}

impl Numbers {
    /// What these are more than `others`.
    #[must_use]
    pub fn less(self, others: Self) -> Self {
        // Each is bounded by MAX_AMOUNT, so a difference cannot overflow.
        Self {
            input_tokens: self.input_tokens - others.input_tokens,
            output_tokens: self.output_tokens - others.output_tokens,
            cache_read_tokens: self.cache_read_tokens - others.cache_read_tokens,
            cache_write_tokens: self.cache_write_tokens - others.cache_write_tokens,
            cost: self.cost - others.cost,
        }
    }

    fn are_bounded(self) -> bool {
        [
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cost.0,
        ]
        .iter()
        .all(|number| (0..=MAX_AMOUNT).contains(number))
    }
}

/// As nearly all are, and then nothing is made anew.
fn is_clean(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control)
}

fn clean_text(text: &str) -> String {
    clean_to(text, MAX_TEXT_BYTES)
}

fn clean_to(text: &str, max_bytes: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(max_bytes));
    for char in text.chars() {
        let char = if char.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            char
        };
        if clean.len() + char.len_utf8() > max_bytes {
            break;
        }
        clean.push(char);
    }
    clean
}

fn clean_members(members: &Map<String, Value>) -> Map<String, Value> {
    members
        .iter()
        .map(|(name, value)| (clean_text(name), clean_value(value)))
        .collect()
}

fn clean_value(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean_text(text)),
        Value::Array(items) => items.iter().map(clean_value).collect(),
        Value::Object(members) => Value::Object(clean_members(members)),
        plain => plain.clone(),
    }
}

/// How deep JSON is nested. It was parsed before, so brackets outside of strings are balanced.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_reads_back_as_written() {
        let detail = RecordDetail {
            route: "/openai".into(),
            model: "gpt-4o-mini".into(),
            input_tokens: 12,
            cost: Nanos(34),
            api_key_id: Some(Uuid::nil()),
            tags: BTreeMap::from([("team".into(), "red".into())]),
            usage: Some(RawValue::from_string(r#"{"a":1e2,"b":"\u0000"}"#.into()).unwrap()),
            ..RecordDetail::default()
        };
        let read = RecordDetail::read(&detail.clone().to_detail());
        assert_eq!(read.to_json(), detail.to_json());
        assert_eq!(
            read.usage.unwrap().get(),
            r#"{"a":1e2,"b":"\u0000"}"#,
            "the usage is kept to the letter"
        );
    }

    #[test]
    fn what_cannot_be_read_is_recorded_as_that() {
        for detail in [
            "",
            "no json",
            "[1]",
            r#"{"input_tokens":-1}"#,
            r#"{"cost_nanos":1.5}"#,
        ] {
            let read = RecordDetail::read(detail);
            assert!(
                read.properties.contains_key("detail_unreadable"),
                "{detail}"
            );
            assert_eq!(read.numbers(), Numbers::default());
        }
        let secret = RecordDetail::read(r#"{"route":["sk-secret"]}"#);
        assert!(!secret.to_json().contains("sk-secret"));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_said_so() {
        let usage = format!("\"{}\"", "x".repeat(MAX_DETAIL_BYTES));
        let text = RecordDetail {
            usage: Some(RawValue::from_string(usage).unwrap()),
            ..RecordDetail::default()
        }
        .to_detail();
        assert!(text.len() <= MAX_DETAIL_BYTES);
        assert!(
            RecordDetail::read(&text)
                .properties
                .contains_key("usage_left_out_bytes")
        );

        let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let read = RecordDetail::read(&format!(r#"{{"usage":{deep}}}"#));
        assert!(read.usage.is_none());
        assert!(read.properties.contains_key("usage_too_deep_bytes"));
    }

    #[test]
    fn no_control_character_reaches_the_ledger() {
        let read = RecordDetail::read(
            r#"{"model":"a\u0000b","tags":{"\n":"\u0007"},"properties":{"x":["\u0000"]}}"#,
        );
        assert_eq!(read.model, "a\u{fffd}b");
        assert!(!read.to_json().contains("\\u0000"));
        assert_eq!(clean_text(&"é".repeat(200)).len(), MAX_TEXT_BYTES);
    }

    /// The worst case of every bounded field still fits.
    #[test]
    fn a_full_detail_fits_without_usage_and_properties() {
        let long = "\"".repeat(MAX_TEXT_BYTES);
        let text = RecordDetail {
            route: long.clone(),
            provider: long.clone(),
            model: long.clone(),
            user_ref: Some(long.clone()),
            project_ref: Some(long.clone()),
            tags: (10..40)
                .map(|n| (format!("{n}{long}"), long.clone()))
                .collect(),
            ..RecordDetail::default()
        }
        .to_detail();
        assert!(text.len() <= MAX_DETAIL_BYTES, "{}", text.len());
    }
}
