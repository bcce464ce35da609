//! What a stage demands of the machine, and how a failed attempt is repeated.

use std::time::Duration;

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    fields::{form, refuse_unknown_keys, texts, whole},
    node::Node,
    quantity,
};

/// Classes of failure that may pass by themselves; bad input and bugs never do.
pub(super) const RETRIED: [&str; 5] = ["lost", "transient", "memory", "timeout", "environment"];
/// More cores or GPUs than any machine has.
pub(super) const MAX_UNITS: u64 = 4096;
/// Longest pause before another attempt.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(24 * 3600);

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

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, on: vec!["lost".into(), "transient".into()], backoff: Duration::from_secs(2) }
    }
}

pub(super) fn resources(node: &Node, diagnostics: &mut Diagnostics) -> Resources {
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
        let mut number =
            |least| whole(node, &format!("`{}`", name.value), least, MAX_UNITS, diagnostics).map(|n| n as u32);
        match name.value.as_str() {
            "cores" => found.cores = number(1).map_or(Demand::Auto, Demand::Exactly),
            "gpus" => found.gpus = number(0).map_or(Demand::Auto, Demand::Exactly),
            "memory" => match quantity::size_bytes(&node.to_string()) {
                Ok(bytes) => found.memory_bytes = Demand::Exactly(bytes),
                Err(message) => diagnostics.push(Diagnostic::new("stage/size", message, node.span).help("memory: 8G")),
            },
            _ => {}
        }
    }
    found
}

pub(super) fn retry(node: &Node, diagnostics: &mut Diagnostics) -> Retry {
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

pub(super) fn duration(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Duration> {
    match quantity::duration(&node.to_string()) {
        Ok(duration) => Some(duration),
        Err(message) => {
            let diagnostic = Diagnostic::new("stage/duration", format!("`{what}`: {message}"), node.span);
            diagnostics.push(diagnostic.help(format!("{what}: 30m")));
            None
        }
    }
}
