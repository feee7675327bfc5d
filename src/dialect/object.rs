//! A JSON object as a list of its members, each left as it came.
//!
//! A member that stands twice is an error: two readers of one request must never see two different requests.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// More members than this are not looked at.
const MAX_MEMBERS: usize = 1024;

/// The members of an object.
#[derive(Debug, Default)]
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// A member's text; `None` where it is missing or null.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let member = self.members.iter().find(|(known, _)| known == name);
        member
            .map(|(_, value)| *value)
            .filter(|value| value.get() != "null")
    }

    /// A member of a certain type; `Ok(None)` where it is missing or null, an error where it is of another type.
    pub fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        self.get(name)
            .map(|value| serde_json::from_str(value.get()))
            .transpose()
    }

    /// A member that is a text.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, serde_json::Error> {
        self.get(name).map(text).transpose()
    }

    /// All members.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members
            .iter()
            .map(|(name, value)| (name.as_ref(), *value))
    }
}

/// A value that is a text, copied only where it is written with escapes.
pub fn text(value: &RawValue) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    #[serde(transparent)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

    serde_json::from_str::<Text>(value.get()).map(|text| text.0)
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object::default();
                while let Some(name) = map.next_key::<Name<'de>>()? {
                    if object.members.iter().any(|(known, _)| *known == name.0) {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                    if object.members.len() == MAX_MEMBERS {
                        return Err(A::Error::custom("there are too many members"));
                    }
                    object.members.push((name.0, map.next_value()?));
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
