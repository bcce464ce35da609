//! Text becomes a tree of [`Node`]s.
//!
//! Owns: the one YAML parser of the project, its dialect (1.2 booleans, merge keys) and its budgets.
//! Must not know: what a pipeline is.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_yaml::{DuplicateKeyPolicy, Location, NonFiniteFloatPolicy, Options, Spanned, budget::BudgetBreach};

use super::{
    diagnostic::Diagnostic,
    node::{Node, Value},
    slips,
    source::{At, SourceFile, Span},
};

/// Deeper files are refused: a pipeline needs about eight levels.
const MAX_DEPTH: usize = 40;

impl Node {
    /// Parses one document, and says what in it has no meaning: each doubled key, each number that is none.
    ///
    /// # Errors
    /// A syntax error, an unknown tag, a bomb: the first one met.
    pub fn parse(source: &SourceFile) -> Result<(Self, Vec<Diagnostic>), Diagnostic> {
        let parsed: Spanned<Parsed> = serde_yaml::from_str_with_options(&source.text, options(source.text.len()))
            .map_err(|error| refusal(&error, &source.text))?;
        let (mut node, mut found) = (placed(parsed), Vec::new());
        finish(&mut node, source, &mut found);
        Ok((node, found))
    }
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
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        underscored_numbers_as_strings: true,
        leading_zero_numbers_as_strings: true,
        reject_unsupported_tags: true,
        emit_comments: false,
        with_snippet: false,
    }
}

/// A node as the parser fills it; [`finish`] goes over the whole tree once more.
struct Parsed(Node);

struct Key(String);

fn placed(parsed: Spanned<Parsed>) -> Node {
    let mut node = parsed.value.0;
    node.span = span_of(&parsed.defined);
    node
}

/// Puts in what the parser does not know: numbers that it gives as text, places of blocks, what has no meaning.
fn finish(node: &mut Node, source: &SourceFile, found: &mut Vec<Diagnostic>) {
    let span = node.span;
    let inner = match &mut node.value {
        Value::String(text) => {
            if let Some(number) = plain_decimal(text, source.slice(span)) {
                node.value = number;
            }
            return;
        }
        Value::Float(number) if !number.is_finite() => {
            let diagnostic = Diagnostic::new("yaml/number", "a number must be finite", span);
            found.push(diagnostic.help("write a number such as `1e9`; leave the line out to take the default"));
            return;
        }
        Value::List(items) => {
            items.iter_mut().for_each(|item| finish(item, source, found));
            items.last().map(|item| item.span)
        }
        Value::Map(entries) => {
            entries.iter_mut().for_each(|(_, value)| finish(value, source, found));
            refuse_doubled(entries, found);
            entries.last().map(|(key, value)| key.span.to(value.span))
        }
        _ => return,
    };
    // An alias inside a block is defined elsewhere: its end says nothing of the block's.
    if let Some(inner) = inner.filter(|inner| inner.start >= span.start) {
        node.span = span.to(inner);
    }
}

/// Reports each key that stands twice in a map.
fn refuse_doubled(entries: &[(At<String>, Node)], found: &mut Vec<Diagnostic>) {
    let mut refuse = |first: Span, key: &At<String>| {
        let message = format!("`{}` is given twice", key.value);
        let diagnostic = Diagnostic::new("yaml/duplicate-key", message, key.span).label("the second time");
        found.push(diagnostic.also(first, "the first time").help("keep one of them"));
    };
    if entries.len() <= 16 {
        for (at, (key, _)) in entries.iter().enumerate() {
            if let Some((first, _)) = entries[..at].iter().find(|(first, _)| first.value == key.value) {
                refuse(first.span, key);
            }
        }
        return;
    }
    let mut seen: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
    for (key, _) in entries {
        if let Some(first) = seen.insert(&key.value, key.span) {
            refuse(first, key);
        }
    }
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
        E::UnknownAnchor { .. } => slips::glob(text, span).unwrap_or_else(|| {
            Diagnostic::new("yaml/alias", "this alias has no anchor before it", span)
                .help("give the value a name where it stands first: `with: &name {…}`")
        }),
        _ => slips::explained(words, text, span).unwrap_or_else(|| {
            let diagnostic = Diagnostic::new("yaml/syntax", format!("this is no YAML: {words}"), span);
            let line = text[..start].rsplit('\n').next().unwrap_or_default();
            match line.contains('\t') || rest.starts_with('\t') {
                true => diagnostic.help("YAML is indented with spaces, never with tabs"),
                false => diagnostic
                    .help("close every bracket and quote; a text with `: `, ` #` or a bracket in it stands in quotes"),
            }
        }),
    }
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(ValueVisitor)?;
        Ok(Self(Node::new(value, Span::default())))
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(placed(item));
        }
        Ok(Value::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<Key>, _>()? {
            map.push((At::new(key.value.0, span_of(&key.defined)), placed(value)));
        }
        Ok(Value::Map(map))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(ValueVisitor)? {
            Value::String(text) => Ok(Self(text)),
            Value::Null => Err(D::Error::custom("a key is missing")),
            Value::List(_) | Value::Map(_) => Err(D::Error::custom("a key is a name, not a list or map")),
            value => Ok(Self(Node::new(value, Span::default()).to_string())),
        }
    }
}
