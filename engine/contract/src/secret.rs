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

/// Takes the values of secrets out of texts: each whole, each long line of one, and both as JSON writes them.
#[derive(Clone, Default)]
pub struct Scrubber(Vec<String>);

impl Scrubber {
    /// Characters of a line that is hidden alone: a shorter one says nothing and stands in much else.
    const LINE_CHARS: usize = 8;

    pub fn new<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut hidden = Vec::new();
        for value in values.into_iter().map(str::trim).filter(|value| !value.is_empty()) {
            let lines = value.lines().map(str::trim).filter(|line| line.chars().count() >= Self::LINE_CHARS);
            for part in std::iter::once(value).chain(lines) {
                let json = Value::from(part).to_string();
                let json = json[1..json.len() - 1].to_owned(); // without its quotes
                hidden.extend([in_ascii(&json), json, part.to_owned()]);
            }
        }
        // The longest first: what is left of one whose part was hidden would show.
        hidden.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        hidden.dedup();
        Self(hidden)
    }

    /// The text with `***` in the place of every value.
    pub fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, hidden| match text.contains(hidden.as_str()) {
            true => text.replace(hidden.as_str(), "***"),
            false => text,
        })
    }

    /// A text whose end was cut off, without what a value may begin with there.
    pub fn trim_cut<'a>(&self, text: &'a str) -> &'a str {
        let mut kept = text;
        // What is left may end in a part of another.
        while let Some(part) = self.0.iter().filter_map(|hidden| begun(kept, hidden)).max() {
            kept = &kept[..kept.len() - part];
        }
        kept
    }
}

/// Bytes of the longest end of a text that `hidden` begins with.
fn begun(text: &str, hidden: &str) -> Option<usize> {
    (1..=hidden.len()).rev().find(|end| hidden.is_char_boundary(*end) && text.ends_with(&hidden[..*end]))
}

/// As those write JSON who keep to ASCII: Python, for one.
fn in_ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match character.is_ascii() && character != '\x7f' {
            true => text.push(character),
            false => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}")),
        }
    }
    text
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
    #[test]
    fn a_secret_shows_neither_line_by_line_nor_as_json_writes_it() {
        let key = "-----BEGIN KEY-----\nMIIEvAIBADAN\r\nx9==\n-----END KEY-----\n";
        let scrubber = Scrubber::new([key, "s3cr3t\"vä\\l", "s3cr3t", "", " \n"]);
        let json = |text: &str| Value::from(text).to_string();
        for (text, expected) in [
            ("-----BEGIN KEY-----".to_owned(), "***"),
            ("> MIIEvAIBADAN <".to_owned(), "> *** <"),
            (key.trim().to_owned(), "***"),
            (json(key), "\"***\\n\""),
            ("x9== is short".to_owned(), "x9== is short"),
            (json("s3cr3t\"vä\\l"), "\"***\""),
            (r#"{"a": "s3cr3t\"v\u00e4\\l"}"#.to_owned(), r#"{"a": "***"}"#),
            ("s3cr3t\"vä\\l and s3cr3t".to_owned(), "*** and ***"),
        ] {
            assert_eq!(scrubber.scrub(&text), expected, "{text}");
        }
    }
    #[test]
    fn a_cut_text_ends_before_what_may_be_a_secret() {
        let scrubber = Scrubber::new(["s3cr3t\"välue", "abcabd", "xs3"]);
        for (text, expected) in [
            ("key s3cr3t\"v", "key "),
            ("key s3cr3t\\\"v\\u00e", "key "),
            ("abcabd", ""),
            ("abcab", ""),
            ("key xs3cr", "key "),
            ("key s3cr3t, said", "key s3cr3t, said"),
            ("", ""),
        ] {
            assert_eq!(scrubber.trim_cut(text), expected, "{text}");
        }
    }
}
