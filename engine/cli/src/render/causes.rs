//! Why stages did not run: which stage above them broke, if one did.

use std::collections::HashMap;

use llmflow_contract::StageId;
use llmflow_runtime::{
    lineage::NOT_STARTED,
    run::{Outcome, StageOutcome, StageStatus},
};

/// Of each stage that broke, and of each that was skipped because of it: the stage that broke.
pub struct Causes<'a>(HashMap<&'a StageId, &'a StageOutcome>);

impl<'a> Causes<'a> {
    pub fn of(outcome: &'a Outcome) -> Self {
        let needs: HashMap<&StageId, &[StageId]> =
            outcome.plan.stages.iter().map(|view| (&view.stage, view.needs.as_slice())).collect();
        let mut causes: HashMap<&StageId, &StageOutcome> = HashMap::new();
        // In an order that ran: what a stage needs comes before it.
        for stage in &outcome.stages {
            let needs = needs.get(&stage.stage).copied().unwrap_or_default();
            let cause = match stage.status {
                StageStatus::Failed | StageStatus::Refused | StageStatus::Interrupted => Some(stage),
                StageStatus::Skipped => needs.iter().find_map(|need| causes.get(need).copied()),
                StageStatus::Ran | StageStatus::Cached => None,
            };
            causes.extend(cause.map(|cause| (&stage.stage, cause)));
        }
        Self(causes)
    }

    /// The stage that broke above this one, or this one itself.
    pub fn of_stage(&self, stage: &StageOutcome) -> Option<&'a StageOutcome> {
        self.0.get(&stage.stage).copied()
    }

    /// How a stage ended, in a word: what an interruption kept from starting was not skipped.
    pub fn word(&self, stage: &StageOutcome) -> &'static str {
        let by = self.of_stage(stage).map(|cause| cause.status);
        let is_kept_back = stage.status == StageStatus::Skipped || !has_started(stage);
        if by == Some(StageStatus::Interrupted) && is_kept_back { NOT_STARTED } else { stage.status.name() }
    }
}

/// Did an attempt of this stage begin in this run?
pub fn has_started(stage: &StageOutcome) -> bool {
    stage.seconds > 0.0
}
