//! The stages of a run and what they need of each other.

use std::collections::BTreeSet;

use super::{
    Anchor, label,
    layout::{Sizes, place},
    shortened, svg,
};
use crate::report::markup::{Markup, Px};

const SIZES: Sizes = Sizes { width: 152.0, height: 44.0, beside: 14.0, between: 32.0, passing: 4.0 };
/// Room around the drawing, for strokes.
const MARGIN: f64 = 6.0;

/// One stage to draw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub name: String,
    /// Its operator.
    pub detail: String,
    /// `2:11`, or the status of one that did not run.
    pub time: String,
    /// Status as a word: the class that colours it.
    pub status: &'static str,
    pub sign: &'static str,
    /// Shown where the pointer rests.
    pub hover: String,
    /// What it leads to, such as `#stage-sft`.
    pub link: String,
}

/// An edge between nodes by index; one that carries no data (`after`) is dashed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub carries_data: bool,
}

/// Stages, each after those it needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
}

impl Graph {
    pub fn draw(&self, into: &mut Markup) {
        let edges: Vec<Edge> = self.edges.iter().copied().filter(|edge| edge.from < edge.to).collect();
        let pairs: Vec<(usize, usize)> = edges.iter().map(|edge| (edge.from, edge.to)).collect();
        let layout = place(self.nodes.len(), &pairs, SIZES);
        let (width, height) = (layout.width + 2.0 * MARGIN, layout.height + 2.0 * MARGIN);
        svg(into, width, height, "the stages of the run and what they need of each other", |into| {
            let mut drawn = BTreeSet::new();
            for (edge, points) in edges.iter().zip(&layout.edges) {
                let class = if edge.carries_data { "edge" } else { "edge after" };
                let last = points.len().saturating_sub(2);
                for (index, pair) in points.windows(2).enumerate() {
                    let path = curve(pair[0], pair[1], index == last);
                    if drawn.insert(path.clone()) {
                        into.leaf("path", &[("class", &class), ("d", &path)]);
                    }
                }
            }
            for (node, centre) in self.nodes.iter().zip(&layout.nodes) {
                draw_node(into, node, (centre.0 + MARGIN, centre.1 + MARGIN));
            }
        });
    }
}

/// From the foot of a layer to the head of the next, straight down at both; through that layer too, unless the edge ends
/// there. Edges that share their way share these parts, so that none is drawn twice.
fn curve(from: (f64, f64), to: (f64, f64), is_last: bool) -> String {
    let half = SIZES.height / 2.0;
    let (x1, y1) = (from.0 + MARGIN, from.1 + MARGIN + half);
    let (x2, y2) = (to.0 + MARGIN, to.1 + MARGIN - half);
    let middle = (y1 + y2) / 2.0;
    let path =
        format!("M{} {}C{} {} {} {} {} {}", Px(x1), Px(y1), Px(x1), Px(middle), Px(x2), Px(middle), Px(x2), Px(y2));
    if is_last { path } else { format!("{path}v{}", Px(SIZES.height)) }
}

fn draw_node(into: &mut Markup, node: &Node, (x, y): (f64, f64)) {
    let (left, top) = (x - SIZES.width / 2.0, y - SIZES.height / 2.0);
    into.element("a", &[("href", &node.link), ("class", &format!("node {}", node.status))], |into| {
        into.line("title", &[], &node.hover);
        into.leaf(
            "rect",
            &[
                ("x", &Px(left)),
                ("y", &Px(top)),
                ("width", &Px(SIZES.width)),
                ("height", &Px(SIZES.height)),
                ("rx", &7),
            ],
        );
        label(into, "sign", (left + 10.0, top + 18.5), Anchor::Start, node.sign);
        label(into, "stage", (left + 25.0, top + 18.5), Anchor::Start, &shortened(&node.name, 14));
        label(into, "time", (left + SIZES.width - 9.0, top + 18.5), Anchor::End, &node.time);
        label(into, "op", (left + 25.0, top + 34.5), Anchor::Start, &shortened(&node.detail, 20));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, status: &'static str) -> Node {
        Node {
            name: name.into(),
            status,
            link: format!("#stage-{name}"),
            hover: format!("about {name}"),
            ..Node::default()
        }
    }

    #[test]
    fn every_stage_is_a_link_with_its_status_and_an_order_without_data_is_dashed() {
        let edge = |from, to, carries_data| Edge { from, to, carries_data };
        let graph = Graph {
            nodes: vec![node("base", "ran"), node("verdict", "refused"), node("gguf", "skipped")],
            edges: vec![edge(0, 1, true), edge(1, 2, false), edge(0, 2, true)],
        };
        let mut markup = Markup::new();
        graph.draw(&mut markup);
        let drawn = markup.finish();
        for part in
            ["<a href=\"#stage-base\" class=\"node ran\"><title>about base</title>", "node refused", "node skipped"]
        {
            assert!(drawn.contains(part), "{part} in {drawn}");
        }
        assert_eq!(drawn.matches("class=\"edge\"").count(), 3, "the long one in two parts: {drawn}");
        assert_eq!(drawn.matches("class=\"edge after\"").count(), 1);
    }

    #[test]
    fn an_edge_runs_from_foot_to_head_and_through_what_it_passes() {
        assert_eq!(curve((50.0, 22.0), (50.0, 98.0), true), "M56 50C56 66 56 66 56 82");
        assert_eq!(curve((50.0, 22.0), (90.0, 98.0), false), "M56 50C56 66 96 66 96 82v44");
    }
}
