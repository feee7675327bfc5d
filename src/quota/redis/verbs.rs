//! The verbs of [`Store`]: which script, with what keys and arguments, and what its answer says.

use super::answers::{self, List};
use super::arguments::{self, owned, shown, text};
use super::keys::member;
use super::{RedisStore, entry};
use crate::clock::UnixMs;
use crate::quota::{
    AccountId, AccountImage, AccountView, ApplyAnswer, ChangeSeq, Epoch, ExpireAnswer, ExpiredLot,
    Header, LapseAnswer, LoadAnswer, OutSeq, Outbox, Overdue, Progress, Progressed, ReservationId,
    Reserve, Reserved, RunId, Settle, SettleAnswer, ShardId, ShardView, Store, StoreChange,
    StoreError,
};

/// How often an account is looked at anew while its holds come and go.
const MAX_LOOKS: usize = 16;

impl Store for RedisStore {
    fn shards(&self) -> u16 {
        u16::try_from(self.shards.len()).expect("they were counted in a u16")
    }

    async fn view(&self, shard: ShardId) -> Result<ShardView, StoreError> {
        let keys = [self.keys.header(shard), self.keys.outbox(shard)];
        let script = &self.scripts.view;
        let answered = self.run_unchecked(shard, script, &keys, vec![]).await?;
        let view = answers::shard_view(answered.value)?;
        self.shard(shard).lock().viewed = Some((view.run_id.clone(), answered.generation));
        Ok(view)
    }

    async fn open(&self, shard: ShardId, header: &Header) -> Result<(), StoreError> {
        let keys = [self.keys.header(shard)];
        let Header {
            install,
            format,
            epoch,
            out_seq,
            applied_seq,
        } = header;
        let fields = vec![
            shown(install),
            shown(format),
            shown(epoch),
            shown(out_seq),
            shown(applied_seq),
        ];
        self.run_unchecked(shard, &self.scripts.open, &keys, fields)
            .await
            .map(drop)
    }

    fn adopt(&self, shard: ShardId, epoch: Epoch) {
        let mut shard = self.shard(shard).lock();
        let generation = shard.viewed.as_ref().map(|(_, generation)| *generation);
        shard.adopted = generation.map(|generation| (epoch, generation));
    }

    fn adopted(&self, shard: ShardId) -> Option<Epoch> {
        self.checked(shard).map(|(epoch, _)| epoch)
    }

    async fn reserve(&self, reserve: &Reserve) -> Result<Reserved, StoreError> {
        let shard = self.shard_of(&reserve.account);
        let keys = self.hold_keys(shard, &reserve.account, reserve.id);
        let arguments = vec![
            arguments::claim(reserve, self.outbox_bound),
            text(&reserve.detail),
            owned(member(reserve.id, &reserve.account)),
        ];
        let script = &self.scripts.reserve;
        let (word, mut answer) = self.run(shard, script, &keys, arguments).await?;
        match word.as_str() {
            "held" => Ok(Reserved::Held {
                deadline: answer.unix_ms()?,
                fits: answer.int()? == 1,
                seen: answer.seen()?,
            }),
            "short" => Ok(Reserved::Short(answer.seen()?)),
            "stale" => {
                let snapshot = answers::snapshot(&answer.bytes()?)?;
                Ok(Reserved::Stale(Box::new(snapshot)))
            }
            "window_moved" => Ok(Reserved::WindowMoved(answer.unix_ms()?)),
            "cold" => Ok(Reserved::Cold),
            "ended" => Ok(Reserved::Ended(answer.ended()?)),
            "outbox_full" => Ok(Reserved::OutboxFull),
            _ => Err(unknown_word(&word)),
        }
    }

    async fn progress(&self, progress: &Progress) -> Result<Progressed, StoreError> {
        let shard = self.shard_of(&progress.account);
        let keys = [
            self.keys.header(shard),
            self.keys.reservation(shard, progress.id),
            self.keys.deadlines(shard),
        ];
        let arguments = vec![
            arguments::metered(progress),
            text(&progress.detail),
            owned(member(progress.id, &progress.account)),
            shown(progress.deadline_ms),
        ];
        let script = &self.scripts.progress;
        let (word, mut answer) = self.run(shard, script, &keys, arguments).await?;
        match word.as_str() {
            "held" => Ok(Progressed::Held(answer.unix_ms()?)),
            "ended" => Ok(Progressed::Ended(answer.ended()?)),
            "unknown" => Ok(Progressed::Unknown),
            _ => Err(unknown_word(&word)),
        }
    }

    async fn settle(&self, settle: &Settle) -> Result<SettleAnswer, StoreError> {
        let shard = self.shard_of(&settle.account);
        let keys = self.hold_keys(shard, &settle.account, settle.id);
        let arguments = vec![
            text(settle.account.as_str()),
            owned(member(settle.id, &settle.account)),
            arguments::totals(settle),
            text(&settle.detail),
        ];
        let script = &self.scripts.settle;
        let (word, mut answer) = self.run(shard, script, &keys, arguments).await?;
        match word.as_str() {
            "settled" => Ok(SettleAnswer::Ended(answer.seq()?)),
            "ended" => Ok(SettleAnswer::Already(answer.ended()?)),
            "below_zero" => Ok(SettleAnswer::BelowZero),
            "cold" => Ok(SettleAnswer::Cold),
            _ => Err(unknown_word(&word)),
        }
    }

    async fn lapse(&self, overdue: &Overdue) -> Result<LapseAnswer, StoreError> {
        let shard = self.shard_of(&overdue.account);
        let keys = self.hold_keys(shard, &overdue.account, overdue.id);
        let arguments = vec![
            text(overdue.account.as_str()),
            owned(member(overdue.id, &overdue.account)),
            shown(overdue.id),
        ];
        let script = &self.scripts.lapse;
        let (word, mut answer) = self.run(shard, script, &keys, arguments).await?;
        match word.as_str() {
            "lapsed" => Ok(LapseAnswer::Lapsed(answer.seq()?)),
            "not_due" => Ok(LapseAnswer::NotDue(answer.unix_ms()?)),
            "ended" => Ok(LapseAnswer::Already(answer.ended()?)),
            "unknown" => Ok(LapseAnswer::Unknown),
            "cold" => Ok(LapseAnswer::Cold),
            _ => Err(unknown_word(&word)),
        }
    }

    async fn overdue(
        &self,
        shard: ShardId,
        max: usize,
    ) -> Result<(UnixMs, Vec<Overdue>), StoreError> {
        let keys = [self.keys.header(shard), self.keys.deadlines(shard)];
        let script = &self.scripts.overdue;
        let (_, answer) = self.run(shard, script, &keys, vec![shown(max)]).await?;
        answers::overdue(answer)
    }

    async fn expire(&self, expired: &ExpiredLot) -> Result<ExpireAnswer, StoreError> {
        let shard = self.shard_of(&expired.account);
        let keys = self.account_keys(shard, &expired.account);
        let arguments = vec![
            text(expired.account.as_str()),
            shown(expired.lot),
            shown(expired.expires_at.0),
        ];
        let script = &self.scripts.expire;
        let (word, mut answer) = self.run(shard, script, &keys, arguments).await?;
        match word.as_str() {
            "expired" => Ok(ExpireAnswer::Expired(answer.seq()?)),
            "nothing" => Ok(ExpireAnswer::Nothing),
            "not_due" => Ok(ExpireAnswer::NotDue),
            "cold" => Ok(ExpireAnswer::Cold),
            _ => Err(unknown_word(&word)),
        }
    }

    async fn load(&self, image: &AccountImage) -> Result<LoadAnswer, StoreError> {
        let account = &image.snapshot.account;
        let shard = self.shard_of(account);
        let keys = self.account_keys(shard, account);
        let arguments = vec![
            text(account.as_str()),
            arguments::image(image),
            arguments::snapshot(&image.snapshot),
        ];
        let script = &self.scripts.load;
        let (word, _) = self.run(shard, script, &keys, arguments).await?;
        match word.as_str() {
            "loaded" => Ok(LoadAnswer::Loaded),
            "warm" => Ok(LoadAnswer::Warm),
            "behind" => Ok(LoadAnswer::Behind),
            _ => Err(unknown_word(&word)),
        }
    }

    async fn apply(&self, change: &StoreChange) -> Result<ApplyAnswer, StoreError> {
        let shard = change.shard;
        let keys = self.account_keys(shard, &change.account);
        let snapshot = change.body.snapshot.as_ref();
        let arguments = vec![
            text(change.account.as_str()),
            shown(change.seq),
            arguments::change(&change.body),
            snapshot.map(arguments::snapshot).unwrap_or_default(),
        ];
        let script = &self.scripts.apply;
        let (word, mut answer) = self.run(shard, script, &keys, arguments).await?;
        match word.as_str() {
            "applied" => Ok(ApplyAnswer::Applied),
            "at" => Ok(ApplyAnswer::At(ChangeSeq(answer.int()?))),
            _ => Err(unknown_word(&word)),
        }
    }

    async fn outbox(&self, shard: ShardId, max: usize) -> Result<Outbox, StoreError> {
        let epoch = self.adopted(shard).unwrap_or_default();
        let keys = [self.keys.header(shard), self.keys.outbox(shard)];
        let script = &self.scripts.outbox;
        let (_, mut answer) = self.run(shard, script, &keys, vec![shown(max)]).await?;
        let run_id = RunId(answer.text()?);
        let (entries, unreadable) = entry::read_all(answer.list()?)?;
        self.leave_if_elsewhere(shard, &run_id);
        Ok(Outbox {
            run_id,
            epoch,
            entries,
            unreadable,
        })
    }

    async fn forget(&self, shard: ShardId, seqs: &[OutSeq]) -> Result<(), StoreError> {
        let keys = [self.keys.header(shard), self.keys.outbox(shard)];
        let ids = seqs.iter().map(|seq| shown(format_args!("{seq}-0")));
        let script = &self.scripts.forget;
        self.run(shard, script, &keys, ids.collect())
            .await
            .map(drop)
    }

    async fn account(&self, account: &AccountId) -> Result<Option<AccountView>, StoreError> {
        let shard = self.shard_of(account);
        let mut ids: Vec<String> = Vec::new();
        // Every key a script touches is declared, so the holds' names are read first; then all is read at once, unless
        // other holds are there by then.
        for _ in 0..MAX_LOOKS {
            let (word, answer) = self.look_at(shard, account, &ids).await?;
            match word.as_str() {
                "account" => return answers::account_view(answer).map(Some),
                "cold" => return Ok(None),
                "others" => ids = held_ids(answer)?,
                _ => return Err(unknown_word(&word)),
            }
        }
        let reason = "the account's holds changed each time it was looked at";
        Err(StoreError::Away(reason.into()))
    }
}

impl RedisStore {
    fn hold_keys(&self, shard: ShardId, account: &AccountId, id: ReservationId) -> [String; 5] {
        [
            self.keys.header(shard),
            self.keys.account(shard, account),
            self.keys.reservation(shard, id),
            self.keys.outbox(shard),
            self.keys.deadlines(shard),
        ]
    }

    fn account_keys(&self, shard: ShardId, account: &AccountId) -> [String; 3] {
        [
            self.keys.header(shard),
            self.keys.account(shard, account),
            self.keys.outbox(shard),
        ]
    }

    async fn look_at(
        &self,
        shard: ShardId,
        account: &AccountId,
        ids: &[String],
    ) -> Result<(String, List), StoreError> {
        let mut keys = self.account_keys(shard, account).to_vec();
        keys.push(self.keys.deadlines(shard));
        let mut arguments = vec![text(account.as_str())];
        for id in ids {
            keys.push(self.keys.reservation(shard, answers::reservation_id(id)?));
            arguments.push(text(id));
        }
        self.run(shard, &self.scripts.account, &keys, arguments)
            .await
    }

    /// Another server than the one that was checked keeps the shard: a Cluster moved it without breaking a connection.
    fn leave_if_elsewhere(&self, shard: ShardId, run_id: &RunId) {
        let mut shard = self.shard(shard).lock();
        if shard
            .viewed
            .as_ref()
            .is_none_or(|(known, _)| known != run_id)
        {
            shard.adopted = None;
        }
    }
}

fn held_ids(mut answer: List) -> Result<Vec<String>, StoreError> {
    answer.list()?.texts()
}

fn unknown_word(word: &str) -> StoreError {
    StoreError::Nonsense(format!("`{word}` is no answer"))
}
