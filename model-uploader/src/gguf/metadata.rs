//! Values of the metadata by key, of the type that is wanted.

use super::error::{GgufError, Result};
use super::reader::Value;
use std::collections::BTreeMap;

/// The metadata of a file. What is missing is `None`; what has another type is an error.
#[derive(Clone, Copy)]
pub(super) struct Metadata<'a>(pub &'a BTreeMap<String, Value>);

/// The value, or an error that names the key.
pub(super) fn required<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| GgufError::MissingKey(key.to_string()))
}

impl<'a> Metadata<'a> {
    fn get<T>(self, key: &str, expected: &'static str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.0.get(key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| GgufError::KeyType { key: key.to_string(), expected })
    }

    pub fn unsigned(self, key: &str) -> Result<Option<u64>> {
        self.get(key, "a whole number from 0", |value| match value {
            Value::Unsigned(value) => Some(*value),
            Value::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    pub fn float(self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a number", |value| match value {
            Value::Float(value) => Some(*value),
            _ => None,
        })
    }

    pub fn bool(self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    pub fn string(self, key: &str) -> Result<Option<&'a str>> {
        self.get(key, "a text", |value| match value {
            Value::String(value) => Some(value.as_str()),
            _ => None,
        })
    }

    pub fn strings(self, key: &str) -> Result<Option<&'a [String]>> {
        self.get(key, "a list of texts", |value| match value {
            Value::Strings(values) => Some(values.as_slice()),
            _ => None,
        })
    }

    pub fn integers(self, key: &str) -> Result<Option<&'a [i64]>> {
        self.get(key, "a list of whole numbers", |value| match value {
            Value::Integers(values) => Some(values.as_slice()),
            _ => None,
        })
    }

    pub fn floats(self, key: &str) -> Result<Option<&'a [f32]>> {
        self.get(key, "a list of numbers", |value| match value {
            Value::Floats(values) => Some(values.as_slice()),
            _ => None,
        })
    }
}
