//! `require` and `when`: conditions read from the file.
//!
//! Owns: their params, their places. Must not know: which stages and metrics there are.

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    expression::{Expr, Operand},
    fields::{form, truth_meant},
    node::{Node, Value},
    params::Param,
    reference::Scope,
    source::{At, SourceFile, Span},
    stage::Require,
};

/// A `when` whose params have their values; its stages are not looked up yet.
#[derive(Clone, Debug)]
pub(super) struct ReadWhen {
    pub expr: Expr,
    pub text: At<String>,
}

const REQUIRE_HELP: &str = "a condition compares metrics with numbers: `acc_delta.lower95 > 0 and loss < 2`";
const WHEN_HELP: &str = "a condition is of params and of metrics of other stages: `params.use_dpo and eval.acc > 0.4`";

/// Reads `require`: one condition or a list.
pub(super) fn require(node: &Node, diagnostics: &mut Diagnostics) -> Vec<Require> {
    let conditions = match &node.value {
        Value::List(items) if !items.is_empty() => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let read = conditions.iter().filter_map(|node| {
        let Some(text) = node.as_str().filter(|text| !text.trim().is_empty()) else {
            let given = if node.as_str().is_some() { "empty text" } else { node.describe() };
            let message = format!("`require` is a condition or a list of them, not {given}");
            diagnostics.push(Diagnostic::new("pipeline/form", message, node.span).help(REQUIRE_HELP));
            return None;
        };
        let text = At::new(text.to_owned(), node.span);
        let expr = parse("require/syntax", &text, REQUIRE_HELP, diagnostics)?;
        check_types("require/type", &expr, text.span, diagnostics)?;
        Some(Require { expr, span: text.span })
    });
    read.collect()
}

/// What to write in the place of a name that stands for a value as references do, without their sign. `can_vary`: it may differ
/// between the combinations of a matrix.
pub(super) fn help_with_value(name: &str, can_vary: bool) -> Option<String> {
    Some(match name.split_once('.')? {
        ("matrix", _) if !can_vary => "`require` is the same for every combination: compare with a number".to_owned(),
        ("params" | "matrix", _) => format!("write `${{{name}}}` in its place; a text in quotes: `'${{{name}}}'`"),
        ("env", _) => format!("write `'${{{name}}}'` in its place"),
        ("secret", _) => "a secret is compared with nothing: its value is known to the stage alone".to_owned(),
        _ => return None,
    })
}

/// Reads `when`: one condition.
pub(super) fn when(node: &Node, scope: &Scope<'_>, diagnostics: &mut Diagnostics) -> Option<ReadWhen> {
    if !matches!(node.value, Value::String(_) | Value::Bool(_)) {
        diagnostics.push(form("`when` is one condition", node).help(WHEN_HELP));
        return None;
    }
    let text = At::new(node.to_string(), node.span);
    let mut expr = parse("when/syntax", &text, WHEN_HELP, diagnostics)?;
    let before = diagnostics.raw_len();
    for name in expr.names() {
        let at = place_within(&diagnostics.source, &text, name);
        let Some(param) = name.strip_prefix("params.") else {
            if let Some(help) = help_with_value(name, true) {
                let message = format!("`{name}` is neither a param nor a metric of a stage");
                diagnostics.push(Diagnostic::new("condition/value", message, at).help(help));
            }
            continue;
        };
        match scope.param(param) {
            None => {
                let unknown = Diagnostic::new("when/unknown", format!("there is no param `{param}`"), at)
                    .nearest(param, scope.param_names());
                let help = format!("give it a default at the top of the file: `params: {{{param}: false}}`");
                diagnostics.push(unknown.help(help));
            }
            Some(Param { refused: Some(refused), .. }) => diagnostics.push(refused.clone()),
            Some(found) if operand(&found.value).is_none() => {
                let message = format!("`params.{param}` is {}: it cannot be compared", found.value.describe());
                let help = "compare a number, a text, or true and false";
                diagnostics.push(Diagnostic::new("when/type", message, at).help(help));
            }
            Some(_) => {}
        }
    }
    expr.bind(&|name| operand(&scope.param(name.strip_prefix("params.")?)?.value));
    // A name without a dot is reported where the others are looked up.
    if diagnostics.raw_len() == before && expr.names().iter().all(|name| name.contains('.')) {
        check_types("when/type", &expr, node.span, diagnostics)?;
    }
    (diagnostics.raw_len() == before).then_some(ReadWhen { expr, text })
}

/// A word that names nothing: a truth as other languages write it, or a text without its quotes.
pub(super) fn refuse_bare(name: &str, at: Span, diagnostics: &mut Diagnostics) {
    let help = match truth_meant(name) {
        Some(truth) => format!("write `{truth}`"),
        None => format!("write `params.{name}`, or `STAGE.{name}`; a text in quotes: `'{name}'`"),
    };
    let message = format!("`{name}` is neither a param nor a metric of a stage");
    diagnostics.push(Diagnostic::new("when/unknown", message, at).help(help));
}

fn operand(node: &Node) -> Option<Operand> {
    match &node.value {
        Value::Bool(truth) => Some(Operand::Bool(*truth)),
        Value::String(text) => Some(Operand::Text(text.clone())),
        _ => node.as_f64().map(Operand::Number),
    }
}

fn parse(code: &str, text: &At<String>, help: &str, diagnostics: &mut Diagnostics) -> Option<Expr> {
    match Expr::parse(&text.value) {
        Ok(expr) => Some(expr),
        Err((offset, message)) => {
            let whole = place_within(&diagnostics.source, text, &text.value);
            // Points into the text where it stands as it is read: no escapes, no params.
            let is_plain = diagnostics.source.slice(whole) == text.value;
            let span = if is_plain { Span::new(whole.start + offset, whole.start + offset + 1) } else { whole };
            let shown: String = text.value.chars().take(200).collect();
            let diagnostic = Diagnostic::new(code, format!("`{shown}` is no condition"), span);
            diagnostics.push(diagnostic.label(message).help(help));
            None
        }
    }
}

fn check_types(code: &str, expr: &Expr, span: Span, diagnostics: &mut Diagnostics) -> Option<()> {
    match expr.check_types() {
        Ok(()) => Some(()),
        Err(message) => {
            let help = "numbers have a size; text stands in quotes: `params.method == 'lora'`";
            diagnostics.push(Diagnostic::new(code, message, span).help(help));
            None
        }
    }
}

/// The place of a part of a condition; the whole condition's if it does not stand there as it is read.
pub(super) fn place_within(source: &SourceFile, text: &At<String>, part: &str) -> Span {
    let start = source.slice(text.span).find(part).map(|at| text.span.start + at);
    start.map_or(text.span, |start| Span::new(start, start + part.len()))
}
