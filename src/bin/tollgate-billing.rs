//! The companion: it turns payments into plans, credits and limits. Only its version is built so far.

use clap::Parser;

#[derive(Parser)]
#[command(
    version,
    about = "Turns payments into plans, credits and limits. Not built yet: only --version answers."
)]
struct Arguments {}

fn main() {
    Arguments::parse();
}
