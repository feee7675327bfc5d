//! What came out: a table to read while it runs, and the same as lines of JSON for machines.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

pub struct Report {
    is_quick: bool,
    subject: String,
    path: PathBuf,
    /// Written line by line, so that a run that is cut off leaves what it has measured.
    file: File,
}

/// What a figure should reach.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Report {
    pub fn begin(is_quick: bool) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bench.jsonl");
        Self {
            is_quick,
            subject: String::new(),
            file: File::create(&path).expect("a file for the figures"),
            path,
        }
    }

    pub fn subject(&mut self, name: &str) {
        name.clone_into(&mut self.subject);
        println!("\n{name}");
    }

    pub fn figure(&mut self, what: &str, value: f64, unit: &str) {
        println!("  {what:<66} {:>12} {unit}", shown(value));
        self.write(json!({ "what": what, "value": value, "unit": unit }));
    }

    /// A figure with a goal: whether it was reached is said, and nothing fails because of it, since machines differ.
    pub fn goal(&mut self, what: &str, value: f64, unit: &str, goal: Goal) {
        let (reached, asked) = match goal {
            Goal::AtLeast(bound) => (value >= bound, format!(">= {bound}")),
            Goal::AtMost(bound) => (value <= bound, format!("<= {bound}")),
        };
        let said = if reached { "reached" } else { "NOT REACHED" };
        println!(
            "  {what:<66} {:>12} {unit}   [{asked}: {said}]",
            shown(value)
        );
        self.write(json!({
            "what": what, "value": value, "unit": unit, "goal": asked, "reached": reached,
        }));
    }

    /// Several figures of one moment, in a line of their own.
    pub fn line(&mut self, said: &str, figures: Value) {
        println!("  {said}");
        self.write(figures);
    }

    fn write(&mut self, mut line: Value) {
        line["bench"] = json!(self.subject);
        line["quick"] = json!(self.is_quick);
        writeln!(self.file, "{line}").expect("room for the figures");
    }

    pub fn finish(self) {
        println!("\nthe same as JSON: {}", self.path.display());
    }
}

fn shown(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        small if small < 10.0 => format!("{value:.3}"),
        middling if middling < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The one in the middle: what a noisy machine changes least.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
