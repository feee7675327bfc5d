//! Which rules hold: all of them, or all but one. A rule that can be taken back without harm would be no rule.

/// A rule of the protocol, or a part of one, that the model can take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// 5: an ending leaves a mark.
    EndedMarks,
    /// 5: so does the ending of an id that is not known.
    MarksOfUnknownIds,
    /// 6: a lapse checks the deadline again.
    LapseChecksTheDeadline,
    /// 7: the settle of an id that is not known is charged at once.
    UnknownIdsAreSettled,
    /// 18: a new epoch's numbers go on from the last ones.
    OutSeqNeverRestarts,
    /// 19: entries at or below flushed_seq are skipped.
    SkipsWhatIsFlushed,
    /// 19: but not endings of an earlier epoch.
    EndingsOfEarlierEpochsCount,
    /// 19: entries are forgotten once they are committed, and not before.
    ForgetsOnlyTheCommitted,
    /// 19: a flush commits only if the ledger knows the shard to be on the server that was read.
    CommitsOnlyOfTheServer,
    /// 20: changes are applied in order, each once.
    ChangesInOrder,
    /// 21: the row is locked from before the header is read until the epoch is saved.
    LockBeforeTheHeader,
    /// 21: another server is another epoch.
    AnotherServerIsAnotherEpoch,
    /// 21: the epoch is committed before the header is written.
    EpochBeforeTheHeader,
    /// 21: the header is only written upwards.
    HeaderOnlyUpwards,
    /// 21: commands expect the epoch that was agreed on.
    CommandsExpectAnEpoch,
    /// 21: what was agreed on counts for the connection that the header was read by.
    AgreedForOneConnection,
    /// 21: answers of an earlier epoch do not count.
    AnswersOfThisEpoch,
    /// 22: nothing is loaded while an entry of an older epoch waits.
    DrainedBeforeALoad,
    /// 22: nor is the image read before that is known.
    DrainedBeforeTheImage,
    /// 22: an image that is behind the store is refused.
    ImageNotBehind,
    /// 22: changes that the image had in it are passed over.
    AsOfTheImage,
    /// 22: only a cold account is loaded.
    LoadsOnlyTheCold,
    /// 22: a load keeps what is held.
    LoadKeepsWhatIsHeld,
    /// 23: an ending is kept until the ledger has it.
    EndingsAreKept,
    /// 23: until it is flushed in the epoch that acknowledged it.
    KeptUntilThatEpochFlushed,
    /// 23: also one that the store knew already when it was settled again.
    KeptWhereAlreadyEnded,
    /// 23: a hold that the store has lost is made again.
    HeldAgain,
    /// 24: a settle over a lapse is a correction.
    SettleCorrectsALapse,
    /// 24: and only one.
    CorrectsOnce,
    /// 24: what the store must still move is a numbered change.
    RestIsAChange,
    /// 24: but nothing of an earlier epoch is undone: it went with its epoch.
    NothingIsUndoneOfAnEarlierEpoch,
    /// 27: only the store takes what is left of an expired lot.
    OnlyTheStoreExpires,
    /// 27: a withdrawal is done once.
    WithdrawsOnce,
}

/// The rules of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules(Option<Rule>);

impl Rules {
    /// All of them.
    pub const ALL: Self = Self(None);

    /// All but one.
    pub const fn without(rule: Rule) -> Self {
        Self(Some(rule))
    }

    /// Whether this one holds.
    pub fn hold(self, rule: Rule) -> bool {
        self.0 != Some(rule)
    }
}
