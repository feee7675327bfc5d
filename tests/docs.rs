//! What the documents list is what there is: each list is compared with the program, so that neither goes on alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use tollgate::telemetry::list::{CODES, METRICS, OTHER};

const README: &str = include_str!("../README.md");
const ARCHITECTURE: &str = include_str!("../docs/ARCHITECTURE.md");
const RULES: &str = include_str!("../docs/RULES.md");
const DEPLOY: &str = include_str!("../deploy/README.md");

type Names = BTreeSet<String>;

/// What stands in backticks in one column of the tables under a heading.
fn listed(text: &str, heading: &str, column: usize) -> Names {
    let section = text.split_once(&format!("\n{heading}\n"));
    let (_, section) = section.unwrap_or_else(|| panic!("there is no `{heading}`"));
    let section = section
        .lines()
        .take_while(|line| !line.starts_with("## ") && !line.starts_with("# "));
    let cells = section.filter_map(|line| line.strip_prefix('|')?.split('|').nth(column));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

fn found(pattern: &str, text: &str) -> Names {
    let pattern = Regex::new(pattern).expect("a pattern");
    let names = pattern.captures_iter(text);
    names.map(|name| name[1].to_owned()).collect()
}

/// The text of every file below that ends so.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let paths: Vec<PathBuf> = paths.collect();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                files.push(std::fs::read_to_string(&path).expect("a text"));
            }
        }
    }
    files
}

#[test]
fn the_metrics_in_the_readme_are_the_list() {
    let rows = METRICS.iter().map(|metric| {
        let labels = metric.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let by = if labels.is_empty() { "" } else { " by " };
        let (name, kind) = (metric.name, metric.kind.as_str());
        let (unit, help) = (metric.unit, metric.help);
        format!("| `{name}` | {kind}{by}{labels} | {unit} | {help} |\n")
    });
    let table = rows.collect::<String>();
    assert!(README.contains(&table), "the table should be:\n{table}");
    assert_eq!(listed(README, "## Metrics", 0).len(), METRICS.len());
}

#[test]
fn every_code_of_a_refusal_is_in_the_readme_and_no_other() {
    let codes = CODES.iter().filter(|code| **code != OTHER);
    let there: Names = codes.map(|code| (*code).to_owned()).collect();
    assert_eq!(listed(README, "## Refusals", 2), there);
}

#[test]
fn every_command_is_in_the_readme() {
    let help = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("--help")
        .output()
        .expect("the binary runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let (_, commands) = help.split_once("Commands:\n").expect("commands");
    let (commands, _) = commands.split_once("\n\n").expect("options");
    let commands = found(r"(?m)^  ([a-z]+) ", commands);
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands.iter().filter(|command| *command != "help") {
        let named = README.contains(&format!("tollgate {command}"));
        assert!(
            named || README.contains(&format!("-- {command}")),
            "{command}"
        );
    }
}

#[test]
fn every_table_of_the_ledger_is_in_the_architecture_and_no_other() {
    let migrations = files("migrations", ".sql").concat();
    let there = found(r"(?m)^CREATE TABLE (\w+) \(", &migrations);
    let documented = listed(ARCHITECTURE, "## Tables in the ledger", 0);
    assert_eq!(documented, there);
}

#[test]
fn every_book_and_kind_of_posting_is_in_the_architecture_and_no_other() {
    let posting = include_str!("../src/ledger/posting.rs");
    let words = |of: &str| {
        let (_, text) = posting.split_once(of).expect("it is there");
        let (text, _) = text.split_once("\n    }\n").expect("a function ends");
        found(r#"=> "(\w+)""#, text)
    };
    let books = words("impl Book {");
    let kinds = words("impl PostingKind {");
    assert_eq!((books.len(), kinds.len()), (8, 8));
    let heading = "## Double entry";
    assert_eq!(listed(ARCHITECTURE, heading, 0), kinds);
    let documented = listed(ARCHITECTURE, heading, 1);
    assert_eq!(documented, books);
}

/// The rows of a table whose first column is a rule, with the tests that one of the next columns names.
fn of_rules(table: &str, column: usize) -> Vec<(usize, Names)> {
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let rule = cells.next()?.parse().ok()?;
        Some((rule, found("`([a-z_0-9]+)`", cells.nth(column)?)))
    };
    table.lines().filter_map(row).collect()
}

/// The names of all functions, those of tests among them.
fn functions() -> Names {
    let sources = [files("src", ".rs"), files("tests", ".rs")]
        .concat()
        .concat();
    found(r"(?m)^ *(?:pub )?(?:async )?fn ([a-z_0-9]+)", &sources)
}

/// The tests that bear a rule's number.
fn numbered(rule: usize, functions: &Names) -> Names {
    let own = format!("rule_{rule:02}_");
    let own = functions.iter().filter(|name| name.starts_with(&own));
    own.cloned().collect()
}

#[test]
fn every_rule_names_tests_that_fail_without_it() {
    let (tests, _) = RULES.split_once("\n## Seen to fail\n").expect("both");
    let rows = of_rules(tests, 1);
    let rules: Vec<usize> = rows.iter().map(|(rule, _)| *rule).collect();
    assert_eq!(rules, (1..=33).collect::<Vec<_>>());

    let there = functions();
    for (rule, tests) in &rows {
        for test in tests {
            assert!(there.contains(test), "rule {rule}: there is no {test}");
        }
        let own = numbered(*rule, &there);
        let unbuilt = format!("\n{rule}. **Idempotency-Key**: *not built yet.*");
        assert!(
            !own.is_empty() || ARCHITECTURE.contains(&unbuilt),
            "rule {rule} has no test of its name"
        );
        for test in own {
            assert!(tests.contains(&test), "rule {rule} does not name {test}");
        }
    }
}

#[test]
fn every_test_of_a_rule_is_a_search_or_was_seen_to_fail() {
    let (_, seen) = RULES.split_once("\n## Seen to fail\n").expect("both");
    let seen: Names = of_rules(seen, 1)
        .into_iter()
        .flat_map(|(_, tests)| tests)
        .collect();
    let there = functions();
    for test in &seen {
        assert!(there.contains(test), "there is no {test}");
    }
    let searches = include_str!("../src/model/taken_back.rs");
    for test in (1..=33).flat_map(|rule| numbered(rule, &there)) {
        assert!(searches.contains(&test) || seen.contains(&test), "{test}");
    }
}

#[test]
fn every_variable_that_the_tests_read_is_in_the_readme() {
    let sources = [files("src", ".rs"), files("tests", ".rs")]
        .concat()
        .concat();
    let read = found(r#"env::var(?:_os)?\("(TOLLGATE_\w+)"\)"#, &sources);
    assert!(read.len() > 2, "{read:?}");
    for name in read {
        assert!(README.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = root.join("docs");
    for (text, folder) in [
        (README, root.to_owned()),
        (ARCHITECTURE, docs.clone()),
        (RULES, docs),
        (DEPLOY, root.join("deploy")),
    ] {
        let headings = found(r"(?m)^#+ (.+)$", text);
        let anchors: Names = headings.iter().map(|heading| anchor(heading)).collect();
        for link in found(r"\]\(([^)\s]+)\)", text) {
            if let Some(anchor) = link.strip_prefix('#') {
                assert!(anchors.contains(anchor), "{link}");
            } else if !link.contains("://") {
                let (path, _) = link.split_once('#').unwrap_or((&link, ""));
                assert!(folder.join(path).exists(), "{link}");
            }
        }
    }
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .replace(|c: char| !(c.is_alphanumeric() || c == ' ' || c == '-'), "");
    kept.replace(' ', "-")
}
