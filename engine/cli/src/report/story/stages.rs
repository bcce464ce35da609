//! The stages: how they hang together, and each by itself.

use std::collections::BTreeMap;

use super::{
    super::{
        chart::graph::{Edge, Graph, Node},
        data::{OutputData, ReportData, StageData, Status},
    },
    Block, Card, data, lineage, outcome, training, verdict,
    words::{figure, known, short},
};
use crate::render::format::clock;

pub fn stages(data: &ReportData) -> Vec<Block> {
    if data.stages.is_empty() {
        return Vec::new();
    }
    let cards = data.stages.iter().map(|stage| Block::Stage(Box::new(card(data, stage))));
    std::iter::once(Block::Graph(graph(data))).chain(cards).collect()
}

fn graph(data: &ReportData) -> Graph {
    let place: BTreeMap<_, usize> =
        data.stages.iter().enumerate().map(|(index, stage)| (&stage.stage, index)).collect();
    let mut edges = Vec::new();
    for (to, stage) in data.stages.iter().enumerate() {
        for from in stage.needs.iter().filter_map(|needed| place.get(needed)) {
            let carries_data = stage.inputs.iter().any(|input| input.from_stage == data.stages[*from].stage);
            edges.push(Edge { from: *from, to, carries_data });
        }
    }
    Graph { nodes: data.stages.iter().map(node).collect(), edges }
}

fn node(stage: &StageData) -> Node {
    let hover = [
        format!("{} · {} v{} · {}", stage.stage, stage.operator, stage.version, stage.status.name()),
        stage.summary.clone(),
        stage.skipped_because.clone().unwrap_or_default(),
    ];
    let hover: Vec<String> = hover.into_iter().filter(|line| !line.is_empty()).collect();
    Node {
        name: stage.stage.to_string(),
        detail: stage.operator.clone(),
        time: time(stage).unwrap_or_else(|| stage.status.name().to_owned()),
        status: stage.status.name(),
        sign: stage.status.sign(),
        hover: hover.join("\n"),
        link: format!("#stage-{}", stage.stage),
    }
}

/// How long it took in this run; nothing of a stage that did not run.
fn time(stage: &StageData) -> Option<String> {
    let ran = matches!(stage.status, Status::Ran | Status::Refused);
    stage.seconds.filter(|_| ran).map(clock)
}

fn card(data: &ReportData, stage: &StageData) -> Card {
    let mut blocks: Vec<Block> = outcome::alert(stage).into_iter().collect();
    blocks.extend(stage.skipped_because.iter().map(|why| Block::Text(format!("Skipped: {why}."))));
    blocks.push(Block::Facts(facts(data, stage)));
    if !stage.metrics.is_empty() {
        let metrics = stage.metrics.iter().map(|(name, value)| (name.clone(), figure(name, *value)));
        blocks.push(Block::Fold { title: "Metrics".to_owned(), blocks: vec![Block::Facts(metrics.collect())] });
    }
    blocks.extend(details(stage));
    Card {
        name: stage.stage.to_string(),
        operator: format!("{} v{}", stage.operator, stage.version),
        status: stage.status,
        time: time(stage).unwrap_or_default(),
        summary: stage.summary.clone(),
        blocks,
    }
}

fn facts(data: &ReportData, stage: &StageData) -> Vec<(String, String)> {
    let mut facts = Vec::new();
    let mut add = |name: &str, value: String| {
        if !value.is_empty() {
            facts.push((name.to_owned(), value));
        }
    };
    let inputs = stage.inputs.iter().map(|input| {
        let source = lineage::source(data, &input.from_stage, input.from_port.as_str());
        let label = input.label.as_ref().map(|label| format!(".{label}")).unwrap_or_default();
        format!("{}{label} ← {source} {}", input.port, short(input.digest.as_ref()))
    });
    add("from", inputs.collect::<Vec<_>>().join(" · "));
    let settings = stage.settings.iter().map(|(name, value)| format!("{name} {value}"));
    add("with", settings.collect::<Vec<_>>().join(" · "));
    let outputs = lineage::own_outputs(stage).filter(|output| output.digest.is_some()).map(gives);
    add("gives", outputs.collect::<Vec<_>>().join(" · "));
    let reads = |other: &&StageData| other.inputs.iter().any(|input| input.from_stage == stage.stage);
    let used_by = data.stages.iter().filter(reads).map(|other| other.stage.to_string());
    add("used by", used_by.collect::<Vec<_>>().join(", "));
    add("key", stage.key.as_ref().map(|key| key.short()).unwrap_or_default());
    add("attempts", if stage.attempts > 1 { stage.attempts.to_string() } else { String::new() });
    facts
}

/// `train dataset/chat 91ab0c3d (268 rows)`; a port called as its kind is said once.
fn gives(output: &OutputData) -> String {
    let (port, kind) = (output.port.as_str(), output.kind.as_str());
    let name = if port == kind { port.to_owned() } else { format!("{port} {kind}") };
    let known = known(&output.facts, output.size_bytes);
    let known = if known.is_empty() { known } else { format!(" ({known})") };
    format!("{name} {}{known}", short(output.digest.as_ref()))
}

/// What its report shows, unless a section above does.
fn details(stage: &StageData) -> Vec<Block> {
    let Some(report) = &stage.report else { return Vec::new() };
    if verdict::is_verdict(stage) || training::is_packed(stage) {
        return Vec::new();
    }
    let charts = (!report.charts.is_empty()).then(|| Block::Charts(report.charts.clone()));
    let tables = report.tables.iter().filter(|table| !table.rows.is_empty()).cloned().map(Block::Table);
    let is_told = training::is_training(stage) || (data::gives_rows(stage) && report.funnel.is_some());
    let readings = if is_told { None } else { data::readings(stage) };
    charts.into_iter().chain(tables).chain(readings).collect()
}
