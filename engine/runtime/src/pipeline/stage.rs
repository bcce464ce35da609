//! One stage as the file has it: names not yet looked up, params not yet checked.

use std::time::Duration;

use llmflow_contract::{Port, StageId};

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    expression::Expr,
    fields::{refuse_unknown_keys, text, texts, whole},
    node::{Node, Value},
    quantity,
    source::{At, Span},
};

/// Names with a meaning of their own.
pub const RESERVED: [&str; 7] = ["params", "env", "secret", "matrix", "stages", "report", "run"];
const KEYS: [&str; 9] = ["op", "in", "with", "resources", "retry", "timeout", "seed", "after", "require"];
const NOT_YET: [&str; 7] = ["matrix", "when", "cache", "frozen", "use", "each", "repeat"];
/// Classes of failure that may pass by themselves; bad input and bugs never do.
const RETRIED: [&str; 5] = ["lost", "transient", "memory", "timeout", "environment"];
const MAX_NAME_BYTES: usize = 64;

/// A stage as written, params substituted.
#[derive(Clone, Debug)]
pub struct Stage {
    pub id: StageId,
    /// Its key.
    pub span: Span,
    /// Empty if missing, which is reported.
    pub op: At<String>,
    pub wiring: Wiring,
    /// A map; empty if the file gives none.
    pub with: Node,
    pub resources: Resources,
    pub retry: Retry,
    /// Of one attempt.
    pub timeout: Option<Duration>,
    pub seed: Option<u64>,
    pub after: Vec<At<StageId>>,
    pub require: Vec<Require>,
    /// Whether each of its references named something.
    pub is_filled: bool,
    /// Whether nothing in it was refused.
    pub sound: bool,
}

/// The forms of `in`.
#[derive(Clone, Debug)]
pub enum Wiring {
    None,
    /// `in: a` or `in: [a, b]`: the main port.
    Main(Vec<Ref>),
    /// `in: {port: a}`
    Ports(Vec<(At<Port>, Vec<Ref>)>),
}

/// `stage` or `stage.port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ref {
    pub stage: StageId,
    pub port: Option<Port>,
    pub span: Span,
}

/// What a stage demands of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cores: Demand<u32>,
    pub memory_bytes: Demand<u64>,
    pub gpus: Demand<u32>,
}

/// A number is a demand; `auto` is what the operator can use here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Demand<T> {
    #[default]
    Auto,
    Exactly(T),
}

/// When and how often a failed attempt is repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// All attempts together; 1 without `retry`.
    pub attempts: u32,
    /// Names of classes.
    pub on: Vec<String>,
    /// Before the second attempt; doubled before each further one.
    pub backoff: Duration,
}

/// A condition that the stage's metrics must meet.
#[derive(Clone, Debug)]
pub struct Require {
    pub expr: Expr,
    pub span: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, on: vec!["lost".into(), "transient".into()], backoff: Duration::from_secs(2) }
    }
}

impl Ref {
    pub fn new(name: &At<String>) -> Self {
        let (stage, port) = match name.value.split_once('.') {
            Some((stage, port)) => (stage, Some(Port::from(port))),
            None => (name.value.as_str(), None),
        };
        Self { stage: StageId::from(stage), port, span: name.span }
    }
}

impl Stage {
    /// Reads one entry of `stages`; what is refused is left at its default.
    pub(super) fn read(key: &At<String>, body: &Node, diagnostics: &mut Diagnostics) -> Self {
        let before = diagnostics.raw_len();
        check_name(key, diagnostics);
        let mut stage = Self {
            id: StageId::new(key.value.as_str()),
            span: key.span,
            op: At::new(String::new(), key.span),
            wiring: Wiring::None,
            with: Node::new(Value::Map(Vec::new()), key.span),
            resources: Resources::default(),
            retry: Retry::default(),
            timeout: None,
            seed: None,
            after: Vec::new(),
            require: Vec::new(),
            is_filled: true,
            sound: false,
        };
        match body.as_map() {
            Some(entries) => stage.read_fields(key, entries, diagnostics),
            None => {
                let message = format!("stage `{}` is a map, not {}", key.value, body.describe());
                diagnostics
                    .push(Diagnostic::new("stage/form", message, key.span).help("name: {op: data.load, with: {…}}"));
            }
        }
        stage.sound = diagnostics.raw_len() == before;
        stage
    }

    fn read_fields(&mut self, key: &At<String>, entries: &[(At<String>, Node)], diagnostics: &mut Diagnostics) {
        let owner = format!("stage `{}`", key.value);
        refuse_unknown_keys(&owner, entries, &KEYS, &NOT_YET, diagnostics);
        if !entries.iter().any(|(name, _)| name.value == "op") {
            let message = format!("{owner} does not say what it does: `op` is missing");
            diagnostics.push(Diagnostic::new("stage/no-op", message, key.span).help("llmflow operators"));
        }
        for (name, node) in entries {
            match name.value.as_str() {
                "op" => self.op = text(node, "`op`", diagnostics).unwrap_or(At::new(String::new(), node.span)),
                "in" => self.wiring = wiring(node, diagnostics),
                "with" => match &node.value {
                    Value::Map(_) => self.with = node.clone(),
                    Value::Null => {}
                    _ => diagnostics.push(form("`with` is a map of params", node)),
                },
                "resources" => self.resources = resources(node, diagnostics),
                "retry" => self.retry = retry(node, diagnostics),
                "timeout" => self.timeout = duration(node, "timeout", diagnostics),
                "seed" => self.seed = whole(node, "`seed`", 0, u64::MAX, diagnostics),
                "after" => {
                    let names = texts(node, "`after`", diagnostics);
                    self.after = names.into_iter().map(|name| At::new(StageId::new(name.value), name.span)).collect();
                }
                "require" => self.require = require(node, diagnostics),
                _ => {}
            }
        }
    }
}

fn form(expected: &str, node: &Node) -> Diagnostic {
    Diagnostic::new("stage/form", format!("{expected}, not {}", node.describe()), node.span)
}

fn check_name(key: &At<String>, diagnostics: &mut Diagnostics) {
    let name = key.value.as_str();
    if RESERVED.contains(&name) {
        let message = format!("`{name}` is reserved and cannot name a stage");
        diagnostics.push(Diagnostic::new("stage/reserved", message, key.span));
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(fits) {
        let message = format!("`{name}` cannot name a stage: use up to {MAX_NAME_BYTES} of a-z, 0-9, `_` and `-`");
        diagnostics.push(Diagnostic::new("stage/name", message, key.span));
    }
}

fn wiring(node: &Node, diagnostics: &mut Diagnostics) -> Wiring {
    let refs = |node: &Node, what: &str, diagnostics: &mut Diagnostics| {
        texts(node, what, diagnostics).iter().map(Ref::new).collect::<Vec<_>>()
    };
    match &node.value {
        Value::Null => Wiring::None,
        Value::Map(entries) => Wiring::Ports(
            entries
                .iter()
                .map(|(port, node)| {
                    let what = format!("input `{}`", port.value);
                    (At::new(Port::new(port.value.as_str()), port.span), refs(node, &what, diagnostics))
                })
                .collect(),
        ),
        _ => Wiring::Main(refs(node, "`in`", diagnostics)),
    }
}

fn resources(node: &Node, diagnostics: &mut Diagnostics) -> Resources {
    let mut found = Resources::default();
    let Some(entries) = node.as_map() else {
        diagnostics.push(form("`resources` is a map", node).help("resources: {cores: 2, memory: 8G, gpus: auto}"));
        return found;
    };
    refuse_unknown_keys("`resources`", entries, &["cores", "memory", "gpus"], &[], diagnostics);
    for (name, node) in entries {
        if node.as_str() == Some("auto") {
            continue;
        }
        let mut number = |least| whole(node, &format!("`{}`", name.value), least, 4096, diagnostics).map(|n| n as u32);
        match name.value.as_str() {
            "cores" => found.cores = number(1).map_or(Demand::Auto, Demand::Exactly),
            "gpus" => found.gpus = number(0).map_or(Demand::Auto, Demand::Exactly),
            "memory" => match quantity::size_bytes(&node.to_string()) {
                Ok(bytes) => found.memory_bytes = Demand::Exactly(bytes),
                Err(message) => diagnostics.push(Diagnostic::new("stage/size", message, node.span)),
            },
            _ => {}
        }
    }
    found
}

/// Longest pause before another attempt.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(24 * 3600);

fn retry(node: &Node, diagnostics: &mut Diagnostics) -> Retry {
    let mut found = Retry { attempts: 2, ..Retry::default() };
    let Some(entries) = node.as_map() else {
        diagnostics.push(form("`retry` is a map", node).help("retry: {attempts: 2, on: [lost, transient]}"));
        return found;
    };
    refuse_unknown_keys("`retry`", entries, &["attempts", "on", "backoff"], &[], diagnostics);
    for (name, node) in entries {
        match name.value.as_str() {
            "attempts" => {
                if let Some(attempts) = whole(node, "`attempts`", 1, 100, diagnostics) {
                    found.attempts = attempts as u32;
                }
            }
            "backoff" => match duration(node, "backoff", diagnostics) {
                Some(backoff) if backoff > LONGEST_BACKOFF => {
                    let message = "`backoff` is at most a day: 24h";
                    diagnostics.push(Diagnostic::new("stage/duration", message, node.span).help("backoff: 10s"));
                }
                backoff => found.backoff = backoff.unwrap_or(found.backoff),
            },
            "on" => {
                let names = texts(node, "`on`", diagnostics);
                for name in names.iter().filter(|name| !RETRIED.contains(&name.value.as_str())) {
                    let message = format!("`{}` is no class of failure that a retry can cure", name.value);
                    diagnostics.push(
                        Diagnostic::new("stage/retry", message, name.span)
                            .nearest(&name.value, RETRIED)
                            .help(format!("it takes {}", RETRIED.join(", "))),
                    );
                }
                found.on = names.into_iter().map(|name| name.value).collect();
            }
            _ => {}
        }
    }
    found
}

fn duration(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Duration> {
    match quantity::duration(&node.to_string()) {
        Ok(duration) => Some(duration),
        Err(message) => {
            diagnostics.push(Diagnostic::new("stage/duration", format!("`{what}`: {message}"), node.span));
            None
        }
    }
}

fn require(node: &Node, diagnostics: &mut Diagnostics) -> Vec<Require> {
    let mut found = Vec::new();
    for text in texts(node, "`require`", diagnostics) {
        match Expr::parse(&text.value) {
            Ok(expr) => found.push(Require { expr, span: text.span }),
            Err((offset, message)) => {
                let source = diagnostics.source.clone();
                // Points into the text where it stands as it is read: no escapes, no params.
                let start = source.slice(text.span).find(&text.value).map(|at| text.span.start + at);
                let span = start.map_or(text.span, |start| Span::new(start + offset, start + offset + 1));
                let message_line = format!("`{}` is no condition", text.value);
                let help = "a condition compares metrics with numbers: `acc_delta.lower95 > 0 and loss < 2`";
                diagnostics.push(Diagnostic::new("require/syntax", message_line, span).label(message).help(help));
            }
        }
    }
    found
}
