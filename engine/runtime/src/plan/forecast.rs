//! How long a stage will take and what it will leave, by what it did before, and what its operator did elsewhere.

use std::collections::HashMap;

use llmflow_contract::Work;

use super::Planned;
use crate::event::Effort;

/// What is expected of a stage that runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// None where neither the stage nor its operator ever ran.
    pub seconds: Option<f64>,
    /// Size of what it leaves in the store, in bytes.
    pub disk_bytes: u64,
}

/// How fast operators went, by their names: work done, and the seconds it took.
#[derive(Clone, Debug, Default)]
pub struct Rates(HashMap<String, (Work, f64)>);

impl Rates {
    /// Counts a stage that ran. Of an operator that changed its unit the first one told counts.
    pub(crate) fn add(&mut self, operator: String, work: Work, seconds: f64) {
        let (all, took) = self.0.entry(operator).or_insert((work, 0.0));
        if *took == 0.0 {
            (*all, *took) = (work, seconds);
            return;
        }
        let sum = match (*all, work) {
            (Work::Flops(this), Work::Flops(that)) => Work::Flops(this + that),
            (Work::Bytes(this), Work::Bytes(that)) => Work::Bytes(this.saturating_add(that)),
            (Work::Rows(this), Work::Rows(that)) => Work::Rows(this.saturating_add(that)),
            _ => return,
        };
        (*all, *took) = (sum, *took + seconds);
    }

    fn seconds(&self, operator: &str, work: Work) -> Option<f64> {
        let (all, took) = self.0.get(operator)?;
        Some(work.times(*all)? * took)
    }
}

impl Forecast {
    pub(crate) fn of(stage: &Planned, rates: &Rates) -> Self {
        let needs = stage.settled.plan.needs;
        let Some(last) = &stage.last else {
            return Self { seconds: rates.seconds(stage.entry.name, needs.work), disk_bytes: needs.disk_bytes };
        };
        let times = last.effort.and_then(|before| needs.work.times(before.work)).unwrap_or(1.0);
        let left = last.effort.map(|Effort { work, disk_bytes }| match work {
            Work::Flops(_) => disk_bytes, // a model trained for longer is no larger
            _ => (disk_bytes as f64 * times) as u64,
        });
        Self { seconds: Some(last.seconds * times), disk_bytes: left.unwrap_or(needs.disk_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_goes_as_fast_as_in_all_its_runs_together() {
        let mut rates = Rates::default();
        rates.add("data.load".into(), Work::Bytes(100), 1.0);
        rates.add("data.load".into(), Work::Bytes(300), 1.0);
        rates.add("data.load".into(), Work::Rows(7), 99.0);
        assert_eq!(rates.seconds("data.load", Work::Bytes(800)), Some(4.0));
        assert_eq!(rates.seconds("data.load", Work::Rows(800)), None, "another unit");
        assert_eq!(rates.seconds("data.load", Work::Unknown), None);
        assert_eq!(rates.seconds("data.dedup", Work::Bytes(800)), None, "never ran");
    }

    #[test]
    fn nothing_to_do_is_no_measure() {
        let mut rates = Rates::default();
        rates.add("data.load".into(), Work::Bytes(0), 1.0);
        assert_eq!(rates.seconds("data.load", Work::Bytes(800)), None);
    }
}
