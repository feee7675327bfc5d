//! Whole numbers as the scripts know them: a number below 2^53, a decimal text beyond, where a double would round.

use std::fmt;

use rmp_serde::decode::ReadReader;
use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An integer that is exact on both sides, packed and unpacked as the scripts' prelude says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exact(pub i64);

/// Where the integers end that every double tells apart.
const DOUBLES_END: u64 = 1 << 53;

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.unsigned_abs() < DOUBLES_END {
            serializer.serialize_i64(self.0)
        } else {
            serializer.collect_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ExactVisitor)
    }
}

struct ExactVisitor;

impl Visitor<'_> for ExactVisitor {
    type Value = Exact;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, or its decimal text")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Exact, E> {
        Ok(Exact(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Exact, E> {
        i64::try_from(value).map(Exact).map_err(E::custom)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Exact, E> {
        text.parse().map(Exact).map_err(E::custom)
    }
}

/// What the scripts know as `false` where there is none: a hole would end a Lua list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OrFalse<T>(pub Option<T>);

impl<T: Serialize> Serialize for OrFalse<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_bool(false),
        }
    }
}

/// Values one after the other, as the scripts pack flat lists.
pub(super) struct Unpacked<'a>(rmp_serde::Deserializer<ReadReader<&'a [u8]>>);

impl<'a> Unpacked<'a> {
    pub fn new(packed: &'a [u8]) -> Self {
        Self(rmp_serde::Deserializer::new(packed))
    }

    pub fn is_empty(&self) -> bool {
        self.0.get_ref().is_empty()
    }

    /// `None` where the next value is of another kind, or there is none.
    pub fn take<T: DeserializeOwned>(&mut self) -> Option<T> {
        T::deserialize(&mut self.0).ok()
    }

    /// The values that are left, in groups.
    pub fn rest<T>(mut self, mut take: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        while !self.is_empty() {
            all.push(take(&mut self)?);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_reads_back_as_written_on_both_sides_of_the_doubles_end() {
        let end = 1_i64 << 53;
        for value in [
            0,
            -1,
            end - 1,
            end,
            end + 1,
            -end,
            1 - end,
            i64::MAX,
            i64::MIN,
        ] {
            let packed = rmp_serde::to_vec(&Exact(value)).unwrap();
            assert_eq!(
                rmp_serde::from_slice::<Exact>(&packed).unwrap(),
                Exact(value)
            );
            let is_number = packed[0] < 0xa0 || packed[0] >= 0xca && packed[0] < 0xd9;
            let is_number = is_number || packed[0] >= 0xe0;
            assert_eq!(is_number, value.unsigned_abs() < 1 << 53, "{value}");
        }
    }
}
