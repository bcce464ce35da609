//! The three lines that open a run: what, on which machine, where its state lies.

use std::path::Path;

use llmflow_runtime::{
    event::{Compute, RunId},
    plan::{PlanView, StageView, Will},
};

use super::{format, typed::Place};

/// Where not all is known, fewer seconds than this say nothing.
const LEAST: f64 = 1.0;

/// The header of a run.
pub fn header(
    pipeline: &str,
    run: &RunId,
    plan: &PlanView,
    compute: &Compute,
    home: &Path,
    disk_free_bytes: Option<u64>,
    place: &Place,
) -> [String; 3] {
    let pipeline = format::clean(pipeline);
    let stages = counts(plan);
    let about = estimate(plan).map(|time| format!(" · {time}")).unwrap_or_default();
    let disk: u64 = to_run(plan).map(|stage| stage.disk_bytes).sum();
    let free = disk_free_bytes
        .map(|free| format!("          disk  +{} of {} free", format::bytes(disk), format::bytes(free)))
        .unwrap_or_default();
    [
        format!("{pipeline} · run {run} · {stages}{about}"),
        format!("compute  {}{free}", compute_line(compute, plan)),
        format!("home     {}          look  {}", shown_home(home), place.typed("llmflow show @ --open", home)),
    ]
}

/// How many stages there are, and how many run; `all new` only of those of which no earlier success is known.
pub fn counts(plan: &PlanView) -> String {
    let (to_run, cached) = (plan.to_run() as u64, plan.cached() as u64);
    let is_new = |stage: &StageView| match &stage.will {
        Will::Run { because, asked, .. } => because.is_empty() && asked.is_none(),
        _ => true,
    };
    match (to_run, cached) {
        (0, _) => format!("{}, nothing left to run", format::counted(plan.stages.len() as u64, "stage")),
        (1, 0) if self::to_run(plan).all(is_new) => "1 stage, new".to_owned(),
        (_, 0) if self::to_run(plan).all(is_new) => format!("{}, all new", format::counted(to_run, "stage")),
        (_, 0) => format!("{} to run", format::counted(to_run, "stage")),
        _ => format!("{} cached, {} to run", format::count(cached), format::count(to_run)),
    }
}

/// The time that the stages to run will take, `about 4m33s`; nothing where it is known of none of them.
pub fn estimate(plan: &PlanView) -> Option<String> {
    let is_whole = to_run(plan).all(|stage| stage.seconds.is_some());
    let known = to_run(plan).filter_map(|stage| stage.seconds);
    let seconds = known.reduce(|all, seconds| all + seconds).filter(|seconds| is_whole || *seconds >= LEAST)?;
    Some(format!("{} {}", if is_whole { "about" } else { "at least" }, format::duration(seconds)))
}

/// Stages that run, or may.
pub fn to_run(plan: &PlanView) -> impl Iterator<Item = &StageView> {
    plan.stages.iter().filter(|stage| !matches!(stage.will, Will::Cached { .. } | Will::Skipped { .. }))
}

/// What it computes on; a GPU that is there and not used is said, with the fix.
pub fn compute_line(compute: &Compute, plan: &PlanView) -> String {
    let cpu = format!("CPU, {}, f32", format::counted(compute.cores.into(), "thread"));
    let Some(gpu) = compute.gpus.first() else { return format!("{cpu} · no GPU") };
    let gpus = |count: usize| format!("{count}× {}", format::clean(&gpu.name));
    let found = gpus(compute.gpus.len());
    let used = match compute.asked_gpus as usize {
        asked if asked < compute.gpus.len() => format!("{asked} of {found}"),
        _ => found.clone(),
    };
    let asking: Vec<&StageView> = to_run(plan).filter(|stage| stage.gpus > 0).collect();
    match asking[..] {
        [one] => format!("{used} ({}) · {cpu}", one.stage),
        [_, ..] => format!("{used} ({}) · {cpu}", format::counted(asking.len() as u64, "stage")),
        [] if compute.usable_gpus > 0 => format!("{} · {cpu}", gpus(compute.usable_gpus as usize)),
        [] => {
            let fix = match to_run(plan).any(|stage| stage.is_foreign) {
                true => "a program gets one by `resources: {gpus: 1}`",
                false => "this build has no CUDA kernels (README: GPU)",
            };
            format!("CPU f32 · {found} found, NOT used: {fix}")
        }
    }
}

/// A path with the user's own folder shortened to `~`.
fn shown_home(path: &Path) -> String {
    let own = std::env::var_os("HOME").filter(|own| !own.is_empty());
    match own.as_ref().and_then(|own| path.strip_prefix(own).ok()) {
        Some(rest) => format!("~/{}", format::clean(&rest.display().to_string())),
        None => format::clean(&path.display().to_string()),
    }
}

#[cfg(test)]
mod tests {
    use llmflow_contract::Digest;
    use llmflow_runtime::event::Gpu;

    use super::*;
    use crate::render::fixture::view;

    #[test]
    fn a_time_that_is_known_of_little_is_not_told() {
        let stage = |name: &str, seconds| StageView { seconds, ..view(name, &[]) };
        let told = |known, other| estimate(&PlanView { stages: vec![stage("a", known), stage("b", other)] });
        assert_eq!(told(Some(0.001), None), None);
        assert_eq!(told(Some(61.0), None).as_deref(), Some("at least 1m01s"));
        assert_eq!(told(Some(0.001), Some(0.0)).as_deref(), Some("about 0.00 s"));
    }

    #[test]
    fn what_is_forced_is_not_new() {
        let stage = |asked: Option<&str>| StageView {
            will: Will::Run { key: Some(Digest::of(b"k")), because: Vec::new(), asked: asked.map(str::to_owned) },
            ..view("rows", &[])
        };
        let told = |stages: Vec<StageView>| counts(&PlanView { stages });
        assert_eq!(told(vec![stage(None)]), "1 stage, new");
        assert_eq!(told(vec![stage(None), stage(None)]), "2 stages, all new");
        assert_eq!(told(vec![stage(Some("forced"))]), "1 stage to run");
        assert_eq!(told(Vec::new()), "0 stages, nothing left to run");
    }

    #[test]
    fn a_gpu_that_is_not_used_is_said_with_the_fix() {
        let gpu = Gpu { name: "H100".into(), ..Gpu::default() };
        let mut compute =
            Compute { cores: 2, memory_bytes: 1 << 30, gpus: vec![gpu.clone()], usable_gpus: 0, asked_gpus: 1 };
        let stage = |gpus, is_foreign| StageView { gpus, is_foreign, ..view("train", &[]) };
        let told =
            |compute: &Compute, stages: &[StageView]| compute_line(compute, &PlanView { stages: stages.to_vec() });
        let unused = "CPU f32 · 1× H100 found, NOT used: ";
        let no_kernels = "this build has no CUDA kernels (README: GPU)";
        assert_eq!(told(&compute, &[stage(0, false)]), format!("{unused}{no_kernels}"));
        let program = "a program gets one by `resources: {gpus: 1}`";
        assert_eq!(told(&compute, &[stage(0, false), stage(0, true)]), format!("{unused}{program}"));
        assert_eq!(told(&compute, &[stage(1, true), stage(0, true)]), "1× H100 (train) · CPU, 2 threads, f32");
        assert_eq!(told(&compute, &[stage(1, true), stage(1, true)]), "1× H100 (2 stages) · CPU, 2 threads, f32");
        compute.gpus = vec![gpu; 4];
        assert_eq!(told(&compute, &[stage(1, true)]), "1 of 4× H100 (train) · CPU, 2 threads, f32");
        compute.usable_gpus = 4;
        assert_eq!(told(&compute, &[stage(1, true)]), "1 of 4× H100 (train) · CPU, 2 threads, f32");
        assert_eq!(told(&compute, &[stage(0, false)]), "4× H100 · CPU, 2 threads, f32", "nobody asks for one");
        compute.usable_gpus = 0;
        compute.gpus.clear();
        assert_eq!(told(&compute, &[]), "CPU, 2 threads, f32 · no GPU");
        compute.cores = 1;
        assert_eq!(told(&compute, &[]), "CPU, 1 thread, f32 · no GPU");
    }
}
