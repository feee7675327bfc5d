//! The local journal of calls that go on without the store (rule 31): what a process that is killed has still to settle.
//!
//! An append-only file of JSON lines, written before the call is forwarded, and emptied when nothing of it is open. Lines
//! that cannot be settled are put [aside](Aside) first.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::aside::Aside;
use super::left::Left;
use super::{ReservationId, Settle};

/// Beyond this size no further call is written down, so none goes on without the store.
const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// How many lines that are put aside at a start are named one by one in the log.
const MOST_NAMED_LINES: usize = 100;

/// The file. Its writes block, so they are made on threads that may.
#[derive(Debug)]
pub(super) struct Journal {
    file: Mutex<Appended>,
    /// What is written down, or about to be, and not done. Locked after `file`, never before.
    open: Mutex<HashSet<ReservationId>>,
    aside: Aside,
}

#[derive(Debug)]
struct Appended {
    file: File,
    /// Up to the end of the last whole line.
    bytes: u64,
    /// The last write broke off: what there is of it goes before the next.
    torn: bool,
}

/// A line of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    /// A call goes on; this is how it ends if nothing more is known of it.
    Open(Settle),
    /// This is how it ended.
    Ended(Settle),
    /// The store has its ending, or never will and it is put aside.
    Done(ReservationId),
    /// These lines of this file, counted from 1, are put aside, and need not be again.
    Aside(Vec<u64>),
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
        let Left { open, aside, bytes } = Left::read(&written);
        let kept_aside = Aside::of(path);
        if !aside.is_empty() {
            // Before anything is taken from the file: where it fails, the file stays as it is.
            put_aside(path, &kept_aside, &aside)?;
        }
        let mut appended = Appended {
            file,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            torn: bytes < written.len(),
        };
        if open.is_empty() {
            appended.empty()?;
        } else {
            appended.end_line(written[..bytes].ends_with(b"\n"))?;
            if !aside.is_empty() {
                appended.write(&Line::Aside(aside.into_keys().collect()))?;
            }
        }
        let journal = Self {
            file: Mutex::new(appended),
            open: Mutex::new(open.iter().map(|settle| settle.id).collect()),
            aside: kept_aside,
        };
        Ok((journal, open))
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

    /// Puts the ending of a call aside, as the journal has it.
    pub fn put_aside(&self, settle: Settle) -> io::Result<()> {
        let line = line_of(&Line::Ended(settle))?;
        let _one_at_a_time = self.file.lock();
        self.aside.put(&line)
    }

    /// Where lines are put aside.
    pub fn aside(&self) -> &Path {
        self.aside.path()
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
        self.append(&line_of(line)?)
    }

    /// Takes away what broke off, or ends a line of which nothing but its end is missing.
    fn end_line(&mut self, ended: bool) -> io::Result<()> {
        if ended {
            self.mend()
        } else {
            self.append(b"\n")
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.mend()?;
        self.torn = true;
        self.file.write_all(bytes)?;
        self.torn = false;
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Nobody acted upon a line that broke off, and in the midst of the file it would look like a damaged one.
    fn mend(&mut self) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.bytes)?;
            self.torn = false;
        }
        Ok(())
    }

    fn empty(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        (self.bytes, self.torn) = (0, false);
        Ok(())
    }
}

fn line_of(line: &Line) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Puts lines aside that nobody can settle. The log names them and does not quote them: whatever they say is somebody's.
fn put_aside(journal: &Path, aside: &Aside, lines: &BTreeMap<u64, &[u8]>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for line in lines.values() {
        bytes.extend(line.strip_suffix(b"\n").unwrap_or(line));
        bytes.push(b'\n');
    }
    aside.put(&bytes)?;
    let (journal, aside) = (journal.display(), aside.path().display());
    for line in lines.keys().take(MOST_NAMED_LINES) {
        tracing::error!(
            %journal, line, %aside,
            "a line of the journal of bounded calls cannot be read, or is beyond all bounds: it is put aside, and nobody \
             is charged for it"
        );
    }
    if let more @ 1.. = lines.len().saturating_sub(MOST_NAMED_LINES) {
        tracing::error!(%journal, more, %aside, "more lines of it are put aside");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;
    use crate::clock::UnixMs;
    use crate::money::{Amount, Nanos};
    use crate::quota::{Count, MAX_DETAIL_BYTES, Outcome};

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

    fn line(line: &Line) -> String {
        serde_json::to_string(line).unwrap() + "\n"
    }

    fn aside(path: &Path) -> PathBuf {
        let mut path = path.as_os_str().to_owned();
        path.push(".aside");
        path.into()
    }

    #[test]
    fn a_line_that_cannot_be_read_is_put_aside_once_and_is_not_destroyed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let good = settle(1);
        let unknown = "{\"begun\":{\"id\":7}}\n";
        let damaged = b"{\"open\":\xff\xff}\n";
        let mut written = unknown.as_bytes().to_vec();
        written.extend(line(&Line::Open(good.clone())).into_bytes());
        written.extend(damaged);
        written.extend(b"{\"open\":{\"id\"");
        std::fs::write(&path, written).unwrap();

        let (journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, std::slice::from_ref(&good));
        let both = [unknown.as_bytes(), damaged].concat();
        assert_eq!(std::fs::read(aside(&path)).unwrap(), both);
        let there = std::fs::metadata(aside(&path)).unwrap();
        assert_eq!(there.permissions().mode() & 0o777, 0o600);
        // What broke off is gone, and what follows is whole.
        let more = settle(2);
        begin(&journal, &more);
        drop(journal);
        let (journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [good.clone(), more.clone()]);
        assert_eq!(std::fs::read(aside(&path)).unwrap(), both, "once is enough");
        for settle in [good, more] {
            journal.write_done(settle.id).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        drop(journal);
        // With nothing else in it, too.
        std::fs::write(&path, unknown).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, []);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        let all = [&both, unknown.as_bytes()].concat();
        assert_eq!(std::fs::read(aside(&path)).unwrap(), all);
    }

    #[test]
    fn what_cannot_be_put_aside_stays_and_no_link_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let target = directory.path().join("target");
        std::fs::write(&target, "a").unwrap();
        std::os::unix::fs::symlink(&target, aside(&path)).unwrap();
        let unknown = "{\"begun\":7}\n";
        std::fs::write(&path, unknown).unwrap();
        let refused = Journal::open(&path).unwrap_err();
        assert!(refused.to_string().contains("journal.aside"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), unknown);
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "a");
        std::fs::remove_file(aside(&path)).unwrap();
        assert_eq!(Journal::open(&path).unwrap().1, []);
        assert_eq!(std::fs::read_to_string(aside(&path)).unwrap(), unknown);
    }

    #[test]
    fn an_impossible_ending_does_not_take_the_place_of_a_good_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let good = settle(1);
        let impossible = line(&Line::Ended(Settle {
            charge: Nanos(i64::MAX),
            ..good.clone()
        }));
        std::fs::write(&path, line(&Line::Open(good.clone())) + &impossible).unwrap();
        let (_journal, left) = Journal::open(&path).unwrap();
        assert_eq!(left, [good]);
        assert_eq!(std::fs::read_to_string(aside(&path)).unwrap(), impossible);
    }

    #[test]
    fn what_a_write_left_half_done_is_taken_away_before_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal");
        let (journal, _) = Journal::open(&path).unwrap();
        let (first, second) = (settle(1), settle(2));
        begin(&journal, &first);
        {
            let mut appended = journal.file.lock();
            appended.file.write_all(b"{\"open\":").unwrap();
            appended.torn = true;
        }
        begin(&journal, &second);
        drop(journal);
        let text = std::fs::read_to_string(&path).unwrap();
        let whole = [first, second].map(|settle| line(&Line::Open(settle)));
        assert_eq!(text, whole.concat());
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
        let lines = [lapsed, long, good.clone()].map(|settle| line(&Line::Open(settle)));
        let lines = lines.concat();
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
