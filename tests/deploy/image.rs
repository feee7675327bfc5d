//! The Dockerfile against the crate: what it builds with, what it copies, what it needs at run time. No image is built
//! here: that takes an engine, and base images from a registry.

use std::collections::BTreeSet;
use std::process::Command;

use regex::Regex;
use toml::Table;

use super::{job, pod, read, root, sidecar};
use crate::harness::python::beside_python;

/// The libraries of `cc-debian12`, as far as a program in Rust may need them.
const IN_THE_BASE_IMAGE: [&str; 6] = [
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libgcc_s.so.1",
    "libm.so.6",
    "linux-vdso.so.1",
];

fn found(pattern: &str, text: &str) -> Vec<String> {
    let pattern = Regex::new(pattern).expect("a pattern");
    let found = pattern.captures_iter(text);
    found.map(|one| one[1].to_owned()).collect()
}

fn dockerfile() -> String {
    read("Dockerfile")
}

fn package() -> Table {
    let manifest: Table = read("Cargo.toml").parse().expect("TOML");
    manifest["package"].as_table().expect("a table").clone()
}

/// What the build stage copies, relative to the root.
fn copied() -> Vec<String> {
    let dockerfile = dockerfile();
    let (build, _) = dockerfile.split_once("\nFROM gcr.io").expect("two stages");
    let lines = found(r"(?m)^COPY (.+) \S+$", build);
    let paths = lines.iter().flat_map(|line| line.split(' '));
    paths.map(str::to_owned).collect()
}

#[test]
fn it_is_built_with_the_rust_and_labelled_with_the_version_of_the_crate() {
    let package = package();
    let of = |key: &str| package[key].as_str().expect("a text").to_owned();
    let rust = found(r"(?m)^FROM rust:([\d.]+)-bookworm AS build$", &dockerfile());
    assert_eq!(rust, [of("rust-version")]);
    for (label, key) in [
        ("title", "name"),
        ("version", "version"),
        ("licenses", "license"),
    ] {
        let pattern = format!(r#"org\.opencontainers\.image\.{label}="([^"]+)""#);
        assert_eq!(found(&pattern, &dockerfile()), [of(key)], "{label}");
    }
}

#[test]
fn the_program_that_is_built_is_the_one_that_is_started_by_itself_and_not_as_root() {
    let dockerfile = dockerfile();
    let built = found(r"cargo build --release --locked --bin (\S+)", &dockerfile);
    assert_eq!(built, ["tollgate"]);
    let entrypoint = r#"(?m)^ENTRYPOINT \["/usr/local/bin/([^"]+)"\]$"#;
    assert_eq!(found(entrypoint, &dockerfile), built);
    let user = found(r"(?m)^USER (\d+:\d+)$", &dockerfile);
    assert_eq!(user, ["65532:65532"]);
    for pod in [pod(), job()] {
        assert_eq!(pod["securityContext"]["runAsUser"], 65532);
        assert_eq!(pod["securityContext"]["runAsGroup"], 65532);
    }
    let arguments = found(r#"(?m)^CMD \["(.+)"\]$"#, &dockerfile);
    let arguments: Vec<&str> = arguments[0].split(r#"", ""#).collect();
    let of_sidecar = sidecar()["args"].as_array().expect("arguments");
    assert_eq!(*of_sidecar, arguments);
}

#[test]
fn its_ports_are_those_of_the_listeners_that_others_may_reach() {
    let defaults: Table = read("config/default.toml").parse().expect("TOML");
    let port = |listener: &str| {
        let address = defaults["listen"][listener].as_str().expect("an address");
        address.rsplit(':').next().expect("a port").to_owned()
    };
    let exposed = found(r"(?m)^EXPOSE (.+)$", &dockerfile());
    assert_eq!(exposed, [format!("{} {}", port("proxy"), port("health"))]);
}

#[test]
fn all_that_the_build_needs_is_copied_and_sent_along() {
    let copied = copied();
    let sent = read(".dockerignore");
    let sent: Vec<&str> = sent.lines().filter_map(|l| l.strip_prefix('!')).collect();
    for path in &copied {
        assert!(root().join(path).exists(), "{path}");
        assert!(sent.contains(&path.as_str()), "{path}");
    }
    assert!(sent.contains(&"LICENSE"));
    // Whatever the sources take in from outside their own folder is in a folder that is copied.
    let mut outside = BTreeSet::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let source = read(&path);
            let taken = r#"include_(?:str|bytes)!\(\s*(?:concat!\(\s*)?"(?:\.\./)+([\w.-]+)"#;
            outside.extend(found(taken, &source));
            outside.extend(found(r#"migrate!\("([\w.-]+)"#, &source));
        }
    }
    for folder in ["config", "lua", "migrations"] {
        assert!(outside.contains(folder), "{outside:?}");
    }
    for taken in outside {
        let inside = root().join("src").join(&taken).exists();
        assert!(inside || copied.contains(&taken), "{taken}");
    }
}

/// Of the program that the tests run: it is linked to the same crates as the one of the image.
#[test]
fn it_needs_no_library_that_the_base_image_lacks() {
    let base = found(r"(?m)^FROM (gcr\.io/\S+)$", &dockerfile());
    assert_eq!(base, ["gcr.io/distroless/cc-debian12:nonroot"]);
    let program = env!("CARGO_BIN_EXE_tollgate");
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide", program])
        .output();
    let output = output.expect("readelf runs: it comes with the linker that built this");
    assert!(output.status.success());
    let section = String::from_utf8(output.stdout).expect("text");
    let needed = found(r"\(NEEDED\).*\[(.+)\]", &section);
    assert!(needed.contains(&"libc.so.6".to_owned()), "{needed:?}");
    for library in needed {
        assert!(IN_THE_BASE_IMAGE.contains(&library.as_str()), "{library}");
    }
}

#[test]
fn the_linter_has_nothing_to_say() {
    let mut linter = Command::new(beside_python("hadolint"));
    let output = linter.arg("--no-color").arg(root().join("Dockerfile"));
    let output = output.output().expect("hadolint runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
