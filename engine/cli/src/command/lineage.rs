//! `lineage`: what an artifact was made from, and where a row comes from.

use std::collections::{BTreeMap, BTreeSet};

use llmflow_contract::{Failure, Port, StageId};
use llmflow_dataset::{Fate, TraceRecord};
use llmflow_runtime::{address::Address, event::RunId, lineage::StageRow, run::Error};

use super::{DONE, Setting, block_on, history::History, rows::trace_of};
use crate::{
    args::LineageArgs,
    render::{
        lineage::{self as screen, Tree},
        rows::short_id,
    },
};

/// Rows with this beginning that are followed, and how far back.
const MOST_ROWS: usize = 10;
const MOST_STEPS: usize = 64;

/// Shows where an artifact, or one of its rows, comes from.
pub fn lineage(args: LineageArgs, setting: &Setting) -> Result<u8, Error> {
    block_on(async {
        let history = History::open(setting.home.as_deref()).await?;
        let address = Address::parse(&args.address)?;
        let run = history.lineage.find_run(&address.run).await?;
        let stages = history.lineage.stages_of_run(&run).await?;
        let trees = match (&args.row, &address.stage) {
            (Some(id), Some(stage)) => row_trees(&history, &run, &stages, stage, id).await?,
            (Some(_), None) => {
                return Err(
                    Failure::input("lineage/address", "a row belongs to a stage, and the address names a run").into()
                );
            }
            (None, Some(_)) => {
                let (_, stage, port, _) = history.lineage.resolve(&address).await?;
                vec![artifact_tree(&stages, &stage, &port, &mut BTreeSet::new())]
            }
            (None, None) => ends(&stages),
        };
        let out = setting.screen;
        if out.json {
            out.print_json(&trees);
        } else {
            let texts: Vec<String> = trees.iter().map(|tree| screen::tree(tree, out.width, out.paint)).collect();
            out.print(&texts.join("\n"));
        }
        Ok(DONE)
    })
}

/// Of a whole run: the trees of the stages that nothing reads.
fn ends(stages: &[StageRow]) -> Vec<Tree> {
    let is_read =
        |stage: &StageId| stages.iter().any(|other| other.inputs.iter().any(|input| input.from_stage == *stage));
    let mut seen = BTreeSet::new();
    let ends: Vec<&StageRow> = stages.iter().filter(|stage| !is_read(&stage.stage)).collect();
    let main =
        |stage: &StageRow| stage.outputs.first().map_or_else(|| Port::from("report"), |output| output.port.clone());
    ends.iter().map(|stage| artifact_tree(stages, &stage.stage, &main(stage), &mut seen)).collect()
}

/// The tree of one output; a tree that was drawn already is named only.
fn artifact_tree(stages: &[StageRow], wanted: &StageId, port: &Port, seen: &mut BTreeSet<StageId>) -> Tree {
    let name = format!("{wanted}.{port}");
    let Some(stage) = stages.iter().find(|stage| stage.stage == *wanted) else {
        return Tree { name, ..Tree::default() };
    };
    let output = stage.outputs.iter().find(|output| output.port == *port);
    let digest = output.and_then(|output| output.digest).map_or("–".to_owned(), |digest| digest.short());
    let kind = output.map(|output| output.kind.to_string()).unwrap_or_default();
    let summary = if stage.summary.is_empty() { String::new() } else { format!(" · {}", stage.summary) };
    let about = format!("{digest}  {kind} · {} v{} {}{summary}", stage.operator, stage.version, stage.status);
    if !seen.insert(wanted.clone()) {
        return Tree { name, about, is_above: !stage.inputs.is_empty(), from: Vec::new() };
    }
    let inputs = stage.inputs.iter();
    let from = inputs.map(|input| artifact_tree(stages, &input.from_stage, &input.from_port, seen)).collect();
    Tree { name, about, is_above: false, from }
}

/// A trace read once for every row that is followed through it.
struct Traces<'a> {
    history: &'a History,
    stages: &'a [StageRow],
    read: BTreeMap<StageId, Vec<TraceRecord>>,
}

impl Traces<'_> {
    async fn of(&mut self, stage: &StageId) -> Result<&[TraceRecord], Failure> {
        if !self.read.contains_key(stage) {
            let row = self.stages.iter().find(|row| row.stage == *stage);
            let records = match row {
                Some(row) => trace_of(self.history, row).await?.unwrap_or_default(),
                None => Vec::new(),
            };
            self.read.insert(stage.clone(), records);
        }
        Ok(&self.read[stage])
    }
}

async fn row_trees(
    history: &History,
    run: &RunId,
    stages: &[StageRow],
    stage: &StageId,
    id: &str,
) -> Result<Vec<Tree>, Failure> {
    let mut traces = Traces { history, stages, read: BTreeMap::new() };
    let records = traces.of(stage).await?;
    if records.is_empty() {
        let message = format!("`{stage}` of {run} keeps no trace of its rows");
        return Err(Failure::input("lineage/trace", message).help("name a stage that gives or filters a dataset"));
    }
    let found: BTreeSet<String> = records
        .iter()
        .filter(|record| record.row.starts_with(id))
        .map(|record| record.row.clone())
        .take(MOST_ROWS)
        .collect();
    if found.is_empty() {
        let message = format!("`{stage}` of {run} has no row whose id starts with `{id}`");
        return Err(Failure::input("lineage/row", message).help(format!("ids: llmflow show {run}/{stage} --rows")));
    }
    let mut trees = Vec::new();
    for row in found {
        trees.extend(row_tree(&mut traces, stage, &row, MOST_STEPS).await?);
    }
    Ok(trees)
}

/// What became of a row at a stage, and where its parents come from. Nothing if the stage never saw it.
async fn row_tree(traces: &mut Traces<'_>, stage: &StageId, id: &str, steps: usize) -> Result<Option<Tree>, Failure> {
    let records = traces.of(stage).await?;
    let Some(record) = records.iter().find(|record| record.row == id).cloned() else { return Ok(None) };
    let name = format!("{stage}  {}", short_id(id));
    let mut tree = Tree { name, about: told(&record), ..Tree::default() };
    if steps == 0 {
        return Ok(Some(tree));
    }
    let stages = traces.stages;
    let inputs = stages.iter().find(|row| row.stage == *stage).map(|row| row.inputs.as_slice()).unwrap_or_default();
    for parent in &record.parents {
        let mut found = None;
        for input in inputs {
            found = Box::pin(row_tree(traces, &input.from_stage, parent, steps - 1)).await?;
            if found.is_some() {
                break;
            }
        }
        // A parent that no stage knows is a place in a source: `rows.jsonl:12`.
        let source = || Tree { name: short_id(parent), about: "source".into(), ..Tree::default() };
        let is_source = inputs.is_empty();
        match found {
            Some(found) => tree.from.push(found),
            None if is_source && *parent != record.row => tree.from.push(source()),
            None => {}
        }
    }
    Ok(Some(tree))
}

/// `dropped by too_short · {"words":2}`.
fn told(record: &TraceRecord) -> String {
    let mut text = record.verdict.name().replace('_', " ");
    if let Some(rule) = &record.rule {
        let word = if matches!(record.verdict, Fate::Dropped | Fate::SetAside) { "by" } else { "as" };
        text.push_str(&format!(" {word} {rule}"));
    }
    if let Some(evidence) = &record.evidence {
        text.push_str(&format!(" · {evidence}"));
    }
    if let Some(port) = &record.port {
        text.push_str(&format!(" → {port}"));
    }
    text
}
