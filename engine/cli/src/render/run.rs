//! The screen of `show RUN`: one run and all its stages.

use std::path::PathBuf;

use jiff::ZonedDateTime;
use llmflow_runtime::lineage::{RunRow, StageRow};
use serde::Serialize;

use super::{format, style::Paint, table::Table, when};

/// A run with its stages.
#[derive(Clone, Debug, Serialize)]
pub struct ShownRun {
    #[serde(flatten)]
    pub row: RunRow,
    pub file: PathBuf,
    pub set: Vec<String>,
    pub stages: Vec<StageRow>,
    pub published: Vec<PathBuf>,
}

/// The whole screen.
pub fn run(shown: &ShownRun, now: &ZonedDateTime, width: usize, paint: Paint) -> String {
    let row = &shown.row;
    let time = row.seconds.map(|seconds| format!(" · {}", format::duration(seconds))).unwrap_or_default();
    let (pipeline, status) = (format::clean(&row.pipeline), paint.status(row.status.name()));
    let mut lines = vec![format!("{pipeline} · run {} · {status} · {}{time}", row.run, when::ago(row.started_ms, now))];
    let set: String = shown.set.iter().map(|set| format!("  --set {}", format::clean(set))).collect();
    lines.push(format!(" file      {}{set}", format::clean(&shown.file.display().to_string())));
    if !row.changed.is_empty() {
        lines.push(format!(" changed   {}", format::fit(&row.changed, width.saturating_sub(11))));
    }
    let mut table = Table::new(["stage", "status", "time", "result"]).right(&[2]);
    for stage in &shown.stages {
        let name = format::clean(stage.stage.as_str());
        table.row([name, paint.status(&stage.status), time_of(stage), result_of(stage)]);
    }
    lines.extend(table.lines(width));
    if !shown.published.is_empty() {
        let paths: Vec<String> =
            shown.published.iter().map(|path| format::clean(&path.display().to_string())).collect();
        lines.push(format!("published {}", paths.join("  ")));
    }
    lines.push(paint.dim(&format!("one stage: llmflow show {}/STAGE", row.run)));
    lines.join("\n") + "\n"
}

/// The time a stage took in this run; nothing for one that did not run.
fn time_of(stage: &StageRow) -> String {
    match (stage.status.as_str(), stage.seconds) {
        ("ran" | "refused", Some(seconds)) => format::clock(seconds),
        _ => "–".to_owned(),
    }
}

fn result_of(stage: &StageRow) -> String {
    match &stage.failure {
        Some(failure) => format::clean(&failure.message),
        None => format::clean(&stage.summary),
    }
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{Failure, StageId};
    use llmflow_runtime::event::{RunId, RunStatus};

    use super::*;

    fn stage(name: &str, status: &str, summary: &str) -> StageRow {
        StageRow {
            stage: StageId::from(name),
            operator: "a.b".into(),
            version: 1,
            status: status.into(),
            key: None,
            seconds: Some(41.0),
            summary: summary.into(),
            attempts: 1,
            failure: (status == "failed").then(|| Failure::input("x", "no rows\u{1b}[2J")),
            needs: Vec::new(),
            outputs: Vec::new(),
            inputs: Vec::new(),
            metrics: Default::default(),
        }
    }

    #[test]
    fn a_run_is_shown_with_every_stage() {
        let now = jiff::Timestamp::from_millisecond(1_795_500_000_000).unwrap();
        let now = now.to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let row = RunRow {
            run: RunId("calm-heron".into()),
            pipeline: "assistant".into(),
            status: RunStatus::Failed,
            started_ms: 1_795_499_700_000,
            seconds: Some(451.0),
            ran: 1,
            cached: 1,
            failed: 1,
            skipped: 1,
            changed: "sft.lora_r 16 → 32".into(),
        };
        let shown = ShownRun {
            row,
            file: "/srv/assistant.yaml".into(),
            set: vec!["rank=32".into()],
            stages: vec![
                stage("rows", "cached", "298 rows"),
                stage("clean", "ran", "290 kept"),
                stage("sft", "failed", ""),
                stage("gguf", "skipped", ""),
            ],
            published: vec!["/srv/out/report.html".into()],
        };
        insta::assert_snapshot!(run(&shown, &now, 80, Paint(false)), @r"
        assistant · run calm-heron · failed · 5 min ago · 7m31s
         file      /srv/assistant.yaml  --set rank=32
         changed   sft.lora_r 16 → 32
         stage  status   time  result
         rows   cached      –  298 rows
         clean  ran      0:41  290 kept
         sft    failed      –  no rows [2J
         gguf   skipped     –
        published /srv/out/report.html
        one stage: llmflow show calm-heron/STAGE
        ");
    }
}
