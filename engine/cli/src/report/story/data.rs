//! What became of the rows, and why.

use llmflow_contract::{Funnel, Table};

use super::{
    super::data::{ReportData, StageData},
    Block, Reading,
};
use crate::render::format::{count, counted};

/// Samples shown of one stage.
pub const SHOWN: usize = 8;

/// Stages that give rows, and those that could not use all they were given.
fn funnels(data: &ReportData) -> impl Iterator<Item = (&StageData, &Funnel)> {
    data.stages.iter().filter_map(|stage| {
        let funnel = stage.report.as_ref()?.funnel.as_ref()?;
        (gives_rows(stage) || funnel.set_aside > 0 || !funnel.dropped.is_empty()).then_some((stage, funnel))
    })
}

/// Is a dataset among its outputs?
pub fn gives_rows(stage: &StageData) -> bool {
    stage.outputs.iter().any(|output| output.kind.is_dataset())
}

/// The bars of all data stages, what they left out by which rule, and rows to look at.
pub fn funnel(data: &ReportData) -> Vec<Block> {
    let bars: Vec<_> = funnels(data).map(|(stage, funnel)| (stage.stage.to_string(), funnel.clone())).collect();
    if bars.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![Block::Funnel(bars)];
    let rows: Vec<Vec<String>> = funnels(data).flat_map(|(stage, funnel)| left_out(stage, funnel)).collect();
    if !rows.is_empty() {
        let columns = ["stage", "rule", "rows"].map(str::to_owned).to_vec();
        blocks.push(Block::Table(Table { title: "What was left out, and why".to_owned(), columns, rows }));
        blocks.push(Block::Text(format!("The rows themselves: llmflow show {}/STAGE --dropped", data.run)));
    }
    blocks.extend(funnels(data).filter(|(stage, _)| gives_rows(stage)).filter_map(|(stage, _)| readings(stage)));
    blocks
}

fn left_out(stage: &StageData, funnel: &Funnel) -> Vec<Vec<String>> {
    let row = |rule: &str, rows: u64| vec![stage.stage.to_string(), rule.to_owned(), count(rows)];
    let aside = (funnel.set_aside > 0).then(|| row("set aside", funnel.set_aside));
    let dropped = funnel.dropped.iter().filter(|(_, rows)| **rows > 0).map(|(rule, rows)| row(rule, *rows));
    aside.into_iter().chain(dropped).collect()
}

/// Rows that a stage chose to show, folded.
pub fn readings(stage: &StageData) -> Option<Block> {
    let samples = &stage.report.as_ref()?.samples;
    let readings: Vec<Reading> = samples.iter().take(SHOWN).map(Reading::of).collect();
    let title = format!("{}: {} to look at", stage.stage, counted(readings.len() as u64, "row"));
    (!readings.is_empty()).then(|| Block::Fold { title, blocks: vec![Block::Readings(readings)] })
}
