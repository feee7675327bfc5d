//! Counting tokens with the tables that OpenAI publishes.
//!
//! The tables take some 70 MiB and a moment to unpack: they are unpacked at first use, or beforehand by [`warm`].

use bpe_openai::{Tokenizer, cl100k_base, o200k_base};

/// Which table a model's text is cut up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// GPT-3.5, GPT-4 and the embedding models.
    Cl100k,
    /// GPT-4o and everything since; for models of other makers it is a good guess.
    O200k,
}

/// How names of models begin that still use the older table.
const CL100K: [&str; 4] = ["gpt-3.5", "gpt-35", "text-embedding-", "davinci-002"];

impl Encoding {
    /// The table of a model.
    pub fn of(model: &str) -> Self {
        let old_gpt4 = model == "gpt-4" || ["gpt-4-", "gpt-4:"].iter().any(|m| model.starts_with(m));
        if old_gpt4 || CL100K.iter().any(|name| model.starts_with(name)) {
            Self::Cl100k
        } else {
            Self::O200k
        }
    }

    /// How many tokens a text is.
    pub fn count(self, text: &str) -> i64 {
        i64::try_from(self.table().count(text)).unwrap_or(i64::MAX)
    }

    /// The same, given up where it is more than `limit`: a hostile text costs no more time than an allowed one.
    pub fn count_up_to(self, text: &str, limit: i64) -> Option<i64> {
        let limit = usize::try_from(limit).ok()?;
        let table = self.table();
        let count = table.count_till_limit(&table.normalize(text), limit)?;
        i64::try_from(count).ok()
    }

    fn table(self) -> &'static Tokenizer {
        match self {
            Self::Cl100k => cl100k_base(),
            Self::O200k => o200k_base(),
        }
    }
}

/// Unpacks the tables, so that no call has to wait for it.
pub fn warm() {
    for encoding in [Encoding::Cl100k, Encoding::O200k] {
        encoding.count("warm");
    }
}
