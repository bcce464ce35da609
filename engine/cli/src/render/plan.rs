//! The screen of `plan`: what is there, what runs and why, what waits to see.

use llmflow_contract::StageId;
use llmflow_runtime::{
    event::Compute,
    plan::{PlanView, StageView, Will},
};

use super::{
    change, format, header,
    style::Paint,
    table::{Table, wrap},
};

/// The whole screen.
pub fn plan(name: &str, plan: &PlanView, compute: &Compute, width: usize, paint: Paint) -> String {
    let total = plan.stages.len();
    let name = format::clean(name);
    if plan.to_run() == 0 {
        return format!("{name} · nothing to do: {total} of {total} cached\n");
    }
    let mut lines = vec![headline(&name, plan), compute_line(plan, compute)];
    let mut table = Table::new(["stage", "will", "because", "time", "memory"]).right(&[3, 4]).wrap(2);
    table_lines(plan, width, paint, &mut table);
    lines.extend(table.lines(width));
    if plan.stages.iter().any(|stage| matches!(stage.will, Will::Waits { .. })) {
        lines.push(paint.dim("◐ stops where the stage above gives the same bytes"));
    }
    lines.join("\n") + "\n"
}

fn headline(name: &str, plan: &PlanView) -> String {
    let about = header::estimate(plan)
        .map(|seconds| format!(" · about {} (as it took before)", format::duration(seconds)))
        .unwrap_or_default();
    let disk: u64 = to_run(plan).map(|stage| stage.disk_bytes).sum();
    let stages = match plan.cached() {
        0 => format!("{} stages, all new", plan.stages.len()),
        cached => format!("{cached} cached, {} to run", plan.to_run()),
    };
    format!("{name} · {stages}{about} · disk +{}", format::bytes(disk))
}

fn compute_line(plan: &PlanView, compute: &Compute) -> String {
    let peak = to_run(plan).max_by_key(|stage| stage.memory_bytes);
    let memory = peak.map(|stage| {
        let (peak, all) = (format::bytes(stage.memory_bytes), format::bytes(compute.memory_bytes));
        format!(" · peak memory {peak} of {all} ({})", stage.stage)
    });
    format!("compute  {}{}", header::compute_line(compute), memory.unwrap_or_default())
}

fn to_run(plan: &PlanView) -> impl Iterator<Item = &StageView> {
    plan.stages.iter().filter(|stage| !matches!(stage.will, Will::Cached { .. }))
}

fn table_lines(plan: &PlanView, width: usize, paint: Paint, table: &mut Table) {
    let cached: Vec<&str> = plan
        .stages
        .iter()
        .filter(|stage| matches!(stage.will, Will::Cached { .. }))
        .map(|stage| stage.stage.as_str())
        .collect();
    if !cached.is_empty() {
        let text = format!("{}   cached", cached.join(" "));
        for (number, line) in wrap(&text, width.saturating_sub(3)).iter().enumerate() {
            let mark = if number == 0 { paint.green("✓") } else { " ".to_owned() };
            table.line(format!(" {mark} {line}"));
        }
    }
    let mut waiting: Vec<&StageView> = Vec::new();
    for stage in to_run(plan) {
        match &stage.will {
            Will::Run { because, .. } => {
                flush(&mut waiting, paint, width, table);
                let memory = format::bytes(stage.memory_bytes);
                table.row([mark(paint.cyan("●"), stage), "run".into(), change::reasons(because), time(stage), memory]);
            }
            Will::Waits { on } if waits_on_a_run(plan, on) => {
                flush(&mut waiting, paint, width, table);
                let (names, memory) = (names(on), format::bytes(stage.memory_bytes));
                let because = format!("for {names}");
                table.row([mark(paint.dim("◐"), stage), "waits".into(), because, time(stage), memory]);
            }
            _ => waiting.push(stage),
        }
    }
    flush(&mut waiting, paint, width, table);
}

/// Stages that wait for waiting ones stand together.
fn flush(waiting: &mut Vec<&StageView>, paint: Paint, width: usize, table: &mut Table) {
    if waiting.is_empty() {
        return;
    }
    let names: Vec<&str> = waiting.iter().map(|stage| stage.stage.as_str()).collect();
    let seconds: Option<f64> = waiting.iter().map(|stage| stage.seconds).sum();
    let time = seconds.map(|seconds| format!("   {}", format::duration(seconds))).unwrap_or_default();
    for (number, line) in wrap(&format!("{}{time}", names.join(" ")), width.saturating_sub(3)).iter().enumerate() {
        let mark = if number == 0 { paint.dim("◐") } else { " ".to_owned() };
        table.line(format!(" {mark} {line}"));
    }
    waiting.clear();
}

fn waits_on_a_run(plan: &PlanView, on: &[StageId]) -> bool {
    let runs =
        |id: &StageId| plan.stages.iter().any(|stage| stage.stage == *id && matches!(stage.will, Will::Run { .. }));
    on.iter().any(runs)
}

fn mark(symbol: String, stage: &StageView) -> String {
    format!("{symbol} {}", stage.stage)
}

fn names(stages: &[StageId]) -> String {
    stages.iter().map(StageId::as_str).collect::<Vec<_>>().join(", ")
}

fn time(stage: &StageView) -> String {
    stage.seconds.map_or("–".to_owned(), format::duration)
}

#[cfg(test)]
mod tests {
    use llmflow_contract::Digest;
    use llmflow_runtime::{event::Finished, plan::Change};

    use super::*;

    fn stage(name: &str, will: Will, seconds: Option<f64>) -> StageView {
        StageView {
            stage: StageId::from(name),
            operator: "a.b".into(),
            version: 1,
            needs: Vec::new(),
            will,
            seconds,
            memory_bytes: 2_576_980_378,
            disk_bytes: 1 << 28,
        }
    }

    pub(crate) fn sample() -> PlanView {
        let key = Digest::of(b"k");
        let cached = || Will::Cached { key, finished: Finished::default() };
        let waits = |on: &str| Will::Waits { on: vec![StageId::from(on)] };
        let change = Change {
            part: "with.lora_r".into(),
            before: Some("16".into()),
            now: Some("32".into()),
            origin: Some("params.rank, assistant.yaml:10, set by --set".into()),
        };
        let mut stages: Vec<StageView> = ["base", "docs", "rows"].map(|name| stage(name, cached(), Some(1.0))).into();
        stages.push(stage("sft", Will::Run { key, because: vec![change] }, Some(190.0)));
        stages.push(stage("merged", waits("sft"), Some(4.0)));
        stages.push(stage("dpo", waits("merged"), Some(200.0)));
        stages.push(stage("gguf", waits("dpo"), Some(60.0)));
        PlanView { stages }
    }

    #[test]
    fn a_plan_says_what_is_there_what_runs_and_why() {
        let compute = Compute { cores: 2, memory_bytes: 15 << 30, gpus: Vec::new(), usable_gpus: 0 };
        insta::assert_snapshot!(plan("assistant", &sample(), &compute, 80, Paint(false)), @r"
        assistant · 3 cached, 4 to run · about 7m34s (as it took before) · disk +1.0 GiB
        compute  CPU, 2 threads, f32 · no GPU · peak memory 2.4 GiB of 15 GiB (gguf)
         stage     will   because                                          time   memory
         ✓ base docs rows   cached
         ● sft     run    with.lora_r 16 → 32 (params.rank,               3m10s  2.4 GiB
                          assistant.yaml:10, set by --set)
         ◐ merged  waits  for sft                                           4 s  2.4 GiB
         ◐ dpo gguf   4m20s
        ◐ stops where the stage above gives the same bytes
        ");
        let wide = plan("assistant", &sample(), &compute, 120, Paint(false));
        assert!(wide.contains("with.lora_r 16 → 32 (params.rank, assistant.yaml:10, set by --set)"), "{wide}");
    }

    #[test]
    fn with_everything_cached_a_plan_is_one_line() {
        let mut view = sample();
        view.stages.truncate(3);
        let text = plan("assistant", &view, &Compute::default(), 80, Paint(false));
        assert_eq!(text, "assistant · nothing to do: 3 of 3 cached\n");
    }
}
