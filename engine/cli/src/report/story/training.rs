//! How models learned, and what packing them cost.

use llmflow_contract::Series;

use super::{
    super::{
        chart::line::{Curve, LineChart},
        data::{ReportData, StageData},
    },
    Block, Figure, data,
    words::{figure, known},
};

/// Charts of one stage that are not folded.
const SHOWN: usize = 2;
/// What a name may start with to share the axes of the others with its ending: `chosen_reward`, `rejected_reward`.
const SIDES: [&str; 3] = ["eval_", "chosen_", "rejected_"];
/// The kind of a packed model.
const PACKED: &str = "gguf";

/// Every stage with curves, one chart for what shares its axes.
pub fn curves(data: &ReportData) -> Vec<Block> {
    let mut blocks = Vec::new();
    for stage in &data.stages {
        let charts = charts_of(&all_series(stage));
        if charts.is_empty() {
            continue;
        }
        blocks.push(Block::Heading(stage.stage.to_string()));
        if !stage.summary.is_empty() {
            blocks.push(Block::Text(stage.summary.clone()));
        }
        blocks.extend(first_and_more(charts));
        blocks.extend(data::readings(stage));
    }
    blocks
}

/// The first charts, the others folded.
fn first_and_more(mut charts: Vec<LineChart>) -> Vec<Block> {
    let more = charts.split_off(SHOWN.min(charts.len()));
    let names: Vec<&str> = more.iter().map(|chart| chart.title.as_str()).collect();
    let title = format!("More curves: {}", names.join(", "));
    let fold = (!more.is_empty()).then(|| Block::Fold { title, blocks: vec![Block::Lines(more)] });
    std::iter::once(Block::Lines(charts)).chain(fold).collect()
}

/// What its report holds, and what else was recorded.
fn all_series(stage: &StageData) -> Vec<Series> {
    let mut all = stage.report.as_ref().map(|report| report.series.clone()).unwrap_or_default();
    let recorded = stage.series.iter().filter(|series| series.points.len() > 1);
    let more: Vec<Series> =
        recorded.filter(|series| all.iter().all(|known| known.name != series.name)).cloned().collect();
    all.extend(more);
    all
}

/// Has this stage curves, told in a section of their own?
pub fn is_training(stage: &StageData) -> bool {
    !charts_of(&all_series(stage)).is_empty()
}

/// One chart for all that measures the same; losses first, what only steers last.
fn charts_of(all: &[Series]) -> Vec<LineChart> {
    let stem = |name: &str| SIDES.iter().find_map(|side| name.strip_prefix(side)).unwrap_or(name).to_owned();
    let mut charts: Vec<LineChart> = Vec::new();
    for series in all {
        let curve = Curve { name: series.name.clone(), points: series.points.clone() };
        let title = stem(&series.name);
        match charts.iter_mut().find(|chart| chart.title == title && chart.x_label == series.x_label) {
            Some(chart) => chart.curves.push(curve),
            None => charts.push(LineChart {
                title,
                x_label: series.x_label.clone(),
                y_label: series.y_label.clone(),
                curves: vec![curve],
            }),
        }
    }
    charts.retain(|chart| !chart.is_empty());
    for chart in &mut charts {
        chart.curves.sort_by_key(|curve| SIDES.iter().position(|side| curve.name.starts_with(side)));
        if let [only] = chart.curves.as_slice() {
            chart.title = only.name.clone();
        }
    }
    charts.sort_by_key(|chart| place_of(&chart.title));
    charts
}

fn place_of(title: &str) -> usize {
    match title {
        "loss" => 0,
        title if title.ends_with("loss") => 1,
        "reward" | "margin" => 2,
        "grad_norm" => 4,
        "learning_rate" => 5,
        _ => 3,
    }
}

/// Does this stage give a packed model, told in a section of its own?
pub fn is_packed(stage: &StageData) -> bool {
    stage.report.is_some() && stage.outputs.iter().any(|output| output.kind.as_str() == PACKED)
}

/// Size, bits a weight, error a tensor.
pub fn packed(data: &ReportData) -> Vec<Block> {
    let mut blocks = Vec::new();
    let several = data.stages.iter().filter(|stage| is_packed(stage)).count() > 1;
    for stage in data.stages.iter().filter(|stage| is_packed(stage)) {
        let Some(report) = &stage.report else { continue };
        if several {
            blocks.push(Block::Heading(stage.stage.to_string()));
        }
        let figures = report.metrics.iter().map(|(name, value)| Figure {
            label: name.clone(),
            value: figure(name, *value),
            note: String::new(),
        });
        let figures: Vec<Figure> = figures.collect();
        if !figures.is_empty() {
            blocks.push(Block::Figures(figures));
        }
        let made = stage.outputs.iter().map(|output| known(&output.facts, output.size_bytes));
        blocks.extend(made.filter(|known| report.metrics.is_empty() && !known.is_empty()).map(Block::Text));
        if !report.charts.is_empty() {
            blocks.push(Block::Charts(report.charts.clone()));
        }
        let tables: Vec<Block> = report.tables.iter().cloned().map(Block::Table).collect();
        if !tables.is_empty() {
            blocks.push(Block::Fold { title: "Every tensor".to_owned(), blocks: tables });
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_measures_the_same_shares_its_axes_and_the_loss_comes_first() {
        let series = |name: &str| Series {
            name: name.into(),
            x_label: "step".into(),
            points: vec![(1.0, 1.0), (2.0, 2.0)],
            ..Series::default()
        };
        let names = ["learning_rate", "rejected_reward", "chosen_nll", "eval_loss", "chosen_reward", "loss"];
        let charts = charts_of(&names.map(series));
        let titles: Vec<&str> = charts.iter().map(|chart| chart.title.as_str()).collect();
        assert_eq!(titles, ["loss", "reward", "chosen_nll", "learning_rate"]);
        assert_eq!(charts[0].curves.iter().map(|curve| curve.name.as_str()).collect::<Vec<_>>(), ["loss", "eval_loss"]);
    }
}
