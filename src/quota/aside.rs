//! Lines of the journal of bounded calls that nobody can settle, put aside in a file beside it.
//!
//! The journal is emptied once nothing of it is open; what it said that could not be charged must outlive that
//! (invariant 5).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::own_file;

/// The file, which is there once there is something in it.
#[derive(Debug)]
pub(super) struct Aside(PathBuf);

impl Aside {
    /// Beside its journal.
    pub fn of(journal: &Path) -> Self {
        let mut path = journal.as_os_str().to_owned();
        path.push(".aside");
        Self(path.into())
    }

    /// Where.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Appends whole lines. They are on the disk when this returns, so that the journal may forget them.
    pub fn put(&self, lines: &[u8]) -> io::Result<()> {
        let put = || {
            let access = OpenOptions::new().read(true).append(true).clone();
            let mut file = own_file::open(&self.0, &access)?;
            let mut bytes = Vec::with_capacity(lines.len() + 1);
            if is_torn(&file)? {
                bytes.push(b'\n');
            }
            bytes.extend(lines);
            file.write_all(&bytes)?;
            file.sync_data()
        };
        put().map_err(|error| {
            io::Error::other(format!(
                "a line of it must be put aside in {}, which failed: {error}",
                self.0.display()
            ))
        })
    }
}

/// Whether the last one who wrote broke off.
fn is_torn(file: &File) -> io::Result<bool> {
    let bytes = file.metadata()?.len();
    let mut last = *b"\n";
    if bytes > 0 {
        file.read_exact_at(&mut last, bytes - 1)?;
    }
    Ok(&last != b"\n")
}
