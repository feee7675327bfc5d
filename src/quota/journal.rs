//! The local journal of calls that go on without the store (rule 31): what a process that is killed has still to settle.
//!
//! An append-only file of JSON lines, written before the call is forwarded, and emptied when nothing of it is open.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{MAX_DETAIL_BYTES, Outcome, ReservationId, Settle};
use crate::money::MAX_AMOUNT;

/// Beyond this size no further call is written down, so none goes on without the store.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// The file. Its writes block, so they are made on threads that may.
#[derive(Debug)]
pub(super) struct Journal {
    file: Mutex<Appended>,
    /// What is written down, or about to be, and not done. Locked after `file`, never before.
    open: Mutex<HashSet<ReservationId>>,
}

#[derive(Debug)]
struct Appended {
    file: File,
    bytes: u64,
    /// The last write broke off, so the next begins a line of its own.
    torn: bool,
}

/// A line of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// A call goes on; this is how it ends if nothing more is known of it.
    Open(Settle),
    /// This is how it ended.
    Ended(Settle),
    /// The store has its ending.
    Done(ReservationId),
}

impl Journal {
    /// Opens it, alone among all processes, and says what earlier ones have left to settle.
    pub fn open(path: &Path) -> io::Result<(Self, Vec<Settle>)> {
        let mut options = OpenOptions::new();
        // It says who called what: nobody else's business.
        let options = options.create(true).read(true).append(true).mode(0o600);
        let mut file = options.open(path)?;
        if !file.metadata()?.is_file() {
            // A pipe would be read for ever.
            return Err(io::Error::other("it is not a regular file"));
        }
        file.try_lock().map_err(|error| {
            io::Error::other(format!(
                "another process has it, or it cannot be locked: {error}"
            ))
        })?;
        // A line may have broken off anywhere, within a character too.
        let mut written = Vec::new();
        file.read_to_end(&mut written)?;
        let left = left_open(&String::from_utf8_lossy(&written));
        if left.is_empty() {
            file.set_len(0)?;
        }
        let bytes = if left.is_empty() { 0 } else { written.len() };
        let appended = Appended {
            file,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            torn: bytes > 0 && !written.ends_with(b"\n"),
        };
        let open = left.iter().map(|settle| settle.id).collect();
        let journal = Self {
            file: Mutex::new(appended),
            open: Mutex::new(open),
        };
        Ok((journal, left))
    }

    /// A call is about to be written down: until it is done the file is not emptied.
    pub fn begin(&self, id: ReservationId) {
        self.open.lock().insert(id);
    }

    /// Writes down how a call ends if nothing more is known of it; nothing where it has ended meanwhile.
    pub fn write_open(&self, settle: Settle) -> io::Result<()> {
        let mut appended = self.file.lock();
        if !self.open.lock().contains(&settle.id) {
            return Ok(());
        }
        if appended.bytes >= MOST_BYTES {
            return Err(io::Error::other("it is full"));
        }
        appended.write(&Line::Open(settle))
    }

    /// Writes down how a call ended.
    pub fn write_ended(&self, settle: Settle) -> io::Result<()> {
        self.file.lock().write(&Line::Ended(settle))
    }

    /// The store has the ending of a call. The last one empties the file.
    pub fn write_done(&self, id: ReservationId) -> io::Result<()> {
        let mut appended = self.file.lock();
        let nothing_open = {
            let mut open = self.open.lock();
            open.remove(&id);
            open.is_empty()
        };
        if nothing_open {
            appended.empty()
        } else {
            appended.write(&Line::Done(id))
        }
    }
}

impl Appended {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let mut bytes = Vec::new();
        if self.torn {
            bytes.push(b'\n');
        }
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
        self.torn = true;
        self.file.write_all(&bytes)?;
        self.torn = false;
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.bytes, self.torn) = (0, false);
        Ok(())
    }
}

/// What is written down and not done, as far as it is known. A line that broke off was never acted upon.
fn left_open(text: &str) -> Vec<Settle> {
    let mut open: BTreeMap<ReservationId, Settle> = BTreeMap::new();
    let mut ended: BTreeMap<ReservationId, Settle> = BTreeMap::new();
    let mut done = HashSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match serde_json::from_str(line) {
            Ok(Line::Open(settle)) => drop(open.insert(settle.id, settle)),
            Ok(Line::Ended(settle)) => drop(ended.insert(settle.id, settle)),
            Ok(Line::Done(id)) => drop(done.insert(id)),
            Err(error) => tracing::warn!(%error, "a line of the journal broke off"),
        }
    }
    open.extend(ended);
    open.into_values()
        .filter(|settle| !done.contains(&settle.id) && is_possible(settle))
        .collect()
}

/// Whether this program may have written it: the store takes its amounts as they are.
fn is_possible(settle: &Settle) -> bool {
    let amounts = settle.counts.iter().map(|count| count.amount.0);
    let bounded = amounts
        .chain([settle.charge.0])
        .all(|amount| (0..=MAX_AMOUNT).contains(&amount));
    let by_caller = settle.outcome != Outcome::Lapsed;
    let possible = bounded && by_caller && settle.detail.len() <= MAX_DETAIL_BYTES;
    if !possible {
        tracing::error!(id = %settle.id, "an ending in the journal is none that a sidecar writes, and is left out");
    }
    possible
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;
    use crate::money::{Amount, Nanos};
    use crate::quota::Count;

    fn settle(charge: i64) -> Settle {
        Settle {
            id: ReservationId::new(),
            account: "one".parse().unwrap(),
            outcome: Outcome::Settled,
            charge: Nanos(charge),
            counts: vec![Count {
                key: "account/tokens/month".parse().unwrap(),
                start: UnixMs(1_700_000_000_000),
                amount: Amount(charge),
            }],
            detail: "{}".into(),
        }
    }

    fn begin(journal: &Journal, settle: &Settle) {
        journal.begin(settle.id);
        journal.write_open(settle.clone()).unwrap();
    }

    #[test]
    fn what_a_killed_process_left_is_there_as_it_was_last_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (floor, ended, done) = (settle(1), settle(2), settle(3));
        let (journal, left) = Journal::open(&path).unwrap();
        assert!(left.is_empty());
        for settle in [&floor, &ended, &done] {
            begin(&journal, settle);
        }
        let used = Settle {
            charge: Nanos(7),
            ..ended.clone()
        };
        journal.write_ended(used.clone()).unwrap();
        journal.write_done(done.id).unwrap();
        let refused = Journal::open(&path).unwrap_err();
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(journal);
        // Killed in the middle of a line.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"open\":{\"id\"").unwrap();
        drop(file);

        let (journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [floor.clone(), used.clone()]);
        let more = settle(4);
        begin(&journal, &more);
        drop(journal);
        let (journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [floor.clone(), used.clone(), more.clone()]);
        for settle in [floor, used, more] {
            journal.write_done(settle.id).unwrap();
        }
        assert_eq!(
            std::fs::metadata(&path).unwrap().len(),
            0,
            "nothing is open"
        );
    }

    #[test]
    fn a_call_that_ended_before_it_was_written_down_is_not_left_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        let late = settle(1);
        journal.begin(late.id);
        journal.write_done(late.id).unwrap();
        journal.write_open(late).unwrap();
        drop(journal);
        assert_eq!(Journal::open(&path).unwrap().1, []);
    }

    #[test]
    fn a_line_that_broke_off_inside_a_character_loses_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        let floor = settle(1);
        begin(&journal, &floor);
        drop(journal);
        let torn = Settle {
            detail: "{\"model\":\"é\"}".into(),
            ..settle(2)
        };
        let mut line = serde_json::to_vec(&Line::Open(torn)).unwrap();
        let at = line.iter().position(|byte| *byte == 0xc3).unwrap();
        line.truncate(at + 1);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(&line).unwrap();
        drop(file);
        let (_journal, left) = Journal::open(&path).expect("the journal opens");
        assert_eq!(left, [floor]);
    }

    #[test]
    fn what_no_sidecar_writes_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let lapsed = Settle {
            outcome: Outcome::Lapsed,
            ..settle(1)
        };
        let long = Settle {
            detail: "x".repeat(MAX_DETAIL_BYTES + 1).as_str().into(),
            ..settle(2)
        };
        let good = settle(3);
        let line = |settle: Settle| serde_json::to_string(&Line::Open(settle)).unwrap() + "\n";
        let lines: String = [lapsed, long, good.clone()].map(line).concat();
        std::fs::write(&path, lines).unwrap();
        let (_journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [good], "the engine would panic on the others");
    }

    #[test]
    fn an_amount_beyond_all_bounds_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let beyond = settle(i64::MAX);
        let line = serde_json::to_string(&Line::Open(beyond)).unwrap();
        std::fs::write(&path, format!("{line}\n")).unwrap();
        let (_journal, left) = Journal::open(&path).unwrap();
        assert_eq!(
            left,
            [],
            "the engine would panic on it, under its shard's lock"
        );
    }
}
