//! What others write, read as it should never be written: the committed corpus of `fuzz/`, and bounded chance around it.
//!
//! It is the same list of properties that the fuzz targets have, so it runs wherever tests run. `TOLLGATE_FUZZ_ROUNDS`
//! makes it longer, and `TOLLGATE_TEST_SEED` repeats it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::seed::seed;

#[path = "../fuzz/src/lib.rs"]
mod properties;

/// Mutations of each file of the corpus.
const ROUNDS: u32 = 300;
/// The most changes that make one mutation.
const CHANGES: u32 = 6;
/// The longest mutation.
const LONGEST_BYTES: usize = 8 * 1024;
/// What means something in one of the formats.
const WORDS: [&[u8]; 24] = [
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\n\n",
    b"data: ",
    b":",
    b",",
    b"-1",
    b"null",
    b"9223372036854775807",
    b"1e999",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"${FUZZ_SECRET}",
    b"=",
    b"\"usage\":",
    b"'''",
];

/// Every file of a corpus, with its name.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let files = std::fs::read_dir(folder).expect("a corpus");
    let files = files.map(|file| {
        let path = file.expect("a file").path();
        let bytes = std::fs::read(&path).expect("it can be read");
        (path.display().to_string(), bytes)
    });
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(files.len() >= 4, "{name}: {} files", files.len());
    files
}

/// Changes an input in one place; `others` is what else there is to take from.
fn change(input: &mut Vec<u8>, others: &[(String, Vec<u8>)], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    let end = rng.random_range(at..=input.len().min(at + 40));
    let word = match rng.random_range(0..7) {
        0 => vec![rng.random()],
        1 => Vec::new(),
        2 => input[at..end].repeat(rng.random_range(1..6)),
        3 => {
            let (_, other) = &others[rng.random_range(0..others.len())];
            let from = rng.random_range(0..=other.len());
            other[from..rng.random_range(from..=other.len())].to_vec()
        }
        4 => {
            let bytes = input[at..end].iter();
            bytes
                .map(|byte| byte ^ (1 << rng.random_range(0..8)))
                .collect()
        }
        _ => WORDS[rng.random_range(0..WORDS.len())].to_vec(),
    };
    let replaced = if rng.random() { at } else { end };
    input.splice(at..replaced, word);
    input.truncate(LONGEST_BYTES);
}

/// Runs a property on a corpus, and on what chance makes of it.
fn run(name: &str, property: fn(&[u8])) {
    let rounds = std::env::var("TOLLGATE_FUZZ_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS);
    let corpus = corpus(name);
    let mut rng = StdRng::seed_from_u64(seed());
    let check = |what: &str, input: &[u8]| {
        let checked = catch_unwind(AssertUnwindSafe(|| property(input)));
        let shown = input.escape_ascii();
        assert!(checked.is_ok(), "from {what}: {shown}");
    };
    for (file, input) in &corpus {
        check(file, input);
        for _ in 0..rounds {
            let mut input = input.clone();
            for _ in 0..rng.random_range(1..=CHANGES) {
                change(&mut input, &corpus, &mut rng);
            }
            check(file, &input);
        }
    }
}

#[test]
fn a_stream_is_read_the_same_however_it_is_cut() {
    run("sse", properties::sse);
}

#[test]
fn a_usage_is_within_bounds_or_none() {
    run("usage", properties::usage);
}

#[test]
fn an_estimate_is_never_below_what_a_request_says() {
    run("estimate", properties::estimate);
}

#[test]
fn a_configuration_is_usable_or_says_where_not_and_shows_no_secret() {
    run("config", properties::config);
}

#[test]
fn a_catalogue_comes_back_as_it_was_written() {
    run("catalog", properties::catalog);
}
