//! The screens of `lineage`: what an artifact was made from, and where a row comes from.

use serde::Serialize;

use super::{format, style::Paint};

/// One node of a tree: what it is, and what it was made from.
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
    pub from: Vec<Tree>,
}

/// A tree, its root first.
pub fn tree(root: &Tree, width: usize, paint: Paint) -> String {
    let mut lines = Vec::new();
    draw(root, "", "", width, paint, &mut lines);
    lines.join("\n") + "\n"
}

fn draw(node: &Tree, first: &str, rest: &str, width: usize, paint: Paint, lines: &mut Vec<String>) {
    let above = if node.is_above { "  (above)" } else { "" };
    let name = format::clean(&node.name);
    let about = format!("{}{above}", format::clean(&node.about));
    let line = format!("{first}{}  {about}", paint.bold(&name));
    lines.push(console::truncate_str(line.trim_end(), width, "…").into_owned());
    for (number, child) in node.from.iter().enumerate() {
        let is_last = number + 1 == node.from.len();
        let (own, below) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        draw(child, &format!("{rest}{own}"), &format!("{rest}{below}"), width, paint, lines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_drawn_from_its_end_to_its_sources() {
        let node =
            |name: &str, from: Vec<Tree>| Tree { name: name.into(), about: "a.b v1".into(), from, is_above: false };
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
}
