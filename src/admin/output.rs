//! What a command answers: lines for people, or one JSON value a line for machines.
//!
//! Every answer is given both ways at the same place, so that neither can be forgotten. Progress goes to stderr.

use std::io::{self, Write};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The most that is kept of what a command says; a list that is longer is asked for by itself, without a sidecar.
const MAX_KEPT_BYTES: usize = 32 * 1024 * 1024;

/// Where answers go.
pub(super) struct Output {
    json: bool,
    /// `None`: to this process's own stdout and stderr.
    kept: Option<Mutex<Said>>,
}

/// What a command said.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Said {
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Says here what was said in another process.
    pub fn pass_on(&self) -> Result<(), Failure> {
        eprint!("{}", self.stderr);
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(self.stdout.as_bytes());
        written
            .and_then(|()| stdout.flush())
            .map_err(Failure::Output)
    }
}

/// How many there are, for people.
pub(super) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, kept: None }
    }

    /// One that keeps what is said, for whoever asked from another process.
    pub fn kept(json: bool) -> Self {
        let kept = Some(Mutex::default());
        Self { json, kept }
    }

    /// What was kept.
    pub fn said(self) -> Said {
        self.kept.map(Mutex::into_inner).unwrap_or_default()
    }

    /// How far long work is, or why it failed: nothing that a machine reads.
    pub fn note(&self, text: &str) {
        match &self.kept {
            None => eprintln!("{text}"),
            Some(kept) => {
                // What is too much is left out here: nobody counts on it.
                let _ = push_line(&mut kept.lock().stderr, text);
            }
        }
    }

    /// Answers with a value, which people read as `text`.
    pub fn answer(&self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json {
            self.machine(value)
        } else {
            self.write_line(text)
        }
    }

    /// Answers machines only.
    pub fn machine(&self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let line = serde_json::to_string(value);
        let line = line.map_err(|error| Failure::Output(error.into()))?;
        self.write_line(&line)
    }

    /// Answers people only.
    pub fn people(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        self.write_line(text)
    }

    fn write_line(&self, line: &str) -> Result<(), Failure> {
        let written = match &self.kept {
            None => print_line(line),
            Some(kept) => push_line(&mut kept.lock().stdout, line),
        };
        written.map_err(Failure::Output)
    }
}

/// A pipe that was closed is an error like any other: a secret that is shown once must not be lost in silence.
fn print_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

fn push_line(kept: &mut String, line: &str) -> io::Result<()> {
    if kept.len() + line.len() >= MAX_KEPT_BYTES {
        return Err(io::Error::other(
            "it is too long to be handed over: stop the sidecar and ask again",
        ));
    }
    kept.push_str(line);
    kept.push('\n');
    Ok(())
}

/// Columns under headings, as wide as they need to be.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned).into()],
        }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Whether there is nothing but headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (at, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths);
            let padded: Vec<String> = cells
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            let line = padded.join("  ");
            let end = if at + 1 == self.rows.len() { "" } else { "\n" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(["ACCOUNT", "MODE"]);
        table.row(["a".into(), "enforce".into()]);
        assert_eq!(table.to_string(), "ACCOUNT  MODE\na        enforce");
    }
}
