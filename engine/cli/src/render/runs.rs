//! The screen of `runs`.

use jiff::ZonedDateTime;
use llmflow_runtime::lineage::RunRow;
use serde::Serialize;

use super::{format, style::Paint, table::Table, when};

/// One run with the figures that are compared.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    #[serde(flatten)]
    pub row: RunRow,
    /// No run of this pipeline came before it.
    pub is_first: bool,
    /// The stage at which it failed or was refused.
    pub at: Option<String>,
    /// By name; a run without one has a gap.
    pub figures: Vec<(String, f64)>,
}

/// The newest runs. `figures`: the metrics that have a column, by name and head.
pub fn runs(list: &[Listed], figures: &[(&str, &str)], now: &ZonedDateTime, width: usize, paint: Paint) -> String {
    if list.is_empty() {
        return "no runs yet: llmflow run FILE.yaml\n".to_owned();
    }
    let mut table = Table::new(["run", "when", "status", "stages", "time", "changed"]);
    let several = list.iter().any(|listed| listed.row.pipeline != list[0].row.pipeline);
    let shown: Vec<&(&str, &str)> =
        figures.iter().filter(|(name, _)| list.iter().any(|listed| figure(listed, name).is_some())).collect();
    for (_, head) in &shown {
        table.insert_before_last(head);
    }
    if several {
        table.insert_before_last("pipeline");
    }
    for listed in list {
        let row = &listed.row;
        let status = match &listed.at {
            Some(stage) => format!("{} {}", row.status.name(), format::clean(stage)),
            None => row.status.name().to_owned(),
        };
        let time = row.seconds.map_or("–".to_owned(), format::duration);
        let mut cells =
            vec![row.run.to_string(), when::ago(row.started_ms, now), paint.status(&status), stages(row), time];
        cells.extend(shown.iter().map(|(name, _)| figure(listed, name).map_or("–".to_owned(), format::number)));
        if several {
            cells.push(format::clean(&row.pipeline));
        }
        cells.push(changed(listed));
        table.row_of(cells);
    }
    table.lines(width).join("\n") + "\n"
}

fn figure(listed: &Listed, name: &str) -> Option<f64> {
    listed.figures.iter().find(|(own, _)| own == name).map(|(_, value)| *value)
}

/// `8 ran 10 cached 1 failed`.
fn stages(row: &RunRow) -> String {
    let counts = [(row.ran, "ran"), (row.cached, "cached"), (row.failed, "failed"), (row.skipped, "skipped")];
    let words: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if words.is_empty() { "–".to_owned() } else { words.join(" ") }
}

/// What differed from the last success; a first run has nothing to differ from.
fn changed(listed: &Listed) -> String {
    if listed.is_first { "first".to_owned() } else { format::clean(&listed.row.changed) }
}

#[cfg(test)]
mod tests {
    use llmflow_runtime::event::{RunId, RunStatus};

    use super::*;

    fn listed(run: &str, status: RunStatus, changed: &str, figures: &[(&str, f64)]) -> Listed {
        let at = (status == RunStatus::Failed).then(|| "sft".to_owned());
        let row = RunRow {
            run: RunId(run.into()),
            pipeline: "assistant".into(),
            status,
            started_ms: 1_795_499_700_000,
            seconds: Some(451.0),
            ran: 8,
            cached: u32::from(!changed.is_empty()) * 10,
            failed: u32::from(status == RunStatus::Failed),
            skipped: 0,
            changed: changed.into(),
        };
        Listed {
            row,
            at,
            is_first: changed.is_empty(),
            figures: figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
        }
    }

    #[test]
    fn runs_are_listed_with_what_changed_and_what_came_of_it() {
        let now =
            jiff::Timestamp::from_millisecond(1_795_500_000_000).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let list = [
            listed("calm-heron", RunStatus::Done, "sft.lora_r 16 → 32", &[("acc", 0.7), ("eval_loss", 1.42)]),
            listed("quiet-otter", RunStatus::Failed, "", &[("eval_loss", 1.47)]),
        ];
        let figures = [("acc", "acc"), ("eval_loss", "loss"), ("perplexity", "ppl")];
        insta::assert_snapshot!(runs(&list, &figures, &now, 120, Paint(false)), @r"
        run          when       status      stages           time   acc   loss  changed
        calm-heron   5 min ago  done        8 ran 10 cached  7m31s  0.70  1.42  sft.lora_r 16 → 32
        quiet-otter  5 min ago  failed sft  8 ran 1 failed   7m31s  –     1.47  first
        ");
        assert_eq!(runs(&[], &figures, &now, 80, Paint(false)), "no runs yet: llmflow run FILE.yaml\n");
    }
}
