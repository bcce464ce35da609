//! The screen of `show RUN`: one run and its stages; of many stages how they stand, and those that failed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use jiff::ZonedDateTime;
use llmflow_contract::StageId;
use llmflow_runtime::{
    event::RunStatus,
    lineage::{NOT_STARTED, RunRow, StageCount, StageRow},
};
use serde::Serialize;

use super::{asked::Asked, format, style::Paint, table::Table, typed::Place, when};

/// Stages from which on they are counted, not listed.
pub const MANY: u32 = 60;
/// Stages that failed, or took longest, that are listed among many.
pub const LISTED: u32 = 10;
/// Operators that are listed among many stages.
const OPERATORS: usize = 30;

/// A run with its stages.
#[derive(Clone, Debug, Serialize)]
pub struct ShownRun {
    #[serde(flatten)]
    pub row: RunRow,
    pub file: PathBuf,
    pub tags: Vec<String>,
    #[serde(flatten)]
    pub stages: Stages,
    /// Stages that an interrupted run did not come to.
    pub not_started: BTreeSet<StageId>,
    pub published: Vec<PathBuf>,
    /// Why stages were skipped, or refused.
    pub reasons: BTreeMap<StageId, String>,
    /// What every command of this home ends with from here.
    #[serde(skip)]
    pub with_home: String,
}

/// Each stage; of many, how many stand how.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Stages {
    All { stages: Vec<StageRow> },
    Counted { counts: Vec<StageCount>, broken: Vec<StageRow>, slowest: Vec<StageRow> },
}

/// The whole screen.
pub fn run(shown: &ShownRun, now: &ZonedDateTime, width: usize, paint: Paint) -> String {
    let row = &shown.row;
    let time = row.seconds.map(|seconds| format!(" · {}", format::duration(seconds))).unwrap_or_default();
    let tags: String =
        shown.tags.iter().map(|tag| format!(" · {}", paint.bold(&format!("[{}]", format::clean(tag))))).collect();
    let limited = row.limit.map(|limit| format!(" · {}", format::limited(limit))).unwrap_or_default();
    let (pipeline, status) = (format::clean(&row.pipeline), paint.status(row.status.name()));
    let mut lines = vec![format!(
        "{pipeline} · run {} · {status} · {}{time}{limited}{tags}",
        row.run,
        when::ago(row.started_ms, now)
    )];
    let asked = Place::here().asked(Asked::listed(row));
    let set: String = asked.words().iter().map(|word| format!("  {word}")).collect();
    lines.push(format!(" file      {}{set}", format::clean(&shown.file.display().to_string())));
    if let Some(run) = &row.resumes {
        lines.push(format!(" goes on   with {run}"));
    }
    if !row.changed.is_empty() {
        lines.push(format!(" changed   {}", format::fit(&row.changed, width.saturating_sub(11))));
    }
    match &shown.stages {
        Stages::All { stages } => lines.extend(listed(stages, &shown.not_started, &shown.reasons, width, paint)),
        Stages::Counted { counts, broken, slowest } => {
            lines.extend(broken_ones(broken, row, &shown.reasons, width, paint));
            lines.extend(counted(counts, width, paint));
            if !slowest.is_empty() {
                let words = slowest.iter().map(|stage| {
                    let name = format::fit(stage.stage.as_str(), 24);
                    format!("{name} {}", format::clock(stage.seconds.unwrap_or_default()))
                });
                let words: Vec<String> = words.collect();
                lines.push(format!(" longest   {}", format::fit(&words.join(" · "), width.saturating_sub(11))));
            }
        }
    }
    if !shown.published.is_empty() {
        let paths: Vec<String> =
            shown.published.iter().map(|path| format::clean(&path.display().to_string())).collect();
        lines.push(format!("published {}", paths.join("  ")));
    }
    lines.extend(going_on(shown, paint));
    let every = if matches!(shown.stages, Stages::Counted { .. }) { " · every stage: --all" } else { "" };
    lines.push(paint.dim(&format!("one stage: llmflow show {}/STAGE{}{every}", row.run, shown.with_home)));
    lines.join("\n") + "\n"
}

/// How to go on with what did not come to its end.
fn going_on(shown: &ShownRun, paint: Paint) -> Option<String> {
    let row = &shown.row;
    let command = format!("llmflow resume {}{}", row.run, shown.with_home);
    match row.status {
        RunStatus::Interrupted => Some(paint.dim(&format!("go on:     {command}"))),
        RunStatus::Failed if row.failed + row.refused == 0 => {
            Some(paint.dim(&format!("every stage has its result, and publishing failed; again: {command}")))
        }
        RunStatus::Failed => Some(paint.dim(&format!("once it is mended: {command}"))),
        _ => None,
    }
}

fn listed(
    stages: &[StageRow],
    not_started: &BTreeSet<StageId>,
    reasons: &BTreeMap<StageId, String>,
    width: usize,
    paint: Paint,
) -> Vec<String> {
    let mut table = Table::new(["stage", "status", "time", "result"]).right(&[2]);
    for stage in stages {
        let name = format::clean(stage.stage.as_str());
        let status = if not_started.contains(&stage.stage) { NOT_STARTED } else { &stage.status };
        table.row([name, paint.status(status), time_of(stage), result_of(stage, reasons)]);
    }
    table.lines(width)
}

/// What failed comes first: it is what is looked for.
fn broken_ones(
    broken: &[StageRow],
    row: &RunRow,
    reasons: &BTreeMap<StageId, String>,
    width: usize,
    paint: Paint,
) -> Vec<String> {
    if broken.is_empty() {
        return Vec::new();
    }
    let mut lines = listed(broken, &BTreeSet::new(), reasons, width, paint);
    let more = ((row.failed + row.refused) as usize).saturating_sub(broken.len());
    if more > 0 {
        let word = if row.failed == 0 { "refused" } else { "failed" };
        lines.push(format!(" … {} more {word}", format::count(more as u64)));
    }
    lines.push(String::new());
    lines
}

/// One line an operator: how its stages stand.
fn counted(counts: &[StageCount], width: usize, paint: Paint) -> Vec<String> {
    let mut operators: Vec<&str> = Vec::new();
    let mut by_operator: BTreeMap<&str, Vec<&StageCount>> = BTreeMap::new();
    for count in counts {
        let of = by_operator.entry(&count.operator).or_default();
        if of.is_empty() {
            operators.push(&count.operator);
        }
        of.push(count);
    }
    let mut table = Table::new(["operator", "stages", "time", "status"]).right(&[1, 2]);
    for operator in operators.iter().take(OPERATORS) {
        let of = &by_operator[operator];
        let total: u32 = of.iter().map(|count| count.stages).sum();
        let seconds: f64 = of.iter().map(|count| count.seconds).sum();
        let time = if seconds > 0.0 { format::clock(seconds) } else { "–".to_owned() };
        let stand = of.iter().map(|count| {
            paint.status_of(&count.status, &format!("{} {}", format::count(u64::from(count.stages)), count.status))
        });
        let stand = stand.collect::<Vec<_>>().join(" · ");
        table.row([format::clean(operator), format::count(u64::from(total)), time, stand]);
    }
    if operators.len() > OPERATORS {
        table.line(format!(" … {} more operators", operators.len() - OPERATORS));
    }
    table.lines(width)
}

/// The time a stage took in this run; nothing for one that did not run.
fn time_of(stage: &StageRow) -> String {
    match (stage.status.as_str(), stage.seconds) {
        ("ran" | "refused", Some(seconds)) => format::clock(seconds),
        _ => "–".to_owned(),
    }
}

fn result_of(stage: &StageRow, reasons: &BTreeMap<StageId, String>) -> String {
    let reason = reasons.get(&stage.stage).filter(|_| matches!(stage.status.as_str(), "skipped" | "refused"));
    let parts = match &stage.failure {
        Some(failure) => vec![failure.message.as_str()],
        None => [Some(stage.summary.as_str()), reason.map(String::as_str)].into_iter().flatten().collect(),
    };
    parts.into_iter().filter(|part| !part.is_empty()).map(format::clean).collect::<Vec<_>>().join(" · ")
}

#[cfg(test)]
mod tests {
    use llmflow_contract::Failure;
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
            outputs: Vec::new(),
            inputs: Vec::new(),
            metrics: Default::default(),
            needs: Vec::new(),
        }
    }

    fn row() -> RunRow {
        RunRow {
            run: RunId("calm-heron".into()),
            pipeline: "assistant".into(),
            status: RunStatus::Failed,
            started_ms: 1_795_499_700_000,
            seconds: Some(451.0),
            ran: 1,
            cached: 1,
            failed: 1,
            refused: 0,
            skipped: 1,
            interrupted: 0,
            changed: "sft.lora_r 16 → 32".into(),
            limit: None,
            set: vec!["rank=32".into()],
            params_file: None,
            profile: None,
            resumes: None,
            machine: String::new(),
            version: String::new(),
            is_first: false,
        }
    }

    fn now() -> ZonedDateTime {
        let now = jiff::Timestamp::from_millisecond(1_795_500_000_000).unwrap();
        now.to_zoned_datetime(jiff::tz::TimeZone::UTC)
    }

    #[test]
    fn a_run_is_shown_with_every_stage() {
        let shown = ShownRun {
            row: row(),
            file: "/srv/assistant.yaml".into(),
            tags: vec!["assistant:prod".into()],
            reasons: BTreeMap::new(),
            stages: Stages::All {
                stages: vec![
                    stage("rows", "cached", "298 rows"),
                    stage("clean", "ran", "290 kept"),
                    stage("sft", "failed", ""),
                    stage("gguf", "skipped", ""),
                ],
            },
            not_started: BTreeSet::new(),
            published: vec!["/srv/out/report.html".into()],
            with_home: String::new(),
        };
        insta::assert_snapshot!(run(&shown, &now(), 80, Paint(false)), @r"
        assistant · run calm-heron · failed · 5 min ago · 7m31s · [assistant:prod]
         file      /srv/assistant.yaml  --set rank=32
         changed   sft.lora_r 16 → 32
         stage  status   time  result
         rows   cached      –  298 rows
         clean  ran      0:41  290 kept
         sft    failed      –  no rows [2J
         gguf   skipped     –
        published /srv/out/report.html
        once it is mended: llmflow resume calm-heron
        one stage: llmflow show calm-heron/STAGE
        ");
    }

    #[test]
    fn of_many_stages_those_that_failed_come_first_and_the_rest_are_counted() {
        let count = |operator: &str, status: &str, stages, seconds| StageCount {
            operator: operator.into(),
            status: status.into(),
            stages,
            seconds,
        };
        let shown = ShownRun {
            row: RunRow { failed: 12, ..row() },
            file: "/srv/assistant.yaml".into(),
            tags: Vec::new(),
            stages: Stages::Counted {
                counts: vec![
                    count("data.load", "cached", 1, 0.0),
                    count("data.filter", "ran", 9_000, 1_812.0),
                    count("data.filter", "failed", 12, 3.0),
                    count("data.filter", "skipped", 987, 0.0),
                ],
                broken: vec![stage("f0007", "failed", "")],
                slowest: vec![stage("f0815", "ran", ""), stage("f0816", "ran", "")],
            },
            not_started: BTreeSet::new(),
            published: Vec::new(),
            reasons: BTreeMap::new(),
            with_home: " --home a/.llmflow".into(),
        };
        insta::assert_snapshot!(run(&shown, &now(), 80, Paint(false)), @r"
        assistant · run calm-heron · failed · 5 min ago · 7m31s
         file      /srv/assistant.yaml  --set rank=32
         changed   sft.lora_r 16 → 32
         stage  status  time  result
         f0007  failed     –  no rows [2J
         … 11 more failed

         operator     stages   time  status
         data.load         1      –  1 cached
         data.filter   9,999  30:15  9,000 ran · 12 failed · 987 skipped
         longest   f0815 0:41 · f0816 0:41
        once it is mended: llmflow resume calm-heron --home a/.llmflow
        one stage: llmflow show calm-heron/STAGE --home a/.llmflow · every stage: --all
        ");
    }

    #[test]
    fn a_rehearsal_says_so_and_what_was_never_begun_was_not_skipped() {
        let shown = ShownRun {
            row: RunRow { status: RunStatus::Interrupted, limit: Some(4), changed: String::new(), ..row() },
            file: "/srv/assistant.yaml".into(),
            tags: Vec::new(),
            stages: Stages::All { stages: vec![stage("sft", "interrupted", ""), stage("gguf", "skipped", "")] },
            not_started: [StageId::from("gguf")].into(),
            published: Vec::new(),
            reasons: BTreeMap::new(),
            with_home: String::new(),
        };
        insta::assert_snapshot!(run(&shown, &now(), 80, Paint(false)), @r"
        assistant · run calm-heron · interrupted · 5 min ago · 7m31s · limited to 4 rows or steps a stage
         file      /srv/assistant.yaml  --set rank=32
         stage  status       time  result
         sft    interrupted     –
         gguf   not started     –
        go on:     llmflow resume calm-heron
        one stage: llmflow show calm-heron/STAGE
        ");
    }
}
