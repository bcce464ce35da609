//! What a stage asks of the machine: a number in `resources` is a demand, `auto` what its operator can use here.

use llmflow_contract::{Failure, StageId};

use super::schedule::Candidate;
use crate::{
    event::Compute,
    pipeline::{Demand, Resources},
    plan::Planned,
};

/// The candidate that the scheduler sees.
pub(super) fn candidate(index: usize, stage: &Planned, urgency: f64, compute: &Compute) -> Candidate {
    let needs = stage.settled.plan.needs;
    let cores = match stage.def.resources().cores {
        Demand::Exactly(cores) => cores,
        Demand::Auto => needs.cores,
    };
    let memory_bytes = match stage.def.resources().memory_bytes {
        Demand::Exactly(bytes) => bytes,
        Demand::Auto => needs.memory_bytes,
    };
    Candidate { index, cores: cores.clamp(1, compute.cores.max(1)), memory_bytes, urgency }
}

/// What this machine cannot give.
pub(super) fn unmet(stage: &StageId, wanted: &Resources, compute: &Compute) -> Option<Failure> {
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
    match wanted.gpus {
        Demand::Exactly(gpus) if gpus > compute.usable_gpus => Some(
            Failure::environment(
                "resources/gpus",
                format!("`{stage}` demands {gpus} GPUs; this build can use {}", compute.usable_gpus),
            )
            .help("write `gpus: auto`, or see README: GPU"),
        ),
        _ => None,
    }
}
