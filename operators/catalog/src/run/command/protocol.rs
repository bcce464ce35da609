//! What a program tells on standard output: `LLMFLOW {"progress": …}` and `LLMFLOW {"metric": …}`.

use std::collections::BTreeMap;

use llmflow_contract::{Context, Failure, Report, Series};
use serde::Deserialize;

/// What a line of the protocol starts with.
const MARK: &str = "LLMFLOW ";
/// Points of one curve that are kept for the report.
const POINTS: usize = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Told {
    /// Done, total, unit.
    Progress(u64, Option<u64>, String),
    /// Name, value, step.
    Metric(String, f64, #[serde(default)] Option<u64>),
}

/// Passes on what is told, and keeps it for the report.
pub(super) struct Listener<'a> {
    ctx: &'a Context<'a>,
    declared: &'a [String],
    curves: BTreeMap<String, Vec<(f64, f64)>>,
    last: BTreeMap<String, f64>,
}

impl<'a> Listener<'a> {
    pub fn new(ctx: &'a Context<'a>, declared: &'a [String]) -> Self {
        Self { ctx, declared, curves: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// Whether the line was told to us; every other line is the log's. `scrub` takes secrets out of names.
    pub fn hear(&mut self, line: &str, scrub: &dyn Fn(&str) -> String) -> bool {
        let told = line.strip_prefix(MARK).and_then(|told| serde_json::from_str(told).ok());
        match told {
            None => return false,
            Some(Told::Progress(done, total, unit)) => self.ctx.progress(done, total, &scrub(&unit)),
            Some(Told::Metric(name, value, step)) => {
                if !self.declared.contains(&name) {
                    self.ctx.measured(&scrub(&name), value, step);
                    return true;
                }
                self.ctx.metric(&name, value, step);
                let points = self.curves.entry(name.clone()).or_default();
                if let Some(step) = step.filter(|_| points.len() < POINTS) {
                    points.push((step as f64, value));
                }
                self.last.insert(name, value);
            }
        }
        true
    }

    /// The report, with what was left behind.
    ///
    /// # Errors
    /// `command/no-metric` if a declared metric was never told.
    pub fn report(self, left: &[String]) -> Result<Report, Failure> {
        if let Some(name) = self.declared.iter().find(|name| !self.last.contains_key(*name)) {
            let message = format!("`{name}` is declared under `metrics`, and the command never told it");
            return Err(Failure::input("command/no-metric", message).param("metrics").help(format!(
                "print `LLMFLOW {{\"metric\": [\"{name}\", 0.1, 3]}}` on a line of its own, or remove it"
            )));
        }
        let told = self.declared.iter().map(|name| format!("{name} {:.4}", self.last[name]));
        let series = self.curves.into_iter().filter(|(_, points)| points.len() > 1).map(|(name, points)| Series {
            y_label: name.clone(),
            name,
            x_label: "step".into(),
            points,
        });
        Ok(Report {
            summary: told.chain(left.iter().cloned()).collect::<Vec<_>>().join(" · "),
            series: series.collect(),
            metrics: self.last,
            ..Report::default()
        })
    }
}
