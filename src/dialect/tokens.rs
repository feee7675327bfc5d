//! Counting tokens: exactly for OpenAI's vocabularies, as an upper bound for all others.
//!
//! The tables take 100 MiB and tens of milliseconds to load, so they are loaded at first use, or by [`warm`].

use std::borrow::Cow;

use bpe_openai::{Tokenizer, cl100k_base, o200k_base};

use super::json::{self, Value};

/// The text of one request that is tokenised at the most; what is beyond counts a token a byte, which no vocabulary
/// exceeds. Half a million tokens fit, and hostile bodies cannot buy more work.
pub(super) const MAX_TOKENISED_BYTES: usize = 2 * 1024 * 1024;

/// How deep JSON is taken apart; what is deeper counts by its length.
const MAX_DEPTH: usize = 16;

/// What a name or a value inside of JSON costs beside its text, however a provider writes it into its prompt: also one
/// that has no text, since a list of a million nulls is a long prompt too.
const PIECE_TOKENS: i64 = 3;

/// Loads the tables, so that no call waits for them.
pub fn warm() {
    for tokenizer in [o200k_base(), cl100k_base()] {
        tokenizer.count("warm");
    }
}

/// Counts output that no provider counted, the way its model would, or as near as the tables come.
///
/// Unlike an estimate this is no bound: it is charged.
pub fn count_output(model: &str, text: &str) -> i64 {
    let mut counter = Counter::new(Vocabulary::nearest(model));
    counter.text(text);
    counter.tokens()
}

/// Whose vocabulary counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vocabulary {
    O200k,
    Cl100k,
    /// Another maker's. Twice what cl100k needs is taken to be enough, and a token a byte always is. But cl100k has
    /// tokens for whole lines of spaces or dashes that others lack: four bytes a token is the least that counts.
    Unknown,
}

/// Families of models by the beginnings of their names, the first that fits.
const FAMILIES: [(&str, Vocabulary); 14] = [
    ("gpt-4o", Vocabulary::O200k),
    ("gpt-4.", Vocabulary::O200k),
    ("gpt-4", Vocabulary::Cl100k),
    ("gpt-3", Vocabulary::Cl100k),
    ("gpt-", Vocabulary::O200k),
    ("chatgpt-", Vocabulary::O200k),
    ("codex-", Vocabulary::O200k),
    ("o1", Vocabulary::O200k),
    ("o3", Vocabulary::O200k),
    ("o4", Vocabulary::O200k),
    ("text-embedding-3", Vocabulary::Cl100k),
    ("text-embedding-ada", Vocabulary::Cl100k),
    ("text-davinci", Vocabulary::Cl100k),
    ("davinci-002", Vocabulary::Cl100k),
];

/// How the names of fine-tuned models begin.
const FINE_TUNED: &str = "ft:";

/// A model's family name, in lower case: without the vendor before it, and without the mark of a fine-tuned one.
pub(super) fn base_name(model: &str) -> Cow<'_, str> {
    let own = model.rsplit('/').next().unwrap_or(model);
    let own = match own.get(..FINE_TUNED.len()) {
        Some(mark) if mark.eq_ignore_ascii_case(FINE_TUNED) => &own[FINE_TUNED.len()..],
        _ => own,
    };
    if own.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(own.to_ascii_lowercase())
    } else {
        Cow::Borrowed(own)
    }
}

impl Vocabulary {
    pub(super) fn of(model: &str) -> Self {
        let name = base_name(model);
        let family = FAMILIES.iter().find(|(start, _)| name.starts_with(start));
        family.map_or(Self::Unknown, |(_, vocabulary)| *vocabulary)
    }

    /// The table that comes nearest where no bound is wanted: another maker's model is counted by the newest.
    pub(super) fn nearest(model: &str) -> Self {
        match Self::of(model) {
            Self::Unknown => Self::O200k,
            known => known,
        }
    }

    fn count(self, text: &str) -> usize {
        let tokenizer = |tokenizer: &Tokenizer| tokenizer.count(text);
        match self {
            Self::O200k => tokenizer(o200k_base()),
            Self::Cl100k => tokenizer(cl100k_base()),
            Self::Unknown => {
                (2 * tokenizer(cl100k_base())).clamp(text.len().div_ceil(4), text.len())
            }
        }
    }
}

/// Counts the parts of one request or answer; never less than the model will.
#[derive(Debug)]
pub(super) struct Counter {
    vocabulary: Vocabulary,
    bytes_left: usize,
    tokens: i64,
}

impl Counter {
    pub(super) fn new(vocabulary: Vocabulary) -> Self {
        Self {
            vocabulary,
            bytes_left: MAX_TOKENISED_BYTES,
            tokens: 0,
        }
    }

    /// What has been counted.
    pub(super) fn tokens(&self) -> i64 {
        self.tokens
    }

    /// Adds so many tokens.
    pub(super) fn add(&mut self, tokens: i64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Adds a token for each byte of something that is not understood.
    pub(super) fn bytes(&mut self, text: &str) {
        self.add(i64::try_from(text.len()).unwrap_or(i64::MAX));
    }

    /// Adds the tokens of a text.
    pub(super) fn text(&mut self, text: &str) {
        let mut cut = text.len().min(self.bytes_left);
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let (tokenised, rest) = text.split_at(cut);
        self.bytes_left -= cut;
        let count = self.vocabulary.count(tokenised);
        self.add(i64::try_from(count).unwrap_or(i64::MAX));
        self.bytes(rest);
    }

    /// Adds what a JSON value comes to when a provider writes it into its prompt, in whatever notation: every name and
    /// every string in it, with room for what stands between them.
    pub(super) fn json(&mut self, text: &str) {
        self.json_within(text, MAX_DEPTH);
    }

    fn json_within(&mut self, text: &str, depth: usize) {
        let Some(deeper) = depth.checked_sub(1) else {
            return self.bytes(text);
        };
        self.add(PIECE_TOKENS);
        match json::value(text) {
            Ok(Value::Null) => {}
            Ok(Value::Text(piece)) => self.text(&piece),
            Ok(Value::Array(elements)) => {
                for element in elements {
                    self.json_within(element.get(), deeper);
                }
            }
            Ok(Value::Object(members)) => {
                for (name, value) in members {
                    self.text(&name);
                    self.add(PIECE_TOKENS);
                    self.json_within(value.get(), deeper);
                }
            }
            Ok(Value::Scalar) | Err(_) => self.bytes(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn models_are_counted_in_their_own_vocabulary() {
        for (model, vocabulary) in [
            ("gpt-4o-mini-2024-07-18", Vocabulary::O200k),
            ("openai/gpt-4.1-nano", Vocabulary::O200k),
            ("ft:GPT-4o:acme::x", Vocabulary::O200k),
            ("gpt-5.4", Vocabulary::O200k),
            ("gpt-oss-120b", Vocabulary::O200k),
            ("o3-mini", Vocabulary::O200k),
            ("gpt-4-turbo", Vocabulary::Cl100k),
            ("gpt-35-turbo", Vocabulary::Cl100k),
            ("text-embedding-3-small", Vocabulary::Cl100k),
            ("mistral-large", Vocabulary::Unknown),
        ] {
            assert_eq!(Vocabulary::of(model), vocabulary, "{model}");
        }
        // The counts of OpenAI's cookbook, so that the two tables cannot be swapped.
        assert!(Vocabulary::Unknown.count(&" ".repeat(8_000)) >= 2_000);
        let text = "お誕生日おめでとう";
        assert_eq!(Vocabulary::O200k.count(text), 8);
        assert_eq!(Vocabulary::Cl100k.count(text), 9);
    }

    #[test]
    fn what_is_beyond_the_cap_counts_a_token_a_byte() {
        let mut counter = Counter::new(Vocabulary::O200k);
        let long = "word ".repeat(MAX_TOKENISED_BYTES / 5 + 100);
        counter.text(&long);
        let beyond = long.len() - MAX_TOKENISED_BYTES;
        let capped = usize::try_from(counter.tokens()).unwrap();
        assert!(capped >= beyond && capped < long.len(), "{capped}");
        counter.text("é");
        assert_eq!(usize::try_from(counter.tokens()).unwrap(), capped + 2);
    }

    #[test]
    fn json_without_texts_counts_no_less_than_it_is_written() {
        for value in ["null", "[]", "{}", "[[], {}]", "true", "0"] {
            let json = format!("[{value}{}]", format!(", {value}").repeat(50));
            let mut counter = Counter::new(Vocabulary::O200k);
            counter.json(&json);
            let written = Vocabulary::O200k.count(&json);
            assert!(
                counter.tokens() >= i64::try_from(written).unwrap(),
                "{value}"
            );
        }
    }

    proptest! {
        #[test]
        fn json_counts_no_less_than_its_texts(text in ".{0,40}", name in "p_[a-z_]{1,12}") {
            let json = serde_json::json!({ "type": "object", &name: [text, { "enum": ["a", "b"] }], "n": 12 });
            let mut counter = Counter::new(Vocabulary::O200k);
            counter.json(&json.to_string());
            let written = format!("type = {name}?: {text}\n\"a\" | \"b\", 12");
            prop_assert!(counter.tokens() >= i64::try_from(Vocabulary::O200k.count(&written)).unwrap());
        }

        #[test]
        fn hostile_json_never_panics(text in r#"[\[\]{}",:a0\\ é]{0,60}"#) {
            let mut counter = Counter::new(Vocabulary::Unknown);
            counter.json(&text);
        }
    }
}
