//! What a stage asks of the machine: a number in `resources` is a demand, `auto` what its operator can use here.

use std::{collections::HashMap, sync::Arc, time::Duration};

use llmflow_contract::{Failure, StageId};

use super::{
    schedule::{Candidate, Capacity, TooFewGpus},
    secret::Secrets,
};
use crate::{
    event::{Compute, Gpu},
    pipeline::Demand,
    plan::Planned,
};

/// What stages may use at once. Each matrix with a `max_parallel` is a group of its own.
pub(super) fn capacity(compute: &Compute, jobs: Option<u32>, groups: Vec<u32>) -> Capacity {
    Capacity {
        cores: compute.cores,
        memory_bytes: compute.memory_bytes,
        gpus: gpus(compute),
        jobs: jobs.unwrap_or(u32::MAX),
        groups,
    }
}

/// Memory of each GPU that may be leased: what is free, and nothing of one that is mostly somebody else's, unless all are.
pub(super) fn gpus(compute: &Compute) -> Vec<u64> {
    let is_ours = |gpu: &Gpu| gpu.free_bytes >= gpu.memory_bytes / 2;
    let has_own = compute.gpus.iter().any(is_ours);
    compute.gpus.iter().map(|gpu| if has_own && !is_ours(gpu) { 0 } else { gpu.free_bytes }).collect()
}

/// The group of each stage, and how many stages of each group may run at once.
pub(super) fn groups(stages: &[Planned]) -> (Vec<Option<usize>>, Vec<u32>) {
    let (mut limits, mut known) = (Vec::new(), HashMap::new());
    let of_stage = stages.iter().map(|stage| {
        let limit = stage.def.shared.matrix.as_ref()?.max_parallel?;
        let group = known.entry(Arc::as_ptr(&stage.def.shared)).or_insert_with(|| {
            limits.push(limit);
            limits.len() - 1
        });
        Some(*group)
    });
    let of_stage = of_stage.collect();
    (of_stage, limits)
}

/// The candidate that the scheduler sees.
pub(super) fn candidate(index: usize, stage: &Planned, group: Option<usize>, urgency: f64) -> Candidate {
    let (needs, wanted) = (stage.settled.plan.needs, stage.def.resources());
    let cores = match wanted.cores {
        Demand::Exactly(cores) => cores,
        Demand::Auto => needs.cores,
    };
    let expected = stage.last.as_ref().and_then(|last| Duration::try_from_secs_f64(last.seconds).ok());
    let memory_bytes = stage.memory_bytes();
    Candidate { index, cores, memory_bytes, gpus: stage.gpus(), group, urgency, expected }
}

/// No machine state will ever let the stage start.
pub(super) fn too_few_gpus(stage: &StageId, lacking: TooFewGpus) -> Failure {
    let TooFewGpus { wanted, fitting } = lacking;
    let gpus = if wanted == 1 { "GPU" } else { "GPUs" };
    let message = format!("`{stage}` needs {wanted} {gpus} with enough free memory; this machine gives {fitting}");
    Failure::environment("resources/gpus", message).help("look at what is there: llmflow devices")
}

/// Why a stage can never start here: a demand that this machine cannot meet, a secret that is not set.
pub(super) fn hindrance(stage: &Planned, compute: &Compute) -> Option<Failure> {
    let unset = || {
        let names = stage.entry.takes_secrets().then(|| stage.entry.secrets(&stage.settled.params()))?;
        Secrets::read(&names).err()
    };
    unmet(stage, compute).or_else(unset)
}

/// What this machine cannot give.
fn unmet(stage: &Planned, compute: &Compute) -> Option<Failure> {
    let (wanted, is_foreign, stage) = (stage.def.resources(), stage.entry.is_foreign, &stage.def.id);
    let lacking = |code: &str, what: String, has: String| {
        Failure::environment(code, format!("`{stage}` demands {what}; this machine gives {has}"))
            .help("lower the number in `resources`, or write `auto`")
    };
    if let Demand::Exactly(cores) = wanted.cores
        && cores > compute.cores
    {
        return Some(lacking("resources/cores", format!("{cores} cores"), compute.cores.to_string()));
    }
    if let Demand::Exactly(bytes) = wanted.memory_bytes
        && bytes > compute.memory_bytes
    {
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
        let what = format!("{} of memory", gib(bytes));
        return Some(lacking("resources/memory", what, gib(compute.memory_bytes)));
    }
    let Demand::Exactly(gpus) = wanted.gpus else { return None };
    lacking_gpus(stage, gpus, is_foreign, compute)
}

/// A program of the user's needs no kernels of this build.
fn lacking_gpus(stage: &StageId, gpus: u32, is_foreign: bool, compute: &Compute) -> Option<Failure> {
    let what = format!("`{stage}` demands {gpus} {}", if gpus == 1 { "GPU" } else { "GPUs" });
    let (found, usable) = (compute.gpus.len() as u32, compute.usable_gpus);
    let (has, help) = match is_foreign {
        true if gpus > found => (format!("this machine gives {found}"), "look at what is there: llmflow devices"),
        false if gpus > usable => (format!("this build can use {usable}"), "write `gpus: auto`, or see README: GPU"),
        _ => return None,
    };
    Some(Failure::environment("resources/gpus", format!("{what}; {has}")).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_mostly_somebody_elses_is_left_to_them_unless_all_are() {
        let leased = |free: [u64; 3]| {
            let gpu = |free_bytes| Gpu { memory_bytes: 80, free_bytes, ..Gpu::default() };
            gpus(&Compute { gpus: free.map(gpu).to_vec(), ..Compute::default() })
        };
        assert_eq!(leased([79, 39, 60]), [79, 0, 60]);
        assert_eq!(leased([30, 0, 39]), [30, 0, 39]);
    }

    #[test]
    fn a_program_is_given_gpus_that_this_build_cannot_compute_on() {
        let compute = Compute { gpus: vec![Gpu::default(); 2], ..Compute::default() };
        let said = |gpus, is_foreign| lacking_gpus(&"train".into(), gpus, is_foreign, &compute);
        assert_eq!(said(2, true), None);
        assert_eq!(said(0, false), None);
        let (program, own) = (said(3, true).unwrap(), said(1, false).unwrap());
        assert_eq!(program.message, "`train` demands 3 GPUs; this machine gives 2");
        assert_eq!(own.message, "`train` demands 1 GPU; this build can use 0");
    }
}
