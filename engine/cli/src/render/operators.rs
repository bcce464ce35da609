//! The screens of `operators`: the list, and one operator with its ports and params.

use llmflow_contract::{Arity, Entry, ParamInfo, ParamType, PortSpec, Role};
use serde_json::Value;

use super::{format, style::Paint, table::Table};

/// Every operator, a family at a time.
pub fn list(entries: &[&Entry], width: usize, paint: Paint) -> String {
    let mut table = Table::new(["operator", "takes", "gives", "does"]);
    let mut family = "";
    for entry in entries {
        let own = entry.name.split('.').next().unwrap_or_default();
        if own != family && !family.is_empty() {
            table.line(String::new());
        }
        family = own;
        let does = sentence(entry.doc);
        let (takes, gives) = (ports(&entry.inputs, entry.inputs_by_name), ports(&entry.outputs, entry.outputs_by_name));
        table.row([paint.bold(entry.name), takes, gives, does]);
    }
    let mut lines = table.lines(width);
    lines.push(String::new());
    lines.push(paint.dim("llmflow operators NAME tells its params"));
    lines.join("\n") + "\n"
}

/// The first sentence of a doc, on one line.
fn sentence(doc: &str) -> String {
    let paragraph = doc.trim().split("\n\n").next().unwrap_or_default().replace('\n', " ");
    paragraph.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn ports(specs: &[PortSpec], by_name: bool) -> String {
    if by_name {
        return "as named".to_owned();
    }
    if specs.is_empty() {
        return "–".to_owned();
    }
    specs.iter().map(|spec| spec.port.as_str()).collect::<Vec<_>>().join(", ")
}

/// One operator: its doc, its ports, its params.
pub fn one(entry: &Entry, width: usize, paint: Paint) -> String {
    let mut lines = vec![format!("{} v{}", paint.bold(entry.name), entry.version), String::new()];
    lines.extend(format::clean_lines(entry.doc.trim()).lines().map(str::to_owned));
    for (title, specs) in [("takes", &entry.inputs), ("gives", &entry.outputs)] {
        if specs.is_empty() {
            continue;
        }
        let mut table = Table::new([title, "kind", ""]).wrap(2);
        for spec in specs {
            let arity = match spec.arity {
                Arity::One => "",
                Arity::Optional => " (optional)",
                Arity::Many => " (one or more)",
            };
            table.row([spec.port.to_string(), format!("{}{arity}", spec.accepts), one_line(&spec.doc)]);
        }
        lines.push(String::new());
        lines.extend(table.lines(width));
    }
    lines.push(String::new());
    if entry.params.is_empty() {
        lines.push(" no params".to_owned());
    } else {
        let mut table = Table::new(["param", "default", "type", "does"]).wrap(3);
        add_params(&entry.params, "", &mut table);
        lines.extend(table.lines(width));
    }
    lines.join("\n") + "\n"
}

fn add_params(params: &[ParamInfo], prefix: &str, table: &mut Table) {
    for param in params {
        let name = format!("{prefix}{}", param.name);
        let default = match &param.default {
            _ if param.required => "required".to_owned(),
            None | Some(Value::Null) => "–".to_owned(),
            Some(Value::Object(_)) => "{…}".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "\"\"".to_owned(),
            Some(Value::String(text)) => format::fit(text, 18),
            Some(value) => format::fit(&value.to_string(), 18),
        };
        table.row([name.clone(), default, kind(param), does(param)]);
        if let ParamType::Object(fields) = &param.kind {
            add_params(fields, &format!("{name}."), table);
        }
    }
}

fn kind(param: &ParamInfo) -> String {
    let name = match &param.kind {
        ParamType::Bool => "true or false".to_owned(),
        ParamType::Integer => "whole number".to_owned(),
        ParamType::Number => "number".to_owned(),
        ParamType::String => "text".to_owned(),
        ParamType::Choice(_) => "choice".to_owned(),
        ParamType::List(_) => "list".to_owned(),
        ParamType::Object(_) | ParamType::Map(_) => "map".to_owned(),
        ParamType::Either(_) => "either".to_owned(),
        ParamType::Any => "any".to_owned(),
    };
    let range = match (param.min, param.max) {
        (Some(min), Some(max)) => format!(" {}…{}", bound(min), bound(max)),
        (Some(min), None) => format!(" {} {}", if param.above_min { ">" } else { "≥" }, bound(min)),
        (None, Some(max)) => format!(" ≤ {}", bound(max)),
        (None, None) => String::new(),
    };
    name + &range
}

fn bound(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e7 { format!("{value:.0}") } else { format!("{value}") }
}

fn does(param: &ParamInfo) -> String {
    let mut text = one_line(&param.doc);
    if let ParamType::Choice(names) = &param.kind {
        text.push_str(&format!(" [{}]", names.join(", ")));
    }
    if !param.aliases.is_empty() {
        text.push_str(&format!(" (also: {})", param.aliases.join(", ")));
    }
    match param.role {
        Role::Tuning => text.push_str(" (changes no byte of the result)"),
        Role::Secret => text.push_str(" (secrets, by name)"),
        _ => {}
    }
    text
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
