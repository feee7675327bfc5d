//! The audit's statements for PostgreSQL: what does not come out, and what may account for it.

pub(in crate::ledger) mod sums;
pub(in crate::ledger) mod traces;

/// Names, as these statements take them.
pub(in crate::ledger) fn names(names: &[String]) -> &[String] {
    names
}
