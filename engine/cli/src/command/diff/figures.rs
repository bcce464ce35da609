//! Metrics side by side, and whether a difference is more than chance.

use std::collections::BTreeSet;

use llmflow_runtime::lineage::StageRow;

use super::{Pair, Side, answers::Compared};
use crate::render::diff::{Figure, Time, Verdict};

/// Of a normal distribution: 95 % lie within so many standard errors.
const Z: f64 = 1.96;
/// Metrics that say something of another one.
const ABOUT: [&str; 3] = [".lower95", ".upper95", "_stderr"];
/// Stages whose time is told, and the least share by which it must differ.
const TIMES: usize = 5;
const SHARE: f64 = 0.1;

/// The metrics that differ, those with an interval first, then the later stages' first.
pub(super) fn figures(pairs: &[Pair<'_>], answers: &[Compared]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for pair in pairs.iter().rev() {
        let compared = answers.iter().find(|compared| compared.shown.stage == pair.now.stage);
        let names: BTreeSet<&String> = pair.before.metrics.keys().chain(pair.now.metrics.keys()).collect();
        for name in names {
            if ABOUT.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let of = |row: &StageRow| row.metrics.get(name).copied();
            let (before, now) = (of(pair.before), of(pair.now));
            if is_same(before, now) {
                continue;
            }
            let interval = compared
                .and_then(|compared| paired(compared, name, before?, now?))
                .or_else(|| unpaired(pair, name, before?, now?));
            let verdict = interval.map(|interval| verdict(name, interval));
            figures.push(Figure { name: format!("{}.{name}", pair.name()), before, now, interval, verdict });
        }
    }
    figures.sort_by_key(|figure| figure.interval.is_none());
    figures
}

/// Two that are no numbers tell of no difference.
fn is_same(before: Option<f64>, now: Option<f64>) -> bool {
    let is_no_number = |value: Option<f64>| value.is_some_and(|value| !value.is_finite());
    before == now || is_no_number(before) && is_no_number(now)
}

/// The interval of a mean difference over questions that both answered.
fn paired(compared: &Compared, metric: &str, before: f64, now: f64) -> Option<(f64, f64)> {
    let deltas = compared.deltas(metric);
    if deltas.len() < 2 {
        return None;
    }
    let count = deltas.len() as f64;
    let mean = deltas.iter().sum::<f64>() / count;
    // A metric that is no mean of its questions, or is over others: nothing to pair.
    if (mean - (now - before)).abs() > 1e-6 * (1.0 + now.abs().max(before.abs())) {
        return None;
    }
    let variance = deltas.iter().map(|delta| (delta - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = Z * (variance / count).sqrt();
    Some((mean - half, mean + half))
}

/// The interval of a difference of two independent estimates. Two comparisons over the same questions are none: what they
/// compare has verdicts of its own, paired, which another one here could contradict.
fn unpaired(pair: &Pair<'_>, metric: &str, before: f64, now: f64) -> Option<(f64, f64)> {
    if metric.ends_with("_delta") {
        return None;
    }
    let error = |row: &StageRow| {
        let find = |end: &str| row.metrics.get(&format!("{metric}{end}")).copied();
        let ends = find(".lower95").zip(find(".upper95")).map(|(lower, upper)| (upper - lower) / (2.0 * Z));
        ends.or_else(|| find("_stderr"))
    };
    let half = Z * error(pair.before)?.hypot(error(pair.now)?);
    Some((now - before - half, now - before + half))
}

fn verdict(metric: &str, (lower, upper): (f64, f64)) -> Verdict {
    if lower <= 0.0 && upper >= 0.0 {
        return Verdict::NoClearDifference;
    }
    match is_more_better(metric) {
        None => Verdict::ClearDifference,
        Some(more) if more == (lower > 0.0) => Verdict::ClearlyBetter,
        Some(_) => Verdict::ClearlyWorse,
    }
}

/// Whether more of a metric is better, where its name says so.
pub(super) fn is_more_better(metric: &str) -> Option<bool> {
    const LESS: [&str; 4] = ["loss", "perplexity", "ppl", "error"];
    const MORE: [&str; 9] =
        ["acc", "f1", "exact_match", "win_rate", "gold_logprob", "key_phrase", "reward", "rouge", "pass"];
    if LESS.iter().any(|word| metric.contains(word)) {
        return Some(false);
    }
    MORE.iter().any(|word| metric.starts_with(word)).then_some(true)
}

/// The times that differ, the whole run's last.
pub(super) fn times(before: &Side, now: &Side, pairs: &[Pair<'_>]) -> Vec<Time> {
    let differs = |before: f64, now: f64| (now - before).abs() >= 1.0 && (now / before - 1.0).abs() >= SHARE;
    let has_run = |row: &StageRow| matches!(row.status.as_str(), "ran" | "refused");
    let stages = pairs.iter().filter(|pair| has_run(pair.before) && has_run(pair.now)).filter_map(|pair| {
        let (before, now) = (pair.before.seconds?, pair.now.seconds?);
        differs(before, now).then(|| Time { name: format!("{}.time", pair.name()), before, now })
    });
    let mut times: Vec<Time> = stages.collect();
    times.sort_by(|a, b| (b.now - b.before).abs().total_cmp(&(a.now - a.before).abs()));
    times.truncate(TIMES);
    if let (None, Some(old), Some(new)) = (&now.only, before.row.seconds, now.row.seconds)
        && differs(old, new)
    {
        times.push(Time { name: "whole run".into(), before: old, now: new });
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_within_its_interval_is_not_clear_and_the_metric_says_which_way_is_better() {
        assert_eq!(verdict("acc", (-0.08, 0.12)), Verdict::NoClearDifference);
        assert_eq!(verdict("acc", (0.01, 0.12)), Verdict::ClearlyBetter);
        assert_eq!(verdict("eval_loss", (0.01, 0.12)), Verdict::ClearlyWorse);
        assert_eq!(verdict("tokens", (0.01, 0.12)), Verdict::ClearDifference);
    }

    #[test]
    fn what_is_no_number_in_both_is_no_difference() {
        assert!(is_same(Some(f64::NAN), Some(f64::NAN)) && is_same(Some(0.5), Some(0.5)));
        assert!(!is_same(Some(f64::NAN), Some(0.5)) && !is_same(Some(f64::NAN), None));
    }

    #[test]
    fn pairs_say_more_than_the_errors_of_each() {
        let deltas: Vec<f64> = [1.0; 5].into_iter().chain([0.0; 95]).collect();
        let compared = Compared::of_deltas("acc", deltas);
        let (lower, upper) = paired(&compared, "acc", 0.5, 0.55).unwrap();
        assert!(lower > 0.0 && upper < 0.1, "{lower} {upper}");
        assert_eq!(paired(&compared, "acc", 0.5, 0.9), None, "not the mean of these questions");
    }
}
