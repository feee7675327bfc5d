//! What real providers returned, read and priced as genai-prices reads and prices it, to the last digit.
//!
//! The bodies and the expected numbers are those of the library whose price catalogue is shipped.

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::macros::datetime;
use tollgate::clock::UnixMs;
use tollgate::dialect::Usage;
use tollgate::dialect::openai::{AnswerReader, Metered};
use tollgate::price::{MissingPart, PriceBook, seed};

const ROWS: &str = include_str!("data/usages.jsonl");

#[derive(Deserialize)]
struct Row {
    body: Box<RawValue>,
    model: Option<String>,
    extracted: Vec<Extracted>,
}

#[derive(Deserialize)]
struct Extracted {
    /// Parts that the shipped catalogue has no rates for are left out: they are counted with what they are part of.
    usage: Usage,
    extractors: Vec<Extractor>,
}

#[derive(Deserialize)]
struct Extractor {
    provider_id: String,
    api_flavor: String,
    input_price: Option<Decimal>,
    output_price: Option<Decimal>,
}

fn rows() -> impl Iterator<Item = Row> {
    ROWS.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// The bodies are priced by a catalogue a little newer than the one that is shipped: it has rates for generated images,
/// one provider and one model more.
fn is_beyond_the_shipped_catalogue(provider: &str, model: &str) -> bool {
    match (provider, model) {
        ("google", model) => model.contains("-image"),
        ("aws", model) => model == "openai.gpt-5.6-luna",
        (provider, _) => provider == "zai",
    }
}

#[test]
fn every_call_costs_what_genai_prices_says() {
    // Within the hours and before the date of the conditional prices that the expected numbers are made from.
    let at = UnixMs::from(datetime!(2026-07-15 12:00 UTC));
    let book = PriceBook::new(seed()).unwrap();
    let (mut same, mut unsold, mut unpriced, mut beyond) = (0, 0, 0, 0);
    for row in rows() {
        let Some(model) = &row.model else { continue };
        for extracted in &row.extracted {
            let usage = extracted.usage;
            for extractor in &extracted.extractors {
                let provider = &extractor.provider_id;
                let entry = book.find(provider, model, at);
                let (Some(input), Some(output)) = (extractor.input_price, extractor.output_price)
                else {
                    assert!(entry.is_none(), "{provider} does not sell {model}");
                    unsold += 1;
                    continue;
                };
                let parts = entry.map(|entry| entry.rates.parts(&usage));
                match parts {
                    Some(Ok(cost)) if (cost.input, cost.output) == (input, output) => same += 1,
                    Some(Err(MissingPart::Input)) if input.is_zero() => unpriced += 1,
                    Some(Err(MissingPart::Output)) if output.is_zero() => unpriced += 1,
                    _ if is_beyond_the_shipped_catalogue(provider, model) => beyond += 1,
                    other => {
                        panic!("{provider} {model} {usage:?}: {other:?}, not {input} + {output}")
                    }
                }
            }
        }
    }
    assert_eq!((same, unsold, unpriced, beyond), (1722, 7643, 1, 8));
}

#[test]
fn what_openai_reported_is_read_as_genai_prices_reads_it() {
    let (mut chats, mut embeddings) = (0, 0);
    for row in rows() {
        for extracted in &row.extracted {
            for extractor in extracted
                .extractors
                .iter()
                .filter(|e| e.provider_id == "openai")
            {
                let endpoint = match extractor.api_flavor.as_str() {
                    "chat" => Metered::Chat,
                    "embeddings" => Metered::Embeddings,
                    _ => continue,
                };
                let mut reader = AnswerReader::new(endpoint);
                let body = row.body.get().as_bytes();
                body.chunks(7).for_each(|chunk| reader.push(chunk));
                let answered = reader.answered();
                assert_eq!(answered.usage, Some(extracted.usage), "{}", row.body);
                assert_eq!(answered.model, row.model);
                match endpoint {
                    Metered::Chat => chats += 1,
                    Metered::Embeddings => embeddings += 1,
                }
            }
        }
    }
    assert_eq!((chats, embeddings), (200, 202));
}
