//! What an artifact was made from in its run, and what was made of it in every run.

use std::collections::{BTreeSet, HashMap};

use llmflow_contract::{Digest, Failure, Port, StageId};
use llmflow_runtime::{
    address::Address,
    event::RunId,
    lineage::{Descendant, Descendants, InputRow, StageRow},
};

use crate::{
    command::history::History,
    render::{
        format,
        graph::{Graph, Node},
        lineage::{Artifacts, Tree},
    },
};

/// Runs that are named behind what they gave.
const RUNS: usize = 3;
/// Steps that a tree goes up.
const DEPTH: usize = 20;
/// Stages that nothing reads whose trees are drawn, where a whole run is asked for.
const ENDS: usize = 20;

/// What is shown of an address: of a whole run the trees of the stages that nothing reads.
pub(super) async fn shown(history: &History, run: &RunId, address: &Address) -> Result<Artifacts, Failure> {
    let stages = Stages::of(history, run).await?;
    if address.stage.is_none() {
        return Ok(stages.ends());
    }
    let (_, stage, port, digest) = history.lineage.resolve(address).await?;
    let descendants = history.lineage.descendants(&digest, &stage).await?;
    let producers = history.lineage.producers(&digest).await?;
    let others = producers.into_iter().filter(|place| place.run != *run).map(|place| place.run.to_string());
    let mut made_in: Vec<String> = others.collect();
    made_in.dedup();
    let mut seen = BTreeSet::new();
    Ok(Artifacts {
        from: vec![stages.tree(&stage, &port, DEPTH, &mut BTreeSet::new())],
        into: descendants.first.iter().map(|index| made_of(&descendants, *index, DEPTH, &mut seen)).collect(),
        also_in: made_in,
        is_cut: descendants.is_cut,
        limit: None,
    })
}

/// The same as one graph.
pub(super) async fn graph(history: &History, run: &RunId, address: &Address) -> Result<Graph, Failure> {
    let stages = Stages::of(history, run).await?;
    let mut drawn = Drawn::default();
    if address.stage.is_none() {
        for stage in &stages.rows {
            drawn.stage(&stages, stage);
        }
        return Ok(drawn.graph);
    }
    let (_, stage, _, digest) = history.lineage.resolve(address).await?;
    let above = stages.above(&stage);
    for row in stages.rows.iter().filter(|row| above.contains(&row.stage)) {
        drawn.stage(&stages, row);
    }
    let root = drawn.place[&stage];
    let descendants = history.lineage.descendants(&digest, &stage).await?;
    let first = drawn.graph.nodes.len();
    for made in &descendants.all {
        drawn.graph.nodes.push(Node {
            name: format!("{}.{}", made.stage, made.port),
            about: about_made(made),
            operator: made.operator.clone(),
            state: "ran".into(),
            count: 1,
        });
    }
    drawn.graph.edges.extend(descendants.first.iter().map(|index| (root, first + index)));
    for (index, made) in descendants.all.iter().enumerate() {
        drawn.graph.edges.extend(made.into.iter().map(|into| (first + index, first + into)));
    }
    Ok(drawn.graph)
}

#[derive(Default)]
struct Drawn {
    graph: Graph,
    place: HashMap<StageId, usize>,
}

impl Drawn {
    /// One stage below those it reads, which come before it.
    fn stage(&mut self, stages: &Stages, row: &StageRow) {
        let index = self.graph.nodes.len();
        let main = row.outputs.first().map(|output| output.port.clone());
        let about = match main {
            Some(port) => stages.about(row, &port),
            None => format!("{} v{} {}", row.operator, row.version, row.status),
        };
        let (name, operator, state) = (row.stage.to_string(), row.operator.clone(), row.status.clone());
        self.graph.nodes.push(Node { name, about, operator, state, count: 1 });
        let read = row.inputs.iter().filter_map(|input| self.place.get(&input.from_stage));
        self.graph.edges.extend(read.map(|from| (*from, index)));
        self.place.insert(row.stage.clone(), index);
    }
}

/// The stages of one run, by name.
struct Stages {
    rows: Vec<StageRow>,
    place: HashMap<StageId, usize>,
}

impl Stages {
    async fn of(history: &History, run: &RunId) -> Result<Self, Failure> {
        let rows = history.lineage.stages_of_run(run).await?;
        let place = rows.iter().enumerate().map(|(index, row)| (row.stage.clone(), index)).collect();
        Ok(Self { rows, place })
    }

    fn find(&self, stage: &StageId) -> Option<&StageRow> {
        self.place.get(stage).map(|index| &self.rows[*index])
    }

    fn ends(&self) -> Artifacts {
        let read: BTreeSet<&StageId> =
            self.rows.iter().flat_map(|row| row.inputs.iter().map(|input| &input.from_stage)).collect();
        let ends: Vec<&StageRow> = self.rows.iter().filter(|row| !read.contains(&row.stage)).collect();
        let mut seen = BTreeSet::new();
        let tree = |row: &&StageRow| {
            let port = row.outputs.first().map_or_else(|| Port::from("report"), |output| output.port.clone());
            self.tree(&row.stage, &port, DEPTH, &mut seen)
        };
        let is_cut = ends.len() > ENDS;
        Artifacts { from: ends.iter().take(ENDS).map(tree).collect(), is_cut, ..Artifacts::default() }
    }

    /// A stage and every stage above it.
    fn above(&self, stage: &StageId) -> BTreeSet<StageId> {
        let (mut found, mut queue) = (BTreeSet::new(), vec![stage.clone()]);
        while let Some(stage) = queue.pop() {
            let Some(row) = self.find(&stage).filter(|_| !found.contains(&stage)) else { continue };
            queue.extend(row.inputs.iter().map(|input| input.from_stage.clone()));
            found.insert(stage);
        }
        found
    }

    /// The tree of one output; a tree that was drawn already, or lies very deep, is named only.
    fn tree(&self, wanted: &StageId, port: &Port, depth: usize, seen: &mut BTreeSet<StageId>) -> Tree {
        let name = format!("{wanted}.{port}");
        let Some(stage) = self.find(wanted) else { return Tree { name, ..Tree::default() } };
        let about = self.about(stage, port);
        if depth == 0 && !stage.inputs.is_empty() {
            return Tree { name, about, is_above: false, children: vec![more(wanted)] };
        }
        if !seen.insert(wanted.clone()) {
            return Tree { name, about, is_above: !stage.inputs.is_empty(), children: Vec::new() };
        }
        let read = |input: &InputRow| match input.noted.filter(|noted| Some(*noted) != self.given(input)) {
            None => self.tree(&input.from_stage, &input.from_port, depth - 1, seen),
            Some(noted) => {
                let about = format!("{}  what it gave when `{wanted}` was made, which is frozen", noted.short());
                let name = format!("{}.{}", input.from_stage, input.from_port);
                Tree { name, about, ..Tree::default() }
            }
        };
        let children = stage.inputs.iter().map(read).collect();
        Tree { name, about, is_above: false, children }
    }

    /// What the output that an input reads was in this run.
    fn given(&self, input: &InputRow) -> Option<Digest> {
        let outputs = self.find(&input.from_stage)?.outputs.iter();
        outputs.filter(|output| output.port == input.from_port).find_map(|output| output.digest)
    }

    /// `33c7a1b2  adapter · train.sft v3 ran · eval loss 2.48 → 1.42`.
    fn about(&self, stage: &StageRow, port: &Port) -> String {
        let output = stage.outputs.iter().find(|output| output.port == *port);
        let digest = output.and_then(|output| output.digest).map_or("–".to_owned(), |digest| digest.short());
        let kind = output.map(|output| output.kind.to_string()).unwrap_or_default();
        let summary = if stage.summary.is_empty() { String::new() } else { format!(" · {}", stage.summary) };
        format!("{digest}  {kind} · {} v{} {}{summary}", stage.operator, stage.version, stage.status)
    }
}

/// Where a tree is too deep to be drawn on.
fn more(stage: &StageId) -> Tree {
    Tree { name: "…".into(), about: format!("goes on at {stage}"), ..Tree::default() }
}

/// The tree of what was made of an artifact.
fn made_of(all: &Descendants, index: usize, depth: usize, seen: &mut BTreeSet<usize>) -> Tree {
    let made = &all.all[index];
    let name = format!("{}.{}", made.stage, made.port);
    let about = about_made(made);
    if depth == 0 && !made.into.is_empty() {
        return Tree { name, about, is_above: false, children: vec![more(&made.stage)] };
    }
    if !seen.insert(index) {
        return Tree { name, about, is_above: !made.into.is_empty(), children: Vec::new() };
    }
    let children = made.into.iter().map(|into| made_of(all, *into, depth - 1, seen)).collect();
    Tree { name, about, is_above: false, children }
}

fn about_made(made: &Descendant) -> String {
    let runs = format::listed(made.runs.iter().map(|run| run.0.as_str()), RUNS);
    let summary = if made.summary.is_empty() { String::new() } else { format!(" · {}", made.summary) };
    format!("{}  {} · {} v{} in {runs}{summary}", made.digest.short(), made.kind, made.operator, made.version)
}
