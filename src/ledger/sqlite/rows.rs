//! Statements over many rows, every value of them bound.
//!
//! SQLite has no arrays. Rows within one JSON text would be one parameter, but SQLite looks each value up in that text
//! again, which costs more than all else that happens to the row. So a statement has room for a fixed number of rows, in a
//! few sizes, each prepared once. What is left of the room is null, and passed over.

use std::sync::OnceLock;

use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Sqlite, SqliteConnection};

/// For how many rows there is room: the least that is enough is taken, and what is longer takes several statements. The
/// largest one is far from SQLite's bound of 32,766 parameters.
const ROOMS: [usize; 4] = [4, 16, 64, 256];
const MOST: usize = ROOMS[ROOMS.len() - 1];

/// A statement that has a list of rows in it, and no other parameter before them. It does nothing for a row whose first
/// value is null.
pub(super) struct Rows {
    before: &'static str,
    columns: usize,
    after: &'static str,
    texts: [OnceLock<String>; ROOMS.len()],
}

/// A statement to which the values of a row are bound, one after the other.
pub(super) type Bound = Query<'static, Sqlite, SqliteArguments>;

impl Rows {
    /// The rows, of so many columns, stand between these.
    pub const fn new(before: &'static str, columns: usize, after: &'static str) -> Self {
        Self {
            before,
            columns,
            after,
            texts: [const { OnceLock::new() }; ROOMS.len()],
        }
    }

    /// Runs it over all of these; says how many rows of the table it touched.
    pub async fn execute<'t, T>(
        &'static self,
        tx: &mut SqliteConnection,
        rows: &'t [T],
        mut bind: impl FnMut(Bound, &'t T) -> Bound,
    ) -> Result<usize, sqlx::Error> {
        let mut touched = 0;
        for rows in rows.chunks(MOST) {
            let done = self.over(rows, &mut bind).execute(&mut *tx).await?;
            touched += usize::try_from(done.rows_affected()).unwrap_or(usize::MAX);
        }
        Ok(touched)
    }

    /// Runs it over all of these; answers what it returns.
    pub async fn fetch<'t, T>(
        &'static self,
        tx: &mut SqliteConnection,
        rows: &'t [T],
        mut bind: impl FnMut(Bound, &'t T) -> Bound,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut fetched = Vec::new();
        for rows in rows.chunks(MOST) {
            fetched.extend(self.over(rows, &mut bind).fetch_all(&mut *tx).await?);
        }
        Ok(fetched)
    }

    fn over<'t, T>(
        &'static self,
        rows: &'t [T],
        bind: &mut impl FnMut(Bound, &'t T) -> Bound,
    ) -> Bound {
        let statement = sqlx::query(self.text(rows.len()));
        rows.iter().fold(statement, bind)
    }

    fn text(&'static self, rows: usize) -> &'static str {
        let place = ROOMS.partition_point(|room| *room < rows);
        self.texts[place].get_or_init(|| {
            let row = format!("({})", vec!["?"; self.columns].join(", "));
            let rows = vec![row; ROOMS[place]].join(", ");
            format!("{}{rows}{}", self.before, self.after)
        })
    }
}
