//! The screens of `lineage`: what an artifact was made from and what was made of it, and a row's way through the stages.

use serde::Serialize;

use super::{format, style::Paint};

/// Lines of one tree.
const MOST: usize = 400;

/// One node of a tree: what it is, and what it was made from, or what was made of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tree {
    /// What stands first: `sft.adapter`.
    pub name: String,
    /// What is said of it.
    pub about: String,
    /// Its own tree was drawn above.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_above: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Tree>,
}

/// What an artifact was made from, and what was made of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Artifacts {
    pub from: Vec<Tree>,
    pub into: Vec<Tree>,
    /// Other runs that gave the same bytes.
    pub also_in: Vec<String>,
    /// There is more than is shown.
    pub is_cut: bool,
    /// Of a rehearsal: `--limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

/// A row, back to its source and on to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FollowedRow {
    pub stage: String,
    pub row: String,
    pub from: Tree,
    pub into: Vec<Tree>,
}

/// The screen of an artifact; of a whole run the trees of what nothing reads.
pub fn artifacts(shown: &Artifacts, width: usize, paint: Paint) -> String {
    let mut parts: Vec<String> = shown.from.iter().map(|root| tree(root, width, paint)).collect();
    if !shown.into.is_empty() {
        parts.push(format!("{}\n{}", paint.dim("made of it"), branches(&shown.into, width, paint)));
    }
    let mut notes = Vec::new();
    if !shown.also_in.is_empty() {
        let runs = format::listed(shown.also_in.iter().map(String::as_str), 6);
        notes.push(paint.dim(&format!("the same bytes in {runs}")));
    }
    if let Some(limit) = shown.limit {
        notes.push(format!("a rehearsal, {}", format::limited(limit)));
    }
    if shown.is_cut {
        notes.push(paint.dim("… and more: --json, or name a stage"));
    }
    if !notes.is_empty() {
        parts.push(notes.join("\n") + "\n");
    }
    parts.join("\n")
}

/// The screen of rows: each from its source, then on to where it went.
pub fn rows(found: &[FollowedRow], width: usize, paint: Paint) -> String {
    let texts = found.iter().map(|row| {
        let from = tree(&row.from, width, paint);
        match row.into.is_empty() {
            true => from,
            false => format!("{from}{}\n{}", paint.dim("and then"), branches(&row.into, width, paint)),
        }
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// Trees beside one another, below something that is named above them.
fn branches(trees: &[Tree], width: usize, paint: Paint) -> String {
    let mut lines = Vec::new();
    draw_children(trees, "", width, paint, &mut lines);
    lines.join("\n") + "\n"
}

/// A tree, its root first.
pub fn tree(root: &Tree, width: usize, paint: Paint) -> String {
    let mut lines = Vec::new();
    draw(root, "", "", width, paint, &mut lines);
    lines.join("\n") + "\n"
}

fn draw(node: &Tree, first: &str, rest: &str, width: usize, paint: Paint, lines: &mut Vec<String>) {
    if lines.len() >= MOST {
        if lines.len() == MOST {
            lines.push(format!("{first}… more: --json"));
        }
        return;
    }
    let above = if node.is_above { "  (above)" } else { "" };
    let name = format::clean(&node.name);
    let about = format!("{}{above}", format::clean(&node.about));
    let line = format!("{first}{}  {about}", paint.bold(&name));
    lines.push(console::truncate_str(line.trim_end(), width, "…").into_owned());
    draw_children(&node.children, rest, width, paint, lines);
}

fn draw_children(children: &[Tree], rest: &str, width: usize, paint: Paint, lines: &mut Vec<String>) {
    for (number, child) in children.iter().enumerate() {
        let is_last = number + 1 == children.len();
        let (own, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(child, &format!("{rest}{own}"), &format!("{rest}{below}"), width, paint, lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_from_its_end_to_its_sources() {
        let node = |name: &str, children: Vec<Tree>| Tree {
            name: name.into(),
            about: "a.b v1".into(),
            children,
            is_above: false,
        };
        let above = Tree { is_above: true, ..node("base.model", Vec::new()) };
        let root = node(
            "gguf.gguf",
            vec![node("sft.adapter", vec![node("base.model", Vec::new()), node("rows.data", Vec::new())]), above],
        );
        insta::assert_snapshot!(tree(&root, 80, Paint(false)), @r"
        gguf.gguf  a.b v1
        ├─ sft.adapter  a.b v1
        │  ├─ base.model  a.b v1
        │  └─ rows.data  a.b v1
        └─ base.model  a.b v1  (above)
        ");
    }

    #[test]
    fn what_was_made_of_an_artifact_stands_below_what_it_was_made_from() {
        let node = |name: &str| Tree { name: name.into(), about: "x".into(), ..Tree::default() };
        let shown = Artifacts {
            from: vec![node("sft.adapter")],
            into: vec![Tree { children: vec![node("gguf.gguf")], ..node("merged.model") }, node("other.model")],
            also_in: vec!["quiet-otter".into()],
            is_cut: false,
            limit: Some(4),
        };
        insta::assert_snapshot!(artifacts(&shown, 80, Paint(false)), @r"
        sft.adapter  x

        made of it
        ├─ merged.model  x
        │  └─ gguf.gguf  x
        └─ other.model  x

        the same bytes in quiet-otter
        a rehearsal, limited to 4 rows or steps a stage
        ");
        let deep = Tree { children: vec![node("x"); 500], ..node("root") };
        assert_eq!(tree(&deep, 80, Paint(false)).lines().count(), MOST + 1);
    }
}
