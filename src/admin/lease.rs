//! The lease: which process owns an embedded installation's file, and how commands reach it (rule 29).
//!
//! It is a lock on `<file>.lease`, which the machine gives back when its owner dies, however that comes. What is written
//! in it is for commands alone: where the owner listens, and the token that shows that they may read this file.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use crate::own_file::{self, MODE};

/// How long an owner may take to say where it listens, or, if it is a command, to end.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EACH: Duration = Duration::from_millis(20);

/// What its owner says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub pid: u32,
    /// `None` for a command, and for a sidecar that is starting.
    pub listens: Option<Listens>,
}

/// How commands reach a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listens {
    /// The control listener, as a base URL.
    pub control: String,
    pub token: String,
}

/// The file is this process's own until this is dropped.
///
/// Beside the lease the file itself is locked, so that neither another name of it nor a lease that is removed makes a
/// second owner. SQLite locks by other means; its connections are closed before this is dropped, as closing any handle of
/// a file ends SQLite's locks of it.
#[derive(Debug)]
#[must_use = "the file is given back when this is dropped"]
pub(super) struct Lease {
    said: File,
    _file: File,
}

/// What came of one attempt to take the lease.
enum Taken {
    Us(Lease),
    /// Somebody else, who says in here who it is.
    By(File),
}

/// Who has the lease.
pub(super) enum Holder {
    Us(Lease),
    Sidecar(Listens),
    /// Somebody who does not say where it listens.
    Silent(PathBuf),
}

impl Lease {
    /// Takes it, or says who has it. One who has just begun or is soon done is waited for.
    pub async fn take(file: &Path) -> Result<Holder, Failure> {
        if file.is_symlink() && !file.exists() {
            // Under the link's name it would be owned beside the link, and under its own once more.
            return Err(Failure::Usage(format!(
                "{} is a link to a file that is not there: name the file itself the first time",
                file.display()
            )));
        }
        let path = path(file);
        let until = Instant::now() + PATIENCE;
        loop {
            let failed = |error| Failure::Usage(format!("{}: {error}", path.display()));
            let mut said = match Self::try_take(&path, file).map_err(failed)? {
                Taken::Us(lease) => return Ok(Holder::Us(lease)),
                Taken::By(said) => said,
            };
            // What is half written, or not written yet, is read again.
            if let Some(listens) = read(&mut said) {
                return Ok(Holder::Sidecar(listens));
            }
            if Instant::now() >= until {
                return Ok(Holder::Silent(path));
            }
            sleep(LOOK_EACH).await;
        }
    }

    fn try_take(path: &Path, file: &Path) -> io::Result<Taken> {
        let mut access = OpenOptions::new();
        access.read(true).write(true);
        let said = own_file::open(path, &access)?;
        if !lock(&said)? {
            return Ok(Taken::By(said));
        }
        // It may be a link: that is the name which the operator has chosen.
        let file = access.create(true).mode(MODE).open(file)?;
        if !lock(&file)? {
            return Ok(Taken::By(said));
        }
        said.set_permissions(Permissions::from_mode(MODE))?;
        let mut lease = Self { said, _file: file };
        lease.write(None)?;
        Ok(Taken::Us(lease))
    }

    /// From now on commands find the owner.
    pub fn say(&mut self, listens: Listens) -> io::Result<()> {
        self.write(Some(listens))
    }

    fn write(&mut self, listens: Option<Listens>) -> io::Result<()> {
        let pid = std::process::id();
        let said = serde_json::to_vec(&Owner { pid, listens })?;
        self.said.set_len(0)?;
        self.said.rewind()?;
        self.said.write_all(&said)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Whoever reads it from now on finds nobody; the lock goes with the file.
        let _ = self.said.set_len(0);
    }
}

/// Locks a file; false where another process has it.
fn lock(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Where the owner says that it listens: read from the file that was looked at, whatever has its name by now.
fn read(said: &mut File) -> Option<Listens> {
    let mut text = String::new();
    said.read_to_string(&mut text).ok()?;
    let owner: Owner = serde_json::from_str(&text).ok()?;
    owner.listens
}

/// Beside the file itself, also where that is named by a link.
fn path(file: &Path) -> PathBuf {
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut path = file.into_os_string();
    path.push(".lease");
    path.into()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn listens() -> Listens {
        Listens {
            control: "http://127.0.0.1:8081".into(),
            token: "t".into(),
        }
    }

    #[tokio::test]
    async fn one_has_it_and_the_next_one_learns_who() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("t.db");
        let Ok(Holder::Us(mut lease)) = Lease::take(&file).await else {
            panic!("nobody has it");
        };
        lease.say(listens()).unwrap();
        let mode = fs::metadata(path(&file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let Ok(Holder::Sidecar(owner)) = Lease::take(&file).await else {
            panic!("it is taken");
        };
        assert_eq!(owner, listens());
        drop(lease);
        assert!(matches!(Lease::take(&file).await, Ok(Holder::Us(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_listens_nowhere_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("t.db");
        let lease = Lease::take(&file).await.unwrap();
        let later = async {
            sleep(Duration::from_secs(1)).await;
            drop(lease);
        };
        let (taken, ()) = tokio::join!(Lease::take(&file), later);
        let Ok(Holder::Us(_lease)) = taken else {
            panic!("it was given back");
        };
        let again = Lease::take(&file).await;
        assert!(matches!(again, Ok(Holder::Silent(_))));
    }

    #[tokio::test]
    async fn a_link_has_the_lease_of_its_file_and_none_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.db"), folder.path().join("b.db"));
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(Lease::take(&link).await.is_err(), "there is no file");
        fs::write(&file, "").unwrap();
        let Ok(Holder::Us(mut lease)) = Lease::take(&link).await else {
            panic!("nobody else has it");
        };
        lease.say(listens()).unwrap();
        let held = Lease::take(&file).await;
        assert!(matches!(held, Ok(Holder::Sidecar(_))));
        // Nor does a lease that is gone make a second owner, or another name that no link shows.
        let other = folder.path().join("c.db");
        fs::hard_link(&file, &other).unwrap();
        let is_ours =
            |file: &Path| matches!(Lease::try_take(&path(file), file).unwrap(), Taken::Us(_));
        assert!(!is_ours(&other));
        fs::remove_file(path(&file)).unwrap();
        assert!(!is_ours(&file));
        drop(lease);
        // A process that another test has just forked has the lock, too, until it is another program.
        let soon = (0..1000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            is_ours(&other)
        });
        assert!(soon);
    }

    #[tokio::test]
    async fn a_lease_that_is_a_link_or_no_regular_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (file, target) = (folder.path().join("a.db"), folder.path().join("target"));
        fs::write(&target, "theirs").unwrap();
        fs::set_permissions(&target, Permissions::from_mode(0o644)).unwrap();
        let refused = async || match Lease::take(&file).await {
            Err(refused) => refused.to_string(),
            Ok(_) => panic!("it is taken"),
        };
        std::os::unix::fs::symlink(&target, path(&file)).unwrap();
        let said = refused().await;
        assert!(said.contains("a.db.lease"), "{said}");
        assert!(said.contains("not a regular file"), "{said}");
        assert_eq!(fs::read_to_string(&target).unwrap(), "theirs");
        let mode = fs::metadata(&target).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        // Nor is one made where a link points.
        fs::remove_file(&target).unwrap();
        refused().await;
        assert!(!target.exists());

        fs::remove_file(path(&file)).unwrap();
        let pipe = Command::new("mkfifo").arg(path(&file)).status();
        assert!(pipe.unwrap().success());
        let said = refused().await;
        assert!(said.contains("not a regular file"), "{said}");
        fs::remove_file(path(&file)).unwrap();
        assert!(matches!(Lease::take(&file).await, Ok(Holder::Us(_))));
    }

    #[tokio::test]
    async fn a_holder_is_read_from_the_file_that_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.db");
        let Ok(Holder::Us(mut lease)) = Lease::take(&file).await else {
            panic!("nobody has it");
        };
        lease.say(listens()).unwrap();
        let Ok(Taken::By(mut said)) = Lease::try_take(&path(&file), &file) else {
            panic!("it is taken");
        };
        // What the name stands for meanwhile is not what was looked at.
        fs::remove_file(path(&file)).unwrap();
        fs::write(path(&file), "{}").unwrap();
        assert_eq!(read(&mut said), Some(listens()));
    }
}
