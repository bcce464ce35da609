//! Reading the fields of a map, with the message for each that does not fit.

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    node::{Node, Value},
    source::At,
};

/// Reports every key that is neither known nor `x-…`; those planned but not built are told apart.
pub(super) fn refuse_unknown_keys(
    owner: &str,
    entries: &[(At<String>, Node)],
    known: &[&str],
    not_yet: &[&str],
    diagnostics: &mut Diagnostics,
) {
    for (key, _) in entries {
        let name = key.value.as_str();
        if known.contains(&name) {
            continue;
        }
        let unknown = Diagnostic::new("pipeline/unknown-key", format!("{owner} has no key `{name}`"), key.span);
        let unspaced = name.split_once(':').filter(|(before, _)| known.contains(before));
        diagnostics.push(match unspaced {
            _ if not_yet.contains(&name) => {
                Diagnostic::new("pipeline/not-yet", format!("`{name}` is not supported yet"), key.span)
                    .help("remove it")
            }
            Some((before, after)) => unknown.help(format!("a space stands after the colon: `{before}: {after}`")),
            None => unknown.nearest(usual(name), known.iter().copied()).help(format!("it takes {}", known.join(", "))),
        });
    }
}

/// Our word for what other tools call otherwise.
fn usual(name: &str) -> &str {
    match name {
        "cpu" | "cpus" | "threads" => "cores",
        "ram" | "mem" => "memory",
        name => name,
    }
}

/// The text of a scalar: a bare number is a name too.
pub(super) fn text(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<At<String>> {
    match &node.value {
        Value::String(text) if !text.trim().is_empty() => Some(At::new(text.clone(), node.span)),
        Value::Int(number) => Some(At::new(number.to_string(), node.span)),
        _ => {
            let message =
                format!("{what} is a name, not {}", if node.as_str().is_some() { "empty" } else { node.describe() });
            diagnostics.push(Diagnostic::new("pipeline/form", message, node.span).help("write a name"));
            None
        }
    }
}

/// `… is a map, not text`
pub(super) fn form(expected: &str, node: &Node) -> Diagnostic {
    Diagnostic::new("stage/form", format!("{expected}, not {}", node.describe()), node.span)
}

/// True or false.
pub(super) fn truth(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Option<bool> {
    if let Value::Bool(truth) = node.value {
        return Some(truth);
    }
    let help = match truth_meant(&node.to_string()) {
        Some(truth) => format!("{}: {truth}", what.trim_matches('`')),
        None => "write `true` or `false`".to_owned(),
    };
    diagnostics.push(form(&format!("{what} is true or false"), node).help(help));
    None
}

/// What a text says that is meant as a truth.
pub(super) fn truth_meant(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Some(true),
        "false" | "no" | "off" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// One name or a list of names.
pub(super) fn texts(node: &Node, what: &str, diagnostics: &mut Diagnostics) -> Vec<At<String>> {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            diagnostics.push(
                Diagnostic::new("pipeline/form", format!("{what} is an empty list"), node.span)
                    .help("name one, or remove the line"),
            );
            Vec::new()
        }
        Value::List(items) => items.iter().filter_map(|item| text(item, what, diagnostics)).collect(),
        Value::Map(_) => {
            let message = format!("{what} is a name or a list of names, not a map");
            diagnostics.push(Diagnostic::new("pipeline/form", message, node.span).help("write `a` or `[a, b]`"));
            Vec::new()
        }
        _ => text(node, what, diagnostics).into_iter().collect(),
    }
}

/// A whole number within bounds; a variable of the environment may hold it.
pub(super) fn whole(node: &Node, what: &str, least: u64, greatest: u64, diagnostics: &mut Diagnostics) -> Option<u64> {
    let mut read = node.clone();
    read.read_variable();
    let found = read.as_int().and_then(|number| u64::try_from(number).ok());
    let found = found.filter(|number| (least..=greatest).contains(number));
    if found.is_none() {
        let bounds = if greatest == u64::MAX { format!("from {least} on") } else { format!("{least} to {greatest}") };
        let message = format!("{what} is a whole number, {bounds}");
        let fits = |number: &u64| (least..=greatest).contains(number);
        let typed = node.as_str().filter(|_| !node.is_composed());
        let help = match typed.and_then(|text| text.trim().parse().ok()).filter(fits) {
            Some(number) => format!("without quotes: {number}"),
            None => format!("{}: {}", what.trim_matches('`'), least.max(1)),
        };
        diagnostics.push(Diagnostic::new("pipeline/form", message, node.span).help(help));
    }
    found
}
