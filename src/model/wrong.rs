//! What may be found wrong: an invariant that does not hold, and why, in words.

use std::any::Any;
use std::fmt;

/// The invariant that is broken, by its number in `docs/ARCHITECTURE.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// 1: more is held and charged than there is, or less is set aside than a call was told.
    NeverOversold,
    /// 2: something never ends, or is held again after its end.
    NeverLeaked,
    /// 3: what ended has no record.
    NeverLost,
    /// 4: something is recorded, charged or taken twice.
    NeverTwice,
    /// 6: store, ledger and records do not say the same.
    Exact,
    /// An assertion of the engine, of the ledger or of a posting.
    Asserted,
}

#[derive(Debug, Clone)]
pub struct Wrong {
    pub broken: Broken,
    why: String,
}

impl Broken {
    pub fn since(self, why: String) -> Wrong {
        Wrong { broken: self, why }
    }
}

impl Wrong {
    /// An assertion that did not hold.
    pub fn asserted(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Broken::Asserted.since(text.unwrap_or_default().to_owned())
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.broken, self.why)
    }
}
