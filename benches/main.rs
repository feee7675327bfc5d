//! Every benchmark: one binary, so that it is linked once, and a file a subject.
//!
//! `cargo bench` runs the small ones, `cargo bench -- NAME…` those that are named, `scripts/bench` all of them. What is
//! measured and how is in `docs/BENCHMARKS.md`.
#![expect(
    clippy::float_arithmetic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures are measured, and no money"
)]

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use self::report::Report;

#[path = "../tests/harness/mod.rs"]
#[expect(dead_code, reason = "the tests use all of it, the benchmarks a part")]
mod harness;

mod claims;
mod concurrency;
mod embedded;
mod flush;
mod hot_path;
mod load;
mod monitor;
mod nginx;
mod process;
mod proxy;
mod report;
mod scale;
mod setting;
mod stream;

/// It counts; the sidecars that are measured are processes of their own, with their own allocator.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How much time the measurements get.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// A smoke run: everything happens, and no figure means much.
    pub quick: bool,
}

impl Effort {
    pub fn of<T>(self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Bench = fn(&mut Report, Effort);

/// The small ones need no nginx.
const SMALL: [(&str, Bench); 4] = [
    ("hot_path", hot_path::run),
    ("concurrency", concurrency::run),
    ("scale", scale::run),
    ("flush", flush::run),
];
const LARGE: [(&str, Bench); 3] = [
    ("embedded", embedded::run),
    ("proxy", proxy::run),
    ("stream", stream::run),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some(concurrency::WORKER) {
        return concurrency::work(&arguments[1..]);
    }
    let effort = Effort {
        quick: arguments.iter().any(|argument| argument == "--quick"),
    };
    let names: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let all = SMALL.iter().chain(&LARGE);
    if let Some(unknown) = names.iter().find(|name| {
        let mut known = all.clone();
        **name != "all" && !known.any(|(known, _)| known == *name)
    }) {
        eprintln!(
            "no benchmark is called `{unknown}`: all, hot_path, concurrency, scale, flush, embedded, proxy, stream"
        );
        std::process::exit(2);
    }
    let mut report = Report::begin(effort.quick);
    let is_named = |name: &str| names.iter().any(|named| *named == name || *named == "all");
    for (place, (name, bench)) in all.enumerate() {
        if is_named(name) || (names.is_empty() && place < SMALL.len()) {
            report.subject(name);
            bench(&mut report, effort);
        }
    }
    report.finish();
}
