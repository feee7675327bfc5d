//! The Python of the tests, with the packages of `tests/requirements.txt`: the SDKs, and what checks `deploy/`.

use std::path::{Path, PathBuf};

/// `scripts/test` makes it beside the build's own folder.
pub fn python() -> PathBuf {
    let beside_the_build = || {
        let build = Path::new(env!("CARGO_BIN_EXE_tollgate")).ancestors().nth(2);
        build
            .expect("a binary lies in a build's folder")
            .join("venv/bin/python")
    };
    let python =
        std::env::var_os("TOLLGATE_TEST_PYTHON").map_or_else(beside_the_build, PathBuf::from);
    there(python)
}

/// A program that a package of its brings along.
pub fn beside_python(program: &str) -> PathBuf {
    there(python().with_file_name(program))
}

fn there(program: PathBuf) -> PathBuf {
    assert!(
        program.exists(),
        "{} is missing: run scripts/test, which makes a Python with tests/requirements.txt there",
        program.display()
    );
    program
}
