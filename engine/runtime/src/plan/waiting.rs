//! Stages that wait for what the stages above give.
//!
//! Owns: what of their keys is known already, and how that differs from the last success.

use super::{Component, Plan, Planned, key, view::Change};

impl Plan {
    /// What of the key of a stage that waits is known and differs from its last success: with these, the bytes of before from
    /// above do not make it stop, unless they met these before.
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
