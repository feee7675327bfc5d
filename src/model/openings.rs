//! Where searches begin that would have to be lucky otherwise.
//!
//! A rule that matters only when several things come together is searched for from where they have come together almost:
//! the steps before that are the opening of every run.

use super::action::Action::{
    self, Apply, Arrive, AskDrained, CheckOpen, CheckRead, CheckSave, ComeBack, Copy, Disconnect,
    End, FailOver, FlushCommit, FlushForget, FlushRead, Grant, Load, Progress, Rebuild, Reserve,
    Settle, Wipe, Withdraw,
};
use super::action::Fate::{Heard, Late};
use super::action::Verb;
use super::scenes::{ALONE, CREDIT, LOST, REBUILT};
use super::world::{Bounds, Budget};

const fn arrives(side: usize, verb: Verb) -> Action {
    Arrive(side, verb, Heard)
}

/// The second sidecar has a call on its server, the first one is about to check, and that server was left meanwhile.
pub const CHECKS_WHILE_THE_SERVER_CHANGES: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Copy,
        Disconnect(0),
        CheckRead(0),
        FailOver(0, 1),
        Disconnect(0),
        CheckSave(0),
        End(0, 2),
        End(1, 2),
    ],
    ..LOST
};

/// The first sidecar has looked at the shard for an epoch of its own, and the second has begun another meanwhile, in which
/// a call of it has ended. Then the store is emptied.
pub const LOOKS_AND_ANOTHER_BEGINS_AN_EPOCH: Bounds = Bounds {
    calls: 2,
    budget: Budget {
        rebuilds: 2,
        ..LOST.budget
    },
    opening: &[
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        End(0, 2),
        Rebuild(0),
        Rebuild(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Load(1, 0),
        arrives(1, Verb::Load(0)),
        End(1, 2),
        Settle(1),
        arrives(1, Verb::Settle(1, 2)),
        Wipe(0),
        CheckSave(0),
        CheckOpen(0),
        CheckRead(0),
        CheckSave(0),
    ],
    ..LOST
};

/// An image is on its way in the second epoch; what it does not know happens, and then the third begins.
pub const A_LOAD_OUTLIVES_ITS_EPOCH: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Rebuild(0),
        CheckSave(0),
        CheckOpen(0),
        CheckRead(0),
        CheckSave(0),
        Disconnect(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(0),
        AskDrained(1),
        Load(0, 0),
        Load(1, 0),
        arrives(1, Verb::Load(0)),
        End(1, 6),
        Settle(1),
        arrives(1, Verb::Settle(1, 6)),
        Rebuild(1),
        CheckSave(1),
        CheckOpen(1),
    ],
    ..REBUILT
};

/// The answer to an ending is on its way, and the store that gave it is emptied.
pub const AN_ANSWER_OUTLIVES_ITS_EPOCH: Bounds = Bounds {
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Reserve(1),
        arrives(0, Verb::Reserve(1)),
        End(0, 2),
        Settle(0),
        Arrive(0, Verb::Settle(0, 2), Late),
        Wipe(1),
        Disconnect(0),
        CheckRead(0),
        CheckSave(0),
        CheckOpen(0),
        CheckRead(0),
        CheckSave(0),
        AskDrained(0),
        Load(0, 0),
        arrives(0, Verb::Load(0)),
    ],
    ..ALONE
};

/// Two calls; the ending of the first is acknowledged by a server that is emptied before the ledger has it.
pub const AN_ENDING_IS_FORGOTTEN: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        End(0, 2),
        Settle(0),
        arrives(0, Verb::Settle(0, 2)),
        Wipe(0),
    ],
    ..LOST
};

/// Two servers have gone on from the same moment.
pub const TWO_BRANCHES: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Copy,
        End(0, 2),
        End(1, 2),
    ],
    ..LOST
};

/// Two servers have gone on from the same moment, each has an ending under the same number, and the first comes back.
pub const A_BRANCH_COMES_BACK: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Copy,
        FailOver(0, 1),
        Disconnect(1),
        CheckRead(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Load(1, 0),
        arrives(1, Verb::Load(0)),
        End(0, 2),
        Settle(0),
        arrives(0, Verb::Settle(0, 2)),
        End(1, 2),
        Settle(1),
        arrives(1, Verb::Settle(1, 2)),
        FlushRead(1, 1),
        FlushCommit(1),
        ComeBack,
    ],
    ..LOST
};

/// The same with a withdrawal: both servers have taken it, under different numbers.
pub const A_WITHDRAWAL_COMES_BACK: Bounds = Bounds {
    calls: 2,
    budget: Budget {
        withdrawals: 1,
        ..LOST.budget
    },
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Withdraw(0),
        Copy,
        End(0, 2),
        Settle(0),
        arrives(0, Verb::Settle(0, 2)),
        Apply(0),
        arrives(0, Verb::Apply(4)),
        FailOver(0, 1),
        Disconnect(1),
        CheckRead(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Load(1, 0),
        arrives(1, Verb::Load(0)),
        FlushRead(1, 9),
        FlushCommit(1),
        ComeBack,
    ],
    ..LOST
};

/// A call's hold is lost with the store, the account is live again, and the next heartbeat is due.
pub const A_HOLD_IS_FORGOTTEN: Bounds = Bounds {
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Wipe(0),
        Progress(0, 0),
        arrives(0, Verb::Progress(0, 0)),
        CheckRead(0),
        CheckSave(0),
        CheckOpen(0),
        CheckRead(0),
        CheckSave(0),
        AskDrained(0),
        Load(0, 0),
        arrives(0, Verb::Load(0)),
    ],
    ..ALONE
};

/// Both sidecars have read the same entry of an epoch that is over; one has flushed it, and reads the account's image.
pub const TWO_FLUSHERS: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        End(0, 2),
        Settle(0),
        arrives(0, Verb::Settle(0, 2)),
        Rebuild(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        Disconnect(0),
        CheckRead(0),
        CheckSave(0),
        FlushRead(0, 9),
        FlushRead(1, 9),
        FlushCommit(1),
        FlushForget(1),
        AskDrained(1),
        Load(1, 0),
    ],
    ..REBUILT
};

/// Every account is cold, and one is granted credit before its image is read.
pub const A_GRANT_BEFORE_THE_IMAGE: Bounds = Bounds {
    opening: &[
        Rebuild(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Grant(0),
        Load(1, 0),
    ],
    ..CREDIT
};

/// The same, but its image was read before.
pub const A_GRANT_AFTER_THE_IMAGE: Bounds = Bounds {
    opening: &[
        Rebuild(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Load(1, 0),
        Grant(0),
    ],
    ..CREDIT
};

/// Both sidecars begin an epoch. Where the second waits for the first's to be in the ledger, it is the same one; then a call
/// ends in it, and the store is emptied.
pub const TWO_BEGIN_AN_EPOCH: Bounds = Bounds {
    calls: 2,
    budget: Budget {
        rebuilds: 1,
        ..LOST.budget
    },
    opening: &[
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        End(0, 2),
        Rebuild(0),
        CheckSave(0),
        CheckOpen(0),
        Disconnect(1),
        CheckRead(1),
        CheckSave(1),
        CheckOpen(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Load(1, 0),
        arrives(1, Verb::Load(0)),
        End(1, 2),
        Settle(1),
        arrives(1, Verb::Settle(1, 2)),
        CheckOpen(0),
        Wipe(0),
        CheckRead(0),
        CheckSave(0),
        CheckOpen(0),
        CheckOpen(0),
        CheckRead(0),
        CheckSave(0),
    ],
    ..LOST
};

/// A header is to be written that is older than the one that is there, and calls have ended under that.
pub const A_HEADER_COMES_LATE: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Rebuild(0),
        CheckSave(0),
        Disconnect(1),
        CheckRead(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Load(1, 0),
        arrives(1, Verb::Load(0)),
        End(1, 2),
        Settle(1),
        arrives(1, Verb::Settle(1, 2)),
    ],
    ..REBUILT
};

/// An entry was read of a server that another has taken over from, where a call is about to end.
pub const A_FLUSH_COMES_LATE: Bounds = Bounds {
    calls: 2,
    opening: &[
        Reserve(0),
        arrives(0, Verb::Reserve(0)),
        Reserve(1),
        arrives(1, Verb::Reserve(1)),
        Copy,
        End(0, 2),
        End(1, 2),
        Settle(0),
        arrives(0, Verb::Settle(0, 2)),
        FlushRead(0, 9),
        FailOver(0, 1),
        Disconnect(1),
        CheckRead(1),
        CheckSave(1),
        CheckOpen(1),
        CheckRead(1),
        CheckSave(1),
        AskDrained(1),
        Load(1, 0),
        arrives(1, Verb::Load(0)),
    ],
    ..LOST
};
