//! The three lines that open a run: what, on which machine, where its state lies.

use std::path::Path;

use llmflow_runtime::{
    event::{Compute, RunId},
    plan::{PlanView, StageView, Will},
};

use super::format;

/// The header of a run.
pub fn header(
    pipeline: &str,
    run: &RunId,
    plan: &PlanView,
    compute: &Compute,
    home: &Path,
    disk_free_bytes: Option<u64>,
) -> [String; 3] {
    let pipeline = format::clean(pipeline);
    let cached = plan.cached();
    let total = plan.stages.len();
    let stages = match (plan.to_run(), cached) {
        (0, _) => format!("{total} stages, nothing left to run"),
        (_, 0) => format!("{total} stages, all new"),
        (to_run, _) => format!("{cached} cached, {to_run} to run"),
    };
    let about = estimate(plan).filter(|_| plan.to_run() > 0);
    let about = about.map(|seconds| format!(" · about {}", format::duration(seconds))).unwrap_or_default();
    let disk: u64 = to_run(plan).map(|stage| stage.disk_bytes).sum();
    let free = disk_free_bytes
        .map(|free| format!("          disk  +{} of {} free", format::bytes(disk), format::bytes(free)))
        .unwrap_or_default();
    [
        format!("{pipeline} · run {run} · {stages}{about}"),
        format!("compute  {}{free}", compute_line(compute)),
        format!("home     {}          look  llmflow show @ --open", shown_home(home)),
    ]
}

/// Seconds of the stages to run, where every one of them ran before.
pub fn estimate(plan: &PlanView) -> Option<f64> {
    to_run(plan).map(|stage| stage.seconds).sum()
}

/// Stages that run, or may.
pub fn to_run(plan: &PlanView) -> impl Iterator<Item = &StageView> {
    plan.stages.iter().filter(|stage| !matches!(stage.will, Will::Cached { .. } | Will::Skipped { .. }))
}

/// What it computes on; a GPU that is there and not used is said, with the fix.
pub fn compute_line(compute: &Compute) -> String {
    let cpu = format!("CPU, {} threads, f32", compute.cores);
    match (compute.gpus.first(), compute.usable_gpus) {
        (None, _) => format!("{cpu} · no GPU"),
        (Some(gpu), 0) => format!(
            "CPU f32 · {}× {} found, NOT used: this build has no CUDA kernels (README: GPU)",
            compute.gpus.len(),
            format::clean(&gpu.name)
        ),
        (Some(gpu), usable) => format!("{usable}× {} · {cpu}", format::clean(&gpu.name)),
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
    use llmflow_runtime::event::Gpu;

    use super::*;

    #[test]
    fn a_gpu_that_is_not_used_is_said_with_the_fix() {
        let gpu = Gpu { name: "H100".into(), ..Gpu::default() };
        let mut compute = Compute { cores: 2, memory_bytes: 1 << 30, gpus: vec![gpu], usable_gpus: 0 };
        assert!(compute_line(&compute).contains("1× H100 found, NOT used"));
        compute.gpus.clear();
        assert_eq!(compute_line(&compute), "CPU, 2 threads, f32 · no GPU");
    }
}
