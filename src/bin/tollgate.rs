//! The sidecar and its commands.

fn main() {}
