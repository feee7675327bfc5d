//! What `deploy/` and the Dockerfile promise: the manifests fit Kubernetes' schemas, and what they say of Tollgate is so.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::python::python;

mod app;
mod configuration;
mod image;
mod manifests;
mod observability;
mod pods;

/// A document of a manifest.
struct Manifest {
    /// The file that it is in, below `deploy/kubernetes`.
    file: String,
    document: Value,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn kubernetes() -> PathBuf {
    root().join("deploy/kubernetes")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of `deploy/kubernetes` that ends so.
fn files(ending: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![kubernetes()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Validates files, and shows their documents.
fn validate(files: &[PathBuf]) -> Output {
    let script = root().join("tests/deploy/manifests.py");
    let mut command = Command::new(python());
    // -B: it leaves no compiled files behind.
    let output = command.arg("-B").arg(script).args(files).output();
    output.expect("python runs")
}

/// Every document of `deploy/kubernetes`. A file that does not fit its schema fails whichever test asks first.
fn manifests() -> &'static [Manifest] {
    static MANIFESTS: OnceLock<Vec<Manifest>> = OnceLock::new();
    MANIFESTS.get_or_init(|| {
        let output = validate(&files(".yaml"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let lines = String::from_utf8(output.stdout).expect("text");
        let manifest = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect("a line of JSON");
            let file = line["file"].as_str().expect("a file");
            let file = Path::new(file).strip_prefix(kubernetes()).expect("below");
            Manifest {
                file: file.display().to_string(),
                document: line["document"].take(),
            }
        };
        lines.lines().map(manifest).collect()
    })
}

/// The only document of its kind in a file.
fn manifest(file: &str, kind: &str) -> &'static Value {
    let of_it = |manifest: &&Manifest| manifest.file == file && manifest.document["kind"] == kind;
    let mut found = manifests().iter().filter(of_it);
    let manifest = found
        .next()
        .unwrap_or_else(|| panic!("{file} has no {kind}"));
    assert!(found.next().is_none(), "{file} has two of {kind}");
    &manifest.document
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}

/// The pod of the app with the sidecar beside it.
fn pod() -> &'static Value {
    &manifest("app/deployment.yaml", "Deployment")["spec"]["template"]["spec"]
}

fn sidecar() -> &'static Value {
    let containers = list(&pod()["initContainers"]);
    let sidecar = containers.iter().find(|one| one["name"] == "tollgate");
    sidecar.expect("a sidecar")
}

/// The pod of the job that migrates the ledger.
fn job() -> &'static Value {
    &manifest("migrate/job.yaml", "Job")["spec"]["template"]["spec"]
}
