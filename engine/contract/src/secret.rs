//! Secrets: named in a pipeline file, known to one worker, written nowhere.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;

/// Which secret a param means: `${secret.X}` in the file and in every record, the engine's environment variable `X`.
///
/// A field of this type, or one that holds some, carries `#[schemars(extend("x-role" = "secret"))]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

impl SecretName {
    /// Reads `${secret.X}`; nothing else is a name, so that a value typed into a file is refused and not kept.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("${secret.")?.strip_suffix('}')?;
        let is_variable = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        is_variable.then(|| Self(name.to_owned()))
    }
    /// The environment variable: `X` of `${secret.X}`.
    pub fn variable(&self) -> &str {
        &self.0
    }
    /// Every name in a param of role secret, however deep.
    pub(crate) fn collect(value: &Value, into: &mut Vec<Self>) {
        match value {
            Value::String(text) => into.extend(Self::parse(text).filter(|name| !into.contains(name))),
            Value::Array(items) => items.iter().for_each(|item| Self::collect(item, into)),
            Value::Object(map) => map.values().for_each(|item| Self::collect(item, into)),
            _ => {}
        }
    }
}

impl Serialize for SecretName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("${{secret.{}}}", self.0))
    }
}

impl<'de> Deserialize<'de> for SecretName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text may be the secret itself: it is in no message.
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| D::Error::custom("a secret is written `${secret.NAME}`, never as its value"))
    }
}

impl JsonSchema for SecretName {
    fn schema_name() -> Cow<'static, str> {
        "SecretName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^\$\{secret\.[A-Za-z_][A-Za-z0-9_]*\}$" })
    }
}

/// The value of a secret. It has no `Debug`, no `Display` and no `Serialize`.
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
    /// The value, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_and_its_value_is_refused_without_being_repeated() {
        let name: SecretName = serde_json::from_value("${secret.HF_TOKEN}".into()).unwrap();
        assert_eq!(name.variable(), "HF_TOKEN");
        assert_eq!(serde_json::to_value(&name).unwrap(), "${secret.HF_TOKEN}");
        for text in ["hf_abcdefgh", "${secret.}", "${secret.A B}", "${secret.9}", "x${secret.A}"] {
            let error = serde_json::from_value::<SecretName>(text.into()).unwrap_err().to_string();
            assert!(!error.contains(text), "{error}");
        }
    }
}
