//! The run record: what the store keeps of a run, for every home, is what its history says.

use std::time::{Duration, Instant};

use llmflow_contract::Failure;

use super::engine::Engine;
use crate::store::Shared;

/// At least this long between two records of a run under way, and thirty times as long as writing one took: a long run says
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
        if !self.is_recorded || !is_last && self.records.next.is_some_and(|next| began < next) {
            return Ok(());
        }
        if !is_last && !self.place.lineage.has_run(&self.run).await? {
            return Ok(()); // its first words wait for whoever has the history locked
        }
        if !is_last && matches!(self.place.store.try_share()?, Shared::GcIsAtWork) {
            return Ok(()); // another time
        }
        let record = self.place.lineage.record_of(&self.run).await?;
        let record = serde_json::to_value(record).map_err(|error| Failure::bug(format!("run record: {error}")))?;
        self.place.store.put_run(&self.run, &record).await?;
        self.records.next = Some(Instant::now() + BETWEEN.max(began.elapsed() * 30));
        Ok(())
    }
}
