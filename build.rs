//! Tells cargo that the migrations are part of the binary, so that a new file rebuilds it.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
