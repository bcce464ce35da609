//! One attempt in progress, as the live view tells it.

use std::collections::BTreeMap;

use llmflow_contract::Progress;
use llmflow_runtime::event::{Event, What};

use crate::render::format;

/// Cells of a bar, and of a curve.
const BAR: usize = 10;
const CURVE: usize = 8;
/// A rate is believed after this.
const SETTLED_MS: u64 = 2_000;

/// One attempt in progress.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub since_ms: u64,
    attempt: u32,
    is_restored: bool,
    progress: Option<Progress>,
    /// Where the first progress of this attempt stood, and when.
    first: Option<(u64, u64)>,
    curve: Vec<f64>,
    figures: BTreeMap<String, f64>,
}

impl Running {
    /// An attempt, numbered from 1, that began at this moment.
    pub fn new(since_ms: u64, attempt: u32) -> Self {
        Self { since_ms, attempt, ..Self::default() }
    }

    /// Takes in what a running stage tells.
    pub fn hear(&mut self, event: &Event) {
        match &event.what {
            What::Restored => self.is_restored = true,
            What::Progress(progress) => {
                self.first.get_or_insert((progress.done, event.at_ms));
                self.progress = Some(progress.clone());
            }
            What::Metric { name, value, step, .. } => {
                if name == "loss" && step.is_some() {
                    self.curve.push(*value);
                }
                self.figures.insert(name.clone(), *value);
            }
            _ => {}
        }
    }

    /// What stands behind the name and the time, and what stands below it.
    pub fn lines(&self, now_ms: u64) -> (String, String) {
        let mut first = Vec::new();
        if let Some(progress) = &self.progress {
            first.push(progress_text(progress));
        }
        if !self.curve.is_empty() {
            let last = self.curve.last().copied().unwrap_or_default();
            first.push(format!(
                "loss {} {}",
                format::number(last),
                format::sparkline(&format::trend(&self.curve, CURVE), CURVE)
            ));
        }
        if let Some(value) = self.figures.get("eval_loss") {
            first.push(format!("eval {}", format::number(*value)));
        }
        let mut second = Vec::new();
        if self.attempt > 1 {
            second.push(format!("attempt {}", self.attempt));
        }
        if self.is_restored {
            second.push("goes on from its checkpoint".to_owned());
        }
        if let Some(rate) = self.figures.get("tokens_per_second") {
            second.push(format!("{} tok/s", format::count(rate.max(0.0).round() as u64)));
        }
        if let Some(left) = self.seconds_left(now_ms) {
            let place = if second.is_empty() { &mut first } else { &mut second };
            place.push(format!("{} left", format::clock(left)));
        }
        (first.join(" · "), second.join(" · "))
    }

    fn seconds_left(&self, now_ms: u64) -> Option<f64> {
        let (progress, (done, at_ms)) = (self.progress.as_ref()?, self.first?);
        let elapsed_ms = now_ms.checked_sub(at_ms).filter(|elapsed| *elapsed >= SETTLED_MS)?;
        let moved = progress.done.checked_sub(done).filter(|moved| *moved > 0)?;
        let left = progress.total?.saturating_sub(progress.done);
        (left > 0).then(|| left as f64 * elapsed_ms as f64 / moved as f64 / 1000.0)
    }
}

fn progress_text(progress: &Progress) -> String {
    let unit = format::clean(&progress.unit);
    match progress.total {
        Some(total) => {
            let (bar, done, total) =
                (format::bar(progress.done, total, BAR), format::count(progress.done), format::count(total));
            format!("{bar} {done}/{total} {unit}")
        }
        None => format!("{} {unit}", format::count(progress.done)),
    }
}
