//! YAML as a tree in which every key and value knows its place.
//!
//! Owns: the one YAML parser of the project, its dialect (1.2 booleans, merge keys) and its budgets.
//! Must not know: what a pipeline is.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_yaml::{DuplicateKeyPolicy, Location, Options, Spanned, budget::BudgetBreach};

use super::{
    diagnostic::Diagnostic,
    reference::Origin,
    source::{At, SourceFile, Span},
};

/// Deeper files are refused: a pipeline needs about eight levels.
const MAX_DEPTH: usize = 40;

/// A YAML value, its place, and where it came from if not from there.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub value: Value,
    /// Of a list or map, up to the end of its last member.
    pub span: Span,
    /// Set when a param or `--set` gave the value.
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
    pub fn new(value: Value, span: Span) -> Self {
        Self { value, span, origin: None }
    }

    /// Parses one document.
    ///
    /// # Errors
    /// A syntax error, an unknown tag, a bomb: the first one met. Each doubled key: all of them.
    pub fn parse(source: &SourceFile) -> Result<Self, Vec<Diagnostic>> {
        let raw: Spanned<Raw> = serde_yaml::from_str_with_options(&source.text, options(source.text.len()))
            .map_err(|error| vec![refusal(&error, &source.text)])?;
        let mut doubled = Vec::new();
        let node = raw_node(raw, source, &mut doubled);
        if doubled.is_empty() { Ok(node) } else { Err(doubled) }
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

/// The dialect, with budgets that grow with the file: a long honest file passes, a short bomb does not.
fn options(len: usize) -> Options {
    let nodes = 1_000 + len;
    let budget = serde_yaml::budget! {
        max_depth: MAX_DEPTH,
        flow_nesting_limit: MAX_DEPTH,
        max_documents: 1,
        max_nodes: nodes,
        max_events: 3 * nodes,
        max_aliases: 100 + len / 20,
        max_anchors: 100 + len / 20,
        max_merge_keys: 100 + len / 20,
        max_recorded_anchor_events: 20_000 + 4 * len,
        max_recorded_anchor_bytes: 1_000_000 + 16 * len,
        max_total_scalar_bytes: 1_000_000 + 16 * len,
        enforce_alias_anchor_ratio: false,
    };
    let alias_limits = serde_yaml::alias_limits! {
        max_total_replayed_events: 20_000 + 4 * len,
        max_replay_stack_depth: 16,
    };
    serde_yaml::options! {
        budget: budget,
        alias_limits: alias_limits,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        underscored_numbers_as_strings: true,
        leading_zero_numbers_as_strings: true,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    }
}

/// What the parser fills; places are bytes only once [`raw_node`] has been over it.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Key>, Spanned<Raw>)>),
}

struct Key(String);

fn raw_node(raw: Spanned<Raw>, source: &SourceFile, doubled: &mut Vec<Diagnostic>) -> Node {
    let span = span_of(&raw.defined);
    let value = match raw.value {
        Raw::Scalar(Value::String(text)) => plain_decimal(&text, source.slice(span)).unwrap_or(Value::String(text)),
        Raw::Scalar(value) => value,
        Raw::List(items) => Value::List(items.into_iter().map(|item| raw_node(item, source, doubled)).collect()),
        Raw::Map(entries) => {
            let mut seen = std::collections::HashMap::new();
            let mut map = Vec::with_capacity(entries.len());
            for (key, value) in entries {
                let key = At::new(key.value.0, span_of(&key.defined));
                let node = raw_node(value, source, doubled);
                if let Some(first) = seen.insert(key.value.clone(), key.span) {
                    let message = format!("`{}` is given twice", key.value);
                    let diagnostic = Diagnostic::new("yaml/duplicate-key", message, key.span).label("the second time");
                    doubled.push(diagnostic.also(first, "the first time").help("keep one of them"));
                }
                map.push((key, node));
            }
            Value::Map(map)
        }
    };
    let inner = match &value {
        Value::List(items) => items.iter().map(|item| item.span).next_back(),
        Value::Map(entries) => entries.iter().map(|(key, node)| key.span.to(node.span)).next_back(),
        _ => None,
    };
    // An alias inside a block is defined elsewhere: its end says nothing of the block's.
    let span = match inner {
        Some(inner) if inner.start >= span.start => span.to(inner),
        _ => span,
    };
    Node::new(value, span)
}

/// `007` is seven in YAML 1.2; the parser hands it over as text.
fn plain_decimal(text: &str, written: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_number = digits.len() > 1 && digits.len() <= 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && written == text { text.trim_start_matches('+').parse().ok().map(Value::Int) } else { None }
}

fn span_of(location: &Location) -> Span {
    let span = location.span();
    let start = span.byte_offset().unwrap_or(0) as usize;
    Span::new(start, start + span.byte_len().unwrap_or(0) as usize)
}

/// The place of an error: syntax errors know a line and a column alone.
fn error_span(location: &Location, text: &str) -> Span {
    if location.span().byte_offset().is_some() {
        return span_of(location);
    }
    let before = (location.line() as usize).saturating_sub(1);
    let line_start: usize = text.split_inclusive('\n').take(before).map(str::len).sum();
    let column = (location.column() as usize).saturating_sub(1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    let offset = line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    Span::new(line_start + offset, line_start + offset)
}

/// The parser's error as ours: its words, our place.
fn refusal(error: &serde_yaml::Error, text: &str) -> Diagnostic {
    let error = error.without_snippet();
    let span = error.location().map(|location| error_span(&location, text)).unwrap_or_default();
    let start = span.start.min(text.len());
    let rest = text.get(start..).unwrap_or_default();
    let first = rest.chars().next().map_or(0, char::len_utf8);
    let span = Span::new(start, span.end.min(text.len()).max(start + first));
    let words = error.to_string();
    let words = words.lines().next().unwrap_or_default();
    let words = words.split(" at line ").next().unwrap_or(words);
    use serde_yaml::Error as E;
    let innermost = if let E::AliasError { error, .. } = error { error } else { error };
    match innermost {
        E::MultipleDocuments { .. } | E::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            Diagnostic::new("yaml/documents", "a pipeline file holds one document", span)
                .help("remove the second `---` and what follows, or make it a file of its own")
        }
        E::Budget { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. } => {
            Diagnostic::new("yaml/budget", "the file nests or repeats itself far beyond what a pipeline needs", span)
                .label(words.to_owned())
                .help("write the stages out instead of aliases of aliases")
        }
        E::UnknownAnchor { .. } => Diagnostic::new("yaml/alias", "this alias has no anchor before it", span)
            .help("give the value a name where it stands first: `with: &name {…}`"),
        _ => {
            let diagnostic = Diagnostic::new("yaml/syntax", format!("this is no YAML: {words}"), span);
            let line = text[..start].rsplit('\n').next().unwrap_or_default();
            match line.contains('\t') || rest.starts_with('\t') {
                true => diagnostic.help("YAML is indented with spaces, never with tabs"),
                false => diagnostic,
            }
        }
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(truth)))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(number.into())))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Int(number.into())))
    }
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Raw, E> {
        if number.is_finite() {
            Ok(Raw::Scalar(Value::Float(number)))
        } else {
            Err(E::custom("a number must be finite"))
        }
    }
    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::String(text.to_owned())))
    }
    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::String(text)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key()? {
            map.push((key, entries.next_value()?));
        }
        Ok(Raw::Map(map))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Raw::deserialize(deserializer)? {
            Raw::Scalar(Value::String(text)) => Ok(Self(text)),
            Raw::Scalar(Value::Null) => Err(D::Error::custom("a key is missing")),
            Raw::Scalar(value) => Ok(Self(Node::new(value, Span::default()).to_string())),
            Raw::List(_) | Raw::Map(_) => Err(D::Error::custom("a key is a name, not a list or map")),
        }
    }
}
