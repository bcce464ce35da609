//! What made what: models and the data they learned from, licences on the way.

use std::collections::{BTreeMap, BTreeSet};

use llmflow_contract::{StageId, Table};

use super::{
    super::data::{OutputData, ReportData, StageData},
    Block,
    words::{known, short},
};

/// Outputs that every stage may have beside its own.
const SIDE: [&str; 2] = ["report", "trace"];

/// The port of a training stage whose rows measure it and teach it nothing.
const MEASURES: &str = "eval";

/// Outputs of a stage, side outputs left out.
pub fn own_outputs(stage: &StageData) -> impl Iterator<Item = &OutputData> {
    stage.outputs.iter().filter(|output| !SIDE.contains(&output.port.as_str()))
}

/// Models, adapters, tokenizers: whatever is neither rows nor figures.
fn is_model(output: &OutputData) -> bool {
    !output.kind.is_dataset() && !SIDE.contains(&output.kind.as_str())
}

/// `split.train`, or `base` for the only output.
fn address(stage: &StageData, output: &OutputData) -> String {
    if own_outputs(stage).count() == 1 { stage.stage.to_string() } else { format!("{}.{}", stage.stage, output.port) }
}

/// Each model with the data behind it, then every artifact.
pub fn models(data: &ReportData) -> Vec<Block> {
    let mut rows = Vec::new();
    for stage in &data.stages {
        for output in own_outputs(stage).filter(|output| is_model(output) && output.digest.is_some()) {
            rows.push(vec![
                address(stage, output),
                output.kind.to_string(),
                short(output.digest.as_ref()),
                format!("{} v{}", stage.operator, stage.version),
                learned_from(data, stage).join(", "),
            ]);
        }
    }
    let mut blocks = Vec::new();
    if !rows.is_empty() {
        let columns = ["artifact", "kind", "digest", "made by", "learned from"].map(str::to_owned).to_vec();
        blocks.push(Block::Table(Table { title: String::new(), columns, rows }));
    }
    let all = every_artifact(data);
    if !all.rows.is_empty() {
        blocks.push(Block::Fold {
            title: "Every artifact, and what it was made from".to_owned(),
            blocks: vec![Block::Table(all)],
        });
    }
    blocks
}

/// The stages a stage rests on by data, itself included.
fn ancestors<'a>(data: &'a ReportData, stage: &'a StageData) -> Vec<&'a StageData> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![&stage.stage]);
    while let Some(next) = open.pop() {
        if seen.insert(next) {
            open.extend(data.find(next).iter().flat_map(|stage| &stage.inputs).map(|input| &input.from_stage));
        }
    }
    data.stages.iter().filter(|stage| seen.contains(&stage.stage)).collect()
}

/// Datasets that a stage on the way to this model read to make a model: `split.train (268 rows)`.
fn learned_from(data: &ReportData, stage: &StageData) -> Vec<String> {
    let mut names = Vec::new();
    for maker in ancestors(data, stage).into_iter().filter(|maker| own_outputs(maker).any(is_model)) {
        for input in &maker.inputs {
            let from = data.find(&input.from_stage);
            let output = from.and_then(|from| from.outputs.iter().find(|output| output.port == input.from_port));
            let (Some(from), Some(output)) = (from, output) else { continue };
            if !output.kind.is_dataset() || input.port.as_str() == MEASURES {
                continue;
            }
            let rows = known(&output.facts, None);
            let rows = if rows.is_empty() { rows } else { format!(" ({rows})") };
            let name = format!("{}{rows}", address(from, output));
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

fn every_artifact(data: &ReportData) -> Table {
    let mut rows = Vec::new();
    for stage in &data.stages {
        let inputs: Vec<String> = stage
            .inputs
            .iter()
            .map(|input| {
                format!(
                    "{} {}",
                    source(data, &input.from_stage, input.from_port.as_str()),
                    short(input.digest.as_ref())
                )
            })
            .collect();
        for output in own_outputs(stage).filter(|output| output.digest.is_some()) {
            rows.push(vec![
                address(stage, output),
                output.kind.to_string(),
                known(&output.facts, output.size_bytes),
                short(output.digest.as_ref()),
                inputs.join(", "),
            ]);
        }
    }
    let columns = ["artifact", "kind", "holds", "digest", "from"].map(str::to_owned).to_vec();
    Table { title: String::new(), columns, rows }
}

/// An input's source as it is written in the file: `split.train`, `base`.
pub fn source(data: &ReportData, stage: &StageId, port: &str) -> String {
    let found = data.find(stage);
    let output = found.and_then(|found| found.outputs.iter().find(|output| output.port.as_str() == port));
    match (found, output) {
        (Some(found), Some(output)) => address(found, output),
        _ => format!("{stage}.{port}"),
    }
}

/// Each licence, the sources that state it, the results that carry it on.
pub fn licences(data: &ReportData) -> Vec<Block> {
    let mut by_licence: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for stage in &data.stages {
        for output in own_outputs(stage) {
            for licence in &output.facts.licences {
                let (stated, carried) = by_licence.entry(licence).or_default();
                if stage.inputs.is_empty() { stated } else { carried }.push(address(stage, output));
            }
        }
    }
    if by_licence.is_empty() {
        return Vec::new();
    }
    let silent = data.stages.iter().filter(|stage| stage.inputs.is_empty());
    let silent: Vec<String> = silent
        .flat_map(|stage| {
            own_outputs(stage).filter(|output| output.facts.licences.is_empty()).map(|output| address(stage, output))
        })
        .collect();
    let row = |(licence, (stated, carried)): (&str, (Vec<String>, Vec<String>))| {
        vec![licence.to_owned(), stated.join(", "), carried.join(", ")]
    };
    let mut rows: Vec<Vec<String>> = by_licence.into_iter().map(row).collect();
    if !silent.is_empty() {
        rows.push(vec!["none stated".to_owned(), silent.join(", "), String::new()]);
    }
    let columns = ["licence", "stated by", "carried on by"].map(str::to_owned).to_vec();
    vec![Block::Table(Table { title: String::new(), columns, rows })]
}
