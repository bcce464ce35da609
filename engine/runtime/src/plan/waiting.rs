//! Stages that wait for what the stages above give, and run whatever that is.
//!
//! Owns: what of a key is known before all inputs are, and how it differs from the last success.

use std::ops::Range;

use llmflow_contract::{Digest, Failure, Numerics};
use rayon::prelude::*;

use super::{Component, Plan, Planned, Standing, key, view::Change};
use crate::store::Store;

impl Plan {
    /// Finds the stages that wait and run in any case: no gate decides on them, what is known of their key is not as it was
    /// at their last success, and with the inputs of then there is no result.
    pub(super) async fn find_due(&mut self, store: &Store, is_exact: bool) -> Result<(), Failure> {
        let is_gated = self.gated();
        let differing: Vec<(usize, Vec<Digest>)> = (0..self.stages.len())
            .into_par_iter()
            .filter(|index| matches!(self.stages[*index].standing, Standing::Waits) && !is_gated[*index])
            .filter_map(|index| {
                let parts = self.assumed(&self.stages[index])?;
                let is_same = self.own_changes(&self.stages[index], &parts).is_empty();
                (!is_same).then(|| (index, serving(&self.stages[index], &parts, is_exact)))
            })
            .collect();
        let keys: Vec<Digest> = differing.iter().flat_map(|(_, keys)| keys.iter().copied()).collect();
        let found = store.key_records(&keys).await?;
        let mut own: Range<usize> = 0..0;
        for (index, keys) in differing {
            own = own.end..own.end + keys.len();
            if found[own.clone()].iter().all(Option::is_none) {
                self.stages[index].standing = Standing::Due;
            }
        }
        Ok(())
    }

    /// Of each stage, whether a gate at it or above it may skip it.
    fn gated(&self) -> Vec<bool> {
        let mut gated = vec![false; self.stages.len()];
        for index in self.order.iter().map(|index| *index as usize) {
            let stage = &self.stages[index];
            let is_below = stage.needs.iter().any(|need| gated[*need as usize]);
            gated[index] = !stage.is_settled() && (is_below || matches!(stage.standing, Standing::Gate));
        }
        gated
    }

    /// What of the key of a stage that waits is known and differs from its last success.
    pub(super) fn known_changes(&self, stage: &Planned) -> Vec<Change> {
        self.assumed(stage).map(|parts| self.own_changes(stage, &parts)).unwrap_or_default()
    }

    /// The parts of a stage's key, those that are not known yet as they were at its last success.
    fn assumed(&self, stage: &Planned) -> Option<Vec<Component>> {
        let before = &stage.last.as_ref()?.components;
        Some(stage.settled.assumed(&stage.def, &stage.entry, &self.outputs, before))
    }

    /// Without the numerics class: results of another may serve.
    fn own_changes(&self, stage: &Planned, parts: &[Component]) -> Vec<Change> {
        let mut changes = self.reasons(stage, parts);
        changes.retain(|change| change.part != key::NUMERICS);
        changes
    }
}

fn serving(stage: &Planned, parts: &[Component], is_exact: bool) -> Vec<Digest> {
    let numerics = &stage.settled.plan.numerics;
    let mut keys = vec![key::digest(parts)];
    if !is_exact && matches!(numerics, Numerics::Seeded { .. }) {
        keys.extend(key::stand_ins(parts, numerics));
    }
    keys
}
