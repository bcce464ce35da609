//! The screen of `diff`: why two runs differ, and in what.

mod content;
mod figures;

use llmflow_contract::{Digest, StageId};
use llmflow_runtime::event::RunId;
use serde::Serialize;

use super::{format, style::Paint};

/// Columns before the text of a line.
const INDENT: usize = 11;
/// Figures, causes and rows that are shown without `--all`.
const FEW: usize = 12;

/// Two runs, or two stages, side by side.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    pub before: RunId,
    pub now: RunId,
    /// Of rehearsals: `--limit` of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_now: Option<u64>,
    /// The stages that are compared, where it is not the whole runs.
    pub stages: Option<(StageId, StageId)>,
    /// Of two stages: those of which a key cannot tell what changed, or not all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_run: Vec<NotRun>,
    pub causes: Vec<Cause>,
    /// What did not change, of what could have: `data`, `seed`.
    pub same: Vec<&'static str>,
    pub ends: Vec<End>,
    pub figures: Vec<Figure>,
    pub times: Vec<Time>,
    pub answers: Vec<Answers>,
    pub data: Vec<Data>,
    pub artifacts: Vec<Artifact>,
    /// Every output that both gave is the same, byte for byte.
    #[serde(rename = "identical")]
    pub is_identical: bool,
}

/// What somebody changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cause {
    /// `params`, `data`, `program`, `machine`, `seed`, `stages`.
    pub area: &'static str,
    /// `params.rank`, `sft.lora_r`, `rows.source.path`.
    pub what: String,
    pub before: Option<String>,
    pub now: Option<String>,
    /// How many stages it concerns, where it is more than one.
    pub stages: usize,
    /// Of an input with other bytes: the stages that gave it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub given_by: Vec<StageId>,
    /// It made an input another one that stands before it.
    #[serde(rename = "above", skip_serializing_if = "std::ops::Not::not")]
    pub is_above: bool,
}

/// A stage that was skipped, or ended before its key was known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NotRun {
    pub stage: StageId,
    pub run: RunId,
    /// As in lineage: `skipped`, `failed` …
    pub status: String,
    pub reason: Option<String>,
    #[serde(skip)]
    pub was_tried: bool,
}

/// A stage that came to another end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct End {
    pub stage: StageId,
    /// `done`, else as in lineage: `failed`, `refused`, `skipped` …
    pub before: String,
    pub now: String,
}

/// A metric of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    pub before: Option<f64>,
    pub now: Option<f64>,
    /// Of the difference, with 95 % confidence.
    pub interval: Option<(f64, f64)>,
    pub verdict: Option<Verdict>,
}

/// Whether a difference is more than chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    NoClearDifference,
    ClearlyBetter,
    ClearlyWorse,
    /// Of a figure of which it is not known which way is better.
    ClearDifference,
}

/// Seconds that a stage, or the whole run, took.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Time {
    pub name: String,
    pub before: f64,
    pub now: f64,
}

/// Questions that both answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answers {
    pub stage: StageId,
    pub questions: usize,
    /// The mark that tells better from worse: `acc`.
    pub mark: String,
    pub better: usize,
    pub worse: usize,
    /// Other words, the same mark.
    pub reworded: usize,
    pub changed: Vec<Answer>,
}

/// One question whose answer changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    pub row: String,
    pub question: String,
    pub gold: Option<String>,
    pub before: String,
    pub now: String,
    /// Above 0: better now.
    pub gain: f64,
}

/// A dataset of both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    pub name: String,
    pub before: Digest,
    pub now: Digest,
    pub rows_before: Option<u64>,
    pub rows_now: Option<u64>,
    /// Where it was looked for.
    pub rows: Option<RowChanges>,
}

/// An output of both whose bytes differ, and that has no rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Artifact {
    pub name: String,
    pub before: Digest,
    pub now: Digest,
}

/// Rows that only one has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RowChanges {
    pub added: u64,
    pub removed: u64,
    /// The first of each.
    pub shown: Vec<RowChange>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowChange {
    pub id: String,
    pub is_added: bool,
    pub text: String,
    /// What became of it: `dropped by too_short`.
    pub fate: Option<String>,
}

/// What is shown of a comparison besides the whole.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub answers: bool,
    pub rows: bool,
    pub all: bool,
}

/// What is compared: `quiet-otter → calm-heron`; a rehearsal says that it is one.
pub fn heading(it: &Diff) -> String {
    let limited = |limit: Option<u64>| limit.map(|limit| format!(" ({})", format::limited(limit))).unwrap_or_default();
    match (it.limit_before, it.limit_now) {
        (Some(before), Some(now)) if before == now => {
            format!("{} → {} · both {}", it.before, it.now, format::limited(now))
        }
        (before, now) => format!("{}{} → {}{}", it.before, limited(before), it.now, limited(now)),
    }
}

/// The whole screen.
pub fn diff(it: &Diff, wanted: Wanted, width: usize, paint: Paint) -> String {
    let mut lines = Vec::new();
    lines.extend(figures::causes(it, wanted, width));
    lines.extend(figures::ends(it, wanted, width, paint));
    let told = lines.len();
    lines.extend(figures::results(it, wanted, width, paint));
    lines.extend(it.answers.iter().flat_map(|answers| content::answers(answers, wanted, width, paint)));
    lines.extend(content::rows(it, wanted, width, paint));
    lines.extend(content::artifacts(it, wanted, width));
    if lines.len() == told {
        let text = if it.is_identical { "the same, to the last bit" } else { "none that both have" };
        lines.push(line(" results", text));
    }
    lines.join("\n") + "\n"
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<INDENT$}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diff {
        let figure = |name: &str, before, now, interval, verdict| Figure {
            name: name.into(),
            before: Some(before),
            now: Some(now),
            interval,
            verdict,
        };
        let data = |name: &str, before: &[u8], now: &[u8], rows| Data {
            name: name.into(),
            before: Digest::of(before),
            now: Digest::of(now),
            rows_before: Some(298),
            rows_now: rows,
            rows: None,
        };
        Diff {
            before: RunId("quiet-otter".into()),
            now: RunId("calm-heron".into()),
            limit_before: None,
            limit_now: None,
            stages: None,
            not_run: Vec::new(),
            causes: vec![Cause {
                area: "params",
                what: "params.rank".into(),
                before: Some("16".into()),
                now: Some("32".into()),
                ..Cause::default()
            }],
            same: vec!["data", "program", "machine", "seed"],
            ends: Vec::new(),
            figures: vec![
                figure("verdict.acc", 0.68, 0.70, Some((-0.08, 0.12)), Some(Verdict::NoClearDifference)),
                figure("sft.eval_loss", 1.47, 1.42, None, None),
            ],
            times: vec![Time { name: "sft.time".into(), before: 131.0, now: 220.0 }],
            answers: vec![Answers {
                stage: "eval_tuned".into(),
                questions: 60,
                mark: "acc".into(),
                better: 5,
                worse: 4,
                reworded: 0,
                changed: vec![Answer {
                    row: "0123456789abcdef0123456789abcdef".into(),
                    question: "What is LLMflow?".into(),
                    gold: Some("a program".into()),
                    before: "a river\u{1b}[2J".into(),
                    now: "a program".into(),
                    gain: 1.0,
                }],
            }],
            data: vec![data("split.train", b"a", b"a", Some(298)), data("unique.data", b"a", b"b", Some(301))],
            artifacts: vec![Artifact { name: "sft.adapter".into(), before: Digest::of(b"a"), now: Digest::of(b"b") }],
            is_identical: false,
        }
    }

    #[test]
    fn two_runs_say_what_was_changed_and_what_came_of_it() {
        insta::assert_snapshot!(diff(&sample(), Wanted::default(), 100, Paint(false)), @r"
        cause     params.rank 16 → 32    (data, program, machine, seed: same)
        results         quiet-otter  calm-heron
         verdict.acc    0.68         0.70        +0.02 (95 % -0.08…+0.12) no clear difference
         sft.eval_loss  1.47         1.42        -0.05
         sft.time       2m11s        3m40s       +68 %
        answers   eval_tuned: 9 of 60 changed: 5 better, 4 worse   --answers shows them
        rows      unique.data 298 → 301 rows · split.train identical · --rows shows where
        bytes     sft.adapter 1776… → 10e5…
        ");
        insta::assert_snapshot!(diff(&sample(), Wanted { answers: true, ..Wanted::default() }, 60, Paint(false)), @r"
        cause     params.rank 16 → 32
                  (data, program, machine, seed: same)
        results         quiet-otter  calm-heron
         verdict.acc    0.68         0.70        +0.02 (95 %
                                                 -0.08…+0.12) no
                                                 clear difference
         sft.eval_loss  1.47         1.42        -0.05
         sft.time       2m11s        3m40s       +68 %
        answers   eval_tuned: 9 of 60 changed: 5 better, 4 worse

         better  01234567
         question   What is LLMflow?
         gold       a program
         before     a river [2J
         now        a program
        rows      unique.data 298 → 301 rows
                  split.train identical · --rows shows where
        bytes     sft.adapter 1776… → 10e5…
        ");
    }

    #[test]
    fn the_figures_of_a_rehearsal_are_marked() {
        let mut it = sample();
        assert_eq!(heading(&it), "quiet-otter → calm-heron");
        it.limit_now = Some(4);
        assert_eq!(heading(&it), "quiet-otter → calm-heron (limited to 4 rows or steps a stage)");
        let text = diff(&it, Wanted::default(), 100, Paint(false));
        assert!(text.contains("quiet-otter  calm-heron (limited to 4)"), "{text}");
        it.limit_before = Some(4);
        assert_eq!(heading(&it), "quiet-otter → calm-heron · both limited to 4 rows or steps a stage");
        it.limit_before = Some(5);
        assert!(
            heading(&it).starts_with("quiet-otter (limited to 5 rows or steps a stage) → calm-heron (limited to 4")
        );
    }

    #[test]
    fn an_input_with_other_bytes_leads_to_what_changed_above() {
        let mut it = sample();
        let input =
            Cause { area: "data", what: "sft.in.data".into(), given_by: vec!["clean".into()], ..Cause::default() };
        let above = Cause { area: "data", what: "rows.source.path".into(), is_above: true, ..Cause::default() };
        it.causes = vec![input, above];
        let text = diff(&it, Wanted::default(), 60, Paint(false));
        assert!(
            text.starts_with(
                " cause     sft.in.data changed (given by clean)\n            ↳ rows.source.path changed\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn of_a_stage_that_did_not_run_its_reason_is_told_and_nothing_is_called_changed_or_the_same() {
        let mut it = sample();
        it.not_run = vec![NotRun {
            stage: "g".into(),
            run: RunId("quiet-otter".into()),
            status: "skipped".into(),
            reason: Some("`params.use and d.kept > 5` is false (use = true, kept = 5)".into()),
            was_tried: false,
        }];
        (it.causes, it.same) = Default::default();
        let text = diff(&it, Wanted::default(), 60, Paint(false));
        assert!(
            text.starts_with(
                " cause     g was skipped in quiet-otter: `params.use and\n           d.kept > 5` is false (use = true, kept = 5)\n results "
            ),
            "{text}"
        );
        it.not_run[0].reason = None;
        let text = diff(&it, Wanted::default(), 80, Paint(false));
        assert!(
            text.starts_with(" cause     g was skipped in quiet-otter: its key was never known\n results "),
            "{text}"
        );
    }

    #[test]
    fn a_hint_that_does_not_fit_behind_the_answers_stands_below_them() {
        let mut it = sample();
        (it.answers[0].reworded, it.answers[0].better) = (3, 17);
        let text = diff(&it, Wanted::default(), 80, Paint(false));
        let answers = " answers   eval_tuned: 21 of 60 changed: 17 better, 4 worse, 3 in other words\n           --answers shows them\n";
        assert!(text.contains(answers), "{text}");
        let narrow = diff(&it, Wanted::default(), 50, Paint(false));
        assert!(
            narrow.contains("           better, 4 worse, 3 in other words\n           --answers shows them\n"),
            "{narrow}"
        );
    }

    #[test]
    fn an_input_that_a_whole_matrix_gave_is_told_in_few_words() {
        let mut it = sample();
        let given_by = ["f@r=1", "f@r=2", "x"].map(StageId::from).into();
        it.causes = vec![Cause { area: "data", what: "d.in.data".into(), given_by, ..Cause::default() }];
        let text = diff(&it, Wanted::default(), 80, Paint(false));
        assert!(text.contains("d.in.data changed (given by f@… ×2, x)"), "{text}");
    }

    #[test]
    fn stages_that_ended_otherwise_are_named_together_where_they_went_the_same_way() {
        let end = |stage: &str, before: &str, now: &str| End {
            stage: StageId::from(stage),
            before: before.into(),
            now: now.into(),
        };
        let mut it = sample();
        it.ends = vec![end("sft", "done", "failed"), end("dpo", "done", "skipped"), end("merged", "done", "skipped")];
        let text = diff(&it, Wanted::default(), 100, Paint(false));
        let ends = "ends      sft: done → failed\n           dpo, merged: done → skipped\n";
        assert!(text.contains(ends), "{text}");
    }

    #[test]
    fn rows_are_shown_with_what_became_of_them_and_equal_runs_say_so() {
        let mut it = sample();
        it.data[1].rows = Some(RowChanges {
            added: 0,
            removed: 3,
            shown: vec![RowChange {
                id: "0123456789abcdef".into(),
                is_added: false,
                text: "hi\nthere".into(),
                fate: Some("dropped by too_short".into()),
            }],
        });
        let text = diff(&it, Wanted { rows: true, ..Wanted::default() }, 80, Paint(false));
        assert!(text.contains("unique.data 298 → 301 rows (+0 −3) · split.train identical"), "{text}");
        assert!(text.contains("  − 01234567  [dropped by too_short]  hi there\n    2 more: --all\n"), "{text}");
        (it.causes, it.figures, it.times, it.answers, it.data) = Default::default();
        let text = diff(&it, Wanted::default(), 80, Paint(false));
        assert!(text.ends_with("bytes     sft.adapter 1776… → 10e5…\n"), "{text}");
        it.artifacts.clear();
        let text = diff(&it, Wanted::default(), 80, Paint(false));
        assert!(text.ends_with("results   none that both have\n"), "{text}");
        it.is_identical = true;
        let text = diff(&it, Wanted::default(), 80, Paint(false));
        assert!(text.ends_with("results   the same, to the last bit\n"), "{text}");
        it.causes = [sample().causes, sample().causes].concat();
        let text = diff(&it, Wanted::default(), 80, Paint(false));
        assert!(text.ends_with("results   the same, to the last bit\n"), "however many causes: {text}");
    }
}
