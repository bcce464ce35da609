//! YAML as a tree in which every key and value knows its place.
//!
//! Owns: what such a tree holds. Must not know: how it is parsed, what a pipeline is.

use std::{fmt, sync::Arc};

use super::{
    origin::Origin,
    source::{At, SourceFile, Span},
};

/// A YAML value, its place, and where it came from if not from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub value: Value,
    /// Of a list or map, up to the end of its last member.
    pub span: Span,
    /// Set when a param, a matrix or something outside the file gave the value.
    pub origin: Option<Arc<Origin>>,
}

/// What a YAML node holds. Maps keep their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    String(String),
    List(Vec<Node>),
    Map(Vec<(At<String>, Node)>),
}

impl Node {
    /// What the environment gave is text; one that reads as a number or a truth, and is written as that would be, is one.
    pub(super) fn read_variable(&mut self) {
        let is_given = self.origin.as_ref().is_some_and(|origin| origin.is_variable());
        if let (Value::String(text), true) = (&self.value, is_given)
            && let Some(value) = Self::plain(text)
            && Self::new(value.clone(), self.span).to_string() == *text
        {
            self.value = value;
        }
    }

    /// A number or a truth, as YAML reads this text.
    pub(super) fn plain(text: &str) -> Option<Value> {
        match Self::parse(&SourceFile::new("", text)) {
            Ok((Self { value: value @ (Value::Bool(_) | Value::Int(_) | Value::Float(_)), .. }, found))
                if found.is_empty() =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    pub fn new(value: Value, span: Span) -> Self {
        Self { value, span, origin: None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = &self.value { Some(text) } else { None }
    }
    pub fn as_map(&self) -> Option<&[(At<String>, Node)]> {
        if let Value::Map(entries) = &self.value { Some(entries) } else { None }
    }
    pub fn as_f64(&self) -> Option<f64> {
        match self.value {
            Value::Int(number) => Some(number as f64),
            Value::Float(number) => Some(number),
            _ => None,
        }
    }
    /// A whole number that fits; `1e3` is one too.
    pub fn as_int(&self) -> Option<i128> {
        match self.value {
            Value::Int(number) => Some(number),
            Value::Float(number) if number.fract() == 0.0 && number.abs() < 9.0e15 => Some(number as i128),
            _ => None,
        }
    }
    /// The value of a key of a map.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.iter().find(|(name, _)| name.value == key).map(|(_, node)| node)
    }
    /// `text`, `a list`: how a message names what was given.
    pub fn describe(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) => "a whole number",
            Value::Float(_) => "a number",
            Value::String(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The plain value, places left behind. A number beyond JSON's integers becomes a float.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(truth) => Json::Bool(*truth),
            Value::Int(number) => int_json(*number),
            Value::Float(number) => Json::from(*number),
            Value::String(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.value.clone(), node.to_json())).collect())
            }
        }
    }
}

/// The text of a scalar, as it goes into other text.
impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Value::String(text) => f.write_str(text),
            _ => write!(f, "{}", self.to_json()),
        }
    }
}

pub(crate) fn int_json(number: i128) -> serde_json::Value {
    i64::try_from(number)
        .map(serde_json::Value::from)
        .or_else(|_| u64::try_from(number).map(serde_json::Value::from))
        .unwrap_or_else(|_| serde_json::Value::from(number as f64))
}
