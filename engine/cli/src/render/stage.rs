//! The screen of `show RUN/STAGE`: what a stage read, was told, did and gave.

use std::collections::BTreeMap;

use llmflow_contract::{Digest, Facts, Report, Sample};
use llmflow_runtime::{
    lineage::{AttemptRow, NOT_STARTED, StageRow},
    pipeline::SIDE_PORTS,
    plan::Component,
};
use serde::Serialize;

use super::{
    change, format,
    style::Paint,
    table::{Table, wrap, wrap_items},
};

/// Metrics and params that are shown without `--all`.
const FEW: usize = 8;
/// Columns before the text of a line.
const INDENT: usize = 11;
/// Cells of a curve.
const CURVE: usize = 24;

/// One stage of a run, with what the store knows of it.
#[derive(Clone, Debug, Serialize)]
pub struct ShownStage {
    pub run: String,
    #[serde(flatten)]
    pub row: StageRow,
    /// Of a rehearsal: `--limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Why it was skipped, or refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The run was interrupted before it came to it.
    pub is_not_started: bool,
    /// Of a stage that was tried more than once.
    pub each_attempt: Vec<AttemptRow>,
    /// What its key is made of.
    pub components: Vec<Component>,
    /// Where a param's value comes from, by name: `params.rank, assistant.yaml:10`.
    pub origins: BTreeMap<String, String>,
    /// Params that name what it loaded, as its file has them: a key knows the content alone.
    pub sources: Vec<(String, String)>,
    /// Params that were left at their default.
    pub defaults: Vec<(String, String)>,
    /// Curves: a metric's values over steps.
    pub series: Vec<(String, Vec<f64>)>,
    /// What is known of artifacts, by digest.
    pub artifacts: BTreeMap<Digest, ShownArtifact>,
    /// Stages that read what it gives.
    pub used_by: Vec<String>,
    pub report: Option<Report>,
    pub machine: Option<String>,
    /// What every command of this home ends with from here.
    #[serde(skip)]
    pub with_home: String,
}

/// What the store knows of an artifact.
#[derive(Clone, Debug, Serialize)]
pub struct ShownArtifact {
    pub size_bytes: u64,
    pub files: usize,
    pub facts: Facts,
}

/// The whole screen. `all`: every param, metric, table and sample.
pub fn stage(shown: &ShownStage, all: bool, width: usize, paint: Paint) -> String {
    let mut lines = vec![headline(shown, paint)];
    let mut add = |name: &str, text: String| {
        if text.is_empty() {
            return;
        }
        for (number, line) in wrap_items(&text, width.saturating_sub(INDENT)).iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            lines.push(format!(" {name:<width$}{line}", width = INDENT - 1));
        }
    };
    add("result", format::clean(&shown.row.summary));
    if let Some(reason) = &shown.reason {
        add(&shown.row.status, format::clean(reason));
    }
    if let Some(failure) = &shown.row.failure {
        add("failed", format::clean(&failure.to_string()));
        add("help", failure.help.as_deref().map(format::clean).unwrap_or_default());
    }
    for (index, attempt) in shown.each_attempt.iter().enumerate() {
        add(if index == 0 { "attempts" } else { "" }, told_attempt(attempt, &shown.row.status));
    }
    add("from", inputs(shown));
    add("with", params(shown, all));
    for (name, values) in &shown.series {
        let is_main = matches!(name.as_str(), "loss" | "eval_loss" | "grad_norm");
        if all || is_main || shown.series.len() <= 3 {
            add(&format::fit(name, INDENT - 2), curve(values));
        }
    }
    add("metrics", metrics(&shown.row.metrics, all));
    add("gives", outputs(shown, all));
    add("used by", shown.used_by.iter().map(|name| format::clean(name)).collect::<Vec<_>>().join(", "));
    if let Some(machine) = &shown.machine {
        add("made on", format::clean(machine));
    }
    if let Some(key) = &shown.row.key {
        add(
            "key",
            format!("{}   why: llmflow explain {}/{}{}", key.short(), shown.run, shown.row.stage, shown.with_home),
        );
    }
    if all && let Some(report) = &shown.report {
        lines.extend(told(report, width, paint));
    }
    lines.join("\n") + "\n"
}

fn headline(shown: &ShownStage, paint: Paint) -> String {
    let row = &shown.row;
    let name = paint.bold(&format::clean(row.stage.as_str()));
    let time = match (row.status.as_str(), row.seconds) {
        ("ran" | "refused", Some(seconds)) => format!(", {}", format::duration(seconds)),
        _ => String::new(),
    };
    let attempts = if row.attempts > 1 { format!(", attempt {}", row.attempts) } else { String::new() };
    let status = paint.status(if shown.is_not_started { NOT_STARTED } else { &row.status });
    let limited = shown.limit.map(|limit| format!(" · {}", format::limited(limit))).unwrap_or_default();
    format!("{name} · {} v{} · {status} in {}{time}{attempts}{limited}", row.operator, row.version, shown.run)
}

/// `2 · 0.41 s · lost: the worker was killed`.
fn told_attempt(attempt: &AttemptRow, status: &str) -> String {
    let time = attempt.seconds.map_or("never ended".to_owned(), format::duration);
    let end = match &attempt.failure {
        Some(failure) => format!("{}: {}", failure.class.name(), format::clean(&failure.message)),
        None => status.to_owned(),
    };
    format!("{} · {time} · {end}", attempt.attempt)
}

fn inputs(shown: &ShownStage) -> String {
    let inputs = shown.row.inputs.iter().map(|input| {
        let digest = input.digest.map_or("–".to_owned(), |digest| short(&digest));
        let rows = input.digest.and_then(|digest| rows_of(shown, &digest)).unwrap_or_default();
        let label = input.label.as_ref().map(|label| format!("{} ← ", format::clean(label))).unwrap_or_default();
        format!("{label}{}.{} {digest}{rows}", format::clean(input.from_stage.as_str()), input.from_port)
    });
    inputs.collect::<Vec<_>>().join(" · ")
}

/// `report` and `trace` stand beside every result; they are shown with `--all`.
fn outputs(shown: &ShownStage, all: bool) -> String {
    let is_shown = |port: &str| all || !SIDE_PORTS.contains(&port);
    let outputs = shown.row.outputs.iter().filter(|output| is_shown(output.port.as_str())).filter_map(|output| {
        let digest = output.digest?;
        let size = shown.artifacts.get(&digest).map(|artifact| {
            let files = if artifact.files == 1 { String::new() } else { format!(", {} files", artifact.files) };
            format!(", {}{files}", format::bytes(artifact.size_bytes))
        });
        let rows = rows_of(shown, &digest).unwrap_or_default();
        Some(format!("{} {} {}{}{rows}", output.port, short(&digest), output.kind, size.unwrap_or_default()))
    });
    outputs.collect::<Vec<_>>().join(" · ")
}

fn rows_of(shown: &ShownStage, digest: &Digest) -> Option<String> {
    let rows = shown.artifacts.get(digest)?.facts.rows?;
    Some(format!(" ({})", format::counted(rows, "row")))
}

/// Four digits are enough to recognise an artifact on one screen.
pub fn short(digest: &Digest) -> String {
    format!("{}…", &digest.hex()[..4])
}

fn params(shown: &ShownStage, all: bool) -> String {
    let given = shown.components.iter().filter_map(|component| {
        let name = component.part.strip_prefix("with.")?;
        let origin = shown.origins.get(name).map(|origin| format!(" ({})", format::clean(origin))).unwrap_or_default();
        Some(format!("{} {}{origin}", format::clean(name), change::value(&component.value)))
    });
    let sources = shown.sources.iter().map(|(name, value)| format!("{} {}", format::clean(name), change::value(value)));
    let mut words: Vec<String> = sources.chain(given).collect();
    if all {
        words.extend(shown.defaults.iter().map(|(name, value)| format!("{name} {} (default)", change::value(value))));
    } else if !shown.defaults.is_empty() {
        words.push(format!("{}: --all", format::counted(shown.defaults.len() as u64, "default")));
    }
    words.join(" · ")
}

fn curve(values: &[f64]) -> String {
    let (Some(first), Some(last)) = (values.first(), values.last()) else { return String::new() };
    let line = format::sparkline(&format::trend(values, CURVE), CURVE);
    format!(
        "{} {line} {}   {}",
        format::number(*first),
        format::number(*last),
        format::counted(values.len() as u64, "value")
    )
}

fn metrics(metrics: &BTreeMap<String, f64>, all: bool) -> String {
    let most = if all { metrics.len() } else { FEW };
    let shown =
        metrics.iter().take(most).map(|(name, value)| format!("{} {}", format::clean(name), format::figure(*value)));
    let mut words: Vec<String> = shown.collect();
    if metrics.len() > most {
        words.push(format!("{} more: --all", metrics.len() - most));
    }
    words.join(" · ")
}

/// What a stage has to tell besides figures: its tables and samples.
fn told(report: &Report, width: usize, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for table in &report.tables {
        lines.push(String::new());
        lines.push(paint.bold(&format::clean(&table.title)));
        let columns = table.columns.len();
        let Some((first, rest)) = table.columns.split_first() else { continue };
        let mut drawn = Table::new([first.as_str()]);
        rest.iter().for_each(|name| drawn.push_column(name));
        for row in table.rows.iter().filter(|row| row.len() == columns) {
            drawn.row_of(row.iter().map(|cell| format::clean(cell)).collect());
        }
        lines.extend(drawn.lines(width));
    }
    for sample in &report.samples {
        lines.push(String::new());
        lines.extend(told_sample(sample, width, paint));
    }
    lines
}

/// One sample alone.
pub fn example(head: &str, sample: &Sample, width: usize, paint: Paint) -> String {
    let mut lines = vec![paint.dim(&format::clean(head))];
    lines.extend(told_sample(sample, width, paint));
    let figures =
        sample.metrics.iter().map(|(name, value)| format!("{} {}", format::clean(name), format::figure(*value)));
    let figures = figures.collect::<Vec<_>>().join(" · ");
    lines.extend((!figures.is_empty()).then_some(figures));
    lines.join("\n") + "\n"
}

/// A title, and each text beside its name; what is learned of it has a colour too.
fn told_sample(sample: &Sample, width: usize, paint: Paint) -> Vec<String> {
    let mut lines = vec![paint.bold(&format::clean(&sample.title))];
    // What only closes a text is a line break, and nothing to read.
    for (name, text) in sample.texts.iter().filter(|(name, text)| name != "read" || !text.trim().is_empty()) {
        let said = named_text(name, text, width);
        let is_learned = matches!(name.as_str(), "learned" | "chosen");
        lines.extend(said.iter().map(|line| if is_learned { paint.green(line) } else { line.clone() }));
    }
    lines
}

/// A name, and beside it a text of many lines.
pub fn named_text(name: &str, text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in format::clean_lines(text).trim_end().split('\n') {
        for line in wrap(paragraph, width.saturating_sub(INDENT + 2)) {
            let name = if lines.is_empty() { format::fit(name, INDENT - 1) } else { String::new() };
            lines.push(format!("  {name:<INDENT$}{line}").trim_end().to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use llmflow_contract::{Failure, Kind, Port, StageId};
    use llmflow_runtime::lineage::{InputRow, OutputRow};

    use super::*;

    fn shown() -> ShownStage {
        let (rows, adapter) = (Digest::of(b"rows"), Digest::of(b"adapter"));
        let part = |part: &str, value: &str| Component { part: part.into(), value: value.into() };
        let artifact =
            |size_bytes, files, rows| ShownArtifact { size_bytes, files, facts: Facts { rows, ..Facts::default() } };
        let row = StageRow {
            stage: StageId::from("sft"),
            operator: "train.sft".into(),
            version: 3,
            status: "ran".into(),
            key: Some(Digest::of(b"key")),
            seconds: Some(220.0),
            summary: "eval loss 2.48 → 1.42".into(),
            attempts: 1,
            failure: None,
            needs: Vec::new(),
            outputs: vec![OutputRow { port: Port::from("adapter"), kind: Kind::of("adapter"), digest: Some(adapter) }],
            inputs: vec![InputRow {
                label: None,
                noted: None,
                port: Port::from("data"),
                from_stage: StageId::from("split"),
                from_port: Port::from("train"),
                digest: Some(rows),
            }],
            metrics: [("loss".to_owned(), 1.31), ("tokens".to_owned(), 51_204.0)].into(),
        };
        let sample = Sample {
            title: "What is LLMflow?".into(),
            texts: vec![("base".into(), "a\u{1b}[2J flow".into()), ("tuned".into(), "one program\nfor all".into())],
            ..Sample::default()
        };
        ShownStage {
            run: "calm-heron".into(),
            row,
            limit: None,
            reason: None,
            is_not_started: false,
            each_attempt: Vec::new(),
            components: vec![part("with.method", "\"lora\""), part("with.lora_r", "32")],
            origins: [("lora_r".to_owned(), "params.rank, assistant.yaml:10".to_owned())].into(),
            sources: Vec::new(),
            defaults: vec![("dropout".into(), "0.0".into())],
            series: vec![("loss".into(), (0..100).map(|step| 3.02 - 0.017 * f64::from(step)).collect())],
            artifacts: [(rows, artifact(4_096, 1, Some(268))), (adapter, artifact(14_680_064, 2, None))].into(),
            used_by: vec!["merged".into()],
            report: Some(Report { samples: vec![sample], ..Report::default() }),
            machine: None,
            with_home: String::new(),
        }
    }

    #[test]
    fn a_stage_is_shown_with_what_it_read_was_told_did_and_gave() {
        insta::assert_snapshot!(stage(&shown(), false, 80, Paint(false)), @r"
        sft · train.sft v3 · ran in calm-heron, 3m40s
         result    eval loss 2.48 → 1.42
         from      split.train 3397… (268 rows)
         with      method lora · lora_r 32 (params.rank, assistant.yaml:10)
                   1 default: --all
         loss      3.02 ▇▇▆▆▆▆▅▅▅▅▄▄▄▄▃▃▃▃▂▂▂▂▁▁ 1.34   100 values
         metrics   loss 1.31 · tokens 51,204
         gives     adapter 33c7… adapter, 14 MiB, 2 files
         used by   merged
         key       ff8e2bab   why: llmflow explain calm-heron/sft
        ");
    }

    #[test]
    fn every_attempt_of_a_stage_is_told_and_a_rehearsal_says_so() {
        let mut shown = shown();
        (shown.row.attempts, shown.limit, shown.with_home) = (2, Some(4), " --home a/.llmflow".into());
        let lost = Failure::environment("worker/lost", "the worker was\u{1b}killed");
        shown.each_attempt = vec![
            AttemptRow { attempt: 1, seconds: Some(0.41), failure: Some(lost) },
            AttemptRow { attempt: 2, seconds: Some(220.0), failure: None },
        ];
        let text = stage(&shown, false, 80, Paint(false));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "sft · train.sft v3 · ran in calm-heron, 3m40s, attempt 2 · limited to 4 rows or steps a stage",
                " result    eval loss 2.48 → 1.42",
                " attempts  1 · 0.41 s · environment: the worker was killed",
                "           2 · 3m40s · ran",
            ]
        );
        assert!(text.contains("why: llmflow explain calm-heron/sft --home a/.llmflow"), "{text}");
    }

    #[test]
    fn one_example_stands_alone_with_what_is_learned_marked() {
        let sample = Sample {
            title: "row 3".into(),
            texts: vec![("read".into(), "user: hi".into()), ("learned".into(), "hello\nthere".into())],
            metrics: [("tokens".to_owned(), 12.0)].into(),
            ..Sample::default()
        };
        let text = example("sft · example 3 of 8", &sample, 80, Paint(false));
        insta::assert_snapshot!(text, @r"
        sft · example 3 of 8
        row 3
          read       user: hi
          learned    hello
                     there
        tokens 12
        ");
        let painted = example("sft · example 3 of 8", &sample, 80, Paint(true));
        assert!(painted.contains("\u{1b}[32m  learned    hello\u{1b}[0m"), "{painted}");
    }

    #[test]
    fn all_shows_defaults_and_samples_that_cannot_move_the_cursor() {
        let text = stage(&shown(), true, 80, Paint(false));
        assert!(text.contains("dropout 0.0 (default)"), "{text}");
        assert!(
            text.ends_with(
                "What is LLMflow?\n  base       a [2J flow\n  tuned      one program\n             for all\n"
            ),
            "{text}"
        );
    }
}
