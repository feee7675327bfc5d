//! Chance that can be repeated: a randomised test says which seed it has, and takes one from the environment.

use rand::RngExt;

/// The seed of this run, as the environment or chance has it.
pub fn seed() -> u64 {
    let given = std::env::var("TOLLGATE_TEST_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random());
    println!("TOLLGATE_TEST_SEED={seed}");
    seed
}
