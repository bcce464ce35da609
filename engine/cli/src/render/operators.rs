//! The screens of `operators`: the list, and one operator with its ports and params.

use llmflow_contract::{Arity, Entry, ParamInfo, ParamType, PortSpec, Role};
use serde_json::Value;

use super::{
    format,
    style::Paint,
    table::{Table, wrap},
};

/// Least width in which a description stands in a column, in characters.
const LEAST_TEXT: usize = 36;

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
    lines.extend(prose(&format::clean_lines(entry.doc.trim()), width));
    for (title, specs) in [("takes", &entry.inputs), ("gives", &entry.outputs)] {
        if specs.is_empty() {
            continue;
        }
        let row = |spec: &PortSpec| {
            let arity = match spec.arity {
                Arity::One => "",
                Arity::Optional => " (optional)",
                Arity::Many => " (one or more)",
            };
            [spec.port.to_string(), format!("{}{arity}", spec.accepts), one_line(&spec.doc)]
        };
        lines.push(String::new());
        lines.extend(described([title, "kind", ""], &specs.iter().map(row).collect::<Vec<_>>(), width));
    }
    lines.push(String::new());
    if entry.params.is_empty() {
        lines.push(" no params".to_owned());
    } else {
        let mut rows = Vec::new();
        add_params(&entry.params, "", &mut rows);
        lines.extend(described(["param", "default", "type", "does"], &rows, width));
    }
    lines.join("\n") + "\n"
}

/// A doc as it is read on a screen of this width: paragraphs are broken anew, code and lists stay.
fn prose(doc: &str, width: usize) -> Vec<String> {
    let (mut lines, mut paragraph, mut is_code) = (Vec::new(), String::new(), false);
    for line in doc.lines() {
        let is_fence = line.trim_start().starts_with("```");
        let stands_alone = is_code || is_fence || line.trim().is_empty() || line.starts_with(['|', '#']);
        is_code ^= is_fence;
        if (stands_alone || line.starts_with("- ")) && !paragraph.is_empty() {
            lines.extend(wrap(&std::mem::take(&mut paragraph), width));
        }
        if stands_alone {
            lines.push(line.to_owned());
        } else {
            let space = if paragraph.is_empty() { "" } else { " " };
            paragraph.push_str(&format!("{space}{}", line.trim()));
        }
    }
    if !paragraph.is_empty() {
        lines.extend(wrap(&paragraph, width));
    }
    lines
}

/// Rows whose last cell is a text: a table, or, where that leaves it too little room, the text below each.
fn described<const N: usize>(head: [&str; N], rows: &[[String; N]], width: usize) -> Vec<String> {
    let mut table = Table::new(head).wrap(N - 1);
    rows.iter().for_each(|row| table.row(row.clone()));
    let (room, wanted) = table.room(width);
    if room >= LEAST_TEXT.min(wanted) {
        return table.lines(width);
    }
    let join = |cells: &[String]| cells.iter().filter(|cell| !cell.is_empty()).cloned().collect::<Vec<_>>().join("  ");
    let mut lines = vec![format!(" {}", join(&head.map(str::to_owned)))];
    for row in rows {
        let (last, cells) = row.split_last().map(|(last, cells)| (last.as_str(), cells)).unwrap_or_default();
        lines.extend(wrap(&join(cells), width.saturating_sub(1)).into_iter().map(|line| format!(" {line}")));
        lines.extend(wrap(last, width.saturating_sub(5)).into_iter().map(|line| format!("     {line}")));
    }
    lines
}

fn add_params(params: &[ParamInfo], prefix: &str, rows: &mut Vec<[String; 4]>) {
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
        rows.push([name.clone(), default, kind(param), does(param)]);
        if let ParamType::Object(fields) = &param.kind {
            add_params(fields, &format!("{name}."), rows);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doc_is_broken_at_the_width_of_the_screen_and_its_code_is_not() {
        let doc = "Learns from examples,\nand goes on.\n- one\n  more\n- two\n\n```yaml\nsft: { op: train.sft, in: rows }\n```";
        let wanted = [
            "Learns from",
            "examples, and goes",
            "on.",
            "- one more",
            "- two",
            "",
            "```yaml",
            "sft: { op: train.sft, in: rows }",
            "```",
        ];
        assert_eq!(prose(doc, 18), wanted);
    }

    #[test]
    fn a_description_with_too_little_room_in_its_column_stands_below() {
        let text = "Rank of the small matrices: more learns more, costs memory.";
        let rows = [["lora_r", "16", "whole number 1…1024", text].map(str::to_owned)];
        insta::assert_snapshot!(described(["param", "default", "type", "does"], &rows, 80).join("\n"), @r"
         param   default  type                 does
         lora_r  16       whole number 1…1024  Rank of the small matrices: more learns
                                               more, costs memory.
        ");
        insta::assert_snapshot!(described(["param", "default", "type", "does"], &rows, 60).join("\n"), @r"
         param  default  type  does
         lora_r  16  whole number 1…1024
             Rank of the small matrices: more learns more, costs
             memory.
        ");
    }
}
