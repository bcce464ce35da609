//! A graph as Mermaid and as Graphviz read it.

use std::fmt::Write as _;

use super::Graph;
use crate::render::format;

/// Colours by state: of the border and of the ground, light enough for black text.
const COLOURS: [(&str, &str, &str); 7] = [
    ("cached", "#2e7d32", "#e8f5e9"),
    ("ran", "#2e7d32", "#e8f5e9"),
    ("run", "#0277bd", "#e1f5fe"),
    ("gate", "#ef6c00", "#fff3e0"),
    ("waits", "#757575", "#f5f5f5"),
    ("skipped", "#bdbdbd", "#ffffff"),
    ("refused", "#c62828", "#ffebee"),
];

pub(super) fn mermaid(graph: &Graph) -> String {
    let escape = |text: &str| format::clean(text).replace('#', "#35;").replace('"', "#quot;").replace('<', "&lt;");
    let mut text = String::from("flowchart TD\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let class = COLOURS.iter().find(|(state, ..)| *state == node.state).map(|(state, ..)| format!(":::{state}"));
        let (name, about) = (escape(&node.name), escape(&node.about));
        let _ = writeln!(text, "  n{index}[\"<b>{name}</b><br>{about}\"]{}", class.unwrap_or_default());
    }
    for (from, to) in &graph.edges {
        let _ = writeln!(text, "  n{from} --> n{to}");
    }
    for (state, border, ground) in COLOURS {
        if graph.nodes.iter().any(|node| node.state == state) {
            let _ = writeln!(text, "  classDef {state} stroke:{border},fill:{ground},color:#000");
        }
    }
    text
}

pub(super) fn dot(graph: &Graph) -> String {
    let quote = |text: &str| format::clean(text).replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = String::from(
        "digraph {\n  rankdir=TB\n  node [shape=box, style=\"rounded,filled\", fontname=\"sans-serif\"]\n",
    );
    for (index, node) in graph.nodes.iter().enumerate() {
        let colours = COLOURS.iter().find(|(state, ..)| *state == node.state);
        let (border, ground) = colours.map_or(("#757575", "#ffffff"), |(_, border, ground)| (border, ground));
        let label = format!("{}\\n{}", quote(&node.name), quote(&node.about));
        let _ = writeln!(text, "  n{index} [label=\"{label}\", color=\"{border}\", fillcolor=\"{ground}\"]");
    }
    for (from, to) in &graph.edges {
        let _ = writeln!(text, "  n{from} -> n{to}");
    }
    text.push_str("}\n");
    text
}
