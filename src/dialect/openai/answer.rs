//! A whole answer: its top-level `model` and `usage`, found in one pass over any number of bytes in bounded memory.
//!
//! An answer with embeddings may have tens of megabytes and says its usage at the end; nothing else of it is looked at.

use memchr::memchr2;
use serde_json::value::RawValue;

use super::read_usage;
use crate::dialect::Usage;

/// The longest value that is kept.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// The longest name that is told apart.
const MAX_NAME_BYTES: usize = 16;

/// Reads an answer as it goes by.
#[derive(Debug, Default)]
pub struct AnswerReader {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// At the top level: a name is being read, or comes next.
    at_name: bool,
    name: Vec<u8>,
    /// The value that is being kept, if it is one of the two.
    keeping: Option<Field>,
    model: Vec<u8>,
    usage: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Usage,
}

impl AnswerReader {
    /// Reads the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some((&byte, after)) = rest.split_first() {
            if self.in_text && !self.escaped && self.keeping.is_none() && !self.at_name {
                // Most of an answer is text or numbers deep inside.
                let skipped = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                rest = &rest[skipped..];
                if skipped > 0 {
                    continue;
                }
            }
            self.step(byte);
            rest = after;
        }
    }

    fn step(&mut self, byte: u8) {
        let ends_value = !self.in_text && self.depth == 1 && matches!(byte, b',' | b'}');
        if ends_value {
            self.keeping = None;
            self.at_name = byte == b',';
        }
        self.keep(byte);
        if self.in_text {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_text = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => {
                self.depth += 1;
                self.at_name |= self.depth == 1 && byte == b'{';
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b':' if self.depth == 1 && self.at_name => {
                self.at_name = false;
                self.keeping = match self.name.as_slice() {
                    b"\"model\"" => Some(Field::Model),
                    b"\"usage\"" => Some(Field::Usage),
                    _ => None,
                };
                self.name.clear();
                // Of a value that stands twice, the last one counts, as in every reader of JSON.
                if let Some(field) = self.keeping {
                    self.value(field).clear();
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, byte: u8) {
        if let Some(field) = self.keeping {
            let value = self.value(field);
            // One byte more than allowed says that it is too long.
            if value.len() <= MAX_VALUE_BYTES {
                value.push(byte);
            }
        } else if self.at_name
            && self.depth == 1
            && !matches!(byte, b',' | b' ' | b'\n' | b'\r' | b'\t' | b':')
            && self.name.len() <= MAX_NAME_BYTES
        {
            self.name.push(byte);
        }
    }

    fn value(&mut self, field: Field) -> &mut Vec<u8> {
        match field {
            Field::Model => &mut self.model,
            Field::Usage => &mut self.usage,
        }
    }

    /// The model that answered.
    pub fn model(&self) -> Option<String> {
        serde_json::from_slice(&self.model).ok()
    }

    /// What was used, as read and as it came.
    pub fn usage(&self) -> Option<(Usage, Box<RawValue>)> {
        if self.usage.len() > MAX_VALUE_BYTES {
            return None;
        }
        let raw: Box<RawValue> = serde_json::from_slice(&self.usage).ok()?;
        Some((read_usage(&raw)?, raw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#" {"id":"a\"b{","model" : "gpt-4o-mini-2024" ,"choices":[{"usage":{"prompt_tokens":9},"message":{"content":"}],\"usage\":{"}}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}} } "#;

    #[test]
    fn only_the_top_level_counts_however_the_answer_is_cut() {
        for cut in 0..ANSWER.len() {
            let mut reader = AnswerReader::default();
            reader.push(&ANSWER.as_bytes()[..cut]);
            reader.push(&ANSWER.as_bytes()[cut..]);
            assert_eq!(reader.model().as_deref(), Some("gpt-4o-mini-2024"), "{cut}");
            let (usage, raw) = reader.usage().expect("there is a usage");
            assert_eq!(
                (
                    usage.input_tokens,
                    usage.output_tokens,
                    usage.cache_read_tokens
                ),
                (12, 3, 4)
            );
            assert!(raw.get().starts_with(r#"{"prompt_tokens": 12"#));
        }
    }

    #[test]
    fn what_is_no_answer_says_nothing() {
        for text in [
            "",
            "[]",
            "null",
            r#"{"usage":null}"#,
            r#"{"usage":{"#,
            "}}}}",
            r#"{"model":1}"#,
        ] {
            let mut reader = AnswerReader::default();
            reader.push(text.as_bytes());
            assert!(
                reader.usage().is_none() && reader.model().is_none(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_reported_zero_is_a_zero() {
        let mut reader = AnswerReader::default();
        reader.push(br#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#);
        assert_eq!(
            reader.usage().expect("there is a usage").0,
            Usage::default()
        );
    }
}
