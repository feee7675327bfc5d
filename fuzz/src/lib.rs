//! What holds for every input, however hostile: one function a reader of what others write.
//!
//! The fuzz targets and the tests both call these, so that a find of the one becomes a file that the other always runs.

use std::path::Path;

use bytes::Bytes;
use rust_decimal::Decimal;
use serde_json::Value;
use tollgate::catalog::{Catalog, Plan};
use tollgate::config::{Config, Environment};
use tollgate::dialect::openai::{self, AnswerReader, Call, Metered, StreamReader};
use tollgate::dialect::{Answered, Fate, MAX_TOKENS, SseScanner, count_output};
use tollgate::money::MAX_AMOUNT;
use tollgate::price::{PriceEntry, charge};

/// What stands for a secret, in the environment and in the corpus: no error may show it.
pub const SECRET: &str = "canary-0f-the-fuzzer";
/// The variable that has it.
pub const SECRET_VARIABLE: &str = "FUZZ_SECRET";
/// The most output that a request may ask for, a prediction not counted.
const MOST_OUTPUT: i64 = 10_000_000;
const PRICE: &str = "[[price]]\nprovider = \"p\"\nmodel = \"m\"\ninput = \"2\"\noutput = \"8\"\n";

/// A stream is read as the same events, and passes as the same bytes, however it is cut.
pub fn sse(input: &[u8]) {
    let whole = [input];
    let single: Vec<&[u8]> = input.chunks(1).collect();
    let pieces = uneven(input);
    for may_withhold in [false, true] {
        let scanned = scan(&whole, may_withhold);
        assert_eq!(scanned, scan(&single, may_withhold), "a byte at a time");
        assert_eq!(scanned, scan(&pieces, may_withhold), "in pieces");
        assert_eq!(scanned.1, input, "what nobody withholds passes whole");

        let read = stream(&whole, may_withhold);
        assert_eq!(read, stream(&single, may_withhold), "a byte at a time");
        assert_eq!(read, stream(&pieces, may_withhold), "in pieces");
        let (answered, out) = read;
        within_bounds(&answered);
        assert!(out.len() <= input.len(), "nothing is added");
        assert!(may_withhold || out == input, "it passes whole");
    }
}

/// The data of all events, and the bytes that went on.
fn scan(pieces: &[&[u8]], may_withhold: bool) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut scanner = SseScanner::new(may_withhold);
    let (mut events, mut out) = (Vec::new(), Vec::new());
    let mut read = |data: &[u8]| {
        events.push(data.to_vec());
        Fate::Pass
    };
    for piece in pieces {
        scanner.push(&Bytes::copy_from_slice(piece), &mut read, &mut out);
    }
    scanner.finish(&mut read, &mut out);
    (events, out.concat())
}

fn stream(pieces: &[&[u8]], hide_usage: bool) -> (Answered, Vec<u8>) {
    let call = Call {
        hide_usage_event: hide_usage,
        ..chat(r#"{"model":"gpt-4o-mini","messages":[],"stream":true}"#)
    };
    let (mut reader, mut out) = (StreamReader::new(&call), Vec::new());
    for piece in pieces {
        reader.push(&Bytes::copy_from_slice(piece), &mut out);
    }
    reader.finish(&mut out);
    (reader.answered().clone(), out.concat())
}

fn chat(body: &str) -> Call {
    let call = openai::parse(Metered::Chat, &Bytes::copy_from_slice(body.as_bytes()));
    call.expect("a chat")
}

/// The usage of an answer is the same however it is cut, within bounds, and so is what it costs.
pub fn usage(input: &[u8]) {
    for endpoint in [Metered::Chat, Metered::Embeddings] {
        let answer = |pieces: &[&[u8]]| {
            let mut reader = AnswerReader::new(endpoint);
            for piece in pieces {
                reader.push(piece);
            }
            reader.answered()
        };
        let answered = answer(&[input]);
        let single: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(answered, answer(&single), "a byte at a time");
        assert_eq!(answered, answer(&uneven(input)), "in pieces");
        within_bounds(&answered);
    }
}

fn within_bounds(answered: &Answered) {
    assert!(answered.output_seen >= 0, "{answered:?}");
    let Some(usage) = answered.usage else {
        return;
    };
    let counts = [
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.input_audio_tokens,
        usage.output_audio_tokens,
        usage.cache_audio_read_tokens,
    ];
    let bounds = 0..=MAX_TOKENS;
    assert!(
        counts.iter().all(|count| bounds.contains(count)),
        "{usage:?}"
    );
    names_its_counts(answered.usage_json.as_deref().expect("what was reported"));
    let price = Catalog::parse(PRICE).expect("a price").prices.remove(0);
    let cost = price.rates.cost(&usage).expect("every part has a rate");
    assert!(cost >= Decimal::ZERO, "{usage:?} costs {cost}");
    if let Some(charge) = charge(cost, Decimal::ONE, Decimal::from(20)) {
        let bounds = 0..=MAX_AMOUNT;
        assert!(bounds.contains(&charge.charge.0), "{usage:?}: {charge:?}");
        assert!(charge.cost <= charge.charge, "{usage:?}: {charge:?}");
    }
}

/// What a list would mean by its order is nobody's to guess.
fn names_its_counts(report: &str) {
    // What is not read may be what no value can be.
    let Ok(report) = serde_json::from_str::<Value>(report) else {
        return;
    };
    assert!(report.is_object(), "{report}");
    for details in ["prompt_tokens_details", "completion_tokens_details"] {
        let details = &report[details];
        assert!(details.is_object() || details.is_null(), "{report}");
    }
}

/// A request is refused without a word of it, or estimated at no less than its texts have tokens.
pub fn estimate(input: &[u8]) {
    for endpoint in [Metered::Chat, Metered::Embeddings] {
        match openai::parse(endpoint, &Bytes::copy_from_slice(input)) {
            Ok(call) => estimated(&call, input),
            Err(error) => shows_no_secret(&error.message, input),
        }
    }
}

fn estimated(call: &Call, input: &[u8]) {
    let estimate = call.estimate;
    assert!((1..=128).contains(&estimate.choices), "{estimate:?}");
    if let Some(output) = estimate.output_tokens {
        let predicted = i64::try_from(4 * input.len()).expect("a small input");
        let bounds = i64::from(estimate.has_output)..=MOST_OUTPUT + predicted;
        assert!(bounds.contains(&output), "{estimate:?}");
    }
    // What is only counted may be what no value can be: half a surrogate pair, a number beyond all floats.
    let Ok(asked) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    // Another maker's tokens are bounded by another count than ours.
    if call.model.starts_with("gpt-") {
        let texts = |content: &Value| match content {
            Value::String(text) => vec![text.clone()],
            Value::Array(parts) => {
                let texts = parts
                    .iter()
                    .filter_map(|part| part.get("text").unwrap_or(part).as_str());
                texts.map(str::to_owned).collect()
            }
            _ => Vec::new(),
        };
        let said: Vec<String> = match call.endpoint {
            Metered::Chat => {
                let messages = asked["messages"].as_array().expect("messages");
                messages
                    .iter()
                    .flat_map(|message| texts(&message["content"]))
                    .collect()
            }
            Metered::Embeddings => texts(&asked["input"]),
        };
        let counts = said.iter().map(|text| count_output(&call.model, text));
        let tokens: i64 = counts.sum();
        assert!(
            estimate.input_tokens >= tokens,
            "{estimate:?} for {tokens} tokens"
        );
    }
    let forwarded: Value = serde_json::from_slice(&call.body).expect("what goes on is JSON");
    let without_options = |mut body: Value| {
        let body = body.as_object_mut().expect("an object");
        body.remove("stream_options");
        body.clone()
    };
    let usage_asked_for = forwarded["stream_options"]["include_usage"] == Value::Bool(true);
    assert!(!call.stream || usage_asked_for, "a stream says its usage");
    assert_eq!(
        without_options(forwarded),
        without_options(asked),
        "nothing else changes"
    );
}

/// A configuration is usable, or an error names the key or the line and shows no secret.
pub fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let environment: Environment = [(SECRET_VARIABLE, SECRET)].into_iter().collect();
    let Err(error) = Config::parse(Path::new("fuzz.toml"), text, &environment) else {
        return;
    };
    assert!(error.key.is_some() || error.line.is_some(), "{error}");
    // Written out in the text it may have become anything, a key for one.
    assert!(
        text.contains(SECRET) || !error.to_string().contains(SECRET),
        "{error}"
    );
}

/// A catalogue is refused at a line of it, or comes back from the ledger as it was written.
pub fn catalog(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match Catalog::parse(text) {
        Ok(catalog) => {
            for plan in &catalog.plans {
                let kept = serde_json::to_value(plan).expect("a plan is JSON");
                let read: Plan = serde_json::from_value(kept.clone()).expect("it is read back");
                assert_eq!(*plan, read, "{kept}");
                assert_eq!(serde_json::to_value(read).expect("JSON"), kept);
            }
            for price in &catalog.prices {
                let kept = serde_json::to_value(price).expect("a price is JSON");
                let read: PriceEntry =
                    serde_json::from_value(kept.clone()).expect("it is read back");
                assert_eq!(*price, read, "{kept}");
                assert_eq!(serde_json::to_value(read).expect("JSON"), kept);
            }
            assert!(catalog.markup_percent >= Decimal::ZERO, "{catalog:?}");
        }
        Err(error) => {
            let lines = 1 + text.bytes().filter(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&error.line), "{error}");
            assert!(
                !error.key.is_empty() && !error.problem.is_empty(),
                "{error}"
            );
        }
    }
}

#[track_caller]
fn shows_no_secret(message: &str, input: &[u8]) {
    let secret = SECRET.as_bytes();
    let has_it = input.windows(secret.len()).any(|window| window == secret);
    assert!(!has_it || !message.contains(SECRET), "{message}");
}

/// The input in pieces of lengths that it decides itself.
fn uneven(mut input: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    while let Some(first) = input.first() {
        // FNV-1a.
        state = (state ^ u64::from(*first)).wrapping_mul(0x0100_0000_01b3);
        let length = usize::try_from(state >> 59).expect("five bits");
        let (piece, rest) = input.split_at(length.min(input.len()));
        pieces.push(piece);
        input = rest;
    }
    pieces
}
