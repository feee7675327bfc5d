//! What a command answers: lines for people, or one JSON value a line for machines.
//!
//! Every answer is given both ways at the same place, so that neither can be forgotten. Progress goes to stderr.

use std::io::{self, Write};

use serde::Serialize;

use super::failure::Failure;

/// Where answers go.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Answers with a value, which people read as `text`.
    pub fn answer(&self, value: &impl Serialize, text: &str) -> Result<(), Failure> {
        if self.json {
            self.machine(value)
        } else {
            write_line(text)
        }
    }

    /// Answers machines only.
    pub fn machine(&self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let line = serde_json::to_string(value);
        let line = line.map_err(|error| Failure::Output(error.into()))?;
        write_line(&line)
    }

    /// Answers people only.
    pub fn people(&self, text: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        write_line(text)
    }
}

/// A pipe that was closed is an error like any other: a secret that is shown once must not be lost in silence.
fn write_line(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .map_err(Failure::Output)
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
