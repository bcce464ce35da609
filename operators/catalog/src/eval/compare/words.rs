//! The comparison in words, and which answers to show.

use super::{
    pairs::{Pair, text},
    spec::Params,
};
use crate::eval::statistics::Ends;
use llmflow_contract::{Sample, Table};

/// Answers shown side by side, of which the worst.
const SHOWN: usize = 5;
const WORST: usize = 2;
/// Answers in the table of those that changed most.
const CHANGED: usize = 10;

/// `The tuned model answers 41 of 60 held-out questions; the base answered 25 (+0.27, 95 % 0.13…0.40).`
pub(super) fn sentence(params: &Params, right: (usize, usize), total: usize, delta: f64, ends: Ends) -> String {
    format!(
        "The {} answers {} of {total} held-out questions; the {} answered {} ({}, 95 % {}…{}).",
        params.candidate_name,
        right.1,
        params.baseline_name,
        right.0,
        signed(delta),
        unsigned(ends.lower),
        unsigned(ends.upper)
    )
}

/// `acc 0.42 → 0.68  (+0.27, 95 % +0.13…+0.40, n=60)`
pub(super) fn summary(baseline: f64, candidate: f64, delta: f64, ends: Ends, total: usize) -> String {
    let (lower, upper) = (signed(ends.lower), signed(ends.upper));
    format!("acc {baseline:.2} → {candidate:.2}  ({}, 95 % {lower}…{upper}, n={total})", signed(delta))
}

/// Five questions with both answers: the two that fared worst, and others evenly spaced, those answered freely first.
pub(super) fn side_by_side(params: &Params, pairs: &[Pair]) -> Vec<Sample> {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by(|a, b| pairs[*a].delta("gold_logprob").total_cmp(&pairs[*b].delta("gold_logprob")));
    let mut shown: Vec<usize> = order.into_iter().take(WORST).collect();
    for answered in [true, false] {
        let left: Vec<usize> = (0..pairs.len())
            .filter(|index| !shown.contains(index) && pairs[*index].is_answered() == answered)
            .collect();
        let count = (SHOWN.saturating_sub(shown.len())).min(left.len());
        shown.extend((0..count).map(|index| left[index * left.len() / count]));
    }
    let show = |(place, index): (usize, &usize)| {
        let pair = &pairs[*index];
        let question = text(&pair.baseline, "question").unwrap_or(&pair.baseline.title);
        let said = |sample: &Sample| match text(sample, "answer") {
            Some(answer) => answer.to_owned(),
            None => format!("(chose) {}", text(sample, "predicted").unwrap_or_default()),
        };
        let title = match pair.delta("gold_logprob") {
            _ if place >= WORST => "answer",
            lost if lost < 0.0 => "answer that lost most",
            _ => "answer that gained least",
        };
        Sample {
            row: pair.baseline.row.clone(),
            title: title.to_owned(),
            texts: vec![
                ("question".into(), question.to_owned()),
                ("right".into(), text(&pair.baseline, "gold").unwrap_or_default().to_owned()),
                (params.baseline_name.clone(), said(&pair.baseline)),
                (params.candidate_name.clone(), said(&pair.candidate)),
            ],
            metrics: [("gold_logprob_delta".to_owned(), pair.delta("gold_logprob"))].into(),
        }
    };
    shown.iter().enumerate().map(show).collect()
}

/// The ten questions whose right answer changed most in likelihood, either way.
pub(super) fn changed_most(params: &Params, pairs: &[Pair]) -> Table {
    let mut order: Vec<&Pair> = pairs.iter().collect();
    let size = |pair: &Pair| pair.delta("gold_logprob").abs();
    order.sort_by(|a, b| size(b).total_cmp(&size(a)).then_with(|| a.baseline.row.cmp(&b.baseline.row)));
    let mark = |sample: &Sample| {
        let right = sample.metrics.get("acc").is_some_and(|acc| *acc > 0.5);
        format!("{} {}", if right { "✓" } else { "✗" }, text(sample, "predicted").unwrap_or_default())
    };
    let row = |pair: &Pair| {
        vec![
            text(&pair.baseline, "question").unwrap_or_default().to_owned(),
            mark(&pair.baseline),
            mark(&pair.candidate),
            format!("{:+.1}", pair.delta("gold_logprob")),
        ]
    };
    Table {
        title: "answers that changed most".into(),
        columns: vec![
            "question".into(),
            params.baseline_name.clone(),
            params.candidate_name.clone(),
            "ln p of the right answer".into(),
        ],
        rows: order.into_iter().take(CHANGED).map(row).collect(),
    }
}

fn signed(value: f64) -> String {
    format!("{:+.2}", zero(value))
}
fn unsigned(value: f64) -> String {
    format!("{:.2}", zero(value))
}
/// Rounds to two places, so that a tiny negative number does not read as `-0.00`.
fn zero(value: f64) -> f64 {
    let rounded = (value * 100.0).round() / 100.0;
    if rounded == 0.0 { 0.0 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_reads_as_a_sentence() {
        let ends = Ends { lower: 0.13, upper: 0.4 };
        assert_eq!(
            sentence(&Params::default(), (25, 41), 60, 16.0 / 60.0, ends),
            "The tuned model answers 41 of 60 held-out questions; the base answered 25 (+0.27, 95 % 0.13…0.40)."
        );
        assert_eq!(
            summary(25.0 / 60.0, 41.0 / 60.0, 16.0 / 60.0, ends, 60),
            "acc 0.42 → 0.68  (+0.27, 95 % +0.13…+0.40, n=60)"
        );
        assert_eq!(signed(-0.001), "+0.00");
    }
}
