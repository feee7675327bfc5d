//! The audit's statements for SQLite: what does not come out, and what may account for it.

use serde_json::json;

pub(in crate::ledger) mod sums;
pub(in crate::ledger) mod traces;

/// Names, as these statements take them.
pub(in crate::ledger) fn names(names: &[String]) -> String {
    json!(names).to_string()
}
