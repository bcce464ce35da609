//! Is it better? The sentence, its figures with intervals, answers of both models.
//!
//! A verdict is a report with a sample called `verdict` that holds the sentence; a figure compared is a metric
//! `NAME_delta` with `NAME.baseline`, `NAME.candidate` and `NAME_delta.lower95`, `.upper95` beside it.

use llmflow_contract::Report;

use super::{
    super::data::{ReportData, StageData, Status},
    Block, Figure, Reading, outcome,
    words::{figure, signed},
};

const NAME: &str = "verdict";

/// The sentence of a report, if it holds a verdict.
fn sentence(report: &Report) -> Option<&str> {
    let sample = report.samples.iter().find(|sample| sample.title == NAME)?;
    sample.texts.iter().find(|(name, _)| name == NAME).map(|(_, text)| text.as_str())
}

fn verdicts(data: &ReportData) -> impl Iterator<Item = (&StageData, &Report, &str)> {
    data.stages.iter().filter_map(|stage| {
        let report = stage.report.as_ref()?;
        Some((stage, report, sentence(report)?))
    })
}

/// Is this stage told at the head of the page?
pub fn is_verdict(stage: &StageData) -> bool {
    stage.report.as_ref().and_then(sentence).is_some()
}

/// The sentence and its figures; of a run without a verdict what became of its stages.
pub fn verdict(data: &ReportData) -> Vec<Block> {
    let several = verdicts(data).count() > 1;
    let mut blocks = Vec::new();
    for (stage, report, sentence) in verdicts(data) {
        if several {
            blocks.push(Block::Heading(stage.stage.to_string()));
        }
        blocks.push(Block::Lead(sentence.to_owned()));
        let figures = compared(report);
        if !figures.is_empty() {
            blocks.push(Block::Figures(figures));
        }
        if !report.charts.is_empty() {
            blocks.push(Block::Charts(report.charts.clone()));
        }
    }
    if blocks.is_empty() && data.count(Status::Failed) == 0 && !data.stages.is_empty() {
        blocks.push(Block::Lead(format!("{}.", outcome::counts(data))));
    }
    blocks
}

fn compared(report: &Report) -> Vec<Figure> {
    let value = |name: String| report.metrics.get(&name).copied();
    let compare = |stem: &str| {
        let (before, after) = (value(format!("{stem}.baseline"))?, value(format!("{stem}.candidate"))?);
        let delta = value(format!("{stem}_delta"))?;
        let interval = value(format!("{stem}_delta.lower95")).zip(value(format!("{stem}_delta.upper95")));
        let interval =
            interval.map_or_else(String::new, |(lower, upper)| format!(", 95 % {}…{}", signed(lower), signed(upper)));
        Some(Figure {
            label: stem.to_owned(),
            value: format!("{} → {}", figure("", before), figure("", after)),
            note: format!("{}{interval}", signed(delta)),
        })
    };
    report.metrics.keys().filter_map(|name| compare(name.strip_suffix("_delta")?)).collect()
}

/// What both models said, then what changed most.
pub fn answers(data: &ReportData) -> Vec<Block> {
    let mut blocks = Vec::new();
    for (_, report, _) in verdicts(data) {
        let rest = report.samples.iter().filter(|sample| sample.title != NAME);
        let readings: Vec<Reading> = rest.map(Reading::of).collect();
        if !readings.is_empty() {
            blocks.push(Block::Readings(readings));
        }
        blocks.extend(report.tables.iter().filter(|table| !table.rows.is_empty()).cloned().map(Block::Table));
    }
    blocks
}
