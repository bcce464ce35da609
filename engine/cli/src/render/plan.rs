//! The screen of `plan`: what is there, what runs and why, what waits to see.

use std::collections::{BTreeMap, HashSet};

use indexmap::IndexMap;
use llmflow_contract::StageId;
use llmflow_runtime::{
    event::Compute,
    plan::{PlanView, StageView, Will},
};

use super::{
    format, header,
    siblings::{self, Reason, Row, some_names},
    style::Paint,
    table::{Table, wrap},
};

/// Rows of the table: more are counted.
const ROWS: usize = 40;

/// The whole screen; of a rehearsal with its limit.
pub fn plan(name: &str, plan: &PlanView, limit: Option<u64>, compute: &Compute, width: usize, paint: Paint) -> String {
    let total = plan.stages.len();
    let name = format::clean(name);
    let limited = limit.map(|limit| format!(" · {}", format::limited(limit))).unwrap_or_default();
    if plan.to_run() == 0 {
        let mut lines = vec![format!("{name} · nothing to do: {} of {total} cached{limited}", plan.cached())];
        lines.extend(cached_lines(plan, width, paint, |note| !note.is_empty()));
        lines.extend(refused_lines(plan, width, paint));
        lines.extend(skipped_lines(plan, width, paint));
        return lines.join("\n") + "\n";
    }
    let mut lines = vec![headline(&name, plan) + &limited, compute_line(plan, compute)];
    let mut table = Table::new(["stage", "will", "because", "time", "memory"]).right(&[3, 4]).wrap(2);
    table_lines(plan, width, paint, &mut table);
    lines.extend(table.lines(width));
    lines.extend(refused_lines(plan, width, paint));
    lines.extend(skipped_lines(plan, width, paint));
    let waits = |is_changed: bool| {
        let is_so =
            |stage: &StageView| matches!(&stage.will, Will::Waits { because, .. } if is_changed != because.is_empty());
        plan.stages.iter().any(is_so)
    };
    if waits(false) {
        lines.push(paint.dim("◐ stops where the stage above gives the same bytes"));
    }
    if waits(true) {
        lines.push(paint.dim("◐ that has changed itself stops only where its result with those bytes is there"));
    }
    lines.join("\n") + "\n"
}

fn headline(name: &str, plan: &PlanView) -> String {
    let about = header::estimate(plan).map(|time| format!(" · {time} (by earlier runs)")).unwrap_or_default();
    let disk: u64 = header::to_run(plan).map(|stage| stage.disk_bytes).sum();
    let stages = header::counts(plan);
    format!("{name} · {stages}{about} · disk +{}", format::bytes(disk))
}

fn compute_line(plan: &PlanView, compute: &Compute) -> String {
    let peak = header::to_run(plan).max_by_key(|stage| stage.memory_bytes);
    let memory = peak.map(|stage| {
        let (peak, all) = (format::bytes(stage.memory_bytes), format::bytes(compute.memory_bytes));
        format!(" · peak memory {peak} of {all} ({})", stage.stage)
    });
    format!("compute  {}{}", header::compute_line(compute, plan), memory.unwrap_or_default())
}

fn table_lines(plan: &PlanView, width: usize, paint: Paint, table: &mut Table) {
    cached_lines(plan, width, paint, |_| true).into_iter().for_each(|line| table.line(line));
    let runs: HashSet<&StageId> =
        header::to_run(plan).filter(|stage| matches!(stage.will, Will::Run { .. })).map(|stage| &stage.stage).collect();
    let mut waiting: Vec<&StageView> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    for stage in header::to_run(plan) {
        match &stage.will {
            Will::Run { because, asked, .. } => {
                let reason = asked.as_deref().map_or(Reason::Changes(because), Reason::Asked);
                siblings::add(&mut rows, stage, "run", reason);
            }
            Will::Gate { on, .. } => siblings::add(&mut rows, stage, "gate", Reason::Stages("on", on, &[])),
            Will::Waits { on, because } if !because.is_empty() || on.iter().any(|id| runs.contains(id)) => {
                siblings::add(&mut rows, stage, "waits", Reason::Stages("for", on, because));
            }
            _ => waiting.push(stage),
        }
    }
    let more: usize = rows.iter().skip(ROWS).map(|row| row.stages.len()).sum();
    for row in rows.iter().take(ROWS) {
        let mark = if row.will == "run" { paint.cyan("●") } else { paint.dim("◐") };
        let memory = row.stages.iter().map(|stage| stage.memory_bytes).max().unwrap_or_default();
        let name = format!("{mark} {}", row.name());
        table.row([name, row.will.into(), row.because(), time(&row.stages), format::bytes(memory)]);
    }
    if more > 0 {
        table.line(format!(
            " {} … {} more to run, or waiting for what runs",
            paint.cyan("●"),
            format::count(more as u64)
        ));
    }
    if !waiting.is_empty() {
        let time = time(&waiting);
        let time = if time == "–" { String::new() } else { format!("   {time}") };
        let names = some_names(waiting.iter().map(|stage| stage.stage.as_str()));
        marked(&paint.dim("◐"), &format!("{names}{time}"), width).into_iter().for_each(|line| table.line(line));
    }
}

/// A line for each kind of cached results: those of this run's own device first, then of others, and what is frozen.
fn cached_lines(plan: &PlanView, width: usize, paint: Paint, is_shown: fn(&str) -> bool) -> Vec<String> {
    let mut kinds: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for stage in &plan.stages {
        if let Will::Cached { device, frozen, refused: None, .. } = &stage.will {
            let notes: Vec<&str> = device.as_deref().into_iter().chain(frozen.then_some("frozen")).collect();
            kinds.entry(notes.join(", ")).or_default().push(stage.stage.as_str());
        }
    }
    let lines = kinds.into_iter().filter(|(note, _)| is_shown(note)).flat_map(|(note, names)| {
        let note = if note.is_empty() { note } else { format!(" ({note})") };
        marked(&paint.green("✓"), &format!("{}   cached{note}", some_names(names.into_iter())), width)
    });
    lines.collect()
}

/// A line for each result that is there and does not meet its `require`.
fn refused_lines(plan: &PlanView, width: usize, paint: Paint) -> Vec<String> {
    let refused = plan.stages.iter().filter_map(|stage| match &stage.will {
        Will::Cached { refused: Some(why), .. } => Some((&stage.stage, why)),
        _ => None,
    });
    let lines = refused.flat_map(|(stage, why)| {
        let text = format!("{}   cached, and refused ({})", format::clean(stage.as_str()), format::clean(why));
        marked(&paint.red("✗"), &text, width)
    });
    lines.collect()
}

/// A line for each reason to skip.
fn skipped_lines(plan: &PlanView, width: usize, paint: Paint) -> Vec<String> {
    let mut reasons: IndexMap<&str, Vec<&str>> = IndexMap::new();
    for stage in &plan.stages {
        if let Will::Skipped { because } = &stage.will {
            reasons.entry(because).or_default().push(stage.stage.as_str());
        }
    }
    let lines = reasons.into_iter().flat_map(|(because, names)| {
        let text = format!("{}   skipped ({})", some_names(names.into_iter()), format::clean(because));
        marked(&paint.dim("○"), &text, width)
    });
    lines.collect()
}

/// A text behind a mark, over as many lines as it needs.
fn marked(mark: &str, text: &str, width: usize) -> Vec<String> {
    let lines = wrap(text, width.saturating_sub(3));
    let first = |number| if number == 0 { mark } else { " " };
    lines.iter().enumerate().map(|(number, line)| format!(" {} {line}", first(number))).collect()
}

fn time(stages: &[&StageView]) -> String {
    let seconds: Option<f64> = stages.iter().map(|stage| stage.seconds).sum();
    seconds.map_or("–".to_owned(), format::duration)
}

#[cfg(test)]
mod tests {
    use llmflow_contract::Digest;
    use llmflow_runtime::{event::Finished, plan::Change};

    use super::*;
    use crate::render::fixture;

    fn stage(name: &str, will: Will, seconds: Option<f64>) -> StageView {
        StageView { will, seconds, memory_bytes: 2_576_980_378, disk_bytes: 1 << 28, ..fixture::view(name, &[]) }
    }

    pub(crate) fn sample() -> PlanView {
        let key = Digest::of(b"k");
        let cached = || Will::Cached { key, finished: Finished::default(), device: None, frozen: false, refused: None };
        let waits = |on: &str| Will::Waits { on: vec![StageId::from(on)], because: Vec::new() };
        let change = Change {
            part: "with.lora_r".into(),
            before: Some("16".into()),
            now: Some("32".into()),
            origin: Some("params.rank, assistant.yaml:10, set by --set".into()),
        };
        let mut stages: Vec<StageView> = ["base", "docs", "rows"].map(|name| stage(name, cached(), Some(1.0))).into();
        stages.push(stage("sft", Will::Run { key: Some(key), because: vec![change], asked: None }, Some(190.0)));
        stages.push(stage("merged", waits("sft"), Some(4.0)));
        stages.push(stage("dpo", waits("merged"), Some(200.0)));
        stages.push(stage("gguf", waits("dpo"), Some(60.0)));
        PlanView { stages }
    }

    #[test]
    fn a_plan_says_what_is_there_what_runs_and_why() {
        let compute = Compute { cores: 2, memory_bytes: 15 << 30, ..Compute::default() };
        insta::assert_snapshot!(plan("assistant", &sample(), None, &compute, 80, Paint(false)), @r"
        assistant · 3 cached, 4 to run · about 7m34s (by earlier runs) · disk +1.0 GiB
        compute  CPU, 2 threads, f32 · no GPU · peak memory 2.4 GiB of 15 GiB (gguf)
         stage     will   because                                          time   memory
         ✓ base docs rows   cached
         ● sft     run    with.lora_r 16 → 32 (params.rank,               3m10s  2.4 GiB
                          assistant.yaml:10, set by --set)
         ◐ merged  waits  for sft                                           4 s  2.4 GiB
         ◐ dpo gguf   4m20s
        ◐ stops where the stage above gives the same bytes
        ");
        let wide = plan("assistant", &sample(), None, &compute, 120, Paint(false));
        assert!(wide.contains("with.lora_r 16 → 32 (params.rank, assistant.yaml:10, set by --set)"), "{wide}");
    }

    #[test]
    fn with_everything_cached_a_plan_is_one_line() {
        let mut view = sample();
        view.stages.truncate(3);
        let text = plan("assistant", &view, None, &Compute::default(), 80, Paint(false));
        assert_eq!(text, "assistant · nothing to do: 3 of 3 cached\n");
    }

    #[test]
    fn the_plan_of_a_rehearsal_says_so() {
        let said = |view: &PlanView| {
            let text = plan("assistant", view, Some(4), &Compute::default(), 80, Paint(false));
            text.lines().next().unwrap_or_default().to_owned()
        };
        let mut view = sample();
        assert!(said(&view).ends_with(" · disk +1.0 GiB · limited to 4 rows or steps a stage"), "{}", said(&view));
        view.stages.truncate(3);
        assert_eq!(said(&view), "assistant · nothing to do: 3 of 3 cached · limited to 4 rows or steps a stage");
    }
}
