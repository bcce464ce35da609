//! The run record: what the store keeps of a run, for every home: its file, its params, stage → key → digests.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use llmflow_contract::Failure;
use serde_json::json;

use super::{engine::Engine, state::State};
use crate::event::now_ms;

/// At least this long between two records of a run under way, and ten times as long as writing one took: a long run says
/// what it made before it ends, a run of many quick stages does not spend its time on saying so.
const BETWEEN: Duration = Duration::from_secs(2);

/// When the next record is due.
#[derive(Default)]
pub(super) struct RunRecords {
    next: Option<Instant>,
}

impl Engine {
    /// Writes the run's record: now if `is_last`, else if one is due.
    pub(super) async fn save_run_record(&mut self, is_last: bool) -> Result<(), Failure> {
        let began = Instant::now();
        if !is_last && self.records.next.is_some_and(|next| began < next) {
            return Ok(());
        }
        self.place.store.put_run(&self.run, &self.run_record()).await?;
        self.records.next = Some(Instant::now() + BETWEEN.max(began.elapsed() * 10));
        Ok(())
    }

    fn run_record(&self) -> serde_json::Value {
        let stages: BTreeMap<&str, serde_json::Value> = self
            .states
            .iter()
            .zip(&self.plan.stages)
            .filter_map(|(state, stage)| match state {
                State::Ran(finished) | State::Cached(finished) | State::Refused { finished, .. } => {
                    Some((stage.def.id.as_str(), json!({ "key": finished.key, "outputs": finished.outputs })))
                }
                _ => None,
            })
            .collect();
        let pipeline = &self.plan.pipeline;
        json!({
            "run": self.run, "pipeline": pipeline.name, "text": pipeline.source.text, "set": pipeline.overrides.set,
            "stages": stages, "at_ms": now_ms(), "version": env!("CARGO_PKG_VERSION"),
        })
    }
}
