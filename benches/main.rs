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
mod histogram;
mod hot_path;
mod load;
mod monitor;
mod nginx;
mod process;
mod proxy;
mod report;
mod scale;
mod setting;
mod soak;
mod stream;
mod traffic;

/// It counts; the sidecars that are measured are processes of their own, with their own allocator.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How much time the measurements get.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// A smoke run: everything happens, and no figure means much.
    pub quick: bool,
    /// How long a soak lasts, if it was said.
    pub minutes: Option<u32>,
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
/// Not among `all`: it takes half an hour.
const LONG: [(&str, Bench); 1] = [("soak", soak::run)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().map(String::as_str) == Some(concurrency::WORKER) {
        return concurrency::work(&arguments[1..]);
    }
    let (effort, names) = understood(&arguments).unwrap_or_else(|problem| {
        eprintln!("{problem}");
        std::process::exit(2);
    });
    let mut report = Report::begin(effort.quick);
    let is_named = |name: &str| names.contains(&name);
    let is_small = |place: usize| place < SMALL.len();
    for (place, (name, bench)) in every().enumerate() {
        let is_of_all = is_named("all") && LONG.iter().all(|(long, _)| long != name);
        if is_named(name) || is_of_all || (names.is_empty() && is_small(place)) {
            report.subject(name);
            bench(&mut report, effort);
        }
    }
    report.finish();
}

fn every() -> impl Iterator<Item = &'static (&'static str, Bench)> {
    SMALL.iter().chain(&LARGE).chain(&LONG)
}

/// How much effort, and which benchmarks; or what is wrong.
fn understood(arguments: &[String]) -> Result<(Effort, Vec<&str>), String> {
    let mut effort = Effort {
        quick: false,
        minutes: None,
    };
    let mut names = Vec::new();
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        match argument {
            "--quick" => effort.quick = true,
            "--minutes" => {
                let minutes = arguments.next().and_then(|number| number.parse().ok());
                effort.minutes = Some(minutes.ok_or("--minutes wants a whole number")?);
            }
            // Cargo has flags of its own for whatever it runs as a benchmark.
            flag if flag.starts_with("--") => {}
            "all" => names.push("all"),
            name if every().any(|(known, _)| *known == name) => names.push(name),
            unknown => {
                let known: Vec<_> = every().map(|(name, _)| *name).collect();
                return Err(format!(
                    "no benchmark is called `{unknown}`: all, {}",
                    known.join(", ")
                ));
            }
        }
    }
    Ok((effort, names))
}
