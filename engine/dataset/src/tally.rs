//! What became of all rows together, and the law that none vanishes.

use std::collections::BTreeMap;

use llmflow_contract::Funnel;

use crate::{DatasetError, Fate, TraceRecord};

/// How many rows met which fate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub kept: u64,
    pub changed: u64,
    pub made: u64,
    pub set_aside: u64,
    /// By rule.
    pub dropped: BTreeMap<String, u64>,
}

impl Tally {
    pub(crate) fn count(&mut self, record: &TraceRecord) {
        match record.verdict {
            Fate::Kept => self.kept += 1,
            Fate::Changed => self.changed += 1,
            Fate::Made => self.made += 1,
            Fate::SetAside => self.set_aside += 1,
            Fate::Dropped => {
                let rule = record.rule.clone().unwrap_or_else(|| "dropped".to_owned());
                *self.dropped.entry(rule).or_default() += 1;
            }
        }
    }

    /// The law: each row in has one fate, and the rows out are those kept, changed and made.
    pub(crate) fn check(&self, rows_in: u64, rows_out: u64) -> Result<(), DatasetError> {
        let dropped: u64 = self.dropped.values().sum();
        let accounted = self.kept + self.changed + dropped + self.set_aside;
        let out = self.kept + self.changed + self.made;
        if accounted == rows_in && out == rows_out {
            return Ok(());
        }
        let Self { kept, changed, made, set_aside, .. } = self;
        let detail = format!(
            "{kept} kept, {changed} changed, {dropped} dropped, {set_aside} set aside; {made} made, {rows_out} out"
        );
        Err(DatasetError::Law { rows_in, accounted, detail })
    }

    pub(crate) fn funnel(&self, rows_in: u64) -> Funnel {
        Funnel {
            rows_in,
            kept: self.kept + self.changed,
            made: self.made,
            set_aside: self.set_aside,
            dropped: self.dropped.clone(),
        }
    }
}
