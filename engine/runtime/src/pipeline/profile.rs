//! `profiles`: overlays of params, `with` and `resources`, one of them chosen by `--profile`.
//!
//! Owns: their form, which is checked whether chosen or not.
//! Must not know: operators; what an overlay puts into a stage is checked with the stage.

use super::{
    diagnostic::{Diagnostic, Diagnostics, nearest},
    fields::{form, refuse_unknown_keys},
    node::{Node, Value},
    origin::Given,
    overrides::{Change, Changes, note},
    source::At,
};

const HELP: &str = "profiles: {gpu: {params: {rank: 64}, stages: {sft: {with: {…}, resources: {gpus: 1}}}}}";

/// The names of all profiles.
pub(super) fn names(profiles: Option<&Node>) -> Vec<String> {
    let entries = profiles.and_then(Node::as_map).unwrap_or_default();
    entries.iter().map(|(name, _)| name.value.clone()).collect()
}

/// Lays the chosen profile over params and stages.
pub(super) fn apply(profiles: Option<Node>, chosen: Option<&str>, changes: &mut Changes<'_>) {
    let entries = match profiles {
        Some(Node { value: Value::Map(entries), .. }) => entries,
        None | Some(Node { value: Value::Null, .. }) => Vec::new(),
        Some(node) => {
            changes.diagnostics.push(form("`profiles` is a map of names", &node).help(HELP));
            return;
        }
    };
    if let Some(chosen) = chosen.filter(|chosen| !entries.iter().any(|(key, _)| key.value == *chosen)) {
        let names: Vec<&str> = entries.iter().map(|(key, _)| key.value.as_str()).collect();
        let diagnostic =
            Diagnostic::new("profile/unknown", format!("`--profile {chosen}`: there is no such profile"), None);
        let help = match names.is_empty() {
            true => format!("this pipeline has none; {HELP}"),
            false => format!("it has {}", names.join(", ")),
        };
        changes.diagnostics.push(diagnostic.nearest(chosen, names).help(help));
    }
    for (key, node) in entries {
        let is_chosen = chosen == Some(key.value.as_str());
        let Value::Map(parts) = node.value else {
            changes.diagnostics.push(form(&format!("profile `{}` is a map", key.value), &node).help(HELP));
            continue;
        };
        refuse_unknown_keys(
            &format!("profile `{}`", key.value),
            &parts,
            &["params", "stages"],
            &[],
            changes.diagnostics,
        );
        for (part, node) in parts {
            match part.value.as_str() {
                "params" => overlay_params(&key, node, is_chosen, changes),
                "stages" => overlay_stages(&key, node, is_chosen, changes),
                _ => {}
            }
        }
    }
}

fn overlay_params(profile: &At<String>, node: Node, is_chosen: bool, changes: &mut Changes<'_>) {
    let Some(entries) = map_of(node, "`params`", changes.diagnostics) else { return };
    for (name, mut value) in entries {
        if !changes.params.contains_key(&name.value) {
            let names: Vec<&str> = changes.params.keys().map(String::as_str).collect();
            let message = format!("profile `{}`: there is no param `{}`", profile.value, name.value);
            let help = format!("give it a default: `params: {{{}: …}}`", name.value);
            let diagnostic = Diagnostic::new("profile/unknown", message, name.span).nearest(&name.value, names);
            changes.diagnostics.push(diagnostic.help(help));
        } else if is_chosen {
            note(&mut value, &Given::Profile(profile.value.clone()));
            changes.change(Change { target: name.value, value, text: None });
        }
    }
}

fn overlay_stages(profile: &At<String>, node: Node, is_chosen: bool, changes: &mut Changes<'_>) {
    let Some(entries) = map_of(node, "`stages`", changes.diagnostics) else { return };
    let Some(Value::Map(stages)) = changes.stages.as_mut().map(|stages| &mut stages.value) else { return };
    for (name, node) in entries {
        let Some(stage) = stages.iter_mut().find(|(key, _)| key.value == name.value) else {
            let message = format!("profile `{}`: there is no stage `{}`", profile.value, name.value);
            let near = nearest(&name.value, stages.iter().map(|(key, _)| key.value.as_str()));
            let help = near.map_or_else(|| HELP.to_owned(), |near| format!("the nearest is `{near}`"));
            changes.diagnostics.push(Diagnostic::new("profile/unknown", message, name.span).help(help));
            continue;
        };
        let what = format!("`{}` in profile `{}`", name.value, profile.value);
        let Some(parts) = map_of(node, &what, changes.diagnostics) else { continue };
        refuse_unknown_keys(&what, &parts, &["with", "resources"], &[], changes.diagnostics);
        for (part, overlay) in parts {
            if !is_chosen || !["with", "resources"].contains(&part.value.as_str()) {
                continue;
            }
            let Some(overlay) = map_of(overlay, &format!("`{}`", part.value), changes.diagnostics) else { continue };
            let Value::Map(fields) = &mut stage.1.value else { continue };
            let at = fields.iter().position(|(key, _)| key.value == part.value).unwrap_or_else(|| {
                fields.push((part.clone(), Node::new(Value::Map(Vec::new()), part.span)));
                fields.len() - 1
            });
            lay_over(&mut fields[at].1, overlay, &Given::Profile(profile.value.clone()));
        }
    }
}

/// Puts the entries of a map in place of those of the same name, maps within maps entry by entry.
fn lay_over(node: &mut Node, overlay: Vec<(At<String>, Node)>, given: &Given) {
    if node.value == Value::Null {
        node.value = Value::Map(Vec::new());
    }
    let Value::Map(entries) = &mut node.value else { return }; // Reported where the stage is read.
    for (key, mut value) in overlay {
        let at = entries.iter().position(|(own, _)| own.value == key.value);
        match (at, value.value) {
            (Some(at), Value::Map(inner)) if matches!(entries[at].1.value, Value::Map(_)) => {
                lay_over(&mut entries[at].1, inner, given);
            }
            (at, plain) => {
                value.value = plain;
                note(&mut value, given);
                match at {
                    Some(at) => entries[at] = (key, value),
                    None => entries.push((key, value)),
                }
            }
        }
    }
}

fn map_of(node: Node, what: &str, diagnostics: &mut Diagnostics) -> Option<Vec<(At<String>, Node)>> {
    match node.value {
        Value::Map(entries) => Some(entries),
        Value::Null => Some(Vec::new()),
        _ => {
            diagnostics.push(form(&format!("{what} is a map"), &node).help(HELP));
            None
        }
    }
}
