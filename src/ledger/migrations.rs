//! What the migrations of both SQL ledgers have in common: whether a schema is this program's, and for how many shards.
//!
//! The migrations are in the binary, so a program and the schema it needs cannot be shipped apart.

use sqlx::migrate::Migrator;

use super::{Installation, LedgerError};

/// How many shards an installation has unless it asks for another number the first time.
pub const DEFAULT_SHARDS: u16 = 64;

/// The schema that this program knows.
pub(super) fn newest(known: &Migrator) -> i64 {
    let versions = known.iter().map(|migration| migration.version);
    versions.max().unwrap_or(0)
}

/// Whether what was applied, by version and checksum, is this program's schema or a later one's.
pub(super) fn look_over(known: &Migrator, applied: &[(i64, Vec<u8>)]) -> Result<(), LedgerError> {
    for migration in known.iter() {
        let version = migration.version;
        let found = applied.iter().find(|(applied, _)| *applied == version);
        let Some((_, checksum)) = found else {
            return Err(LedgerError::Nonsense(format!(
                "migration {version} is missing: run `tollgate migrate`"
            )));
        };
        if checksum[..] != migration.checksum[..] {
            return Err(LedgerError::Nonsense(format!(
                "migration {version} is not the one this program knows"
            )));
        }
    }
    Ok(())
}

/// The schema is not there at all.
pub(super) fn none() -> LedgerError {
    LedgerError::Nonsense("it has no schema: run `tollgate migrate`".into())
}

/// The number of shards counts only the first time (rule 17).
pub(super) fn agree(found: Installation, asked: Option<u16>) -> Result<Installation, LedgerError> {
    if asked.is_some_and(|asked| asked != found.shards) {
        return Err(LedgerError::Invalid(format!(
            "this installation has {} shards, for ever: leave --shards away",
            found.shards
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");

    fn names(dialect: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(format!("{FOLDER}/{dialect}"))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// What has landed was run somewhere: changing it would part two installations of the same version.
    #[test]
    fn a_landed_migration_is_never_changed() {
        for (dialect, list) in [
            ("postgres", "landed.sha256"),
            ("sqlite", "landed-sqlite.sha256"),
        ] {
            let landed = std::fs::read_to_string(format!("{FOLDER}/{list}")).unwrap();
            let mut listed = Vec::new();
            for line in landed.lines() {
                let (hash, name) = line.split_once("  ").unwrap();
                let text = std::fs::read(format!("{FOLDER}/{dialect}/{name}")).unwrap();
                let found = Sha256::digest(&text);
                let found = found
                    .iter()
                    .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
                assert_eq!(found, hash, "{name} has landed: add a migration instead");
                listed.push(name.to_owned());
            }
            assert_eq!(
                listed,
                names(dialect),
                "list each {dialect} migration in {list}"
            );
        }
    }

    /// With PostgreSQL goes a store that is a server of its own, with its own journal; and there no posting is changed, so
    /// nothing is looked for that points at it.
    const OF_SQLITE_ALONE: [&str; 2] = ["0010_journal.sql", "0011_entries_of_a_posting.sql"];

    /// A number means the same in both, so that whoever knows one schema knows the other.
    #[test]
    fn both_dialects_have_the_same_migrations_but_for_what_one_has_alone() {
        let mut sqlite = names("sqlite");
        sqlite.retain(|name| !OF_SQLITE_ALONE.contains(&name.as_str()));
        assert_eq!(sqlite, names("postgres"));
    }
}
