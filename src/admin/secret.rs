//! A key's secret: made here, shown once, stored nowhere.
//!
//! 256 random bits, so that its SHA-256 cannot be guessed backwards and a slow hash would protect nothing.

use sha2::{Digest, Sha256};

use crate::ledger::KeyHash;

const PREFIX: &str = "tg_";
const BYTES: usize = 32;
const DIGITS: [char; 16] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
];

/// A secret that has not been shown yet.
pub struct KeySecret(String);

impl KeySecret {
    /// A fresh one, from the generator that is made for keys and seeded by the system.
    pub fn generate() -> Self {
        Self(format!("{PREFIX}{}", random_digits()))
    }

    /// The text a caller sends.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the ledger keeps of it.
    pub fn hash(&self) -> KeyHash {
        KeyHash(Sha256::digest(self.0.as_bytes()).into())
    }

    /// Its end, to tell it by.
    pub fn last_four(&self) -> &str {
        &self.0[self.0.len() - 4..]
    }
}

/// As many random bits as a key has, in hexadecimal.
pub(super) fn random_digits() -> String {
    let random: [u8; BYTES] = rand::random();
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    random.into_iter().flat_map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_secrets_are_the_same_and_none_is_short() {
        let (one, other) = (KeySecret::generate(), KeySecret::generate());
        assert_ne!(one.expose(), other.expose());
        assert_eq!(one.expose().len(), PREFIX.len() + 2 * BYTES);
        assert!(one.expose().ends_with(one.last_four()));
    }
}
