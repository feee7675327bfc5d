//! How much may happen in a search: a bit of everything, or only what a rule is about.

use super::world::{Bounds, Budget};

/// A bit of everything.
pub const WIDE: Bounds = Bounds {
    sides: 2,
    calls: 4,
    flights: 4,
    budget: Budget {
        losses: 2,
        crashes: 1,
        disconnects: 2,
        rebuilds: 1,
        grants: 1,
        adjustments: 1,
        withdrawals: 2,
        ages: 1,
        ticks: 3,
        heartbeats: 4,
    },
    opening: &[],
};

/// Nothing but calls and time.
pub const CALM: Bounds = Bounds {
    sides: 2,
    calls: 3,
    flights: 4,
    budget: Budget {
        losses: 0,
        crashes: 0,
        disconnects: 0,
        rebuilds: 0,
        grants: 0,
        adjustments: 0,
        withdrawals: 0,
        ages: 0,
        ticks: 3,
        heartbeats: 3,
    },
    opening: &[],
};

/// Credit comes and goes as well.
pub const CREDIT: Bounds = Bounds {
    budget: Budget {
        grants: 2,
        adjustments: 1,
        withdrawals: 2,
        rebuilds: 1,
        disconnects: 1,
        ..CALM.budget
    },
    ..CALM
};

/// Marks are forgotten.
pub const AGED: Bounds = Bounds {
    budget: Budget {
        ages: 1,
        ..CALM.budget
    },
    ..CALM
};

/// Shards are rebuilt, and sidecars die.
pub const REBUILT: Bounds = Bounds {
    budget: Budget {
        rebuilds: 2,
        crashes: 1,
        disconnects: 2,
        ..CALM.budget
    },
    ..CALM
};

/// Servers are lost.
pub const LOST: Bounds = Bounds {
    budget: Budget {
        losses: 2,
        disconnects: 2,
        ticks: 1,
        heartbeats: 2,
        ..CALM.budget
    },
    ..CALM
};

/// One sidecar whose server is lost.
pub const ALONE: Bounds = Bounds {
    sides: 1,
    calls: 2,
    ..LOST
};

const NOTHING: Budget = Budget {
    ticks: 0,
    heartbeats: 0,
    ..CALM.budget
};

/// One call, and a server that is lost while it is under way.
pub const ONE_CALL_AND_A_LOSS: Bounds = Bounds {
    sides: 1,
    calls: 1,
    flights: 1,
    budget: Budget {
        losses: 1,
        disconnects: 1,
        ..NOTHING
    },
    opening: &[],
};

/// One call whose time runs out, and a sidecar that may die.
pub const ONE_CALL_AND_A_CRASH: Bounds = Bounds {
    sides: 2,
    calls: 1,
    flights: 1,
    budget: Budget {
        crashes: 1,
        ticks: 1,
        ..NOTHING
    },
    opening: &[],
};

/// One call that the network alone may harm.
pub const ONE_CALL: Bounds = Bounds {
    sides: 1,
    calls: 1,
    flights: 1,
    budget: NOTHING,
    opening: &[],
};

/// Two calls of one account, and no faults but those of the network.
pub const TWO_CALLS: Bounds = Bounds {
    sides: 1,
    calls: 2,
    flights: 1,
    budget: NOTHING,
    opening: &[],
};
