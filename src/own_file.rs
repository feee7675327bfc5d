//! Opens a file that Tollgate keeps beside another one, under a name that nobody has chosen.
//!
//! So whatever else is under that name was put there by somebody else: no link is followed, and nothing is opened that is
//! no regular file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Nobody else reads it.
pub(crate) const MODE: u32 = 0o600;

/// Opens it for what `access` says, and makes it where there is none.
pub(crate) fn open(path: &Path, access: &OpenOptions) -> io::Result<File> {
    match access.clone().create_new(true).mode(MODE).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => open_there(path, access),
        opened => opened,
    }
}

fn open_there(path: &Path, access: &OpenOptions) -> io::Result<File> {
    // Before it is opened, since a pipe may keep whoever opens it waiting.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = access.open(path)?;
    // And after, since the name may have changed hands meanwhile. What is open keeps its inode for itself.
    let (named, opened) = (fs::symlink_metadata(path)?, file.metadata()?);
    let same = (named.dev(), named.ino()) == (opened.dev(), opened.ino());
    if named.is_file() && same {
        Ok(file)
    } else {
        Err(not_regular())
    }
}

fn not_regular() -> io::Error {
    io::Error::other(
        "it is not a regular file, and links are not followed here: find out who put it there, and remove it",
    )
}
