//! All that can happen next. What is not possible in a state does nothing there, so that a trace can be cut anywhere.

/// A step of somebody, or of fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Time passes: deadlines and a lot's expiry come nearer.
    Tick,
    /// So much time passes that all ended marks are forgotten.
    Age,

    /// A call asks for its hold.
    Reserve(usize),
    /// It waits no longer for the answer, and releases.
    GiveUp(usize),
    /// A heartbeat, with what has been metered.
    Progress(usize, i64),
    /// The call ends with this charge.
    End(usize, i64),
    /// Its ending is sent, perhaps not for the first time.
    Settle(usize),
    /// The store knew the ending already: its outbox is looked at.
    See(usize),
    /// The ledger has a kept ending.
    Drop(usize),

    /// A command of a sidecar arrives at its server.
    Arrive(usize, Verb, Fate),
    /// An answer arrives that was on its way for long.
    Hear(usize, Verb),

    /// A sidecar looks whether entries of older epochs wait.
    AskDrained(usize),
    /// It reads an account's image and sends it.
    Load(usize, usize),
    /// It has found a hold that is overdue.
    Sweep(usize, usize),
    /// It has found the lot whose time is over.
    Expire(usize),
    /// It has found the next change.
    Apply(usize),
    /// It reads so many entries of the outbox.
    FlushRead(usize, usize),
    FlushCommit(usize),
    FlushForget(usize),
    FlushStop(usize),
    /// It locks the shard's row and reads the header.
    CheckRead(usize),
    /// An operator has it begin a new epoch.
    Rebuild(usize),
    CheckSave(usize),
    CheckOpen(usize),
    CheckStop(usize),
    /// Its connection breaks; the next one goes to the current server.
    Disconnect(usize),
    Crash(usize),

    /// An account is granted credit.
    Grant(usize),
    /// An operator gives or takes credit.
    Adjust(usize, i64),
    /// A lot of this account is voided or refunded.
    Withdraw(usize),

    /// A replica, or a file, is now where the server is.
    Copy,
    /// That copy takes over, under this name; sidecars may go on talking to the server before.
    FailOver(usize, u8),
    /// The server before takes over again, with what it had and what was done there since.
    ComeBack,
    /// An empty server takes over.
    Wipe(u8),
    /// The server before is gone.
    OldGone,
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Reserve(usize),
    Again(usize),
    Progress(usize, i64),
    Settle(usize, i64),
    Lapse(usize),
    Expire,
    Load(usize),
    Apply(i64),
}

/// What becomes of a command once it has run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its answer is heard at once.
    Heard,
    /// Its answer is lost.
    Lost,
    /// Its answer is lost, and it comes again.
    Twice,
    /// Its answer comes later.
    Late,
}

/// How common an action is in a random run.
impl Action {
    pub fn weight(self) -> u64 {
        match self {
            Self::Arrive(_, _, Fate::Heard) => 40,
            Self::Settle(_) | Self::CheckSave(_) | Self::CheckOpen(_) => 20,
            Self::Hear(..)
            | Self::Reserve(_)
            | Self::CheckRead(_)
            | Self::AskDrained(_)
            | Self::Load(..)
            | Self::FlushCommit(_)
            | Self::FlushForget(_) => 16,
            Self::Arrive(..)
            | Self::End(..)
            | Self::Progress(..)
            | Self::FlushRead(..)
            | Self::Sweep(..)
            | Self::Apply(_)
            | Self::See(_)
            | Self::Drop(_)
            | Self::Expire(_) => 7,
            Self::Tick | Self::Copy | Self::FailOver(..) | Self::ComeBack | Self::GiveUp(_) => 3,
            _ => 1,
        }
    }
}
