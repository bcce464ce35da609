//! A plan, or a lineage, as a graph: as text with rails, for Mermaid, for Graphviz.
//!
//! Many stages are drawn as a few: those of one matrix together, and where that is not enough those of one operator.

mod markup;
mod rails;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clap::ValueEnum;
use llmflow_runtime::plan::{PlanView, StageView, Will};

use super::{format, style::Paint};

/// Nodes from which on they are drawn together. Graphviz draws any number.
const MOST: usize = 60;

/// How a graph is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    Text,
    /// For Markdown that draws diagrams
    Mermaid,
    /// For Graphviz
    Dot,
}

/// How nodes stand. Of many in one, the first of these gives the symbol and the colour.
const STATES: [&str; 7] = ["run", "gate", "waits", "refused", "skipped", "cached", "ran"];

/// One node: a stage, an artifact, or many of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub name: String,
    /// What is said of it, behind its name.
    pub about: String,
    pub operator: String,
    /// `run`, `cached`, `waits` …; gives the symbol and the colour.
    pub state: String,
    /// How many it stands for.
    pub count: usize,
}

/// Nodes in an order in which no edge goes back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub nodes: Vec<Node>,
    /// From what is read to what reads it.
    pub edges: BTreeSet<(usize, usize)>,
}

/// A plan as a graph.
pub fn draw(plan: &PlanView, format: Format, width: usize, paint: Paint) -> String {
    Graph::of_plan(plan).draw(format, width, paint)
}

impl Graph {
    fn of_plan(plan: &PlanView) -> Self {
        let place: HashMap<&str, usize> =
            plan.stages.iter().enumerate().map(|(index, stage)| (stage.stage.as_str(), index)).collect();
        let nodes = plan.stages.iter().map(|stage| {
            let (state, said) = standing(stage);
            Node {
                name: stage.stage.to_string(),
                about: format!("{} · {said}", stage.operator),
                operator: stage.operator.clone(),
                state: state.to_owned(),
                count: 1,
            }
        });
        let edges = plan.stages.iter().enumerate().flat_map(|(to, stage)| {
            let from = stage.needs.iter().filter_map(|need| place.get(need.as_str()).copied());
            from.map(move |from| (from, to)).collect::<Vec<_>>()
        });
        Self { nodes: nodes.collect(), edges: edges.collect() }
    }

    /// The graph in a form; ends with a line break.
    pub fn draw(&self, format: Format, width: usize, paint: Paint) -> String {
        match format {
            Format::Dot => markup::dot(self),
            Format::Mermaid => markup::mermaid(&self.few()),
            Format::Text => rails::text(&self.few(), width, paint),
        }
    }

    /// The graph with few enough nodes to be looked at.
    fn few(&self) -> Self {
        let matrix = |node: &Node| node.name.split('@').next().unwrap_or_default().to_owned();
        if self.nodes.len() <= MOST {
            return self.clone();
        }
        let together = self.grouped(matrix);
        if together.nodes.len() <= MOST { together } else { self.grouped(|node| node.operator.clone()) }
    }

    /// Nodes with the same name become one. What would lead back to an earlier one is said, not drawn.
    fn grouped(&self, name: impl Fn(&Node) -> String) -> Self {
        let mut place: HashMap<String, usize> = HashMap::new();
        let mut groups: Vec<(Node, BTreeMap<&str, usize>)> = Vec::new();
        let group_of: Vec<usize> = self
            .nodes
            .iter()
            .map(|node| {
                let index = *place.entry(name(node)).or_insert_with_key(|name| {
                    let group = Node { name: name.clone(), operator: node.operator.clone(), ..Node::default() };
                    groups.push((group, BTreeMap::new()));
                    groups.len() - 1
                });
                groups[index].0.count += node.count;
                *groups[index].1.entry(node.state.as_str()).or_default() += node.count;
                index
            })
            .collect();
        let all: BTreeSet<(usize, usize)> =
            self.edges.iter().map(|(from, to)| (group_of[*from], group_of[*to])).filter(|(a, b)| a != b).collect();
        let (edges, back): (BTreeSet<_>, BTreeSet<_>) = all.into_iter().partition(|(from, to)| from < to);
        let names: Vec<String> = groups.iter().map(|(group, _)| group.name.clone()).collect();
        let nodes = groups.into_iter().enumerate().map(|(index, (mut group, states))| {
            let counts: Vec<String> =
                states.iter().map(|(state, count)| format!("{} {state}", format::count(*count as u64))).collect();
            let again = back.iter().filter(|(_, to)| *to == index).map(|(from, _)| names[*from].as_str());
            let again = format::listed(again, 3);
            let again = if again.is_empty() { String::new() } else { format!(" · also after {again}") };
            let operator = if group.operator == group.name { String::new() } else { format!("{} · ", group.operator) };
            let times =
                if group.count > 1 { format!("×{} ", format::count(group.count as u64)) } else { String::new() };
            group.about = format!("{times}{operator}{}{again}", counts.join(", "));
            let state = STATES.into_iter().find(|state| states.contains_key(state));
            group.state = state.unwrap_or_default().to_owned();
            group
        });
        Self { nodes: nodes.collect(), edges }
    }
}

/// The state of a stage, and what is said of it, as the table of `plan` does.
fn standing(stage: &StageView) -> (&'static str, String) {
    let state = match &stage.will {
        Will::Run { .. } => "run",
        Will::Gate { .. } => "gate",
        Will::Waits { .. } => "waits",
        Will::Cached { refused: None, .. } => return ("cached", "cached".to_owned()),
        Will::Cached { refused: Some(why), .. } => return ("refused", format!("cached, and refused ({why})")),
        Will::Skipped { because } => return ("skipped", format!("skipped ({because})")),
    };
    let time = stage.seconds.map(|seconds| format!(" · {}", format::duration(seconds))).unwrap_or_default();
    (state, format!("{state}{time}"))
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{Digest, StageId};
    use llmflow_runtime::event::Finished;

    use super::*;
    use crate::render::fixture;

    /// `name: what it needs`, in an order that runs.
    pub fn plan(lines: &[(&str, &str, &[&str])]) -> PlanView {
        let stage = |(name, operator, needs): &(&str, &str, &[&str])| StageView {
            operator: (*operator).to_owned(),
            ..fixture::view(name, needs)
        };
        PlanView { stages: lines.iter().map(stage).collect() }
    }

    fn assistant() -> PlanView {
        plan(&[
            ("base", "model.load", &[]),
            ("docs", "data.load", &[]),
            ("rows", "data.load", &[]),
            ("questions", "data.load", &[]),
            ("clean", "data.filter", &["rows"]),
            ("synthetic", "synth.generate", &["base", "docs"]),
            ("unique", "data.dedup", &["clean", "synthetic"]),
            ("split", "data.split", &["unique"]),
            ("sft", "train.sft", &["base", "split"]),
            ("merged", "model.adapter_merge", &["base", "sft"]),
            ("pairs", "synth.answer", &["base", "split"]),
            ("dpo", "align.preference", &["merged", "pairs"]),
            ("assistant", "model.adapter_merge", &["merged", "dpo"]),
            ("eval_base", "eval.benchmark", &["base", "questions"]),
            ("eval_tuned", "eval.benchmark", &["assistant", "questions"]),
            ("verdict", "eval.compare", &["eval_base", "eval_tuned"]),
            ("gguf", "quantize.gguf", &["assistant", "verdict"]),
            ("served", "deploy.serve", &["gguf"]),
        ])
    }

    #[test]
    fn a_plan_is_drawn_with_rails_from_its_sources_to_its_ends() {
        let text = draw(&assistant(), Format::Text, 80, Paint(false));
        assert!(text.lines().all(|line| console::measure_text_width(line) <= 80), "{text}");
        insta::assert_snapshot!(text, @r"
        ◐      base        model.load · waits
        │ ◐    rows        data.load · waits
        │ ◐    clean       data.filter · waits
        │ │ ◐  docs        data.load · waits
        ├─│─◐  synthetic   synth.generate · waits
        │ ◐─╯  unique      data.dedup · waits
        │ ◐    split       data.split · waits
        ├─┼─◐  sft         train.sft · waits
        ├─│─◐  merged      model.adapter_merge · waits
        ├─◐ │  pairs       synth.answer · waits
        │ ◐─┤  dpo         align.preference · waits
        │ ◐─╯  assistant   model.adapter_merge · waits
        │ │ ◐  questions   data.load · waits
        ◐─│─┤  eval_base   eval.benchmark · waits
        │ ├─◐  eval_tuned  eval.benchmark · waits
        ◐─│─╯  verdict     eval.compare · waits
        ◐─╯    gguf        quantize.gguf · waits
        ◐      served      deploy.serve · waits
        ");
    }

    #[test]
    fn mermaid_and_graphviz_get_what_they_read() {
        let small = plan(&[("a", "data.load", &[]), ("b\"]", "data.filter", &["a"])]);
        insta::assert_snapshot!(draw(&small, Format::Mermaid, 80, Paint(false)), @r#"
        flowchart TD
          n0["<b>a</b><br>data.load · waits"]:::waits
          n1["<b>b#quot;]</b><br>data.filter · waits"]:::waits
          n0 --> n1
          classDef waits stroke:#757575,fill:#f5f5f5,color:#000
        "#);
        insta::assert_snapshot!(draw(&small, Format::Dot, 80, Paint(false)), @r##"
        digraph {
          rankdir=TB
          node [shape=box, style="rounded,filled", fontname="sans-serif"]
          n0 [label="a\ndata.load · waits", color="#757575", fillcolor="#f5f5f5"]
          n1 [label="b\"]\ndata.filter · waits", color="#757575", fillcolor="#f5f5f5"]
          n0 -> n1
        }
        "##);
    }

    #[test]
    fn each_standing_has_the_word_and_the_symbol_that_the_table_has() {
        let cached = |refused: Option<&str>| Will::Cached {
            key: Digest::of(b"k"),
            finished: Finished::default(),
            device: None,
            frozen: false,
            refused: refused.map(str::to_owned),
        };
        let gate = |on: &str| Will::Gate { on: vec![StageId::from(on)], asked: None };
        let mut view = plan(&[("a", "x", &[]), ("b", "x", &["a"]), ("c", "x", &["b"]), ("d", "x", &["a"])]);
        let wills = [
            cached(None),
            cached(Some("`n > 1` is false")),
            Will::Skipped { because: "`b` is refused".into() },
            gate("a"),
        ];
        view.stages.iter_mut().zip(wills).for_each(|(stage, will)| stage.will = will);
        insta::assert_snapshot!(draw(&view, Format::Text, 80, Paint(false)), @r"
        ✓    a  x · cached
        ├─✗  b  x · cached, and refused (`n > 1` is false)
        │ ○  c  x · skipped (`b` is refused)
        ◐    d  x · gate
        ");
        let (mermaid, dot) =
            (draw(&view, Format::Mermaid, 80, Paint(false)), draw(&view, Format::Dot, 80, Paint(false)));
        for (state, said) in
            [("refused", "cached, and refused"), ("skipped", "skipped (`b` is refused)"), ("gate", "x · gate")]
        {
            assert!(mermaid.contains(&format!("classDef {state} ")) && mermaid.contains(said), "{mermaid}");
            assert!(dot.contains(said), "{dot}");
        }
        let colours: Vec<&str> = dot.lines().filter_map(|line| line.split("fillcolor=").nth(1)).collect();
        assert!((1..4).all(|at| !colours[..at].contains(&colours[at])), "each its own: {dot}");
    }

    #[test]
    fn a_matrix_of_which_nothing_runs_is_not_drawn_as_one_that_runs() {
        let names: Vec<String> = (0..MOST).map(|number| format!("f@n={number}")).collect();
        let mut lines: Vec<(&str, &str, &[&str])> = vec![("rows", "data.load", &[])];
        lines.extend(names.iter().map(|name| (name.as_str(), "data.filter", &["rows"][..])));
        let mut view = plan(&lines);
        view.stages[1].will = Will::Skipped { because: "not asked for".into() };
        let text = draw(&view, Format::Text, 80, Paint(false));
        assert!(text.contains("◐  f     ×60 data.filter · 1 skipped, 59 waits"), "{text}");
    }

    #[test]
    fn a_matrix_is_one_node_and_ten_thousand_stages_are_their_operators() {
        let names: Vec<String> = (0..100).map(|rank| format!("sft@rank={rank}")).collect();
        let mut lines: Vec<(&str, &str, &[&str])> = vec![("rows", "data.load", &[])];
        lines.extend(names.iter().map(|name| (name.as_str(), "train.sft", &["rows"][..])));
        let text = draw(&plan(&lines), Format::Text, 80, Paint(false));
        assert!(text.contains("sft   ×100 train.sft · 100 waits"), "{text}");
        let names: Vec<String> = (0..10_000).map(|number| format!("s{number}")).collect();
        let needs: Vec<[&str; 1]> = names.iter().map(|name| [name.as_str()]).collect();
        let mut lines: Vec<(&str, &str, &[&str])> = Vec::new();
        for (index, name) in names.iter().enumerate() {
            let operator = if index % 2 == 0 { "data.filter" } else { "data.dedup" };
            lines.push((name, operator, if index == 0 { &[] } else { &needs[index - 1] }));
        }
        let text = draw(&plan(&lines), Format::Text, 80, Paint(false));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("data.filter  ×5,000 5,000 waits · also after data.dedup"), "{text}");
        assert_eq!(draw(&plan(&lines), Format::Dot, 80, Paint(false)).lines().count(), 10_000 + 9_999 + 4);
    }
}
